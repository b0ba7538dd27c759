"""Standard streams that a shell closed, that are full, or that nobody reads to the end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SHELL = f"{sys.executable} -m grokinterp.cli"
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
CLOSED = "grokinterp: standard output is closed, so there is nowhere to print to"


def shell(line, **environment):
    """Exit status, standard output and standard error of a line of bash."""
    found = subprocess.run(
        ["bash", "-c", line], check=False, capture_output=True, text=True, timeout=120,
        env={**os.environ, **environment},
    )  # fmt: skip
    return found.returncode, found.stdout, found.stderr


@pytest.fixture(scope="module")
def path(tiny_run):
    return tiny_run.path


@pytest.mark.parametrize("command", ["--version", "--help", "phases {path}", "nonsense"])
def test_a_closed_output_is_one_line_and_exit_2(command, path):
    status, out, err = shell(f"{SHELL} {command.format(path=path)} >&-")
    assert (status, out) == (2, "")
    assert err.startswith(CLOSED)
    assert len(err.splitlines()) == 1


def test_what_is_opened_meanwhile_does_not_become_the_output(run, tmp_path):
    """The lowest free descriptor is the next file's: nothing printed may land in one."""
    out = tmp_path / "run"
    status, _, _ = shell(f"{SHELL} train mod11-quick --set steps=20 --out {out} 2>&- <&-")
    assert status == 0
    assert run("info", out)[0] == 0  # all files are whole


def test_closed_input_and_closed_errors_are_no_obstacle(path):
    status, out, err = shell(f"{SHELL} measure {path} 2>&- <&-")
    assert (status, err) == (0, "")
    assert out.startswith("step,train_loss,")
    assert shell(f"{SHELL} nonsense 2>&-") == (2, "", "")
    assert shell(f"{SHELL} --version >&- 2>&- <&-") == (2, "", "")


@FULL
@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [("--version", ""), ("--version", "1"), ("--help", "1"), ("phases {path}", "")],
)
def test_a_full_output_is_one_line_and_exit_2(command, unbuffered, path):
    line = f"{SHELL} {command.format(path=path)} >/dev/full"
    status, out, err = shell(line, PYTHONUNBUFFERED=unbuffered)
    assert (status, out) == (2, "")
    assert err.startswith("grokinterp: ")
    assert "No space left on device" in err
    assert len(err.splitlines()) == 1


@FULL
def test_full_errors_change_no_status(path):
    assert shell(f"{SHELL} nonsense 2>/dev/full") == (2, "", "")
    assert shell(f"{SHELL} --version >/dev/full 2>/dev/full") == (2, "", "")
    status, out, _ = shell(f"{SHELL} measure {path} 2>/dev/full")  # it would say why some is null
    assert (status, out[:5]) == (0, "step,")


def test_a_reader_that_has_seen_enough_is_no_error():
    line = f"set -o pipefail; {SHELL} train --help | head -c 1 >/dev/null"
    assert shell(line) == (0, "", "")


def test_an_output_of_few_letters_has_the_others_written_out(path, tmp_path):
    named = tmp_path / "nö☃"
    named.symlink_to(path)
    status, out, err = shell(f"{SHELL} info {named}", PYTHONIOENCODING="ascii")
    assert (status, err) == (0, "")
    assert r"n\xf6\u2603" in out
