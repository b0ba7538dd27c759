"""The wall clock jumps by a year, forwards and backwards, while a run is trained."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.stress.bench import (
    TINY,
    WAITING,
    Bench,
    Program,
    command,
    differing,
    train,
    unbroken,
    wait_for,
)

LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"  # of Debian's package `faketime`
YEAR = 366 * 24 * 3600
RECIPE = TINY.replace(steps=120)


def patched(bench: Bench) -> None:
    """Every look at the clock is off by up to a year."""
    expected = unbroken(bench, RECIPE)
    for _ in range(bench.some(8, quick=1)):
        out = bench.new()
        (out.parent / "recipe.toml").write_text(RECIPE.to_toml())
        program = Program(
            bench.folder / f"log{bench.tried}", astray, bench.chance.random(),
            "train", out.parent / "recipe.toml", "--out", out,
        )  # fmt: skip
        wait_for(lambda out=out: (out / "weights").exists())
        other = train(bench, RECIPE, out)
        problem = None
        refused = other.end() == 2 and f"by process {program.process.pid} on" in other.said()
        if not refused and program.running:
            problem = f"the lock was not kept: {other.said()}"
        if status := program.end():
            problem = problem or f"status {status}: {program.said()}"
        bench.check(problem or differing(out, expected))


def astray(seed: float, *arguments: object) -> None:
    """The command line with a clock that is somewhere else at every look."""
    import random

    chance, now, broken_down = random.Random(seed), time.time, time.gmtime
    time.time = lambda: now() + chance.uniform(-YEAR, YEAR)
    time.time_ns = lambda: int(1e9 * time.time())
    time.gmtime = lambda *given: broken_down(*(given or (time.time(),)))
    command(*arguments)


def faked(bench: Bench) -> None:
    """As the operating system would tell it to the whole process: libfaketime, and a jump."""
    found = sorted(Path("/").glob(LIBRARIES.lstrip("/")))
    if not found:
        bench.note = "left out: needs Debian's package faketime"
        return
    expected = unbroken(bench, RECIPE)
    for days in ("+366d", "-366d") * bench.some(2, quick=1):
        out, offset = bench.new(), bench.folder / "offset"
        offset.write_text("+0")
        (out.parent / "recipe.toml").write_text(RECIPE.to_toml())
        command_line = [
            sys.executable, "-m", "grokinterp.cli", "train", str(out.parent / "recipe.toml"),
            "--out", str(out),
        ]  # fmt: skip
        fake = {
            "LD_PRELOAD": str(found[0]), "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with subprocess.Popen(
            command_line,
            env={**os.environ, **fake},
            stderr=subprocess.PIPE,
            text=True,
            stdout=subprocess.DEVNULL,
        ) as process:
            wait_for(lambda out=out: (out / "weights/step_00000010.safetensors").exists())
            offset.write_text(days)
            _, said = process.communicate(timeout=WAITING)
        problem = f"status {process.returncode}: {said}" if process.returncode else None
        bench.check(problem or differing(out, expected))


FAULTS = {
    "the clock somewhere else at every look": patched,
    "the clock jumping by a year in a training (libfaketime)": faked,
}
