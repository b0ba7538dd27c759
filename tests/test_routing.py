"""Known but not used: networks made by hand, long-hand regressions, and the shipped run."""

import math

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits.interventions import replay
from grokinterp.geometry.fourier_decoder import FoldedRidge, class_answers, waves
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.runs._snapshot import from_weights
from grokinterp.sweeps import measured
from tests import clock
from tests.made_runs import made_run

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here

RESID, NEURONS = "blocks.0.hook_resid_post", "blocks.0.mlp.hook_post"
STEPS = [4000, 4800, 12_000]


def some_rows(task, share=0.3):
    return torch.rand(task.n_inputs, generator=torch.Generator().manual_seed(0)) < share


@pytest.fixture(scope="module")
def run113():
    return gi.load("mod113-grokked")


@pytest.fixture(scope="module")
def found113(run113):
    return gi.geometry.routing(run113, STEPS)


@pytest.fixture(scope="module")
def found31():
    return gi.geometry.routing(gi.load("mod31-small"), [0, 400, 10_000])


def test_a_ridge_without_each_fold_is_the_regression_on_the_others():
    stream = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(60, 8, generator=stream, dtype=torch.float64)
    y = torch.randn(60, 2, generator=stream, dtype=torch.float64)
    fold = torch.arange(60) % 4
    found = FoldedRidge.of(x, fold).predict(y)
    for i in range(4):
        others, own = fold != i, fold == i
        mean, level = x[others].mean(0), y[others].mean(0)
        scale = (x[others] - mean).square().mean().sqrt()
        design = (x[others] - mean) / scale
        normal = design.T @ design + 1e-3 * len(design) * torch.eye(8, dtype=torch.float64)
        beta = torch.linalg.inv(normal) @ design.T @ (y[others] - level)
        expected = (x[own] - mean) / scale @ beta + level
        assert torch.allclose(found[own], expected, atol=1e-10)


def test_of_constant_activations_the_mean_is_predicted():
    y = torch.arange(6.0)[:, None]
    found = FoldedRidge.of(torch.ones(6, 3), torch.arange(6) % 2).predict(y)
    assert found.flatten().tolist() == [3, 2, 3, 2, 3, 2]


def test_clock_weights_use_what_they_know():
    """Hand-built: every answer is known at the end and given, and its logits are key alone."""
    p, keys = 31, (2, 5, 13)
    task = gi.ModularTask("add", p)
    model = from_weights(
        clock.clock_weights(p, keys, 10.0), clock.clock_architecture(p, 3), task,
        train_mask=some_rows(task),
    )  # fmt: skip
    found = gi.geometry.routing(model, placebos=5)
    assert found.frequencies == keys
    last = found.split().iloc[-1]
    assert (last.accuracy, last.key_accuracy, last.interference) == (1, 1, 0)
    assert abs(last.gap) < 0.01
    assert last.restricted_accuracy == 1
    assert last.key_share == pytest.approx(8 / math.pi**2, abs=0.02)  # of |cos w_k (a - b) / 2|
    assert last.placebo < 0.1
    # Of 15 frequencies most are multiples of these, which rectified waves hold as well.
    assert found.table().placebo[0] > 0.5
    assert "placebos hold multiples of key frequencies" in found.notes[1]


class Codes(torch.nn.Module):
    """Every unordered pair has a random code of its own: nothing about other pairs."""

    def __init__(self, p):
        super().__init__()
        self.p = p
        self.code = torch.nn.Embedding(p * p, 200)
        self.out = torch.nn.Linear(200, p)

    def forward(self, tokens):
        a, b = tokens[:, 0], tokens[:, 1]
        return self.out(self.code(torch.minimum(a, b) * self.p + torch.maximum(a, b)))


def test_mirrors_are_in_one_fold():
    """Else a symmetric network that knows nothing gives (a, b) away by (b, a)."""
    torch.manual_seed(0)
    task = gi.ModularTask("add", p=13)
    mask = some_rows(task, 0.1)
    net, frequencies = Codes(13), [1, 2, 5]
    found = gi.geometry.routing(net, frequencies=frequencies, task=task, train_mask=mask)
    assert found.hooks == ("code",)  # what the last layer reads
    assert "is no sub-module" not in " ".join(found.notes)
    assert found.by_step.presence.item() < 0.25
    snapshot = gi.snapshot(net, task, train_mask=mask)
    rows = snapshot.unmirrored_rows
    a, b = task.operands[rows].T
    by_hand = FoldedRidge.of(snapshot.activation("code")[rows], (a > b).long())
    predicted = by_hand.predict(waves(task.labels[rows], frequencies, 13))
    scores = predicted @ waves(torch.arange(13), frequencies, 13).T
    leaked = (scores.argmax(1) == task.labels[rows])[a != b].double().mean()
    assert leaked > 0.9


