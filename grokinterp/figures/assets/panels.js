// Panels: what each draws, and how it looks.

// Where in training the page is: the list of stops, the place in it, and what plays.
const at = { mode: REPORT.modes[0], index: 0, playing: null };
const stops = () => REPORT.stops[at.mode];
const theme = () => document.documentElement.dataset.theme;
const nearest = (steps, step) =>
  steps.reduce((best, each) => (Math.abs(each - step) < Math.abs(best - step) ? each : best));

class Panel {
  constructor(element) {
    this.element = element;
    this.run = Number(element.dataset.run);
    this.place = one(".drawing", element);
    this.width = this.place.clientWidth; // asking while others are drawn lays the page out anew
    this.near = false; // in view
    this.shown = null; // what is drawn: "step theme width", or null
    this.busy = Promise.resolve();
  }

  look() {
    return `${theme()} ${this.width}`;
  }

  wanted() {
    return `${stops()[at.index].steps[this.run]} ${this.look()}`;
  }

  update() { // draws what is wanted when called; calls that come meanwhile are one
    this.busy = this.busy.then(async () => {
      const wanted = this.wanted();
      if (wanted !== this.shown) {
        await this.draw(stops()[at.index].steps[this.run]);
        this.shown = wanted;
      }
      this.mark();
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

  say(step, picture = false) { // `picture`: it shows this step alone
    one("h3", this.element).textContent = this.title;
    this.place.setAttribute("aria-label", this.title);
    this.element.dataset.step = step ?? "";
    this.element.dataset.drawn = "yes";
    this.picture = picture ? step : null;
  }

  mark() { // where what it shows is of another step than the slider's
    if (this.shown === null) return; // nothing yet
    const { key, steps } = stops()[at.index];
    const asked = at.mode === "step" ? key : steps[this.run];
    const other = (this.picture ?? asked) !== asked;
    const note = one(".other-step", this.element);
    const text = other ? `Shows step ${this.picture}: there is no picture of step ${asked}.` : "";
    if (note.textContent !== text) note.textContent = text;
    note.hidden = !other;
    this.element.classList.toggle("elsewhere", other);
  }

  filename(more = "") {
    return `${this.element.dataset.file}${more}`;
  }
}

class Plot extends Panel {
  constructor(element) {
    super(element);
    // Plotly asks for them at each drawing: a browser would lay out first what others have drawn.
    Object.defineProperties(this.place, {
      clientWidth: { get: () => this.width },
      clientHeight: { get: () => this.layout.height },
    });
  }

  async draw(step) {
    this.figure ??= await unpack(`data-${this.element.id}`);
    const { data, frames = [] } = this.figure;
    let { layout } = this.figure;
    this.traces = [...data];
    const { only } = this.element.dataset; // the step of the one picture there is
    let step_shown = only === undefined ? null : Number(only);
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
      ...fixed(layout, this.width),
      height: height(layout, this.width),
      width: this.width,
      uirevision: "kept", // a zoom survives a step
    };
    this.place.style.containIntrinsicHeight = `${this.layout.height}px`; // also where out of view
    const config = this.shown ? [] : [CONFIG]; // once: plotly would compare it each time
    if (this.shown?.endsWith(this.look()) && onlyPlaces(frames)) moving.add(this.place);
    try {
      await Plotly.react(this.place, this.traces, this.layout, ...config);
    } finally { moving.delete(this.place); }
    styleOnce(this.place);
    this.say(step_shown, frames.length > 0 || only !== undefined);
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
    this.say(own, true);
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

// Plotly styles every dot as it draws it, and all dots once more at the end. That is a quarter of
// the work of a step, and needed only where lines, fills or texts have a new look.
const PLACES = [
  "type", "x", "y", "z", "zmin", "zmax", "customdata", "hovertemplate", "hovertext", "marker", "name",
];
const moving = new Set(); // places whose traces change nothing else

const onlyPlaces = (frames) => frames.length > 0 && frames.every(({ data }) => (
  data.every((changes) => Object.keys(changes).every((name) => PLACES.includes(name)))));

function styleOnce({ _fullData }) { // a module of plotly draws all traces of a type, of all panels
  const module = _fullData.find(({ type }) => type === "scatter")?._module;
  if (!module || module.styleAgain) return;
  module.styleAgain = module.style;
  module.style = (place) => { if (!moving.has(place)) module.styleAgain(place); };
}

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

// Margins that hold what stands in them: plotly, which would work them out, draws all twice,
// and measures each label of an axis to hide what does not fit.
function fixed(layout, width) {
  const squares = layout.meta?.rows && { automargin: false };
  const found = {
    margin: { ...(squares ? { l: 70, r: 20, b: 60 } : layout.margin), t: top(layout, width) },
  };
  for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
    found[name] = { ...layout[name], ticklabeloverflow: "allow", ...squares };
  }
  return found;
}

// Above the plot: nothing, names of panels, or names and a colour bar (figures/heat_maps.py).
// The bar is as far above the plot as plotly needs, which is more where the plot is low.
const top = (layout, width) => (
  layout.margin?.t > 100 ? (width < 500 ? 170 : 130) : layout.annotations?.length ? 40 : 20);

function height(layout, width) {
  const { rows, columns } = layout.meta ?? {};
  if (!rows) return layout.height ?? (width < 500 ? 380 : 430);
  // Squares in the grid of figures/_figure.py: 0.16 of the width and 0.24 of the height are gaps.
  const side = ((width - 90) * (1 - 0.16 * (columns - 1) / columns)) / columns;
  const pitch = rows === 1 ? 1 : (1 - 0.24 * (rows - 1) / rows) / rows + 0.24 / rows;
  return Math.round(top(layout, width) + 60 + (side + 80) / pitch); // each has 80 pixels of labels below it
}
