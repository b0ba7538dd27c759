"""The base of all figures: the figure, its theme, and what moves through training."""

import importlib.util
import shutil
import subprocess
import sys
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

import grokinterp as gi
from grokinterp.base.result import Result
from grokinterp.circuits import DistanceIrrelevance
from grokinterp.figures import _figure as theme
from grokinterp.figures._figure import (
    STEPS,
    figure,
    height_for,
    place,
    plain,
    small_multiples,
    square,
)
from grokinterp.figures.slider import over_training
from grokinterp.fourier._figures import draw_steps
from grokinterp.training.ensemble import EnsembleTiming
from grokinterp.viz import Figure, plot_correctness, plot_neurons

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
needs_browser = pytest.mark.skipif(
    importlib.util.find_spec("kaleido") is None or not any(map(shutil.which, BROWSERS)),
    reason="needs kaleido and Chrome or Chromium",
)


@pytest.fixture
def drawn():
    return figure("A title", "x (m)", "y (s)").add_scatter(x=[1, 2], y=[3.25, 4.5], name="line")


def test_a_figure_has_its_title_axes_and_mark_of_steps(drawn):
    assert isinstance(drawn, go.Figure)
    layout = drawn.layout
    assert (layout.title.text, layout.xaxis.title.text) == ("A title", "x (m)")
    assert layout.yaxis.title.text == "y (s)"
    assert layout.meta is None
    assert figure("t", STEPS).layout.meta == {"x": "step"}


class Measured(Result):
    """A result of somebody else's, in a module without pictures."""


@pytest.mark.parametrize("kind", [Measured, DistanceIrrelevance, EnsembleTiming])
def test_a_result_without_a_picture_says_so(kind):
    found = object.__new__(kind)
    with pytest.raises(gi.InputError, match=rf"^{kind.__name__} has no picture; \.table\(\) has "):
        found.plot()


def test_dark_is_a_copy(drawn):
    before = drawn.to_json()
    dark = drawn.dark()
    assert isinstance(dark, Figure)
    assert drawn.to_json() == before
    assert dark.data == drawn.data
    assert dark.layout.title == drawn.layout.title
    assert dark.layout.template.layout.paper_bgcolor == theme.DARK.layout.paper_bgcolor
    assert drawn.layout.template.layout.paper_bgcolor == theme.LIGHT.layout.paper_bgcolor


@pytest.mark.slow
def test_the_state_of_plotly_is_left_alone():
    code = (
        "import sys, plotly.io as pio; before = pio.templates.default, pio.renderers.default\n"
        "theirs = {*sys.modules}\n"
        "from grokinterp.figures._figure import figure\n"
        "import grokinterp.viz; figure('t').dark()\n"
        "assert (pio.templates.default, pio.renderers.default) == before\n"
        "print(*{'kaleido', 'circuitsvis', 'selenium'} & ({*sys.modules} - theirs))"
    )
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == b""  # nor is anything imported that only some need


def test_html_needs_no_network_and_its_button_saves_svg(drawn, tmp_path):
    path = drawn.save(tmp_path / "figure.HTML")
    page, library = path.read_text(), get_plotlyjs()
    assert library in page
    own = page.replace(library, "")  # which names hosts of maps, and asks none for our figures
    assert "https://cdn" not in own
    assert 'src="' not in own
    assert '"toImageButtonOptions": {"format": "svg"}' in page
    bare = drawn.to_html(include_plotlyjs=False, config={"scrollZoom": True})
    assert "svg" in bare
    assert '"scrollZoom": true' in bare
    assert '"showSendToCloud": false' in page  # plotly's own button uploads the figure
    assert "showSendToCloud" in bare


