"""The report: what its page holds, whatever the run and its name."""

import base64
import gzip
import html
import json
import os
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.base.files import sha256
from grokinterp.figures._figure import figure
from grokinterp.figures.pages import LEVELS, packed
from grokinterp.figures.slider import over_training
from grokinterp.fourier import embedding_spectrum
from grokinterp.reporting._report import slider_positions
from grokinterp.reporting.about import about_run, findings, milestones, undetermined
from grokinterp.reporting.panels import PANELS, SECTIONS
from grokinterp.runs.manifest import Manifest
from grokinterp.viz import comparison_page

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

HOSTILE = "<img src=x onerror=alert(1)> \"quoted\" 'и' & é ☃ {{7*7}} ]]> --><br> $&"


def unpacked(raw):
    """What the page's script makes of a packed figure."""
    whole = gzip.decompress(raw)
    length = int.from_bytes(whole[:4], "little")
    blob = whole[4 + length :]

    def filled(part):
        if isinstance(part, list):
            return [filled(one) for one in part]
        if not isinstance(part, dict):
            return part
        if not {"at", "shape"} <= part.keys():
            return {name: filled(value) for name, value in part.items()}
        count = int(np.prod(part["shape"]))
        if part["type"] == "q2":
            low, high = (
                np.frombuffer(blob, np.uint8, count, part["at"] + i * count).astype(int)
                for i in (0, 1)
            )
            codes = low + 256 * high
            flat = np.where(codes == LEVELS + 1, np.nan, part["low"] + part["step"] * codes)
        else:
            flat = np.frombuffer(blob, "<" + part["type"], count, part["at"])
        return flat.reshape(part["shape"])

    return filled(json.loads(whole[4 : 4 + length]))


def page_data(text):
    """Everything that stands packed in a page, by its id."""
    found = re.findall(r'<script type="text/plain" id="([^"]+)">([^<]*)</script>', text)
    return {name: base64.b64decode(packed) for name, packed in found}


def test_packing_keeps_curves_exactly_and_images_to_a_fraction_of_their_range():
    generator = np.random.default_rng(0)
    image = generator.normal(size=(40, 50)).astype(np.float32)
    image[3, 4] = np.nan
    codes = np.arange(2000, dtype=np.int8).reshape(40, 50)
    line = np.exp(generator.normal(scale=8, size=2000))  # of which small values matter
    beside = generator.normal(size=(2000, 3)) * [1, 1e3, 1e-6]

    def drawn(scale):
        one = figure("Title")
        one.add_heatmap(z=scale * image)
        one.add_heatmap(z=codes)
        return one.add_scatter(x=np.arange(2000), y=scale * line, customdata=beside)

    found = unpacked(base64.b64decode(packed(over_training({0: drawn(1.0), 5: drawn(2.0)}))))
    assert "template" not in found["layout"]
    assert "sliders" not in found["layout"]
    assert [frame["name"] for frame in found["frames"]] == ["0", "5"]
    np.testing.assert_array_equal(found["data"][1]["z"], codes)
    for scale, frame in zip((1.0, 2.0), found["frames"], strict=True):
        assert frame["traces"] == [0, 2]
        z, y = frame["data"][0]["z"], frame["data"][1]["y"]
        span = scale * (np.nanmax(image) - np.nanmin(image))
        np.testing.assert_allclose(z, scale * image, atol=0.51 * span / LEVELS)
        assert np.isnan(z[3, 4])
        assert np.isnan(z).sum() == 1
        np.testing.assert_array_equal(y, scale * line)
    np.testing.assert_array_equal(found["data"][2]["customdata"], beside)


def test_an_image_of_one_value_is_kept():
    one = figure("Title").add_heatmap(z=np.full((40, 40), 3.5))
    assert (unpacked(base64.b64decode(packed(one)))["data"][0]["z"] == 3.5).all()


@pytest.fixture(scope="module")
def hostile(tiny_run, tmp_path_factory):
    """A report of a run that somebody named to do harm."""
    folder = tmp_path_factory.mktemp("hostile") / HOSTILE
    shutil.copytree(tiny_run.path, folder)
    return gi.report(gi.load(folder), folder.parent / "out.html")


def test_hostile_names_are_escaped_everywhere(hostile):
    text = hostile.read_text()
    assert "<img" not in text
    assert html.escape("<img src=x onerror=alert(1)>") in text
    assert "{{7*7}}" in text  # no template of ours either
    told = json.loads(re.search(r'id="report">(.*?)</script>', text, re.S).group(1))
    assert told["names"] == [HOSTILE]


