"""What every fault needs: a place, chance, a count of what was tried, and the programs to disturb.

Programs are forked from a server that has everything imported, so that a try takes a fraction of a
second. They compute with one thread each.
"""

import contextlib
import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import grokinterp as gi
from grokinterp.base.files import LOCK

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.stress.preload"])
TINY = gi.Recipe(
    p=7, d_model=16, n_heads=2, d_head=8, d_mlp=32, steps=60, checkpoints="every:5",
    train_fraction=0.5, lr=1e-2, threads=1,
)  # fmt: skip
NOTHING_YET = ("holds no checkpoint yet", "does not exist", "has no run.json")
WAITING = 120.0  # seconds, for what should take one


@dataclass
class Bench:
    """One fault being tried: `check` counts, and remembers what was lost."""

    folder: Path
    chance: random.Random
    quick: bool = False
    tried: int = 0
    losses: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def survived(self) -> int:
        """How many of those tried lost nothing."""
        return self.tried - len(self.losses)

    def check(self, problem: str | None) -> None:
        """Count a try; `problem` says what was lost."""
        self.tried += 1
        if problem is not None:
            self.losses.append(problem)

    def some(self, usual: int, *, quick: int) -> int:
        """How often to try."""
        return quick if self.quick else usual

    def new(self, name: str = "run") -> Path:
        """A path that is not there yet, in a folder of its own."""
        place = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        place.mkdir(parents=True)
        return place / name


Fault = Callable[[Bench], None]


class Program:
    """A command of grokinterp, or a function of this package, in a process of its own."""

    def __init__(self, log: Path, function: Callable[..., None], *arguments: object) -> None:
        self.log = log
        self.process: BaseProcess = FORKS.Process(
            target=_in_the_fork, args=(str(log), function, arguments), daemon=True
        )
        self.process.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def end(self, number: int | None = None) -> int:
        """Its exit status, after a signal if one is given; negative if a signal ended it."""
        if number is not None and self.process.pid is not None and self.running:
            os.kill(self.process.pid, number)
        self.process.join(WAITING)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            return 999
        return self.process.exitcode

    def said(self) -> str:
        """Everything it wrote."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def command(*arguments: object, traps: "Traps | None" = None) -> None:
    """Run the command line in this process, which ends."""
    from grokinterp import cli

    if traps is not None:
        traps.set()
    sys.argv = ["grokinterp", *map(str, arguments)]
    cli.main()


@dataclass(frozen=True)
class Traps:
    """Die, or meet a broken disk, at the n-th time that something is done to the disk."""

    die_at: int | None = None
    fail_from: int | None = None
    number: int = errno.ENOSPC

    def set(self) -> None:
        """Replace the calls of the operating system that change a disk."""
        count = iter(range(1, 10**9))
        for name in (
            "open", "mkdir", "write", "truncate", "fsync", "replace", "rename", "unlink", "rmdir",
            "remove",
        ):  # fmt: skip
            setattr(os, name, self._trapped(name, getattr(os, name), count))

    def _trapped(
        self, name: str, original: Callable[..., object], count: Iterator[int]
    ) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            number = next(count)
            if number == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fail_from is not None and number >= self.fail_from:
                reads = name == "open" and not int(str(arguments[1])) & (os.O_CREAT | os.O_RDWR)
                frees = self.number == errno.ENOSPC and name in ("unlink", "rmdir", "remove")
                if not reads and not frees:
                    raise OSError(self.number, os.strerror(self.number), str(arguments[0]))
            return original(*arguments, **named)

        return call


def warm_up() -> None:
    """Start the server, so that what is measured first does not wait for it."""
    process = FORKS.Process(target=os.getpid)
    process.start()
    process.join()


def train(bench: Bench, recipe: gi.Recipe, out: Path, *more: object, **traps: int) -> Program:
    """A training of a recipe that goes on where it was."""
    file = out.parent / "recipe.toml"
    if not file.exists():
        file.write_text(recipe.to_toml())
    log = bench.folder / f"log-{time.monotonic_ns()}"
    arguments = ("train", file, "--out", out, "--resume", *more)
    return Program(log, _trapped_command, arguments, traps)


def unbroken(bench: Bench, recipe: gi.Recipe) -> dict[str, bytes]:
    """The files of a training that nothing disturbs."""
    out = bench.new("unbroken")
    program = train(bench, recipe, out)
    assert program.end() == 0, program.said()
    return files(out)


def finish(bench: Bench, recipe: gi.Recipe, out: Path, expected: dict[str, bytes]) -> str | None:
    """Go on with a training until it is done; what is wrong with it then."""
    program = train(bench, recipe, out)
    if status := program.end():
        return f"{out} did not go on (status {status}): {program.said().strip()[-300:]}"
    return differing(out, expected)


def differing(out: Path, expected: dict[str, bytes]) -> str | None:
    """The first file that is not, to the bit, as it is after an unbroken training."""
    found = files(out)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            return f"{out}: {name} differs from the unbroken run's"
    return None


def files(folder: Path) -> dict[str, bytes]:
    """All that is in a folder but a lock file, which a kill after the last save may leave."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


def unreadable(out: Path) -> str | None:
    """Why what a run folder holds cannot be used; that there is nothing yet is no reason."""
    try:
        gi.load(out).verify()
    except gi.InputError as error:
        return None if any(text in str(error) for text in NOTHING_YET) else str(error)
    except Exception as error:
        return f"{out}: {error!r}"
    return None


def one_line(program: Program, status: int, *, expected: str, after: str = "") -> str | None:
    """What is wrong with the end of a program that should have ended with 2 and one line.

    A note that has `after` in it may stand before that line.
    """
    said = program.said().strip()
    *notes, last = said.splitlines() or [""]
    if status == 2 and expected in last and all(after and after in note for note in notes):
        return None
    return f"status {status}, expected 2 and one line with {expected!r}: {said[-300:]}"


def as_root(*arguments: object) -> bool:
    """Whether a command of the system could be run."""
    with contextlib.suppress(OSError):
        return not subprocess.run(
            list(map(str, arguments)), capture_output=True, check=False
        ).returncode
    return False


def wait_for(condition: Callable[[], object]) -> bool:
    """Whether something came true in time."""
    end = time.monotonic() + WAITING
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return False


def _trapped_command(arguments: tuple[object, ...], traps: dict[str, int]) -> None:
    command(*arguments, traps=Traps(**traps) if traps else None)


def _in_the_fork(log: str, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(os.dup(1), "w")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    function(*arguments)
