import dataclasses
import math

import pytest
import torch

import grokinterp as gi
from grokinterp.base.errors import InputError
from grokinterp.geometry import fisher
from grokinterp.geometry.fisher import VARIANTS, diagonal, fisher_diagonal, logits_of
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.runs._snapshot import Snapshot, from_weights
from grokinterp.tasks import IsingTask, ModularTask
from tests.test_mlp import activation
from tests.test_neurons import random_model


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(logits_fn, weights, inputs, variant):
    """One input and one class at a time, by autograd, from the definition."""
    weights = {name: w.clone().requires_grad_() for name, w in weights.items()}
    total = {name: torch.zeros_like(w) for name, w in weights.items()}
    for i in range(len(inputs)):
        logits = logits_fn(weights, inputs[i : i + 1])[0]
        for c in range(len(logits)):
            log_p = logits.log_softmax(0)[c]
            value = logits[c] if variant == "logits" else log_p
            factor = 1.0 if variant == "logits" else log_p.exp().detach()
            found = torch.autograd.grad(
                value, list(weights.values()), retain_graph=True, allow_unused=True
            )
            for name, g in zip(weights, found, strict=True):
                if g is not None:
                    total[name] += factor * g.square() / len(inputs)
    return {name: value.detach() for name, value in total.items()}


def two_layer(weights, x):
    hidden = torch.relu(x @ weights["W_in"] + weights["b_in"])
    return hidden @ weights["W_U"] + weights["b_U"]


def linear(weights, x):
    return x @ weights["W"] + weights["b"]


