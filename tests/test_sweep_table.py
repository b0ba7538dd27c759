"""Running sweeps: a row a run, and nothing is done twice or lost."""

import re
import shutil
import signal

import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.sweeps import Sweep, run_sweep, storage
from grokinterp.sweeps.driver import SWEEP
from grokinterp.sweeps.table import PARQUET, RESULTS
from grokinterp.training import loop

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time


@pytest.fixture(scope="module")
def sweep(tiny):
    """Four runs of a moment each."""
    base = tiny.replace(steps=12, checkpoints=[6], log_every=3)
    return Sweep(base, ({"lr": (0.1, 0.01)}, {"seed": (0, 1), "data_seed": (7, 8)}), ("one",))


def measure(run):
    last = run.metrics.iloc[-1]
    return {"loss": last.train_loss, "step": int(last.step), "label": "x", "none": None}


@pytest.fixture(scope="module")
def whole(sweep, tmp_path_factory):
    """The folder of the sweep, made without interruption."""
    folder = tmp_path_factory.mktemp("sweeps") / "whole"
    run_sweep(sweep, folder, measure=measure, progress=False)
    return folder


@pytest.fixture
def out(whole, tmp_path):
    """A copy of it, to change."""
    return shutil.copytree(whole, tmp_path / "out")


class Counted:
    """The measure, and which runs it was called for."""

    def __init__(self):
        self.runs = []

    def __call__(self, run):
        self.runs.append(run.path.name)
        return measure(run)


def lines(folder):
    return (folder / RESULTS).read_text().splitlines(keepends=True)


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_table(sweep, tmp_path):
    table = run_sweep(sweep, tmp_path / "out", measure=measure, progress=False)
    assert list(table.columns) == [
        "run", "lr", "seed", "data_seed", "loss", "step", "label", "none", "note", "fingerprint"
    ]  # fmt: skip
    assert list(table.run) == list(sweep.recipes())
    assert list(table.lr) == [0.1, 0.1, 0.01, 0.01]
    assert list(table.data_seed) == [7, 8, 7, 8]
    for row in table.itertuples():
        run = gi.load(tmp_path / "out" / row.run)
        assert run.finished
        assert run.recipe == sweep.recipes()[row.run]
        assert row.loss == run.metrics.train_loss.iloc[-1]  # to the last bit, through the file
        assert (row.step, row.label, row.note) == (12, "x", "")
    assert table.none.isna().all()
    assert table.fingerprint.nunique() == 4
    assert table.step.dtype == "int64"
    written = pd.read_csv(tmp_path / "out" / RESULTS)
    assert list(written.columns) == list(table.columns)
    assert Sweep.from_toml(tmp_path / "out" / SWEEP) == sweep


def test_a_variant_has_a_column_and_more_of_them_may_come(tiny, tmp_path):
    base = tiny.replace(steps=4, checkpoints=(4,))
    axes = ({"seed": (0, 1)},)
    variants = {"baseline": {}, "no_decay": {"weight_decay": 0}}
    run_sweep(Sweep(base, axes, variants=variants), tmp_path, progress=False)
    more = Sweep(base, axes, variants={"fast": {"lr": 0.1}} | variants)
    before = times(tmp_path)
    table = run_sweep(more, tmp_path, progress=False)
    assert list(table.columns) == ["run", "variant", "seed", "note", "fingerprint"]
    assert list(table.variant) == ["fast"] * 2 + ["baseline"] * 2 + ["no_decay"] * 2
    assert list(table.run) == list(more.recipes())
    trained = tmp_path / "no_decay,seed=1" / "run.json"
    assert times(tmp_path)[trained] == before[trained]
    assert gi.load(trained.parent).recipe == base.replace(weight_decay=0, seed=1)


def test_what_is_done_is_not_touched(sweep, tmp_path):
    counted = Counted()
    first = run_sweep(sweep, tmp_path, measure=counted, progress=False)
    before = times(tmp_path)
    again = run_sweep(sweep, tmp_path, measure=counted, progress=False)
    pd.testing.assert_frame_equal(first, again)
    assert counted.runs == list(sweep.recipes())
    assert times(tmp_path) == before


