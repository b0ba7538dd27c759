"""The attention readout: heads built by hand, and log attention of random ones."""

import math

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits._attention_readout import attention_readout
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from tests import clock
from tests.heads import D_HEAD, heads_weights
from tests.test_architectures import P, example


def hand_built(operation="add", p=11, **kwargs):
    task = ModularTask(operation, p)
    heads = [{2: 1.5}, {2: 1.0, 5: 0.5}, {5: 2.0}]
    architecture, weights = heads_weights(task, heads, **kwargs)
    return from_weights(weights, architecture, task)


def test_hand_built_heads_are_read_off():
    found = attention_readout(hand_built(offset=0.7), frequencies=[2])
    t = torch.arange(11).double()
    wave = {k: (2 * math.pi * k * t / 11 - 0.4).cos() for k in (2, 5)}
    expected = torch.stack([1.5 * wave[2], wave[2] + 0.5 * wave[5], 2 * wave[5]])
    assert torch.allclose(found.scores, expected, atol=1e-12)
    assert found.offset.tolist() == pytest.approx([0.7] * 3)
    table = found.table()
    assert table["frequency"].tolist() == [2, 2, 5]
    assert table["variance_explained"].tolist() == pytest.approx([1, 0.8, 1])
    assert table["single_frequency"].tolist() == [True, False, True]  # 0.8 < 0.85
    assert table["key"].tolist() == [True, True, False]
    assert table["spread"].tolist() == pytest.approx(
        [1.5 / math.sqrt(2), math.sqrt(1.25 / 2), math.sqrt(2)]
    )
    assert (table["to_equals"] < 1e-12).all()
    assert found.shares[1, [1, 4]].tolist() == pytest.approx([0.8, 0.2])
    lower = attention_readout(hand_built(), threshold=0.79).table()
    assert lower["single_frequency"].all()


def test_the_unscaled_readout_is_that_of_the_notebook():
    """Without the division by sqrt(d_head)."""
    scaled, raw = (attention_readout(hand_built(offset=0.3), scaled=s) for s in (True, False))
    assert torch.allclose(raw.scores, scaled.scores * math.sqrt(D_HEAD))
    assert torch.allclose(raw.offset, scaled.offset * math.sqrt(D_HEAD))
    assert torch.allclose(raw.shares, scaled.shares)
    assert (scaled.scaled, raw.scaled) == (True, False)


def test_tokens_of_multiplication_are_in_order_of_their_logarithms():
    found = attention_readout(hand_built("multiply"))
    assert found.table()["frequency"].tolist() == [2, 2, 5]
    # On 10 exponents k = 5 alternates: its square is all cos^2(phase), twice the mean of a wave's.
    alternating = 2 * 0.25 * math.cos(0.4) ** 2
    assert found.shares[1, 1] == pytest.approx(1 / (1 + alternating))
    assert found.shares[:, 1].tolist()[0] == pytest.approx(1)


@pytest.mark.parametrize(
    "variant",
    ["canonical", "layer norm", "bidirectional", "blended attention", "longer context",
     "equals class", "deep layer norm", "rms", "folded layer norm", "attention alone"],
)  # fmt: skip
def test_the_readout_is_log_attention(variant):
    """log(attention to a / attention to "=") varies with a as C_j does, and so for b."""
    architecture, weights, task = example(variant)
    snapshot = from_weights(weights, architecture, task)
    found = attention_readout(snapshot, frequencies=[1])
    pattern = snapshot.activation("blocks.0.attn.hook_pattern")
    rate = architecture.attention_rate
    log = ((pattern - (1 - rate)) / rate).log()
    of_a = (log[:, :, 0] - log[:, :, 2]).unflatten(0, (P, P))  # the same for every b
    of_b = (log[:, :, 1] - log[:, :, 2]).unflatten(0, (P, P))
    assert torch.allclose(of_a[:, 0], of_a[:, 3], atol=1e-9)
    assert torch.allclose((of_a[:, 0] - of_b[0]).mean(0), found.offset, atol=1e-9)
    both = ((of_a[:, 0] + of_b[0]) / 2).T
    centred = found.scores - found.scores.mean(1, keepdim=True)
    assert torch.allclose(centred, both - both.mean(1, keepdim=True), atol=1e-9)
    assert ("LayerNorm" in found.note) == (architecture.normalization_type in ("LN", "LNPre"))
    assert ("RMSNorm" in found.note) == (architecture.normalization_type == "RMS")
    assert found.table()["to_equals"].tolist() == pytest.approx(pattern[:, :, 2].mean(0).tolist())
    # And the share, by least squares on one wave.
    t = torch.arange(P).double()
    for k in (1, 2, 3):
        angle = 2 * math.pi * k * t / P
        waves = torch.stack([angle.cos(), angle.sin()], dim=1)
        fit = waves @ torch.linalg.lstsq(waves, centred.T).solution
        explained = fit.square().sum(0) / centred.square().sum(1)
        assert found.shares[:, k - 1].tolist() == pytest.approx(explained.tolist())


def test_the_readout_itself_is_the_published_product():
    architecture, weights, task = example("canonical")
    found = attention_readout(from_weights(weights, architecture, task), scaled=False)
    w = {name.rpartition(".")[2]: x for name, x in weights.items()}
    for head in range(2):
        query = (w["W_E"][P] + w["W_pos"][2]) @ w["W_Q"][head] + w["b_Q"][head]
        for t in range(P):
            expected = query @ (w["W_E"][t] @ w["W_K"][head])
            assert found.scores[head, t] == pytest.approx(float(expected))


def test_a_users_model_gives_the_same():
    architecture, weights, task = example("layer norm")
    model = architecture.hooked(weights)
    found = attention_readout(model, task=task)
    expected = attention_readout(from_weights(weights, architecture, task))
    assert torch.equal(found.scores, expected.scores)


def test_heads_that_score_all_tokens_alike_have_no_frequency():
    weights = clock.clock_weights(31, (2, 5), 10.0)
    found = attention_readout(
        from_weights(weights, clock.clock_architecture(31, 2), ModularTask("add", 31))
    )
    assert found.leading == (None,)
    row = found.table().iloc[0]
    assert row[["frequency", "variance_explained", "key"]].isna().all()
    assert not row["single_frequency"]
    assert row["note"] == "scores all tokens alike"


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("no equals", 'reads no "="'),
        ("two layers", "layer=1 has no attention readout"),
    ],
)
def test_what_has_no_readout_is_refused(variant, message):
    architecture, weights, task = example(variant)
    snapshot = from_weights(weights, architecture, task)
    with pytest.raises(gi.InputError, match=message):
        attention_readout(snapshot, layer=architecture.n_layers - 1)


def test_attention_that_the_weights_do_not_tell_is_refused():
    with pytest.raises(gi.InputError, match="attention is constant"):
        attention_readout(hand_built(rate=0.0))
    architecture, weights, task = example("blended and deep")
    with pytest.raises(gi.InputError, match="needs a plain model"):  # a hook could be anything
        attention_readout(architecture.hooked(weights), task=task)
    architecture, weights, task = example("canonical")
    with pytest.raises(gi.InputError, match="random"):
        attention_readout(from_weights(weights, architecture, ModularTask("random", P)))


def test_the_shipped_run(shipped):
    found = attention_readout(shipped)
    assert set(found.leading) <= {9, 18, 53, 55}
    assert (found.table()["to_equals"] < 0.004).all()  # 0.1 to 0.4 % in the paper's model
