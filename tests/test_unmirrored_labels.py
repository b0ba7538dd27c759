"""A network that answers (b, a) from (a, b) has memorised, whatever its test accuracy."""

import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.tasks import unmirrored_rows


class Recorded:
    """Runs of a lookup table's accuracies: an MLP's folder with the metrics that are wanted."""

    def __init__(self, folder, task, mask):
        self.folder, self.task, self.mask = folder, task, mask

    def run(self, rows):
        recipe = gi.Recipe(p=self.task.p, model="mlp", widths=[4], steps=0)
        model = gi.train(recipe, self.folder / "weights").model()
        with gi.Recorder(self.folder / "run", task=self.task, train_mask=self.mask) as recorder:
            for step, metrics in rows:
                recorder.save(step, model, metrics=metrics)
        return gi.load(self.folder / "run")


def metrics(train, mirrored, unmirrored, share):
    return {
        "train_loss": 0.1, "test_loss": 5.0, "train_acc": train,
        "test_acc": share * mirrored + (1 - share) * unmirrored,
        "test_loss_unmirrored": 5.0, "test_acc_unmirrored": unmirrored,
    }  # fmt: skip


@pytest.fixture
def recorded(tmp_path):
    task = gi.ModularTask("add", p=23, equals_token=False)
    mask = torch.rand(task.n_inputs, generator=torch.Generator().manual_seed(0)) < 0.75
    return Recorded(tmp_path, task, mask)


def share_of_mirrored(recorded):
    test = ~recorded.mask
    return 1 - float(unmirrored_rows(recorded.task, recorded.mask).sum() / test.sum())


def test_mirrors_are_memorisation(recorded):
    share = share_of_mirrored(recorded)
    assert share > 0.6
    learned = [(100 * k, metrics(1.0, 1.0, 0.0, share)) for k in range(1, 20)]
    run = recorded.run([(0, metrics(0.04, 0.04, 0.04, share)), *learned])
    assert run.metrics["test_acc"].iloc[-1] > 0.6
    found = gi.detect_phases(run)
    assert found.label == "memorized"
    assert found.grok_step_unmirrored is None
    assert any("unmirrored test accuracy reaches 0.0" in reason for reason in found.reasons)
    table = gi.detect_phases(run.metrics)  # a table with those columns says the same
    assert (table.label, table.grok_step_unmirrored) == ("memorized", None)
    without = run.metrics.drop(columns=["test_loss_unmirrored", "test_acc_unmirrored"])
    assert gi.detect_phases(without).label == "undetermined"


def test_a_circuit_that_follows_is_dated_on_both(recorded):
    share = share_of_mirrored(recorded)
    rows = [
        (100 * k, metrics(1.0 if k else 0.04, 1.0 if k else 0.04, float(k >= 10), share))
        for k in range(25)
    ]
    found = gi.detect_phases(recorded.run(rows))
    assert found.label == "grokked"
    assert (found.grok_step, found.grok_step_unmirrored, found.t_test) == (1000, 1000, 1000)
    assert found.to_dict()["grok_step_unmirrored"] == 1000


def test_too_few_unmirrored_pairs_decide_nothing(tmp_path):
    task = gi.ModularTask("add", p=7, equals_token=False)
    mask = torch.ones(49, dtype=torch.bool)
    mask[[1, 2, 8, 16]] = False  # two of these are on the diagonal
    recorded = Recorded(tmp_path, task, mask)
    rows = [(100 * k, metrics(float(k > 0), float(k > 0), float(k > 0), 0.5)) for k in range(9)]
    found = gi.detect_phases(recorded.run(rows))
    assert found.label == "undetermined"
    assert any("of 4 test pairs 2 have a mirror" in reason for reason in found.reasons)


def test_an_older_log_is_judged_between_its_checkpoints(shipped, shipped_measures):
    """A log of all test pairs with unmirrored ones at checkpoints bounds what lies between."""
    found = gi.detect_phases(shipped, measures=shipped_measures)
    known = shipped_measures[shipped_measures["test_acc_unmirrored"] >= 0.95]["step"].iloc[0]
    assert found.grok_step <= found.grok_step_unmirrored <= known
    few = shipped_measures.iloc[[0, -1]]  # weights of the beginning and the end alone
    assert gi.detect_phases(shipped, measures=few).label == "grokked"


def test_a_task_without_mirrors_has_no_such_step(tmp_path):
    recipe = gi.Recipe(p=7, operation="subtract", model="mlp", widths=[4], steps=2)
    found = gi.detect_phases(gi.train(recipe, tmp_path / "run"))
    assert found.grok_step_unmirrored is None
    assert any("has no mirrors" in reason for reason in found.reasons)
    told = gi.detect_phases(pd.DataFrame({"step": [0, 1], "test_acc": [0, 1.0]})).reasons
    assert any("no curve of unmirrored test pairs" in reason for reason in told)
