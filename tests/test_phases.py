import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grokinterp as gi


@pytest.fixture(scope="module")
def full(shipped, shipped_measures):
    return gi.detect_phases(shipped, measures=shipped_measures)


def test_a_path_is_read_as_what_lies_there(shipped, shipped_measures, full, tmp_path):
    log = shipped.path / "metrics.csv"
    table = gi.read_log(log)
    assert gi.detect_phases(log) == gi.detect_phases(str(log)) == gi.detect_phases(table)
    found = gi.detect_phases(shipped.path, measures=shipped_measures)
    assert found.to_dict() == full.to_dict()
    (tmp_path / "log.csv").write_text("name,loss_of\n1,2\n")
    with pytest.raises(gi.InputError, match="no column 'step'"):
        gi.detect_phases(tmp_path / "log.csv")
    with pytest.raises(gi.InputError, match="nothing"):
        gi.detect_phases(tmp_path / "nothing")


def ends(phases):
    return {phase.name: phase.end_interval for phase in phases.phases}


def test_a_circuit_factor_too_large_for_a_float_is_still_one():
    frame = synthetic(
        train_acc=[0.0, 1, 1, 1], test_acc=[0.0, 0, 0, 0], excluded_loss=[1, 1e-300, 1, 1e308]
    )
    assert [phase.name for phase in gi.detect_phases(frame).phases][-1] == "circuit_formation"


def test_the_shipped_run_has_three_phases_in_order(full):
    assert full.label == "grokked"
    assert [phase.name for phase in full.phases] == [
        "memorization", "circuit_formation", "cleanup"
    ]  # fmt: skip
    first, second, third = full.phases
    assert (first.start, second.start, third.start) == (0, first.end, second.end)
    dates = [full.memorization_step, first.end, second.end, full.grok_step, third.end]
    assert dates == sorted(dates)
    for phase in full.phases:
        assert phase.end_interval[0] <= phase.end <= phase.end_interval[1]
    assert any("the circuit stood before test loss fell" in reason for reason in full.reasons)
    assert full.table()["end"].tolist() == [first.end, second.end, third.end]


def cut(step):
    return lambda metrics, rng: metrics[metrics["step"] <= step]


def thinned(every):
    return lambda metrics, rng: metrics.iloc[::every]


def log_spaced(number):
    def take(metrics, rng):
        wanted = np.exp(np.linspace(0, np.log(len(metrics) - 1), number)).round().astype(int)
        return metrics.iloc[[0, *sorted(set(wanted))]]

    return take


def noisy(sigma):
    def disturb(metrics, rng):
        metrics = metrics.copy()
        for column in ("train_loss", "test_loss"):
            metrics[column] *= np.exp(rng.normal(0, sigma, len(metrics)))
        return metrics

    return disturb


def spiky(number, factor):
    def disturb(metrics, rng):
        metrics = metrics.copy()
        rows = metrics.index[rng.choice(len(metrics), number, replace=False)]
        metrics.loc[rows, ["train_loss", "test_loss"]] *= factor
        return metrics

    return disturb


def slingshots(number, length):
    def disturb(metrics, rng):
        metrics = metrics.copy()
        for first in rng.choice(len(metrics) - length, number, replace=False):
            rows = metrics.index[first : first + length]
            metrics.loc[rows, ["train_loss", "test_loss"]] += np.exp(rng.normal())
        return metrics

    return disturb


