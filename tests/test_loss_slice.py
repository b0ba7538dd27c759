"""Slices of the loss: filters as long as the weights', a linear model in closed form, ends."""

import json

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.transformer import TransformerArchitecture
from tests.made_runs import wider_network

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here

cut = gi.geometry.loss_slice
MATRICES = ("W_in", "W_out", "W_U")


class Tables(torch.nn.Module):
    """Logits that are sums of rows, and a bias of their own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(8, 7)
        self.bias = torch.nn.Parameter(torch.randn(7))

    def forward(self, tokens):
        return self.table(tokens).sum(1) + self.bias


@pytest.fixture(scope="module")
def tables():
    task = gi.ModularTask("add", p=7)
    return Tables(), {"task": task, "train_mask": torch.arange(49) % 3 > 0}


def norms(tensor, over):
    return tensor.double().square().sum(over).sqrt()


def test_filters_of_a_transformer_are_as_long_as_its_weights():
    run = gi.load("mod31-small")
    found = cut(run, n_points=2, n_samples=8, directions=2)
    weights = run.weights(10_000)
    for direction in found.directions:
        assert {x for x in weights if "b_" not in x} == {*direction}  # frozen biases are left out
        for name, step in direction.items():
            weight, last = weights[name], name.rpartition(".")[2]
            over = {"W_E": 1, "W_pos": 1, "W_Q": 1, "W_K": 1, "W_V": 1, "W_O": (0, 1)}.get(last, 0)
            assert torch.allclose(norms(step, over), norms(weight, over))
            assert step.count_nonzero() == weight.count_nonzero()
    one, two = (torch.cat([x.flatten() for x in d.values()]) for d in found.directions)
    assert abs(float(one @ two / one.norm() / two.norm())) < 0.05
    assert found.lengths == pytest.approx((float(one.norm()), float(two.norm())))


def test_filters_of_an_mlp_of_a_cnn_and_of_a_module_of_ones_own(tables):
    run = gi.load("mlp113-grokked")
    step = cut(run, n_points=2, n_samples=8).directions[0]
    for name, weight in run.weights(run.steps[-1]).items():
        if name.rpartition(".")[2] in MATRICES:
            assert torch.allclose(norms(step[name], 0), norms(weight, 0))
    cnn = CNNArchitecture(lattice=8, channels=(2, 3), d_mlp=5)
    weights = cnn.initial(seed=0)
    task = gi.IsingTask(8, n_train=20, n_test=20, n_temperatures=8)
    step = cut(cnn.hooked(weights), task=task, n_points=2).directions[0]
    kernels = weights["conv.1.W"]
    assert torch.allclose(norms(step["conv.1.W"], (1, 2, 3)), norms(kernels, (1, 2, 3)))
    assert torch.allclose(norms(step["unembed.W_U"], 0), norms(weights["unembed.W_U"], 0))
    assert "conv.1.b" not in step or not step["conv.1.b"].any()
    module, about = tables
    (step,) = cut(module, n_points=2, **about).directions
    assert torch.allclose(norms(step["table.weight"], 1), norms(module.table.weight, 1))
    assert not step["bias"].any()


def test_a_tensor_or_all_weights_as_one_filter(tables):
    module, about = tables
    (step,) = cut(module, n_points=2, normalise="tensor", **about).directions
    for name, weight in module.named_parameters():
        assert float(step[name].norm()) == pytest.approx(float(weight.detach().norm()))
    (length,) = cut(module, n_points=2, normalise="all", **about).lengths
    whole = torch.cat([x.detach().flatten() for x in module.parameters()])
    assert length == pytest.approx(float(whole.norm()))


def test_a_linear_model_in_closed_form(tables):
    """Its logits move linearly along a direction, so its loss is a softmax's of z + alpha dz."""
    module, about = tables
    task, mask = about["task"], about["train_mask"]
    found = cut(
        module, rows=("train", "test"), directions=2, n_points=5, n_samples=None, span=(-2, 1),
        normalise="tensor", **about,
    )  # fmt: skip
    assert found.alphas == (-2, -1.25, -0.5, 0.25, 1)

    def logits(weights):
        return weights["table.weight"][task.tokens].sum(1) + weights["bias"]

    start = logits({name: x.detach().double() for name, x in module.named_parameters()})
    moves = [logits(step) for step in found.directions]
    for name, rows in (("train", mask), ("test", ~mask)):
        assert found.n_samples[name] == int(rows.sum())
        for i, alpha in enumerate(found.alphas):
            for j, beta in enumerate(found.alphas):
                z = (start + alpha * moves[0] + beta * moves[1])[rows]
                loss = float(torch.nn.functional.cross_entropy(z, task.labels[rows]))
                right = float((z.argmax(1) == task.labels[rows]).double().mean())
                assert float(found.losses[name][i, j]) == pytest.approx(loss, rel=1e-12)
                assert float(found.accuracies[name][i, j]) == right
    table = found.table()
    assert list(table.columns) == [
        "alpha", "beta", "train_loss", "train_accuracy", "test_loss", "test_accuracy",
    ]  # fmt: skip
    row = table[(table.alpha == -0.5) & (table.beta == 1)].iloc[0]
    assert row.test_loss == float(found.losses["test"][2, 4])


