"""gi.ablate: closed forms on hand-built weights, the shipped run, and what it leaves behind."""

import copy
import math
import sys

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.base.errors import whole_number
from grokinterp.circuits import ablation_ratios, hooks
from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.progress.losses import excluded_loss, restricted_loss
from grokinterp.runs._snapshot import from_weights
from tests import clock
from tests.test_architectures import example

GENERATOR = torch.Generator().manual_seed(8)
P, KEYS, AMPLITUDE = 31, (2, 5, 13), 10.0


@pytest.fixture(scope="module")
def hand_built():
    train = torch.rand(P * P, generator=torch.Generator().manual_seed(0)) < 0.3
    return from_weights(
        clock.clock_weights(P, KEYS, AMPLITUDE),
        clock.clock_architecture(P, 3),
        gi.ModularTask("add", P),
        train_mask=train,
    )


def closed_form(keys, averaged=()):
    """Loss of amplitude |cos(w_k(a - b)/2)| cos(w_k(a + b - c)), the envelope averaged for some."""
    a, b, c = torch.meshgrid(*[torch.arange(P, dtype=torch.float64)] * 3, indexing="ij")
    logits = torch.zeros(P, P, P, dtype=torch.float64)
    for k in keys:
        w = 2 * math.pi * k / P
        envelope = (w * (a - b) / 2).cos().abs() - clock.mean_envelope(P) * (k in averaged)
        logits += AMPLITUDE * envelope * (w * (a + b - c)).cos()
    labels = gi.ModularTask("add", P).labels
    return float(cross_entropies(logits.reshape(P * P, P), labels).mean())


def test_clock_weights_lose_what_the_formula_says(hand_built):
    found = gi.ablate(hand_built, mode="zero", placebos=5)
    assert found.frequencies == KEYS
    chance = math.log(P)
    expected = {
        "head 0.0 (zero)": chance,
        "attention 0 (zero)": chance,
        "attention skip 0 (zero)": closed_form(KEYS),
        "MLP 0 (zero)": chance,
        "MLP skip 0 (zero)": closed_form(KEYS),
        "embedding keeps k = 2, 5, 13": closed_form(KEYS),
        "keep only u_k, v_k at blocks.0.mlp.hook_post (zero)": closed_form(KEYS),
        "drop u_k, v_k at blocks.0.mlp.hook_post (zero)": chance,
        "drop k = 2, 5, 13 at the logits": closed_form(KEYS, averaged=KEYS),
        "drop k = 2, 5, 13 at blocks.0.mlp.hook_post": closed_form(KEYS, averaged=KEYS),
    }
    for k in KEYS:
        others = tuple(j for j in KEYS if j != k)
        expected[f"neurons of k = {k} (zero)"] = closed_form(others)
        expected[f"drop k = {k} at the logits"] = closed_form(KEYS, averaged=(k,))
    for name, loss in expected.items():
        assert found[name].score.loss_all == pytest.approx(loss, rel=2e-4), name
    assert found.rows[0].whole.loss_all == pytest.approx(closed_form(KEYS), rel=2e-4)
    # Uniform attention is its own average, and without the skip nothing is missing.
    assert found["attention patterns 0 (mean)"].ratio == pytest.approx(1)
    alone = "keep only k = 2, 5, 13 at the logits"
    assert found[alone].score.loss_all == pytest.approx(restricted_loss(hand_built, KEYS), rel=1e-4)
    without = found["drop k = 2, 5, 13 at the logits"].score.loss_train
    assert without == pytest.approx(excluded_loss(hand_built, KEYS), rel=1e-4)
    dropped = [gi.ablate(hand_built, [hooks.fourier("hook_embed", hand_built.task, [k],
               terms="operands")]).rows[0].score.loss_all for k in KEYS]  # fmt: skip
    clusters = [found[f"neurons of k = {k} (zero)"].score.loss_all for k in KEYS]
    assert dropped == pytest.approx(clusters, rel=1e-4)  # ReLU(0) = 0