HARMLESS = {
    **{f"cut at {s}": cut(s) for s in (6300, 6600, 7000, 7500, 8000, 8500, 9000, 10000, 11000)},
    **{f"every {n}th row": thinned(n) for n in (2, 5, 10, 20, 50)},
    **{f"{n} rows log-spaced": log_spaced(n) for n in (40, 80, 200)},
    **{f"noise {s}": noisy(s) for s in (0.1, 0.3)},
    **{f"{n} spikes": spiky(n, 100) for n in (10, 30)},
    "slingshots": slingshots(5, 6),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", HARMLESS)
def test_boundaries_stand_what_happens_to_logs(name, seed, shipped, shipped_measures, full):
    metrics = HARMLESS[name](shipped.metrics, np.random.default_rng(seed))
    found = gi.detect_phases(metrics.reset_index(drop=True), measures=shipped_measures)
    assert found.label == "grokked"
    for phase, interval in ends(full).items():
        there = ends(found)[phase]
        if there is None:
            words = {"memorization": "memorisation"}.get(phase, "cleanup")
            given = [reason for reason in found.reasons if words in reason]
            assert any("is null" in reason or "still open" in reason for reason in given)
        else:
            overlap = min(there[1], interval[1]) - max(there[0], interval[0])
            assert overlap >= 0, (phase, there, interval)


def test_most_of_those_are_dated_not_null(shipped, shipped_measures):
    nulls = 0
    for disturb in HARMLESS.values():
        metrics = disturb(shipped.metrics, np.random.default_rng(0)).reset_index(drop=True)
        found = gi.detect_phases(metrics, measures=shipped_measures)
        nulls += sum(phase.end is None for phase in found.phases)
    assert nulls <= 0.2 * 3 * len(HARMLESS)


@pytest.mark.parametrize(
    ("step", "label"),
    [(0, "not_learned"), (300, "memorized"), (3000, "memorized"), (5600, "undetermined")],
)
def test_a_run_cut_before_it_generalises(step, label, shipped):
    found = gi.detect_phases(shipped.metrics[shipped.metrics["step"] <= step])
    assert found.label == label
    assert found.grok_step is None
    assert any("grok_step is null" in reason for reason in found.reasons)
    assert not any(phase.name == "cleanup" for phase in found.phases)


def test_labels_of_runs_trained_here(mod31, tmp_path, tiny):
    assert gi.detect_phases(mod31["mod31-grokked"]).label == "grokked"
    steady = gi.detect_phases(mod31["mod31-steady"])
    assert steady.label == "steady"
    assert steady.phases == ()
    assert any("test follows train" in reason for reason in steady.reasons)
    untrained = gi.detect_phases(gi.train(tiny.replace(steps=0), tmp_path / "untrained"))
    assert untrained.label == "not_learned"
    assert untrained.key_frequencies == ()
    random = gi.Recipe(p=13, operation="random", train_fraction=0.3, steps=300, checkpoints="log:5")
    memorized = gi.detect_phases(gi.train(random, tmp_path / "random"))
    assert memorized.label == "memorized"
    assert memorized.key_frequencies is None


@pytest.mark.slow
def test_a_run_without_weight_decay_memorizes(tmp_path):
    recipe = gi.recipes()["mod113-memorized"].replace(steps=400, checkpoints=[0, 400])
    found = gi.detect_phases(gi.train(recipe, tmp_path / "run"))
    assert found.label == "memorized"
    assert found.key_frequencies == ()


def synthetic(**columns):
    n_rows = len(next(iter(columns.values())))
    return pd.DataFrame({"step": range(0, 1000 * n_rows, 1000), **columns})


def test_losses_alone_and_accuracies_alone(shipped):
    metrics = shipped.metrics
    losses = gi.detect_phases(metrics[["step", "train_loss", "test_loss"]])
    assert losses.label == "grokked"
    assert losses.grok_step == metrics["step"][metrics["test_loss"] < 1e-2].iloc[0]
    accuracies = gi.detect_phases(metrics[["step", "train_acc", "test_acc"]])
    assert accuracies.label == "grokked"
    assert any("accuracy dates cleanup early" in reason for reason in accuracies.reasons)
    one_sided = gi.detect_phases(metrics[["step", "test_acc"]])
    assert one_sided.label == "undetermined"
    assert one_sided.memorization_step is None
    assert one_sided.grok_step == accuracies.grok_step


def test_a_delay_that_the_spacing_cannot_tell_is_undetermined():
    # train learned at 1000, test somewhere in (1000, 3000]: shorter or longer than 1000
    frame = synthetic(train_acc=[0.0, 1, 1, 1], test_acc=[0.0, 0, 0, 1])
    assert gi.detect_phases(frame).label == "grokked"
    frame = pd.DataFrame(
        {"step": [0, 1000, 1900, 2100], "train_acc": [0.0, 1, 1, 1], "test_acc": [0.0, 0, 0, 1]}
    )
    found = gi.detect_phases(frame)
    assert found.label == "undetermined"
    assert any("log more often" in reason for reason in found.reasons)


def test_a_collapse_keeps_the_label_and_is_dated():
    test = [0.0] * 5 + [1.0] * 7 + [0.2, 0.1]
    found = gi.detect_phases(synthetic(train_acc=[0.0, *[1.0] * 13], test_acc=test))
    assert found.label == "grokked"
    assert any("collapses at step 12000" in reason for reason in found.reasons)


def test_what_is_lost_and_regained_is_told():
    test = [0.0] * 5 + [1.0] * 7 + [0.2] * 3 + [1.0] * 6
    found = gi.detect_phases(synthetic(train_acc=[0.0, *[1.0] * 20], test_acc=test))
    assert (found.label, found.grok_step) == ("grokked", 5000)
    told = [reason for reason in found.reasons if "lost at step 12000" in reason]
    assert len(told) == 1
    assert "regained at step 15000" in told[0]


@pytest.mark.parametrize("row", [3, 10, 15])
@pytest.mark.parametrize("columns", [["train_acc", "test_acc"], ["train_loss", "test_loss"]])
def test_a_single_row_decides_nothing(row, columns):
    rows = 20
    frame = synthetic(
        train_acc=[0.0] + [1.0] * (rows - 1), test_acc=[0.0] + [0.2] * (rows - 1),
        train_loss=[4.0] + [1e-5] * (rows - 1), test_loss=[4.0] + [9.0] * (rows - 1),
    )[["step", *columns]]  # fmt: skip
    frame.loc[row, "test" + columns[1][4:]] = 1.0 if columns[1] == "test_acc" else 1e-6
    found = gi.detect_phases(frame)
    assert found.label == "memorized"
    assert found.grok_step is None  # nor does it make a step
    assert any("grok_step is null" in reason for reason in found.reasons)
    frame.loc[row - 1 : row + 2, columns[0]] = frame[columns[0]][0]  # train lost for some rows
    assert gi.detect_phases(frame).label == "memorized"


def test_a_log_that_starts_after_both_crossings_cannot_tell_them_apart():
    frame = pd.DataFrame({"step": [500, 600, 700], "train_acc": [1.0] * 3, "test_acc": [1.0] * 3})
    found = gi.detect_phases(frame)
    assert (found.label, found.margin.intervals) == ("undetermined", None)
    assert any("what came before is not known" in reason for reason in found.reasons)
    frame["step"] -= 500  # nor at step 0, where nothing has been learned yet
    assert gi.detect_phases(frame).label == "undetermined"
    frame = synthetic(train_acc=[0.0] + [1.0] * 9, test_acc=[np.nan] * 5 + [1.0] * 5)
    assert gi.detect_phases(frame).label == "undetermined"  # test starts late: never seen to wait
    frame.loc[4, "test_acc"] = 0.0
    assert gi.detect_phases(frame).label == "grokked"


def test_no_crossing_no_distance():
    found = gi.detect_phases(synthetic(train_acc=[0.0, 0.1, 0.2], test_acc=[0.0, 0.1, 0.1]))
    assert (found.label, found.margin.intervals) == ("not_learned", None)
    assert any("distance from another label is null" in reason for reason in found.reasons)


def test_a_collapse_of_losses_is_dated():
    frame = synthetic(
        train_loss=[4.0, *[1e-4] * 12], test_loss=[4.0, 9, 9, 8, 1, *[1e-3] * 6, 5, 5]
    )
    found = gi.detect_phases(frame)
    assert found.label == "grokked"
    assert any("at step 11000, to 5 at the end (2 logged rows)" in r for r in found.reasons)


def test_slingshots_that_are_made_good_move_no_bend():
    calm = delayed(5000)
    wild = calm.copy()
    for first in (900, 3000, 6000, 8000):
        since = wild["step"] - first
        jump = np.exp(-since / 100).where(since.between(0, 350), 0.0)
        wild["train_loss"] += jump
        wild["test_loss"] += jump
    before, after = gi.detect_phases(calm), gi.detect_phases(wild)
    for one, other in zip(before.phases, after.phases, strict=True):
        assert one.end_interval[0] <= other.end <= one.end_interval[1]


def test_thresholds_are_arguments(shipped):
    strict = gi.detect_phases(shipped.metrics, thresholds={"test_acc": 1.0})
    assert strict.grok_step > gi.detect_phases(shipped.metrics).grok_step
    with pytest.raises(gi.InputError, match="threshold='acc' is not known"):
        gi.detect_phases(shipped.metrics, thresholds={"acc": 1.0})


def test_tables_are_repaired_with_a_note(shipped, full):
    shuffled = pd.concat([shipped.metrics.sample(frac=1, random_state=0), shipped.metrics[:3]])
    found = gi.detect_phases(shuffled)
    assert (found.label, found.grok_step) == (full.label, full.grok_step)
    assert any("sorted" in reason for reason in found.reasons)
    assert any("3 steps were logged twice" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"n": [1, 2], "test_acc": [1, 1]}), "no column 'step'"),
        (pd.DataFrame({"step": [1], "accuracy": [1]}), "none of the columns"),
        (pd.DataFrame({"step": [], "test_acc": []}), "no rows"),
        (pd.DataFrame({"step": [1], "test_acc": ["high"]}), "column 'test_acc'"),
        (pd.DataFrame({"step": [-1], "test_acc": [0.1]}), "whole numbers from 0"),
        (pd.DataFrame({"step": [0], "test_acc": [np.nan]}), "no finite value"),
    ],
)
def test_unusable_tables_are_refused(frame, message):
    with pytest.raises(gi.InputError, match=message):
        gi.detect_phases(frame)