@pytest.fixture(scope="module")
def small():
    weights = {
        "W_in": draw(4, 6, seed=1), "b_in": draw(6, seed=2), "W_U": draw(6, 3, seed=3),
        "b_U": draw(3, seed=4), "unused": draw(2, seed=5),
    }  # fmt: skip
    return weights, draw(7, 4, seed=6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("block", [None, 1, 3])
def test_an_mlp_equals_the_brute_force(small, variant, block, monkeypatch):
    weights, inputs = small
    if block:
        of_one = 3 * sum(w.numel() * w.element_size() for w in weights.values())
        monkeypatch.setattr(fisher, "JACOBIAN_BYTES", block * of_one)
    expected = brute_force(two_layer, weights, inputs, variant)
    found = diagonal(two_layer, weights, inputs, variant=variant)
    assert list(found) == list(weights)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)
    assert found["unused"].tolist() == [0, 0]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("equals_token", "operation", "sizes"),
    [
        (True, "add", {}), (False, "subtract", {}), (True, "multiply", {"attention_rate": 0.3}),
        (True, "add", {"n_layers": 2}), (False, "add", {"normalization_type": "LN"}),
        (True, "add", {"attn_only": True}),
    ],
)  # fmt: skip
def test_a_transformer_equals_the_brute_force(variant, equals_token, operation, sizes):
    """Through the forward over the whole vocabulary, which the fast one cuts down to an input."""
    weights, architecture, _ = random_model(**{"n_layers": 1, "p": 5, **sizes})
    task = ModularTask(operation, 5, equals_token)
    train = torch.arange(25) % 3 > 0
    snapshot = from_weights(weights, architecture, task, train_mask=train)

    def logits_fn(weights, tokens):
        return architecture.forward(weights, tokens)[:, : task.n_classes]

    found = fisher_diagonal(snapshot, variant=variant)
    expected = brute_force(logits_fn, weights, task.tokens[~train], variant)
    scale = max(float(value.max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found.values[name], value, rtol=1e-10, atol=1e-15 * scale)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rows", ["train", "test", "all"])
@pytest.mark.parametrize(
    ("widths", "d_embed", "act_fn", "combine"),
    [
        ((9,), 0, "relu", "concat"), ((8, 6), 0, "gelu", "concat"), ((9, 7), 3, "relu", "concat"),
        ((9,), 0, "quadratic", "sum"), ((8,), 3, "relu", "sum"),
    ],
)  # fmt: skip
def test_a_run_of_an_mlp_equals_the_brute_force(
    variant, rows, widths, d_embed, act_fn, combine, monkeypatch
):
    """Two-hot and embedded inputs, pairs (a, a) among them, in more than one block of rows."""
    monkeypatch.setattr(fisher, "INPUTS_AT_ONCE", 7)
    p, train = 5, torch.arange(25) % 3 > 0
    shape = MLPArchitecture(
        p=p, widths=widths, n_classes=p, d_embed=d_embed, act_fn=act_fn, combine=combine
    )
    drawn = shape.initial(seed=0, rule="torch", scale=2.0)
    weights = {name: w.double() for name, w in drawn.items()}
    task = ModularTask("add", p, equals_token=False)
    chosen = {"train": train, "test": ~train, "all": train | True}[rows]

    def logits_fn(weights, tokens):
        x = weights["embed.W_E"][tokens] if d_embed else None
        x = torch.nn.functional.one_hot(tokens, p).double() if x is None else x
        x = x.sum(1) if combine == "sum" else x.flatten(1)
        for layer in range(len(widths)):
            block = f"blocks.{layer}.mlp"
            x = activation(act_fn)(x @ weights[f"{block}.W_in"] + weights[f"{block}.b_in"])
        return x @ weights["unembed.W_U"] + weights["unembed.b_U"]

    snapshot = from_weights(weights, shape, task, train_mask=train)
    with torch.no_grad():
        found = fisher_diagonal(snapshot, variant=variant, rows=rows)
    generic = diagonal(logits_of(snapshot), weights, task.tokens[chosen], variant=variant)
    expected = brute_force(logits_fn, weights, task.tokens[chosen], variant)
    assert list(found.values) == list(weights)
    for name, value in expected.items():
        torch.testing.assert_close(found.values[name], value, rtol=1e-10, atol=1e-15)
        torch.testing.assert_close(generic[name], value, rtol=1e-10, atol=1e-15)
        assert not weights[name].requires_grad


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_of_a_cnn_equals_the_brute_force(variant):
    task = IsingTask(lattice=8, n_train=3, n_test=4, sweeps=2)
    shape = CNNArchitecture(lattice=8, channels=(2, 3), d_mlp=5)
    drawn = shape.initial(seed=1, rule="torch", scale=2.0)
    weights = {name: w.double() for name, w in drawn.items()}
    train = torch.zeros(7, dtype=torch.bool).index_fill(0, task.train_indices, True)

    def logits_fn(weights, x):
        for layer in range(2):
            conv = torch.nn.functional.conv2d(
                x, weights[f"conv.{layer}.W"], weights[f"conv.{layer}.b"], padding=1
            )
            x = torch.nn.functional.max_pool2d(conv.relu(), 2)
        hidden = x.flatten(1) @ weights["blocks.0.mlp.W_in"] + weights["blocks.0.mlp.b_in"]
        return hidden.relu() @ weights["unembed.W_U"] + weights["unembed.b_U"]

    snapshot = from_weights(weights, shape, task, train_mask=train)
    for rows, chosen in (("train", train), ("test", ~train)):
        found = fisher_diagonal(snapshot, variant=variant, rows=rows).values
        inputs = task.model_inputs[chosen].double()
        for name, value in brute_force(logits_fn, weights, inputs, variant).items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-15)


def test_an_mlp_of_the_papers_size_does_not_form_its_jacobian(monkeypatch):
    """Per input and class only activations are held: nothing goes through the generic diagonal."""
    monkeypatch.setattr(fisher, "diagonal", None)
    recipe = gi.Recipe(model="mlp")
    weights = recipe.architecture().initial(seed=0, rule="xavier")
    task = recipe.build_task()
    snapshot = from_weights(weights, recipe.architecture(), task)
    found = fisher_diagonal(snapshot, rows="all", n_samples=4, variant="logits")
    assert sum(value.numel() for value in found.values.values()) == 174_193
    assert found.values["unembed.b_U"].tolist() == [1] * 113


