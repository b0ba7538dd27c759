"""The Fisher metric against the dense matrix, built from Jacobians one input at a time."""

import dataclasses
import math

import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.geometry import metric as module
from grokinterp.geometry.fisher import VARIANTS, diagonal, fisher_diagonal
from grokinterp.geometry.metric import cosine_of, exact_gram, exact_product, fisher_metric
from grokinterp.geometry.predictions import fisher_rao_distance
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.runs._snapshot import Snapshot, from_weights
from grokinterp.tasks import IsingTask, ModularTask
from tests.test_neurons import random_model

MODELS = ["mlp", "embedded", "transformer", "no equals", "deeper", "cnn"]


def example(name):
    """A small model in float64 with a split, and its logits by a float64 forward of all inputs."""
    if name == "transformer":
        weights, shape, task = random_model(1, 5, attention_rate=0.3)
    elif name == "cnn":
        task = IsingTask(lattice=8, n_train=3, n_test=4, sweeps=2)
        shape = CNNArchitecture(lattice=8, channels=(2, 3), d_mlp=5)
    elif name in ("no equals", "deeper"):
        task = ModularTask("subtract", 5, equals_token=False)
        kinds = {"n_layers": 2, "normalization_type": "LN"} if name == "deeper" else {}
        sizes = {"n_heads": 2, "d_model": 6, "d_head": 3, "d_mlp": 7, "n_layers": 1} | kinds
        shape = TransformerArchitecture(d_vocab=5, d_vocab_out=5, n_ctx=2, **sizes)
    else:
        task = ModularTask("add", 5, equals_token=False)
        deep = {"widths": (6, 5), "d_embed": 3, "act_fn": "gelu"}
        shape = MLPArchitecture(p=5, n_classes=5, **({"widths": (6,)} if name == "mlp" else deep))
    if name != "transformer":
        rule = "torch" if name == "cnn" else "xavier" if "p" in vars(shape) else None
        drawn = shape.initial(seed=0, scale=2.0, **({"rule": rule} if rule else {}))
        weights = {n: w.double() for n, w in drawn.items()}
    if name == "cnn":
        train = torch.zeros(7, dtype=torch.bool).index_fill(0, task.train_indices, True)
    else:
        train = torch.arange(25) % 3 > 0
    return from_weights(weights, shape, task, train_mask=train, step=5)


@pytest.fixture(scope="module", params=MODELS)
def snapshot(request):
    return example(request.param)


def flat(vector):
    return torch.cat([part.flatten() for part in vector.values()])


def direction(weights, seed):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(w.shape, generator=generator).double() for n, w in weights.items()}


def dense(snapshot, inputs, variant):
    """E_x J^T A J with A written out, from one Jacobian an input."""
    size = sum(w.numel() for w in snapshot.weights.values())
    total = torch.zeros(size, size, dtype=torch.float64)

    def logits(weights, one):
        return snapshot.architecture.forward(weights, one)[0, : snapshot.task.n_classes]

    for one in inputs.split(1):
        jacobian = torch.func.jacrev(logits)(snapshot.weights, one)
        rows = torch.cat([part.flatten(1) for part in jacobian.values()], dim=1)
        p = logits(snapshot.weights, one).softmax(0)
        middle = torch.eye(len(p)).double() if variant == "logits" else p.diag() - p.outer(p)
        total += rows.T @ middle @ rows / len(inputs)
    return total


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_is_that_of_the_dense_matrix(snapshot, variant, monkeypatch):
    monkeypatch.setattr(
        module, "METRIC_INPUTS_AT_ONCE", 3
    )  # several blocks, the last of another size
    matrix = dense(snapshot, snapshot.task.model_inputs[~snapshot.train_mask], variant)
    found = fisher_metric(snapshot, variant=variant)
    u, v = direction(snapshot.weights, 1), direction(snapshot.weights, 2)
    a, b = flat(u), flat(v)
    assert found.inner(u, v) == pytest.approx(float(a @ matrix @ b), rel=1e-10)
    assert found.inner(v, u) == pytest.approx(found.inner(u, v), rel=1e-13)
    assert found.norm(u) == pytest.approx(float(a @ matrix @ a) ** 0.5, rel=1e-10)
    assert found.cosine(u, v) == pytest.approx(
        float(a @ matrix @ b / (a @ matrix @ a).sqrt() / (b @ matrix @ b).sqrt()), rel=1e-10
    )
    product = found.product(v)
    assert list(product) == list(snapshot.weights)
    assert all(part.shape == snapshot.weights[n].shape for n, part in product.items())
    torch.testing.assert_close(flat(product), matrix @ b, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        found.gram([u, v, u]), torch.stack([a, b, a]) @ matrix @ torch.stack([a, b, a]).T,
        rtol=1e-10, atol=0,
    )  # fmt: skip

    expected = fisher_diagonal(snapshot, variant=variant).values
    torch.testing.assert_close(matrix.diagonal(), flat(expected), rtol=1e-10, atol=1e-13)
    only = fisher_metric(snapshot, form="diagonal", variant=variant)
    assert only.inner(u, v) == pytest.approx(float((a * b) @ matrix.diagonal()), rel=1e-10)
    torch.testing.assert_close(flat(only.product(v)), b * matrix.diagonal(), rtol=1e-10, atol=1e-13)