values = st.one_of(st.floats(), st.floats(0, 1), st.just(float("nan")))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.fixed_dictionaries(
            {"step": st.lists(st.integers(0, 50), min_size=n, max_size=n)},
            optional={
                column: st.lists(values, min_size=n, max_size=n)
                for column in ("train_loss", "test_loss", "train_acc", "test_acc", "excluded_loss")
            },
        )
    )
)
def test_any_table_of_numbers_gives_phases_or_one_line(columns):
    frame = pd.DataFrame(columns)
    try:
        found = gi.detect_phases(frame)
    except gi.InputError as refused:
        message = str(refused)
        found = None
    if found is None:
        assert "\n" not in message
        return
    assert found.label in ("grokked", "steady", "memorized", "not_learned", "undetermined")
    assert found.margin.intervals is None or 1 <= found.margin.intervals <= len(frame)
    assert json.loads(json.dumps(found.to_dict()))["label"] == found.label
    dates = [found.memorization_step, *(phase.end for phase in found.phases)]
    if found.label == "grokked" and None not in dates:
        assert dates == sorted(dates)
        assert dates[2] <= found.grok_step <= dates[3]
    for phase in found.phases:
        assert phase.end is None or phase.end_interval[0] <= phase.end <= phase.end_interval[1]
    assert found.curves["step"].is_monotonic_increasing