def test_a_linear_softmax_model_has_its_closed_forms():
    """W: E p_c (1 - p_c) x_i^2, which is also the Hessian's diagonal of the expected loss."""
    weights, x = {"W": draw(4, 3), "b": draw(3, seed=1)}, draw(6, 4, seed=2)
    p = linear(weights, x).softmax(1)
    found = diagonal(linear, weights, x, variant="softmax")
    torch.testing.assert_close(found["W"], (x.square().T @ (p * (1 - p))) / 6)
    torch.testing.assert_close(found["b"], (p * (1 - p)).mean(0))

    def expected_loss(w):
        return -(p * linear({"W": w, "b": weights["b"]}, x).log_softmax(1)).sum(1).mean()

    hessian = torch.autograd.functional.hessian(expected_loss, weights["W"]).view(12, 12)
    torch.testing.assert_close(found["W"].flatten(), hessian.diagonal())

    raw = diagonal(linear, weights, x, variant="logits")
    torch.testing.assert_close(raw["W"], x.square().mean(0)[:, None].expand(4, 3))
    assert raw["b"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_trace_is_that_of_the_jacobian(small, variant):
    """tr(J^T A J) with A the unit matrix, or diag(p) - p p^T."""
    weights, inputs = small
    weights = {name: w for name, w in weights.items() if name != "unused"}
    expected = 0.0
    for row in inputs:
        jacobian = torch.func.jacrev(lambda w, row=row: two_layer(w, row[None])[0])(weights)
        flat = torch.cat([part.flatten(1) for part in jacobian.values()], dim=1)
        p = two_layer(weights, row[None])[0].softmax(0)
        middle = torch.eye(3).double() if variant == "logits" else p.diag() - torch.outer(p, p)
        expected += float((flat.T @ middle @ flat).trace()) / len(inputs)
    found = sum(
        float(v.sum()) for v in diagonal(two_layer, weights, inputs, variant=variant).values()
    )
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_certain_model_keeps_its_tiny_information():
    """Float32, wrong classes at e^-40: p (1 - p) must not become 0 or noise."""
    weights = {"W": torch.zeros(1, 3), "b": torch.tensor([40.0, 0.0, 1.0])}
    found = diagonal(linear, weights, torch.ones(1, 1), variant="softmax")["b"]
    wrong = math.exp(-40) + math.exp(-39)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([wrong, math.exp(-40), math.exp(-39)], rel=1e-6)


def test_the_order_of_the_inputs_does_not_matter(small):
    weights, inputs = small
    one, other = (diagonal(two_layer, weights, x) for x in (inputs, inputs.flip(0)))
    for name in weights:
        torch.testing.assert_close(one[name], other[name], rtol=1e-13, atol=0)


def test_nothing_given_is_changed(small):
    weights, inputs = small
    before = {name: w.clone() for name, w in weights.items()}
    trainable = {name: w.clone().requires_grad_() for name, w in weights.items()}
    found = diagonal(two_layer, trainable, inputs)
    assert not any(value.requires_grad for value in found.values())
    assert all(w.requires_grad and w.grad is None for w in trainable.values())
    assert all(torch.equal(w, before[name]) for name, w in trainable.items())


def test_convolutions_and_pooling_equal_the_brute_force():
    def logits_fn(weights, x):
        x = torch.nn.functional.conv2d(x, weights["conv.W"], weights["conv.b"], padding=1)
        return torch.nn.functional.max_pool2d(x.relu(), 2).flatten(1) @ weights["W_U"]

    weights = {"conv.W": draw(2, 1, 3, 3), "conv.b": draw(2), "W_U": draw(8, 2)}
    inputs = draw(5, 1, 4, 4, seed=3).sign()
    for variant in VARIANTS:
        expected = brute_force(logits_fn, weights, inputs, variant)
        for name, value in diagonal(logits_fn, weights, inputs, variant=variant).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-14)


