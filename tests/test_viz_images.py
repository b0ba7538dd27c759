"""Images of the answers: pixels against the logits of the hooked model."""

import math

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.runs.snapshot import from_weights
from grokinterp.viz import plot_correctness, plot_logits
from grokinterp.viz.images import around_zero, checked_numbers, from_zero, logit_images
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


def test_logits_that_are_not_finite_have_the_same_traces():
    architecture, weights, task = example("canonical")
    sound = logit_images(from_weights(weights, architecture, task), [0, 1])
    broken = weights | {"unembed.W_U": weights["unembed.W_U"] * math.nan}
    found = logit_images(from_weights(broken, architecture, task), [0, 1])
    assert [trace.type for trace in found.data] == [trace.type for trace in sound.data]
    assert np.isnan(found.data[0].z).all()


def test_correctness_tells_the_four_kinds_apart(tiny_run):
    (trace,) = plot_correctness(tiny_run).data
    snapshot = tiny_run.snapshot()
    for a, b in ((0, 0), (2, 5), (6, 1), (3, 3), (1, 4)):
        row = a * 7 + b
        right = int(snapshot.logits[row].argmax()) == (a + b) % 7
        assert trace.z[a, b] == 2 * right + bool(snapshot.train_mask[row])
