"""Hook factories: on TransformerLens' own forward, on ours, and by their definitions."""

import inspect
import math

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits import hooks
from grokinterp.circuits.direction_hooks import harmonics, table_directions
from grokinterp.circuits.interventions import Intervention, Setting, reference, replay
from grokinterp.runs._snapshot import from_weights
from tests.functional import exactness
from tests.test_architectures import BLOCKS, VARIANTS, P, example

GENERATOR = torch.Generator().manual_seed(3)


def everything(architecture, task) -> list[Intervention]:
    """One of each factory, on the last layer and, where there is one, on an earlier one."""
    last = architecture.n_layers - 1
    n, d_mlp, heads = task.n_inputs, architecture.d_mlp, architecture.n_heads
    pattern = torch.rand(n, heads, task.tokens.shape[1], generator=GENERATOR).double()
    values = torch.rand(n, 3, generator=GENERATOR).double()
    basis = torch.randn(d_mlp, 4, generator=GENERATOR).double()
    found = []
    for layer in {0, last}:
        block = f"blocks.{layer}."
        for mode in ("zero", "mean", "resample"):
            found += [
                hooks.heads(layer, heads - 1, mode=mode),
                hooks.heads(layer, range(heads), mode=mode),
                hooks.attention(layer, mode=mode),
                hooks.attention_skip(layer, mode=mode),
                hooks.patterns(layer, mode=mode),
            ]
            found += [] if architecture.attn_only else [
                hooks.mlp(layer, mode=mode),
                hooks.mlp_skip(layer, mode=mode),
                hooks.neurons(layer, [0, 5], mode=mode),
                hooks.directions(f"{block}mlp.hook_post", basis, mode=mode),
                hooks.directions(f"{block}mlp.hook_post", basis, keep=True, mode=mode),
            ]  # fmt: skip
        names = ("hook_resid_pre", "hook_resid_post", "hook_resid_mid", "mlp.hook_post")
        for name in names[: 2 if architecture.attn_only else 4]:
            for keep in (True, False):
                found += [
                    hooks.fourier(f"{block}{name}", task, [1, 3], keep=keep, terms=terms)
                    for terms in ("answer", "operands")
                ]
        found += [hooks.replaced_patterns(layer, pattern, name="pattern")]
        if not architecture.attn_only:
            found += [hooks.replaced_neurons(layer, [1, 2, 7], values, name="values")]
    found += [
        hooks.embedding(task, [2]),
        hooks.fourier("hook_embed", task, [2], terms="operands"),
        hooks.fourier("unembed.hook_out", task, [2]),
        hooks.fourier("unembed.hook_out", task, [], keep=True),
    ]
    if not architecture.attn_only:
        many = hooks.heads(0, 0) + hooks.mlp_skip(last) + hooks.neurons(last, [3], mode="zero")
        found.append(many)
    return found


@pytest.mark.parametrize("variant", VARIANTS | BLOCKS)
def test_the_kept_activations_give_what_run_with_hooks_gives(variant):
    architecture, weights, task = example(variant)
    snapshot = from_weights(weights, architecture, task)
    model = architecture.hooked(weights)
    whole = model(task.tokens)[:, -1]
    within = exactness(architecture)
    assert torch.allclose(replay(snapshot, ()), whole[:, :P], rtol=within, atol=within)
    changed = 0
    for one in everything(architecture, task):
        expected = model.run_with_hooks(task.tokens, fwd_hooks=one)[:, -1]
        found = replay(snapshot, one)
        assert torch.allclose(found, expected[:, :P], rtol=within, atol=within), one.name
        changed += not torch.allclose(expected, whole, rtol=1e-9, atol=1e-9)
    assert changed > (15 if architecture.attn_only else 25)  # the hooks do something
    assert torch.equal(model(task.tokens)[:, -1], whole)  # and leave nothing behind