@pytest.fixture(scope="module")
def snapshot():
    weights, architecture, task = random_model(1, 7)
    train = torch.arange(49) % 4 == 0  # 13 rows; 36 are test
    return from_weights(weights, architecture, task, train_mask=train, step=3)


def test_rows_are_those_of_the_set(snapshot):
    logits_fn, tokens, train = logits_of(snapshot), snapshot.task.tokens, snapshot.train_mask
    for rows, chosen in (("train", train), ("test", ~train), ("all", train | True)):
        expected = diagonal(logits_fn, snapshot.weights, tokens[chosen], variant="logits")
        found = fisher_diagonal(snapshot, variant="logits", rows=rows)
        assert (found.rows, found.n_samples, found.n_rows) == (rows, chosen.sum(), chosen.sum())
        for name, value in expected.items():
            assert torch.equal(found.values[name], value)


def test_samples_are_seeded_without_replacement_and_nested(snapshot, monkeypatch):
    seen = []

    def recording(logits_fn, weights, inputs, *, variant):
        seen.append([tuple(row) for row in inputs.tolist()])
        return {name: torch.zeros_like(w) for name, w in weights.items()}

    monkeypatch.setattr(fisher, "diagonal", recording)
    state = torch.get_rng_state()
    for n, seed in ((10, 1), (10, 1), (20, 1), (10, 2), (36, 1), (None, 1), (1000, 2)):
        found = fisher_diagonal(snapshot, n_samples=n, seed=seed)
        assert found.n_samples == min(n or 36, 36)
        assert found.n_rows == 36
    assert torch.equal(torch.get_rng_state(), state)
    first, again, more, other, every, none, many = seen
    assert first == again == more[:10]
    assert first != other
    assert len(set(more)) == 20
    test = [tuple(row) for row in snapshot.task.tokens[~snapshot.train_mask].tolist()]
    assert set(more) <= set(test)
    assert every == none == many == test
    assert first != test[:10]


def test_the_class_of_equals_is_left_out(snapshot):
    """One more output class changes nothing, and its own weights have no information."""
    weights = dict(snapshot.weights)
    for name in ("unembed.W_U", "unembed.b_U"):
        weights[name] = torch.cat([weights[name], weights[name][..., :1] + 1], dim=-1)
    wider = dataclasses.replace(snapshot.architecture, d_vocab_out=8)
    other = from_weights(weights, wider, snapshot.task)
    for variant in VARIANTS:
        expected = fisher_diagonal(snapshot, variant=variant, rows="all", n_samples=4).values
        found = fisher_diagonal(other, variant=variant, rows="all", n_samples=4).values
        torch.testing.assert_close(found["embed.W_E"], expected["embed.W_E"])
        torch.testing.assert_close(found["unembed.b_U"][:7], expected["unembed.b_U"])
        assert found["unembed.b_U"][7] == 0


def test_the_table_says_what_it_is_of(snapshot):
    found = fisher_diagonal(snapshot, n_samples=5, rows="train", seed=4)
    table = found.table().set_index("tensor")
    assert list(table.index) == [*snapshot.weights, "all"]
    w_u = found.values["unembed.W_U"]
    row = table.loc["unembed.W_U"]
    assert row["n_weights"] == w_u.numel()
    assert row["sum"] == pytest.approx(float(w_u.sum()))
    assert row["mean"] == pytest.approx(float(w_u.sum()) / w_u.numel())
    assert row["max"] == float(w_u.max())
    differences = (w_u.flatten()[:, None] - w_u.flatten()).abs().mean()
    assert row["gini"] == pytest.approx(float(differences / (2 * w_u.mean())))
    assert table.loc["all", "sum"] == pytest.approx(table["sum"].iloc[:-1].sum())
    assert found.table().attrs == {
        "variant": "softmax", "rows": "train", "n_samples": 5, "n_rows": 13, "seed": 4, "step": 3,
    }  # fmt: skip


