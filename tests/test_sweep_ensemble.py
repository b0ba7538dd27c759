"""Sweeps whose runs are trained together: the same table, whatever can or cannot be."""

import contextlib
import multiprocessing
import signal
import threading

import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.sweeps import Sweep, executors, run_sweep
from grokinterp.sweeps.driver import SWEEP
from grokinterp.sweeps.executors import Job
from grokinterp.sweeps.storage import place_of
from grokinterp.training import EnsembleTiming, ensemble, loop, train_ensemble
from grokinterp.training.loop import RESUME_NEXT


@pytest.fixture(scope="module")
def sweep(tiny):
    """Six runs of a moment each; the ones of two layers cannot be batched."""
    base = tiny.replace(steps=30, checkpoints="every:10", log_every=10, threads=1)
    return Sweep(base, ({"n_layers": (1, 2)}, {"seed": (0, 1, 2)}))


@pytest.fixture(scope="module")
def alone(sweep, tmp_path_factory):
    return run_sweep(sweep, tmp_path_factory.mktemp("alone"), measure=measure)


@pytest.fixture
def faster(monkeypatch):
    """An ensemble is the faster way, as far as this process can tell; how many members it timed."""
    timed = []

    def timing(recipes):
        timed.append(len(recipes))
        return EnsembleTiming(members=len(recipes), singly=1e-3, together=0.5e-3)

    monkeypatch.setattr(ensemble, "faster_as_ensemble", timing)
    return timed


def together(sweep, size):
    return Sweep(sweep.base, sweep.axes, sweep.measures, size)


def measure(run):
    return dict(run.metrics.iloc[-1])


def same_rows(one, other):
    """All but fingerprints, which follow how a run was trained; bounds as for members elsewhere."""
    columns = [name for name in other if name != "fingerprint"]
    pd.testing.assert_frame_equal(one[columns], other[columns], rtol=1e-6, atol=1e-12)
    return True


def members(out):
    """In an ensemble of how many each run was trained, None where by itself."""
    return [
        gi.load(path.parent).manifest.environment.get("ensemble")
        for path in sorted(out.glob("*/run.json"))
    ]


@pytest.mark.slow
def test_one_worker_makes_the_table_of_single_runs(sweep, alone, faster, tmp_path):
    rows = []
    table = run_sweep(together(sweep, 2), tmp_path, measure=measure, on_row=rows.append)
    assert same_rows(table, alone)
    assert members(tmp_path) == [2, 2, None, None, None, None]
    assert faster == [2]
    assert [row["run"] for row in rows] == list(sweep.recipes())


def test_another_ensemble_is_the_same_sweep_and_measures_nothing_again(sweep, faster, tmp_path):
    calls = []

    def counted(run):
        calls.append(run.path.name)
        return measure(run)

    first = run_sweep(sweep, tmp_path, measure=counted)
    again = run_sweep(together(sweep, 3), tmp_path, measure=counted)
    pd.testing.assert_frame_equal(first, again)
    assert (len(calls), faster) == (6, [])
    assert Sweep.from_toml(tmp_path / SWEEP).ensemble == 3


@pytest.mark.slow
def test_ctrl_c_saves_a_group_and_names_it_and_it_goes_on(
    sweep, alone, faster, tmp_path, monkeypatch
):
    update = loop.Session.update

    def stopping(session):
        update(session)
        if session.step == 17:
            signal.raise_signal(signal.SIGINT)

    url = f"file://{tmp_path}/out"  # of fsspec: every member has a folder of its own
    with monkeypatch.context() as patch:
        patch.setattr(loop.Session, "update", stopping)
        with pytest.raises(
            gi.Interrupted,
            match="stopped at n_layers=1,seed=0, n_layers=1,seed=1, n_layers=1,seed=2, with 0 of 6",
        ):
            run_sweep(together(sweep, 4), url, measure=measure)
    assert len(list((tmp_path / "out").glob("*/resume.safetensors"))) == 3
    assert same_rows(run_sweep(together(sweep, 4), url, measure=measure), alone)
    assert faster == [3]
    assert members(tmp_path / "out") == [3, 3, 3, None, None, None]
    assert not list(tmp_path.rglob("resume*"))


def test_what_a_group_has_measured_before_ctrl_c_is_kept(sweep, faster, tmp_path):
    calls = []

    def stopping(run):
        calls.append(run.path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(run)

    some = Sweep(sweep.base, sweep.axes[1:], ensemble=3)
    with pytest.raises(gi.Interrupted, match="stopped at seed=1, seed=2, with 1 of 3 runs"):
        run_sweep(some, tmp_path, measure=stopping)
    run_sweep(some, tmp_path, measure=stopping)
    assert calls == ["seed=0", "seed=1", "seed=1", "seed=2"]
    assert members(tmp_path) == [3, 3, 3]


def begin(step, make):
    """Make runs until a step, as Ctrl-C does."""
    update = loop.Session.update

    def stopping(self):
        update(self)
        if self.step == step:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Session, "update", stopping)
        with pytest.raises(gi.Interrupted):
            make()


