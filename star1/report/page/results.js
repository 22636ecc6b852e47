// Results: rates with intervals and coverage, beside the published ones, and how far the judges agree.
"use strict";

report.section({
  id: "results",
  title: "Results",
  async render(element, args) {
    const { h, part, table, chart, count, percent, rate } = report;
    const [results, agreement] = await Promise.all([report.load("results"), report.load("results/agreement")]);
    const { main, paired } = results;
    const level = `${percent(main.confidence, 0)} %`;
    const unique = (list) => [...new Set(list)];
    const signed = (share) => (share === null || share === undefined ? "–" : `${share > 0 ? "+" : share < 0 ? "−" : ""}${Math.abs(100 * share).toFixed(1)}`);
    const small = (...text) => h("small", {}, text);
    const p = (value) => (value === null || value === undefined ? null : value < 0.0001 ? "< 0.0001" : value.toFixed(4));
    const scored = (one) => `${count(one.n)}/${count(one.total)}`;
    const parts = [["rates", "Rates"], ["frontier", "Frontier"], ["paired", "Against the base"], ["published", "Beside the published"], ["judges", "Judges and agreement"], ["ladder", "Protocol ladder"], ["stability", "Stability"], ["losses", "Loss curves"]];
    element.append(report.anchors("results", parts));

    // ---- rates ----

    const today = new Date().toISOString().slice(0, 10);
    const ending = new Map(results.ends.map((one) => [one.label, one]));
    const end = (one) => `${one.retires < today ? "ended" : "ends"} ${one.retires}`;
    const judgesOf = (cells) => unique(cells.flatMap((cell) => cell.judges || []));

    function measure(name) {
      const cells = main.cells.filter((cell) => cell.measure === name);
      const at = new Map(cells.map((cell) => [`${cell.model}/${cell.benchmark}`, cell]));
      const told = unique(cells.flatMap((cell) => cell.judged || [])).join("; ");
      return table({
        caption: name,
        note: `Percent with ${level} interval; below it the answers with a verdict, of all. Judged by ${told}.`,
        about: "results",
        columns: [
          { title: "Model", head: true, cell: (row) => row },
          ...unique(cells.map((cell) => cell.benchmark)).map((benchmark) => {
            const gone = judgesOf(cells.filter((cell) => cell.benchmark === benchmark)).filter((label) => ending.has(label));
            const title = h("span", {}, benchmark === "all" ? "all together" : benchmark, gone.map((label) => [h("br"), small(`${label} ${end(ending.get(label))}`)]));
            return { title, number: true, cell: (row) => (at.has(`${row}/${benchmark}`) ? rate(at.get(`${row}/${benchmark}`)) : null) };
          }),
        ],
        rows: unique(cells.map((cell) => cell.model)),
      });
    }

    const measures = unique(main.cells.map((cell) => cell.measure));
    const unscored = main.cells.filter((cell) => cell.benchmark !== "all").flatMap((cell) => Object.entries(cell.unscored).map(([why, n]) => ({ ...cell, why, unscored: n })));
    const averages = unique(main.averages.map((one) => one.average));
    part(element, "rates", "Rates",
      results.ends.map((one) => h("p", { class: "warn" }, `${one.label} (${one.model}), the judge ${one.judge}, ${one.retires < today ? "was served until" : "is served until"} ${one.retires}. ${one.retires < today ? "Its columns cannot be made again" : "After that its columns cannot be made again"}: only what is stored of its replies can then be read anew (${one.purposes.join(", ")} prompts).`)),
      measures.map((name) => [measure(name), results.charts.filter((one) => one.measure === name).map((one) => chart(one, { about: "results" }))]),
      main.averages.length > 0 && table({
        caption: "Averages over benchmarks",
        about: "results",
        note: `Unweighted means, with ${level} interval.`,
        columns: [{ title: "Model", head: true, cell: (row) => row }, ...averages.map((name) => ({
          title: h("span", {}, name, h("br"), small(main.averages.find((one) => one.average === name).benchmarks.join(", "))),
          number: true,
          cell: (row) => {
            const one = main.averages.find((each) => each.average === name && each.model === row);
            return !one ? null : one.value === null ? small(one.why) : rate(one);
          },
        }))],
        rows: unique(main.averages.map((one) => one.model)),
      }),
      main.passes.length > 0 && table({ caption: "pass@k", about: "results", columns: [{ title: "Model", head: true, cell: (row) => row.model }, { title: "Benchmark", cell: (row) => row.benchmark }, { title: "k", number: true, cell: (row) => row.k }, { title: "pass@k", number: true, cell: (row) => rate({ ...row, total: undefined }) }], rows: main.passes }),
      main.seeds.length > 0 && table({ caption: "Over seeds", about: "results", note: "Intervals are over items; lowest and highest are single seeds.", columns: [{ title: "Run", head: true, cell: (row) => row.model }, { title: "Benchmark", cell: (row) => row.benchmark }, { title: "Measure", cell: (row) => row.measure }, { title: "Mean", number: true, cell: rate }, { title: "Lowest", number: true, cell: (row) => percent(row.lowest ?? row.seed_low ?? null) }, { title: "Highest", number: true, cell: (row) => percent(row.highest ?? row.seed_high ?? null) }], rows: main.seeds }),
      main.others.length > 0 && h("details", {}, h("summary", {}, "What the other judges say"), table({
        caption: "The other judges",
        about: "results",
        note: "On the same answers as the primary judge.",
        columns: [{ title: "Model", head: true, cell: (row) => row.model }, { title: "Benchmark", cell: (row) => row.benchmark }, { title: "Judge", cell: (row) => row.judge }, { title: "Measure", cell: (row) => row.measure }, { title: "Rate", number: true, sort: (row) => row.value, cell: rate }],
        rows: main.others,
      })),
      unscored.length > 0 && h("details", {}, h("summary", {}, "Why answers are unscored"), table({
        caption: "Unscored answers by reason",
        about: "results",
        columns: [{ title: "Model", head: true, cell: (row) => row.model }, { title: "Benchmark", cell: (row) => row.benchmark }, { title: "Reason", cell: (row) => row.why }, { title: "Answers", number: true, sort: (row) => row.unscored, cell: (row) => count(row.unscored) }, { title: "Of", number: true, cell: (row) => count(row.total) }],
        rows: unscored,
      })));

    // ---- frontier ----

    part(element, "frontier", "Frontier",
      results.frontier.length
        ? h("div", { class: "charts" }, results.frontier.map((one) => chart(one, {
          about: "results",
          table: table({
            caption: one.title,
            columns: [{ title: "Model", head: true, cell: (row) => row.model }, ...["y", "x"].map((axis, at) => ({ title: one.titles[1 - at], number: true, cell: (row) => rate({ value: row[axis], low: row[`${axis}_low`], high: row[`${axis}_high`], n: row[`${axis}_n`], total: row[`${axis}_total`] }) }))],
            rows: one.rows,
          }),
        })))
        : h("p", {}, "No model has both a rate of safety and one to hold it against."));

    // ---- paired ----

    part(element, "paired", "Against the base model",
      h("p", { class: "lead" }, `Every run against its base model, on the items that both have a verdict on. Differences in percentage points with ${level} interval; Holm's correction is over the benchmarks of a pair.`),
      table({
        id: "paired-table",
        caption: "Paired comparisons",
        about: "results",
        group: (row) => `${row.run} against ${row.base}`,
        columns: [
          { title: "Benchmark", head: true, cell: (row) => row.benchmark ?? h("span", {}, `average ${row.average}`) },
          { title: "Base", number: true, cell: (row) => percent(row.base_value) },
          { title: "Run", number: true, cell: (row) => percent(row.run_value) },
          { title: "Difference", number: true, cell: (row) => h("span", {}, h("span", { class: "value" }, signed(row.value)), h("br"), small(`[${signed(row.low)}, ${signed(row.high)}]`)) },
          { title: "p", number: true, cell: (row) => p(row.p) },
          { title: "p, Holm", number: true, cell: (row) => p(row.p_holm) },
          { title: "Gained / lost", number: true, cell: (row) => (row.gained === undefined || row.gained === null ? null : `${count(row.gained)} / ${count(row.lost)}`) },
          { title: "Detectable", number: true, cell: (row) => (row.detectable ? percent(row.detectable) : null) },
          { title: "Pairs", number: true, cell: scored },
        ],
        rows: paired.comparisons,
      }),
      paired.without.map((one) => h("p", { class: "note" }, `${one.run} against ${one.base}: no item with a verdict of both on ${one.benchmarks.join(", ")}.`)));

    // ---- published ----

    const beside = h("div", { id: "published-table" });
    const wasRun = results.published.some((one) => one.comparisons.some((row) => row.why !== "not run"));
    const chosen = { table: args.get("table") || results.published[0].title, only: args.get("only") || (wasRun ? "all" : "run") };
    function published() {
      const one = results.published.find((each) => each.title === chosen.table) || results.published[0];
      const compared = one.comparisons.filter((row) => "value" in row);
      const rows = chosen.only === "compared" ? compared : chosen.only === "run" ? one.comparisons.filter((row) => row.why !== "not run") : one.comparisons;
      beside.replaceChildren(
        h("p", { class: "note" }, `${count(compared.length)} of ${count(one.comparisons.length)} published figures can be compared with one of ours; ${count(compared.filter((row) => row.inside).length)} of these lie in our interval.`),
        rows.length ? table({
          caption: one.title,
          about: "results",
          group: (row) => row.base,
          columns: [
            { title: "Published row", head: true, cell: (row) => row.model },
            { title: "Benchmark", cell: (row) => row.benchmark },
            { title: "Our model", cell: (row) => row.ours },
            { title: "Ours", number: true, cell: (row) => ("value" in row ? rate(row) : null) },
            { title: "Published", number: true, cell: (row) => percent(row.published) },
            { title: "Difference", number: true, cell: (row) => ("value" in row ? h("span", {}, signed(row.difference), row.inside ? "" : " *") : null) },
            { title: "Not compared, because", cell: (row) => row.why ?? null },
          ],
          rows,
        }) : h("p", {}, chosen.only === "run" ? "None of the paper's models was run." : "No figure is compared."));
    }
    const choose = (key) => (value) => {
      chosen[key] = value;
      report.note("results", Object.fromEntries(Object.entries(chosen).filter(([, each]) => each)));
      published();
    };
    part(element, "published", "Beside the published figures",
      h("p", { class: "lead" }, "A star stands where the published figure lies outside our interval. A figure is compared only where model, rows and kind of judge are those of the paper."),
      h("div", { class: "filters" },
        report.select("Table", results.published.map((one) => [one.title, one.title]), chosen.table, choose("table")),
        report.select("Rows", [["all", "All published figures"], ["run", "Models that were run"], ["compared", "Compared alone"]], chosen.only, choose("only"))),
      beside);
    published();

    // ---- judges ----

    const pairs = h("div", { id: "agreement" });
    const scope = { by: args.get("by") || "benchmark" };
    const scopes = {
      benchmark: ["By benchmark", (row) => row.model === "all" && row.category === "all"],
      model: ["By model", (row) => row.model !== "all" && row.category === "all"],
      category: ["By category", (row) => row.category !== "all"],
    };
    function agree() {
      const rows = agreement.pairs.filter(scopes[scope.by][1]);
      pairs.replaceChildren(rows.length ? table({
        caption: "Agreement of each two judges",
        about: "results",
        note: `Cohen's kappa with ${percent(agreement.confidence, 0)} % interval (bootstrap over prompts); “–” where one of them always says the same.`,
        columns: [
          { title: "Judges", head: true, cell: (row) => `${row.first}, ${row.second}` },
          { title: "On whether the answer is", cell: (row) => row.question },
          { title: "Model", cell: (row) => row.model },
          { title: "Benchmark", cell: (row) => row.benchmark },
          ...(scope.by === "category" ? [{ title: "Category", cell: (row) => row.category }] : []),
          { title: "Kappa", number: true, sort: (row) => row.kappa, cell: (row) => (row.kappa === null ? null : h("span", {}, h("span", { class: "value" }, row.kappa.toFixed(2)), row.low === null ? "" : [" ", small(`[${row.low.toFixed(2)}, ${row.high.toFixed(2)}]`)])) },
          { title: "Agree, %", number: true, sort: (row) => row.agreement, cell: (row) => h("span", {}, percent(row.agreement), " ", small(`[${percent(row.agreement_low)}, ${percent(row.agreement_high)}]`)) },
          { title: "Answers with both verdicts", number: true, cell: scored },
        ],
        rows,
      }) : h("p", {}, "No two judges say the same kind of thing about the same answers."));
    }
    part(element, "judges", "Judges and agreement",
      table({ caption: "Judges", about: "results", columns: [{ title: "Judge", head: true, cell: (row) => row.name }, { title: "Kind", cell: (row) => row.kind }, { title: "Who", cell: (row) => row.judge }, { title: "Is shown", cell: (row) => `the ${row.view}` }, { title: "Announced end of its model", cell: (row) => row.retires }], rows: results.judges }),
      h("div", { class: "filters" }, report.select("Agreement", Object.entries(scopes).map(([key, [name]]) => [key, name]), scope.by, (value) => {
        scope.by = value;
        report.note("results", { by: value });
        agree();
      })),
      pairs);
    agree();

    // ---- ladder ----

    part(element, "ladder", "Protocol ladder",
      results.ladder
        ? [
          h("p", { class: "lead" }, "From one protocol of evaluation to another, a change at a time; each step against the one before on the same items."),
          h("div", { class: "charts" }, results.ladder.charts.map((one) => chart(one, { about: "results" }))),
          table({
            caption: results.ladder.title,
            about: "results",
            group: (row) => `${row.model}, ${row.benchmark}`,
            columns: [
              { title: "Step", head: true, cell: (row) => row.step },
              { title: "Rate", number: true, cell: rate },
              { title: "Difference to the step before", number: true, cell: (row) => (row.difference ? h("span", {}, h("span", { class: "value" }, signed(row.difference.value)), h("br"), small(`[${signed(row.difference.low)}, ${signed(row.difference.high)}]`)) : row.before ? small(row.why) : null) },
              { title: "p", number: true, cell: (row) => (row.difference ? p(row.difference.p) : null) },
              { title: "Pairs", number: true, cell: (row) => (row.difference ? scored(row.difference) : null) },
              { title: "Judged by", cell: (row) => row.judged.join("; ") },
            ],
            rows: [...results.ladder.rungs],
          }),
        ]
        : h("p", {}, "Not run: ladder.models in params.yaml names no model."));

    // ---- stability ----

    const { stability } = results;
    part(element, "stability", "Stability of the selection",
      h("p", { class: "lead" }, `How much of the ${count(stability.kept)} chosen rows stays when the marks or the order of rows change a little; ${count(stability.full_marks)} rows have full marks.`),
      table({
        caption: stability.title,
        about: "data",
        columns: [
          { title: "Change", head: true, cell: (row) => row.change },
          { title: "Trials", number: true, cell: (row) => count(row.trials) },
          { title: "Of the chosen rows, stay, %", number: true, cell: (row) => h("span", {}, h("span", { class: "value" }, percent(row.share.mean)), row.trials > 1 ? [" ", small(`[${percent(row.share.low)}, ${percent(row.share.high)}]`)] : "") },
          { title: "By chance, %", number: true, cell: (row) => percent(row.chance) },
          { title: "Jaccard", number: true, cell: (row) => row.jaccard.mean.toFixed(3) },
        ],
        rows: stability.changes,
      }));

    // ---- losses ----

    part(element, "losses", "Loss curves",
      results.losses
        ? chart(results.losses, { table: table({ caption: "First and last loss", columns: [{ title: "Run", head: true, cell: (row) => row.run }, { title: "Updates", number: true, cell: (row) => count(row.updates) }, { title: "First", number: true, cell: (row) => row.first.toFixed(3) }, { title: "Last", number: true, cell: (row) => row.last.toFixed(3) }], rows: results.losses.rows }), about: "results" })
        : h("p", {}, "Nothing was fine-tuned."));
  },
});