def test_each_effect_stands_against_its_placebos(hand_built):
    found = gi.ablate(hand_built, placebos=7)
    one = found["drop k = 2 at the logits"]
    others = {k for k in range(1, 16) if k not in KEYS}
    assert {placebo.name for placebo in one.placebos} == {
        f"drop k = {k} at the logits" for k in others
    }
    harmonic = {p.name for p in one.placebos if p.harmonic}
    assert harmonic == {f"drop k = {k} at the logits" for k in (4, 8, 10, 11)}
    assert len(one.placebo_ratios) == 8
    assert one.verdict == "above chance"
    assert found["MLP skip 0 (mean)"].verdict == "no placebo"
    frame = found.table().set_index("ablation")
    assert frame.loc["drop k = 2 at the logits", "placebo_rank"] == pytest.approx(1 / 9)
    assert frame.loc["drop k = 2 at the logits", "placebo_max"] == max(one.placebo_ratios)
    assert frame.loc["neurons of k = 2 (mean)", "n_placebos"] == 7
    assert set(found.placebos()["ablation"]) <= set(frame.index)
    # A frequency that does nothing is within its placebos; so is keeping one of them.
    task = hand_built.task
    logits = "unembed.hook_out"
    idle = gi.ablate(
        hand_built,
        [hooks.fourier(logits, task, [3]), hooks.fourier(logits, task, [3], keep=True)],
    )
    assert {row.verdict for row in idle} == {"not above chance"}
    assert all(placebo.name != row.name for row in idle for placebo in row.placebos)
    kept = gi.ablate(hand_built, [hooks.fourier(logits, task, KEYS, keep=True)], placebos=5)
    assert kept.rows[0].verdict == "above chance"
    again = gi.ablate(hand_built, placebos=7)
    assert again == found
    assert gi.ablate(hand_built, [hooks.neurons(0, [1])], placebos=0).rows[0].placebos == ()


