"""The loss on the line between two networks: convex ones, shuffled copies, the shipped runs."""

import pytest
import torch

import grokinterp as gi
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.sweeps import measured
from tests.made_runs import changed, made_run, wider_network

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here


@pytest.fixture(scope="module")
def run():
    return gi.load("mod31-small")


class Linear(torch.nn.Module):
    """Logits that are linear in the weights, so that the loss is convex."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(8, 7)

    def forward(self, tokens):
        return self.table(tokens).sum(1)


def test_a_convex_loss_has_no_barrier():
    task = gi.ModularTask("add", p=7)
    mask = torch.arange(49) % 2 == 0
    about = {"task": task, "train_mask": mask}
    torch.manual_seed(0)
    one, other = (Linear().requires_grad_() for _ in range(2))
    found = gi.geometry.mode_connectivity(one, other=other, n_points=9, **about)
    table = found.table()
    assert found.barrier == 0
    for side in ("train", "test"):
        assert table[f"{side}_excess"].iloc[1:-1].max() < 0  # strictly convex between these
        assert (table[f"{side}_excess"].iloc[[0, -1]] == 0).all()
    by_hand = torch.lerp(one.table.weight, other.table.weight, 0.25).double()
    rows = task.tokens[mask]
    loss = torch.nn.functional.cross_entropy(by_hand[rows].sum(1), task.labels[mask])
    assert table.train_loss[2] == pytest.approx(float(loss.detach()), rel=1e-6)
    assert "not aligned: nobody knows which neurons" in " ".join(found.notes)
    assert found.moved == {}
    assert found.aligned_barrier != found.aligned_barrier


def shuffled(architecture, units):
    """A function of weights that puts each kind of unit into a random order, by hand."""

    def shuffle(weights):
        stream = torch.Generator().manual_seed(0)
        found = dict(weights)
        for names, n in units:
            order = torch.randperm(n, generator=stream)
            for name, axis, block in names:
                entries = (order[:, None] * block + torch.arange(block)).flatten()
                found[name] = found[name].index_select(axis, entries)
        return found

    return shuffle


def of_transformer(layer, heads, neurons):
    attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
    of_heads = [(f"{attn}.{x}", 0, 1) for x in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")]
    of_neurons = [(f"{mlp}.W_in", 1, 1), (f"{mlp}.b_in", 0, 1), (f"{mlp}.W_out", 0, 1)]
    return [(of_heads, heads), (of_neurons, neurons)]


def test_shuffled_copies_are_one_network_once_aligned(run):
    """The shipped transformer and itself with heads and neurons in another order."""
    other = changed(run, shuffled(run.architecture, of_transformer(0, 4, 160)))
    found = gi.geometry.mode_connectivity(run, other=other, n_points=5)
    straight, aligned = (x for _, x in found.table().groupby("path", sort=False))
    assert found.barrier > 0.5
    assert found.aligned_barrier < 1e-12
    assert found.aligned_distance < 1e-9 < 1 < found.distance
    assert found.moved["neurons of layer 0"] > 100
    assert straight.test_loss.iloc[-1] == pytest.approx(aligned.test_loss.iloc[-1], rel=1e-4)
    assert straight.train_loss.iloc[0] == pytest.approx(straight.train_loss.iloc[-1], rel=1e-3)
    assert aligned.train_loss.max() == pytest.approx(aligned.train_loss.min(), rel=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "cnn", "two layers"])
def test_every_kind_is_aligned_and_computes_the_same(kind):
    train = torch.arange(20)
    if kind == "cnn":
        task = gi.IsingTask(
            lattice=8, n_temperatures=4, n_repeats=25, sweeps=2, n_train=20, n_test=40
        )
        architecture = CNNArchitecture(lattice=8, channels=(3, 5), d_mlp=16)
        units = [
            ([("conv.0.W", 0, 1), ("conv.0.b", 0, 1), ("conv.1.W", 1, 1)], 3),
            ([("conv.1.W", 0, 1), ("conv.1.b", 0, 1), ("blocks.0.mlp.W_in", 0, 4)], 5),
            ([("blocks.0.mlp.W_in", 1, 1), ("blocks.0.mlp.b_in", 0, 1), ("unembed.W_U", 0, 1)], 16),
        ]
    elif kind == "mlp":
        task = gi.ModularTask("add", p=7, equals_token=False)
        architecture = MLPArchitecture(p=7, widths=(12, 9), n_classes=7)
        units = [
            ([("blocks.0.mlp.W_in", 1, 1), ("blocks.0.mlp.b_in", 0, 1),
              ("blocks.1.mlp.W_in", 0, 1)], 12),
            ([("blocks.1.mlp.W_in", 1, 1), ("blocks.1.mlp.b_in", 0, 1), ("unembed.W_U", 0, 1)], 9),
        ]  # fmt: skip
    else:
        recipe = gi.Recipe(p=7, n_layers=2, d_model=16, d_head=8, n_heads=2, d_mlp=24,
                           normalization_type="LN")  # fmt: skip
        task, architecture = recipe.build_task(), recipe.architecture()
        units = of_transformer(0, 2, 24) + of_transformer(1, 2, 24)
    weights = {name: w.double() for name, w in architecture.initial(seed=0, scale=2.0).items()}
    run = made_run(task, architecture, {0: weights}, train=train)
    other = changed(run, shuffled(architecture, units))
    found = gi.geometry.mode_connectivity(run, other=other, n_points=3)
    table = found.table()
    ends = table[table.alpha == 1]
    assert ends.train_loss.iloc[0] == pytest.approx(ends.train_loss.iloc[1], rel=1e-12)
    assert found.distance > 1
    assert found.aligned_distance < 1e-9
    assert found.aligned_barrier < 1e-12
    assert len(found.moved) == len(units)
    assert sum(found.moved.values()) > 10


def test_a_run_memorises_on_one_side_and_generalises_on_the_other(run):
    found = gi.geometry.mode_connectivity(run, n_points=5)
    assert found.steps == (300, 10_000)  # the first checkpoint from memorization_step 260 on
    assert found.notes[0] == "from the first checkpoint after memorization_step 260"
    assert found.ends == ("mod31-small", "mod31-small")
    rows = found.barriers().set_index(["path", "rows"])
    assert rows.barrier["straight", "train"] == pytest.approx(0.557, abs=2e-3)
    assert rows.alpha["straight", "train"] == 0.5
    assert rows.loss_0["straight", "test"] == pytest.approx(7.35, abs=0.01)
    assert found.n_rows == {"train": 624, "test": 122}
    logits = run.snapshot(300).logits_with(halfway(run.weights(300), run.weights(10_000)))
    right = (logits.argmax(1) == run.task.labels)[run.train_mask].double().mean()
    assert found.table().train_accuracy[2] == pytest.approx(float(right))
    assert "21.9 apart" in str(found) or "21.8" in str(found)


def halfway(one, other):
    return {name: (one[name].double() + other[name].double()) / 2 for name in one}


def test_the_shipped_run_has_a_barrier_on_its_training_inputs():
    """2.55 nats half way from step 200; on unseen inputs it goes down all the way."""
    found = gi.geometry.mode_connectivity("mod113-grokked", n_points=3, align=False)
    assert found.steps == (200, 12_000)
    assert found.barrier == pytest.approx(2.553, abs=5e-3)
    assert found.barriers().barrier.iloc[1] == 0
    assert found.table().train_accuracy[1] == pytest.approx(0.345, abs=5e-3)


def test_two_runs_of_an_mlp_are_nearly_one_valley_once_aligned():
    """1.82 nats apart as they are, 0.12 with their neurons in one order."""
    found = gi.geometry.mode_connectivity(
        "mlp113-grokked", other="mlp113-steady", n_points=3, n_samples=2000
    )
    assert found.barrier == pytest.approx(1.82, abs=0.1)
    assert found.aligned_barrier == pytest.approx(0.12, abs=0.05)
    assert found.aligned_distance < found.distance


def test_samples_are_the_same_for_the_same_seed(run):
    found = [
        gi.geometry.mode_connectivity(run, (300, -1), n_points=3, align=False, n_samples=50, seed=s)
        for s in (0, 0, 1)
    ]
    assert found[0].n_rows == {"train": 50, "test": 50}
    assert found[0].table().equals(found[1].table())
    assert not found[0].table().equals(found[2].table())


def test_what_cannot_be_asked_is_said_in_a_line(run):
    for call, said in (
        (lambda: gi.geometry.mode_connectivity(run.snapshot()), "one checkpoint has no other end"),
        (lambda: gi.geometry.mode_connectivity(run, (300, 300)), "both ends are step 300"),
        (lambda: gi.geometry.mode_connectivity(run, 300), "steps=300 is not a list"),
        (lambda: gi.geometry.mode_connectivity(run, (300,)), "are no two steps"),
        (lambda: gi.geometry.mode_connectivity(run, (300, 301)), "step 301 is not saved"),
        (lambda: gi.geometry.mode_connectivity(run, n_points=2), "whole number from 3"),
        (lambda: gi.geometry.mode_connectivity(run, rows=["tset"]), "did you mean 'test'"),
        (
            lambda: gi.geometry.mode_connectivity(run, other="mod113-steady"),
            "the tasks are add mod 31 and add mod 113",
        ),
        (
            lambda: gi.geometry.mode_connectivity(run, other=wider_network(run)),
            "other names or shapes",
        ),
    ):
        with pytest.raises(gi.InputError, match=said) as error:
            call()
        assert "\n" not in str(error.value)


def test_without_a_split_losses_are_over_all_inputs(run):
    made = made_run(run.task, run.architecture, {0: run.weights(0), 9: run.weights(300)})
    found = gi.geometry.mode_connectivity(made, (0, 9), n_points=3, align=False)
    assert found.n_rows == {"all": 961}
    assert "the split is not known, so losses are over all inputs" in found.notes
    assert [line.name for line in found.plot().data if line.showlegend] == ["all inputs"]


def test_the_measure_of_a_run(run):
    row = measured(run, ["mode_connectivity"])
    assert row["barrier_train"] == pytest.approx(0.679, abs=2e-3)
    assert (row["barrier_train_alpha"], row["barrier_test"]) == (0.4, 0)
