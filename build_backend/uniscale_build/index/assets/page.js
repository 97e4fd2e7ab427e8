"use strict";
(() => {
  const catalog = window.UNISCALE_CATALOG;
  const $ = (id) => document.getElementById(id);
  const TASKS = ["train", "serve", "infer"];
  const FIELDS = ["backend", "device", "task", "python", "platform"];
  const PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"];
  // What of the address is ours: a link to this page can carry a choice.
  const given = new URLSearchParams(location.hash.slice(1));
  let language = given.get("lang") || remembered() ||
    ((navigator.language || "").toLowerCase().startsWith("zh") ? "zh" : "en");
  if (!WORDS[language]) language = "en";
  let tool = given.get("with") || "uniscale";

  function remembered() {
    try { return localStorage.getItem("uniscale-language"); } catch { return null; }
  }
  function t(key, values = {}) {
    return WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }
  // Text from wheels only ever becomes text.
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // Versions: enough of PEP 440 to sort what an index holds.
  const keys = new Map(); // an index has thousands of wheels, and few versions
  function versionKey(text) {
    if (!keys.has(text)) keys.set(text, parsed(text));
    return keys.get(text);
  }
  function parsed(text) {
    const [, epoch, release, pre, post, dev, local] = text.match(
      /^(?:(\d+)!)?([\d.]+)((?:a|b|rc)\d+)?(?:\.post(\d+))?(?:\.dev(\d+))?(?:\+(.*))?$/) || [];
    if (release === undefined) return [[0], [], text];
    const phase = pre ? [-1, pre.replace(/\d+/, ""), Number(pre.replace(/\D+/, ""))]
      : dev !== undefined && post === undefined ? [-2] : [0];
    return [[Number(epoch || 0)], release.replace(/(\.0)+$/, "").split(".").map(Number),
      phase, [post === undefined ? -1 : Number(post)],
      [dev === undefined ? Infinity : Number(dev)],
      (local || "").split(".").map((word) => (/^\d+$/.test(word) ? Number(word) : word))];
  }
  function compare(a, b) {
    if (!Array.isArray(a) || !Array.isArray(b)) {
      if (typeof a !== typeof b) return typeof a === "number" ? 1 : -1;
      return a < b ? -1 : a > b ? 1 : 0;
    }
    for (let at = 0; at < Math.max(a.length, b.length); at++) {
      if (at >= a.length) return -1;
      if (at >= b.length) return 1;
      const order = compare(a[at], b[at]);
      if (order) return order;
    }
    return 0;
  }
  const newer = (a, b) => compare(versionKey(b), versionKey(a));
  const early = (text) => /\d(?:a|b|rc)\d|\.dev\d/.test(text.split("+")[0]);
  // As uniscale chooses: what is withdrawn last, and final versions before early ones.
  const better = (a, b) => (a.wheel.yanked !== null) - (b.wheel.yanked !== null) ||
    early(a.payload.version) - early(b.payload.version) ||
    newer(a.payload.version, b.payload.version) || newer(a.wheel.version, b.wheel.version) ||
    (a.wheel.file < b.wheel.file ? 1 : -1);

  function allowed(python, range) {
    const number = (text) => text.split(".").slice(0, 2).map(Number);
    return (range || "").split(",").every((part) => {
      const [, sign, version] = part.trim().match(/^(>=|<=|==|!=|~=|>|<)\s*([\d.]+)/) || [];
      if (!sign) return true;
      // A third number ("<3.13.4") says nothing about the whole 3.13.
      const whole = version.split(".").length <= 2;
      const order = compare(number(python), number(version));
      return { ">=": order >= 0, "<=": order <= 0, "==": order === 0, "~=": order >= 0,
        "!=": order !== 0 || !whole, ">": whole ? order > 0 : order >= 0,
        "<": whole ? order < 0 : order <= 0 }[sign];
    });
  }
  function pythons(wheel) {
    const found = new Set();
    for (const tag of wheel.tags) {
      const [interpreter, abi] = tag.split("-");
      const exact = interpreter.match(/^cp(\d)(\d+)$/);
      const least = exact && abi === "abi3" ? `${exact[1]}.${exact[2]}` : null;
      if (exact && !least) found.add(`${exact[1]}.${exact[2]}`);
      else for (const python of PYTHONS) {
        if (!least || allowed(python, `>=${least}`)) found.add(python);
      }
    }
    return [...found].filter((python) => allowed(python, wheel.requires_python));
  }
  function platforms(wheel) {
    return [...new Set(wheel.tags.map((tag) => tag.split("-").pop()).map((name) =>
      name === "any" ? "any" : name.replace(/^(?:many|musl)?linux(?:_\d+_\d+|\d+)?_/, "")))];
  }

  // One offer is one payload of one wheel.
  const wheels = (catalog && catalog.wheels) || [];
  const devices = new Map(((catalog && catalog.devices) || []).map((one) => [one.device, one]));
  const offers = wheels.flatMap((wheel) => {
    const has = { python: pythons(wheel), platform: platforms(wheel) };
    return wheel.payloads.map((payload) => ({
      wheel, payload, backend: [payload.backend], device: [wheel.device],
      task: payload.tasks, ...has,
    }));
  });
  const values = Object.fromEntries(FIELDS.map((field) => {
    const found = new Set(offers.flatMap((offer) => offer[field]));
    if (field === "task") return [field, TASKS.filter((task) => found.has(task))];
    if (field === "python") {
      return [field, [...found].sort((a, b) => compare(versionKey(a), versionKey(b)))];
    }
    if (field === "platform") found.delete("any");
    return [field, [...found].sort((a, b) => a.toLowerCase() < b.toLowerCase() ? -1 : 1)];
  }));
  const choice = { ...Object.fromEntries(FIELDS.map((field) => [field, ""])), file: "" };
  const fits = (offer, field) => !choice[field] || offer[field].includes(choice[field]) ||
    (field === "platform" && offer.platform.includes("any"));
  const fitting = (but = []) =>
    offers.filter((offer) => FIELDS.every((field) => but.includes(field) || fits(offer, field)));

  // What was chosen last stands; what does not go with it gives way, the least important first.
  function settle(last) {
    const changed = [];
    for (const field of ["platform", "python", "task", "device", "backend"]) {
      if (fitting().length) break;
      if (field === last || !choice[field]) continue;
      choice[field] = "";
      changed.push(field);
    }
    for (const field of ["backend", "device"]) {
      if (!choice[field]) choice[field] = (fitting()[0] || offers[0])[field][0];
    }
    return changed;
  }

  function chips(field) {
    const box = $(field);
    const usable = new Set(fitting([field]).flatMap((offer) => offer[field]));
    if (usable.has("any")) values.platform.forEach((name) => usable.add(name));
    const options = ["backend", "device"].includes(field)
      ? values[field] : ["", ...values[field]];
    box.querySelectorAll(".chip").forEach((chip) => chip.remove());
    box.hidden = values[field].length < (field === "platform" ? 2 : 1);
    for (const value of options) {
      const input = make("input", { type: "radio", name: field, value });
      input.checked = choice[field] === value;
      const chip = make("label", { class: "chip" }, input, make("span", {}, word(field, value)));
      if (value && !usable.has(value)) chip.classList.add("apart");
      box.append(chip);
    }
  }
  function word(field, value) {
    if (!value) return t("any");
    if (field === "task") return t(value);
    if (field === "device") return deviceWord(value);
    return value;
  }
  function deviceWord(name) {
    const device = devices.get(name) || { title: name, names: [] };
    const own = language === "zh" && device.names.length ? device.names[0] : "";
    return own && !own.includes(device.title) ? `${own} ${device.title}` : own || device.title;
  }

  function matches() {
    return fitting().sort(better);
  }
  function plain(offer) {
    // A wheel of one payload needs the launchers; a bundle has them.
    const needs = offer.wheel.requires_dist.some((text) => /^uniscale\s*(?:[<>=!~;]|$)/.test(text));
    return needs && launcher();
  }
  function launcher() {
    return wheels.filter((wheel) => wheel.name === "uniscale" && !wheel.payloads.length &&
      wheel.yanked === null).sort((a, b) => newer(a.version, b.version))[0];
  }
  const base = new URL(".", location.href.split("#")[0]);
  const exact = (wheel) => `"${new URL(wheel.url, base).href}#sha256=${wheel.sha256}"`;
  function command(offer) {
    if (tool === "uniscale") {
      const place = base.protocol === "file:" ? decodeURIComponent(base.pathname) : base.href;
      return [`uniscale install ${offer.payload.backend}`, `--device ${offer.wheel.device}`,
        `--version ${offer.wheel.version}`, `--index "${place}"`].join(" \\\n  ");
    }
    const launchers = plain(offer);
    const files = [...(launchers ? [launchers] : []), offer.wheel].map(exact);
    return [`${tool === "uv" ? "uv pip" : "pip"} install`, ...files].join(" \\\n  ");
  }

  function size(bytes) {
    for (const unit of ["B", "kB", "MB"]) {
      if (bytes < 1000) return `${bytes < 10 && unit !== "B" ? bytes.toFixed(1) : Math.round(bytes)} ${unit}`;
      bytes /= 1000;
    }
    return `${bytes.toFixed(2)} GB`;
  }
  function facts(offer) {
    const { wheel, payload } = offer;
    const rows = [];
    const row = (key, ...parts) => rows.push(make("dt", {}, t(key)), make("dd", {}, ...parts));
    const link = (href, text) => make("a", { href }, text);
    const code = (text) => make("code", {}, text);
    const list = (items) => make("ul", {}, ...items.map((item) => make("li", {}, ...item)));
    const safe = /^https?:\/\//.test(payload.homepage || "");
    row("upstream", safe ? link(payload.homepage, payload.title) : payload.title,
      ` ${payload.version}`, ...(payload.commit
        ? [make("small", {}, t("commit", { commit: payload.commit }))] : []));
    row("layers", payload.layers.length
      ? list(payload.layers.map((layer) => [
        make("b", {}, layer.title), ` (${layer.name})`, make("small", {}, layer.why)]))
      : t("noLayers"));
    row("tasks", payload.tasks.map((task) => (WORDS[language][task] ? t(task) : task)).join(", "));
    const told = payload.verified || {};
    const tried = [...(told.built || []).map((text) => [t("built", { text })]),
      ...(told.ran || []).map((text) => [t("ran", { text })]),
      ...(told.partly || []).map((text) => [text]),
      ...(told.not_run ? [[t("notRun", { text: told.not_run })]] : [])];
    row("verified", tried.length ? list(tried) : t("untried"));
    row("needs", [...(wheel.requires_python ? [t("anyPython", { range: wheel.requires_python })] : []),
      ...(wheel.glibc ? [t("glibc", { version: wheel.glibc })] : []), ...platforms(wheel)
        .map((name) => (name === "any" ? t("anyMachine") : name))].join(", "));
    if (wheel.sdk) row("sdk", `${wheel.sdk.name} ${wheel.sdk.version || ""}`.trim());
    if (payload.license) row("licence", payload.license);
    if (wheel.requires_dist.length) {
      row("requires", make("details", {}, make("summary", {},
        t("requirement", { count: wheel.requires_dist.length })),
      list(wheel.requires_dist.map((text) => [code(text)]))));
    }
    row("size", size(wheel.size));
    row("date", wheel.upload_time.slice(0, 10));
    row("file", link(wheel.url, wheel.file));
    row("sha", code(wheel.sha256));
    row("tree", code(payload.tree));
    if (wheel.sbom) row("sbom", t("inWheel", { path: wheel.sbom }));
    if (wheel.provenance) row("provenance", link(wheel.provenance, t("statement")));
    row("metadata", link(`${wheel.url}.metadata`, "METADATA"));
    const drift = (catalog.drift || []).filter((one) => one.backend === payload.backend &&
      (!one.device || one.device === wheel.device));
    if (drift.length) row("drift", list(drift.map((one) => [link(one.url, one.title)])));
    $("facts").replaceChildren(...rows);
  }

  function result(changed) {
    const found = matches();
    const offer = found.find((one) => one.wheel.file === choice.file) || found[0];
    $("offer").hidden = !offer;
    $("advice").textContent = !offer ? t("none")
      : changed.map((field) => t("nearest", { what: field === "python" ? "Python" : t(field) })).join(" ");
    $("chosen").textContent = !offer ? "" : t("on", { backend: offer.payload.backend,
      version: offer.payload.version, device: deviceWord(offer.wheel.device) });
    if (!offer) return;
    choice.file = offer.wheel.file;
    const versions = [...new Map(found.map((one) => [one.wheel.file, one])).values()];
    const label = (one) => versions.filter((other) => other.wheel.version === one.wheel.version)
      .length > 1 ? `${one.wheel.version} (${one.wheel.tags[0]})` : one.wheel.version;
    $("version").replaceChildren(...versions.map((one) => {
      const option = make("option", { value: one.wheel.file }, label(one));
      option.selected = one === offer;
      return option;
    }));
    $("command").textContent = command(offer);
    const first = tool === "uniscale" && launcher();
    $("first").replaceChildren(...(first
      ? [t("first"), make("code", {}, `pip install ${exact(first)}`)] : []));
    const twins = versions.filter((one) => one.wheel.version === offer.wheel.version);
    const [interpreter, , machine] = offer.wheel.tags[0].split("-");
    $("note").textContent = [
      tool !== "uniscale" && twins.length > 1 && !(choice.python && choice.platform)
        ? t("pick", { what: `${interpreter}, ${machine}` }) : "",
      offer.wheel.yanked !== null ? t("yanked", { why: offer.wheel.yanked }) : "",
      offer.wheel.image_packages.length
        ? t("image", { packages: offer.wheel.image_packages.join(", ") }) : "",
    ].filter(Boolean).join("\n");
    facts(offer);
  }

  const newestOf = new Map();
  for (const offer of offers) {
    const key = `${offer.device[0]}\n${offer.backend[0]}`;
    const known = newestOf.get(key);
    if (offer.wheel.yanked === null && (!known || better(offer, known) < 0)) newestOf.set(key, offer);
  }
  function table() {
    const head = make("tr", {}, make("th", { scope: "col" }, t("device")),
      ...values.backend.map((name) => make("th", { scope: "col" }, name)));
    const rows = values.device.map((device) => make("tr", {},
      make("th", { scope: "row" }, deviceWord(device), make("small", {}, device)),
      ...values.backend.map((backend) => {
        const newest = newestOf.get(`${device}\n${backend}`);
        if (!newest) return make("td", {}, t("noVersion"));
        const here = choice.backend === backend && choice.device === device;
        return make("td", {}, make("button", { type: "button", "data-backend": backend,
          "data-device": device, "aria-pressed": here }, newest.payload.version));
      })));
    $("exists").replaceChildren($("exists-title"), make("thead", {}, head),
      make("tbody", {}, ...rows));
    $("counts").textContent = t("counts", { wheels: wheels.length,
      backends: values.backend.length, devices: values.device.length });
  }

  function words() {
    document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
    document.title = `uniscale · ${t("title")}`;
    document.querySelectorAll("[data-t]").forEach((one) => { one.textContent = t(one.dataset.t); });
    document.querySelectorAll("[data-t-label]").forEach((one) =>
      one.setAttribute("aria-label", t(one.dataset.tLabel)));
    document.querySelectorAll("[data-language]").forEach((one) =>
      one.setAttribute("aria-pressed", one.dataset.language === language));
    document.querySelectorAll("[data-tool]").forEach((one) =>
      one.setAttribute("aria-pressed", one.dataset.tool === tool));
  }
  function show(last = "", focus = null) {
    words();
    if (!catalog || !offers.length) {
      $("lead").textContent = t(catalog ? "empty" : "broken");
      return;
    }
    $("app").hidden = false;
    const changed = settle(last);
    FIELDS.forEach(chips);
    result(last ? changed : []);
    table();
    if (focus) document.querySelector(focus)?.focus();
    const address = new URLSearchParams();
    for (const field of FIELDS) if (choice[field]) address.set(field, choice[field]);
    if (tool !== "uniscale") address.set("with", tool);
    if (given.has("lang")) address.set("lang", language);
    if (last) history.replaceState(null, "", `#${address}`);
  }

  for (const field of FIELDS) {
    if (values[field].includes(given.get(field))) choice[field] = given.get(field);
  }
  $("pick").addEventListener("change", (event) => {
    const { name, value } = event.target;
    choice[name] = value;
    choice.file = "";
    show(name, `input[name=${name}]:checked`);
  });
  $("pick").addEventListener("submit", (event) => event.preventDefault());
  $("version").addEventListener("change", (event) => {
    choice.file = event.target.value;
    show("version");
  });
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.language) {
      language = button.dataset.language;
      if (given.has("lang")) given.set("lang", language);
      try { localStorage.setItem("uniscale-language", language); } catch { /* not kept */ }
      show("language");
    } else if (button.dataset.tool) {
      tool = button.dataset.tool;
      show("tool");
    } else if (button.dataset.backend) {
      const { backend, device } = button.dataset;
      Object.assign(choice, { backend, device, file: "" });
      show("device", `td button[aria-pressed=true]`);
      $("result").scrollIntoView({ block: "nearest" });
    } else if (button.id === "copy") {
      button.textContent = t(await copied($("command")) ? "copied" : "notCopied");
      setTimeout(() => { button.textContent = t("copy"); }, 2000);
    }
  });
  async function copied(element) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch { /* not a secure page: the older way, and the text stays selected */ }
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
  show();
})();