def delayed(delay_step, n_rows=201, spacing=50):
    """A clean grokking run: train falls at once, test at `delay_step`, both to a floor."""
    steps = np.arange(n_rows) * spacing
    train = np.maximum(np.exp(1.5 - steps / 50), 1e-7)
    test = np.exp(3 - 20 / (1 + np.exp(-(steps - delay_step) / 300)))
    return pd.DataFrame(
        {"step": steps, "train_loss": train, "test_loss": test,
         "train_acc": (train < 1).astype(float), "test_acc": (test < 1).astype(float)}
    )  # fmt: skip


def with_excluded(frame, factor):
    """Excluded loss that rises by a factor between memorisation and the fall of the test loss."""
    rising = np.clip((frame["step"] - 1000) / 2000, 0, 1)
    return frame.assign(excluded_loss=0.01 * factor**rising)


@pytest.mark.parametrize(("factor", "confirmed"), [(12, True), (8, False)])
def test_a_circuit_is_confirmed_by_a_tenfold_excluded_loss(factor, confirmed):
    reasons = gi.detect_phases(with_excluded(delayed(5000), factor)).reasons
    assert any("the circuit stood" in reason for reason in reasons) is confirmed
    assert any("no circuit is confirmed" in reason for reason in reasons) is not confirmed


def test_within_five_percent_of_the_maximum():
    rows = 12
    accuracy = [0.0] + [0.94] * 4 + [0.96] * 4 + [1.0] * 3
    frame = pd.DataFrame(
        {"step": range(0, 100 * rows, 100), "train_acc": [0.0] + [1.0] * 11, "test_acc": accuracy}
    )
    assert "test from step 500 on" in gi.detect_phases(frame).reasons[0]
    frame["test_acc"] *= 0.94  # it now generalises to less than 0.95 of train
    assert gi.detect_phases(frame).label == "undetermined"


