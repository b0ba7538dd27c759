"""A level counts when it is held, a date when the log shows it, a label when it is no noise."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import grokinterp as gi
from tests.adversarial import score_noise, score_odd

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
SHIPPED = [
    "mod113-grokked", "mod113-steady", "mlp113-grokked", "mlp113-steady", "ising-grokked",
    "ising-steady",
]  # fmt: skip


def dates(found):
    steps = [found.label, found.memorization_step, found.grok_step]
    return [*steps, *((phase.start, phase.end) for phase in found.phases)]


def test_noise_has_learned_nothing():
    assert len(score_noise(200)) <= 2


def test_odd_curves_have_the_label_they_are_made_with():
    wrong = score_odd(135)
    assert len(wrong) <= 0.03 * 135, wrong


@pytest.mark.parametrize("name", SHIPPED)
def test_one_wrong_cell_changes_nothing(name):
    metrics = gi.load(CHECKPOINTS / name).metrics
    clean, rng, other = dates(gi.detect_phases(metrics)), np.random.default_rng(0), []
    for _ in range(40):
        spoilt = metrics.copy()
        row = int(rng.integers(len(metrics)))
        column = rng.choice(["train_loss", "test_loss", "train_acc", "test_acc"])
        spoilt.loc[row, column] = rng.uniform()
        if dates(gi.detect_phases(spoilt)) != clean:
            other.append((row, column))
    assert len(other) <= 1, other


def test_a_cell_that_reaches_the_threshold_for_once_is_no_step(shipped):
    metrics = shipped.metrics.copy()
    metrics.loc[metrics["step"] == 30, "test_acc"] = 0.96
    assert dates(gi.detect_phases(metrics)) == dates(gi.detect_phases(shipped.metrics))
    cut = gi.detect_phases(metrics[metrics["step"] <= 4000])
    assert (cut.label, cut.grok_step) == ("memorized", None)


def test_a_burst_is_told_and_does_not_count(shipped):
    metrics = shipped.metrics.copy()
    metrics.loc[metrics["step"].between(100, 150), "test_acc"] = 1.0
    assert dates(gi.detect_phases(metrics)) == dates(gi.detect_phases(shipped.metrics))
    cut = gi.detect_phases(metrics[metrics["step"] <= 4000])
    assert cut.label == "memorized"
    assert any("from step 100 on for 6 logged rows and is lost" in r for r in cut.reasons)


def curves(learned_train, learned_test, rows=60, every=100, first=0):
    """Steps at which each is learned at once; losses that fall with it."""
    steps = first + np.arange(rows) * every
    train, test = ((steps >= at) * 1.0 for at in (learned_train, learned_test))
    return pd.DataFrame({"step": steps, "train_acc": train, "test_acc": test})


def test_a_level_has_to_be_held_for_five_rows_more():
    frame = curves(300, 3000)
    for rows, step in ((5, 3000), (6, 1000)):
        burst = frame.copy()
        burst.loc[10 : 9 + rows, "test_acc"] = 1.0
        assert gi.detect_phases(burst).grok_step == step
    late = curves(300, 5900)  # held to the end of the log
    assert gi.detect_phases(late).grok_step == 5900


def test_a_log_that_begins_late_does_not_date_what_came_before(shipped):
    metrics = shipped.metrics
    for begin in (500, 2000, 3000):
        found = gi.detect_phases(metrics[metrics["step"] > begin])
        assert (found.label, found.memorization_step, found.grok_step) == ("grokked", None, 6070)
        memorization, formation, _ = found.phases
        assert (memorization.start, memorization.end, formation.start) == (None, None, None)
        assert formation.end_interval[0] <= 5160 <= formation.end_interval[1]
        assert any(f"crossed at step {begin + 10} already" in r for r in found.reasons)
    found = gi.detect_phases(metrics[metrics["step"] > 4000])  # memorised in less than 2035 steps?
    assert (found.label, found.grok_step, found.phases) == ("undetermined", 6070, ())
    found = gi.detect_phases(metrics[metrics["step"] > 7000])
    assert (found.label, found.memorization_step, found.grok_step) == ("undetermined", None, None)
    every_hundred = metrics[metrics["step"] % 100 == 0].iloc[1:]  # begins at 100: not late
    assert gi.detect_phases(every_hundred).memorization_step == 200


@pytest.mark.parametrize("name", ["ising-grokked", "ising-steady"])
def test_a_log_without_its_first_row_keeps_its_label(name):
    metrics = gi.load(CHECKPOINTS / name).metrics  # which begins at the accuracy of a coin
    label = gi.detect_phases(metrics).label
    for rows in (metrics.iloc[1:], metrics.iloc[2::5], metrics.sample(frac=0.5, random_state=1)):
        assert gi.detect_phases(rows).label == label


@pytest.mark.parametrize("step", [0, 12_000])
def test_one_row_shows_no_learning(step):
    row = pd.DataFrame({"step": [step], "train_acc": [1.0], "test_acc": [1.0]})
    found = gi.detect_phases(row)
    assert (found.label, found.memorization_step, found.grok_step) == ("undetermined", None, None)
    found = gi.detect_phases(row.assign(test_acc=0.1))
    assert (found.label, found.memorization_step) == ("memorized", None)


def test_losses_that_fall_together_are_not_grokked():
    steps = np.arange(0, 20_001, 10)
    train = 4.77 * np.exp(-steps / 100) + 1e-4
    test = np.where(steps < 700, 4.77 * np.exp(-steps / 180), 0.1 * np.exp(-(steps - 700) / 2700))
    found = gi.detect_phases(pd.DataFrame({"step": steps, "train_loss": train, "test_loss": test}))
    assert found.label == "steady"
    assert found.grok_step > 10 * found.memorization_step
    assert any("learned with training" in reason for reason in found.reasons)


def test_nothing_groks_before_it_memorises():
    frame = curves(100, 600)
    frame["train_acc"] *= np.where(frame["step"] < 2000, 0.97, 1.0)
    found = gi.detect_phases(frame)
    assert (found.memorization_step, found.grok_step) == (2000, 600)
    assert found.label == "undetermined"
    assert any("before train does" in reason for reason in found.reasons)


def test_logarithms_of_losses_are_refused():
    frame = pd.DataFrame({"step": [0, 1], "train_loss": [0.6, -2.0]})
    with pytest.raises(gi.InputError, match=r"'train_loss' has -2, .*10\*\*x for log10"):
        gi.detect_phases(frame)
    frame.loc[1, "train_loss"] = -1e-8
    told = gi.detect_phases(frame).reasons
    assert any("train_loss: 1 rows that rounding made negative" in reason for reason in told)
