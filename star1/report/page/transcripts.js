// Transcripts: the list of rows with its filters and search.
"use strict";

(() => {
  const { h } = report;
  const data = transcriptData;
  const text = transcriptText;
  const ID = "transcripts";
  const PAGE = 50;
  const MOST_COLUMNS = 4;
  const NARROW = "(max-width: 40rem)"; // as in transcripts.css
  const TYPING_MS = 250;
  const FLAGS = [["disagree", "judges that disagree"], ["unfinished", "unfinished thinking"], ["cutoff", "a cut-off answer"], ["unscored", "an unscored answer"]];
  const FILTERS = ["benchmark", "purpose", "category", "of", "verdict", "changed", "source", "mark", "outcome", ...FLAGS.map(([name]) => name)];
  let running = null; // the search under way, or the last one
  let visit = { rows: null, args: null, set: null }; // the list that a row was opened from

  // ---- the state, as it stands in the address ----

  function read(args, catalogue) {
    const names = catalogue.models.map((model) => model.name);
    const asked = (args.get("models") || "").split(",").filter((name) => names.includes(name));
    const state = { models: asked.length ? names.filter((name) => asked.includes(name)) : pair(catalogue), row: args.get("row"), sample: Number(args.get("sample")) || 0 };
    const entry = catalogue.sets.find((one) => one.name === args.get("set")) || catalogue.sets[0];
    for (const name of FILTERS) state[name] = args.get(name) || "";
    return { ...state, set: entry.name, entry, q: args.get("q") || "", thinking: args.get("thinking") || "", page: Math.max(Number(args.get("page")) || 1, 1), passport: args.get("passport") || "" };
  }

  // A tuned model and its base, or the first two there are.
  function pair(catalogue) {
    const names = catalogue.models.map((model) => model.name);
    const tuned = catalogue.models.find((model) => names.includes(model.base));
    return tuned ? names.filter((name) => name === tuned.name || name === tuned.base) : names.slice(0, 2);
  }

  function listArgs(state, catalogue) {
    const args = {};
    if (state.set !== catalogue.sets[0].name) args.set = state.set;
    if (state.entry.kind === "evaluation") args.models = state.models.join(",");
    for (const name of [...FILTERS, "q", "thinking"]) if (state[name]) args[name] = state[name];
    if (state.page > 1) args.page = state.page;
    return args;
  }

  // The address of a row: of what it is, not of where it stands.
  function rowArgs(state, key, catalogue) {
    const args = state.set === catalogue.sets[0].name ? {} : { set: state.set };
    args.row = key;
    if (state.entry.kind === "evaluation") args.models = state.models.join(",");
    if (state.sample) args.sample = state.sample;
    return args;
  }

  // ---- controls ----

  function select(state, name, label, options, changed, none = "all") {
    const known = options.some(([value]) => value === state[name]);
    const all = [["", none], ...(state[name] && !known ? [[state[name], `${state[name]} (no row)`]] : []), ...options];
    const list = h("select", { name, onchange: () => changed(name, list.value) }, all.map(([value, title]) => h("option", { value }, title)));
    list.value = state[name];
    return h("label", {}, label, list);
  }

  function tick(name, title, on, changed) {
    const box = h("input", { type: "checkbox", name, checked: on, onchange: () => changed(box.checked, box) });
    box.dataset.title = title;
    return h("label", { class: "tr-tick" }, box, h("bdi", {}, title));
  }

  const counted = (name, n) => [name, `${name} (${report.count(n)})`];

  function setControl(state, catalogue, changed) {
    const list = h("select", { name: "set", onchange: () => changed(list.value) }, catalogue.sets.map((one) =>
      h("option", { value: one.name }, `${one.kind === "evaluation" ? "answers to benchmarks" : `${one.published ? "published" : "training"} rows: ${one.name}`} (${report.count(one.rows)})`)));
    list.value = state.set;
    return h("label", {}, "Data set", list);
  }

  function modelControl(state, catalogue, changed) {
    const ticks = catalogue.models.map((model) => tick("model", model.name, state.models.includes(model.name), (on, box) => {
      const models = catalogue.models.map((one) => one.name).filter((name) => (name === model.name ? on : state.models.includes(name)));
      if (models.length) changed(models, model.name);
      else box.checked = true; // one has to be left
    }));
    return h("fieldset", { class: "tr-ticks" }, h("legend", {}, "Models shown"), ticks);
  }

  function evaluationControls(set, state, changed) {
    const groups = set.groups.filter((group) => !state.purpose || group.purpose === state.purpose);
    const sizes = set.groups.map((group) => counted(group.benchmark, group.count));
    const purposes = [...new Set(set.groups.map((group) => group.purpose))];
    return [
      select(state, "purpose", "Purpose", purposes.map((name) => [name, name]), changed),
      select(state, "benchmark", "Benchmark", sizes.filter(([name]) => groups.some((group) => group.benchmark === name)), changed),
      select(state, "category", "Category", categoriesOf(set, groups, state), changed),
      select(state, "verdict", "Verdict", verdictsOf(set, state), changed),
      select(state, "of", "In the answer of", state.models.map((name) => [name, name]), changed, "any of them"),
      select(state, "changed", `Changed from ${state.models[0]}`, changesOf(set, state), changed, "–"),
    ];
  }

  function categoriesOf(set, groups, state) {
    const counts = new Map();
    for (const group of groups) {
      if (state.benchmark && group.benchmark !== state.benchmark) continue;
      for (let row = group.start; row < group.start + group.count; row++) {
        if (set.category[row] >= 0) counts.set(set.category[row], (counts.get(set.category[row]) || 0) + 1);
      }
    }
    return [...counts].sort((a, b) => a[0] - b[0]).map(([number, n]) => counted(set.categories[number], n));
  }

  // What judges said of answers of the models shown: of any judge, and of each.
  function verdictsOf(set, state) {
    const found = new Map();
    for (const name of state.models) {
      for (const group of set.models[name]) {
        for (const judge of group.judges) {
          const words = found.get(judge.name) || found.set(judge.name, new Set()).get(judge.name);
          if (words.size <= set.said.length) judge.codes.forEach((code) => words.add(code));
        }
      }
    }
    const ordered = (codes) => [...codes].filter((code) => code > 0).sort((a, b) => set.unscored[a] - set.unscored[b] || a - b).map((code) => set.said[code - 1]);
    const any = ordered(new Set([...found.values()].flatMap((codes) => [...codes])));
    const each = [...found].flatMap(([judge, codes]) => ordered(codes).map((word) => [`${judge}:${word}`, `${judge}: ${readable(word)}`]));
    return found.size > 1 ? [...any.map((word) => [`:${word}`, `any judge: ${readable(word)}`]), ...each] : each;
  }

  const readable = (word) => word.replaceAll("_", " ");

  function changesOf(set, state) {
    if (state.models.length < 2) return [];
    const found = data.transitions(set, state.models);
    return [["any", "any change"], ...found.map(([name, n]) => [name, `${readable(name).replace(" > ", " → ")} (${report.count(n)})`])];
  }

  function trainingControls(set, state, changed) {
    const rows = set.rows || set.ids.map((_, row) => row);
    const tally = (numbers, names) => {
      const counts = new Map();
      for (const row of rows) for (const number of numbers(row)) counts.set(number, (counts.get(number) || 0) + 1);
      return [...counts].filter(([number]) => number >= 0).sort((a, b) => a[0] - b[0]).map(([number, n]) => [String(names(number)), `${names(number)} (${report.count(n)})`]);
    };
    const outcomes = tally((row) => [set.outcome[row]], (n) => set.outcomes[n]);
    return [
      select(state, "category", "Category", tally((row) => set.category[row], (n) => set.categories[n]), changed),
      select(state, "source", "Source", tally((row) => [set.source[row]], (n) => set.sources[n]), changed),
      select(state, "mark", "Lowest mark", tally((row) => [set.lowest[row]], (n) => n).reverse(), changed),
      outcomes.length > 0 && select(state, "outcome", "Left out because", outcomes, changed, "–"),
    ];
  }

  // ---- the list ----

  function showList(element, catalogue, set, state) {
    const evaluation = set.kind === "evaluation";
    const controls = h("div", { class: "filters" });
    const status = h("p", { class: "tr-status", role: "status" });
    const progress = h("progress", { hidden: true, "aria-label": "Search" });
    const list = h("ol", { class: `tr-list${evaluation ? many(state) : " tr-training"}`, "aria-label": "Rows" });
    const pages = h("div", { class: "pages" });
    const view = { catalogue, set, state, list, status, progress, pages, element, shown: null };
    const changed = (name, value) => {
      state[name] = value;
      if (name === "purpose") state.benchmark = state.category = "";
      if (name === "benchmark") state.category = "";
      state.page = 1;
      if (name === "purpose" || name === "benchmark") drawControls(name);
      update(view);
    };
    const drawControls = (focus) => {
      const specific = evaluation ? evaluationControls(set, state, changed) : trainingControls(set, state, changed);
      controls.replaceChildren();
      report.append(controls, [specific]);
      if (focus) controls.querySelector(`[name="${focus}"]`).focus();
    };
    drawControls();
    report.append(element, [
      h("div", { class: "tr-top" }, setControl(state, catalogue, (name) => again(element, { set: name }, "set")), evaluation && modelControl(state, catalogue, (models, name) => {
        const kept = { of: models.includes(state.of) ? state.of : "", changed: models.length > 1 ? state.changed : "" };
        again(element, listArgs({ ...state, models, ...kept, page: 1 }, catalogue), "model", name);
      })),
      searchControls(view),
      h("details", { class: "tr-filters", open: !matchMedia(NARROW).matches || FILTERS.some((name) => state[name]) }, h("summary", {}, "Filters"), controls,
        evaluation && h("fieldset", { class: "tr-ticks" }, h("legend", {}, "Only rows with"), FLAGS.map(([name, title]) => tick(name, title, Boolean(state[name]), (on) => changed(name, on ? "1" : ""))))),
      h("div", { class: "tr-bar" }, status, progress, text.harmControl()),
      h("p", { class: "note" }, legend(set), h("span", { class: "tr-narrow" }, origin(set))),
      heads(set, state),
      list,
      pages,
      h("p", { class: "note" }, "Arrow keys move between rows, Page Up and Page Down between pages, Enter opens a row."),
    ]);
    list.addEventListener("keydown", (event) => keys(event, view));
    update(view, true);
    if (visit.back) focusRow(list, visit.back);
    visit.back = null;
    warm(set);
  }

  // Draws the section anew with another address; the control that was used keeps the focus.
  async function again(element, args, control, title) {
    report.note(ID, args);
    element.replaceChildren();
    await render(element, new URLSearchParams(args));
    const found = [...element.querySelectorAll(`[name="${control}"]`)].find((one) => !title || one.dataset.title === title);
    if (found) found.focus();
  }

  // More columns than fit beside a prompt stand below it.
  const many = (state) => (state.models.length > MOST_COLUMNS ? " tr-many" : "");

  const origin = (set) => (set.published ? report.published() : report.mark(set.kind === "evaluation" ? "results" : "data"));

  // What the column beside the prompts says.
  function legend(set) {
    if (set.kind === "evaluation") return "Beside each prompt what the primary judge said of each model's answer. ✓ is what one hopes for given the purpose of the prompt, ✗ is not, ◐ lies between, – has no verdict and counts in no rate.";
    const marks = Object.keys(set.marks).map(readable);
    return marks.length > 0 && `Marks in this order: ${marks.join(" · ")}.`;
  }

  function heads(set, state) {
    const columns = set.kind === "evaluation" ? state.models.map((name) => h("span", {}, h("bdi", {}, name), origin(set))) : h("span", {}, "Marks", origin(set));
    return h("div", { class: `tr-heads${set.kind === "evaluation" ? many(state) : " tr-training"}`, "aria-hidden": "true" }, h("span", {}, set.kind === "evaluation" ? "Prompt" : "Question"), columns);
  }

  function searchControls(view) {
    const { state } = view;
    let timer = null;
    const input = h("input", { type: "search", name: "q", value: state.q, autocomplete: "off", spellcheck: "false", placeholder: "all of these words", oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(search, TYPING_MS);
    } });
    const search = () => {
      clearTimeout(timer);
      state.q = input.value.trim();
      state.page = 1;
      update(view);
    };
    const form = h("form", { class: "tr-search", role: "search", onsubmit: (event) => {
      event.preventDefault();
      search();
    } });
    const where = view.set.kind === "evaluation" ? "Search in prompts and answers" : "Search in questions and answers";
    form.append(h("label", { class: "tr-query" }, where, input), tick("thinking", "in the thinking too", Boolean(state.thinking), (on) => {
      state.thinking = on ? "1" : "";
      update(view);
    }));
    return form;
  }

  // Filters, and begins the search where there is one; draws the list.
  function update(view, first = false) {
    const { state, set, catalogue } = view;
    if (!first) report.note(ID, listArgs(state, catalogue));
    const wanted = data.terms(state.q).length > 0;
    const key = wanted && data.searchKey(set, state);
    if (running && (running.key !== key || running.stop)) {
      running.stop = true;
      running = null;
    }
    if (wanted && !running) {
      running = data.search(set, state);
      running.ended.catch((error) => failed(view, error));
    }
    if (running) running.told = (run) => progressed(view, run);
    draw(view);
  }

  function failed(view, error) {
    running = null;
    view.progress.hidden = true;
    view.status.replaceChildren(h("span", { class: "tr-bad" }, `The search cannot go on: ${error.message}`));
  }

  // While a search reads, the list follows a few times a second.
  function progressed(view, run) {
    if (run !== running || !view.list.isConnected) return;
    const now = performance.now();
    if (!run.over && now - (view.drawn || 0) < 250) {
      view.progress.value = run.done;
      return;
    }
    view.drawn = now;
    draw(view);
  }

  function draw(view) {
    const { set, state, status, progress, catalogue } = view;
    const run = data.terms(state.q).length ? running : null;
    const rows = data.filter(set, state, run && run.hits);
    const last = Math.max(Math.ceil(rows.length / PAGE), 1);
    if (!run || run.over) state.page = Math.min(state.page, last);
    const total = set.rows ? set.rows.length : set.count;
    progress.hidden = !run || run.over;
    if (run) progress.max = run.total, progress.value = run.done;
    const told = `${report.count(rows.length)} of ${report.plural(total, "row")}`;
    status.setAttribute("aria-busy", String(Boolean(run && !run.over)));
    status.textContent = run && !run.over ? `${told} so far, searching …` : told;
    visit = { ...visit, rows, set, args: listArgs(state, catalogue) };
    drawRows(view, rows.subarray((state.page - 1) * PAGE, state.page * PAGE), !run || run.over);
    drawPages(view, rows.length, last);
  }

  function drawRows(view, rows, over) {
    const same = view.query === view.state.q && view.shown && view.shown.length === rows.length && view.shown.every((row, n) => row === rows[n]);
    view.list.start = (view.state.page - 1) * PAGE + 1;
    if (same && rows.length) return;
    view.shown = rows;
    delete view.list.dataset.ready;
    view.query = view.state.q;
    view.list.replaceChildren(...[...rows].map((row) => item(view, row)));
    if (!rows.length && over) view.list.append(h("li", { class: "tr-none" }, "No row is like that. ", h("button", { type: "button", onclick: () => report.go(ID, listArgs(bare(view.state), view.catalogue)) }, "Clear all filters")));
    fillHeads(view, rows);
  }

  function bare(state) {
    const cleared = Object.fromEntries(FILTERS.map((name) => [name, ""]));
    return { ...state, ...cleared, q: "", thinking: "", page: 1 };
  }

  function item(view, row) {
    const { set, state, catalogue } = view;
    const key = data.key(set, row);
    const link = h("a", { class: "tr-open", href: report.address(ID, rowArgs({ ...state, sample: 0 }, key, catalogue)) }, h("bdi", {}, key));
    const head = h("div", { class: "tr-head", dir: "auto" });
    const shown = data.harmful(set, row) ? text.veil(`${set.of || set.name}\n${key}`, head, key) : head;
    const first = h("div", { class: "tr-what" }, h("div", { class: "tr-name" }, link, about(set, row)), shown);
    const columns = set.kind === "evaluation" ? state.models.map((name) => verdictCell(set, row, name)) : [markCell(set, row)];
    const element = h("li", { "data-row": row }, first, columns);
    fillHead(view, row, head);
    return element;
  }

  function about(set, row) {
    if (set.kind === "evaluation") return set.category[row] < 0 ? null : h("span", { class: "tr-about" }, h("bdi", {}, set.categories[set.category[row]]));
    return h("span", { class: "tr-about" }, h("bdi", {}, [set.sources[set.source[row]], ...set.category[row].map((n) => set.categories[n])].join(" · ")));
  }

  // Verdicts of the primary judge over a prompt's samples, and what is remarkable about them.
  function verdictCell(set, row, name) {
    const group = set.groups[set.group[row]];
    const column = set.models[name][set.group[row]];
    const codes = new Map();
    let flags = 0;
    for (let at = (row - group.start) * column.samples; at < (row - group.start + 1) * column.samples; at++) {
      if (!(column.flags[at] & data.THERE)) continue;
      flags |= column.flags[at];
      const code = column.primary ? column.primary.codes[at] : 0;
      codes.set(code, (codes.get(code) || 0) + 1);
    }
    const chips = [...codes].sort((a, b) => a[0] - b[0]).map(([code, n]) => text.chip(group.purpose, code ? set.said[code - 1] : "not judged", n));
    const notes = [flags & data.DISAGREED && "judges disagree", flags & data.CUT_OFF && "cut off"].filter(Boolean);
    return h("div", { class: "tr-verdicts" }, h("bdi", { class: "tr-model" }, name),
      h("div", {}, chips.length ? chips : h("span", { class: "tr-chip tr-none" }, "no answer"), notes.map((note) => h("span", { class: "tr-note" }, note))));
  }

  function markCell(set, row) {
    const marks = Object.entries(set.marks).filter(([, column]) => column[row] >= 0);
    const short = marks.map(([, column]) => column[row]).join(" · ");
    return h("div", { class: "tr-verdicts" }, h("div", {}, marks.length > 0 && h("span", { class: "tr-chip tr-plain", title: marks.map(([name, column]) => `${readable(name)} ${column[row]}`).join(", ") }, h("span", { class: "tr-model" }, "marks "), short),
      set.outcome[row] >= 0 && h("span", { class: "tr-note" }, `left out: ${readable(set.outcomes[set.outcome[row]])}`)));
  }

  // ---- beginnings of prompts, at once where they are in memory ----

  function fillHead(view, row, head) {
    const known = data.known(view.set, "heads", row);
    if (known !== undefined) head.replaceChildren(text.line(known, data.terms(view.state.q)));
    return known !== undefined;
  }

  async function fillHeads(view, rows) {
    for (const row of rows) {
      if (view.shown !== rows) return;
      if (data.known(view.set, "heads", row) !== undefined) continue;
      await data.texts(view.set, "heads", row);
    }
    if (view.shown !== rows) return;
    for (const element of view.list.querySelectorAll("[data-row]")) {
      const head = element.querySelector(".tr-head");
      if (!head.firstChild) fillHead(view, Number(element.dataset.row), head);
    }
    view.list.dataset.ready = String(rows.length);
  }

  // Reads the beginnings of all prompts while nothing else is to be done, so that every filter has them at hand.
  async function warm(set) {
    const { name, starts } = set.parts.heads;
    if (starts.length > 32) return;
    for (let n = 0; n < starts.length; n++) {
      await report.idle(500);
      await data.part(`${name}-${n}`);
    }
  }

  // ---- pages and keys ----

  function drawPages(view, count, last) {
    const { state } = view;
    const to = (page, title, disabled) => h("button", { type: "button", disabled, onclick: () => turn(view, page) }, title);
    const first = count ? (state.page - 1) * PAGE + 1 : 0;
    const focused = view.pages.contains(document.activeElement) && document.activeElement.textContent;
    view.pages.replaceChildren(
      to(state.page - 1, "Previous", state.page <= 1),
      h("span", {}, `${report.count(first)}–${report.count(Math.min(state.page * PAGE, count))} of ${report.count(count)}`),
      to(state.page + 1, "Next", state.page >= last));
    const again = focused && [...view.pages.querySelectorAll("button:enabled")].find((button) => button.textContent === focused);
    if (again) again.focus();
  }

  function turn(view, page) {
    view.state.page = page;
    update(view);
    view.element.querySelector(".tr-bar").scrollIntoView({ block: "start" });
  }

  function keys(event, view) {
    const links = [...view.list.querySelectorAll(".tr-open")];
    const at = links.indexOf(document.activeElement);
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    const page = { PageDown: view.state.page + 1, PageUp: view.state.page - 1 }[event.key];
    if (next === undefined && page === undefined) return;
    event.preventDefault();
    if (page >= 1 && page <= Math.ceil(visit.rows.length / PAGE)) {
      turn(view, page);
      view.list.querySelector(".tr-open").focus();
    } else if (links[next]) {
      links[next].focus();
    }
  }

  function focusRow(list, key) {
    const link = [...list.querySelectorAll(".tr-open")].find((one) => one.textContent === key);
    if (link) link.focus();
  }

  // ---- the section ----

  async function render(element, args) {
    const catalogue = await data.catalogue();
    if (!catalogue.sets.length) {
      element.append(h("p", {}, "There are no rows to show."));
      return;
    }
    const state = read(args, catalogue);
    const set = await data.open(state.entry);
    if (state.row === null) {
      showList(element, catalogue, set, state);
      return;
    }
    if (running) running.stop = !running.over;
    const whole = visit.set === set ? visit : { rows: null, args: listArgs(bare({ ...state, row: null }), catalogue) };
    visit.back = state.row;
    await transcriptRow.show(element, { catalogue, set, state, rowArgs: (changes, key) => rowArgs({ ...state, ...changes }, key, catalogue), list: whole, again: (args, control, title) => again(element, args, control, title), modelControl, harmControl: text.harmControl });
  }

  report.section({ id: ID, title: "Transcripts", render });
})();
