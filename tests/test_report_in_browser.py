"""The report of the shipped run, as somebody without a network sees it."""

import base64
import io
import time
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

import grokinterp as gi
from grokinterp.reporting.panels import PANELS
from tests.browser import Page, until

pytestmark = pytest.mark.slow

DRAWN_PANELS = "article[data-kind]"
FEW = ("graph", "ablations", "circuit-alone", "pruning-curves")  # drawn of two checkpoints
WHOLE = ("verdicts",)  # of the whole run: no step moves it
STEPS = f'return Object.fromEntries([...document.querySelectorAll("{DRAWN_PANELS}")]' + (
    ".map(each => [each.id, each.dataset.step && Number(each.dataset.step)]))"
)
# What each panel draws: its elements, and the pixels of its canvases.
DRAWN = f'return Object.fromEntries([...document.querySelectorAll("{DRAWN_PANELS}")]' + (
    ".map(each => [each.id, each.querySelector('.drawing').innerHTML"
    " + [...each.querySelectorAll('canvas')].map(one => one.toDataURL())]))"
)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def page(shipped_report, downloads):
    page = Page(1400, 900, downloads)
    page.open(shipped_report)
    page.settled()
    yield page
    page.close()


@pytest.fixture
def opened(page):
    """The page at its last step."""
    page.js("window.scrollTo(0, 0); document.activeElement.blur()")
    slide(page, page.js('return document.getElementById("slider").max'))
    return page


def press(page, key):
    ActionChains(page.driver).send_keys(key).perform()


def at(page):
    return int(page.js('return document.getElementById("slider").value'))


def slide(page, index):
    page.js(
        'const slider = document.getElementById("slider"); slider.value = arguments[0];'
        'slider.dispatchEvent(new Event("input"))',
        index,
    )
    page.settled()


def test_it_opens_without_an_error_or_a_request_and_every_panel_draws(opened, shipped_report):
    assert shipped_report.stat().st_size < 12e6
    opened.logs()
    assert (opened.said, opened.requests) == ([], [])
    assert opened.js('return document.querySelectorAll("article.absent").length') == 0
    empty = opened.js(
        f'return [...document.querySelectorAll("{DRAWN_PANELS}")].filter(each => {{'
        "  const marks = each.querySelectorAll('svg path[d], svg image, svg .point, canvas');"
        "  return each.dataset.drawn !== 'yes' || marks.length === 0;"
        "}).map(each => each.id)"
    )
    assert empty == []
    heat_maps = opened.js(
        "return [...document.querySelectorAll('.heatmaplayer image')].map(each =>"
        "  (each.getAttribute('href') || each.getAttribute('xlink:href')).length)"
    )
    assert len(heat_maps) >= 10
    assert min(heat_maps) > 500  # an image of one colour is shorter


def test_the_first_paint_comes_within_three_seconds(shipped_report, downloads):
    fresh = Page(1400, 900, downloads)
    try:
        fresh.open(shipped_report)
        painted = fresh.wait(
            "const seen = performance.getEntriesByName('first-contentful-paint');"
            "return seen.length && seen[0].startTime"
        )
    finally:
        fresh.close()
    assert painted < 3000


def test_the_slider_moves_every_panel(opened, shipped):
    last_drawn = opened.js(DRAWN)
    slide(opened, 3)
    step = shipped.steps[3]
    shown = opened.js(STEPS)
    exact = {name: own for name, own in shown.items() if own == step}
    assert set(shown) - set(exact) == {*FEW, *WHOLE}
    assert len({shown[name] for name in FEW}) == 1
    assert {shown[name] for name in WHOLE} == {""}
    assert str(step) in opened.js('return document.getElementById("where").textContent')
    drawn = opened.js(DRAWN)
    assert {name for name in drawn if drawn[name] == last_drawn[name]} == set(WHOLE)
    slide(opened, len(shipped.steps) - 1)
    shown = opened.js(STEPS)
    assert {shown[name] for name in set(shown) - set(WHOLE)} == {shipped.steps[-1]}


# How the marks of each panel look. Not where they are: plotly's margins, and so all places, move by
# a pixel with the labels that an axis had before.
LOOKS = f'return Object.fromEntries([...document.querySelectorAll("{DRAWN_PANELS}")]' + (
    ".map(each => [each.id, ["
    "  ...[...each.querySelectorAll('.point')].map(mark => mark.getAttribute('d')),"
    "  ...[...each.querySelectorAll('.point, .js-line, .js-fill')].map(mark => mark.style.cssText),"
    "  ...[...each.querySelectorAll('image')].map(mark => mark.getAttribute('href')"
    "    || mark.getAttribute('xlink:href'))]]))"
)


