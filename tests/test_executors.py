"""Sweeps in processes, on Ray and into paths of fsspec: the same runs, whatever is killed."""

import importlib.util
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.base.files import hold
from grokinterp.sweeps import Sweep, measuring, run_sweep
from grokinterp.sweeps.driver import executor_of
from grokinterp.sweeps.executors import Job
from grokinterp.sweeps.live_table import LiveTable
from grokinterp.sweeps.storage import place_of
from grokinterp.sweeps.table import RESULTS
from tests.conftest import grokinterp

pytestmark = pytest.mark.slow

MEASURES = ("sizes",)


@pytest.fixture(scope="module")
def sweep(tiny):
    """Three runs of a moment each, with one thread whoever makes them."""
    base = tiny.replace(steps=30, checkpoints="every:10", log_every=5, threads=1)
    return Sweep(base, ({"seed": (0, 1, 2)},), MEASURES)


@pytest.fixture(scope="module")
def whole(sweep, tmp_path_factory):
    """The folder of the sweep, made by one worker without interruption."""
    folder = tmp_path_factory.mktemp("sweeps") / "whole"
    run_sweep(sweep, folder, measure=measuring(MEASURES))
    return folder


def files(folder):
    """Everything in it, lock files included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def kill_once(run):
    """Killed while it measures a run for the first time, as if by the kernel."""
    mark = run.path.parent.parent / f"killed-{run.path.name}"
    if run.path.name == "seed=1" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return measuring(MEASURES)(run)


def kill_always(run):
    if run.path.name == "seed=1":
        os.kill(os.getpid(), signal.SIGKILL)
    return measuring(MEASURES)(run)


def fail(run):
    raise OSError(28, "No space left on device", str(run.path))


def test_two_workers_make_what_one_makes_though_one_of_them_is_killed(sweep, whole, tmp_path):
    rows = []
    table = run_sweep(sweep, tmp_path / "out", measure=kill_once, workers=2, on_row=rows.append)
    assert (tmp_path / "killed-seed=1").exists()
    assert files(tmp_path / "out") == files(whole)
    assert sorted(row["run"] for row in rows) == list(sweep.recipes())
    pd.testing.assert_frame_equal(table, run_sweep(sweep, whole, measure=measuring(MEASURES)))
    assert multiprocessing.active_children() == []


def test_a_run_that_kills_its_workers_gets_a_note_and_the_others_go_on(
    sweep, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr("grokinterp.sweeps.executors.RETRIES", 1)
    out = shutil.copytree(whole, tmp_path / "out")
    (out / RESULTS).unlink()
    table = run_sweep(sweep, out, measure=kill_always, workers=2)
    assert list(table.note) == [
        "", "its worker was killed 2 times (signal 9); is there memory enough?", ""
    ]  # fmt: skip
    assert table.label.isna().sum() + (table.label == "").sum() == 1


def test_an_error_that_is_no_runs_own_ends_the_sweep(sweep, tmp_path):
    one = Sweep(sweep.base, ({"seed": (0,)},))
    with pytest.raises(OSError, match="No space left") as failed:
        run_sweep(one, tmp_path, measure=fail, workers=2)
    assert "in a worker, making seed=0" in failed.value.__notes__[0]


COMMAND = """
recipe = "mod11-quick"
seeds = 2
[set]
steps = 6000
d_mlp = 16
d_model = 8
n_heads = 1
threads = 1
checkpoints = [100]
"""


@pytest.fixture
def begun(tmp_path):
    """A sweep of two workers, in a session of its own, that has begun both of its runs."""
    (tmp_path / "sweep.toml").write_text(COMMAND)
    command = [
        sys.executable, "-m", "grokinterp.cli", "sweep", tmp_path / "sweep.toml",
        "--out", tmp_path / "out", "--workers", "2",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # nohup ... & ignores it
    )  # fmt: skip
    while len(list((tmp_path / "out").glob("*/resume.safetensors"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    yield process, tmp_path / "out"
    process.kill()
    process.communicate()


def test_ctrl_c_in_a_terminal_saves_every_run_and_says_what_is_done(begun):
    process, out = begun
    step = last_saved(out)
    os.killpg(process.pid, signal.SIGINT)
    printed, err = process.communicate(timeout=60)
    assert (process.returncode, printed) == (130, "")
    assert err.startswith("grokinterp: stopped at seed=")
    assert err.endswith(f"with 0 of 2 runs in the table; nothing is lost, sweep into {out} again "
                        "to go on.\n")  # fmt: skip
    assert len(err.splitlines()) == 1
    assert not list(out.rglob(".lock"))
    assert all(now > before for now, before in zip(last_saved(out), step, strict=True))


def last_saved(out):
    """Times at which runs were saved."""
    return [path.stat().st_mtime_ns for path in sorted(out.glob("*/resume.safetensors"))]


def test_a_killed_sweep_goes_on_at_once_and_a_second_driver_is_refused(begun, tmp_path):
    process, out = begun
    asked = Sweep.from_toml(tmp_path / "sweep.toml")
    with pytest.raises(gi.InputError, match=f"is being written by process {process.pid} on "):
        run_sweep(asked, out, measure=measuring(()))
    process.kill()
    process.wait()
    table = run_sweep(asked, out, measure=measuring(()), workers=2)  # its workers still save
    assert list(table.note) == ["", ""]
    (tmp_path / "one.toml").write_text(asked.recipes()["seed=1"].to_toml())
    unbroken = tmp_path / "unbroken"
    grokinterp("train", tmp_path / "one.toml", "--out", unbroken)
    assert files(out / "seed=1") == files(unbroken)


def test_a_sweep_whose_folder_is_held_by_this_process_is_refused(sweep, tmp_path):
    with hold(tmp_path / "out"), pytest.raises(gi.InputError, match="is being written by this"):
        run_sweep(sweep, tmp_path / "out")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"executor": "slurm"}, "executor='slurm' is not known"),
        ({"workers": 0}, "workers=0 is not a whole number from 1 to 1024"),
        ({"threads": 0}, "threads=0 is not a whole number"),
        ({"address": "127.0.0.1:6379"}, "give executor='ray'"),
        ({"executor": "ray", "address": "127.0.0.1:1"}, "no Ray cluster at 127.0.0.1:1"),
        ({"executor": "ray", "address": "here"}, "address='here' is no HOST:PORT"),
        ({"workers": 2, "measure": lambda run: {}}, "cannot go to other processes"),
        ({"out": "memory://sweep", "workers": 2}, "within one process"),
        ({"out": "nowhere://sweep"}, "nowhere://sweep cannot be used"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(asked, message, sweep, tmp_path):
    with pytest.raises(gi.InputError) as refused:
        run_sweep(sweep, asked.pop("out", tmp_path / "out"), **asked)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_cores_are_divided_among_the_workers(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)

    def threads(name="local", workers=None, threads=None, address=None):
        return executor_of(name, workers=workers, threads=threads, address=address)[1]

    assert [threads(workers=n) for n in (None, 1, 2, 3, 16)] == [8, 8, 4, 2, 1]
    assert threads(workers=2, threads=5) == 5
    assert [threads("ray", workers=4), threads("ray", address="h:1")] == [2, 1]


# Paths of fsspec.


def fetched(url):
    """Everything below a path of fsspec."""
    system, path = fsspec.core.url_to_fs(url)
    return {name.removeprefix(f"{path}/"): system.cat_file(name) for name in system.find(path)}


@pytest.mark.parametrize("protocol", ["memory://", "file://"])
def test_a_path_of_fsspec_gets_what_a_folder_gets(protocol, sweep, whole, tmp_path, monkeypatch):
    url, scratch = f"{protocol}{tmp_path}/out", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    calls = []

    def stopping(run):
        calls.append(run.path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measuring(MEASURES)(run)

    with pytest.raises(gi.Interrupted, match=f"stopped at seed=1, with 1 of 3 .* into {url} again"):
        run_sweep(sweep, url, measure=stopping)
    assert "seed=1/run.json" in fetched(url)  # trained, put there, and not measured
    before = fetched(url)
    table = run_sweep(sweep, url, measure=stopping)
    assert calls == ["seed=0", "seed=1", "seed=1", "seed=2"]
    assert fetched(url) == files(whole)
    assert {name: before[name] for name in before if name.startswith("seed=")}.items() <= (
        fetched(url).items()
    )
    pd.testing.assert_frame_equal(table, run_sweep(sweep, url, measure=stopping))
    assert len(calls) == 4
    assert list(scratch.iterdir()) == []


def test_a_begun_run_is_fetched_and_goes_on(sweep, whole, tmp_path):
    """Also where what was put there last was cut off, and by another process."""
    url = f"file://{tmp_path}/out"
    recipe = next(iter(sweep.recipes().values()))
    place = place_of(url, across_processes=False)
    with pytest.raises(KeyboardInterrupt), place.run_folder("seed=0") as folder:
        train_until(recipe, folder, step=20)
    there = fetched(url)
    assert "seed=0/resume.safetensors" in there
    assert "seed=0/weights/step_00000030.safetensors" not in there
    cut = tmp_path / "out/seed=0/weights/step_00000030.safetensors"
    cut.write_bytes(b"cut off")
    run_sweep(sweep, url, measure=measuring(MEASURES), workers=2)
    assert fetched(url) == files(whole)


def train_until(recipe, folder, *, step):
    """Stop as Ctrl-C does when a step is saved."""
    from grokinterp.training import loop

    with pytest.MonkeyPatch.context() as patch:
        update = loop.Session.update

        def stopping(session):
            update(session)
            if session.step == step:
                signal.raise_signal(signal.SIGINT)

        patch.setattr(loop.Session, "update", stopping)
        gi.train(recipe, folder, resume=True)


# The live table.


def test_the_live_table_has_a_line_for_every_run_in_training(sweep, tmp_path):
    place = place_of(tmp_path, across_processes=False)
    recipes = sweep.recipes()
    together = {name: recipes[name] for name in ("seed=1", "seed=2")}
    jobs = [Job({"seed=0": recipes["seed=0"]}, place, None, 1), Job(together, place, None, 1)]
    run_json = gi.train(recipes["seed=2"], tmp_path / "seed=2").path / "run.json"  # before it began
    live = LiveTable(jobs, n_runs=5)
    assert live.lines() == []
    with pytest.raises(KeyboardInterrupt):
        train_until(recipes["seed=1"], tmp_path / "seed=1", step=20)
    last = gi.load(tmp_path / "seed=1").metrics.iloc[-1]
    ((name, step, logged),) = live.lines()
    assert (name, step) == ("seed=1", "20 of 30")
    assert logged == (  # of the six that are logged
        f"train {last.train_loss:.2g} {last.train_acc:.0%}, "
        f"test {last.test_loss:.2g} {last.test_acc:.0%}"
    )
    assert live.counts(1) == "2 of 5 runs done, 1 in training, 2 waiting"
    os.utime(run_json)
    assert [line[0] for line in live.lines()] == ["seed=1", "seed=2"]
    first, second, *others = live.text(columns=100, rows=24).splitlines()
    assert first.split() == ["seed=1", "20", "of", "30"]
    assert second.strip() == logged
    assert " ".join(others[2:]) == live.counts(2)
    live.done("seed=1", failed=True)
    live.done("seed=2", failed=False)
    assert live.counts(0) == "3 of 5 runs done, 0 in training, 1 waiting, 1 failed"


@pytest.mark.parametrize(("columns", "rows"), [(200, 50), (80, 24), (40, 10), (20, 5), (3, 2)])
def test_the_live_table_fits_half_of_a_screen_and_forty_columns(tmp_path, columns, rows):
    """A line that a narrower terminal would wrap could not be taken back."""
    place = place_of(tmp_path, across_processes=False)
    recipes = {f"{'a' * 50}={i}": gi.Recipe(p=5, steps=100_000_000) for i in range(30)}
    live = LiveTable([Job(recipes, place, None, 1)], n_runs=10_000)
    metrics = "step,train_loss,test_loss,train_acc,test_acc\n99999999,1.234e-07,1.234e-07,1,1\n"
    for name in recipes:
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
        (tmp_path / name / "metrics.csv").write_text(metrics)
    lines = live.text(columns=columns, rows=rows).split("\n")
    assert max(map(len, lines)) <= min(39, columns - 1)
    assert len(lines) <= max(1, rows - 1)
    if columns >= 40:
        assert len(lines) <= rows // 2 + 1
        assert re.fullmatch("…a+=0  99999999 of 100000000", lines[0])
        assert lines[1] == "  train 1.2e-07 100%, test 1.2e-07 100%"
        assert lines[-1].endswith("waiting")


# Ray.


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra ray")
def test_ray_makes_the_same_runs_without_a_word(tmp_path, sweep, whole):
    """In a process of its own: Ray's own warnings are no errors of ours."""
    (tmp_path / "sweep.toml").write_text(sweep.to_toml())
    result = subprocess.run(
        [sys.executable, "-m", "grokinterp.cli", "sweep", tmp_path / "sweep.toml",
         "--out", tmp_path / "out", "--executor", "ray", "--workers", "2"],
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 4
    assert files(tmp_path / "out") == files(whole)


def test_without_ray_the_extra_is_named(sweep, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(gi.InputError, match=r"pip install 'grokinterp\[ray\]'"):
        run_sweep(sweep, tmp_path / "out", executor="ray")