def test_more_values_are_fine_and_only_they_are_made(sweep, out, tmp_path):
    counted, before = Counted(), times(out)
    more = Sweep(
        sweep.base, ({"lr": (0.2, 0.1, 0.01)}, {"seed": (0, 1), "data_seed": (7, 8)}), ("one",)
    )
    table = run_sweep(more, out, measure=counted, progress=False)
    assert counted.runs == ["lr=0.2,seed=0", "lr=0.2,seed=1"]
    assert list(table.run) == list(more.recipes())
    after = times(out)
    assert {path.name for path in before if before[path] != after[path]} == {
        RESULTS, PARQUET, SWEEP
    }  # fmt: skip
    unbroken = run_sweep(more, tmp_path / "whole", measure=measure, progress=False)
    assert (out / RESULTS).read_bytes() == (tmp_path / "whole" / RESULTS).read_bytes()
    pd.testing.assert_frame_equal(table, unbroken)


def test_only_what_is_missing_or_changed_is_measured_again(sweep, out):
    counted = Counted()
    complete, rows = (out / RESULTS).read_bytes(), lines(out)
    (out / RESULTS).write_text("".join(rows[:2] + rows[3:]))
    run_sweep(sweep, out, measure=counted, progress=False)
    assert counted.runs == ["lr=0.1,seed=1"]
    assert (out / RESULTS).read_bytes() == complete
    rows[3] = rows[3][:-2] + ("0" if rows[3][-2] != "0" else "1") + "\n"  # of another run.json
    (out / RESULTS).write_text("".join(rows))
    run_sweep(sweep, out, measure=counted, progress=False)
    assert counted.runs == ["lr=0.1,seed=1", "lr=0.01,seed=0"]
    assert (out / RESULTS).read_bytes() == complete


def test_a_row_without_fingerprint_or_run_is_no_measurement(sweep, out):
    rows = lines(out)
    rows[1] = rows[1].rpartition(",")[0] + ",\n"
    (out / RESULTS).write_text("".join(rows))
    for name in ("lr=0.1,seed=0", "lr=0.01,seed=1"):
        shutil.rmtree(out / name)
    counted = Counted()
    run_sweep(sweep, out, measure=counted, progress=False)
    assert counted.runs == ["lr=0.1,seed=0", "lr=0.01,seed=1"]


def test_other_measures_are_another_table(sweep, out):
    counted = Counted()
    run_sweep(sweep, out, progress=False)
    assert list(pd.read_csv(out / RESULTS).columns)[4:] == ["note", "fingerprint"]
    run_sweep(sweep, out, measure=counted, progress=False)
    other = Sweep(sweep.base, sweep.axes, ("two",))
    table = run_sweep(other, out, measure=lambda run: {"two": counted(run)["step"]}, progress=False)
    assert counted.runs == 2 * list(sweep.recipes())
    assert list(table.columns)[4:] == ["two", "note", "fingerprint"]