def test_a_moved_panel_looks_like_one_drawn_anew(opened, shipped, shipped_report, downloads):
    """Moving styles less than opening does: no size, colour, line or picture is left behind."""
    for index in (3, 20, 9):  # dots change in number, size and colour, and so do all pictures
        slide(opened, index)
    fresh = Page(1400, 900, downloads)
    try:
        fresh.open(shipped_report, f"#step={shipped.steps[9]}")
        fresh.settled()
        moved, anew = opened.js(LOOKS), fresh.js(LOOKS)
    finally:
        fresh.close()
    assert moved.keys() == anew.keys()
    assert sum(map(len, anew.values())) > 2000
    assert [name for name in anew if moved[name] != anew[name]] == []


def test_circles_stay_circles(opened):
    """One unit of x is as long as one of y, at every step and again at the last."""
    ratio = (
        "const {xaxis, yaxis} = document.querySelector('#embedding-circles .drawing')._fullLayout;"
        "const unit = axis => axis._length / (axis.range[1] - axis.range[0]);"
        "return unit(xaxis) / unit(yaxis)"
    )
    for index in (25, 10, 0, 25):
        slide(opened, index)
        assert opened.js(ratio) == pytest.approx(1, abs=0.01)


# How long each of twelve steps takes at a place of the page: from the slider's event until all
# panels in view are drawn. Each begins in a frame of its own: a hand makes no two in one.
STEP_TIMES = """
const [place, still, done] = arguments, times = [];
const slider = document.getElementById("slider");
const covered = document.getElementById("scrubber").offsetHeight; // at the top
const frame = () => new Promise(requestAnimationFrame);
const wanted = () => [...document.querySelectorAll("article[data-kind]")].filter(each => {
  const box = each.querySelector(".drawing").getBoundingClientRect();
  return box.bottom > covered && box.top < innerHeight && !still.includes(each.id);
});
(async () => {
  document.getElementById(place).scrollIntoView();
  await new Promise(next => setTimeout(next, 1000));
  for (let i = 4; i < 16; i++) {
    await frame();
    await frame();
    const start = performance.now();
    slider.value = i;
    slider.dispatchEvent(new Event("input"));
    const step = document.getElementById("where").textContent.match(/\\d+/)[0];
    while (wanted().some(each => each.dataset.step !== step))
      await new Promise(next => setTimeout(next));
    times.push(performance.now() - start);
  }
  done([wanted().length, ...times]);
})();
"""


@pytest.mark.alone
@pytest.mark.parametrize("place", ["learning", "embedding-circles", "neuron-maps", "correctness"])
def test_a_step_takes_less_than_a_tenth_of_a_second(opened, place):
    """The least of many steps: what else the machine does, for seconds at times, only adds."""
    least = np.inf
    for _ in range(20):
        in_view, *times = opened.driver.execute_async_script(STEP_TIMES, place, (*FEW, *WHOLE))
        assert in_view >= 2
        least = min(least, *times)
        if least < 100:
            break
    assert least < 100


def test_keys_move_it(opened, shipped):
    last = len(shipped.steps) - 1
    assert at(opened) == last
    for key, place in (
        (Keys.ARROW_LEFT, last - 1), (Keys.ARROW_LEFT, last - 2), (Keys.ARROW_RIGHT, last - 1),
    ):  # fmt: skip
        press(opened, key)
        assert at(opened) == place
    opened.js('document.getElementById("slider").focus()')
    for key, place in (
        (Keys.ARROW_LEFT, last - 2), (Keys.HOME, 0), (Keys.ARROW_LEFT, 0), (Keys.END, last),
    ):  # fmt: skip
        press(opened, key)
        assert at(opened) == place  # once, though the page listens too


PLAY = 'return document.getElementById("play").getAttribute("aria-label")'


def play_and_pause(opened, shipped):
    """Space, and again when some steps have been shown."""
    press(opened, Keys.SPACE)
    assert opened.js(PLAY) == "Pause"
    until(lambda: 2 <= at(opened) < len(shipped.steps) - 1)  # from the start on
    press(opened, Keys.SPACE)
    assert opened.js(PLAY) == "Play"


@pytest.mark.parametrize("focus", ["body", "#slider", "nav a", "#logits [data-do=link]"])
def test_space_plays_and_pauses_without_scrolling(opened, shipped, focus):
    opened.js(
        "const place = document.querySelector(arguments[0]);"
        "place === document.body ? document.activeElement.blur()"
        " : place.focus({ preventScroll: true });",
        focus,
    )
    opened.js("window.scrollTo(0, 0)")
    play_and_pause(opened, shipped)
    stood = at(opened)
    opened.settled()
    assert (at(opened), opened.js("return scrollY")) == (stood, 0)


