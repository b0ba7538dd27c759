"""Attribution: closed forms of clock weights, explicit sums over TransformerLens' own cache."""

import copy
import math
import warnings
from importlib.metadata import version

import pytest
import torch
import transformer_lens

import grokinterp as gi
from grokinterp.circuits._attribution import attribution
from grokinterp.circuits.neurons import neuron_clusters
from grokinterp.runs._snapshot import Snapshot, from_weights
from grokinterp.runs.forwards import forward_of
from grokinterp.tasks import ModularTask
from tests import clock, dense
from tests.test_architectures import VARIANTS, P, example


def wanted(task, logits, against):
    """m of every input, by a loop."""
    rows = []
    for label, row in zip(task.labels.tolist(), logits.tolist(), strict=True):
        wrong = [c for c in range(task.p) if c != label]
        m = [0.0] * task.p
        for c in wrong if against == "mean" else [max(wrong, key=row.__getitem__)]:
            m[c] = -1 / (task.p - 1) if against == "mean" else -1.0
        m[label] = 1.0
        rows.append(m)
    return torch.tensor(rows, dtype=torch.float64)


def dense_parts(architecture, weights, task, clusters):
    """Every part's logits on every input, from a hooked float64 forward; LayerNorm frozen."""
    model = architecture.hooked(weights)
    with torch.no_grad():
        logits, cache = model.run_with_cache(task.tokens)
    n, p, layers = task.n_inputs, task.p, architecture.n_layers
    W_U = weights["unembed.W_U"][:, :p]

    def final(vector):
        vector = vector.expand(n, -1)
        if architecture.normalization_type == "LN":
            scale = cache["ln_final.hook_scale"][:, -1]
            vector = (vector - vector.mean(1, keepdim=True)) / scale * weights["ln_final.w"]
        return vector @ W_U

    last = task.tokens.shape[1] - 1
    parts = {
        "embedding": final(weights["embed.W_E"][task.tokens[:, -1]]),
        "position": final(weights["pos_embed.W_pos"][last]),
    }
    for layer in range(layers):
        w = {x: weights[f"blocks.{layer}.{x}"] for x in
             ("attn.W_O", "attn.b_O", "mlp.W_out", "mlp.b_out")}  # fmt: skip
        prefix = f"layer {layer} " if layers > 1 else ""
        z = cache[f"blocks.{layer}.attn.hook_z"][:, -1]
        for head in range(architecture.n_heads):
            parts[f"{prefix}head {head}"] = final(z[:, head] @ w["attn.W_O"][head])
        parts[f"{prefix}attention bias"] = final(w["attn.b_O"])
        post = cache[f"blocks.{layer}.mlp.hook_post"][:, -1]
        if clusters and layer == layers - 1:
            free = set(range(post.shape[1]))
            for label, neurons in sorted(clusters.items()):
                if label != -1:
                    part = post[:, neurons] @ w["mlp.W_out"][neurons]
                    parts[f"{prefix}MLP cluster {label}"] = final(part)
                    free -= set(neurons.tolist())
            rest = sorted(free)
            parts[f"{prefix}MLP, no cluster"] = final(post[:, rest] @ w["mlp.W_out"][rest])
        else:
            parts[f"{prefix}MLP"] = final(post @ w["mlp.W_out"])
        parts[f"{prefix}MLP bias"] = final(w["mlp.b_out"])
    if architecture.normalization_type == "LN":
        parts["LayerNorm bias"] = (weights["ln_final.b"] @ W_U).expand(n, -1)
    parts["unembedding bias"] = weights["unembed.b_U"][:p].expand(n, -1)
    return logits[:, -1, :p], parts


CLUSTERS = {3: torch.tensor([0, 7, 2]), 1: torch.tensor([5]), -1: torch.tensor([1])}


