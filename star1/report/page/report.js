// The shell of the page: data files, a router on the address's hash, and builders of elements.
// Whatever comes from rows becomes text (textContent), never markup.
"use strict";

const report = (() => {
  const values = new Map(); // name -> what its file put
  const loading = new Map(); // name -> promise
  const sections = [];
  let page = { standIn: {}, made: "" };
  let shown = { id: null, number: 0 };

  // ---- data files: data/NAME.js holds report.put("NAME", value) ----

  function put(name, value) {
    values.set(name, value);
  }

  function script(path) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = path;
      element.onload = () => {
        element.remove();
        resolve();
      };
      element.onerror = () => reject(new Error(`${path} is missing or cannot be read`));
      document.head.append(element);
    });
  }

  // Fulfilled when nothing else is to be done, or after `timeout` ms; not every browser can tell the first.
  function idle(timeout) {
    return new Promise((resolve) => (globalThis.requestIdleCallback ? requestIdleCallback(resolve, { timeout }) : setTimeout(resolve, 50)));
  }

  function load(name) {
    if (!/^[\w+-][\w+.-]*(\/[\w+-][\w+.-]*)*$/.test(name)) return Promise.reject(new Error(`no data file is called ${name}`));
    if (!loading.has(name)) {
      const path = `data/${name.split("/").map(encodeURIComponent).join("/")}.js`;
      const promise = (values.has(name) ? Promise.resolve() : script(path)).then(() => {
        if (!values.has(name)) throw new Error(`data/${name}.js does not hold ${name}`);
        return values.get(name);
      });
      promise.catch(() => loading.delete(name)); // may be tried again
      loading.set(name, promise);
    }
    return loading.get(name);
  }

  // Lets go of a loaded file, for those who go through many of them.
  function drop(name) {
    values.delete(name);
    loading.delete(name);
  }

  // ---- elements ----

  // h("p", {class: "note", onclick: f}, "text", element, [more], null)
  function h(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "href" && !/^(#|[\w.+-]+(\/[\w.+-]+)*$)/.test(value)) throw new Error(`a link to ${value}`);
      else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    append(element, children);
    return element;
  }

  function append(element, children) {
    for (const child of children) {
      if (Array.isArray(child)) append(element, child);
      else if (child !== null && child !== undefined && child !== false) element.append(child instanceof Node ? child : String(child));
    }
  }

  // ---- sections and addresses: #/id?key=value ----

  function section(one) {
    sections.push(one);
  }

  function address(id, args) {
    const query = new URLSearchParams(args || {}).toString();
    return `#/${id}${query && "?" + query}`;
  }

  function parse(hash) {
    const [, id = "", query = ""] = /^#\/([^?]*)\??(.*)$/.exec(hash) || [];
    return { id: decodeURIComponent(id), args: new URLSearchParams(query) };
  }

  function go(id, args) {
    location.hash = address(id, args);
  }

  // Writes the state of a section into the address without drawing it again.
  function note(id, args) {
    history.replaceState(null, "", address(id, args));
  }

  async function show() {
    if (location.hash && !location.hash.startsWith("#/")) return; // a plain anchor
    const { id, args } = parse(location.hash);
    const one = sections.find((each) => each.id === id) || sections[0];
    const first = shown.id === null;
    const number = shown.number + 1;
    const moved = shown.id !== one.id;
    shown = { id: one.id, number };
    document.title = `${one.title} · STAR-1 report`;
    for (const link of document.querySelectorAll("#nav a")) {
      if (link.dataset.id === one.id) {
        link.setAttribute("aria-current", "page");
        link.scrollIntoView({ block: "nearest", inline: "nearest" }); // where not all of them fit
      } else link.removeAttribute("aria-current");
    }
    const heading = h("h1", { tabindex: "-1" }, one.title);
    const element = h("div", { class: `section section-${one.id}` });
    const main = document.getElementById("main");
    main.setAttribute("aria-busy", "true");
    main.replaceChildren(heading, element);
    if (moved && !first) {
      scrollTo(0, 0);
      heading.focus({ preventScroll: true });
    }
    try {
      await one.render(element, args);
    } catch (error) {
      if (number === shown.number) element.append(h("p", { class: "fault", role: "alert" }, `This section cannot be shown: ${error.message}`));
      console.error(error);
    }
    if (number !== shown.number) return; // another one was asked for meanwhile
    main.removeAttribute("aria-busy");
    const at = args.get("at") && document.getElementById(args.get("at"));
    if (at) at.scrollIntoView();
  }

  // ---- light and dark ----

  const THEMES = ["system", "light", "dark"];
  const redraws = new Set();

  function theme() {
    return document.documentElement.dataset.theme || "system";
  }

  function setTheme(name) {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    const button = document.getElementById("theme");
    button.textContent = `Theme: ${name}`;
    try {
      localStorage.setItem("star1-report-theme", name);
    } catch (_) {
      // a browser that keeps nothing for pages from disk
    }
    redraw();
  }

  function startTheme() {
    let kept = null;
    try {
      kept = localStorage.getItem("star1-report-theme");
    } catch (_) {
      // as above
    }
    setTheme(THEMES.includes(kept) ? kept : "system");
    document.getElementById("theme").addEventListener("click", () => {
      setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  function redraw() {
    for (const one of redraws) {
      if (one.element.isConnected) one.draw();
      else redraws.delete(one);
    }
  }

  // Calls `draw` again whenever light turns dark, as long as `element` is on the page.
  function onTheme(element, draw) {
    redraws.add({ element, draw });
  }

  // ---- stand-ins ----

  // A mark for a number or table that rests on a stand-in; `about` is "data" or "results". Nothing where there is none.
  function mark(about) {
    const why = page.standIn[about];
    return why ? [" ", h("span", { class: "stand-in", title: why }, "stand-in")] : null;
  }

  // The same for what others released, and no step of this run made.
  function published() {
    return [" ", h("span", { class: "published", title: "Rows that others released. Nothing of them was made in this run." }, "published")];
  }

  function banner() {
    const element = document.getElementById("banner");
    if (!page.banner) return;
    append(element, [h("strong", {}, page.banner.title), " ", page.banner.text, " ", h("a", { href: "#/overview?at=stand-ins" }, "What stands in for what")]);
    element.hidden = false;
    document.documentElement.classList.add("has-stand-in");
  }

  async function start() {
    page = await load("page");
    const list = document.getElementById("nav");
    for (const one of sections) list.append(h("li", {}, h("a", { href: address(one.id), "data-id": one.id }, one.title)));
    document.getElementById("footer").append(page.made);
    banner();
    startTheme();
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address is the router's
      document.getElementById("main").focus();
    });
    addEventListener("hashchange", show);
    await show();
  }

  return { put, load, drop, script, idle, h, append, section, address, go, note, onTheme, mark, published, start, get page() { return page; } };
})();
