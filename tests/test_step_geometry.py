"""Steps in the Fisher metric against long-hand sums over flat vectors, and runs made by hand."""

import math
from itertools import pairwise

import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.geometry.fisher import fisher_diagonal
from grokinterp.geometry.metric import fisher_metric, step_geometry
from tests.made_runs import made_run


def flat(weights):
    return torch.cat([weight.double().flatten() for weight in weights.values()])


def cosine(u, v, g):
    return float((u * g * v).sum() / ((u * g * u).sum() * (v * g * v).sum()).sqrt())


@pytest.mark.parametrize("variant", ["softmax", "logits"])
def test_the_diagonal_form_is_that_of_flat_vectors(tiny_run, variant):
    settings = {"variant": variant, "rows": "train", "n_samples": 9, "seed": 2}
    threshold = float(flat(fisher_diagonal(tiny_run, **settings).values).quantile(0.7))
    found = step_geometry(tiny_run, stiff_above=threshold, **settings)
    assert found["step"].tolist() == [0, 20, 40]
    assert found["to"].tolist() == [20, 40, 60]
    stiff = (flat(fisher_diagonal(tiny_run, **settings).values) >= threshold).double()
    before = None
    for _, row in found.iterrows():
        theta = flat(tiny_run.weights(int(row["step"])))
        step = flat(tiny_run.weights(int(row["to"]))) - theta
        g = flat(fisher_diagonal(tiny_run, step=int(row["step"]), **settings).values)
        expected = {
            "euclidean_norm": float(step.norm()),
            "euclidean_cos_origin": cosine(step, -theta, torch.ones_like(g)),
        }
        for part, mask in (("", 1), ("_stiff", stiff), ("_sloppy", 1 - stiff)):
            expected[f"fisher_norm{part}"] = float((g * mask * step.square()).sum().sqrt())
            expected[f"cos_origin{part}"] = cosine(step, -theta, g * mask)
            last = f"cos_consecutive{part}"
            expected[last] = math.nan if before is None else cosine(step, before, g * mask)
        expected["euclidean_cos_consecutive"] = (
            math.nan if before is None else cosine(step, before, torch.ones_like(g))
        )
        assert set(expected) == set(found.columns) - {"step", "to"}
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-9, nan_ok=True), name
        before = step
    assert found.attrs == settings | {
        "form": "diagonal", "n_rows": 24, "stiff_above": threshold, "n_stiff": int(stiff.sum()),
        "n_weights": len(stiff),
    }  # fmt: skip
    assert 0 < stiff.sum() < len(stiff)


def test_the_exact_form_is_that_of_the_metric(tiny_run):
    settings = {"variant": "softmax", "rows": "test", "n_samples": 6}
    found = step_geometry(tiny_run, form="exact", steps=[0, 40, -1], stiff_above=None, **settings)
    assert found["to"].tolist() == [40, 60]
    weights = [{n: w.double() for n, w in tiny_run.weights(s).items()} for s in (0, 40, 60)]
    steps = [{n: b[n] - a[n] for n in a} for a, b in pairwise(weights)]
    metrics = [fisher_metric(tiny_run, step=s, **settings) for s in (0, 40)]
    for row, metric, step, start in zip(
        found.to_dict("records"), metrics, steps, weights, strict=False
    ):
        origin = {n: -w for n, w in start.items()}
        assert row["fisher_norm"] == pytest.approx(metric.norm(step), rel=1e-12)
        assert row["cos_origin"] == pytest.approx(metric.cosine(step, origin), rel=1e-12)
    assert math.isnan(found["cos_consecutive"][0])
    later = metrics[1].cosine(steps[1], steps[0])
    assert found["cos_consecutive"][1] == pytest.approx(later, rel=1e-12)
    assert found.attrs["form"] == "exact"
    assert found.attrs["n_stiff"] is None
    assert not any("stiff" in column or "sloppy" in column for column in found.columns)


def test_decay_growth_and_a_way_back(tiny_run):
    start = tiny_run.weights(60)
    scales = {0: 1.0, 1: 0.5, 2: 0.25, 5: 0.5, 6: 0.5}
    checkpoints = {s: {n: f * w for n, w in start.items()} for s, f in scales.items()}
    run = made_run(tiny_run.task, tiny_run.architecture, checkpoints)
    for form in ("diagonal", "exact"):
        found = step_geometry(run, form=form, rows="all", n_samples=5)
        assert found["cos_origin"].tolist() == pytest.approx([1, 1, -1, math.nan], nan_ok=True)
        expected = [math.nan, 1, -1, math.nan]  # the last step has no length
        for column in ("cos_consecutive", "euclidean_cos_consecutive", "cos_consecutive_sloppy"):
            assert found[column].tolist() == pytest.approx(expected, nan_ok=True)
        assert found["fisher_norm"][3] == found["euclidean_norm"][3] == 0
        size = float(flat(start).norm())
        assert found["euclidean_norm"].tolist() == pytest.approx(
            [size / 2, size / 4, size / 4, 0], rel=1e-6
        )


def test_stiff_weights_are_those_of_the_runs_last_checkpoint(tiny_run):
    last = flat(fisher_diagonal(tiny_run, n_samples=5).values)
    found = step_geometry(tiny_run, steps=[0, 20], n_samples=5, stiff_above=float(last.max()))
    assert found.attrs["n_stiff"] == 1  # the threshold itself is stiff
    none = step_geometry(tiny_run, steps=[0, 20], n_samples=5, stiff_above=float(last.max()) * 2)
    assert none.attrs["n_stiff"] == 0
    assert none["fisher_norm_stiff"][0] == 0
    assert math.isnan(none["cos_origin_stiff"][0])
    assert none["fisher_norm_sloppy"][0] == none["fisher_norm"][0]


def test_what_cannot_be_used_is_refused(tiny_run):
    for settings, says in (
        ({"steps": [20]}, "a step takes two"),
        ({"steps": [20, 0]}, "do not rise"),
        ({"steps": [0, 21]}, "21 is not saved"),
        ({"form": "dense"}, "form='dense'"),
        ({"variant": "logit"}, "variant='logit'"),
        ({"stiff_above": math.nan}, "stiff_above=nan"),
    ):
        with pytest.raises(InputError, match=says):
            step_geometry(tiny_run, **settings)
    good = tiny_run.weights(0)
    bad = {n: w * math.nan for n, w in good.items()}
    for checkpoints, step in (({0: bad, 3: good}, 0), ({0: good, 3: bad, 4: good}, 3)):
        run = made_run(tiny_run.task, tiny_run.architecture, checkpoints)
        for stiff in (0.1, None):
            with pytest.raises(InputError, match=f"weights at step {step} are not finite"):
                step_geometry(run, rows="all", n_samples=2, stiff_above=stiff)
    run = made_run(tiny_run.task, tiny_run.architecture, {0: good, 3: good, 4: bad})
    with pytest.raises(InputError, match="weights at step 4 are not finite"):
        step_geometry(run, steps=[0, 3], rows="all", n_samples=2)
    assert len(step_geometry(run, steps=[0, 3], rows="all", n_samples=2, stiff_above=None)) == 1