@pytest.mark.parametrize("stop", [0, 17, 40])
def test_interrupted_in_training_and_continued_it_is_the_same_table(
    stop, sweep, whole, tmp_path, monkeypatch
):
    calls = iter(range(10**6))
    update = loop.Session.update

    def stopping(session):
        update(session)
        if next(calls) == stop:
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Session, "update", stopping)
        with pytest.raises(gi.Interrupted, match=f"{stop // 12} of 4 runs in the table; nothing"):
            run_sweep(sweep, out, measure=measure, progress=False)
    counted = Counted()
    table = run_sweep(sweep, out, measure=counted, progress=False)
    assert counted.runs == list(sweep.recipes())[stop // 12 :]
    unbroken = pd.read_csv(whole / RESULTS)
    assert list(table.loss) == list(unbroken.loss)
    assert (out / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()


def test_interrupted_in_measuring(sweep, out):
    (out / RESULTS).unlink()

    def stopping(run):
        if run.path.name == "lr=0.01,seed=0":
            raise KeyboardInterrupt
        return measure(run)

    with pytest.raises(gi.Interrupted, match=r"stopped at lr=0\.01,seed=0, with 2 of 4 runs"):
        run_sweep(sweep, out, measure=stopping, progress=False)
    counted = Counted()
    run_sweep(sweep, out, measure=counted, progress=False)
    assert counted.runs == ["lr=0.01,seed=0", "lr=0.01,seed=1"]


def test_a_kill_between_two_rows_loses_none(sweep, tmp_path, monkeypatch):
    class KilledError(Exception):
        """Stands for a kill: nothing runs after it."""

    def kill(run):
        if run.path.name == "lr=0.1,seed=1":
            raise KilledError
        return measure(run)

    with pytest.raises(KilledError):
        run_sweep(sweep, tmp_path, measure=kill, progress=False)
    assert list(pd.read_csv(tmp_path / RESULTS).run) == ["lr=0.1,seed=0"]
    counted = Counted()
    run_sweep(sweep, tmp_path, measure=counted, progress=False)
    assert counted.runs == list(sweep.recipes())[1:]


def test_a_run_that_cannot_be_measured_has_a_note_and_is_tried_again(sweep, out):
    (out / RESULTS).unlink()

    def failing(run):
        if run.path.name == "lr=0.1,seed=1":
            raise gi.InputError("its logits, they are not finite")
        return measure(run) | {"note": "in part" if run.path.name == "lr=0.01,seed=0" else ""}

    table = run_sweep(sweep, out, measure=failing, progress=False)
    assert list(table.note) == ["", "its logits, they are not finite", "in part", ""]
    assert list(table.loss.isna()) == [False, True, False, False]
    assert list(table.fingerprint == "") == [False, True, False, False]
    counted = Counted()
    table = run_sweep(sweep, out, measure=counted, progress=False)
    assert counted.runs == ["lr=0.1,seed=1", "lr=0.01,seed=0"]
    assert list(table.note) == [""] * 4


def test_a_run_that_cannot_be_trained_has_a_note_and_the_others_go_on(sweep, out):
    (out / RESULTS).unlink()
    shutil.rmtree(out / "lr=0.1,seed=1")
    gi.train(sweep.base, out / "lr=0.1,seed=1")
    table = run_sweep(sweep, out, measure=measure, progress=False)
    assert "holds another run (data_seed=0 there, 8 asked)" in table.note[1]
    assert list(table.loss.isna()) == [False, True, False, False]


DAMAGE = {
    "bytes": (lambda text: b"\xff" + text, "is damaged"),
    "empty": (lambda text: b"", "other columns"),
    "another header": (lambda text: text.replace(b"seed", b"seeds", 1), "other columns"),
    "a column less": (lambda text: text.replace(b",fingerprint", b"", 1), "other columns"),
    "a column twice": (lambda text: text.replace(b",loss,", b",step,", 1), "other columns"),
    "a short row": (lambda text: text + b"lr=0.1,seed=0,4\n", "is damaged (row"),
    "cut off": (lambda text: text[:-30], "is damaged (row"),
    "a row twice": (lambda text: text + text.splitlines(True)[-1], "is damaged (row"),
    "a row of no run": (lambda text: text.replace(b"lr=0.1,seed=1", b"lr=1,seed=1"), "(row"),
    "a NUL": (lambda text: text.replace(b"x", b'"\0', 1), "is damaged"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_table_is_refused_and_stays_as_it_is(name, sweep, out):
    damage, message = DAMAGE[name]
    path = out / RESULTS
    path.write_bytes(damaged := damage(path.read_bytes()))
    with pytest.raises(gi.InputError) as refused:
        run_sweep(sweep, out, measure=measure, progress=False)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)
    assert "move it away" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == damaged


def test_a_folder_of_another_sweep_is_refused_before_anything_is_trained(sweep, whole):
    before = times(whole)
    others = {
        "lr=0.1,seed=0 holds another run \\(weight_decay=1.0 there, 0.5 asked": Sweep(
            sweep.base.replace(weight_decay=0.5), sweep.axes
        ),
        "lr=0.1,seed=1 is not asked for": Sweep(
            sweep.base, (sweep.axes[0], {"seed": (0,), "data_seed": (7,)})
        ),
        "lr=0.1,seed=0 is not asked for": Sweep(sweep.base, sweep.axes[:1]),
    }
    for message, other in others.items():
        with pytest.raises(gi.InputError, match=message):
            run_sweep(other, whole, measure=measure, progress=False)
    assert times(whole) == before


def test_a_measure_that_returns_a_column_of_the_table_is_refused(sweep, out):
    (out / RESULTS).unlink()
    for column in ("run", "seed", "fingerprint"):
        with pytest.raises(gi.InputError, match=f"measure returns {column!r}"):
            run_sweep(sweep, out, measure=lambda run, c=column: {c: 1}, progress=False)


def test_values_are_written_to_the_last_bit(tmp_path, tiny):
    import numpy as np

    values = {
        "float": 0.1 + 0.2, "numpy": np.float64(1 / 3), "inf": float("inf"), "nan": float("nan"),
        "int": np.int64(3), "yes": np.bool_(True), "text": 'a, "b"\nc', "tuple": (1, 2),
    }  # fmt: skip
    sweep = Sweep(tiny.replace(steps=1), ({"equals_token": (False, True)},))
    table = run_sweep(sweep, tmp_path, measure=lambda run: values, progress=False)
    pd.testing.assert_frame_equal(table, run_sweep(sweep, tmp_path, measure=measure))
    row = table.iloc[1]
    assert (row.float, row.numpy, row.inf, row.int) == (0.1 + 0.2, 1 / 3, float("inf"), 3)
    assert pd.isna(row["nan"])
    assert list(table.equals_token) == [False, True]
    assert table.equals_token.dtype == bool
    assert table.yes.dtype == bool
    assert (row.text, row["tuple"]) == ('a, "b"\nc', "[1, 2]")
    assert not re.search(r"np\.|\bnan,", (tmp_path / RESULTS).read_text().partition("\n")[2])


def test_every_write_is_of_a_whole_table(sweep, tmp_path, monkeypatch):
    written = []
    whole = storage.write_whole
    monkeypatch.setattr(
        storage,
        "write_whole",
        lambda path, text: (written.append(path.name), whole(path, text)),
    )
    run_sweep(sweep, tmp_path, measure=measure, progress=False)
    assert written == [SWEEP, *4 * [RESULTS, PARQUET]]


def test_a_row_whose_keys_are_not_those_of_its_run_is_measured_again(tiny, tmp_path):
    sweep = Sweep(tiny.replace(steps=1), ({"seed": (0, 1)},))
    run_sweep(sweep, tmp_path, measure=lambda run: {"x": 1.0}, progress=False)
    file = tmp_path / "results.csv"
    right = file.read_text()
    file.write_text(right.replace("seed=0,0,", "seed=0,9,"))
    table = run_sweep(sweep, tmp_path, measure=lambda run: {"x": 1.0}, progress=False)
    assert list(table.seed) == [0, 1]
    assert file.read_text() == right


@pytest.mark.slow
def test_a_flipped_bit_is_noticed_and_its_row_measured_again(sweep, whole, out):
    """In whatever cell it is; what tells rows and columns apart is structure, and is refused."""
    path = out / RESULTS
    right, parquet = path.read_bytes(), (out / PARQUET).read_bytes()
    start = right.index(b"lr=0.1,seed=1") + len("lr=0.1,seed=1") + 1
    for position in range(start, right.index(b"\n", start)):
        for bit in (0, 7):
            flipped = bytes([right[position] ^ 1 << bit])
            if right[position : position + 1] in b'",' or flipped in b'",\r\n':
                continue
            path.write_bytes(right[:position] + flipped + right[position + 1 :])
            counted = Counted()
            run_sweep(sweep, out, measure=counted, progress=False)
            assert counted.runs == ["lr=0.1,seed=1"], (position, bit)
            assert (path.read_bytes(), (out / PARQUET).read_bytes()) == (right, parquet)


def test_parquet_has_the_table(sweep, whole, out):
    table = run_sweep(sweep, out, measure=measure, progress=False)
    pd.testing.assert_frame_equal(pd.read_parquet(out / PARQUET), table)
    (out / PARQUET).write_bytes(b"cut off between the two files")
    run_sweep(sweep, out, measure=measure, progress=False)
    assert (out / PARQUET).read_bytes() == (whole / PARQUET).read_bytes()


def test_key_frequencies_are_a_cell(tiny, tmp_path):
    cells = {0: (8, 19), 1: (), 2: None}
    sweep = Sweep(tiny.replace(steps=1), ({"seed": (0, 1, 2)},))
    run_sweep(sweep, tmp_path, measure=lambda run: {"keys": cells[run.recipe.seed]}, progress=False)
    assert list(pd.read_csv(tmp_path / RESULTS, keep_default_na=False)["keys"]) == [
        "[8, 19]", "[]", ""
    ]  # fmt: skip
    assert list(pd.read_parquet(tmp_path / PARQUET)["keys"]) == ["[8, 19]", "[]", ""]


def test_a_file_is_no_folder_for_runs(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(gi.InputError, match="is a file; give a folder"):
        run_sweep(Sweep(tiny, ({"seed": (0, 1)},)), tmp_path / "file")


def test_a_finished_run_whose_weights_are_gone_is_not_passed_over(sweep, out):
    shutil.rmtree(out / "lr=0.1,seed=1" / "weights")

    def look(run):
        run.verify()
        return measure(run)

    table = run_sweep(sweep, out, measure=look, progress=False)
    assert list(table.note.str.contains("is missing")) == [False, True, False, False]
