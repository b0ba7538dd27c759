import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import grokinterp as gi
from grokinterp.base import files
from grokinterp.base.files import hold, write_whole
from grokinterp.training import loop

HOLDER = """
import sys, time
from pathlib import Path
from grokinterp.base.files import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path/run."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_with_the_owner_named(holder, tiny, tmp_path):
    expected = rf"run is being written by process {holder.pid} on \S+ since 2\S+ \S+ UTC; wait"
    with pytest.raises(gi.InputError, match=expected):
        gi.train(tiny, tmp_path / "run")
    recorder = gi.Recorder(tmp_path / "run", task=tiny.build_task())
    with pytest.raises(gi.InputError, match=expected):
        recorder.save(0, gi.train(tiny.replace(steps=1), tmp_path / "other").model())
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_kill_frees_the_folder(holder, tiny, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run/.lock").exists()
    assert gi.train(tiny.replace(steps=1), tmp_path / "run").finished
    assert not (tmp_path / "run/.lock").exists()


def test_threads_of_one_process_exclude_each_other_too(tmp_path):
    refused = []

    def try_it():
        with pytest.raises(gi.InputError, match=f"by this very process {os.getpid()} on"):
            hold(tmp_path)
        refused.append(True)

    with hold(tmp_path):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert refused
    hold(tmp_path).release()


def test_of_many_at_once_one_is_in_at_a_time(tmp_path):
    """Locks that are taken, freed and removed all the time, and two are never held."""
    inside, entered, most = [], [], []
    end = time.monotonic() + 1

    def work():
        while time.monotonic() < end:
            try:
                with hold(tmp_path / "new"):
                    inside.append(1)
                    most.append(len(inside))
                    entered.append(1)
                    inside.pop()
            except gi.InputError:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(entered) > 20
    assert max(most) == 1
    assert not (tmp_path / "new/.lock").exists()


def test_a_folder_that_was_made_for_nothing_is_removed(tmp_path):
    with hold(tmp_path / "a/b"):
        assert (tmp_path / "a/b/.lock").exists()
    assert not (tmp_path / "a").exists()


def test_a_lock_that_is_dropped_is_free(tmp_path):
    hold(tmp_path)
    hold(tmp_path).release()
    assert not list(tmp_path.iterdir())


def test_a_signal_before_the_with_begins_leaves_no_lock(tmp_path, monkeypatch):
    def stopped(descriptor):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "_name_owner", stopped)
        with pytest.raises(KeyboardInterrupt) as caught:  # its traceback keeps the lock alive
            hold(tmp_path / "made" / "run")
    assert caught.tb
    assert list(tmp_path.iterdir()) == []


def test_a_fork_does_not_free_its_parents_lock(tmp_path):
    with hold(tmp_path) as held:
        if (child := os.fork()) == 0:
            held.release()
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(gi.InputError, match="being written"):
            hold(tmp_path)


def test_an_owner_that_could_not_be_written_down_is_another_process(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with hold(tmp_path), pytest.raises(gi.InputError, match="by another process; wait"):
        hold(tmp_path)


def test_without_locks_the_log_says_so(tmp_path, monkeypatch, caplog):
    def unknown(_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(files, "_lock", unknown)
    with hold(tmp_path / "run"):
        assert "is on a file system without locks" in caplog.text


def test_a_run_that_is_written_can_be_read(holder, tiny_run, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "run", dirs_exist_ok=True)
    run = gi.load(tmp_path / "run")
    run.verify()
    assert gi.train(run.recipe, run.path, resume=True).finished  # nothing to write


def test_a_recorder_holds_its_folder_until_it_is_closed(tiny, tiny_run, tmp_path):
    model = tiny_run.model()
    recorder = gi.Recorder(tmp_path / "run", task=tiny.build_task())
    recorder.save(0, model)
    assert json.loads((tmp_path / "run/.lock").read_text())["pid"] == os.getpid()
    with pytest.raises(gi.InputError, match="by this very process"):
        gi.Recorder(tmp_path / "run", task=tiny.build_task()).save(0, model)
    recorder.close()
    assert not (tmp_path / "run/.lock").exists()
    with pytest.raises(gi.InputError, match="already holds a run"):
        gi.Recorder(tmp_path / "run", task=tiny.build_task()).save(0, model)
    assert not (tmp_path / "run/.lock").exists()


def test_a_run_finished_meanwhile_is_not_begun_again(tiny, tiny_run, tmp_path, monkeypatch):
    """Between the first look at a run and the lock, its owner writes the end of it."""
    shutil.copytree(tiny_run.path, tmp_path / "run")
    content = (tmp_path / "run/run.json").read_bytes()
    is_finished = loop.is_finished
    first = iter([True])
    monkeypatch.setattr(
        loop, "is_finished", lambda *a: False if next(first, False) else is_finished(*a)
    )
    assert gi.train(tiny, tmp_path / "run", resume=True).finished
    assert (tmp_path / "run/run.json").read_bytes() == content


def test_two_that_write_one_file_at_once_leave_a_whole_one(tmp_path):
    """Each content is of one letter; a mixture, or a piece, is of neither length nor letter."""
    path, seen = tmp_path / "report.html", set()
    end = time.monotonic() + 1.5

    def work(letter):
        while time.monotonic() < end:
            write_whole(path, letter * (300_000 + 50_000 * (letter[0] % 4)))

    threads = [threading.Thread(target=work, args=(letter,)) for letter in (b"a", b"b", b"c")]
    [thread.start() for thread in threads]
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            content = path.read_bytes()
            assert content == content[:1] * (300_000 + 50_000 * (content[0] % 4))
            seen.add(content[:1])
    assert len(seen) > 1
    assert [child.name for child in tmp_path.iterdir()] == ["report.html"]


def test_what_a_kill_left_aside_is_used_again(tmp_path):
    (tmp_path / ".writing-file").write_bytes(b"half of something longer")
    write_whole(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_where_there_are_no_locks_files_are_still_written_whole(tmp_path, monkeypatch):
    def unknown(_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(files, "_lock", unknown)
    write_whole(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"


class TestImport:
    @pytest.fixture
    def source(self, tiny_run, tmp_path):
        gi.export(tiny_run, tmp_path / "demo.pth")
        return tmp_path / "demo.pth"

    def test_two_imports_into_one_folder_exclude_each_other(self, source, tmp_path):
        out = tmp_path / "runs/new"
        with (
            hold(out, file=tmp_path / "runs/.importing-new.lock"),
            pytest.raises(gi.InputError, match=r"new is being written by this very process"),
        ):
            gi.import_run(source, out)
        assert gi.import_run(source, out).finished
        assert [path.name for path in out.parent.iterdir()] == ["new"]

    def test_what_a_killed_import_left_is_cleaned_up(self, source, tmp_path):
        aside = tmp_path / "runs/.importing-new"
        aside.mkdir(parents=True)
        (aside / "run.json").write_text("half")
        (aside.parent / ".importing-new.lock").write_text("dead")
        gi.import_run(source, tmp_path / "runs/new").verify()
        assert [path.name for path in aside.parent.iterdir()] == ["new"]

    def test_a_folder_with_a_dead_lock_is_empty_and_one_that_is_held_is_not(self, source, tmp_path):
        out = tmp_path / "run"
        with hold(out), pytest.raises(gi.InputError, match="run is being written by"):
            gi.import_run(source, out)
        out.mkdir()
        (out / ".lock").write_text("dead")
        gi.import_run(source, out).verify()
        assert not (out / ".lock").exists()

    def test_into_the_folder_that_one_is_in(self, source, tmp_path, monkeypatch):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        gi.import_run(source, ".")
        gi.load(tmp_path / "here").verify()
