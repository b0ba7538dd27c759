// Moving through training: slider, play, keys, links, print.

const panels = by("article[data-kind]").map((element) =>
  new (element.dataset.kind === "patterns" ? Patterns : Plot)(element));
const panelOf = (place) => panels.find((each) => each.place === place);
const slider = one("#slider");
const pause = (milliseconds) => new Promise((next) => setTimeout(next, milliseconds));
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
  await pause(80); // a hand that moves the slider comes first
  for (const panel of panels) {
    if (mine !== turn) return;
    if (panel.shown === panel.wanted()) { panel.mark(); continue; }
    await pause(0);
    if (mine !== turn) return;
    await panel.update();
  }
  document.body.setAttribute("aria-busy", "false");
}

let remembering = 0;

function go(index) {
  at.index = Math.max(0, Math.min(stops().length - 1, index));
  // After what is in view is drawn, as a browser takes milliseconds to write an address; and never
  // over one that was entered in between.
  const address = location.hash;
  clearTimeout(remembering);
  remembering = setTimeout(() => location.hash === address && remember());
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
      await pause(350);
    }
    if (at.playing !== mine && at.playing) return;
    at.playing = null;
  }
  button.textContent = "▶";
  button.setAttribute("aria-label", "Play");
}

// ---- links: #section&step=1400, or #section&phase=1.5; either part alone will do --------------

let section = "";

function remember() {
  const place = section && `${section}&`;
  history.replaceState(null, "", `#${place}${at.mode}=${stops()[at.index].key}`);
}

function follow() { // go where the address says
  const parts = location.hash.slice(1).split("&");
  const id = parts.find((part) => !part.includes("="));
  for (const setting of parts) {
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

function keys(event) { // arrows and space, wherever they have nothing else to do
  const { key, target } = event;
  const moves = { ArrowLeft: -1, ArrowRight: 1 };
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (key === " ") {
    const own = "input:not(#slider), select, textarea, button, summary, [contenteditable]";
    if (target.closest(own)) return; // it presses them, or writes
    if (!event.repeat) play();
  } else if (key in moves) {
    if (target.closest("input, select, textarea, pre, .wide, .drawing")) return;
    go(at.index + moves[key]);
  } else return;
  event.preventDefault(); // the page does not scroll
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
  const resized = new ResizeObserver((entries) => {
    const changed = entries.filter(({ target, contentRect }) => (
      panelOf(target).width !== Math.round(contentRect.width)));
    if (!changed.length) return; // only as high as what was drawn
    for (const { target, contentRect } of changed) {
      panelOf(target).width = Math.round(contentRect.width);
    }
    clearTimeout(resizing);
    resizing = setTimeout(show, 150);
  });
  addEventListener("beforeprint", () => {
    for (const { place } of panels) {
      place.style.zoom = Math.min(1, SHEET.wide / place.scrollWidth, SHEET.high / place.scrollHeight);
    }
  });
  addEventListener("afterprint", () => {
    for (const { place } of panels) place.style.zoom = "";
  });
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const panel = panelOf(target);
      panel.near = isIntersecting;
      if (panel.near) panel.update();
    }
  }, { rootMargin: `-${one("#scrubber").offsetHeight}px 0px 0px` }); // which covers what is below
  for (const { place } of panels) {
    seen.observe(place);
    resized.observe(place);
  }
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
