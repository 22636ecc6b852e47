// Rows of the transcripts: columns to filter by, parts with their texts, and the search through them.
"use strict";

const transcriptData = (() => {
  const THERE = 1, UNFINISHED = 2, CUT_OFF = 4, DISAGREED = 8;
  // Parts that stay in memory, of half a megabyte each: all of a small report, and what was last looked at of a large one.
  const KEPT = 64;
  const AHEAD = 4;
  const MOST_TERMS = 31;
  const parts = new Map();
  const sets = new Map();

  // ---- parts ----

  async function part(name) {
    const found = parts.get(name);
    if (found) {
      parts.delete(name); // moves it behind those that were used longer ago
      parts.set(name, found);
      return found;
    }
    const rows = await report.load(name);
    parts.set(name, rows);
    for (const old of parts.keys()) {
      if (parts.size <= KEPT) break;
      parts.delete(old);
      report.drop(old);
    }
    return rows;
  }

  // Which part a row stands in, and at which place.
  function place(about, row) {
    let low = 0;
    let high = about.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (about.starts[middle] <= row) low = middle;
      else high = middle - 1;
    }
    return { name: `${about.name}-${low}`, at: row - about.starts[low] };
  }

  async function texts(set, kind, row) {
    const { name, at } = place(set.parts[kind], row);
    return (await part(name))[at];
  }

  // The same where the part is in memory; undefined where it is not.
  function known(set, kind, row) {
    const { name, at } = place(set.parts[kind], row);
    const rows = parts.get(name);
    return rows && rows[at];
  }

  // ---- sets ----

  const catalogue = () => report.load("transcripts/catalogue");

  async function open(entry) {
    if (!sets.has(entry.name)) {
      const index = await report.load(entry.index);
      const set = { ...index, name: entry.name, of: entry.of || null, count: index.ids.length };
      set.rows = entry.of ? Uint32Array.from(index.subsets[entry.name]) : null;
      if (set.kind === "evaluation") prepareEvaluation(set);
      else prepareTraining(set);
      sets.set(entry.name, set);
    }
    return sets.get(entry.name);
  }

  function prepareEvaluation(set) {
    set.group = new Uint16Array(set.count);
    set.keys = new Map();
    set.groups.forEach((group, number) => {
      for (let row = group.start; row < group.start + group.count; row++) {
        set.group[row] = number;
        set.keys.set(`${group.benchmark}/${set.ids[row]}`, row);
      }
    });
    set.category = Int32Array.from(set.category);
    set.said = set.words.map((word) => word.verdict || `unscored: ${word.unscored}`);
    set.unscored = Uint8Array.from([0, ...set.words.map((word) => (word.verdict ? 0 : 1))]);
    for (const groups of Object.values(set.models)) {
      for (const group of groups) {
        group.flags = Uint8Array.from(group.flags);
        for (const judge of group.judges) judge.codes = Uint16Array.from(judge.codes);
        group.primary = group.judges.find((judge) => judge.primary) || group.judges[0] || null;
      }
    }
  }

  function prepareTraining(set) {
    set.keys = new Map(set.ids.map((id, row) => [id, row]));
    set.source = Int32Array.from(set.source);
    set.lowest = Int32Array.from(set.ids, (_, row) => {
      const given = Object.values(set.marks).map((column) => column[row]).filter((mark) => mark >= 0);
      return given.length ? Math.min(...given) : -1;
    });
  }

  const key = (set, row) => (set.kind === "evaluation" ? `${set.groups[set.group[row]].benchmark}/${set.ids[row]}` : set.ids[row]);

  // A row by its key, or by its id alone where that is the only one.
  function find(set, name) {
    let row = set.keys.has(name) ? set.keys.get(name) : set.ids.indexOf(name);
    if (!set.keys.has(name) && set.ids.indexOf(name, row + 1) > row) row = -1;
    return set.rows && !set.rows.includes(row) ? -1 : row;
  }

  function harmful(set, row) {
    return set.kind === "evaluation" ? set.groups[set.group[row]].purpose === "harmful" : set.harmful;
  }

  // ---- filters ----

  // Rows that pass all filters, in order. `hits` has a 1 for each row that the search has found.
  function filter(set, state, hits) {
    const found = new Uint32Array(set.rows ? set.rows.length : set.count);
    let count = 0;
    const take = (row) => {
      if (!hits || hits[row]) found[count++] = row;
    };
    if (set.kind === "evaluation") filterEvaluation(set, state, take);
    else filterTraining(set, state, take);
    return found.subarray(0, count);
  }

  function filterTraining(set, state, take) {
    const source = number(set.sources, state.source);
    const category = number(set.categories, state.category);
    const outcome = number(set.outcomes, state.outcome);
    const mark = state.mark ? Number(state.mark) : null;
    const count = set.rows ? set.rows.length : set.count;
    for (let n = 0; n < count; n++) {
      const row = set.rows ? set.rows[n] : n;
      if (source !== null && set.source[row] !== source) continue;
      if (category !== null && !set.category[row].includes(category)) continue;
      if (outcome !== null && set.outcome[row] !== outcome) continue;
      if (mark !== null && set.lowest[row] !== mark) continue;
      take(row);
    }
  }

  // The number of a name; null where none is asked for, and one that no row has where there is no such name.
  function number(names, name) {
    if (!name) return null;
    const found = names.indexOf(name);
    return found < 0 ? -2 : found;
  }

  function filterEvaluation(set, state, take) {
    const category = number(set.categories, state.category);
    const asked = askedOfAnswers(set, state);
    const models = state.of ? state.models.filter((name) => name === state.of) : state.models;
    set.groups.forEach((group, g) => {
      if (state.benchmark && group.benchmark !== state.benchmark) return;
      if (state.purpose && group.purpose !== state.purpose) return;
      const columns = models.map((name) => set.models[name][g]);
      const tests = asked && columns.map((column) => answerTest(set, state, asked, column));
      const changed = state.changed && changes(set, state.models.map((name) => set.models[name][g]), state.changed);
      for (let n = 0; n < group.count; n++) {
        if (category !== null && set.category[group.start + n] !== category) continue;
        if (changed && !changed(n)) continue;
        if (tests && !tests.some((test) => test(n))) continue;
        take(group.start + n);
      }
    });
  }

  // What is asked of one answer: all of it of the same one.
  function askedOfAnswers(set, state) {
    const flags = (state.unfinished ? UNFINISHED : 0) | (state.cutoff ? CUT_OFF : 0) | (state.disagree ? DISAGREED : 0);
    if (!flags && !state.unscored && !state.verdict) return null;
    const colon = state.verdict.indexOf(":");
    const word = state.verdict ? set.said.indexOf(state.verdict.slice(colon + 1)) + 1 : 0;
    return { flags, judge: state.verdict.slice(0, Math.max(colon, 0)), word };
  }

  function answerTest(set, state, asked, column) {
    const k = column.samples;
    const judges = column.judges.filter((judge) => !asked.judge || judge.name === asked.judge);
    const passes = (at) => {
      if (!(column.flags[at] & THERE) || (column.flags[at] & asked.flags) !== asked.flags) return false;
      if (state.unscored && !column.judges.some((judge) => set.unscored[judge.codes[at]])) return false;
      return !state.verdict || (asked.word > 0 && judges.some((judge) => judge.codes[at] === asked.word));
    };
    return (n) => {
      for (let at = n * k; at < (n + 1) * k; at++) if (passes(at)) return true;
      return false;
    };
  }

  // Whether the primary verdict on any later model's sample differs from that on the first one's: `any`, or `from > to`.
  function changes(set, columns, wanted) {
    const pairs = comparisons(columns);
    return (n) => pairs.some((pair) => {
      for (let sample = 0; sample < pair.samples; sample++) {
        const [one, other] = compared(set, pair, n, sample);
        if (one && other && one !== other && (wanted === "any" || wanted === `${set.said[one - 1]} > ${set.said[other - 1]}`)) return true;
      }
      return false;
    });
  }

  function comparisons(columns) {
    const [base, ...others] = columns;
    if (!base || !base.primary) return [];
    return others.filter((other) => other.primary && other.primary.name === base.primary.name)
      .map((other) => ({ base, other, samples: Math.min(base.samples, other.samples) }));
  }

  // Codes of both verdicts, 0 where there is none.
  function compared(set, { base, other }, n, sample) {
    return [base, other].map((column) => {
      const code = column.primary.codes[n * column.samples + sample];
      return set.unscored[code] ? 0 : code;
    });
  }

  // Every change of verdict that there is between the first model and the others, and on how many rows.
  function transitions(set, models) {
    const found = new Map();
    set.groups.forEach((group, g) => {
      const pairs = comparisons(models.map((name) => set.models[name][g]));
      for (let n = 0; n < group.count; n++) {
        const here = new Set();
        for (const pair of pairs) {
          for (let sample = 0; sample < pair.samples; sample++) {
            const [one, other] = compared(set, pair, n, sample);
            if (one && other && one !== other) here.add(`${set.said[one - 1]} > ${set.said[other - 1]}`);
          }
        }
        for (const name of here) found.set(name, (found.get(name) || 0) + 1);
      }
    });
    return [...found].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  }

  // ---- search ----

  // Words, and "several words" in quotes, in small letters; all must stand somewhere in a row.
  function terms(query) {
    const found = [...query.matchAll(/"([^"]+)"|(\S+)/g)].map((match) => (match[1] || match[2]).toLowerCase());
    return [...new Set(found)].slice(0, MOST_TERMS);
  }

  function searched(set, state) {
    const kinds = ["prompts"];
    const models = set.kind === "evaluation" ? state.models.map((name) => `/${name}`) : [""];
    for (const model of models) {
      kinds.push(`answers${model}`);
      if (state.thinking) kinds.push(`thinking${model}`);
    }
    return kinds;
  }

  const searchKey = (set, state) => JSON.stringify([set.name, searched(set, state), terms(state.q)]);

  // Reads part after part. `run.told` is called after each; `run.stop` ends it. A row is found once each term was seen in it.
  function search(set, state) {
    const wanted = terms(state.q);
    const run = { key: searchKey(set, state), hits: new Uint8Array(set.count), found: 0, done: 0, total: 0, over: false, stop: false, told: () => {} };
    const seen = new Uint32Array(set.count);
    const all = 2 ** wanted.length - 1;
    const mark = (row, text) => {
      if (!text || seen[row] === all) return;
      const low = text.toLowerCase();
      let bits = seen[row];
      wanted.forEach((term, n) => {
        if (low.includes(term)) bits |= 1 << n;
      });
      seen[row] = bits >>> 0;
      if (seen[row] === all) run.found += run.hits[row] = 1;
    };
    const queue = files(set, state);
    run.total = queue.length;
    run.ended = scan(queue, run, mark);
    return run;
  }

  // All parts to be read, those of the first rows first.
  function files(set, state) {
    const found = searched(set, state).flatMap((kind) => set.parts[kind].starts.map((start, n) => ({ kind, start, name: `${set.parts[kind].name}-${n}` })));
    return found.sort((a, b) => a.start - b.start);
  }

  async function scan(queue, run, mark) {
    const large = queue.length > KEPT;
    const reading = [];
    let next = 0;
    while (run.done < queue.length && !run.stop) {
      while (next < queue.length && reading.length < AHEAD) reading.push(read(queue[next++], large));
      const { kind, start, rows } = await reading.shift();
      rows.forEach((row, n) => eachText(kind, row, (text) => mark(start + n, text)));
      run.done++;
      run.over = run.done === queue.length;
      run.told(run);
    }
    run.over = run.done === queue.length;
  }

  // A file of a search; what a large search reads does not drive out what is looked at.
  async function read(file, large) {
    const held = parts.get(file.name);
    if (held || !large) return { ...file, rows: held || (await part(file.name)) };
    const rows = await report.load(file.name);
    report.drop(file.name);
    return { ...file, rows };
  }

  function eachText(kind, row, take) {
    if (kind === "prompts") take(row.question);
    else if (kind.startsWith("answers")) row.forEach((one) => one && take(one.answer));
    else row.forEach(take);
  }

  return { THERE, UNFINISHED, CUT_OFF, DISAGREED, catalogue, open, find, key, harmful, filter, transitions, terms, search, searchKey, texts, known, part };
})();
