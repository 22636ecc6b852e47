// Funnel: what was left after each step, why the other rows went, and which training rows are near a benchmark.
"use strict";

report.section({
  id: "funnel",
  title: "Funnel",
  async render(element, args) {
    const { h, part, table, chart, count } = report;
    const funnel = await report.load("funnel");
    const steps = new Map(funnel.steps.map((one) => [one.step, one.short]));
    steps.set("benign", "Harmless look-alikes");
    const state = { step: args.get("step") || "", set: args.get("set") || "", reason: args.get("reason"), page: Number(args.get("page")) || 0, near: args.get("near"), nearpage: Number(args.get("nearpage")) || 0 };
    element.append(report.anchors("funnel", [["left", "What was left"], ["reasons", "Why rows went"], ["contamination", "Contamination"]]));

    function note() {
      const kept = Object.entries(state).filter(([, value]) => value !== null && value !== "" && value !== 0 && value !== undefined);
      report.note("funnel", Object.fromEntries(kept));
    }

    // ---- what was left ----

    part(element, "left", "What was left",
      chart(funnel.chart, {
        about: "data",
        table: table({ caption: "Rows after each step", columns: [{ title: "Step", head: true, cell: (row) => row.name }, { title: "Rows left", number: true, cell: (row) => count(row.rows) }, { title: "Rows that went", number: true, cell: (row) => count(row.dropped) }], rows: funnel.steps }),
      }),
      h("details", {}, h("summary", {}, "Set by set"), table({
        caption: "Rows of each prompt set after each step of the collection",
        columns: [
          { title: "Prompt set", head: true, cell: (row) => row.source },
          ...funnel.steps.filter((one) => one.step in (funnel.sources[0] || {})).map((one) => ({ title: one.short, number: true, cell: (row) => count(row[one.step]) })),
        ],
        rows: funnel.sources,
      }), funnel.fetched.length > 0 && table({
        caption: "Rows of the raw files that were not taken",
        note: "Only their number is kept.",
        columns: [{ title: "Prompt set", head: true, cell: (row) => row.source }, { title: "Reason", cell: (row) => row.reason }, { title: "Rows", number: true, cell: (row) => count(row.rows) }],
        rows: funnel.fetched,
      })));

    // ---- why rows went ----

    const sets = [...new Set(funnel.groups.flatMap((group) => Object.keys(group.sources)))];
    const list = h("div", { id: "reason-list" });
    const examples = h("div", { id: "examples", "aria-live": "polite" });
    const inSet = (group) => (state.set ? group.sources[state.set] || 0 : group.rows);

    function reasons() {
      const chosen = funnel.groups.filter((group) => (!state.step || group.step === state.step) && inSet(group));
      const total = chosen.reduce((sum, group) => sum + inSet(group), 0);
      list.replaceChildren(table({
        id: "reasons-table",
        caption: `${report.plural(total, "row")} in ${report.plural(chosen.length, "group")}`,
        about: "data",
        note: "Every row that left, but for those that were not taken from the raw files.",
        columns: [
          { title: "Step", cell: (group) => steps.get(group.step) },
          { title: "Reason", head: true, cell: (group) => group.reason },
          { title: "Rows", number: true, sort: inSet, cell: (group) => count(inSet(group)) },
          { title: "Examples", cell: (group) => h("button", { type: "button", class: "link", "data-reason": group.number, "aria-label": `Examples of: ${group.reason}`, onclick: () => open(group.number) }, "Show") },
        ],
        rows: chosen,
      }));
    }

    function choose(key) {
      return (value) => {
        state[key] = value;
        note();
        reasons();
      };
    }

    function open(number) {
      Object.assign(state, { reason: String(number), page: 0 });
      return dropped(true);
    }

    async function dropped(move) {
      const group = funnel.groups[Number(state.reason)];
      if (!group) return;
      const body = h("ul", { class: "pairs" });
      const pager = report.pager(group.pages, async (page) => {
        state.page = page;
        note();
        const rows = await report.load(`funnel/dropped-${group.number}-${page}`);
        body.replaceChildren(...rows.map((row) => pair(row, "This row went")));
      }, (page) => `${told(page, group.shown)}${group.shown < group.rows ? `, examples spread evenly over ${report.plural(group.rows, "row")}` : ""}`);
      const title = h("h3", { tabindex: "-1", id: "examples-title" }, `${steps.get(group.step)}: ${group.reason}`);
      examples.replaceChildren(title, pager.element, body);
      await pager.to(state.page);
      if (move) {
        title.focus({ preventScroll: true });
        title.scrollIntoView();
      }
    }

    const told = (page, all) => `Rows ${page * funnel.page_rows + 1} to ${Math.min(all, (page + 1) * funnel.page_rows)} of ${count(all)} shown`;

    part(element, "reasons", "Why rows went",
      h("p", { class: "lead" }, "Reasons by step. A near-duplicate is shown beside the row that it is like; words that only one of the two has are marked."),
      h("div", { class: "filters" },
        report.select("Step", [["", "All steps"], ...[...new Set(funnel.groups.map((group) => group.step))].map((step) => [step, steps.get(step)])], state.step, choose("step")),
        report.select("Prompt set", [["", "All sets"], ...sets.map((name) => [name, name])], state.set, choose("set"))),
      list, examples);
    reasons();
    if (state.reason !== null) await dropped(false);

    // ---- contamination ----

    const { cells } = funnel.contamination;
    const most = Math.max(1, ...cells.map((cell) => cell.any));
    const near = h("div", { id: "near", "aria-live": "polite" });
    const at = new Map(cells.map((cell, number) => [`${cell.training}/${cell.benchmark}`, { ...cell, number }]));

    function square(training, benchmark) {
      const cell = at.get(`${training}/${benchmark}`);
      if (!cell) return h("td", { class: "number none" }, "–");
      if (!cell.any) return h("td", { class: "number none" }, "0");
      const level = Math.ceil((4 * cell.any) / most);
      const words = `${count(cell.any)} of ${count(cell.rows)} rows of ${training} near ${benchmark}: show`;
      return h("td", { class: `number heat heat-${level}` }, h("button", { type: "button", "data-near": cell.number, "aria-label": words, title: measures(cell), onclick: () => {
        Object.assign(state, { near: String(cell.number), nearpage: 0 });
        return pairs(true);
      } }, count(cell.any)));
    }

    const measures = (cell) => `exact ${cell.exact}, n-gram ${cell.ngram}, TF-IDF ${cell.tfidf}, embedding ${cell.embedding}; ${report.plural(cell.benchmark_rows, "row")} of the benchmark`;

    async function pairs(move) {
      const cell = cells[Number(state.near)];
      if (!cell || !cell.pairs) return;
      const body = h("ul", { class: "pairs" });
      const pager = report.pager(cell.pages, async (page) => {
        state.nearpage = page;
        note();
        const rows = await report.load(`funnel/near-${state.near}-${page}`);
        body.replaceChildren(...rows.map((row) => pair(row, "Training row")));
      }, (page) => told(page, cell.pairs).replace("Rows", "Pairs"));
      const title = h("h3", { tabindex: "-1", id: "near-title" }, `${cell.training} beside ${cell.benchmark}`);
      near.replaceChildren(title, h("p", { class: "note" }, `${report.plural(cell.any, "row")} of ${count(cell.rows)}: ${measures(cell)}.`), pager.element, body);
      await pager.to(state.nearpage);
      if (move) {
        title.focus({ preventScroll: true });
        title.scrollIntoView();
      }
    }

    part(element, "contamination", "Contamination",
      h("p", { class: "lead" }, "Rows of each training set that are equal to a benchmark's row, share words in a row with one, or are near to one by TF-IDF or embedding. Prompt sets are shown as they were fetched; the rows below them are what came of them."),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Contamination matrix" },
        h("table", { class: "matrix", id: "matrix" }, h("caption", {}, h("span", {}, "Training rows near a benchmark", report.mark("data"), h("small", {}, "A number opens its pairs."))),
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Training set"), funnel.contamination.benchmarks.map((name) => h("th", { scope: "col", class: "number" }, name)))),
          h("tbody", {}, funnel.contamination.training.map((training) => h("tr", {}, h("th", { scope: "row" }, training), funnel.contamination.benchmarks.map((benchmark) => square(training, benchmark))))))),
      near);
    if (state.near !== null) await pairs(false);

    // ---- a row, and the one that it is like ----

    function pair(row, title) {
      const facts = [row.ngram && `shared words: “${row.ngram}”`, row.similarity !== undefined && `cosine ${row.similarity.toFixed(3)}`, row.tfidf !== undefined && `TF-IDF cosine ${row.tfidf.toFixed(3)}`, row.embedding !== undefined && `embedding cosine ${row.embedding.toFixed(3)}`, row.exact && "the same text", row.category && row.category.join(", "), row.score && Object.entries(row.score).map(([name, mark]) => `${name.replaceAll("_", " ")} ${mark}`).join(", "), row.detail].filter(Boolean);
      const other = row.matched;
      return h("li", { class: "pair" }, h("p", {}, row.id.startsWith(row.source) ? row.id : `${row.source} ${row.id}`, facts.length ? `: ${facts.join("; ")}` : ""),
        other
          ? h("div", {}, side(title, row.question, other.question), side(`${other.benchmark ? "Benchmark" : "Prompt set"} ${other.set}, ${other.id}`, other.question, row.question))
          : h("div", { class: "alone" }, side(null, row.question, null)));
    }

    function side(title, text, other) {
      return h("div", {}, title && h("h4", {}, title), text === null ? h("p", { class: "note" }, "Its text has changed since.") : h("p", { class: "text", dir: "auto" }, marked(text, other)));
    }

    // The text with those words marked that the other one lacks.
    function marked(text, other) {
      if (!other || text.length > 2000) return text;
      const words = (each) => each.toLowerCase().split(/[^\p{L}\p{N}']+/u);
      const known = new Set(words(other));
      return text.split(/([\p{L}\p{N}']+)/u).map((piece) => (/[\p{L}\p{N}]/u.test(piece) && !known.has(piece.toLowerCase()) ? h("mark", {}, piece) : piece));
    }
  },
});