def test_the_shipped_run_knows_more_than_it_says(found113):
    """Of 6,271 unmirrored test rows; the peak and its neighbours in steps."""
    by_step = found113.split().set_index("step")
    assert found113.frequencies == (9, 18, 53, 55)
    assert by_step.accuracy.tolist() == pytest.approx([0.039, 0.160, 1], abs=5e-4)
    assert by_step.gap[4800] == pytest.approx(0.30, abs=0.05)
    assert found113.peak == (4800, by_step.gap[4800])
    assert by_step.gap[4000] == pytest.approx(0.24, abs=0.05)
    assert by_step.gap[12_000] == 0
    assert by_step.presence.tolist() == pytest.approx([0.2861, 0.4864, 1], abs=2e-3)
    assert by_step.restricted_accuracy[4800] > 0.999
    table = found113.table().set_index(["step", "hook"])
    assert table.placebo_max[:, RESID].max() < 0.03
    assert table.placebo_max.max() < 0.05
    assert len(found113.notes) == 1  # no placebo is a multiple of a key frequency
    assert table.presence[4800, NEURONS] == pytest.approx(0.451, abs=5e-3)


def test_the_gap_is_interference_and_readout(found113, run113):
    split = found113.split()
    assert (split.interference + split.readout).tolist() == pytest.approx(split.gap.tolist())
    shares = split.set_index("step").key_share
    assert shares.tolist() == pytest.approx([0.460, 0.710, 0.989], abs=2e-3)
    of_table = gi.fourier.logit_shares(run113, step=4800)[[k - 1 for k in found113.frequencies]]
    assert float(of_table.sum()) == pytest.approx(0.73, abs=0.01)


def test_key_neurons_alone_as_hooks_have_it(found31):
    """The rest of the neurons at its mean, by the hooks that ablations use."""
    run = gi.load("mod31-small")
    seen = run.snapshot(400)
    basis = gi.circuits.neuron_logit_directions(run, step=400).basis
    keep = gi.hooks.directions(NEURONS, basis, keep=True, mode="mean")
    rows = seen.unmirrored_rows
    right = (replay(seen, keep).argmax(1) == run.task.labels)[rows].double().mean()
    assert found31.split().key_accuracy[1] == pytest.approx(float(right), abs=1e-9)
    waves_of = waves(run.task.labels, found31.frequencies, 31)
    along = torch.linalg.qr(waves_of).Q
    logits = seen.logits.double()
    restricted = along @ (along.T @ logits) + logits.mean(0)
    share = (restricted.argmax(1) == run.task.labels).double().mean()
    assert found31.split().restricted_accuracy[1] == pytest.approx(float(share), abs=1e-9)


def test_rows_whose_mirror_is_trained_look_better(run113, found113):
    """The trap: all test rows have .255 at step 4000."""
    seen = run113.snapshot(4000)
    right = (seen.logits.argmax(1) == run113.task.labels)[seen.test_rows].double().mean()
    assert float(right) == pytest.approx(0.255, abs=2e-3)
    assert found113.split().accuracy[0] == pytest.approx(0.039, abs=1e-3)


def test_classes_miss_what_waves_read(run113, found113):
    """The trap: regressions on 113 classes read a tenth of it."""
    seen = run113.snapshot(4800)
    rows = seen.unmirrored_rows.nonzero().flatten()
    a, b = run113.task.operands[rows].T
    ridge = FoldedRidge.of(seen.activation(RESID)[rows], (torch.minimum(a, b) + 7 * (a + b)) % 5)
    read = class_answers(ridge, run113.task.labels[rows], 113).double().mean()
    assert float(read) < 0.08
    assert found113.split().presence[1] > 0.4


@pytest.mark.slow
def test_the_peak_of_the_whole_run():
    found = gi.geometry.routing("mod113-grokked")
    step, gap = found.peak
    assert abs(step - 4800) <= 400
    assert gap == pytest.approx(0.30, abs=0.05)
    assert found.table().set_index("hook").placebo_max[RESID].max() < 0.03


