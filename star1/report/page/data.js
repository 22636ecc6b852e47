// Data: what the sets are made of.
"use strict";

report.section({
  id: "data",
  title: "Data",
  async render(element, args) {
    const { h, part, table, chart, count, percent } = report;
    const data = await report.load("data");
    const names = data.sets.map((one) => one.name);
    const published = new Set(data.sets.filter((one) => one.published).map((one) => one.name));
    const title = (each) => (published.has(each) ? h("span", {}, each, report.published()) : each);
    let name = names.includes(args.get("set")) ? args.get("set") : names[0];
    element.append(report.anchors("data", [["sets", "Sets"], ["one", "One set"], ["wording", "Wording and refusal style"]]));

    const criteria = [...new Set(data.sets.flatMap((one) => Object.keys(one.mean_marks)))];
    const words = (one) => (one ? `${count(one.median)} / ${count(one.p90)} / ${count(one.max)}` : null);
    const facts = [
      ["What it is", (one) => one.about],
      ["Rows", (one) => count(one.rows)],
      ...criteria.map((criterion) => [`Mean mark, ${criterion.replaceAll("_", " ")}`, (one) => (criterion in one.mean_marks ? `${one.mean_marks[criterion].toFixed(2)} of ${one.highest[criterion]}` : null)]),
      ...["question", "thinking", "answer"].map((which) => [`Words of the ${which}`, (one) => words(one.words[which])]),
      ["Rows with several categories", (one) => count(one.rows - (one.labels_per_row["1"] || 0))],
      ["Responses without thinking and answer apart", (one) => count(one.responses_not_in_two_parts)],
    ];
    part(element, "sets", "Sets", table({
      caption: "Sets of this run",
      about: "data",
      note: "Words: the median, what 90 % of rows do not exceed, and the longest. Marks: the mean, and the highest there is.",
      columns: [{ title: "", head: true, cell: (row) => row[0] }, ...data.sets.map((one) => ({ title: title(one.name), number: true, cell: (row) => row[1](one) }))],
      rows: facts,
    }));

    const charts = h("div", { id: "set-charts", "aria-live": "polite" });
    async function draw() {
      const set = await report.load(`data/${name}`);
      const about = published.has(name) ? null : "data";
      const sources = [...new Set(set.categories.map((row) => row.source))];
      const categories = [...new Set(set.categories.map((row) => row.category))];
      const labels = new Map(set.categories.map((row) => [`${row.category}/${row.source}`, row.labels]));
      charts.replaceChildren(...(about ? [] : [h("p", { class: "note" }, "Rows that others released; nothing of them was made in this run.")]),
        chart(set.heatmap, {
          about,
          table: table({
            caption: `Labels by category and prompt set: ${name}`,
            columns: [{ title: "Category", head: true, cell: (row) => row }, ...sources.map((source) => ({ title: source, number: true, cell: (row) => count(labels.get(`${row}/${source}`) || 0) })), { title: "All", number: true, cell: (row) => count(sources.reduce((sum, source) => sum + (labels.get(`${row}/${source}`) || 0), 0)) }],
            rows: categories,
          }),
        }),
        h("h3", {}, "Marks"),
        h("div", { class: "charts" }, set.marks.map((one) => chart(one, { about, table: shares("Mark", one.title, one.rows, (row) => String(row.mark), (row) => row.rows) }))),
        h("h3", {}, "Lengths"),
        h("div", { class: "charts" }, set.lengths.map((one) => chart(one, { about, table: shares("Words", `Length of the ${one.title.toLowerCase()}`, one.rows, (row) => row.range, null) }))));
    }

    function shares(first, caption, rows, of, rowsOf) {
      return table({ caption, columns: [{ title: first, head: true, cell: of }, rowsOf && { title: "Rows", number: true, cell: (row) => count(rowsOf(row)) }, { title: "Share, %", number: true, cell: (row) => percent(row.share) }].filter(Boolean), rows });
    }

    part(element, "one", "One set",
      h("div", { class: "filters" }, report.select("Set", names.map((each) => [each, published.has(each) ? `${each} (published)` : each]), name, (value) => {
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
          note: `Percent of the responses with thinking and answer apart, with ${percent(data.confidence, 0)} % interval.`,
          columns: [
            { title: "Wording", head: true, cell: (row) => row },
            ...names.map((each) => ({ title: title(each), number: true, cell: (row) => {
              const one = data.wording.find((found) => found.set === each && found.measure === row);
              return one ? report.rate({ ...one, total: undefined }) : null;
            } })),
          ],
          rows: [...new Set(data.wording.map((row) => row.measure))],
        }),
      }));
  },
});
