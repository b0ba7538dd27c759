// The report's page: one position in training for all panels, drawn as they come into view.
// `REPORT` has: names of the runs, stops {mode: [{key, label, steps: [a step of each run]}]},
// templates {light, dark}.
const REPORT = JSON.parse(document.getElementById("report").textContent);

const by = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);

// ---- unpacking ----------------------------------------------------------------------------

async function inflate(text) {
  const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const TYPES = {
  f8: Float64Array, f4: Float32Array, i4: Int32Array, u4: Uint32Array,
  i2: Int16Array, u2: Uint16Array, i1: Int8Array, u1: Uint8Array,
};

function numbers(told, buffer, start) {
  const count = told.shape.reduce((a, b) => a * b, 1);
  const first = start + told.at;
  let flat;
  if (told.type === "q2") { // see pack.py
    const low = new Uint8Array(buffer, first, count);
    const high = new Uint8Array(buffer, first + count, count);
    flat = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const code = low[i] + 256 * high[i];
      flat[i] = code === 4095 ? NaN : told.low + told.step * code;
    }
  } else {
    const Type = TYPES[told.type];
    if (!Type) throw new Error(`unknown type ${told.type}`);
    flat = new Type(buffer.slice(first, first + count * Type.BYTES_PER_ELEMENT));
  }
  if (told.shape.length === 1) return flat;
  const [rows, columns] = told.shape;
  return Array.from({ length: rows }, (_, i) => flat.subarray(i * columns, (i + 1) * columns));
}

function filled(part, buffer, start) {
  if (Array.isArray(part)) return part.map((each) => filled(each, buffer, start));
  if (part === null || typeof part !== "object") return part;
  if ("at" in part && "shape" in part) return numbers(part, buffer, start);
  const found = {};
  for (const [name, value] of Object.entries(part)) found[name] = filled(value, buffer, start);
  return found;
}

async function unpack(id) {
  const buffer = await inflate(document.getElementById(id).textContent);
  const length = new DataView(buffer).getUint32(0, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, 4, length));
  return filled(JSON.parse(text), buffer, 4 + length);
}

async function load(id) { // a script that stands in the page compressed
  const packed = document.getElementById(id);
  if (!packed) return;
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(await inflate(packed.textContent));
  document.head.append(script);
}

// ---- where we are -------------------------------------------------------------------------

const slider = one("#slider");
const at = { mode: REPORT.modes[0], index: 0, playing: null };
const stops = () => REPORT.stops[at.mode];
const theme = () => document.documentElement.dataset.theme;
const nearest = (steps, step) =>
  steps.reduce((best, each) => (Math.abs(each - step) < Math.abs(best - step) ? each : best));

// ---- panels -------------------------------------------------------------------------------

class Panel {
  constructor(element) {
    this.element = element;
    this.run = Number(element.dataset.run);
    this.place = one(".drawing", element);
    this.near = false; // in view, or almost
    this.shown = null; // what is drawn: "step theme width", or null
    this.busy = Promise.resolve();
  }

  wanted() {
    return `${stops()[at.index].steps[this.run]} ${theme()} ${this.place.clientWidth}`;
  }

  update() { // draws what is wanted when called; calls that come meanwhile are one
    this.busy = this.busy.then(async () => {
      const wanted = this.wanted();
      if (wanted === this.shown) return;
      await this.draw(stops()[at.index].steps[this.run]);
      this.shown = wanted;
    }).catch((error) => {
      one("h3", this.element).textContent = `This panel could not be drawn: ${error.message}`;
      console.error(error);
    });
    return this.busy;
  }

  async csv() { // of the whole table behind the panel, where the page has it; else of what is drawn
    const whole = document.getElementById(`csv-${this.element.id}`);
    if (whole) download(new TextDecoder().decode(await inflate(whole.textContent)), this.filename());
    else download(csvOf(this.rows()), this.filename(this.atStep()));
  }

  atStep() {
    const { step } = this.element.dataset;
    return step ? `-step-${step}` : "";
  }

  say(step) {
    one("h3", this.element).textContent = this.title;
    this.place.setAttribute("aria-label", this.title);
    this.element.dataset.step = step ?? "";
    this.element.dataset.drawn = "yes";
  }

  filename(more = "") {
    return `${this.element.dataset.file}${more}`;
  }
}

