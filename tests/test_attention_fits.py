"""Fits of attention: exact on heads built by hand, least squares elsewhere, and through hooks."""

import math

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits._attention_readout import (
    attention_fits,
    attention_readout,
    fitted_patterns,
)
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from tests import clock
from tests.heads import heads_weights
from tests.test_architectures import P, example

HEADS = [{2: 1.5}, {2: 1.0, 5: 0.5}]
PATTERN = "blocks.0.attn.hook_pattern"


def hand_built(operation="add", **kwargs):
    task = ModularTask(operation, 11)
    architecture, weights = heads_weights(task, HEADS, **kwargs)
    return from_weights(weights, architecture, task)


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_the_sigmoid_is_exact_for_one_wave_and_no_attention_to_equals(rate):
    snapshot = hand_built(offset=0.7, rate=rate)
    fits = attention_fits(snapshot)
    true = snapshot.activation(PATTERN)
    assert torch.allclose(fits.patterns["sigmoid"][:, 0], true[:, 0], atol=1e-12)
    assert not torch.allclose(fits.patterns["sigmoid"][:, 1], true[:, 1], atol=1e-2)
    table = fits.table().set_index(["form", "head"])
    one = table.loc[("sigmoid", 0)]
    assert one["variance_explained"] == pytest.approx(1, abs=1e-12)
    assert (one["slope"], one["fitted"]) == (1, "nothing")
    assert one["intercept"] == pytest.approx(0.7)
    two = table.loc[("sigmoid", 1)]  # the second wave is what is missing
    assert two["variance_explained"] < 0.95
    assert two["whole_readout"] == pytest.approx(1, abs=1e-12)
    a, b = snapshot.task.operands.double().unbind(1)
    score = [(4 * math.pi * x / 11 - 0.4).cos() for x in (a, b)]
    fit = rate * (score[0] - score[1] + 0.7).sigmoid() + 1 - rate
    truth = true[:, 1, 0]
    explained = 1 - (truth - fit).square().mean() / truth.var(correction=0)
    assert two["variance_explained"] == pytest.approx(float(explained))
    for pattern in fits.patterns.values():
        assert torch.allclose(pattern.sum(2), true.sum(2), atol=1e-9)
        assert (pattern[:, :, 2] == 1 - rate).all()


@pytest.mark.parametrize("variant", ["canonical", "layer norm", "blended attention"])
def test_the_line_is_ordinary_least_squares(variant):
    architecture, weights, task = example(variant)
    snapshot = from_weights(weights, architecture, task)
    readout = attention_readout(snapshot)
    table = attention_fits(snapshot).table().set_index(["form", "head"])
    a, b = task.operands.unbind(1)
    t = torch.arange(P).double()
    for head, k in enumerate(readout.leading):
        angle = 2 * math.pi * k * t / P
        waves = torch.stack([torch.ones(P), angle.cos(), angle.sin()], dim=1)
        wave = waves @ torch.linalg.lstsq(waves, readout.scores[head][:, None]).solution
        truth = snapshot.activation(PATTERN)[:, head, 0]
        row = table.loc[("linear", head)]
        for scores, name in (
            (readout.scores[head], "whole_readout"),
            (wave[:, 0], "variance_explained"),
        ):
            terms = torch.stack([scores[a] - scores[b], torch.ones(P * P)], dim=1)
            solution = torch.linalg.lstsq(terms, truth[:, None]).solution
            rest = truth - (terms @ solution)[:, 0]
            explained = 1 - rest.square().mean() / truth.var(correction=0)
            assert row[name] == pytest.approx(float(explained), abs=1e-9)
        assert [row["slope"], row["intercept"]] == pytest.approx(solution[:, 0].tolist())
        found = fitted_patterns(snapshot, form="linear")[:, head, 0]
        assert torch.allclose(found, (terms @ solution)[:, 0], atol=1e-9)


def test_a_factor_of_zero_keeps_its_own_score():
    """It has no exponent, so no wave; the other tokens are still exact."""
    snapshot = hand_built("multiply", phase=0.0)
    found = fitted_patterns(snapshot)
    true = snapshot.activation(PATTERN)
    assert torch.allclose(found[:, 0], true[:, 0], atol=1e-12)


def test_a_flat_head_gets_half_and_half():
    weights = clock.clock_weights(31, (2, 5), 10.0)
    snapshot = from_weights(weights, clock.clock_architecture(31, 2), ModularTask("add", 31))
    fits = attention_fits(snapshot)
    assert (
        fits.table()[["frequency", "variance_explained", "whole_readout"]].isna().to_numpy().all()
    )
    assert fits.table()["slope"].tolist() == [1, 0]
    expected = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    assert torch.allclose(fits.patterns["sigmoid"], expected.expand(31 * 31, 1, 3))


def test_more_waves_make_the_second_head_exact_too():
    snapshot = hand_built(offset=0.7)
    true = snapshot.activation(PATTERN)
    assert torch.allclose(fitted_patterns(snapshot, waves=2), true, atol=1e-12)
    table = attention_fits(snapshot, waves=2).table()
    assert table["frequency"].tolist() == [2, 2, 2, 2]
    both = table["variance_explained"] - table["whole_readout"]
    assert both.abs().max() < 1e-12
    for waves in (0, 6, True):
        with pytest.raises(gi.InputError, match="is not a whole number from 1 to 5"):
            attention_fits(snapshot, waves=waves)


def test_refusals():
    with pytest.raises(gi.InputError, match="did you mean 'sigmoid'"):
        fitted_patterns(hand_built(), form="sigmod")
    architecture, weights, task = example("no equals")
    with pytest.raises(gi.InputError, match='reads no "="'):
        fitted_patterns(from_weights(weights, architecture, task))


def test_the_patterns_can_replace_the_models_own(shipped):
    """Through a hook: the whole effect of "=" and of all other waves, in one loss."""
    task = shipped.task
    model = shipped.model()

    def loss(form, waves):
        patterns = fitted_patterns(shipped, form=form, waves=waves).float()

        def replace(pattern, hook):
            pattern = pattern.clone()
            pattern[:, :, -1] = patterns
            return pattern

        with torch.no_grad():
            logits = model.run_with_hooks(task.tokens, fwd_hooks=[(PATTERN, replace)])[:, -1]
        return float(torch.nn.functional.cross_entropy(logits.double(), task.labels))

    own = float(torch.nn.functional.cross_entropy(shipped.snapshot().logits.double(), task.labels))
    # The sigmoid of all of C_j is the model but for "=" (whose attention is neglected).
    assert loss("sigmoid", 56) == pytest.approx(own, rel=0.1)
    assert own < loss("sigmoid", 3) < 2 * own
    assert 1e4 * own < loss("sigmoid", 1) < math.log(113)  # two heads have more than one wave
    table = attention_fits(shipped).table()
    assert (table.loc[table["form"] == "sigmoid", "whole_readout"] > 0.9999).all()