@pytest.mark.parametrize("against", ["mean", "best"])
@pytest.mark.parametrize("clusters", [{}, CLUSTERS], ids=["whole", "clusters"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_are_those_of_the_definition(variant, clusters, against):
    architecture, weights, task = example(variant)
    logits, parts = dense_parts(architecture, weights, task, clusters)
    m = wanted(task, logits, against)
    found = attribution(
        from_weights(weights, architecture, task),
        against=against, clusters=clusters, frequencies=[3, 1],
    )  # fmt: skip
    assert found.parts == tuple(parts)
    for i, part in enumerate(parts.values()):
        assert torch.allclose(found.per_input[:, i], (part * m).sum(1), atol=1e-9)
    assert torch.allclose(found.margin, (logits * m).sum(1), atol=1e-9)
    assert torch.allclose(found.per_input.sum(1), found.margin, atol=1e-9)
    assert abs(found.unexplained) < found.most_unexplained < 1e-10
    table = found.table()
    assert table["margin"].sum() == pytest.approx(found.total)
    assert table["share"].sum() == pytest.approx(1)
    assert table["spread"].tolist() == pytest.approx(found.per_input.std(0, correction=0).tolist())

    frame = found.by_frequency()
    assert list(frame.columns) == [1, 3, "other", "constant", "rest", "margin"]
    exponent = task.operands.sum(1)
    bases = {k: dense.directions(P, (k,), exponent) for k in (1, 2, 3)}
    for name, part in parts.items():
        share = {k: (dense.projected(part, b) * m).sum(1).mean() for k, b in bases.items()}
        constant = (part.mean(0) * m).sum(1).mean()
        whole = (part * m).sum(1).mean()
        rest = whole - constant - sum(share.values())
        expected = [share[1], share[3], share[2], constant, rest, whole]
        assert frame.loc[name].tolist() == pytest.approx([float(x) for x in expected], abs=1e-9)
    assert frame.loc["all parts"].tolist() == pytest.approx(frame.iloc[:-1].sum().tolist())
    assert frame.loc["all parts", "margin"] == pytest.approx(found.total)


@pytest.mark.parametrize(
    ("operation", "p"), [("subtract", 7), ("multiply", 7), ("add", 6), ("add", 2)]
)
def test_frequencies_are_those_of_the_tasks_group(operation, p):
    """Subtraction, logarithms (a zero factor belongs to the rest), an even p, the smallest p."""
    architecture, weights, _ = example("canonical")
    task = ModularTask(operation, p)
    architecture = type(architecture)(**{**vars(architecture), "d_vocab": p + 1, "d_vocab_out": p})
    weights["embed.W_E"] = weights["embed.W_E"][-p - 1 :]
    weights["unembed.W_U"] = weights["unembed.W_U"][:, :p]
    weights["unembed.b_U"] = weights["unembed.b_U"][:p]
    group = task.answer_group
    snapshot = from_weights(weights, architecture, task)
    found = attribution(snapshot, frequencies=[1], against="best", clusters={})
    logits, parts = dense_parts(architecture, weights, task, None)
    m = wanted(task, logits, "best")
    defined = group.of_input >= 0
    frame = found.by_frequency()
    for name, part in parts.items():
        for k, column in ((1, 1), *(((2, None),) if group.order > 4 else ())):
            basis = dense.directions(group.order, (k,), group.of_input[defined])
            own = (dense.projected(part[defined], basis) * m[defined]).sum() / task.n_inputs
            i = found.parts.index(name)
            assert float(found.spectrum[i, k]) == pytest.approx(float(own), abs=1e-9)
            if column is not None:
                assert frame.loc[name, column] == pytest.approx(float(own), abs=1e-9)
        constant = (part[defined].mean(0) * m[defined]).sum() / task.n_inputs
        assert frame.loc[name, "constant"] == pytest.approx(float(constant), abs=1e-9)
        assert frame.loc[name].iloc[:-1].sum() == pytest.approx(frame.loc[name, "margin"])
    assert found.spectrum.shape[1] == group.order // 2 + 1


def test_clock_weights_have_their_closed_form():
    """All of it from the clusters, equally; the head acts through the MLP alone.

    The wave amplitude * mean |cos| * cos(w_k(f - c)) gives amplitude * mean |cos| * p / (p - 1).
    """
    p, keys, amplitude = 31, (2, 5, 13), 10.0
    snapshot = from_weights(
        clock.clock_weights(p, keys, amplitude),
        clock.clock_architecture(p, 3),
        ModularTask("add", p),
    )
    clusters = {
        k: torch.arange(i * clock.PHASES, (i + 1) * clock.PHASES) for i, k in enumerate(keys)
    }
    found = attribution(snapshot, clusters=clusters)
    each = amplitude * clock.mean_envelope(p) * p / (p - 1)
    assert found.frequencies == keys
    assert found.total == pytest.approx(3 * each, rel=1e-3)
    frame = found.by_frequency()
    for k in keys:
        own = frame.loc[f"MLP cluster {k}"]
        assert own[k] == pytest.approx(each, rel=1e-3)
        assert own[[other for other in keys if other != k]].tolist() == pytest.approx(
            [0, 0], abs=1e-3 * each
        )
        assert frame.loc["all parts", k] == pytest.approx(each, rel=1e-3)
    silent = [name for name in found.parts if "cluster " not in name]
    assert "head 0" in silent
    assert frame.loc[silent].abs().to_numpy().max() == 0
    assert frame.loc["all parts", ["other", "constant", "rest"]].abs().max() < 1e-3 * each


def test_the_shipped_run_adds_up_both_ways(shipped):
    clusters = {9: torch.arange(0, 100), 18: torch.arange(300, 320)}
    for against in ("mean", "best"):
        found = attribution(shipped, against=against, clusters=clusters)
        assert found.step == 12000
        frame = found.by_frequency()
        assert (frame.drop(columns="margin").sum(axis=1) - frame["margin"]).abs().max() < 1e-9
        assert (frame.iloc[:-1].sum() - frame.loc["all parts"]).abs().max() < 1e-9
        logits = shipped.snapshot().logits.double()
        own = (logits * wanted(shipped.task, logits, against)).sum(1)
        assert found.total == pytest.approx(float(own.mean()), abs=1e-4)  # float32 against float64
        assert found.per_input.sum(1).mean() == pytest.approx(found.total, abs=1e-9)
    assert attribution(shipped, step=100).step == 100


def test_a_users_model_is_explained_and_left_alone():
    """A blended model is beyond `Architecture`: its own activations are used, and still add up."""
    architecture, weights, task = example("blended attention")
    model = architecture.hooked(weights)
    before = copy.deepcopy(dict(model.state_dict()))
    hooks = {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    found = attribution(model, task=task, frequencies=[1])
    assert "own activations" in found.note
    expected = attribution(from_weights(weights, architecture, task), frequencies=[1])
    assert expected.note == ""
    assert torch.allclose(found.per_input, expected.per_input)
    assert abs(found.unexplained) < 1e-9
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()} == hooks
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_is_not_what_its_weights_say_is_taken_with_its_own_activations():
    architecture, weights, task = example("canonical")
    doubled = weights | {"blocks.0.attn.W_Q": 2 * weights["blocks.0.attn.W_Q"]}
    snapshot = Snapshot(
        task, weights=weights, n_layers=1, forward=forward_of(doubled, architecture),
        hooked=lambda: architecture.hooked(doubled),
    )  # fmt: skip
    found = attribution(snapshot, frequencies=[1])
    expected = attribution(from_weights(doubled, architecture, task), frequencies=[1])
    assert "own activations" in found.note
    assert torch.allclose(found.per_input, expected.per_input)
    assert torch.allclose(found.margin, expected.margin)


def test_the_mlp_is_split_by_its_own_clusters(shipped):
    found = attribution(shipped)
    clusters = neuron_clusters(shipped)
    given = {k: clusters.members(k) for k in clusters.frequencies}
    assert {f"MLP cluster {k}" for k in given} < set(found.parts)
    assert found.parts == attribution(shipped, clusters=given).parts
    assert "MLP" in attribution(shipped, clusters={}).parts


def test_what_else_writes_to_the_logits_is_left_unexplained():
    architecture, weights, task = example("two layers")
    model = architecture.hooked(weights)
    extra = torch.linspace(-1, 1, 12, dtype=torch.float64)
    model.add_perma_hook("blocks.1.hook_resid_post", lambda resid, hook: resid + extra)
    with torch.no_grad():
        logits = model(task.tokens)[:, -1]
    for against in ("mean", "best"):
        found = attribution(model, task=task, frequencies=[1], against=against)
        expected = wanted(task, logits, against) @ (extra @ weights["unembed.W_U"])
        assert found.unexplained == pytest.approx(float(expected.mean()), abs=1e-12)
        assert found.most_unexplained == pytest.approx(float(expected.abs().max()))
        assert found.most_unexplained > 0.1
    assert abs(found.unexplained) > 1e-3


def test_a_final_layer_norm_is_frozen_and_says_so():
    architecture, weights, task = example("layer norm")
    model = architecture.hooked(weights)
    assert "frozen" in attribution(model, task=task).note
    model.add_perma_hook("blocks.0.hook_resid_post", lambda resid, hook: resid * 2)
    with pytest.raises(gi.InputError, match="not linear in the residual stream"):
        attribution(model, task=task)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"against": "bets"}, "did you mean 'best'"),
        ({"clusters": {1: torch.tensor([20])}}, "cluster 1 has a neuron outside 0 to 19"),
        ({"clusters": {1: torch.tensor([-1])}}, "cluster 1 has a neuron outside 0 to 19"),
        ({"clusters": {1: torch.tensor([2, 2])}}, "cluster 1 has a neuron twice"),
        ({"clusters": {1: torch.tensor([2]), 2: torch.tensor([3, 2])}}, "cluster 2 has a neuron"),
        ({"frequencies": [4]}, "frequency=4 is not a whole number from 1 to 3"),
    ],
)
def test_refusals(arguments, message):
    architecture, weights, task = example("canonical")
    with pytest.raises(gi.InputError, match=message):
        attribution(from_weights(weights, architecture, task), **arguments)


