"""Interventions together, at the edges of what they are given, and what their rows say then."""

import math
import re

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits import ablation_ratios, faithfulness, hooks
from grokinterp.circuits.interventions import Setting, reference, replay
from grokinterp.runs._snapshot import from_weights
from tests import clock
from tests.test_ablation import hand_built  # noqa: F401
from tests.test_architectures import example

POST = "blocks.0.mlp.hook_post"
LOGITS = "unembed.hook_out"


@pytest.fixture(name="small", scope="module")
def fixture_small():
    architecture, weights, task = example("canonical")
    return from_weights(weights, architecture, task)


@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_a_component_and_its_skip_in_either_order(small, mode):
    model = small.architecture.hooked(small.weights)
    _, cache = model.run_with_cache(small.task.tokens)

    def stands_in(name):
        x = cache[f"blocks.0.{name}"][:, -1]
        return torch.zeros_like(x) if mode == "zero" else x.mean(dim=0).expand_as(x)

    read = model.blocks[0].mlp
    mid = stands_in("hook_resid_pre") + stands_in("hook_attn_out")
    behind = {
        "attention": mid + read(mid[:, None])[:, 0],
        "MLP": stands_in("hook_resid_mid") + stands_in("hook_mlp_out"),
    }
    pairs = {
        "attention": (hooks.attention_skip(0, mode=mode), hooks.attention(0, mode=mode)),
        "MLP": (hooks.mlp_skip(0, mode=mode), hooks.mlp(0, mode=mode)),
    }
    for name, (skip, whole) in pairs.items():
        expected = behind[name] @ model.W_U + model.b_U
        for both in (skip + whole, whole + skip):
            torch.testing.assert_close(replay(small, both), expected)
            seen = model.run_with_hooks(small.task.tokens, fwd_hooks=both)[:, -1]
            torch.testing.assert_close(seen, expected)


def test_both_skips_and_the_stream_between(small):
    task = small.task
    skips = hooks.attention_skip(0) + hooks.mlp_skip(0)
    between = hooks.fourier("blocks.0.hook_resid_mid", task, [1])
    expected = replay(small, skips + between)
    for order in (between + skips, hooks.mlp_skip(0) + between + hooks.attention_skip(0)):
        torch.testing.assert_close(replay(small, order), expected)
    assert not torch.allclose(replay(small, skips), expected)
    with pytest.raises(gi.InputError, match="ablated twice"):
        skips + hooks.mlp_skip(0, mode="zero")


def test_directions_that_depend_on_each_other(small):
    one = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    expected = replay(small, hooks.directions(POST, one))
    for basis in (torch.cat([one, 2 * one], dim=1), torch.cat([one, 0 * one], dim=1)):
        torch.testing.assert_close(replay(small, hooks.directions(POST, basis)), expected)
    whole = hooks.directions(POST, torch.randn(20, 30))
    assert whole.draw(Setting(small, (1,), 3, 0)) == []
    torch.testing.assert_close(
        replay(small, whole), replay(small, hooks.neurons(0, range(20), mode="zero"))
    )
    nothing = hooks.directions(POST, torch.zeros(20, 2))
    torch.testing.assert_close(replay(small, nothing), replay(small, ()))
    with pytest.raises(gi.InputError, match=r"give them as columns, \[20, r\]"):
        replay(small, hooks.directions(POST, one[:7]))
    with pytest.raises(gi.InputError, match="are no basis"):
        hooks.directions(POST, one * math.nan)


@pytest.mark.parametrize("n", [2, 3, 4, 9, 961])
def test_resample_gives_every_input_that_of_another(n):
    drawn = reference(torch.arange(n), "resample")
    assert (drawn != torch.arange(n)).all()
    assert torch.equal(drawn.sort().values, torch.arange(n))


def test_parts_that_do_not_exist(small):
    for one in (hooks.heads(0, 2), hooks.neurons(0, 20)):
        with pytest.raises(gi.InputError, match="is not a whole number from 0 to"):
            replay(small, one)
    with pytest.raises(gi.InputError, match="distinct indices from 0 on"):
        hooks.heads(0, -1)
    with pytest.raises(gi.InputError, match=r"did you mean 'answer'|valid are: answer"):
        hooks.fourier(LOGITS, small.task, [1], terms="answers")
    for steps in ([], ()):
        with pytest.raises(gi.InputError, match="has no step"):
            gi.ablate(small, step=steps)
    for wrong in ([], gi.ablate(small, [()], frequencies=[1])):
        with pytest.raises(gi.InputError, match="a list of what"):
            ablation_ratios(wrong)