@pytest.mark.slow
def test_runs_begun_singly_or_apart_go_on_singly_and_the_new_ones_together(
    sweep, alone, faster, tmp_path, caplog
):
    wide = Sweep(sweep.base, ({"seed": tuple(range(9))},), ensemble=9)
    recipes = list(wide.recipes().values())
    folders = [tmp_path / name for name in wide.recipes()]
    begin(13, lambda: gi.train(recipes[0], folders[0]))
    begin(7, lambda: train_ensemble(recipes[1:3], folders[1:3]))
    begin(11, lambda: train_ensemble(recipes[3:5], folders[3:5]))
    (folders[1] / RESUME_NEXT).write_bytes(
        (folders[1] / "resume.safetensors").read_bytes()
    )  # of a kill
    gi.train(recipes[5], folders[5])
    gi.train(sweep.base.replace(lr=0.5), folders[6])
    with caplog.at_level("INFO"):
        table = run_sweep(wide, tmp_path, measure=measure)
    assert "6 runs cannot be trained together: " in caplog.text
    assert "seed=7 is saved at step 0, " in caplog.text
    assert members(tmp_path) == [None, 2, 2, 2, 2, None, None, 2, 2]
    went_on = [gi.load(folder).manifest.later for folder in folders[:5]]
    assert all("ensemble" not in later[-1]["environment"] for later in went_on[1:])
    assert [later[-1]["from_step"] for later in went_on[1:]] == [7, 7, 11, 11]
    assert ["holds another run" in note for note in table.note] == [seed == 6 for seed in range(9)]
    losses = ["train_loss", "test_loss"]
    assert same_rows(table.loc[:2, losses], alone.loc[:2, losses])
    assert not list(tmp_path.rglob("resume*"))


@pytest.mark.slow
def test_two_workers_make_the_table_of_single_runs(sweep, alone, tmp_path):
    some = Sweep(sweep.base, ({"n_layers": (1,)}, {"seed": (0, 1, 2)}), ensemble=2)
    assert same_rows(run_sweep(some, tmp_path, measure=measure, workers=2), alone[:3])


class Thread(executors._Worker):
    """A worker that is a thread: SystemExit kills it, as a signal does a process."""

    started = 0

    def __init__(self):
        self.connection, self.theirs = multiprocessing.Pipe()
        self.job, self.ready, self.process = None, False, self
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()
        Thread.started += 1

    def work(self):
        with self.theirs, contextlib.suppress(EOFError, SystemExit):
            self.theirs.send(executors.READY)
            while True:
                for answer in executors._answers(self.theirs):
                    self.theirs.send(answer)

    exitcode = -9

    def join(self, seconds=None):
        self.thread.join(seconds)

    def kill(self):
        """It has ended."""


def die_at_the_second(run):
    if run.recipe.seed == 1:
        raise SystemExit
    return measure(run)


def test_a_run_that_kills_its_group_is_tried_alone_and_gets_the_note_alone(
    sweep, alone, faster, tmp_path, monkeypatch
):
    monkeypatch.setattr(executors, "_Worker", Thread)
    monkeypatch.setattr(executors, "RETRIES", 1)
    place = place_of(tmp_path, across_processes=True)
    recipes = list(sweep.recipes().items())[:4]
    group, two_layers = dict(recipes[:3]), dict(recipes[3:])
    jobs = [Job(some, place, die_at_the_second, 1) for some in (group, two_layers)]
    made = list(executors.run_in_processes(jobs, workers=1))
    assert [each.name for each in made] == [name for name, _ in recipes]
    assert Thread.started == 2 + 2 + 1  # two for the group, two for the run, one for what is left
    assert made.pop(1).found == {
        "note": "its worker was killed 2 times (signal 9); is there memory enough?"
    }
    for each, row in zip(made, (0, 2, 3), strict=True):
        assert each.found["train_loss"] == pytest.approx(alone.train_loss[row], rel=1e-6)
        assert each.run_json == place.read(f"{each.name}/run.json")
    assert faster == [3]
    assert members(tmp_path) == [3, 3, 3, None]


@pytest.mark.parametrize("value", ["0", '"x"', "true", "2.5", "-1", "[8]"])
def test_what_is_no_number_of_runs_is_refused(value, tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(f"seeds = 2\nensemble = {value}\n")
    with pytest.raises(
        gi.InputError, match=r"sweep\.toml: ensemble=.* is not a whole number from 1"
    ):
        Sweep.from_toml(file)
    with pytest.raises(gi.InputError, match="ensemble=True is not a whole number"):
        Sweep(gi.Recipe(), ({"seed": (0, 1)},), ensemble=True)


def test_the_key_of_a_file_comes_back(tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text("seeds = 2\nensemble = 8\n")
    assert Sweep.from_toml(file).ensemble == 8
    file.write_text(Sweep.from_toml(file).to_toml())
    assert Sweep.from_toml(file) == Sweep(gi.Recipe(), ({"seed": (0, 1)},), ensemble=8)
