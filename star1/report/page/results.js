// Results: rates with intervals and coverage, beside the published ones, and how far the judges agree.
"use strict";

(() => {
  const { h, part, table, chart, count, percent, rate } = report;
  const ALL = "all";
  const NOT_RUN = "not run";
  const unique = (list) => [...new Set(list)];
  const small = (...text) => h("small", {}, text);
  const strong = (text) => h("span", { class: "value" }, text);
  const signed = (share) => (share === null || share === undefined ? "–" : `${share > 0 ? "+" : share < 0 ? "−" : ""}${Math.abs(100 * share).toFixed(1)}`);
  const chance = (p) => (p === null || p === undefined ? null : p < 0.0001 ? "< 0.0001" : p.toFixed(4));
  const scored = (one) => `${count(one.n)}/${count(one.total)}`;
  const column = (title, cell, more) => ({ title, cell, ...more });
  const number = (title, cell, more) => ({ title, cell, number: true, ...more });
  const name = (title, cell) => ({ title, cell, head: true });
  const difference = (one) => h("span", {}, strong(signed(one.value)), h("br"), small(`[${signed(one.low)}, ${signed(one.high)}]`));
  const today = () => new Date().toISOString().slice(0, 10);
  const ended = (one) => one.retires < today();

  report.section({
    id: "results",
    title: "Results",
    async render(element, args) {
      const [results, agreement] = await Promise.all([report.load("results"), report.load("results/agreement")]);
      const parts = [
        ["rates", "Rates", rates], ["frontier", "Frontier", frontier], ["paired", "Against the base model", paired], ["published", "Beside the published figures", published],
        ["judges", "Judges and agreement", judges], ["ladder", "Protocol ladder", ladder], ["stability", "Stability of the selection", stability], ["losses", "Loss curves", losses],
      ];
      element.append(report.anchors("results", parts));
      // What is chosen in the page, and stands in its address.
      const chosen = Object.fromEntries(["table", "only", "by"].map((key) => [key, args.get(key)]).filter(([, value]) => value));
      const choose = (key, value) => {
        chosen[key] = value;
        report.note("results", chosen);
      };
      for (const [id, title, show] of parts) part(element, id, title, show(results, { agreement, chosen, choose }));
    },
  });

  // ---- rates ----

  function rates({ main, ends, charts, lower_is_better: lower }) {
    const ending = new Map(ends.map((one) => [one.label, one]));
    const measures = unique(main.cells.map((cell) => cell.measure));
    return [
      ends.map(farewell),
      measures.map((measure) => [block(main, measure, ending, lower), charts.filter((one) => one.measure === measure).map((one) => chart(one, { about: "results" }))]),
      averages(main), passes(main), seeds(main), others(main), unscored(main),
    ];
  }

  function farewell(one) {
    const told = `${one.label} (${one.model}), the judge ${one.judge} of ${one.purposes.join(" and ")} prompts,`;
    return h("p", { class: "warn" }, ended(one)
      ? `${told} was served until ${one.retires}. Its columns cannot be made again: only what is stored of its replies can be read anew.`
      : `${told} is served until ${one.retires}. After that its columns cannot be made again: only what is stored of its replies can then be read anew.`);
  }

  function level(main) {
    return `${percent(main.confidence, 0)} %`;
  }

  // One measure: models by benchmarks.
  function block(main, measure, ending, lower) {
    const cells = main.cells.filter((cell) => cell.measure === measure);
    const at = new Map(cells.map((cell) => [`${cell.model}/${cell.benchmark}`, cell]));
    const told = unique(cells.flatMap((cell) => cell.judged || [])).join("; ");
    return table({
      caption: measure,
      note: `${lower.includes(measure) ? "Lower" : "Higher"} is better. Percent with ${level(main)} interval; below it how many of all answers have a verdict: the others are in no rate. Judged by ${told}.`,
      about: "results",
      columns: [
        name("Model", (model) => model),
        ...unique(cells.map((cell) => cell.benchmark)).map((benchmark) =>
          number(benchmarkTitle(benchmark, cells, ending), (model) => (at.has(`${model}/${benchmark}`) ? rate(at.get(`${model}/${benchmark}`)) : null))),
      ],
      rows: unique(cells.map((cell) => cell.model)),
    });
  }

  // A benchmark's name, and under it the judge whose model has an announced end.
  function benchmarkTitle(benchmark, cells, ending) {
    const labels = unique(cells.filter((cell) => cell.benchmark === benchmark).flatMap((cell) => cell.judges || []));
    return h("span", {}, benchmark === ALL ? "all together" : benchmark, labels.filter((label) => ending.has(label)).map((label) => {
      const one = ending.get(label);
      return [h("br"), small(`${label} ${ended(one) ? "ended" : "ends"} ${one.retires}`)];
    }));
  }

  function averages(main) {
    if (!main.averages.length) return null;
    const of = (average, model) => main.averages.find((one) => one.average === average && one.model === model);
    const title = (average) => h("span", {}, average, h("br"), small(main.averages.find((one) => one.average === average).benchmarks.join(", ")));
    const cell = (one) => (!one ? null : one.value === null ? small(one.why) : rate(one));
    return table({
      caption: "Averages over benchmarks",
      about: "results",
      note: `Unweighted means, with ${level(main)} interval.`,
      columns: [name("Model", (model) => model), ...unique(main.averages.map((one) => one.average)).map((average) => number(title(average), (model) => cell(of(average, model))))],
      rows: unique(main.averages.map((one) => one.model)),
    });
  }

  function passes(main) {
    return main.passes.length > 0 && table({
      caption: "pass@k",
      about: "results",
      note: "The share of problems that at least one of k samples solves.",
      columns: [name("Model", (row) => row.model), column("Benchmark", (row) => row.benchmark), number("k", (row) => row.k), number("pass@k", rate)],
      rows: main.passes,
    });
  }

  function seeds(main) {
    return main.seeds.length > 0 && table({
      caption: "Over seeds",
      about: "results",
      note: "Intervals are over items; lowest, highest and standard deviation are over the seeds.",
      columns: [
        name("Run", (row) => row.model), column("Benchmark", (row) => row.benchmark), column("Measure", (row) => row.measure), number("Seeds", (row) => row.seeds), number("Mean", rate),
        ...[["Lowest", "lowest"], ["Highest", "highest"], ["Standard deviation", "standard_deviation"]].map(([title, key]) => number(title, (row) => percent(row.spread[key]))),
      ],
      rows: main.seeds,
    });
  }

  function others(main) {
    return main.others.length > 0 && h("details", {}, h("summary", {}, "What the other judges say"), table({
      caption: "The other judges",
      about: "results",
      note: "On the same answers as the primary judge.",
      columns: [name("Model", (row) => row.model), column("Benchmark", (row) => row.benchmark), column("Judge", (row) => row.judge), column("Measure", (row) => row.measure), number("Rate, %", rate, { sort: (row) => row.value })],
      rows: main.others,
    }));
  }

  function unscored(main) {
    const rows = main.cells.filter((cell) => cell.benchmark !== ALL).flatMap((cell) => Object.entries(cell.unscored).map(([why, n]) => ({ ...cell, why, unscored: n })));
    return rows.length > 0 && h("details", {}, h("summary", {}, "Why answers are unscored"), table({
      caption: "Unscored answers by reason",
      about: "results",
      columns: [name("Model", (row) => row.model), column("Benchmark", (row) => row.benchmark), column("Reason", (row) => row.why), number("Answers", (row) => count(row.unscored), { sort: (row) => row.unscored }), number("Of", (row) => count(row.total))],
      rows,
    }));
  }

  // ---- frontier ----

  function frontier(results) {
    if (!results.frontier.length) return h("p", {}, "No model has both a rate of safety and one to hold it against.");
    const along = (row, axis) => rate({ value: row[axis], low: row[`${axis}_low`], high: row[`${axis}_high`], n: row[`${axis}_n`], total: row[`${axis}_total`] });
    return h("div", { class: "charts" }, results.frontier.map((one) => chart(one, {
      about: "results",
      table: table({
        caption: one.title,
        columns: [name("Model", (row) => row.model), number(one.titles[1], (row) => along(row, "y")), number(one.titles[0], (row) => along(row, "x"))],
        rows: one.rows,
      }),
    })));
  }

  // ---- paired ----

  function paired({ main, paired: found, lower_is_better: lower }) {
    return [
      h("p", { class: "lead" }, `Every run against its base model, on the items that both have a verdict on. Differences in percentage points with ${level(main)} interval; Holm's correction is over the benchmarks of a pair.`),
      table({
        caption: "Paired comparisons",
        about: "results",
        note: "Gained, lost: items on which the run alone, or the base model alone, does what is counted. Detectable: the smallest difference that so many items would have shown. Both verdicts: items on which both have one, of all.",
        group: (row) => `${row.run} against ${row.base}`,
        columns: [
          name("Benchmark", (row) => h("span", {}, row.benchmark ?? `average ${row.average}`, lower.includes(row.measure) && [h("br"), small("lower is better")])),
          number("Base, %", (row) => percent(row.base_value)),
          number("Run, %", (row) => percent(row.run_value)),
          number("Difference, points", difference),
          number("p", (row) => chance(row.p)),
          number("p, Holm", (row) => chance(row.p_holm)),
          number("Gained / lost", (row) => (row.gained === undefined || row.gained === null ? null : `${count(row.gained)} / ${count(row.lost)}`)),
          number("Detectable, points", (row) => (row.detectable ? percent(row.detectable) : null)),
          number("Both verdicts", scored),
        ],
        rows: found.comparisons,
      }),
      found.without.map((one) => h("p", { class: "note" }, `${one.run} against ${one.base}: no item with a verdict of both on ${one.benchmarks.join(", ")}.`)),
    ];
  }

  // ---- published ----

  const ROWS = { all: ["All published figures", () => true], run: ["Models that were run", (row) => row.why !== NOT_RUN], compared: ["Compared alone", (row) => "value" in row] };

  function published(results, { chosen, choose }) {
    const tables = results.published;
    const state = { table: tables[0].title, only: tables.some((one) => one.comparisons.some(ROWS.run[1])) ? "all" : "run", ...chosen };
    const place = h("div", { id: "published-table" });
    const show = () => place.replaceChildren(...beside(tables.find((one) => one.title === state.table) || tables[0], state.only in ROWS ? state.only : "all"));
    const select = (key, label, options) => report.select(label, options, state[key], (value) => {
      state[key] = value;
      choose(key, value);
      show();
    });
    show();
    return [
      h("p", { class: "lead" }, "A star stands where the published figure lies outside our interval. A figure is compared only where model, rows and kind of judge are those of the paper."),
      h("div", { class: "filters" }, select("table", "Table", tables.map((one) => [one.title, one.title])), select("only", "Rows", Object.entries(ROWS).map(([key, [title]]) => [key, title]))),
      place,
    ];
  }

  function beside(one, only) {
    const compared = one.comparisons.filter(ROWS.compared[1]);
    const rows = one.comparisons.filter(ROWS[only][1]);
    const told = h("p", { class: "note" }, `${count(compared.length)} of ${count(one.comparisons.length)} published figures can be compared with one of ours; ${count(compared.filter((row) => row.inside).length)} of these lie in our interval.`);
    if (!rows.length) return [told, h("p", {}, only === "run" ? "None of the paper's models was run." : "No figure is compared.")];
    return [told, table({
      caption: one.title,
      about: "results",
      group: (row) => row.base,
      columns: [
        name("Published row", (row) => row.model),
        column("Benchmark", (row) => row.benchmark),
        column("Our model", (row) => row.ours),
        number("Ours, %", (row) => ("value" in row ? rate(row) : null)),
        number("Published, %", (row) => percent(row.published)),
        number("Difference, points", (row) => ("value" in row ? `${signed(row.difference)}${row.inside ? "" : " *"}` : null)),
        column("Not compared, because", (row) => row.why ?? null),
      ],
      rows,
    })];
  }

  // ---- judges ----

  const SCOPES = {
    benchmark: ["By benchmark", (row) => row.model === ALL && row.category === ALL],
    model: ["By model", (row) => row.model !== ALL && row.category === ALL],
    category: ["By category", (row) => row.category !== ALL],
  };

  function judges(results, { agreement, chosen, choose }) {
    const place = h("div", { id: "agreement" });
    const show = (by) => place.replaceChildren(agree(agreement, by in SCOPES ? by : "benchmark"));
    show(chosen.by);
    return [
      table({
        caption: "Judges",
        about: "results",
        columns: [name("Judge", (row) => row.name), column("Kind", (row) => row.kind), column("Who", (row) => row.judge), column("Is shown", (row) => `the ${row.view}`), column("Announced end of its model", (row) => row.retires)],
        rows: results.judges,
      }),
      h("div", { class: "filters" }, report.select("Agreement", Object.entries(SCOPES).map(([key, [title]]) => [key, title]), chosen.by || "benchmark", (by) => {
        choose("by", by);
        show(by);
      })),
      place,
    ];
  }

  function agree(agreement, by) {
    const rows = agreement.pairs.filter(SCOPES[by][1]);
    if (!rows.length) return h("p", {}, "No two judges say the same kind of thing about the same answers.");
    const kappa = (row) => (row.kappa === null ? null : h("span", {}, strong(row.kappa.toFixed(2)), row.low !== null && [" ", small(`[${row.low.toFixed(2)}, ${row.high.toFixed(2)}]`)]));
    return table({
      caption: "Agreement of each two judges",
      about: "results",
      note: `Cohen's kappa with ${percent(agreement.confidence, 0)} % interval (bootstrap over prompts); “–” where one of them always says the same.`,
      columns: [
        name("Judges", (row) => `${row.first}, ${row.second}`),
        column("On whether the answer is", (row) => row.question),
        column("Model", (row) => row.model),
        column("Benchmark", (row) => row.benchmark),
        ...(by === "category" ? [column("Category", (row) => row.category)] : []),
        number("Kappa", kappa, { sort: (row) => row.kappa }),
        number("Agree, %", (row) => h("span", {}, percent(row.agreement), " ", small(`[${percent(row.agreement_low)}, ${percent(row.agreement_high)}]`)), { sort: (row) => row.agreement }),
        number("Answers with both verdicts", scored),
      ],
      rows,
    });
  }

  // ---- ladder, stability, losses ----

  function ladder({ ladder: found }) {
    if (!found) return h("p", {}, "Not run: ladder.models in params.yaml names no model.");
    return [
      h("p", { class: "lead" }, "From one protocol of evaluation to another, a change at a time; each step against the one before on the same items."),
      h("div", { class: "charts" }, found.charts.map((one) => chart(one, { about: "results" }))),
      table({
        caption: found.title,
        about: "results",
        group: (row) => `${row.model}, ${row.benchmark}`,
        columns: [
          name("Step", (row) => row.step),
          number("Rate, %", rate),
          number("Difference to the step before, points", (row) => (row.difference ? difference(row.difference) : row.before ? small(row.why) : null)),
          number("p", (row) => row.difference && chance(row.difference.p)),
          number("Both verdicts", (row) => row.difference && scored(row.difference)),
          column("Judged by", (row) => row.judged.join("; ")),
        ],
        rows: found.rungs,
      }),
    ];
  }

  function stability({ stability: found }) {
    const spread = (row) => h("span", {}, strong(percent(row.share.mean)), row.trials > 1 && [" ", small(`[${percent(row.share.low)}, ${percent(row.share.high)}]`)]);
    return [
      h("p", { class: "lead" }, `How much of the ${count(found.kept)} chosen rows stays when the marks or the order of rows change a little; ${count(found.full_marks)} rows have full marks.`),
      table({
        caption: found.title,
        about: "data",
        note: `In brackets where ${percent(found.confidence, 0)} % of the trials lie. By chance: what as many rows drawn at random would give. Jaccard: rows in both, of the rows in either.`,
        columns: [name("Change", (row) => row.change), number("Trials", (row) => count(row.trials)), number("Of the chosen rows, stay, %", spread), number("By chance, %", (row) => percent(row.chance)), number("Jaccard", (row) => row.jaccard.mean.toFixed(3))],
        rows: found.changes,
      }),
    ];
  }

  function losses({ losses: found }) {
    if (!found) return h("p", {}, "Nothing was fine-tuned.");
    return chart(found, {
      about: "results",
      table: table({
        caption: "First and last loss",
        columns: [name("Run", (row) => row.run), number("Updates", (row) => count(row.updates)), number("First", (row) => row.first.toFixed(3)), number("Last", (row) => row.last.toFixed(3))],
        rows: found.rows,
      }),
    });
  }
})();