def test_composites_have_the_placebos_of_both(hand_built):  # noqa: F811
    task = hand_built.task
    drop, part = hooks.fourier(LOGITS, task, [2]), hooks.neurons(0, [1, 2])
    setting = Setting(hand_built, (2, 5, 13), n=4, seed=0)
    for one in (drop + hooks.mlp_skip(0), hooks.mlp_skip(0) + drop, drop + part, part + drop):
        drawn = one.draw(setting)
        assert len(drawn) == 12  # all single frequencies that are not key
        assert sum(other.harmonic for other in drawn) == 4
        assert one.no_placebo is None
    assert (drop + hooks.heads(0, 0)).draw(setting) == []  # all heads are no part
    assert not (hooks.embedding(task, [2]) + part).keeps
    assert (hooks.embedding(task, [2]) + hooks.embedding(task, [3])).keeps


def test_placebos_do_not_have_what_is_ablated(hand_built):  # noqa: F811
    task = hand_built.task
    found = gi.ablate(
        hand_built,
        [hooks.fourier(LOGITS, task, [3]), hooks.embedding(task, [3]),
         hooks.fourier(LOGITS, task, [3, 6]), hooks.neurons(0, range(100), mode="zero"),
         hooks.neurons(0, range(192)), hooks.fourier(LOGITS, task, [], keep=True)],
        placebos=3,
    )  # fmt: skip
    single, embedded, pair, many, all_of_them, none = found
    assert len(single.placebos) == len(embedded.placebos) == 11
    assert not any(" 3 " in placebo.name for placebo in (*single.placebos, *embedded.placebos))
    assert len(pair.placebos) == 3
    assert not any({"3,", "6"} & set(placebo.name.split()) for placebo in pair.placebos)
    assert len(many.placebos) == 3  # of all: fewer than 100 others exist
    assert all_of_them.placebos == none.placebos == ()
    assert all_of_them.no_placebo == "there is no other part of its size"
    assert none.no_placebo == "no frequency is named"
    drawn = hooks.fourier(LOGITS, task, [2, 5]).draw(Setting(hand_built, (2, 5, 13), 100, 0))
    plain = set(range(1, 16)) - {2, 5, 13} - {4, 8, 10, 11}
    assert len(drawn) == 28  # all pairs of the eight that are neither key nor harmonics
    named = {int(x) for one in drawn for x in re.findall(r"\d+", one.name)}
    assert named == plain


def test_rows_that_share_placebos_have_their_own(hand_built):  # noqa: F811
    """Of the same size, but another hook, verb, layer of heads, mode or terms."""
    task = hand_built.task
    ablations = [
        hooks.fourier(hook, task, [2], keep=keep, terms=terms)
        for hook in (LOGITS, POST)
        for keep in (True, False)
        for terms in ("answer", "operands")
    ] + [
        hooks.directions(POST, torch.eye(192)[:, :2], keep=keep, mode=mode)
        for keep in (True, False)
        for mode in ("zero", "mean")
    ]  # fmt: skip
    together = gi.ablate(hand_built, ablations, placebos=2)
    for one, row in zip(ablations, together, strict=True):
        assert gi.ablate(hand_built, [one], placebos=2).rows == (row,)
    other = gi.ablate(hand_built, ablations[-1:], placebos=2, seed=1)
    assert other.rows[0].placebo_ratios != together.rows[-1].placebo_ratios


def test_a_change_within_rounding_is_no_effect(hand_built):  # noqa: F811
    """Frequency 14 does not occur: what it changes is float32 rounding, whatever the sign."""
    idle = hooks.fourier("hook_embed", hand_built.task, [14], terms="operands")
    for keys in ([14], [2, 5, 13, 14]):
        row = gi.ablate(hand_built, [idle], frequencies=keys).rows[0]
        assert row.ratio == pytest.approx(1, abs=1e-5)
        assert row.verdict == "not above chance"
    found = faithfulness(hand_built, frequencies=[2, 5, 13, 14], placebos=0)
    assert found.not_needed == ("alone less drop k = 14 of the operands at hook_embed",)


def test_a_loss_of_zero_or_none():
    def scaled(scale):
        weights = clock.clock_weights(31, (2, 5, 13), 10.0)
        weights["unembed.W_U"] *= scale
        return from_weights(weights, clock.clock_architecture(31, 3), gi.ModularTask("add", 31))

    pair = [hooks.mlp(0), hooks.mlp_skip(0)]
    costly, idle = gi.ablate(scaled(1e4), pair, frequencies=[2, 5, 13], placebos=3)
    assert costly.whole.loss_all == 0
    assert (costly.ratio, idle.ratio) == (math.inf, 1.0)
    with pytest.raises(gi.InputError, match="the model's loss is nan"):
        gi.ablate(scaled(math.nan), pair, frequencies=[2, 5, 13])