@pytest.mark.parametrize("tag", ["input", "textarea", "button", "summary"])
def test_space_does_what_it_does_where_something_else_has_the_focus(opened, shipped, tag):
    opened.js(
        "const own = document.createElement(arguments[0]); own.id = 'own';"
        "const place = document.createElement('details');"
        "(arguments[0] === 'summary' ? place : document.body).prepend(own);"
        "if (arguments[0] === 'summary') document.body.prepend(place);"
        "own.addEventListener('click', () => { own.title = 'pressed'; }); own.focus();",
        tag,
    )
    press(opened, Keys.SPACE)
    did = opened.js("const own = document.getElementById('own'); return own.value || own.title")
    opened.js(
        "const own = document.getElementById('own'); (own.closest('details') ?? own).remove()"
    )
    assert did == {"input": " ", "textarea": " "}.get(tag, "pressed")
    assert opened.js(PLAY) == "Play"
    assert at(opened) == len(shipped.steps) - 1


def test_it_plays_and_pauses(opened, shipped):
    opened.js('document.getElementById("play").focus()')
    play_and_pause(opened, shipped)
    opened.settled()
    stood = at(opened)
    opened.js('document.getElementById("play").click()')
    until(lambda: at(opened) > stood)
    opened.js('document.getElementById("play").click()')
    assert opened.js(PLAY) == "Play"


def test_links_lead_to_a_section_and_a_step(page, shipped_report, shipped):
    page.open(shipped_report, "#neurons&step=2100")  # not saved: the nearest is
    page.settled()
    assert shipped.steps[at(page)] == 2000
    assert (
        abs(page.js('return document.getElementById("neurons").getBoundingClientRect().top')) < 200
    )
    press(page, Keys.ARROW_RIGHT)
    until(lambda: page.js("return location.hash") == "#neurons&step=2500")
    page.js('document.querySelector("#correctness [data-do=link]").click()')
    assert page.js("return location.hash") == "#correctness&step=2500"
    for broken in ("#nowhere&step=x&%", "#summary&constructor=3", "#neurons&__proto__=1&step="):
        page.js("location.hash = arguments[0]", broken)
        page.settled()
        assert shipped.steps[at(page)] == 2500
    press(page, Keys.ARROW_LEFT)
    assert shipped.steps[at(page)] == 2000
    page.open(shipped_report)
    page.settled()


def test_an_address_entered_right_after_a_step_counts(page, shipped_report, shipped):
    page.open(shipped_report)
    page.settled()
    page.js(
        'const slider = document.getElementById("slider"); slider.value = 3;'
        'slider.dispatchEvent(new Event("input"));'
        'location.hash = "#step=5200"'
    )
    until(lambda: shipped.steps[at(page)] == 5200)
    page.settled()
    assert page.js("return location.hash") == "#step=5200"


def test_a_step_alone_is_a_link_too(page, shipped_report, shipped):
    page.open(shipped_report, "#step=5200")
    page.settled()
    assert shipped.steps[at(page)] == 5200
    assert page.js("return scrollY") == 0
    assert set(page.js(STEPS).values()) >= {5200}
    for address, step in (("#step=800", 800), ("#step=999999", 12000), ("#step=0", 0)):
        page.js("location.hash = arguments[0]", address)  # while the page is open
        until(lambda step=step: shipped.steps[at(page)] == step)
    page.settled()
    page.js("location.hash = '#step=5200&logits'")  # in any order
    until(lambda: shipped.steps[at(page)] == 5200)
    page.settled()
    assert (
        abs(page.js('return document.getElementById("logits").getBoundingClientRect().top')) < 200
    )
    page.open(shipped_report)
    page.settled()
    press(page, Keys.ARROW_LEFT)
    until(lambda: page.js("return location.hash").endswith(f"step={shipped.steps[-2]}"))
    assert "#&" not in page.js("return location.hash")


ELSEWHERE = """const panels = [...document.querySelectorAll("article[data-kind]")];
return Object.fromEntries(panels.map(each => {
  const note = each.querySelector(".other-step");
  const seen = getComputedStyle(note).display !== "none" ? note.textContent : "";
  return [each.id, [seen, getComputedStyle(each).borderTopStyle]];
}))"""


