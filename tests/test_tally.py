"""What is counted block by block: the same numbers, whatever is kept, in as few forwards."""

import math
import sys

import pytest
import torch

import grokinterp as gi
from grokinterp.fourier.answers import LogitTally
from grokinterp.fourier.spectra import neuron_powers
from grokinterp.progress.measures import AnswerTally, measure_snapshot
from grokinterp.runs._snapshot import Block, Snapshot, Tally, from_weights

snapshots = sys.modules["grokinterp.runs._snapshot"]
TASKS = [{}, {"operation": "multiply"}, {"model": "mlp"}, {"n_layers": 2}]


@pytest.fixture(params=TASKS, ids=str)
def trained(request, tiny, tmp_path):
    changes = request.param
    recipe = gi.Recipe(p=7, d_mlp=32, steps=60, train_fraction=0.5, lr=1e-2, model="mlp")
    recipe = recipe if changes.get("model") == "mlp" else tiny.replace(**changes)
    return gi.train(recipe.replace(checkpoints=[60]), tmp_path / "run")


def small_memory(monkeypatch):
    monkeypatch.setattr(snapshots, "KEPT_CELLS", 150)  # 49 inputs: 3 neurons at a time
    monkeypatch.setattr(snapshots, "BLOCK_ROWS", 10)


def test_measures_and_frequencies_do_not_depend_on_what_is_kept(trained, monkeypatch):
    whole = trained.snapshot()
    expected = measure_snapshot(whole, (1, 2))
    frequencies = gi.key_frequencies(trained)
    powers = neuron_powers(whole)
    with monkeypatch.context() as patch:
        small_memory(patch)
        streamed = trained.snapshot()
        found = measure_snapshot(streamed, (1, 2))
        assert "logits" not in streamed._memo
        assert neuron_powers(streamed).total.shape == powers.total.shape
        torch.testing.assert_close(neuron_powers(streamed).both, powers.both, rtol=1e-5, atol=1e-9)
        again = gi.key_frequencies(trained)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-12, nan_ok=True), name
    assert again.frequencies == frequencies.frequencies
    assert again.emerged == frequencies.emerged
    assert again.other_rules == frequencies.other_rules
    for k, share in frequencies.shares.items():
        assert again.shares[k] == pytest.approx(share, rel=1e-5)


def test_all_tallies_take_one_forward(tiny_run, monkeypatch):
    snapshot = tiny_run.snapshot()
    seen = []
    forward = snapshot._forward
    snapshot._forward = lambda inputs, names: (seen.append(len(inputs)), forward(inputs, names))[1]
    measure_snapshot(snapshot, (1, 2))
    assert sum(seen) == 49  # the logits of so small a table are kept for the second look
    seen.clear()
    small_memory(monkeypatch)
    snapshot._memo.clear()
    measure_snapshot(snapshot, (1, 2))
    n_train = int(tiny_run.train_mask.sum())
    assert sum(seen) == 49 + 3 * n_train  # excluded losses: of all, each, and on neurons


def test_a_tally_of_ones_own(tiny_run, monkeypatch):
    class Sum:
        needs = ("blocks.0.mlp.hook_post",)

        def __init__(self, snapshot):
            self.rows, self.logits, self.neurons = 0, 0.0, 0.0

        def add(self, block):
            assert block.rows == slice(self.rows, self.rows + len(block.logits))
            self.rows = block.rows.stop
            self.logits += float(block.logits.double().sum())
            self.neurons += float(block.activations[self.needs[0]].double().sum())

    expected = tiny_run.snapshot()
    assert isinstance(Sum(expected), Tally)
    monkeypatch.setattr(snapshots, "BLOCK_ROWS", 10)
    snapshot = tiny_run.snapshot()
    found = snapshot.tally(Sum)
    assert found is snapshot.tally(Sum)
    assert found.rows == 49
    assert math.isclose(found.logits, float(expected.logits.double().sum()), rel_tol=1e-6)
    assert math.isclose(found.neurons, float(expected.mlp_post.double().sum()), rel_tol=1e-6)
    # What is known already is shown again, without a forward.
    snapshot.gather("blocks.0.mlp.hook_post")
    snapshot._forward = None
    assert snapshot.tally(LogitTally).squares > 0
    snapshot._memo.pop(Sum)
    assert math.isclose(snapshot.tally(Sum).neurons, found.neurons, rel_tol=1e-6)


def test_scores_of_answers(tiny_run):
    snapshot = tiny_run.snapshot()
    tally = snapshot.tally(AnswerTally).scores
    logits, labels = snapshot.logits.double(), snapshot.task.labels
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(tally.losses, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(tally.right, logits.argmax(dim=1) == labels)
    own = logits.gather(1, labels[:, None])[:, 0]
    best = logits.scatter(1, labels[:, None], -math.inf).max(dim=1).values
    assert torch.equal(tally.margins, own - best)


def test_logits_that_tie_are_scored_like_argmax_and_nan_is_never_right():
    from grokinterp.models.cross_entropy import answer_scores

    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [torch.nan, 0.0], [1.0, 2.0]])
    labels = torch.tensor([0, 1, 0, 1])
    scores = answer_scores(logits, labels)
    assert scores.right.tolist() == [True, False, False, True]
    known = ~logits.isnan().any(dim=1)
    assert torch.equal(scores.right[known], (logits.argmax(dim=1) == labels)[known])


def test_a_model_in_float64_keeps_its_logits(tiny_run):
    """Their copy in float64 is the table itself."""
    weights = {name: w.double() for name, w in tiny_run.weights().items()}
    snapshot = from_weights(
        weights, tiny_run.architecture, tiny_run.task, train_mask=tiny_run.train_mask
    )
    before = snapshot.logits.clone()
    row = measure_snapshot(snapshot, (1, 2))
    assert snapshot.logits.dtype == torch.float64
    assert torch.equal(snapshot.logits, before)
    single = measure_snapshot(tiny_run.snapshot(), (1, 2))
    for name, value in single.items():
        assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-6, nan_ok=True), name


def test_inputs_without_an_exponent_take_no_part_whatever_their_logits_are():
    task = gi.ModularTask("multiply", 5)
    snapshot = Snapshot(task, weights={}, n_layers=1, forward=lambda tokens, names: None)
    found = []
    for value in (0.0, math.nan):
        logits = torch.randn(25, 5, generator=torch.Generator().manual_seed(0))
        logits[task.answer_group.of_input < 0] = value  # of pairs with a zero factor
        tally = LogitTally(snapshot)
        tally.add(Block(slice(0, 25), logits, task.labels, {}))
        found.append((tally.squares, tally.shares.tolist()))
    assert found[0] == found[1]
    assert math.isfinite(found[1][0])
