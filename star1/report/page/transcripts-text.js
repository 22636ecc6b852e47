// How the transcripts show texts of others: as text, with what is invisible made visible, and harmful text behind a veil.
"use strict";

const transcriptText = (() => {
  const { h } = report;
  // Characters shown at once; the rest on demand.
  const MOST = 200000;
  const MOST_MARKS = 1000;
  // Control characters, invisible ones and those that turn the direction of text, lone surrogates; joiners only beside ASCII, as scripts
  // and emoji need them elsewhere.
  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u3164\uffa0\u{e0000}-\u{e0fff}]|\p{Cs}|(?<=[\u0020-\u007e])[\u200c\u200d]|[\u200c\u200d](?=[\u0020-\u007e])/gu;

  // Its number: symbols for control characters are in few fonts.
  const symbol = (character) => `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

  // Text with hidden characters as symbols and the terms of a search marked.
  function spans(text, terms) {
    const found = [];
    let last = 0;
    for (const match of text.matchAll(HIDDEN)) {
      marked(found, text.slice(last, match.index), terms);
      found.push(h("span", { class: "tr-hidden", title: "a character that cannot be seen" }, symbol(match[0])));
      last = match.index + match[0].length;
    }
    marked(found, text.slice(last), terms);
    return found;
  }

  function marked(found, text, terms) {
    const low = text.toLowerCase();
    if (!terms.length || low.length !== text.length) { // letters whose small form is longer: places would not fit
      if (text) found.push(text);
      return;
    }
    let last = 0;
    let marks = 0;
    const finder = new RegExp(terms.map((term) => term.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")).join("|"), "g");
    for (const match of low.matchAll(finder)) {
      if (marks++ >= MOST_MARKS) break;
      if (match.index > last) found.push(text.slice(last, match.index));
      last = match.index + match[0].length;
      found.push(h("mark", {}, text.slice(match.index, last)));
    }
    if (last < text.length) found.push(text.slice(last));
  }

  // A block of text that can be scrolled, by keyboard too.
  function block(text, label, terms = []) {
    const element = h("div", { class: "tr-text", dir: "auto", tabindex: "0", role: "group", "aria-label": label });
    fill(element, text, terms);
    return element;
  }

  function fill(element, text, terms) {
    if (text.length <= MOST) {
      element.replaceChildren(...spans(text, terms));
      return;
    }
    const rest = h("button", { type: "button", class: "tr-more", onclick: () => element.replaceChildren(...spans(text, terms)) });
    rest.append(`Show all ${text.length.toLocaleString("en")} characters`);
    element.replaceChildren(...spans(text.slice(0, MOST), terms), h("p", {}, rest));
  }

  // One line, for lists and titles.
  const line = (text, terms = []) => h("bdi", {}, ...spans(text.replace(/[ \t\n]+/g, " "), terms));

  // ---- the veil ----

  const shown = new Set(); // keys of rows that were asked for
  const keys = new WeakMap(); // veil -> its row's key
  let all = false;

  const isShown = (key) => all || shown.has(key);

  // Blurs what is harmful until its row, or everything, is asked for. A veiled text is out of reach of keyboard and screen reader.
  function veil(key, element, name) {
    const button = h("button", { type: "button", class: "tr-unveil", onclick: () => ask(key, around) }, name ? "Show" : "Harmful text: show this row");
    if (name) button.setAttribute("aria-label", `Show the harmful text of row ${name}`);
    const around = h("div", { class: "tr-veil" }, element, button);
    keys.set(around, key);
    draw(around);
    return around;
  }

  function draw(around) {
    const open = isShown(keys.get(around));
    const [element, button] = around.children;
    around.classList.toggle("tr-veiled", !open);
    element.inert = !open;
    button.hidden = open;
  }

  function redraw() {
    document.querySelectorAll(".tr-veil").forEach(draw);
  }

  function ask(key, around) {
    shown.add(key);
    redraw();
    const next = around.querySelector("[tabindex]") || around.closest("li, article, section")?.querySelector("a, [tabindex]");
    if (next) next.focus(); // the button that had the focus is gone
  }

  function setAll(value) {
    all = value;
    if (!value) shown.clear();
    redraw();
  }

  // A button that shows everything, or blurs it again.
  function harmControl() {
    const title = () => (all ? "Blur harmful text" : "Show harmful text");
    const button = h("button", { type: "button", class: "tr-harm", "aria-pressed": String(all), onclick: () => {
      setAll(!all);
      document.querySelectorAll(".tr-harm").forEach((one) => {
        one.setAttribute("aria-pressed", String(all));
        one.textContent = title();
      });
    } }, title());
    return button;
  }

  // ---- verdicts ----

  const GOOD = { harmful: ["full_refusal", "partial_refusal"], benign: ["full_compliance"] };
  const BAD = { harmful: ["full_compliance"], benign: ["full_refusal"] };
  const SIGNS = { good: "✓", bad: "✗", middle: "◐", none: "–" };

  // Whether a verdict is what one hopes for, given the purpose of the prompt.
  function tone(purpose, word) {
    if (word.startsWith("unscored")) return "none";
    if (["safe", "correct", ...(GOOD[purpose] || [])].includes(word)) return "good";
    if (["unsafe", "incorrect", ...(BAD[purpose] || [])].includes(word)) return "bad";
    return "middle";
  }

  function chip(purpose, word, times = 1) {
    const kind = tone(purpose, word);
    return h("span", { class: `tr-chip tr-${kind}` }, h("span", { "aria-hidden": "true" }, SIGNS[kind]), " ", word.replaceAll("_", " "), times > 1 ? ` ×${times}` : null);
  }

  return { block, line, veil, isShown, harmControl, chip, tone };
})();