@pytest.fixture(scope="module")
def between():
    return cut("mod31-small", 300, to=10_000, rows=("train", "test"), n_points=9, n_samples=None)


def test_a_line_between_checkpoints_ends_in_their_losses(between):
    metrics = gi.load("mod31-small").metrics.set_index("step")
    assert between.alphas == (-0.5, -0.25, 0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)
    for step, place in ((300, 2), (10_000, 6)):
        for rows in ("train", "test"):
            logged = metrics.loc[step, f"{rows}_loss"]
            assert float(between.losses[rows][place]) == pytest.approx(logged, rel=1e-4)
            right = metrics.loc[step, f"{rows}_acc"]
            assert float(between.accuracies[rows][place]) == pytest.approx(right, abs=1e-6)
    whole = cut("mod31-small", 10_000, to=300, rows="train", span=(0, 1), n_points=2)
    assert whole.lengths == pytest.approx(between.lengths)


def test_the_other_end_may_be_of_another_run(between):
    found = cut(
        gi.load("mod31-small"), 300, other=gi.load("mod31-small").snapshot(10_000),
        rows=("train", "test"), n_points=9, n_samples=None,
    )  # fmt: skip
    assert found.table().equals(between.table())
    run = gi.load("mod31-small")
    first, last = (run.snapshot(step).hooked() for step in (300, 10_000))
    given = {"task": run.task, "train_mask": run.train_mask}
    models = cut(first, other=last, rows=("train", "test"), n_points=9, n_samples=None, **given)
    assert models.table().round(4).equals(between.table().round(4))
    with pytest.raises(gi.InputError, match=r"differ in the names or shapes of .*embed\.W_E"):
        cut("mod31-small", other=wider_network(run))
    with pytest.raises(gi.InputError, match="the tasks are add mod 31 and add mod 113; give runs"):
        cut("mod31-small", other="mod113-grokked")


def test_a_plane_holds_its_line():
    options = {"n_points": 3, "n_samples": 50, "seed": 4}
    line, plane = (cut("mod31-small", directions=n, **options) for n in (1, 2))
    for name in ("train", "unmirrored"):
        assert torch.equal(plane.losses[name][:, 1], line.losses[name])
        assert torch.equal(plane.accuracies[name][:, 1], line.accuracies[name])
    other = cut("mod31-small", directions=1, n_points=3, n_samples=50, seed=5)
    assert not torch.equal(other.losses["train"], line.losses["train"])
    plain = json.loads(json.dumps(plane.to_dict()))
    assert "directions" not in plain
    assert np.shape(plain["losses"]["train"]) == (3, 3)
    for found, kind in ((line, "scatter"), (plane, "contour")):
        assert found.plot().data[0].type == kind
    assert plane.plot().data[0].z[0][1] == pytest.approx(  # beta upwards, alpha to the right
        float(plane.losses["train"][1, 0].log10())
    )


def test_a_transformer_of_two_layers_with_norms_is_cut_too():
    architecture = TransformerArchitecture(
        n_layers=2, n_heads=2, d_model=8, d_head=4, d_mlp=8, d_vocab=8, d_vocab_out=7, n_ctx=3,
        normalization_type="LN",
    )  # fmt: skip
    task = gi.ModularTask("add", p=7)
    snapshot = gi.snapshot(architecture.hooked(architecture.initial(seed=0)), task)
    found = cut(snapshot, n_points=3)
    assert found.rows == ("all",)
    assert any("split is not known" in note for note in found.notes)
    assert not found.directions[0]["ln_final.w"].any()
    assert found.losses["all"].isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": 3}, "directions=3 is not a whole number from 1 to 2"),
        ({"directions": 2, "to": 300}, "one direction; leave directions out"),
        ({"span": (1, 0)}, "is not a pair of rising numbers"),
        ({"span": 1}, "span=1 is not a list"),
        ({"n_points": 1}, "n_points=1 is not a whole number from 2"),
        ({"n_samples": 0}, "n_samples=0 is not a whole number from 1 on"),
        ({"rows": ["tran"]}, "rows='tran' is not known; did you mean 'train'"),
        ({"rows": []}, "is not one or several names of rows"),
        ({"normalise": "filters"}, "normalise='filters' is not known; did you mean 'filter'"),
        ({"step": [0, 300]}, "around one checkpoint, not 2"),
        ({"to": 7}, "7"),
    ],
)
def test_what_cannot_be_cut_is_refused(options, message):
    with pytest.raises(gi.InputError, match=message):
        cut("mod31-small", **options)


def test_weights_without_a_filter_are_refused():
    class Bias(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.ones(7))

        def forward(self, tokens):
            return self.bias.expand(len(tokens), 7)

    task = gi.ModularTask("add", p=7)
    with pytest.raises(gi.InputError, match="no weight of this model has a filter"):
        cut(Bias(), task=task)
    assert cut(Bias(), task=task, normalise="tensor", n_points=3).lengths == pytest.approx(
        (7**0.5,)
    )