def test_a_panel_of_another_step_says_so_and_is_marked(opened, shipped):
    assert all(found == ["", "solid"] for found in opened.js(ELSEWHERE).values())
    slide(opened, shipped.steps.index(5200))
    shown = opened.js(STEPS)
    for name, (note, border) in opened.js(ELSEWHERE).items():
        if name in FEW:
            assert note == f"Shows step {shown[name]}: there is no picture of step 5200."
            assert border == "dashed"
        else:
            assert (note, border) == ("", "solid")
    slide(opened, shipped.steps.index(shown["graph"]))
    assert all(found == ["", "solid"] for found in opened.js(ELSEWHERE).values())


def test_so_does_one_that_has_one_picture(tiny_run, tmp_path, downloads):
    """Ablations are drawn of the last step alone where nothing was memorised."""
    page = Page(1000, 900, downloads)
    try:
        page.open(gi.report(tiny_run, tmp_path / "tiny.html"), "#step=20")
        page.settled()
        found = page.js(ELSEWHERE)
        assert found["ablations"] == ["Shows step 60: there is no picture of step 20.", "dashed"]
        assert found["logits"] == found["learning"] == ["", "solid"]
        assert page.js(STEPS)["ablations"] == 60
    finally:
        page.close()


def csv_of(page, downloads, panel):
    before = set(downloads.iterdir())
    page.js(f'document.querySelector("#{panel} [data-do=csv]").click()')
    (path,) = until(
        lambda: [
            new
            for new in set(downloads.iterdir()) - before
            if new.suffix == ".csv" and new.read_text().endswith("\n")
        ]
    )
    return path, pd.read_csv(io.StringIO(path.read_text()))


def test_the_data_of_a_panel_can_be_downloaded(opened, downloads, shipped, shipped_measures):
    path, found = csv_of(opened, downloads, "progress")
    assert path.name == "mod113-grokked-progress.csv"
    pd.testing.assert_frame_equal(found, shipped_measures, check_dtype=False, rtol=1e-12)
    slide(opened, 7)
    step = shipped.steps[7]
    path, found = csv_of(opened, downloads, "logits")
    assert path.name == f"mod113-grokked-logits-step-{step}.csv"
    logits = shipped.snapshot(step).logits[:, 0].numpy()
    ordered = found.sort_values(["operand a", "operand b"])
    span = logits.max() - logits.min()
    np.testing.assert_allclose(ordered.value, logits, atol=span / 4094)
    svg = set(downloads.iterdir())
    opened.js('document.querySelector("#logits [data-do=svg]").click()')
    (drawn,) = until(lambda: [p for p in set(downloads.iterdir()) - svg if p.suffix == ".svg"])
    assert f"step {step}" in drawn.read_text()


COLUMNS = {
    "emergence": ["step", *map(str, range(1, 57))],
    "embedding-spectrum": ["series", "frequency k (cycles around the group)", "norm in W_E"],
    "embedding-circles": ["series", "along cos", "along sin", "token", "place", "angle (degrees)"],
    "attention-maps": ["panel", "operand a", "operand b", "value"],
    "neuron-maps": ["panel", "operand a", "operand b", "value"],
    "neuron-fourier": ["panel", "frequency of a", "frequency of b", "value"],
    "correctness": ["panel", "operand a", "operand b", "value"],
}


def test_every_panel_has_its_data_under_whole_names(opened, downloads, shipped):
    tables = {panel: csv_of(opened, downloads, panel)[1] for panel in [*COLUMNS, "clusters"]}
    for panel, columns in COLUMNS.items():
        assert list(tables[panel]) == columns
        unnamed = ["panel"] if panel == "correctness" else []
        assert not tables[panel].drop(columns=unnamed).isna().any(axis=None), panel
    circles, maps, clusters = (
        tables[n] for n in ("embedding-circles", "attention-maps", "clusters")
    )
    assert sorted(circles.series.unique()) == ["k = 18", "k = 53", "k = 55", "k = 9"]
    assert len(maps) == 4 * 113 * 113
    assert sorted(maps.panel.unique()) == [f"head {i}" for i in range(4)]
    assert sorted(clusters.neuron.dropna()) == list(range(512))
    assert {"fraction explained", "share of variance"} <= set(clusters)