def test_every_panel_is_drawn_or_says_why_not(hostile):
    text = hostile.read_text()
    for section in SECTIONS:
        assert f'<section id="{section}">' in text
    articles = re.findall(r'<article id="([^"]+)"(.*?)</article>', text, re.S)
    assert [name for name, _ in articles] == list(PANELS)
    data = page_data(text)
    for name, body in articles:
        assert (f"data-{name}" in data) != ("Not drawn:" in body)


def test_the_page_refers_to_nothing_outside(hostile):
    text = hostile.read_text()
    assert not re.findall(r'(?:src|href)="(?!#|data:,")', text)
    assert "url(" not in text
    assert "import(" not in text
    assert text.count('id="plotly.js"') == text.count('id="circuitsvis.js"') == 1


@pytest.mark.slow
def test_what_it_draws_are_the_measures(shipped, shipped_measures, shipped_report):
    data = page_data(shipped_report.read_text())
    progress = unpacked(data["data-progress"])
    lines = {trace["name"]: trace for trace in progress["data"] if trace.get("name")}
    for column in ("train_loss", "test_loss", "restricted_loss", "excluded_loss", "trig_loss"):
        line = lines[column.replace("_", " ")]
        np.testing.assert_array_equal(line["x"], shipped_measures.step)
        np.testing.assert_array_equal(line["y"], shipped_measures[column])
    spectrum = unpacked(data["data-embedding-spectrum"])
    for step in (0, 6100):
        (frame,) = [one for one in spectrum["frames"] if one["name"] == str(step)]
        drawn = {}
        for trace, changed in zip(frame["traces"], frame["data"], strict=True):
            bars = spectrum["data"][trace] | changed
            drawn |= dict(zip(bars["x"], bars["y"], strict=True))
        norms = embedding_spectrum(shipped.snapshot(step))[1:].sqrt().numpy()
        np.testing.assert_allclose([drawn[k] for k in range(1, 57)], norms, rtol=1e-12)
    learning = unpacked(data["data-learning"])
    for line in learning["data"]:
        if (column := (line.get("name") or "").replace(" ", "_")) in shipped.metrics:
            np.testing.assert_array_equal(line["x"], shipped.metrics.step)
            np.testing.assert_array_equal(line["y"], shipped.metrics[column])
            lines[column] = line
    assert {"train_loss", "test_loss"} <= lines.keys()
    answers = unpacked(data["data-correctness"])
    assert set(np.unique(answers["data"][0]["z"])) <= {0, 1, 2, 3}
    table = gzip.decompress(data["csv-learning"]).decode()
    assert table == shipped.metrics.to_csv(index=False)


@pytest.mark.slow
def test_the_summary_says_what_was_found(shipped_report):
    text = html.unescape(shipped_report.read_text())
    phases = gi.detect_phases(gi.load("checkpoints/mod113-grokked"))
    assert "mod113-grokked grokked: it fitted its training data first" in text
    assert f"first reached 95% at step {phases.grok_step}" in text
    assert "Key frequencies: 9, 18, 53, 55." in text
    assert "grokinterp train mod113-grokked --out mod113-grokked" in text


def test_a_run_that_did_not_learn_says_what_is_not_known(hostile):
    text = html.unescape(hostile.read_text())
    assert "Not determined" in text
    assert "grok_step: test accuracy never reached 95%." in text


def test_a_model_without_a_step_has_one_too(tiny_run, tmp_path):
    model = tiny_run.model()
    text = gi.report(model, tmp_path / "out.html", task=tiny_run.task).read_text()
    assert "nan" not in html.unescape(text[: text.index("<script")]).split()


def test_without_circuitsvis_the_panel_says_how_to_get_it(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "circuitsvis", None)
    text = gi.report(tiny_run, tmp_path / "out.html").read_text()
    data = page_data(text)
    assert "circuitsvis.js" not in data
    assert "data-attention-on-inputs" not in data
    assert "data-attention-maps" in data
    assert "pip install &#39;grokinterp[circuitsvis]&#39;" in text