class Plot extends Panel {
  async draw(step) {
    this.figure ??= await unpack(`data-${this.element.id}`);
    const { data, frames = [] } = this.figure;
    let { layout } = this.figure;
    this.traces = [...data];
    let step_shown = null;
    if (frames.length) {
      step_shown = nearest(frames.map((each) => Number(each.name)), step);
      const frame = frames.find((each) => Number(each.name) === step_shown);
      frame.traces.forEach((i, j) => { this.traces[i] = { ...data[i], ...frame.data[j] }; });
      layout = merged(layout, frame.layout);
    } else if (["step", "phase"].includes(layout.meta?.x)) {
      const place = layout.meta.x === "step" ? step : at.mode === "phase" && stops()[at.index].key;
      step_shown = step;
      if (place !== false) layout = { ...layout, shapes: cursors(layout, place) };
    }
    this.title = plain(layout.title?.text ?? "");
    this.layout = {
      ...layout,
      template: REPORT.templates[theme()],
      title: undefined, // it is the panel's heading
      ...fixed(layout, this.place.clientWidth),
      height: height(layout, this.place.clientWidth),
      width: this.place.clientWidth,
      uirevision: "kept", // a zoom survives a step
    };
    await Plotly.react(this.place, this.traces, this.layout, CONFIG);
    this.say(step_shown);
  }

  svg() {
    const titled = { ...this.layout, title: { text: this.title }, margin: { t: 80 } };
    Plotly.downloadImage({ data: this.traces, layout: titled }, {
      format: "svg", filename: this.filename(this.atStep()),
      width: this.layout.width, height: this.layout.height + 60,
    });
  }

  rows() {
    return this.traces.flatMap((trace) => traceRows(trace, this.layout));
  }
}

class Patterns extends Panel { // attention on chosen inputs; CircuitsVis draws it
  async draw(step) {
    this.figure ??= await unpack(`data-${this.element.id}`);
    const { title, frames } = this.figure;
    const own = nearest(frames.map((each) => each.step), step);
    const { inputs } = frames.find((each) => each.step === own);
    this.title = `${title}, step ${own}`;
    this.views ??= await Promise.all(inputs.map((props, i) => this.view(i, props)));
    this.views.forEach((view, i) => view.updater.enqueueSetState(view, inputs[i]));
    this.say(own);
  }

  view(i, props) { // rendered once: each call of CircuitsVis.render keeps all that it made
    const id = `${this.element.id}-input-${i}`;
    this.place.insertAdjacentHTML("beforeend", `<div id="${id}"></div>`);
    return new Promise((made) => {
      class View { // a React component that holds the shown step
        constructor(first) { this.props = first; this.state = first.shown; made(this); }

        render() {
          return {
            $$typeof: Symbol.for("react.element"), type: CircuitsVis.AttentionHeads,
            key: null, ref: null, props: this.state, _owner: null,
          };
        }
      }
      View.prototype.isReactComponent = {};
      CircuitsVis.render(id, View, { shown: props });
    });
  }
}

const SHEET = { wide: 640, high: 820 }; // pixels of a printed page that a figure can have
const CONFIG = {
  displaylogo: false, showSendToCloud: false,
  modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d"],
};

const plain = (text) => text.replace(/<br\s*\/?>/g, " · ").replace(/<[^>]*>/g, "")
  .replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

function merged(layout, changes) { // a frame has of an axis only what changes
  const found = { ...layout };
  for (const [name, change] of Object.entries(changes ?? {})) {
    const parts = change !== null && typeof change === "object" && !Array.isArray(change);
    found[name] = parts ? { ...layout[name], ...change } : change;
  }
  return found;
}

function cursors(layout, place) { // what the figure has, and a line here in each of its panels
  const axes = Object.keys(layout).filter((name) => /^xaxis\d*$/.test(name));
  return [...(layout.shapes ?? []), ...axes.map((name) => {
    const number = name.slice("xaxis".length);
    return {
      type: "line", xref: `x${number}`, yref: `y${number} domain`, y0: 0, y1: 1,
      x0: place, x1: place,
      line: { color: REPORT.templates[theme()].layout.font.color, width: 1.5 },
    };
  })];
}