OVERLAPS = """
const boxes = [...document.querySelectorAll("article, header > *, section > h2")].map(each =>
  [each.id || each.tagName, each.getBoundingClientRect()]);
const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
const found = [];
boxes.forEach(([one, a], i) => boxes.slice(i + 1).forEach(([other, b]) => {
  if (meet(a, b)) found.push(`${one} and ${other}`);
}));
for (const panel of document.querySelectorAll(".js-plotly-plot")) {
  const texts = [...panel.querySelectorAll("svg text")].filter(each => each.textContent.trim()
    && each.getBoundingClientRect().width && !each.closest(".hoverlayer, .modebar"));
  const drawn = texts.map(each => [each.textContent, each.getBoundingClientRect()]);
  drawn.forEach(([one, a], i) => drawn.slice(i + 1).forEach(([other, b]) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 2 && high > 3) found.push(`${panel.parentElement.id}: ${one} and ${other}`);
  }));
}
return found;
"""


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("index", [0, 13, -1])
def test_nothing_overlaps(opened, shipped, width, index):
    opened.size(width, 900)
    try:
        slide(opened, index % len(shipped.steps))
        until(
            lambda: opened.js(
                "return [...document.querySelectorAll('.js-plotly-plot')].every(each =>"
                "  Math.abs(each.querySelector('.main-svg').clientWidth - each.clientWidth) < 2)"
            )
        )
        time.sleep(0.6)  # a Sankey diagram glides to its new places
        assert opened.js("return document.documentElement.scrollWidth") <= width
        assert opened.js(OVERLAPS) == []
    finally:
        opened.size(1400, 900)
        opened.js("window.dispatchEvent(new Event('resize'))")


def test_it_prints_within_the_page(opened):
    """What leaves the sheet would be cut off; zoom, not a new drawing, makes figures fit."""
    opened.size(1400, 900)
    time.sleep(0.5)  # a new width is drawn when it has stayed for a moment
    opened.settled()
    drawn = opened.js("return document.querySelectorAll('#graph .sankey-link').length")
    # In one script, as a browser prints: 150 ms later the zoomed figures would be drawn anew.
    wide, links = opened.js(
        "window.dispatchEvent(new Event('beforeprint'));"
        "return [[...document.querySelectorAll('.main-svg')].map(each =>"
        "  each.getBoundingClientRect().width),"
        "  document.querySelectorAll('#graph .sankey-link').length]"
    )
    assert max(wide) <= 641
    assert len(wide) > 15
    assert links == drawn > 10
    opened.js("window.dispatchEvent(new Event('afterprint'))")
    page = base64.b64decode(opened.command("Page.printToPDF", printBackground=True)["data"])
    assert page.startswith(b"%PDF")
    assert 5 < page.count(b"/Type /Page\n") < 30
    assert opened.js("return document.querySelectorAll('[style*=zoom]').length") == 0


def test_dark_and_light(opened):
    ground = "return getComputedStyle(document.body).backgroundColor"
    paper = "return document.querySelector('#logits .main-svg').style.background"
    assert opened.js(ground) == "rgb(255, 255, 255)"
    opened.js('document.getElementById("theme").click()')
    opened.settled()
    assert opened.js(ground) == opened.js(paper) == "rgb(22, 25, 29)"
    opened.js('document.getElementById("theme").click()')
    opened.settled()
    assert opened.js(ground) == opened.js(paper) == "rgb(255, 255, 255)"


@patch.dict(PANELS)  # which puts them back in their order
@pytest.mark.shapes_unchecked
def test_two_runs_move_together_by_step_and_by_phase(mod31, tmp_path, downloads):
    for slow in FEW:
        del PANELS[slow]
    runs = [gi.load(run.path) for run in mod31.values()]
    for run in runs:
        run.manifest.steps = run.manifest.steps[::5]  # as if it had saved no more
    page = Page(1400, 900, downloads)
    try:
        page.open(gi.report(runs, tmp_path / "two.html"))
        page.settled()
        told = page.js('return JSON.parse(document.getElementById("report").textContent)')
        assert told["names"] == ["mod31-grokked", "mod31-steady"]
        assert told["modes"] == ["step", "phase"]
        columns = page.js(
            "return [...document.querySelectorAll('[id^=correctness-]')].map(each =>"
            "  each.getBoundingClientRect().left)"
        )
        assert columns[0] < 700 < columns[1]  # side by side
        for mode, i in (("step", 2), ("phase", 8), ("phase", 16), ("phase", 24)):
            page.js(
                'const by = document.getElementById("by"); by.value = arguments[0];'
                'by.dispatchEvent(new Event("change"))',
                mode,
            )
            slide(page, i)
            stop = told["stops"][mode][i]
            shown = page.js(STEPS)
            for run, step in enumerate(stop["steps"], start=1):
                assert shown[f"correctness-{run}"] == step
                assert shown[f"learning-{run}"] == step
            assert page.js('return document.getElementById("where").textContent') == stop["label"]
            lines = page.js("return document.querySelectorAll('#regimes .shapelayer path').length")
            assert bool(lines) == (mode == "phase")
        page.logs()
        assert (page.said, page.requests) == ([], [])
    finally:
        page.close()
