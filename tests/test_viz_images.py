"""Images of the answers: pixels against the logits of the hooked model."""

import math

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.circuits._figures.answers import ANSWERS, correctness, logit_images
from grokinterp.figures.heat_maps import around_zero, checked_numbers, from_zero
from grokinterp.runs._snapshot import from_weights
from grokinterp.viz import plot_correctness, plot_logits
from tests.labels import axis_titles
from tests.test_architectures import P, example


def test_a_pixel_is_the_raw_logit_of_its_pair():
    architecture, weights, task = example("canonical")
    snapshot = from_weights(weights, architecture, task)
    model = snapshot.hooked()
    figure = plot_logits(snapshot, classes=[4, 2])
    assert [(trace.type, trace.z.dtype) for trace in figure.data] == [("heatmap", "float32")] * 2
    for trace, c in zip(figure.data, (4, 2), strict=True):
        for a, b in ((0, 0), (2, 5), (6, 1)):
            with torch.no_grad():
                own = model(torch.tensor([[a, b, P]]))[0, -1, c]
            assert trace.z[a, b] == pytest.approx(float(own), rel=1e-6)
        assert f"class {c}" in trace.hovertemplate
        assert "a = %{y}, b = %{x}" in trace.hovertemplate
    assert [note.text for note in figure.layout.annotations] == ["class 4", "class 2"]
    most = max(float(np.abs(trace.z).max()) for trace in figure.data)
    assert {(trace.zmin, trace.zmax) for trace in figure.data} == {(-most, most)}
    assert [trace.showscale for trace in figure.data] == [True, False]
    assert axis_titles(figure) == ({"operand b"}, {"operand a"})
    assert figure.layout.title.text == "Logits"
    assert figure.data[0].hovertemplate == (
        "class 4<br>a = %{y}, b = %{x}<br>logit %{z:.5g}<extra></extra>"
    )
    assert figure.data[0].colorbar.title.text == "logit, scale of this step"


def test_each_step_has_its_numbers_and_its_scale(tiny_run):
    steps = [0, 20, 60]
    figure = plot_logits(tiny_run, classes=[3], step=steps)
    assert [frame.name for frame in figure.frames] == ["0", "20", "60"]
    for frame, step in zip(figure.frames, steps, strict=True):
        logits = tiny_run.snapshot(step).logits[:, 3].view(7, 7)
        assert np.array_equal(frame.data[0].z, logits.numpy())
        assert frame.data[0].zmax == float(logits.abs().max())
        assert f"step {step}" in frame.layout.title.text


def test_the_shipped_run_is_drawn_small(shipped):
    (trace,) = plot_logits(shipped).data
    assert trace.z.shape == (113, 113)
    assert trace.z.dtype == np.float32
    assert np.array_equal(trace.z, shipped.snapshot().logits[:, 0].view(113, 113).numpy())


@pytest.mark.parametrize("classes", [[], [7], [-1], ["a"], [1.0], [True], "0", 3, None])
@pytest.mark.shapes_unchecked
def test_bad_classes_are_refused_in_one_line(tiny_run, classes):
    with pytest.raises(gi.InputError) as refused:
        plot_logits(tiny_run, classes=classes)
    assert "\n" not in str(refused.value)


def test_a_class_given_twice_is_drawn_once():
    assert checked_numbers([3, np.int64(1), 3], "class", below=7) == [3, 1]


def test_scales_end_at_the_largest_finite_values():
    values = [np.array([[1.0, -3.0]], dtype=np.float32), np.array([[2.0, np.nan]])]
    assert (around_zero(values)["zmin"], around_zero(values)["zmax"]) == (-3.0, 3.0)
    assert (from_zero(values)["zmin"], from_zero(values)["zmax"]) == (-3.0, 2.0)
    above = [np.array([[1.0, 4.0, np.inf]])]
    assert (from_zero(above)["zmin"], from_zero(above)["zmax"]) == (0.0, 4.0)
    for nothing in (np.zeros((2, 2)), np.full((2, 2), np.nan)):
        assert (around_zero([nothing])["zmin"], around_zero([nothing])["zmax"]) == (-1.0, 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(value):
    """The largest of NaN is class 0, the right answer to 7 of 49 pairs."""
    architecture, weights, task = example("canonical")
    weights["unembed.W_U"] = weights["unembed.W_U"].clone()
    weights["unembed.W_U"][0, 3] = value
    found = from_weights(weights, architecture, task)
    for draw in (correctness, lambda snapshot: logit_images(snapshot, [0])):
        with pytest.raises(gi.InputError, match="logits are not finite; look at an earlier"):
            draw(found)


def test_correctness_tells_the_four_kinds_apart(tiny_run):
    figure = plot_correctness(tiny_run)
    (trace,) = figure.data
    snapshot = tiny_run.snapshot()
    share = int((snapshot.logits.argmax(dim=1) == snapshot.task.labels).sum()) / 49
    assert share != 0.5
    assert figure.layout.title.text == f"Answers, step 60: {share:.2%} right"
    assert axis_titles(figure) == ({"operand b"}, {"operand a"})
    assert trace.hovertemplate == (
        "a = %{y}, b = %{x}<br><b>code %{z}</b>, where<br>0 = wrong, test<br>1 = wrong, train"
        "<br>2 = right, test<br>3 = right, train<extra></extra>"
    )
    assert trace.colorbar.ticktext == ("wrong, test", "wrong, train", "right, test", "right, train")
    assert (trace.colorbar.tickvals, trace.zmin, trace.zmax) == ((0, 1, 2, 3), -0.5, 3.5)
    drawn = dict.fromkeys(colour for _, colour in trace.colorscale)
    assert list(drawn) == list(ANSWERS.values()) == ["#D55E00", "#CC79A7", "#009E73", "#7FCDB2"]
    for a, b in ((0, 0), (2, 5), (6, 1), (3, 3), (1, 4)):
        row = a * 7 + b
        right = int(snapshot.logits[row].argmax()) == (a + b) % 7
        assert trace.z[a, b] == 2 * right + bool(snapshot.train_mask[row])