def test_cleanup_is_open_while_the_fall_has_only_slowed():
    frame = delayed(5000)
    tail = frame["step"] > 6500
    frame.loc[tail, "test_loss"] *= np.exp(-(frame["step"][tail] - 6500) / 200)
    found = gi.detect_phases(frame)
    assert found.phases[-1].end is None
    assert any("cleanup is still open" in reason for reason in found.reasons)


@pytest.mark.parametrize("loss", [15.0, 0.3, 40.0])
@pytest.mark.parametrize("step", [10_000, 11_500])
def test_a_rise_at_the_end_moves_no_date(loss, step, shipped, shipped_measures, full):
    metrics = shipped.metrics.copy()
    late = metrics["step"] >= step
    metrics.loc[late, ["train_loss", "test_loss"]] = loss
    metrics.loc[late, "test_acc"] = 0.9
    found = gi.detect_phases(metrics, measures=shipped_measures)
    assert any("rises again for good" in reason for reason in found.reasons)
    for phase, interval in ends(full).items():
        there = ends(found)[phase]
        assert there is None or (there[0] <= interval[1] and interval[0] <= there[1])
    assert found.phases[0].end == full.phases[0].end


def test_degenerate_curves_give_a_reason():
    frame = delayed(5000)
    frame["test_loss"] = 0.0
    found = gi.detect_phases(frame)
    assert found.label == "grokked"
    assert all(phase.end is None for phase in found.phases)
    assert any("too few logged steps" in reason for reason in found.reasons)


def test_a_log_that_starts_late_is_not_taken_for_chance():
    frame = pd.DataFrame(
        {"step": [500, 600, 5000], "train_acc": [0.985, 0.99, 0.99], "test_acc": [0.1, 0.1, 0.99]}
    )
    assert gi.detect_phases(frame).label != "not_learned"


def test_accuracies_in_percent_are_told_from_slips():
    frame = pd.DataFrame({"step": [0, 1], "train_acc": [1.0, 99.0], "test_acc": [1.0, 98.0]})
    found = gi.detect_phases(frame)
    assert found.curves["test_acc"].tolist() == [0.01, 0.98]
    assert any("percent" in note for note in found.notes)
    frame = pd.DataFrame({"step": range(100), "test_acc": [0.5] * 99 + [99.0]})
    with pytest.raises(gi.InputError, match="shares from 0 to 1"):
        gi.detect_phases(frame)


def test_a_coarse_log_is_only_steady_as_logged():
    frame = pd.DataFrame({"step": [0, 100, 200], "train_acc": [0, 1, 1.0], "test_acc": [0, 0, 1.0]})
    found = gi.detect_phases(frame)
    assert found.label == "steady"
    assert any("log more often to be certain" in reason for reason in found.reasons)
    assert any("train" in r and "null" not in r for r in found.reasons)


def test_missing_curves_are_named():
    found = gi.detect_phases(pd.DataFrame({"step": [0, 1], "train_loss": [4.0, 1.0]}))
    assert any("grok_step is null: there is no test curve" in reason for reason in found.reasons)
    assert any("there is only train_loss" in reason for reason in found.reasons)


def test_the_times_of_definition_1(full, shipped):
    # Test is that of unmirrored pairs, which a run of 0.2.0 has at checkpoints alone: certain a
    # little after all test pairs are within 5 %.
    assert (full.t_train, full.t_test) == (160, 6140)
    assert [full.to_dict()[key] for key in ("t_train", "t_test")] == [160, 6140]
    assert full.grok_step < full.grok_step_unmirrored == 6140
    all_pairs = gi.detect_phases(shipped.metrics)
    assert (all_pairs.t_train, all_pairs.t_test) == (160, 6070)
    # A run that never generalises has a best test accuracy too, and a time at which it was near it.
    cut_off = shipped.metrics[shipped.metrics.step <= 1000]
    found = gi.detect_phases(cut_off)
    smooth = cut_off.test_acc.rolling(3, center=True, min_periods=2).median()
    near = cut_off.step[cut_off.test_acc >= 0.95 * smooth.max()]
    assert found.label == "memorized"
    assert found.t_train == 160
    assert found.t_test >= near.iloc[0] > 160
    losses = gi.detect_phases(shipped.metrics[["step", "train_loss", "test_loss"]])
    below = shipped.metrics.step[shipped.metrics.test_loss < 1e-2].iloc[0]
    assert losses.t_test == pytest.approx(below, abs=10)
