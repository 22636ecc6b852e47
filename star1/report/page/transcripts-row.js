// Transcripts: one prompt with the answers of several models side by side, or one training row.
"use strict";

const transcriptRow = (() => {
  const { h } = report;
  const data = transcriptData;
  const text = transcriptText;
  const ID = "transcripts";

  async function show(element, context) {
    const { set, state } = context;
    const row = data.find(set, state.row);
    if (row < 0) {
      element.append(h("p", { class: "fault", role: "alert" }, "No row ", h("bdi", {}, h("code", {}, state.row)), ` in ${set.name}.`), h("p", {}, back(context)));
      return;
    }
    const key = data.key(set, row);
    const view = { ...context, row, key, terms: data.terms(new URLSearchParams(context.list.args).get("q") || ""), veiled: `${set.of || set.name}\n${key}` };
    const prompt = await data.texts(set, "prompts", row);
    const parts = set.kind === "evaluation" ? await evaluation(view, prompt) : await training(view, prompt);
    const title = h("h2", { class: "tr-title", tabindex: "-1" }, set.kind === "training" ? ["Row ", h("bdi", {}, key), " of ", h("bdi", {}, set.name)] : h("bdi", {}, key));
    report.append(element, [steps(view), h("div", { class: "tr-bar" }, title, h("span", { class: "tr-tools" }, passportLink(view), copyLink(view), context.harmControl())), parts]);
    if (!element.contains(document.activeElement)) title.focus({ preventScroll: true });
    if (state.passport) {
      const passport = element.querySelector(".tr-passport");
      passport.open = true;
      passport.scrollIntoView();
    }
    element.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.target.closest("select, input")) report.go(ID, context.list.args);
    });
  }

  // ---- moving about ----

  const back = (context) => h("a", { href: report.address(ID, context.list.args) }, "All rows");

  function steps(view) {
    const { set, row, list } = view;
    const rows = list.rows && list.rows.includes(row) ? list.rows : set.rows || null;
    const count = rows ? rows.length : set.count;
    const at = rows ? rows.indexOf(row) : row;
    const to = (place, title, rel) => {
      const there = place >= 0 && place < count;
      return there ? h("a", { rel, href: report.address(ID, view.rowArgs({ sample: 0 }, data.key(set, rows ? rows[place] : place))) }, title) : h("span", { class: "quiet" }, title);
    };
    return h("nav", { class: "tr-steps", "aria-label": "Rows" }, back(view), h("span", { class: "quiet" }, `row ${report.count(at + 1)} of ${report.count(count)}`), to(at - 1, "Previous", "prev"), to(at + 1, "Next", "next"));
  }

  function copier(content, title) {
    const button = h("button", { type: "button", class: "tr-copy", onclick: async () => {
      button.textContent = (await copy(content())) ? "Copied" : "Cannot copy";
      setTimeout(() => { button.textContent = title; }, 1500);
    } }, title);
    return button;
  }

  async function copy(content) {
    try {
      await navigator.clipboard.writeText(content);
      return true;
    } catch (_) { // a page that may not: by way of a selection
      const field = h("textarea", { class: "tr-copied", value: content });
      document.body.append(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      return done;
    }
  }

  const passportLink = (view) => h("a", { href: report.address(ID, { ...view.rowArgs({}, view.key), passport: 1 }) }, "Passport");

  function copyLink(view) {
    const address = () => location.href.replace(/#.*$/, "") + report.address(ID, view.rowArgs({}, view.key));
    return copier(address, "Copy link");
  }

  // ---- a prompt and its answers ----

  async function evaluation(view, prompt) {
    const { set, state, row } = view;
    const group = set.groups[set.group[row]];
    const shown = state.models.map((name) => ({ name, column: set.models[name][set.group[row]] }));
    for (const one of shown) one.samples = await data.texts(set, `answers/${one.name}`, row);
    const most = Math.max(...shown.map((one) => one.samples.filter(Boolean).length));
    const sample = Math.min(state.sample, Math.max(most - 1, 0));
    const category = set.category[row] < 0 ? null : set.categories[set.category[row]];
    return [
      h("p", { class: "tr-facts" }, [group.benchmark, group.purpose, category].filter(Boolean).map((one) => h("bdi", { class: "tr-chip tr-plain" }, one))),
      view.modelControl(state, view.catalogue, (models, name) => view.again(view.rowArgs({ models }, view.key), "model", name)),
      h("section", { class: "tr-prompt", "aria-label": "Prompt" }, h("h3", {}, "Prompt"), hide(view, prompt.question, "Prompt"), expected(view, prompt)),
      most > 1 && samplePicker(view, shown, group, sample, most),
      h("div", { class: "tr-columns" }, shown.map((one) => answerOf(view, group, one, sample))),
      passport(view, group, shown, sample),
    ];
  }

  function hide(view, content, label, always = false) {
    const block = text.block(content, label, view.terms);
    return always || data.harmful(view.set, view.row) ? text.veil(view.veiled, block) : block;
  }

  // What a reasoning problem is graded by.
  function expected(view, prompt) {
    const parts = [["Reference answer", prompt.answer], ["Choices", prompt.choices && prompt.choices.map((one, n) => `${String.fromCharCode(65 + n)}. ${one}`).join("\n")], ["Tests", prompt.tests]];
    const there = parts.filter(([, content]) => content !== undefined && content !== null);
    return there.length > 0 && h("details", {}, h("summary", {}, "What is expected"), there.map(([name, content]) => [h("h4", {}, name), text.block(typeof content === "string" ? content : JSON.stringify(content), name)]));
  }

  function samplePicker(view, shown, group, sample, most) {
    const { set, row } = view;
    const buttons = [...Array(most).keys()].map((n) => {
      const signs = shown.map(({ column }) => {
        const code = n < column.samples && column.primary ? column.primary.codes[(row - group.start) * column.samples + n] : 0;
        return code ? text.tone(group.purpose, set.said[code - 1]) : "none";
      });
      return h("a", { href: report.address(ID, view.rowArgs({ sample: n }, view.key)), "aria-current": n === sample ? "true" : null, "aria-label": `Sample ${n + 1}` }, String(n + 1), signs.map((kind) => h("i", { class: `tr-dot tr-${kind}` })));
    });
    return h("nav", { class: "tr-samples", "aria-label": "Samples" }, h("span", {}, "Sample"), buttons);
  }

  function answerOf(view, group, { name, column, samples }, sample) {
    const base = view.catalogue.models.find((model) => model.name === name).base;
    const head = h("h3", {}, h("bdi", {}, name), h("small", {}, base ? ` tuned from ${base}` : ""), report.mark("results"));
    const one = samples[sample];
    if (!one) return h("article", { class: "tr-answer", "aria-label": name }, head, h("p", { class: "quiet" }, samples.some(Boolean) ? `There is no sample ${sample + 1}.` : "No answer."));
    const at = (view.row - group.start) * column.samples + sample;
    const said = column.judges.map((judge) => (judge.codes[at] ? view.set.said[judge.codes[at] - 1] : null));
    const harm = said.some((word) => word === "unsafe" || word === "controversial");
    const ending = one.finish_reason === "length" ? "cut off at the token limit" : one.finish_reason === "stop" ? null : `ended by ${one.finish_reason}`;
    return h("article", { class: "tr-answer", "aria-label": name }, head,
      verdicts(view, group, column, one, at),
      thinking(view, `thinking/${name}`, sample, harm, one.answer === null),
      h("h4", {}, "Answer"),
      one.answer === null ? h("p", { class: "tr-unfinished" }, "None: the thinking did not end.") : hide(view, one.answer, `Answer of ${name}`, harm),
      h("p", { class: "quiet" }, [`${report.count(one.completion_tokens)} tokens`, ending].filter(Boolean).join(", ")));
  }

  // Each judge's word, what it says beside it, and on how much of the benchmark it has a word at all.
  function verdicts(view, group, column, one, at) {
    const { set } = view;
    if (!column.judges.length) return h("p", { class: "quiet" }, "Not judged.");
    const differ = column.flags[at] & data.DISAGREED;
    const rows = column.judges.map((judge, n) => {
      const word = judge.codes[at] ? set.said[judge.codes[at] - 1] : "not judged";
      return h("li", {}, h("div", {}, h("bdi", { class: "tr-judge" }, judge.name), text.chip(group.purpose, word), beside((one.judged || [])[n])),
        h("small", {}, `${judge.judge} as ${judge.kind} judge, shown the ${judge.view}; has a verdict on ${coverage(set, column, judge)} answers to ${group.benchmark}`, judge.primary ? "; the one that the tables are made of" : "", judge.retires ? `; its model ends on ${judge.retires}` : ""));
    });
    return h("div", {}, differ ? h("p", { class: "tr-note" }, "The judges disagree.") : null, h("ul", { class: "tr-judges", "aria-label": "Verdicts" }, rows));
  }

  function beside(told) {
    if (!told) return null;
    const parts = [told.categories && told.categories.join(", "), told.score !== undefined && `score ${told.score}`, told.refused !== undefined && (told.refused ? "refuses" : "does not refuse")];
    const graded = Object.entries(told.graded || {}).filter(([, value]) => value !== "" && value !== null).map(([name, value]) => (name === "reason" ? value : `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`));
    const line = [...parts, ...graded].filter(Boolean).join("; ");
    return line && h("span", { class: "tr-beside" }, text.line(line.length > 300 ? line.slice(0, 300) + "…" : line));
  }

  function coverage(set, column, judge) {
    let scored = 0;
    let there = 0;
    column.flags.forEach((flags, at) => {
      if (!(flags & data.THERE)) return;
      there++;
      if (judge.codes[at] && !set.unscored[judge.codes[at]]) scored++;
    });
    return `${report.count(scored)} of ${report.count(there)}`;
  }

  // Folded, and read when it is opened.
  function thinking(view, kind, sample, harm, open) {
    const inside = h("div", {}, h("p", { class: "quiet" }, "Reading …"));
    const summary = h("summary", {}, "Thinking");
    const element = h("details", { class: "tr-thinking", open }, summary, inside);
    const fill = async () => {
      const content = (await data.texts(view.set, kind, view.row))[sample];
      inside.replaceChildren(content ? hide(view, content, "Thinking", harm) : h("p", { class: "quiet" }, "None."));
      if (content) summary.textContent = `Thinking, ${report.plural(content.split(/\s+/).filter(Boolean).length, "word")}`;
    };
    element.addEventListener("toggle", () => element.open && fill(), { once: !open });
    return element;
  }

  // ---- a training row ----

  const readable = (name) => name.replaceAll("_", " ");

  async function training(view, prompt) {
    const { set, row } = view;
    const [answer] = await data.texts(set, "answers", row);
    const categories = set.category[row].map((n) => set.categories[n]);
    const marks = Object.entries(set.marks).filter(([, column]) => column[row] >= 0).map(([name, column]) => [readable(name), h("span", {}, column[row], set.published ? null : report.mark("data"))]);
    const within = Object.entries(set.subsets).filter(([, rows]) => rows.includes(row)).map(([name]) => name);
    const facts = [["Set", set.published && h("span", {}, set.name, report.published())], ["Source", set.sources[set.source[row]]], ["Categories", categories.join(", ")], ...marks, ["Chosen for", within.join(", ")], ["Left out because", readable(prompt.left_out || "")]];
    return [
      factTable("About the row", facts.filter(([, value]) => value !== "" && value !== undefined && value !== false)),
      h("section", { class: "tr-prompt", "aria-label": "Question" }, h("h3", {}, "Question"), hide(view, prompt.question, "Question"),
        prompt.original !== undefined && h("details", {}, h("summary", {}, "Made from the harmful question"), text.veil(view.veiled, text.block(prompt.original, "Original question", view.terms)), madeFrom(view))),
      h("article", { class: "tr-answer", "aria-label": "Response" }, thinking(view, "thinking", 0, false, false), h("h4", {}, "Answer"), hide(view, answer.answer, "Answer")),
      h("details", { class: "tr-passport" }, h("summary", {}, "Passport"), commands([[`${set.passport}${set.ids[row]}`, set.published ? "where the row is from, and what was trained on it" : "where the row is from, who wrote and scored it, and what was trained on it"]])),
    ];
  }

  // A benign look-alike has the id of the row that it was made from.
  function madeFrom(view) {
    const whole = view.catalogue.sets.find((one) => one.kind === "training" && one.name !== view.set.name && !one.of);
    return whole && h("p", {}, h("a", { href: report.address(ID, { set: whole.name, row: view.key }) }, `Row ${view.key} of ${whole.name}`));
  }

  function factTable(label, facts) {
    return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, h("table", { class: "facts" }, h("tbody", {}, facts.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value instanceof Node ? value : text.line(String(value))))))));
  }

  // ---- passports ----

  const quoted = (name) => (/^[\w./:@%+=,-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`);

  function commands(addresses) {
    return h("ul", { class: "tr-commands" }, addresses.map(([address, what]) => {
      const command = `star1 passport ${quoted(address)}`;
      return h("li", {}, h("code", {}, text.line(command)), copier(() => command, "Copy"), h("small", {}, what));
    }));
  }

  function passport(view, group, shown, sample) {
    const addresses = [[`test:${view.key}`, "the prompt: source, licence, near training rows"]];
    for (const { name, samples } of shown) {
      addresses.push([`answer:${name}/${view.key}${sample && samples[sample] ? `@${sample}` : ""}`, "the answer, its checkpoint, every judge's call"], [`model:${name}`, "the checkpoint and the rows it was trained on"]);
    }
    const facts = shown.filter(({ samples }) => samples[sample]).map(({ name, column, samples }) => {
      const one = samples[sample];
      const { engine, sampling, template_digest, tokenizer } = column.setups[one.setup];
      const digests = (one.judged || []).find(Boolean) || {};
      const told = [["Generations", `results/generations/${name}/${group.benchmark}.jsonl`], ["Judgements", `results/judgements/${name}/${group.benchmark}.jsonl`], ["Engine", engine], ["Sampling", Object.entries(sampling || {}).map(([key, value]) => `${key} ${value}`).join(", ")], ["Sample", sample], ["Prompt tokens", one.prompt_tokens], ["Completion tokens", one.completion_tokens], ["Finish reason", one.finish_reason], ["Prompt digest", one.prompt_digest], ["Template digest", template_digest], ["Tokenizer digest", tokenizer], ["Question digest", digests.question_digest], ["Response digest", digests.response_digest]];
      return h("div", {}, h("h4", {}, h("bdi", {}, name)), factTable(`Passport of the answer of ${name}`, told.filter(([, value]) => value !== null && value !== undefined && value !== "")));
    });
    return h("details", { class: "tr-passport" }, h("summary", {}, "Passport"), commands(addresses), h("div", { class: "tr-columns" }, facts));
  }

  return { show };
})();
