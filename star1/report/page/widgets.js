// What sections are made of: parts with headings, tables, charts, figures, paging. All are functions on `report`.
"use strict";

(() => {
  const { h, append } = report;

  // ---- numbers ----

  const whole = new Intl.NumberFormat("en-US");
  report.count = (n) => (n === null || n === undefined ? "–" : whole.format(n));
  report.percent = (share, digits = 1) => (share === null || share === undefined ? "–" : (100 * share).toFixed(digits));
  report.plural = (n, one, many) => `${report.count(n)} ${n === 1 ? one : many || one + "s"}`;
  // A rate as every cell shows it: percent, its interval, and what it was counted on.
  report.rate = (one) => {
    if (!one) return h("span", {}, "–");
    const ends = one.value === null || one.low === null || one.low === undefined ? null : `[${report.percent(one.low)}, ${report.percent(one.high)}]`;
    const of = one.total === undefined ? null : `${report.count(one.n)}/${report.count(one.total)} scored`;
    return h("span", {}, h("span", { class: "value" }, report.percent(one.value)), ends && [" ", h("small", {}, ends)], of && [h("br"), h("small", {}, of)]);
  };

  // ---- parts ----

  // A part of a section with a heading that can be linked to (`?at=id`).
  report.part = (element, id, title, ...children) => {
    const part = h("section", { "aria-labelledby": `${id}-title`, id }, h("h2", { id: `${id}-title`, tabindex: "-1" }, title), children);
    element.append(part);
    return part;
  };

  // Links to the parts of a section: [[id, title], ...].
  report.anchors = (section, parts) =>
    h("ul", { class: "anchors", "aria-label": "On this page" }, parts.map(([id, title]) =>
      h("li", {}, h("a", { href: report.address(section, { at: id }), onclick: (event) => {
        event.preventDefault();
        report.note(section, { at: id });
        document.getElementById(id).scrollIntoView();
        document.getElementById(`${id}-title`).focus();
      } }, title))));

  // items: [[name, value, note, what it rests on], ...]
  report.figures = (items) =>
    h("dl", { class: "figures" }, items.map(([name, value, note, about]) =>
      h("div", {}, h("dt", {}, name, about && report.mark(about)), h("dd", {}, value, note && h("small", {}, note)))));

  // ---- tables ----

  // columns: [{title, cell(row, grouped) -> text or element, number, sort(row), head: true for the row's name, wide}]
  // group(row): the heading that it stands under, until the table is sorted.
  report.table = ({ caption, note, about, columns, rows, group, id }) => {
    const sortable = columns.some((column) => column.sort);
    const body = h("tbody");
    const heads = columns.map((column, at) => {
      const title = column.sort ? h("button", { type: "button", onclick: () => sortBy(at) }, column.title) : column.title;
      return h("th", { scope: "col", class: column.number && "number", "aria-sort": column.sort && "none" }, title);
    });
    let order = null;

    function sortBy(at) {
      const up = !(order && order.at === at && order.up);
      order = { at, up };
      heads.forEach((head, each) => columns[each].sort && head.setAttribute("aria-sort", each === at ? (up ? "ascending" : "descending") : "none"));
      const of = columns[at].sort;
      const compare = (a, b) => (a === b ? 0 : a === null || a === undefined ? 1 : b === null || b === undefined ? -1 : (a < b ? -1 : 1) * (up ? 1 : -1));
      fill([...rows].sort((a, b) => compare(of(a), of(b))), false);
    }

    function line(row, grouped) {
      return h("tr", {}, columns.map((column) => {
        const content = column.cell(row, grouped);
        const shown = content === null || content === undefined ? "–" : content;
        const attributes = { class: [column.number && "number", column.wide && "wide", content === null && "none"].filter(Boolean).join(" ") || null };
        return column.head ? h("th", { scope: "row", ...attributes }, shown) : h("td", attributes, shown);
      }));
    }

    function fill(chosen, grouped) {
      const lines = [];
      let last;
      for (const row of chosen) {
        if (grouped && group && group(row) !== last) {
          last = group(row);
          lines.push(h("tr", { class: "group" }, h("th", { colspan: columns.length, scope: "rowgroup" }, last)));
        }
        lines.push(line(row, grouped && group));
      }
      body.replaceChildren(...lines);
    }

    fill(rows, true);
    const table = h("table", { id }, h("caption", {}, h("span", {}, caption, about && report.mark(about), note && h("small", {}, note))), h("thead", {}, h("tr", {}, heads)), body);
    return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption, "data-sortable": sortable }, table);
  };

  // ---- charts ----

  let vega = null;
  const tip = h("div", { id: "tip", hidden: true });
  document.body.append(tip);

  // Colours of the sheet as Vega can read them.
  function colours() {
    const probe = h("span");
    document.body.append(probe);
    const read = (name) => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    };
    const found = Object.fromEntries(["ink", "quiet", "line", "accent", "heat-low", "heat-high", "bg", "surface", "warn-ink", ...[1, 2, 3, 4, 5, 6].map((n) => `series-${n}`)].map((name) => [name, read(name)]));
    probe.remove();
    return found;
  }

  // The names in a chart's legend.
  function named(value) {
    if (value === null || typeof value !== "object") return null;
    return (value.legend && value.legend.values) || Object.entries(value).reduce((found, [key, one]) => found || (key === "data" ? null : named(one)), null);
  }

  function look(width, spec) {
    const c = colours();
    const font = getComputedStyle(document.body).fontFamily;
    const narrow = innerWidth < 640; // px, as in style.css
    const axis = { labelColor: c.quiet, titleColor: c.quiet, gridColor: c.line, domainColor: c.line, tickColor: c.line, labelFont: font, titleFont: font, labelFontSize: narrow ? 11 : 12, titleFontSize: narrow ? 11 : 12, titleFontWeight: 400, labelLimit: Math.max(100, Math.min(300, (narrow ? 0.54 : 0.46) * width)), titlePadding: 8, labelPadding: 5, labelSeparation: 8 };
    const longest = Math.max(1, ...(named(spec) || []).map((name) => name.length));
    return {
      background: null,
      font,
      axis,
      axisX: { titleAnchor: narrow ? "end" : "middle" }, // where the plot is narrow, there is room to its left
      // It stands above the plot alone, whose width is not known before.
      legend: { labelColor: c.ink, titleColor: c.quiet, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400, columns: narrow ? 1 : Math.max(1, Math.min(6, Math.floor((0.75 * width) / (8 * longest + 34)))), labelLimit: Math.max(100, 0.6 * width), symbolOpacity: 1, symbolStrokeWidth: 2 },
      title: { color: c["warn-ink"], fontSize: 12, fontWeight: 600, anchor: "start", offset: 6 },
      view: { stroke: null },
      mark: { color: c["series-1"] },
      bar: { color: c["series-1"] },
      rule: { color: c.quiet },
      text: { color: c.ink, fontSize: 12 },
      range: { category: [1, 2, 3, 4, 5, 6].map((n) => c[`series-${n}`]), heatmap: [c["heat-low"], c["heat-high"]], ramp: [c["heat-low"], c["heat-high"]] },
    };
  }

  // Colours that a specification names as "@ink".
  function paint(value, c) {
    if (typeof value === "string") return value.startsWith("@") && value.slice(1) in c ? c[value.slice(1)] : value;
    if (Array.isArray(value)) return value.map((one) => paint(one, c));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, key === "data" || key === "datasets" ? one : paint(one, c)]));
  }

  function hint(_, event, item, value) {
    if (!value || value === "" || event.type === "pointerout" || event.type === "mouseout") {
      tip.hidden = true;
      return;
    }
    const pairs = typeof value === "object" ? Object.entries(value) : [["", value]];
    tip.replaceChildren(h("dl", {}, pairs.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 8))}px`;
    tip.style.top = `${event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 16}px`;
  }

  const undrawn = new Set();
  let drawing = false;

  // Charts that nobody scrolls to are drawn one by one while nothing else is to be done: what is printed shows all.
  async function drawRest() {
    if (drawing) return;
    drawing = true;
    await report.idle(3000);
    for (const begin of undrawn) {
      await report.idle(3000);
      await begin();
    }
    drawing = false;
  }

  // A chart from its Vega-Lite specification, {spec, title, note, says}: `says` tells in words what it shows.
  // `chosen(datum)`: what happens when one of its marks is clicked; never the only way to get there.
  report.chart = (chart, { about, table, chosen } = {}) => {
    const place = h("div", { class: "chart", role: "img", "aria-label": chart.says });
    const wide = chart.columns > 9; // room for each column's name
    if (wide) place.style.minWidth = `${12 + 1.7 * chart.columns}rem`;
    const figure = h("figure", {}, h("figcaption", {}, chart.title, about && report.mark(about), chart.note && h("small", {}, chart.note)), wide ? h("div", { class: "scroll bare", tabindex: "0", role: "region", "aria-label": chart.title }, place) : place,
      table && h("details", {}, h("summary", {}, "The numbers as a table"), table));
    let view = null;
    let width = 0;

    async function draw() {
      vega = vega || report.script("vega.js");
      await vega;
      if (!place.isConnected) return;
      if (view) view.finalize();
      width = place.clientWidth;
      const spec = paint(chart.spec, colours());
      if (about && report.page.standIn[about]) spec.title = "Stand-in: no finding about any model";
      // `ast`: expressions are interpreted, so the page needs no leave to make code from text.
      view = await vegaEmbed(place, spec, { actions: false, ast: true, config: look(width, spec), defaultStyle: false, hover: false, renderer: "svg", tooltip: hint });
      if (chosen) view.view.addEventListener("click", (_, item) => item && item.datum && chosen(item.datum));
      place.dataset.drawn = "true";
    }

    const failed = (error) => place.replaceChildren(h("p", { class: "fault" }, `The chart cannot be drawn: ${error.message}`));
    const start = () => draw().catch(failed);
    const begin = () => {
      undrawn.delete(begin);
      if (!place.clientWidth) return undefined; // not on the page, or folded away: drawn when it is seen
      seen.disconnect();
      report.onTheme(place, start);
      return start();
    };
    const seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && begin(), { rootMargin: "400px" });
    seen.observe(place);
    undrawn.add(begin);
    drawRest();
    new ResizeObserver(() => {
      if (view && Math.abs(place.clientWidth - width) > 1) start();
    }).observe(place);
    return figure;
  };

  // ---- paging ----

  // Buttons through `pages` pages; `turn(page)` shows one. Says how many rows there are of how many.
  report.pager = (pages, turn, told) => {
    const state = h("span", { role: "status" });
    const back = h("button", { type: "button", onclick: () => to(page - 1) }, "Previous");
    const on = h("button", { type: "button", onclick: () => to(page + 1) }, "Next");
    let page = 0;

    function to(next) {
      page = Math.max(0, Math.min(pages - 1, next));
      back.disabled = page === 0;
      on.disabled = page >= pages - 1;
      state.textContent = told(page);
      return turn(page);
    }

    const element = h("div", { class: "pages" }, pages > 1 && [back, on], state);
    return { element, to };
  };

  report.select = (label, options, value, change) =>
    h("label", {}, label, h("select", { onchange: (event) => change(event.target.value) }, options.map(([key, text]) => h("option", { value: key, selected: key === value }, text))));

  report.append = append;
})();