@pytest.mark.slow
@needs_browser
@pytest.mark.filterwarnings("ignore")  # of the browser's driver, as it closes
def test_still_images_are_what_their_names_say(drawn, tmp_path):
    drawn.save(tmp_path / "a.png", width=300, height=200)
    png = (tmp_path / "a.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (300, 200)
    drawn.save(tmp_path / "a.svg", width=300, height=200)
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert root.tag.endswith("svg")
    assert (root.get("width"), root.get("height")) == ("300", "200")
    assert "A title" in "".join(root.itertext())
    drawn.save(tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes()[:5] == b"%PDF-"


def test_what_cannot_be_saved_is_refused_in_one_line(drawn, tmp_path, monkeypatch):
    def refused(name):
        with pytest.raises(gi.InputError) as stopped:
            drawn.save(tmp_path / name)
        assert not (tmp_path / name).exists()
        assert "\n" not in str(stopped.value)
        return str(stopped.value)

    for name in ("a", "a.jpeg", "a.json"):
        assert "end it in .html, .svg, .png or .pdf" in refused(name)

    def no_browser(*args, **kwargs):
        raise RuntimeError("Kaleido requires Google Chrome to be installed.\nSo install it.")

    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda *_: object())
        patched.setattr(go.Figure, "to_image", no_browser)
        assert "needs Chrome or Chromium" in refused("a.svg")
        patched.setattr(go.Figure, "to_image", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            drawn.save(tmp_path / "a.svg")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "kaleido" else find(name, *more),
    )
    assert "pip install 'grokinterp[export]'" in refused("a.pdf")
    assert drawn.save(tmp_path / "a.html").exists()


def test_panels_have_their_names_and_are_square():
    drawn = small_multiples("t", ["a", "b", "c"], "x", "y")
    for i in range(3):
        drawn.add_heatmap(z=[[i]], **place(i))
    assert [text.text for text in drawn.layout.annotations] == ["a", "b", "c"]
    assert [trace.xaxis for trace in drawn.data] == ["x", "x2", "x3"]
    assert drawn.layout.meta == {"rows": 2, "columns": 2}
    for n in ("", "2", "3"):
        assert drawn.layout[f"yaxis{n}"].scaleanchor == f"x{n}"
    assert [drawn.layout[f"yaxis{n}"].title.text for n in ("", "2", "3")] == ["y", None, "y"]
    assert [drawn.layout[f"xaxis{n}"].title.text for n in ("", "2", "3")] == [None, "x", "x"]
    assert square(figure("t")).layout.yaxis.scaleanchor == "x"


def test_frames_hold_what_differs_and_only_that():
    def one(step):
        drawn = figure(f"at {step}", "x", "y")
        drawn.add_scatter(x=[0, 1], y=[5, 6], name="same")
        drawn.add_bar(x=[0, 1], y=[step, 2 * step], name="moves", marker={"color": "#0072B2"})
        return drawn.add_heatmap(z=np.full((2, 2), step, dtype=np.float32), name="map", zmax=9)

    figures = {step: one(step) for step in (0, 10, 20)}
    moving = over_training(figures)
    assert moving.data == figures[20].data
    assert [frame.name for frame in moving.frames] == ["0", "10", "20"]
    for step, frame in zip(figures, moving.frames, strict=True):
        assert frame.traces == (1, 2)
        bar, heat = (trace.to_plotly_json() for trace in frame.data)
        assert bar.keys() == {"type", "y"}
        assert list(bar["y"]) == [step, 2 * step]
        assert heat.keys() == {"type", "z"}
        assert (np.asarray(frame.data[1].z) == step).all()
        assert frame.layout.to_plotly_json() == {"title": {"text": f"at {step}"}}
    (slider,) = moving.layout.sliders
    assert [step.label for step in slider.steps] == ["0", "10", "20"]
    assert slider.active == 2
    assert [tuple(step.args[0]) for step in slider.steps] == [("0",), ("10",), ("20",)]


def test_values_that_are_nan_are_in_every_frame():
    figures = {
        step: figure("t").add_scatter(x=[0, 1], y=np.array([np.nan, 1.0])) for step in (0, 1)
    }
    assert [frame.traces for frame in over_training(figures).frames] == [(0,), (0,)]


def test_one_step_is_the_figure_itself(drawn, tiny_run):
    assert over_training({3: drawn}) is drawn
    seen = []

    def draw(snapshot, keys):
        seen.append((snapshot.step, keys))
        return figure(f"{snapshot.step}")

    moving = draw_steps(tiny_run, draw, step="all", frequencies=(2,))
    assert seen == [(step, (2,)) for step in tiny_run.steps]
    assert len(moving.frames) == len(tiny_run.steps)
    assert not draw_steps(tiny_run.snapshot(), draw).frames


def light(colour):
    """Relative luminance (WCAG 2.1)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


# Linear RGB as red-blind, green-blind and blue-blind readers see it (Machado et al. 2009).
BLINDNESS = {
    "none": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                        [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                        [-0.011820, 0.042940, 0.968881]]),
    "tritan": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                        [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip


def lab(colour, seen):
    """CIE L*a*b* (D65) of what is seen of a colour."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    linear = np.clip(seen @ linear, 0, 1)
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                       [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip
    t = to_xyz @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_all_pairs_of_colours_can_be_told_apart(kind):
    """A difference of 2.3 is just noticeable (CIE 1976)."""
    for one, other in combinations(theme.SERIES, 2):
        apart = np.linalg.norm(lab(one, BLINDNESS[kind]) - lab(other, BLINDNESS[kind]))
        assert apart > 10, (one, other, apart)


def test_colours_show_on_both_grounds_and_lines_repeat_late():
    for template in (theme.LIGHT, theme.DARK):
        ground = light(template.layout.paper_bgcolor)
        ink = light(template.layout.font.color)
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 7
        for colour in (*theme.SERIES, *theme.COLOURS.values()):
            contrast = (max(ground, light(colour)) + 0.05) / (min(ground, light(colour)) + 0.05)
            assert contrast > 2, (colour, contrast)
    lines = [tuple(theme.series(i).values()) for i in range(24)]
    assert len(set(lines)) == 24
    assert tuple(theme.series(24).values()) == lines[0]


def test_a_frame_leaves_alone_what_plotly_works_out():
    """Places of axes are plotly's, once one unit of x is to be as long as one of y."""

    def panels(size):
        drawn = small_multiples(f"Size {size}", ["one", "two"], "x", "y")
        for i in range(2):
            drawn.add_scatter(x=[0, size], y=[0, size], **place(i))
        return drawn.update_xaxes(range=[-size, size]).update_yaxes(range=[-size, size])

    moving = over_training({3: panels(5.0), 0: panels(2.0)})
    assert [frame.name for frame in moving.frames] == ["0", "3"]  # in the order of training
    assert moving.layout.title.text == "Size 5.0"
    for frame, size in zip(moving.frames, (2.0, 5.0), strict=True):
        layout = frame.layout.to_plotly_json()
        assert layout.keys() == {"title", "xaxis", "xaxis2", "yaxis", "yaxis2"}
        assert layout["xaxis2"] == {"range": [-size, size]}
        assert layout["title"] == {"text": f"Size {size}"}


def test_a_still_image_has_no_controls(monkeypatch, tmp_path):
    seen = []

    def to_image(drawn, kind, *, width, height):
        seen.append(drawn)
        return b"image"

    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", to_image)
    one, other = (figure("Title").add_scatter(y=[0, size]) for size in (1, 2))
    moving = over_training({0: one, 1: other})
    assert len(moving.layout.sliders) == len(moving.layout.updatemenus) == 1
    moving.save(tmp_path / "still.png")
    assert len(seen[0].layout.sliders) == len(seen[0].layout.updatemenus) == 0
    assert len(moving.layout.sliders) == 1  # the figure itself is as it was


def test_square_panels_have_no_empty_space_at_any_width():
    drawn = small_multiples("Title", ["a", "b", "c", "d"], "x", "y")
    assert height_for(drawn, 900) == drawn.layout.height
    assert height_for(drawn, 380) < 0.6 * drawn.layout.height
    assert height_for(figure("Title").update_layout(height=300), 380) == 300


def test_an_argument_that_a_figure_does_not_have_is_named(tiny_run):
    for plot in (plot_correctness, plot_neurons):
        with pytest.raises(gi.InputError, match=r"has no argument 'stepp'; did you mean 'step'"):
            plot(tiny_run, stepp=0)


def test_names_of_others_are_shown_letter_by_letter():
    assert plain('<b>"x" & y') == '&lt;b&gt;"x" &amp; y'