def test_the_inputs_are_those_of_the_diagonal(snapshot):
    for variant in VARIANTS:
        settings = {"variant": variant, "rows": "all", "n_samples": 4, "seed": 3}
        exact = fisher_metric(snapshot, **settings)
        values = fisher_diagonal(snapshot, **settings).values
        name = "unembed.W_U"
        for place in range(3):
            unit = {n: torch.zeros_like(w) for n, w in snapshot.weights.items()}
            unit[name].view(-1)[place] = 1
            expected = float(values[name].flatten()[place])
            assert exact.norm(unit) ** 2 == pytest.approx(expected, rel=1e-10, abs=1e-20)


def test_what_it_says_of_itself():
    found = fisher_metric(example("mlp"), rows="train", n_samples=4, seed=2, form="diagonal")
    assert (found.form, found.variant, found.rows) == ("diagonal", "softmax", "train")
    assert (found.n_samples, found.n_rows, found.seed, found.step) == (4, 16, 2, 5)
    assert len(repr(found)) < 200


def test_a_small_step_is_as_long_as_its_change_of_predictions(snapshot):
    """d(theta, theta + t v) -> t |v|, with an error that is linear in t."""
    found = fisher_metric(snapshot, rows="all")
    v = direction(snapshot.weights, 1)
    errors = []
    for t in (1e-4, 1e-5, 1e-6):  # near enough that no ReLU of the CNN switches
        moved = {n: w + t * v[n] for n, w in snapshot.weights.items()}
        distance = fisher_rao_distance(snapshot.logits, snapshot.logits_with(moved))
        errors.append(abs(distance / (t * found.norm(v)) - 1))
    assert errors[0] < 0.05
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.3)
    assert errors[2] == pytest.approx(errors[1] / 10, rel=0.3)


def test_a_certain_model_keeps_its_tiny_information():
    """Wrong classes at e^-60 and e^-59, where 1 - p is 0 in float64."""
    weights = {"b": torch.tensor([60.0, 0.0, 1.0]).double()}
    inputs = torch.ones(2, 1).double()

    def logits(weights, x):
        return x * weights["b"]

    u = {"b": torch.tensor([1.0, 0.0, 0.0]).double()}
    small = math.exp(-60) + math.exp(-59)
    found = exact_gram(logits, weights, inputs, [u], variant="softmax")
    assert float(found) == pytest.approx(small, rel=1e-12, abs=0)
    product = exact_product(logits, weights, inputs, u, variant="softmax")["b"]
    expected = [small, -math.exp(-60), -math.exp(-59)]
    assert product.tolist() == pytest.approx(expected, rel=1e-12, abs=0)


def test_float32_weights_are_measured_in_float64():
    snapshot = example("mlp")
    single = {n: w.float() for n, w in snapshot.weights.items()}
    double = {n: w.double() for n, w in single.items()}
    u = direction(double, 1)
    one, other = (
        fisher_metric(from_weights(w, snapshot.architecture, snapshot.task), rows="all")
        for w in (single, double)
    )
    assert one.norm({n: part.float() for n, part in u.items()}) == other.norm(
        {n: part.float().double() for n, part in u.items()}
    )
    assert all(part.dtype == torch.float64 for part in one.product(u).values())
    assert all(w.dtype == torch.float32 and not w.requires_grad for w in single.values())


def test_lengths_of_zero_have_no_cosine():
    snapshot = example("mlp")
    zero = {n: torch.zeros_like(w) for n, w in snapshot.weights.items()}
    u = direction(snapshot.weights, 1)
    for form in module.FORMS:
        found = fisher_metric(snapshot, form=form)
        assert found.norm(zero) == 0
        assert math.isnan(found.cosine(zero, u))
        assert math.isnan(found.cosine(u, zero))
        assert found.cosine(u, u) == pytest.approx(1, abs=1e-15)
        assert found.cosine(u, {n: -part for n, part in u.items()}) == pytest.approx(-1, abs=1e-15)