def test_what_stands_in():
    x = torch.arange(12.0).view(4, 3)
    assert torch.equal(reference(x, "zero"), torch.zeros(4, 3))
    assert torch.equal(reference(x, "mean"), torch.tensor([[4.5, 5.5, 6.5]]).expand(4, 3))
    drawn = reference(x, "resample", seed=1)
    assert not torch.equal(drawn, x)
    assert torch.equal(drawn.sort(dim=0).values, x)


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply"])
@pytest.mark.parametrize("p", [7, 8])
@pytest.mark.parametrize("terms", ["answer", "operands"])
def test_directions_are_the_functions_they_are_called(operation, p, terms):
    if operation == "multiply" and p == 8:
        pytest.skip("has no discrete logarithm")
    task = gi.ModularTask(operation, p)
    group = task.answer_group
    every = tuple(range(1, group.order // 2 + 1))
    basis, defined = table_directions(task, every, terms)
    gram = basis.T @ basis
    torch.testing.assert_close(gram, torch.eye(len(gram), dtype=torch.float64))
    assert bool((basis[~defined] == 0).all())
    for k in every:
        own, _ = table_directions(task, (k,), terms)
        angle = 2 * math.pi * k * group.of_input.double() / group.order
        a, b = (2 * math.pi * k * group.of_token[x].double() / group.order for x in task.operands.T)
        waves = (
            [angle.cos(), angle.sin()]
            if terms == "answer"
            else [a.cos(), a.sin(), b.cos(), b.sin(), (a - b).cos(), (a + b).sin()]
        )
        for wave in waves:
            wave = torch.where(defined, wave, 0.0)
            torch.testing.assert_close(own @ (own.T @ wave), wave, rtol=0, atol=1e-12)
    # What is no function of f(a, b) has no part along the answer's directions.
    if terms == "answer":
        assert basis.shape[1] == group.order - 1


def test_drop_and_keep_are_complementary():
    task = gi.ModularTask("multiply", 7)
    x = torch.randn(49, 1, 5, generator=GENERATOR).double()
    (_, drop), (_, keep) = (
        hooks.fourier("blocks.0.mlp.hook_post", task, [2, 3], keep=kept)[0]
        for kept in (False, True)
    )
    defined = task.answer_group.of_input >= 0
    mean = x[defined].mean(dim=0)
    total = drop(x, None) + keep(x, None) - mean
    torch.testing.assert_close(total[defined], x[defined])
    for changed in (drop(x, None), keep(x, None)):  # no exponent, no component
        assert torch.equal(changed[~defined], x[~defined])


def test_a_head_is_its_part_of_z():
    architecture, weights, task = example("canonical")
    without = {name: w.clone() for name, w in weights.items()}
    without["blocks.0.attn.W_O"][1] = 0
    expected = from_weights(without, architecture, task).logits
    found = replay(from_weights(weights, architecture, task), hooks.heads(0, 1, mode="zero"))
    torch.testing.assert_close(found, expected)


def test_placebos_are_others_of_the_same_size():
    architecture, weights, task = example("canonical")
    snapshot = from_weights(weights, architecture, task)
    setting = Setting(snapshot, (1,), n=4, seed=0)
    drawn = hooks.fourier("unembed.hook_out", task, [1]).draw(setting)
    assert [one.name for one in drawn] == [f"drop k = {k} at the logits" for k in (2, 3)]
    assert [one.harmonic for one in drawn] == [True, True]  # 2 and 4 = 3 mod 7
    pool = hooks.neurons(0, [0, 5]).draw(setting)
    assert len(pool) == 4
    post = torch.randn(49, 1, 20, generator=GENERATOR).double()
    for one in pool:
        (_, edit) = one[0]
        touched = (edit(post, None) != post).any(dim=0).flatten()
        assert int(touched.sum()) == 2
        assert not touched[[0, 5]].any()
    again = hooks.neurons(0, [0, 5]).draw(setting)
    assert all(torch.equal(x[0][1](post), y[0][1](post)) for x, y in zip(pool, again, strict=True))
    assert len(hooks.heads(0, 1).draw(setting)) == 4
    assert hooks.heads(0, [0, 1]).draw(setting) == []  # the whole space is no placebo
    both = (hooks.mlp_skip(0) + hooks.neurons(0, [0])).draw(setting)
    assert len(both) == 4
    assert all(len(one) == 3 for one in both)
    assert (hooks.mlp_skip(0) + hooks.mlp(0)).draw is None


def test_harmonics_are_folded():
    assert harmonics([9, 18, 53, 55], 113) == {36, 7, 14, 41, 3, 6}
    assert harmonics([2], 8) == {4}


def test_bad_input_is_one_line():
    task = gi.ModularTask("add", 7)
    with pytest.raises(gi.InputError, match="mode='maen' is not known; did you mean 'mean'"):
        hooks.mlp(0, mode="maen")
    with pytest.raises(gi.InputError, match="frequency=4 is not a whole number from 1 to 3"):
        hooks.fourier("unembed.hook_out", task, [4])
    with pytest.raises(gi.InputError, match="not a function of one group exponent"):
        hooks.fourier("unembed.hook_out", gi.ModularTask("x2xyy2", 7), [1])
    with pytest.raises(gi.InputError, match="distinct indices"):
        hooks.neurons(0, [1, 1])
    with pytest.raises(gi.InputError, match="expected all 49 of the table"):
        hooks.fourier("unembed.hook_out", task, [1])[0][1](torch.zeros(5, 7), None)
    architecture, weights, _ = example("canonical")
    snapshot = from_weights(weights, architecture, task)
    with pytest.raises(gi.InputError, match=r"no hook point 'blocks.7.hook_mlp_out'"):
        replay(snapshot, hooks.mlp(7))
    with pytest.raises(gi.InputError, match=r"is not a .hook_name, function. pair"):
        hooks.intervention(["blocks.0.hook_mlp_out"])


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_directions_by_their_definition(mode):
    x = torch.randn(9, 1, 5, generator=GENERATOR).double()
    basis = torch.randn(5, 2, generator=GENERATOR).double()
    along = x @ basis @ torch.linalg.pinv(basis)
    for kept, removed, keep in ((along, x - along, True), (x - along, along, False)):
        (_, edit) = hooks.directions("blocks.0.mlp.hook_post", basis, keep=keep, mode=mode)[0]
        stands_in = {
            "zero": torch.zeros_like(x),
            "mean": removed.mean(dim=0, keepdim=True),
            "resample": reference(removed, "resample"),
        }
        torch.testing.assert_close(edit(x, None), kept + stands_in[mode])


def test_placebos_of_patterns_permute_rows():
    architecture, weights, task = example("canonical")
    snapshot = from_weights(weights, architecture, task)
    values = torch.rand(49, 2, 3, generator=GENERATOR).double()
    own = torch.zeros(49, 2, 1, 3, dtype=torch.float64)
    drawn = hooks.replaced_patterns(0, values, name="fit").draw(Setting(snapshot, (1,), 3, 0))
    seen = [edit(own, None)[:, :, -1] for ((_, edit),) in drawn]
    assert len({str(x) for x in seen}) == len(seen) == 3
    for x in seen:
        assert not torch.equal(x, values)
        assert torch.equal(x.flatten().sort().values, values.flatten().sort().values)


def test_a_skip_keeps_no_activation_once_it_has_run():
    architecture, weights, task = example("canonical")
    skip = hooks.mlp_skip(0)
    replay(from_weights(weights, architecture, task), skip)
    (_, put), _ = skip
    assert not vars(inspect.getclosurevars(inspect.unwrap(put.change)).nonlocals["kept"])
