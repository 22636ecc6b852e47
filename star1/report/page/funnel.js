// Funnel: what was left after each step, why the other rows went, and which training rows are near a benchmark.
"use strict";

(() => {
  const { h, part, table, chart, count, plural } = report;
  // Steps whose rows have marks, and stand among the transcripts.
  const SCORED = ["full marks", "balanced"];
  const KEYS = ["step", "source", "reason", "page", "near", "nearpage"];
  const name = (title, cell) => ({ title, cell, head: true });
  const number = (title, cell, more) => ({ title, cell, number: true, ...more });

  report.section({
    id: "funnel",
    title: "Funnel",
    async render(element, args) {
      const funnel = await report.load("funnel");
      const steps = new Map([...funnel.steps.map((one) => [one.step, one.short]), ["benign", "Harmless look-alikes"]]);
      const state = new State(args);
      element.append(report.anchors("funnel", [["left", "What was left"], ["reasons", "Why rows went"], ["contamination", "Contamination"]]));
      const examples = h("div", { id: "examples", "aria-live": "polite" });
      const why = h("div");
      const fill = () => why.replaceChildren(...reasons(funnel, steps, state, examples));
      part(element, "left", "What was left", left(funnel, (step) => {
        state.set({ step, source: "" });
        fill();
        document.getElementById("reasons").scrollIntoView();
        document.getElementById("reasons-title").focus({ preventScroll: true });
      }));
      fill();
      part(element, "reasons", "Why rows went", why, examples);
      if (state.reason) await dropped(funnel, steps, state, examples, false);
      const near = h("div", { id: "near", "aria-live": "polite" });
      part(element, "contamination", "Contamination", contamination(funnel, state, near), near);
      if (state.near) await pairs(funnel, state, near, false);
    },
  });

  // What is chosen in the section, as it stands in the address.
  class State {
    constructor(args) {
      for (const key of KEYS) this[key] = args.get(key) || "";
    }

    set(changes) {
      Object.assign(this, changes);
      const first = (key) => key.endsWith("page") && this[key] === "0"; // goes without saying
      report.note("funnel", Object.fromEntries(KEYS.filter((key) => this[key] && !first(key)).map((key) => [key, this[key]])));
    }
  }

  // ---- what was left ----

  // `go(step)` shows why rows went there.
  function left(funnel, go) {
    const known = new Set(funnel.groups.map((group) => group.step));
    const went = (row) => (known.has(row.step) ? h("button", { type: "button", class: "link", "data-step": row.step, "aria-label": `${count(row.dropped)}: why these rows went`, onclick: () => go(row.step) }, count(row.dropped)) : count(row.dropped));
    const counted = funnel.steps.filter((one) => one.step in (funnel.sources[0] || {}));
    return [
      h("p", { class: "lead" }, "From the rows of the prompt sets to the final data set. The pool is what a set is held against: all benchmarks that rows are dropped for, and what is left of the sets before it."),
      chart(funnel.chart, {
        about: "data",
        chosen: (bar) => known.has(bar.step) && go(bar.step),
        table: table({ caption: "Rows after each step", columns: [name("Step", (row) => row.name), number("Rows left", (row) => count(row.rows)), number("Rows that went", went)], rows: funnel.steps }),
      }),
      h("details", {}, h("summary", {}, "Set by set"),
        table({
          caption: "Rows of each prompt set after each step of the collection",
          about: "data",
          columns: [name("Prompt set", (row) => row.source), ...counted.map((one) => number(one.short, (row) => count(row[one.step])))],
          rows: funnel.sources,
        }),
        funnel.fetched.length > 0 && table({
          caption: "Rows of the raw files that were not taken",
          about: "data",
          note: "Only their number is kept.",
          columns: [name("Prompt set", (row) => row.source), { title: "Reason", cell: (row) => row.reason }, number("Rows", (row) => count(row.rows))],
          rows: funnel.fetched,
        })),
    ];
  }

  // ---- why rows went ----

  function reasons(funnel, steps, state, examples) {
    const sets = [...new Set(funnel.groups.flatMap((group) => Object.keys(group.sources)))];
    const there = [...new Set(funnel.groups.map((group) => group.step))];
    const list = h("div", { id: "reason-list" });
    const show = () => list.replaceChildren(groups(funnel, steps, state, examples));
    const choose = (key) => (value) => {
      state.set({ [key]: value });
      show();
    };
    show();
    return [
      h("p", { class: "lead" }, "Reasons by step; each opens its rows. A near-duplicate is shown beside the row that it is like, with the words marked that only one of the two has."),
      h("div", { class: "filters" },
        report.select("Step", [["", "All steps"], ...there.map((step) => [step, steps.get(step)])], state.step, choose("step")),
        report.select("Prompt set", [["", "All sets"], ...sets.map((one) => [one, one])], state.source, choose("source"))),
      list,
    ];
  }

  function groups(funnel, steps, state, examples) {
    const rows = (group) => (state.source ? group.sources[state.source] || 0 : group.rows);
    const chosen = funnel.groups.filter((group) => (!state.step || group.step === state.step) && rows(group));
    const inStep = new Map();
    for (const group of chosen) inStep.set(group.step, (inStep.get(group.step) || 0) + rows(group));
    const button = (group) => h("button", { type: "button", class: "link", "data-reason": group.number, "aria-label": `Examples of: ${spaced(group.reason)}`, onclick: () => {
      state.set({ reason: String(group.number), page: "" });
      return dropped(funnel, steps, state, examples, true);
    } }, "Show");
    return table({
      id: "reasons-table",
      caption: `${plural(chosen.reduce((sum, group) => sum + rows(group), 0), "row")} in ${plural(chosen.length, "group")}`,
      about: "data",
      note: "Every row that left, but for those that were not taken from the raw files.",
      group: (group) => `${steps.get(group.step)}: ${plural(inStep.get(group.step), "row")}`,
      columns: [
        name("Reason", (group, grouped) => (grouped ? spaced(group.reason) : h("span", {}, spaced(group.reason), " ", h("small", {}, steps.get(group.step))))),
        number("Rows", (group) => count(rows(group)), { sort: rows }), { title: "Examples", cell: button },
      ],
      rows: chosen,
    });
  }

  // Marks are named in the words of the rubric.
  const spaced = (reason) => (/^(\w+: )?score \d+ on /.test(reason) ? reason.replaceAll("_", " ") : reason);

  async function dropped(funnel, steps, state, place, move) {
    const group = funnel.groups[Number(state.reason)];
    if (!group) return;
    const more = group.shown < group.rows ? `, examples spread evenly over ${plural(group.rows, "row")}` : "";
    await paged({
      place, move, id: "examples-title", title: `${steps.get(group.step)}: ${spaced(group.reason)}`, note: state.source && Object.keys(group.sources).length > 1 ? "Of all prompt sets together." : null, pages: group.pages, page: Number(state.page),
      told: (page) => `Rows ${range(funnel, page, group.shown)} shown${more}`,
      rows: (page) => {
        state.set({ page: String(page) });
        return report.load(`funnel/dropped-${group.number}-${page}`);
      },
      side: "This row went",
      harmful: group.harmful,
      linked: (row) => (SCORED.includes(group.step) ? h("a", { href: report.address("transcripts", { set: "scored", row: row.id }) }, "Transcript") : h("code", {}, `star1 passport ${passport(row, group)}`)),
    });
  }

  // Before the collection a row has no id but its place in its set; a look-alike has that of its original, and is there if it was written.
  function passport(row, group) {
    const kind = row.id.startsWith(row.source) ? "fetched" : group.step === "benign" && !group.harmful ? "benign" : "row";
    return `${kind}:${row.id}`;
  }

  function range(funnel, page, all) {
    return `${page * funnel.page_rows + 1} to ${Math.min(all, (page + 1) * funnel.page_rows)} of ${count(all)}`;
  }

  // Rows with what they are like, page by page.
  async function paged({ place, move, id, title, note, pages, page, told, rows, side, harmful, linked }) {
    const body = h("ul", { class: "pairs" });
    const pager = report.pager(pages, async (at) => body.replaceChildren(...(await rows(at)).map((row) => pair(row, side, harmful, linked))), told);
    const heading = h("h3", { tabindex: "-1", id }, title);
    place.replaceChildren(heading, ...(note ? [h("p", { class: "note" }, note)] : []), h("div", { class: "tr-bar" }, pager.element, harmful && transcriptText.harmControl()), body);
    await pager.to(page || 0);
    if (move) {
      heading.focus({ preventScroll: true });
      heading.scrollIntoView();
    }
  }

  // ---- contamination ----

  function contamination(funnel, state, near) {
    const { training, benchmarks, cells } = funnel.contamination;
    const most = Math.max(1, ...cells.map((cell) => cell.any));
    const at = new Map(cells.map((cell, place) => [`${cell.training}/${cell.benchmark}`, { ...cell, place }]));
    const sizes = new Map(cells.map((cell) => [cell.training, `of ${plural(cell.rows, "row")}`]));
    const open = (place) => {
      state.set({ near: String(place), nearpage: "" });
      return pairs(funnel, state, near, true);
    };
    return [
      h("p", { class: "lead" }, "Rows of each training set that are equal to a benchmark's row, share words in a row with one, or are near to one by TF-IDF or embedding. Prompt sets are shown as they were fetched; the rows below them are what came of them."),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Contamination matrix" },
        h("table", { class: "matrix", id: "matrix" },
          h("caption", {}, h("span", {}, "Training rows near a benchmark", report.mark("data"), h("small", {}, "Rows of the training set; a number opens its pairs."))),
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Training set"), benchmarks.map((one) => h("th", { scope: "col", class: "number" }, one)))),
          h("tbody", {}, training.map((one) => h("tr", {}, h("th", { scope: "row" }, one, h("small", {}, sizes.get(one))), benchmarks.map((benchmark) => square(at.get(`${one}/${benchmark}`), most, open))))))),
    ];
  }

  function square(cell, most, open) {
    if (!cell || !cell.any) return h("td", { class: "number none" }, cell ? "0" : "–");
    const words = `${count(cell.any)} of ${count(cell.rows)} rows of ${cell.training} near ${cell.benchmark}: show`;
    return h("td", { class: `number heat heat-${Math.ceil((4 * cell.any) / most)}` },
      h("button", { type: "button", "data-near": cell.place, "aria-label": words, title: measures(cell), onclick: () => open(cell.place) }, count(cell.any)));
  }

  function measures(cell) {
    return `${count(cell.exact)} the same text, ${count(cell.ngram)} with an n-gram in common, ${count(cell.tfidf)} near by TF-IDF, ${count(cell.embedding)} near by embedding; to ${plural(cell.benchmark_rows, "row")} of the benchmark`;
  }

  async function pairs(funnel, state, place, move) {
    const cell = funnel.contamination.cells[Number(state.near)];
    if (!cell || !cell.pairs) return;
    await paged({
      place, move, id: "near-title", title: `${cell.training} beside ${cell.benchmark}`, note: `${count(cell.any)} of ${plural(cell.rows, "training row")}: ${measures(cell)}.`,
      pages: cell.pages, page: Number(state.nearpage),
      told: (page) => `Pairs ${range(funnel, page, cell.pairs)} shown`,
      rows: (page) => {
        state.set({ nearpage: String(page) });
        return report.load(`funnel/near-${state.near}-${page}`);
      },
      side: "Training row",
      harmful: true,
    });
  }

  // ---- a row, and the one that it is like ----

  function pair(row, title, harmful, linked) {
    const told = facts(row).join("; ");
    const other = row.matched;
    const sides = other
      ? h("div", { class: "sides", tabindex: "-1" }, side(title, row.question, other.question), side(`${other.benchmark ? "Benchmark" : "Prompt set"} ${other.set}, ${other.id}`, other.question, row.question))
      : h("div", { class: "sides alone", tabindex: "-1" }, side(null, row.question, null));
    // As the transcripts do; a script that comes later, but long before anything is opened.
    const shown = harmful ? transcriptText.veil(`funnel\n${row.source}\n${row.id}`, sides) : sides;
    return h("li", { class: "pair" },
      h("p", {}, h("span", {}, row.id.startsWith(row.source) ? row.id : `${row.source} ${row.id}`, told && `: ${told}`), linked && linked(row)),
      shown);
  }

  function facts(row) {
    const cosine = (key, words) => row[key] !== undefined && `${words} ${row[key].toFixed(3)}`;
    return [
      row.ngram && `shared words: “${row.ngram}”`, cosine("similarity", "cosine"), cosine("tfidf", "TF-IDF cosine"), cosine("embedding", "embedding cosine"), row.exact && "the same text",
      row.category && row.category.join(", "), row.score && Object.entries(row.score).map(([criterion, mark]) => `${criterion.replaceAll("_", " ")} ${mark}`).join(", "), row.detail,
    ].filter(Boolean);
  }

  function side(title, text, other) {
    return h("div", {}, title && h("h4", {}, title), text === null ? h("p", { class: "note" }, "Its text has changed since.") : h("p", { class: "text", dir: "auto" }, marked(text, other)));
  }

  // The text with those words marked that the other one lacks.
  function marked(text, other) {
    if (!other || text.length > 2000) return text;
    const known = new Set(other.toLowerCase().split(/[^\p{L}\p{N}']+/u));
    return text.split(/([\p{L}\p{N}']+)/u).map((piece) => (/[\p{L}\p{N}]/u.test(piece) && !known.has(piece.toLowerCase()) ? h("mark", {}, piece) : piece));
  }
})();
