"""Several processes at one folder, or at one file."""

import signal
import time
from pathlib import Path

from grokinterp.base.files import write_whole
from tests.stress.bench import (
    TINY,
    Bench,
    Program,
    command,
    differing,
    finish,
    train,
    unbroken,
    unreadable,
    wait_for,
)

LONG = TINY.replace(steps=200, checkpoints="every:5")


def second(bench: Bench) -> None:
    """A second training, and an import, are refused with the owner named; readers are not."""
    expected = unbroken(bench, LONG)
    for _ in range(bench.some(10, quick=1)):
        out = bench.new()
        first = train(bench, LONG, out)
        assert wait_for(lambda out=out: (out / "weights/step_00000005.safetensors").exists())
        other = train(bench, LONG, out)
        reader = Program(bench.folder / f"log-{time.monotonic_ns()}", command, "info", out)
        status, problem = other.end(), None
        if not first.running:
            problem = "the first ended before the second was refused; nothing was tried"
        elif status != 2 or f"being written by process {first.process.pid} on " not in other.said():
            problem = f"the second was not refused ({status}): {other.said()}"
        if not problem and reader.end():
            problem = f"it could not be read: {reader.said()}"
        if first.end():
            problem = problem or f"the first was harmed: {first.said()}"
        bench.check(problem or differing(out, expected))


def crowd(bench: Bench) -> None:
    """Five at once on a new folder, one killed now and then, until the run is done."""
    expected = unbroken(bench, LONG)
    for _ in range(bench.some(6, quick=1)):
        out, problem = bench.new(), None
        for _ in range(bench.some(6, quick=2)):
            several = [train(bench, LONG, out) for _ in range(bench.some(5, quick=3))]
            time.sleep(bench.chance.uniform(0.05, 0.8))
            for program in several:
                status = program.end(signal.SIGKILL if bench.chance.random() < 0.4 else None)
                refused = status == 2 and "being written by" in program.said()
                if status not in (0, -signal.SIGKILL) and not refused:
                    problem = problem or f"status {status}: {program.said()[-300:]}"
            problem = problem or unreadable(out)
        bench.check(problem or finish(bench, LONG, out, expected))


def one_file(bench: Bench) -> None:
    """Several write one file at once, and some are killed: whole at every moment, nothing aside."""
    path = bench.new("report.html")
    several = [Program(bench.folder / f"log{i}", write, path, i) for i in range(4)]
    end = time.monotonic() + bench.some(10, quick=1)
    while time.monotonic() < end:
        if path.exists():
            content = path.read_bytes()
            bench.check(None if content == _content(content[0]) else "a part of a file was seen")
        if bench.chance.random() < 0.01:
            number = bench.chance.randrange(len(several))
            several[number].end(signal.SIGKILL)
            several[number] = Program(bench.folder / f"log{number}", write, path, number)
    for program in several:
        program.end(signal.SIGKILL)
    write_whole(path, b"last")
    # Aside, only what was killed while another one wrote; the usual place is used again.
    if path.read_bytes() != b"last" or (path.parent / ".writing-report.html").exists():
        bench.losses.append(f"left {list(path.parent.iterdir())}")


def write(path: Path, number: int) -> None:
    """One content over and over; of another length and other bytes for every process."""
    while True:
        write_whole(path, _content(number))


def _content(number: int) -> bytes:
    return bytes([number]) * (200_000 + 70_000 * number)


FAULTS = {
    "a second process on a run that is being trained": second,
    "many processes on one run, some of them killed": crowd,
    "many processes that write one file, some of them killed": one_file,
}