def test_no_rounding_makes_a_cosine_larger_than_1():
    gram = torch.tensor([[1.0, 1 + 1e-12], [1 + 1e-12, 1.0]], dtype=torch.float64)
    assert cosine_of(gram, 0, 1) == 1
    assert cosine_of(2 * torch.eye(2) - gram, 0, 1) == -1


def test_all_logits_alike_move_no_prediction():
    """The exact form sees weights act together, its diagonal does not."""
    snapshot = example("mlp")
    shift = {n: torch.zeros_like(w) for n, w in snapshot.weights.items()}
    shift["unembed.b_U"] += 1
    assert fisher_metric(snapshot).norm(shift) < 1e-12
    assert fisher_metric(snapshot, form="diagonal").norm(shift) > 0.1
    assert fisher_metric(snapshot, variant="logits").norm(shift) == pytest.approx(5**0.5)


def test_the_class_of_equals_is_left_out():
    weights, shape, task = random_model(1, 5)
    wider = {
        n: torch.cat([w, w[..., :1] + 1], dim=-1) if n.startswith("unembed") else w
        for n, w in weights.items()
    }
    other = dataclasses.replace(shape, d_vocab_out=6)
    u = direction(wider, 1)
    narrow = {n: part[..., :5] if n.startswith("unembed") else part for n, part in u.items()}
    for variant in VARIANTS:
        one = fisher_metric(from_weights(weights, shape, task), rows="all", variant=variant)
        two = fisher_metric(from_weights(wider, other, task), rows="all", variant=variant)
        assert one.norm(narrow) == pytest.approx(two.norm(u), rel=1e-12)


def test_a_linear_model_has_its_closed_form():
    """Var_p(x u), as the doctest's 16 (1/2)(1/2)."""
    x = torch.tensor([[1.0], [2.0]]).double()
    weights = {"W": torch.tensor([[0.5, -0.5, 0.0]]).double()}
    u = {"W": torch.tensor([[1.0, 2.0, 3.0]]).double()}

    def linear(weights, x):
        return x @ weights["W"]

    p = linear(weights, x).softmax(1)
    moved = linear(u, x)
    variance = ((p * moved.square()).sum(1) - (p * moved).sum(1).square()).mean()
    found = exact_gram(linear, weights, x, [u], variant="softmax")
    assert float(found) == pytest.approx(float(variance), rel=1e-13)
    only = diagonal(linear, weights, x, variant="softmax")["W"]
    torch.testing.assert_close(only[0], (x.square() * p * (1 - p)).mean(0))


def test_what_cannot_be_used_is_refused():
    snapshot = example("mlp")
    for settings, says in (
        ({"form": "exct"}, r"form='exct' .* did you mean 'exact'"),
        ({"variant": "logit"}, r"variant='logit'"),
        ({"rows": "tset"}, r"rows='tset'"),
        ({"n_samples": 0}, "n_samples=0"),
        ({"seed": -1}, "seed=-1"),
    ):
        with pytest.raises(InputError, match=says):
            fisher_metric(snapshot, **settings)
    found = fisher_metric(snapshot)
    u = direction(snapshot.weights, 1)
    for vector, says in (
        ({n: part for n, part in u.items() if n != "unembed.b_U"}, r"lacks 'unembed.b_U'.*\(5,\)"),
        (u | {"unembed.b_W": torch.ones(5)}, "'unembed.b_W' is no weight; did you mean"),
        (u | {"unembed.b_U": torch.ones(4)}, r"'unembed.b_U' is \(4,\); .* shape \(5,\)"),
        (u | {"unembed.b_U": torch.full((5,), math.inf)}, "not finite"),
    ):
        for call in (found.norm, found.product, lambda v: found.inner(u, v)):
            with pytest.raises(InputError, match=says):
                call(vector)
    broken = {n: torch.full_like(w, math.nan) for n, w in snapshot.weights.items()}
    with pytest.raises(InputError, match="not finite"):
        fisher_metric(from_weights(broken, snapshot.architecture, snapshot.task), rows="all")
    unknown = Snapshot(snapshot.task, weights={}, n_layers=1, forward=lambda tokens, names: None)
    with pytest.raises(InputError, match="weights alone do not say"):
        fisher_metric(unknown, rows="all")


def test_what_a_metric_says_of_itself():
    snapshot = example("mlp")
    found = fisher_metric(snapshot, rows="all", n_samples=5)
    table = found.table()
    assert table["n_weights"].sum() == sum(w.numel() for w in snapshot.weights.values())
    assert table.attrs["n_samples"] == found.to_dict()["n_samples"] == 5
    assert not [name for name in found.to_dict() if name.startswith("_")]
    assert str(found).startswith("Fisher metric\n")
