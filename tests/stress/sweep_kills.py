"""kill -9 of the workers of a sweep and of the command itself, until all of its runs are there.

python -m tests.stress.sweep_kills [--quick] [--seed S]
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd

import grokinterp as gi
from grokinterp.sweeps import Sweep
from tests.stress.bench import Bench, differing, files

RUNS, QUICK_RUNS = 200, 12
KILLS, QUICK_KILLS = 80, 8  # of workers and of the command together
OF_COMMAND = 0.2  # share of the kills
PAUSE = 2.0  # seconds at most until a kill, once something was written since the last one
BASE = gi.recipes()["mod11-quick"].replace(steps=400, checkpoints="every:50", threads=1)


def sweep_kills(bench: Bench) -> None:
    """Kill at random moments: every run must be whole, in one row, some compared bit by bit."""
    sweep = Sweep(BASE, ({"seed": tuple(range(bench.some(RUNS, quick=QUICK_RUNS)))},))
    out, file = bench.folder / "out", bench.folder / "sweep.toml"
    file.write_text(sweep.to_toml())
    command = [
        sys.executable, "-m", "grokinterp.cli", "sweep", str(file), "--out", str(out),
        "--workers", "2",
    ]  # fmt: skip
    workers = commands = starts = 0
    wanted = bench.some(KILLS, quick=QUICK_KILLS)
    while True:
        starts += 1
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as program:
            while workers + commands < wanted and program.poll() is None:
                wait_for_work(out, program)
                time.sleep(bench.chance.uniform(0, PAUSE))
                if bench.chance.random() < OF_COMMAND:
                    if program.poll() is None:
                        program.kill()
                        commands += 1
                elif victims := workers_of(program.pid):
                    with suppress(ProcessLookupError):
                        kill(bench.chance.choice(victims))
                        workers += 1
            said = program.communicate()[1]
        if program.returncode == 0:
            break
        if program.returncode != -signal.SIGKILL:
            raise AssertionError(f"status {program.returncode}: {said}")
    bench.note = f"{workers} kills of workers, {commands} of the command, {starts} starts"
    again = subprocess.run(command, check=True, capture_output=True, text=True)  # what has notes
    table = pd.read_csv(out / "results.csv")
    if list(table.run) != list(sweep.recipes()) or table.note.notna().any() or again.stderr:
        raise AssertionError(f"the table is not whole: {again.stderr[:500]}")
    chosen = bench.chance.sample(list(sweep.recipes()), bench.some(10, quick=2))
    for name, recipe in sweep.recipes().items():
        bench.check(problem(out / name, recipe, bench if name in chosen else None))


def problem(folder: Path, recipe: gi.Recipe, bench: Bench | None) -> str | None:
    """What is wrong with a run; with a bench it is compared with one trained without a kill."""
    try:
        run = gi.load(folder)
        run.verify()
    except gi.InputError as error:
        return str(error)
    if not run.finished or run.recipe != recipe or run.metrics.step.iloc[-1] != recipe.steps:
        return f"{folder.name} is not whole"
    if bench is None:
        return None
    return differing(folder, files(gi.train(recipe, bench.new()).path))


def wait_for_work(out: Path, program: subprocess.Popen[str]) -> None:
    """Until a run is written to, so that not only workers which are starting are killed."""
    before = written(out)
    while program.poll() is None and written(out) == before:
        time.sleep(0.05)


def written(out: Path) -> int:
    """When a run was written to last."""
    times = [0]
    for path in out.glob("*/run.json"):
        with suppress(OSError):
            times.append(path.stat().st_mtime_ns)
    return max(times)


def workers_of(pid: int) -> list[int]:
    """The worker processes of a command; not what Python starts beside them."""
    found = []
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def kill(pid: int) -> None:
    """As the kernel does when memory runs out."""
    os.kill(pid, signal.SIGKILL)


FAULTS = {"kill -9 of a sweep's workers and command": sweep_kills}


def main() -> None:
    """Try it, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_RUNS} runs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    asked = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="grokinterp-stress-") as folder:
        bench = Bench(Path(folder), random.Random(asked.seed), asked.quick)
        sweep_kills(bench)
    print(f"{bench.note}; {time.monotonic() - start:.0f} s")
    print(f"{bench.survived} of {bench.tried} runs whole", *bench.losses, sep="\n")
    sys.exit(bool(bench.losses))


if __name__ == "__main__":
    main()