@pytest.mark.slow
def test_the_shipped_run(shipped):
    found = gi.ablate(shipped, mode="zero", placebos=10)
    zeroed = found["MLP 0 (zero)"].score.loss_all
    keep, drop = (
        f"{verb} u_k, v_k at blocks.0.mlp.hook_post (zero)" for verb in ("keep only", "drop")
    )
    assert found[keep].ratio < 1.3
    assert found[drop].score.loss_all == pytest.approx(zeroed, rel=0.1)
    keys = gi.key_frequencies(shipped).frequencies
    for k in keys:
        row = found[f"drop k = {k} at the logits"]
        worst, others = max(row.placebo_ratios), sorted(row.placebo_ratios)
        assert len(others) == 46
        assert len(row.placebos) == 52
        assert row.ratio > 30
        assert row.ratio > 10 * worst
        assert worst < 1.3
        assert abs(others[len(others) // 2] - 1) < 0.01
        assert row.verdict == "above chance"


@pytest.mark.slow
def test_checkpoints_of_a_run(shipped):
    drop = hooks.fourier("unembed.hook_out", shipped.task, [55])
    found = gi.ablate(shipped, [drop], step=[800, 5200, 12000], placebos=0)
    frame = found.table()
    assert frame["step"].tolist() == [800, 5200, 12000]
    assert frame["ratio"].is_monotonic_increasing
    every = gi.ablate(shipped, [hooks.mlp(0)], step="all", placebos=0)
    assert tuple(row.step for row in every) == shipped.steps
    summary = ablation_ratios([found, every]).set_index("kind")
    assert summary.loc["MLP (mean)", "size"] == len(shipped.steps)
    assert summary.loc["drop one frequency at the logits", "max"] == frame["ratio"].max()


@pytest.mark.parametrize("variant", ["canonical", "deep layer norm", "bidirectional without equals",
                                     "constant attention"])  # fmt: skip
def test_any_plain_architecture(variant):
    architecture, weights, task = example(variant)
    found = gi.ablate(from_weights(weights, architecture, task), frequencies=[1, 2], placebos=3)
    names = set(found.table()["ablation"])
    for layer in range(architecture.n_layers):
        assert {f"head {layer}.0 (mean)", f"MLP {layer} (mean)"} <= names
    assert found.table()["loss_all"].notna().all()
    assert found.table()["loss_train"].isna().all()
    assert any("without a split" in note for note in found.notes)


def state(model):
    return (
        {name: weight.clone() for name, weight in model.state_dict().items()},
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad is None for parameter in model.parameters()],
        {name: (len(point.fwd_hooks), len(point._forward_hooks))
         for name, point in model.hook_dict.items()},
        model.training,
        torch.is_grad_enabled(),
    )  # fmt: skip


def same(one, other):
    weights, others = one[0], other[0]
    return (
        set(weights) == set(others)
        and all(torch.equal(weights[name], others[name]) for name in weights)
        and one[1:] == other[1:]
    )


@pytest.mark.parametrize("kind", ["plain", "of two layers", "with a hook of its own"])
def test_a_users_model_is_left_as_it_was(kind):
    architecture, weights, task = example("two layers" if kind == "of two layers" else "canonical")
    model = architecture.hooked(weights)
    next(iter(model.parameters())).requires_grad_(False)
    if kind == "with a hook of its own":
        model.add_perma_hook("blocks.0.mlp.hook_post", lambda post, hook: 2 * post)
    before, logits = state(model), model(task.tokens)
    mask = torch.arange(49) % 3 == 0
    found = gi.ablate(model, task=task, train_mask=mask, frequencies=[1], placebos=2)
    assert found.table()["loss_train"].notna().all()
    assert same(before, state(model))

    def broken(activation, hook):
        activation.mul_(0)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        gi.ablate(model, [[("blocks.0.hook_mlp_out", broken)]], task=task)
    with pytest.raises(gi.InputError):
        gi.ablate(model, [[("nowhere", broken)]], task=task)
    assert same(before, state(model))
    assert torch.equal(model(task.tokens), logits)


def test_hooks_of_ones_own_run_on_the_model_itself():
    architecture, weights, task = example("canonical")
    model = architecture.hooked(weights)
    seen = []

    def own(activation, hook):
        seen.append((tuple(activation.shape), hook.name))
        return 0 * activation

    found = gi.ablate(model, [[("blocks.0.hook_mlp_out", own)], hooks.mlp(0, mode="zero")],
                      task=task)  # fmt: skip
    assert seen == [((49, 3, 12), seen[0][1])]
    assert "mlp" in seen[0][1]
    custom, ours = found
    assert custom.score.loss_all == pytest.approx(ours.score.loss_all, rel=1e-9)
    assert custom.verdict == "no placebo"


def test_a_model_with_a_hook_is_ablated_with_it():
    architecture, weights, task = example("canonical")
    model = architecture.hooked(weights)
    model.add_perma_hook("blocks.0.mlp.hook_post", lambda post, hook: 0 * post)
    found = gi.ablate(model, [hooks.mlp(0, mode="zero")], task=task)
    without_bias = copy.deepcopy(weights)
    without_bias["blocks.0.mlp.W_out"] *= 0
    expected = from_weights(without_bias, architecture, task)
    whole = cross_entropies(expected.logits, task.labels).mean()
    assert found.rows[0].whole.loss_all == pytest.approx(float(whole), rel=1e-9)


def test_tasks_and_models_without_a_circuit_say_so(tiny_run):
    task = gi.ModularTask("x2xyy2", 7)
    architecture, weights, _ = example("canonical")
    found = gi.ablate(from_weights(weights, architecture, task))
    assert not found.frequencies
    assert any("not a function of one group exponent" in note for note in found.notes)
    assert not any("k =" in name for name in found.table()["ablation"])
    with pytest.raises(gi.InputError, match="frequency=99 is not a whole number from 1 to"):
        gi.ablate(tiny_run, frequencies=[99])
    with pytest.raises(gi.InputError, match="placebos=-1"):
        gi.ablate(tiny_run, placebos=-1)
    with pytest.raises(gi.InputError, match="nearest checkpoint"):
        gi.ablate(tiny_run, step=3)
    with pytest.raises(gi.InputError, match="no ablation is called 'head'"):
        found["head"]


@pytest.mark.slow
def test_the_command(run, tmp_path, shipped):
    code, out, _ = run("ablate", shipped.path, "--step", 5200, "--placebos", 0)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("step,ablation,kind,loss_train")
    assert lines[1].startswith("5200,head 0.0 (mean),")
    target = tmp_path / "a.csv"
    code, out, _ = run("ablate", shipped.path, "--placebos", 2, "--mode", "zero", "--out", target)
    assert code == 0
    assert target.read_text().startswith("step,ablation")
    assert "ablations" in out
    code, out, err = run("ablate", shipped.path, "--step", 7)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "nearest checkpoint" in err
    code, _, err = run("ablate", shipped.path, "--mode", "none")
    assert code == 2
    assert "mode='none' is not known" in err


def test_what_cannot_be_ablated_is_one_line(hand_built, shipped):
    task = hand_built.task
    hook = "blocks.0.mlp.hook_post"
    d_mlp, n = hand_built.mlp_post.shape[1], task.n_inputs
    for one, message in (
        (hooks.heads(0, 9), "head=9 is not a whole number from 0 to 0"),
        (hooks.neurons(0, [0, 9999]), "neuron=9999 is not a whole number from 0 to"),
        (hooks.directions(hook, torch.ones(3, 1)), f"has {d_mlp} entries, the directions 3"),
        (hooks.replaced_neurons(0, [1], torch.ones(n, 2), name="x"), r"of shape \(961, 2\)"),
        (hooks.replaced_patterns(0, torch.ones(n, 9, 3), name="x"), r"of shape \(961, 9, 3\)"),
    ):
        with pytest.raises(gi.InputError, match=message):
            gi.ablate(hand_built, [one], placebos=0)
    with pytest.raises(gi.InputError, match="distinct indices from 0 on"):
        hooks.heads(0, -1)
    with pytest.raises(gi.InputError, match="no interventions"):
        gi.ablate(hand_built, [])
    with pytest.raises(gi.InputError, match="has no step"):
        gi.ablate(shipped, step=[])
    with pytest.raises(gi.InputError, match="seed=-1"):
        gi.ablate(hand_built, seed=-1)
    with pytest.raises(gi.InputError, match="an intervention is a list of them"):
        hooks.intervention(("blocks.0.hook_mlp_out", lambda x, hook: x))
    with pytest.raises(gi.InputError, match="for models, this run has its own"):
        gi.ablate(shipped, train_mask=torch.ones(113**2, dtype=torch.bool))
    with pytest.raises(gi.InputError, match="needs a list of what `ablate` returns"):
        ablation_ratios([])


def test_dependent_directions_span_no_more_than_they_do(hand_built):
    hook = "blocks.0.mlp.hook_post"
    one = torch.randn(hand_built.mlp_post.shape[1], 1, dtype=torch.float64, generator=GENERATOR)
    rows = gi.ablate(
        hand_built, [hooks.directions(hook, x) for x in (one, torch.cat([one, 2 * one], dim=1))],
        placebos=0,
    ).rows  # fmt: skip
    assert rows[0].score.loss_all == pytest.approx(rows[1].score.loss_all, rel=1e-9)


def test_a_single_intervention_and_a_short_repr(shipped):
    both = hooks.mlp(0) + hooks.intervention([("blocks.0.hook_mlp_out", lambda x, hook: x)])
    found = gi.ablate(shipped, both, step=[5200], frequencies=[9], placebos=0)
    assert found.rows[0].step == 5200
    assert found.frequencies == (9,)
    assert found.rows[0].name == "MLP 0 (mean) + custom"
    assert len(repr(found)) < 200
    assert found.rows[0].no_placebo is not None


def test_whole_numbers_of_every_kind():
    assert [whole_number(x) for x in (np.int64(5), torch.tensor(5), 5)] == [5, 5, 5]
    assert all(whole_number(x) is None for x in (True, 5.0, "5", None, [5], np.float32(5)))


def test_a_loss_of_zero_and_one_that_is_not_finite(hand_built):
    weights = dict(hand_built.weights)
    weights["unembed.W_U"] = 1e6 * weights["unembed.W_U"]
    row = gi.ablate(
        from_weights(weights, hand_built.architecture, hand_built.task), hooks.mlp(0), placebos=2
    ).rows[0]
    assert row.whole.loss_all == 0
    assert row.ratio == math.inf
    weights["unembed.W_U"] = math.nan * weights["unembed.W_U"]
    diverged = from_weights(weights, hand_built.architecture, hand_built.task, step=7)
    with pytest.raises(gi.InputError, match="loss at step 7 is nan"):
        gi.ablate(diverged)


def test_what_a_model_does_not_have_is_noted(hand_built):
    weights = dict(hand_built.weights)
    weights["blocks.0.mlp.b_in"] = weights["blocks.0.mlp.b_in"] - 1e6  # no neuron fires
    dead = from_weights(weights, hand_built.architecture, hand_built.task)
    found = gi.ablate(dead, frequencies=KEYS, placebos=0)
    assert any("no directions u_k, v_k are ablated: the neurons are" in x for x in found.notes)
    assert found["leftover neurons (mean)"].no_placebo == "none were asked for"
    found = gi.ablate(dead, frequencies=KEYS, placebos=2)  # all neurons: there are no others
    assert found["leftover neurons (mean)"].no_placebo == "there is no other part of its size"


@pytest.mark.slow
def test_a_terminal_gets_the_main_columns_and_a_summary(run, shipped, tiny_run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = run("ablate", shipped.path, "--placebos", 0)
    assert (code, err) == (0, "")
    assert "drop k = 9 at the logits" in out
    assert "recovers 0.999999 of the loss" in out
    assert "parts it does not need: none" in out
    code, out, err = run("ablate", tiny_run.path, "--step", 0, "--placebos", 0)
    assert code == 0
    assert "MLP 0 (mean)" in out
    if not gi.key_frequencies(tiny_run).frequencies:
        assert "no circuit is claimed" in err


def test_every_checkpoint_of_a_run_at_a_path(tiny_run):
    found = gi.ablate(tiny_run.path, hooks.mlp(0), step="all", frequencies=[1], placebos=0)
    assert [row.step for row in found] == list(tiny_run.steps)