// Margins that hold what stands in them: plotly, which would work them out, draws all twice.
function fixed(layout, width) {
  if (!layout.meta?.rows) return { margin: { ...layout.margin, t: top(layout, width) } };
  const found = { margin: { t: top(layout, width), l: 70, r: 20, b: 60 } };
  for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
    found[name] = { ...layout[name], automargin: false };
  }
  return found;
}

// Above the plot: nothing, names of panels, or names and a colour bar (viz/images.py).
// The bar is as far above the plot as plotly needs, which is more where the plot is low.
const top = (layout, width) => (
  layout.margin?.t > 100 ? (width < 500 ? 170 : 130) : layout.annotations?.length ? 40 : 20);

function height(layout, width) {
  const { rows, columns } = layout.meta ?? {};
  if (!rows) return layout.height ?? (width < 500 ? 380 : 430);
  // Squares in the grid of viz/figure.py: 0.16 of the width and 0.24 of the height are gaps.
  const side = ((width - 90) * (1 - 0.16 * (columns - 1) / columns)) / columns;
  const pitch = rows === 1 ? 1 : (1 - 0.24 * (rows - 1) / rows) / rows + 0.24 / rows;
  return Math.round(top(layout, width) + 60 + (side + 80) / pitch); // each has 80 pixels of labels below it
}

// ---- the data of a panel ------------------------------------------------------------------

const list = (values, count) => values ?? Array.from({ length: count }, (_, i) => i);

// A row for every point: the trace's name, x, y (and z, or value), and what `meta.columns` names
// of its customdata. Titles of axes are those of the figure where a panel has none of its own.
function traceRows(trace, layout) {
  if (trace.meta?.marks) return []; // they mark what another trace has
  const name = plain(trace.name ?? "");
  const axis = (which) => {
    const own = (trace[`${which}axis`] ?? which).replace(which, `${which}axis`);
    const every = Object.keys(layout).filter((key) => key.startsWith(`${which}axis`));
    const titles = [own, ...every].map((key) => plain(layout[key]?.title?.text ?? ""));
    return titles.find((title) => title) ?? which;
  };
  if (trace.type === "sankey") {
    const { source, target, value } = trace.link;
    return Array.from(source, (_, i) => ({
      source: plain(trace.node.label[source[i]]), target: plain(trace.node.label[target[i]]),
      value: value[i],
    }));
  }
  if (trace.type === "heatmap") {
    const rows = [...trace.z];
    const xs = [...list(trace.x, rows[0]?.length ?? 0)];
    const ys = [...list(trace.y, rows.length)];
    return ys.flatMap((y, i) => xs.map((x, j) => (
      { panel: name, [axis("y")]: y, [axis("x")]: x, value: rows[i][j] }
    )));
  }
  const columns = trace.meta?.columns ?? [];
  return Array.from(trace.x ?? [], (x, i) => ({
    series: name, [axis("x")]: x, [axis("y")]: trace.y[i],
    ...Object.fromEntries(columns.map((column, j) => [column, trace.customdata[i][j]])),
  }));
}