def test_the_shipped_run_in_float32_equals_float64(shipped):
    snapshot = shipped.snapshot()
    tokens = snapshot.task.tokens[[5, 8000]]
    precise = {name: w.double() for name, w in snapshot.weights.items()}
    logits_fn = logits_of(snapshot)
    resid = snapshot.activation("blocks.0.hook_resid_post")[[5, 8000]].double()
    for variant in VARIANTS:
        found = diagonal(logits_fn, snapshot.weights, tokens, variant=variant)
        expected = diagonal(logits_fn, precise, tokens, variant=variant)
        for name, value in expected.items():
            if name != "blocks.0.attn.b_K":  # exactly 0: softmax does not see it
                error = (found[name] - value).norm() / value.norm()
                assert error < 1e-4, (variant, name)
    raw = diagonal(logits_fn, snapshot.weights, tokens, variant="logits")
    assert raw["unembed.b_U"].tolist() == [1] * 113
    torch.testing.assert_close(
        raw["unembed.W_U"], resid.square().mean(0)[:, None].expand(128, 113), rtol=1e-5, atol=1e-9
    )


def test_what_cannot_be_used_is_refused(snapshot, tiny_run):
    with pytest.raises(InputError, match=r"variant='logit' .* did you mean 'logits'"):
        fisher_diagonal(snapshot, variant="logit")
    with pytest.raises(InputError, match=r"rows='tset' .* did you mean 'test'"):
        fisher_diagonal(snapshot, rows="tset")
    for n in (0, -3, True):
        with pytest.raises(InputError, match="n_samples"):
            fisher_diagonal(snapshot, n_samples=n)
    for seed in (-1, True):
        with pytest.raises(InputError, match="seed="):
            fisher_diagonal(snapshot, seed=seed)
    with pytest.raises(InputError, match="no input"):
        diagonal(linear, {"W": draw(2, 2), "b": draw(2)}, draw(0, 2))
    unsplit = from_weights(snapshot.weights, snapshot.architecture, snapshot.task)
    with pytest.raises(InputError, match="needs the split"):
        fisher_diagonal(unsplit)
    assert fisher_diagonal(unsplit, rows="all", n_samples=2).n_rows == 49
    everything = torch.ones(49, dtype=torch.bool)
    trained = from_weights(
        snapshot.weights, snapshot.architecture, snapshot.task, train_mask=everything
    )
    with pytest.raises(InputError, match="rows='test' are none in this split; give rows='all'"):
        fisher_diagonal(trained)
    broken = {name: weight.clone() for name, weight in snapshot.weights.items()}
    next(iter(broken.values())).fill_(math.nan)
    with pytest.raises(InputError, match="not finite"):
        fisher_diagonal(from_weights(broken, snapshot.architecture, snapshot.task), rows="all")
    unknown = Snapshot(snapshot.task, weights={}, n_layers=1, forward=lambda tokens, names: None)
    with pytest.raises(InputError, match="weights alone do not say"):
        fisher_diagonal(unknown, rows="all")
    assert isinstance(fisher_diagonal(tiny_run.snapshot(), n_samples=2), fisher.FisherDiagonal)


def test_runs_and_models_are_taken_as_snapshots_are(tiny_run):
    expected = fisher_diagonal(tiny_run.snapshot(20), n_samples=3)
    of_run = fisher_diagonal(tiny_run, step=20, n_samples=3)
    of_model = fisher_diagonal(
        tiny_run.model(20), task=tiny_run.task, train_mask=tiny_run.train_mask, n_samples=3
    )
    assert (expected.step, of_run.step, of_model.step) == (20, 20, None)
    for name, value in expected.values.items():
        assert torch.equal(of_run.values[name], value)
        torch.testing.assert_close(of_model.values[name], value)