def test_what_is_undefined_says_so():
    architecture, weights, _ = example("canonical")
    found = attribution(from_weights(weights, architecture, ModularTask("random", P)))
    assert found.spectrum is None
    assert found.table()["margin"].sum() == pytest.approx(found.total)
    with pytest.raises(gi.InputError, match="random"):
        found.by_frequency()
    task = ModularTask("add", P)
    silent = weights | {x: torch.zeros_like(weights[x]) for x in ("unembed.W_U", "unembed.b_U")}
    found = attribution(from_weights(silent, architecture, task), frequencies=[1])
    assert found.total == 0
    assert found.table()["share"].isna().all()
    broken = weights | {"unembed.b_U": weights["unembed.b_U"] * math.nan}
    with pytest.raises(gi.InputError, match="not finite"):
        attribution(from_weights(broken, architecture, task), frequencies=[1])
    empty = attribution(
        from_weights(weights, architecture, task), clusters={2: torch.tensor([], dtype=torch.int64)}
    )
    i = empty.parts.index("MLP cluster 2")
    assert (empty.per_input[:, i] == 0).all()


def test_a_model_without_mlps():
    if int(version("transformer-lens").partition(".")[0]) >= 4:
        pytest.skip("TransformerLens 4 has no HookedTransformer")
    cfg = transformer_lens.HookedTransformerConfig(
        n_layers=1, n_heads=2, d_model=12, d_head=6, attn_only=True, d_vocab=P + 1, d_vocab_out=P,
        n_ctx=3, normalization_type=None, seed=0,
    )  # fmt: skip
    task = ModularTask("add", P)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = transformer_lens.HookedTransformer(cfg)
    found = attribution(model, task=task)
    assert not [name for name in found.parts if "MLP" in name]
    assert abs(found.unexplained) < 1e-6
    assert float(found.margin.std()) > 1e-3
    with pytest.raises(gi.InputError, match="no MLP"):
        attribution(model, task=task, clusters={1: torch.tensor([0])})