def test_several_runs_are_lined_up_by_step_and_by_phase(mod31):
    abouts = [about_run(run, name, n_runs=2) for name, run in mod31.items()]
    stops = slider_positions(abouts)
    assert list(stops) == ["step", "phase"]
    every = sorted({step for about in abouts for step in about.steps})
    assert [stop["key"] for stop in stops["step"]] == every
    for stop in stops["step"]:
        for about, own in zip(abouts, stop["steps"], strict=True):
            assert abs(own - stop["key"]) == min(abs(s - stop["key"]) for s in about.steps)
    by_phase = {stop["key"]: stop for stop in stops["phase"]}
    assert sorted(by_phase) == [i / 8 for i in range(25)]
    assert by_phase[0.0]["steps"] == [0, 0]
    assert by_phase[3.0]["steps"] == [about.steps[-1] for about in abouts]
    for place, name in ((1.0, "t_train"), (2.0, "t_test")):
        for about, own in zip(abouts, by_phase[place]["steps"], strict=True):
            date = getattr(about.phases, name)
            gaps = np.diff(about.steps).max()
            assert abs(own - date) <= gaps
    assert list(slider_positions(abouts[:1])) == ["step"]


def test_milestones_are_where_the_story_happens(shipped, shipped_measures):
    phases = gi.detect_phases(shipped, measures=shipped_measures)
    first, last = milestones(shipped.steps, phases)
    end = phases.phases[0].end
    assert abs(first - end) == min(abs(step - end) for step in shipped.steps)
    assert last == shipped.steps[-1]
    nothing = replace(phases, phases=(), t_train=None)
    assert milestones(shipped.steps, nothing) == (last,)


def test_bad_input_is_one_line_and_leaves_what_was_there(tiny_run, tmp_path):
    there = tmp_path / "out.html"
    there.write_text("mine")
    for given in (3, [], "run", [tiny_run, 3]):
        with pytest.raises(gi.InputError) as error:
            gi.report(given, there)
        assert "\n" not in str(error.value)
    assert there.read_text() == "mine"
    with pytest.raises(gi.InputError, match="is a folder"):
        gi.report(tiny_run, tmp_path)