function csvOf(rows) {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cell = (value) => {
    const text = value === null || value === undefined || Number.isNaN(value) ? "" : `${value}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [columns, ...rows.map((row) => columns.map((name) => row[name]))];
  return `${lines.map((line) => line.map(cell).join(",")).join("\n")}\n`;
}

function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `${name}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // once it has been read
}

// ---- moving -------------------------------------------------------------------------------

const panels = by("article[data-kind]").map((element) =>
  new (element.dataset.kind === "patterns" ? Patterns : Plot)(element));
let turn = 0;

async function show() { // what is in view at once, the rest when there is time
  const mine = ++turn;
  const stop = stops()[at.index];
  slider.max = stops().length - 1;
  slider.value = at.index;
  slider.setAttribute("aria-valuetext", stop.label);
  one("#where").textContent = stop.label;
  document.body.setAttribute("aria-busy", "true");
  await Promise.all(panels.filter((panel) => panel.near).map((panel) => panel.update()));
  for (const panel of panels) {
    if (mine !== turn) return;
    if (panel.shown === panel.wanted()) continue;
    await new Promise((next) => setTimeout(next)); // input comes first
    if (mine !== turn) return;
    await panel.update();
  }
  document.body.setAttribute("aria-busy", "false");
}

function go(index) {
  at.index = Math.max(0, Math.min(stops().length - 1, index));
  remember();
  return show();
}

async function play() {
  const button = one("#play");
  if (at.playing) { at.playing = null; } else {
    const mine = at.playing = {};
    if (at.index === stops().length - 1) at.index = -1;
    button.textContent = "❚❚";
    button.setAttribute("aria-label", "Pause");
    while (at.playing === mine && at.index < stops().length - 1) {
      go(at.index + 1);
      await Promise.all(panels.filter((panel) => panel.near).map((panel) => panel.busy));
      await new Promise((next) => setTimeout(next, 350));
    }
    if (at.playing !== mine && at.playing) return;
    at.playing = null;
  }
  button.textContent = "▶";
  button.setAttribute("aria-label", "Play");
}

// ---- links: #section&step=1400, or #section&phase=1.5 -----------------------------------------

let section = "";

function remember() {
  history.replaceState(null, "", `#${section}&${at.mode}=${stops()[at.index].key}`);
}

function follow() { // go where the address says
  const [id, ...settings] = location.hash.slice(1).split("&");
  for (const setting of settings) {
    const [mode, key] = setting.split("=");
    if (!REPORT.modes.includes(mode) || !/^\d+(\.\d+)?$/.test(key)) continue;
    at.mode = mode;
    const keys = stops().map((stop) => stop.key);
    at.index = keys.indexOf(nearest(keys, Number(key)));
  }
  const target = id && document.getElementById(id);
  if (target) { section = id; target.scrollIntoView(); }
  const chosen = one("#by");
  if (chosen) chosen.value = at.mode;
  return show();
}

function choose(mode) { // another way to line runs up; the first run stays where it is
  const step = stops()[at.index].steps[0];
  at.mode = mode;
  const steps = stops().map((stop) => stop.steps[0]);
  go(steps.indexOf(nearest(steps, step)));
}

function paint(name) {
  document.documentElement.dataset.theme = name;
  one("#theme").setAttribute("aria-pressed", String(name === "dark"));
  return show();
}

function keys(event) { // arrows, wherever they have nothing else to do
  const { key, target } = event;
  const moves = { ArrowLeft: -1, ArrowRight: 1 };
  if (!(key in moves) || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (target.closest("input, select, textarea, pre, .wide, .drawing")) return;
  go(at.index + moves[key]);
  event.preventDefault();
}

function buttons(panel) {
  const act = {
    csv: () => panel.csv(),
    svg: () => panel.svg(),
    link: () => {
      section = panel.element.id;
      remember();
      navigator.clipboard?.writeText(location.href).catch(() => {}); // the address bar has it too
    },
  };
  by("[data-do]", panel.element).forEach((button) => {
    button.addEventListener("click", (event) => {
      event.preventDefault();
      act[button.dataset.do]();
    });
  });
}

async function main() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
  dark.addEventListener("change", () => paint(dark.matches ? "dark" : "light"));
  at.index = stops().length - 1;
  await load("plotly.js");
  await load("circuitsvis.js");
  panels.forEach(buttons);
  slider.addEventListener("input", () => go(Number(slider.value)));
  one("#play").addEventListener("click", play);
  one("#by")?.addEventListener("change", (event) => choose(event.target.value));
  one("#theme").addEventListener("click", () => paint(theme() === "dark" ? "light" : "dark"));
  document.addEventListener("keydown", keys);
  addEventListener("hashchange", follow);
  let resizing;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(show, 150); });
  addEventListener("beforeprint", () => {
    for (const { place } of panels) {
      place.style.zoom = Math.min(1, SHEET.wide / place.scrollWidth, SHEET.high / place.scrollHeight);
    }
  });
  addEventListener("afterprint", () => {
    for (const { place } of panels) place.style.zoom = "";
  });
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const panel = panels.find((each) => each.element === entry.target);
      panel.near = entry.isIntersecting;
      if (panel.near) panel.update();
    }
  });
  panels.forEach((panel) => seen.observe(panel.element));
  const passed = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) section = entry.target.id;
  }, { rootMargin: "-20% 0px -70% 0px" });
  by("main > section").forEach((each) => passed.observe(each));
  await follow();
}

main().catch((error) => {
  one("#where").textContent = `The figures could not be drawn: ${error.message}`;
  throw error;
});