def test_without_key_frequencies_classes_are_decoded():
    task = gi.ModularTask("add", p=7)
    architecture = TransformerArchitecture(
        n_layers=2, n_heads=2, d_model=16, d_head=8, d_mlp=32, d_vocab=8, d_vocab_out=7, n_ctx=3,
        normalization_type="LN",
    )  # fmt: skip
    rows = some_rows(task).nonzero().flatten()
    run = made_run(task, architecture, {0: architecture.initial(seed=0)}, train=rows)
    found = gi.geometry.routing(run, folds=3)
    assert found.frequencies is None
    assert found.by_step.presence.item() < 0.5
    assert "classes are decoded, as there are no key frequencies" in " ".join(found.notes)
    assert len(found.plot().data)
    assert found.hooks == (
        NEURONS, RESID, "blocks.1.mlp.hook_post", "blocks.1.hook_resid_post",
        "ln_final.hook_normalized",
    )  # fmt: skip
    with pytest.raises(gi.InputError, match="frequency=9"):
        gi.geometry.routing(run, frequencies=[9])
    given = gi.geometry.routing(run, folds=3, frequencies=[1, 2], placebos=0)
    by_hook = given.table().set_index("hook")
    assert by_hook.presence.between(0, 1).all()
    assert by_hook.placebo.isna().all()
    assert by_hook.lens["blocks.1.hook_resid_post"] == by_hook.accuracy.iloc[0]
    assert math.isnan(by_hook.lens[NEURONS])
    assert given.split().key_accuracy.isna().all()
    assert "no key_accuracy: the logits are not linear" in " ".join(given.notes)


def test_answers_without_waves_are_decoded_as_classes():
    """Of lattices two sweeps from random ones nothing is read, and of one's class all of it."""
    task = gi.IsingTask(lattice=4, n_temperatures=4, n_repeats=25, sweeps=2, n_train=10, n_test=80)
    rows = torch.arange(10)
    architecture = CNNArchitecture(lattice=4, channels=(2,), d_mlp=8)
    run = made_run(task, architecture, {0: architecture.initial(seed=0)}, train=rows)
    found = gi.geometry.routing(run, placebos=5)
    assert found.frequencies is None
    assert found.hooks == ("conv.0.hook_pool", NEURONS)
    assert any(note.startswith("classes are decoded") for note in found.notes)
    read = found.by_hook[["presence", "placebo"]]
    assert read.stack().between(0.2, 0.8).all()
    assert found.split().key_share.isna().all()
    ridge = FoldedRidge.of(torch.nn.functional.one_hot(task.labels, 2), torch.arange(90) % 5)
    assert class_answers(ridge, task.labels, 2).all()
    with pytest.raises(gi.InputError, match="not a function of one group exponent"):
        gi.geometry.routing(run, frequencies=[1])


def test_zero_factors_and_diverged_checkpoints_are_left_out():
    task = gi.ModularTask("multiply", p=11)
    architecture = TransformerArchitecture(
        n_layers=1, n_heads=1, d_model=8, d_head=8, d_mlp=16, d_vocab=12, d_vocab_out=11, n_ctx=3
    )
    weights = architecture.initial(seed=0)
    lost = {name: weight * torch.nan for name, weight in weights.items()}
    rows = some_rows(task).nonzero().flatten()
    log = gi.load("mod31-small").metrics.head(2)
    run = made_run(task, architecture, {0: lost, 10: weights}, train=rows, metrics=log)
    found = gi.geometry.routing(run, frequencies=[1, 3])
    assert "rows with a zero factor are left out" in " ".join(found.notes)
    assert found.by_step.gap.isna().tolist() == [True, False]
    assert "activations are not finite at 0" in found.notes
    assert found.peak[0] == 10


def test_what_cannot_be_asked_is_said_in_a_line(found31):
    run = gi.load("mod31-small")
    net = torch.nn.Sequential(torch.nn.Embedding(8, 4), torch.nn.Flatten(), torch.nn.Linear(12, 7))
    small = gi.ModularTask("add", p=7)
    for call, said in (
        (lambda: gi.geometry.routing(net, task=small), "nothing to decode: "),
        (lambda: gi.geometry.routing(run, -1, folds=100), "cannot be parted into 100 folds"),
        (lambda: gi.geometry.routing(run, -1, folds=1), "folds=1 is not a whole number from 2"),
        (lambda: gi.geometry.routing(run, -1, hooks=[]), "names no activation"),
        (lambda: gi.geometry.routing(run, -1, hooks=["blocks.0.hook"]), "no activation"),
        (lambda: gi.geometry.routing(run, [400, 300]), "do not rise"),
    ):
        with pytest.raises(gi.InputError, match=said) as error:
            call()
        assert "\n" not in str(error.value)
    assert found31.to_dict()["by_step"][0]["step"] == 0
    assert "largest gap at blocks.0.hook_resid_post" in str(found31)


def test_the_measure_of_a_run():
    row = measured("mod31-small", ["routing"])
    assert row["routing_gap"] == pytest.approx(0.18, abs=0.02)
    assert (row["routing_gap_step"], row["routing_gap_at_end"]) == (300, 0)