def test_the_command_names_its_file_after_the_run(tiny_run, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("report", tiny_run.path)
    assert status == 0
    assert out.startswith("tiny-report.html: ")
    assert (tmp_path / "tiny-report.html").stat().st_size > 1e6
    status, out, err = run("report", tmp_path / "nothing")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1


OTHER_KINDS = {
    "mlp": gi.Recipe(
        model="mlp", p=7, d_mlp=24, train_fraction=0.7, lr=1e-2, steps=40, checkpoints="every:20"
    ),
    "ising": gi.Recipe(
        task="ising", lattice=8, n_temperatures=4, n_repeats=20, sweeps=5, n_train=30, n_test=20,
        model="cnn", steps=40, checkpoints="every:20",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("ising", {"emergence", "embedding-circles", "attention-maps", "correctness", "graph"}),
        ("mlp", {"attention-maps", "attention-on-inputs", "graph"}),
    ],
)
def test_a_report_of_other_kinds_of_model(tmp_path, kind, missing):
    """An Ising CNN has no frequencies, an MLP no attention: said where they would stand."""
    run = gi.train(OTHER_KINDS[kind], tmp_path / "run")
    data = page_data(text := gi.report(run, tmp_path / "out.html").read_text())
    assert not {f"data-{panel}" for panel in missing} & data.keys()
    assert {"data-learning", "data-progress", "data-pruning-curves"} <= data.keys()
    assert text.count("Not drawn:") == sum(f"data-{panel}" not in data for panel in PANELS)


@pytest.mark.slow
def test_runs_that_lack_something_have_a_report_that_says_so(tiny, tmp_path, monkeypatch):
    """One checkpoint has no trajectory, NaN leaves out its step, no split leaves no loss."""
    one = gi.train(tiny.replace(steps=0), tmp_path / "one")
    text = html.unescape(gi.report(one, tmp_path / "one.html").read_text())
    assert "data-trajectory" not in page_data(text)
    assert "data-embedding-spectrum" in page_data(text)

    run = gi.train(tiny, tmp_path / "run")
    nan = gi.load(tmp_path / "run")

    def broken(step=-1):  # as an earlier version saved it; this one refuses to
        weights = run.weights(step)
        if step == run.steps[1]:
            weights["embed.W_E"][0] = float("nan")
        return weights

    monkeypatch.setattr(nan, "weights", broken)
    text = html.unescape(gi.report(nan, tmp_path / "nan.html").read_text())
    assert "data-learning" in page_data(text)
    assert "Missing at some steps:" in text

    with gi.Recorder(tmp_path / "bare", task=run.task) as recorder:
        for step in run.steps:
            recorder.save(step, run.model(step))
    text = html.unescape(gi.report(gi.load(tmp_path / "bare"), tmp_path / "bare.html").read_text())
    assert "data-learning" not in page_data(text)
    assert "memorization_step: there is no train curve." in text
    assert "Trained with" in text  # by a recorder of ours, which wrote its versions down


NOT_A_WORD = re.compile(r"\b(nan|NaN|None|inf|undefined)\b")


def words_of(page):
    """All that a reader can read: the text of the page, and of its figures what has letters."""

    def texts(part):
        if isinstance(part, dict):
            part = part.values()
        return [part] if isinstance(part, str) else [x for one in part for x in texts(one)]

    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    found = html.unescape(re.sub(r"<[^>]+>", "\n", bare)).splitlines()
    for name, raw in page_data(page).items():
        if name.startswith("data-"):
            whole = gzip.decompress(raw)
            part = json.loads(whole[4 : 4 + int.from_bytes(whole[:4], "little")])
            found += [x for x in texts(_plain(part)) if " " in x]
    return found


def _plain(part):
    if isinstance(part, dict):
        return {name: _plain(value) for name, value in part.items()}
    return [_plain(one) for one in part] if isinstance(part, list) else str(part)


def without(run, folder, columns, rows=slice(None)):
    """The run with empty cells in its metrics, as other loops log them."""
    shutil.copytree(run.path, folder)
    table = run.metrics.copy()
    table.loc[rows, columns] = np.nan
    content = table.to_csv(index=False).encode()
    (folder / "metrics.csv").write_bytes(content)
    manifest = Manifest.read(folder)
    manifest.sha256["metrics.csv"] = sha256(content)
    manifest.write(folder)
    return gi.load(folder)


@pytest.mark.slow
def test_no_sentence_has_a_number_that_is_none(tiny_run, tmp_path):
    """Whatever a run does not have: a split, test inputs, logged values, answers that differ."""
    train, test = (
        [column for column in tiny_run.metrics if column.startswith(side)]
        for side in ("train", "test")
    )
    runs = {
        "no test": without(tiny_run, tmp_path / "a", test),
        "gaps": without(tiny_run, tmp_path / "b", [*train, *test], slice(2, 4)),
    }
    every = torch.ones(tiny_run.task.n_inputs, dtype=torch.bool)
    for name, mask in (("no split", None), ("all trained on", every)):
        with gi.Recorder(tmp_path / name, task=tiny_run.task, train_mask=mask) as recorder:
            for step in tiny_run.steps:
                recorder.save(step, tiny_run.model(step))
        runs[name] = gi.load(tmp_path / name)
    zero = tiny_run.model()
    with torch.no_grad():
        for weight in zero.parameters():
            weight.zero_()
    mask = tiny_run.train_mask
    with gi.Recorder(tmp_path / "zero", task=tiny_run.task, train_mask=mask) as recorder:
        recorder.save(0, zero)
        recorder.save(10, zero)
    runs["zero"] = gi.load(tmp_path / "zero")
    for name, run in runs.items():
        page = gi.report(run, tmp_path / "one.html").read_text()
        assert [name, [line for line in words_of(page) if NOT_A_WORD.search(line)]] == [name, []]
    two = [tiny_run, runs["zero"]]
    pages = (
        gi.report(two, tmp_path / "two.html").read_text(),
        comparison_page(gi.compare(two)),
    )
    for page in pages:
        assert [line for line in words_of(page) if NOT_A_WORD.search(line)] == []
    assert "no run that counts has a c" in pages[1]


def test_losses_alone_are_not_called_accuracies(tiny_run):
    about = about_run(tiny_run, "tiny")
    curves = pd.DataFrame({"step": [0, 10, 20], "train_loss": [2.0, 1.0, 1e-3]})
    told = replace(about, phases=gi.detect_phases(curves))
    assert "Train loss first fell below 0.01 nats at step 20 (memorization_step)." in findings(told)
    assert "grok_step: there is no test curve." in undetermined(told)


def test_a_name_that_is_not_utf_8_is_written_out(tiny_run, tmp_path):
    folder = tmp_path / os.fsdecode(b"bad\xff")
    shutil.copytree(tiny_run.path, folder)
    assert "bad\\udcff" in gi.report(gi.load(folder), tmp_path / "out.html").read_text()


def test_a_path_that_cannot_be_written_is_refused_before_anything_is_measured(tiny_run, tmp_path):
    for path in (tmp_path / "no" / "out.html", None, 3):
        with pytest.raises(gi.InputError):
            gi.report(tiny_run, path)
