// Data: what the sets are made of.
"use strict";

report.section({
  id: "data",
  title: "Data",
  async render(element, args) {
    const { h, part, table, chart, count, percent } = report;
    const data = await report.load("data");
    const names = data.sets.map((one) => one.name);
    let name = names.includes(args.get("set")) ? args.get("set") : names[0];
    element.append(report.anchors("data", [["sets", "Sets"], ["one", "One set"], ["wording", "Wording and refusal style"]]));

    part(element, "sets", "Sets", table({
      caption: "Sets of this run",
      about: "data",
      note: "Words as median, 90 % of rows at most, and the longest.",
      columns: [
        { title: "Set", head: true, cell: (row) => row.name },
        { title: "What it is", cell: (row) => row.about },
        { title: "Rows", number: true, cell: (row) => count(row.rows) },
        { title: "Mean marks", wide: true, cell: (row) => Object.entries(row.mean_marks).map(([criterion, mean]) => h("div", {}, `${criterion.replaceAll("_", " ")} ${mean.toFixed(2)}`)) },
        ...["question", "thinking", "answer"].map((which) => ({ title: `Words of the ${which}`, number: true, cell: (row) => (row.words[which] ? `${count(row.words[which].median)} / ${count(row.words[which].p90)} / ${count(row.words[which].max)}` : null) })),
        { title: "Not in two parts", number: true, cell: (row) => count(row.responses_not_in_two_parts) },
      ],
      rows: data.sets,
    }));

    const charts = h("div", { id: "set-charts", "aria-live": "polite" });
    async function draw() {
      const set = await report.load(`data/${name}`);
      const sources = [...new Set(set.categories.map((row) => row.source))];
      const categories = [...new Set(set.categories.map((row) => row.category))];
      const labels = new Map(set.categories.map((row) => [`${row.category}/${row.source}`, row.labels]));
      charts.replaceChildren(
        chart(set.heatmap, {
          about: "data",
          table: table({
            caption: `Labels by category and prompt set: ${name}`,
            columns: [{ title: "Category", head: true, cell: (row) => row }, ...sources.map((source) => ({ title: source, number: true, cell: (row) => count(labels.get(`${row}/${source}`) || 0) })), { title: "All", number: true, cell: (row) => count(sources.reduce((sum, source) => sum + (labels.get(`${row}/${source}`) || 0), 0)) }],
            rows: categories,
          }),
        }),
        h("h3", {}, "Marks"),
        h("div", { class: "charts" }, set.marks.map((one) => chart(one, { about: "data", table: shares("Mark", one.title, one.rows, (row) => String(row.mark), (row) => row.rows) }))),
        h("h3", {}, "Lengths"),
        h("div", { class: "charts" }, set.lengths.map((one) => chart(one, { about: "data", table: shares("Words", `Length of the ${one.title.toLowerCase()}`, one.rows, (row) => row.range, null) }))));
    }

    function shares(first, caption, rows, of, rowsOf) {
      return table({ caption, columns: [{ title: first, head: true, cell: of }, rowsOf && { title: "Rows", number: true, cell: (row) => count(rowsOf(row)) }, { title: "Share, %", number: true, cell: (row) => percent(row.share) }].filter(Boolean), rows });
    }

    part(element, "one", "One set",
      h("div", { class: "filters" }, report.select("Set", names.map((each) => [each, each]), name, (value) => {
        name = value;
        report.note("data", { set: name });
        return draw();
      })),
      charts);
    await draw();

    part(element, "wording", "Wording and refusal style",
      h("p", { class: "lead" }, "How many thoughts cite a policy, how many answers leak one, and how answers refuse."),
      chart(data.chart, {
        about: "data",
        table: table({
          caption: "Shares of rows",
          note: `With ${percent(data.confidence, 0)} % interval.`,
          columns: [
            { title: "Wording", head: true, cell: (row) => row },
            ...names.map((each) => ({ title: each, number: true, cell: (row) => {
              const one = data.wording.find((found) => found.set === each && found.measure === row);
              return one ? report.rate({ ...one, total: undefined }) : null;
            } })),
          ],
          rows: [...new Set(data.wording.map((row) => row.measure))],
        }),
      }));
  },
});