def test_a_model_worse_than_nothing_has_nothing_to_recover():
    architecture, weights, task = example("canonical")
    found = faithfulness(from_weights(weights, architecture, task), frequencies=[1], placebos=0)
    assert found.nothing.score.loss_all < found.nothing.whole.loss_all
    assert math.isnan(found.recovered)
    assert math.isnan(found.lost)


def test_a_cluster_leaves_the_circuit_before_the_directions_read(hand_built):  # noqa: F811
    """With directions that mix clusters, a cluster's own part must not survive in them."""
    weights = dict(hand_built.weights)
    mixed = weights["blocks.0.mlp.W_out"].clone()
    mixed[:64] += 0.3 * mixed[64:128].roll(2, dims=1)
    weights["blocks.0.mlp.W_out"] = mixed + 0.02 * torch.randn(
        mixed.shape, generator=torch.Generator().manual_seed(0)
    )
    weights["unembed.W_U"] = weights["unembed.W_U"] + 0.02 * torch.randn(
        weights["unembed.W_U"].shape, generator=torch.Generator().manual_seed(1)
    )
    snapshot = from_weights(weights, hand_built.architecture, hand_built.task)
    found = faithfulness(snapshot, frequencies=[2, 5, 13], placebos=0)
    post = snapshot.mlp_post.double().clone()
    post[:, :64] = post[:, :64].mean(dim=0)
    basis = gi.circuits.neuron_logit_directions(snapshot, frequencies=[2, 5, 13]).basis
    post = post @ basis @ basis.T + (post - post @ basis @ basis.T).mean(dim=0)
    w = {name: weight.double() for name, weight in snapshot.weights.items()}
    stream = snapshot.activation("blocks.0.hook_resid_mid").double().mean(dim=0)
    logits = (stream + post @ w["blocks.0.mlp.W_out"]) @ w["unembed.W_U"]
    chosen = logits.log_softmax(1).gather(1, snapshot.task.labels[:, None])
    (row,) = (row for row in found.parts if "neurons of k = 2 " in row.name)
    assert row.score.loss_all == pytest.approx(float(-chosen.mean()), rel=1e-4)


def test_cluster_kinds_tell_key_from_leftover(hand_built):  # noqa: F811
    found = gi.ablate(hand_built, frequencies=[2, 5], placebos=0).table().set_index("ablation")
    assert found.loc["neurons of k = 2 (mean)", "kind"] == "neurons of a key frequency (mean)"
    assert found.loc["neurons of k = 13 (mean)", "kind"] == "neurons of another frequency (mean)"


def test_columns_of_the_table_by_their_definition(hand_built):  # noqa: F811
    task = hand_built.task
    found = gi.ablate(
        hand_built,
        [hooks.fourier(LOGITS, task, [2]), hooks.fourier(LOGITS, task, [2, 5, 13], keep=True)],
        placebos=4,
    )
    for row, columns in zip(found, found.table().to_dict("records"), strict=True):
        for rows in ("train", "test", "all"):
            change = getattr(row.score, f"loss_{rows}") - getattr(row.whole, f"loss_{rows}")
            assert columns[f"change_{rows}"] == change
        losses = [p.score.loss_all for p in row.placebos if not p.harmonic]
        assert columns["n_placebos"] == len(losses)
        assert columns["placebo_rank"] == 1 / (len(losses) + 1)  # beyond each of them
        assert row.verdict == "above chance"
    split = hand_built.train_mask
    kept = replay(hand_built, hooks.fourier(LOGITS, task, [2])).double().log_softmax(1)
    losses = -kept.gather(1, task.labels[:, None]).flatten()
    row = found.rows[0]
    assert row.score.loss_train == pytest.approx(float(losses[split].mean()), rel=1e-5)
    assert row.score.loss_test == pytest.approx(float(losses[~split].mean()), rel=1e-5)


def test_a_harmonic_may_cost_more_than_the_ablation():
    """Verdicts look past harmonics: here 4 does most of the work, and only 2 is named."""
    weights = clock.clock_weights(31, (2, 4), 10.0)
    weights["unembed.W_U"][[5, 7]] *= 2  # what reads cos and sin of 4
    snapshot = from_weights(weights, clock.clock_architecture(31, 2), gi.ModularTask("add", 31))
    drop = hooks.fourier(LOGITS, snapshot.task, [2])
    row = gi.ablate(snapshot, [drop], frequencies=[2]).rows[0]
    costs = {placebo.name: placebo.score.loss_all for placebo in row.placebos if placebo.harmonic}
    assert costs["drop k = 4 at the logits"] > row.score.loss_all
    assert row.verdict == "above chance"
    named = gi.ablate(snapshot, [drop], frequencies=[2, 9]).rows[0]  # 18 = 13, 36 = 5 mod 31
    assert {p.name for p in named.placebos if p.harmonic} == {
        f"drop k = {k} at the logits" for k in (4, 8, 13, 5)
    }
