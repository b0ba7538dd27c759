"""Flipped bits, cut and exchanged files: named in one line, or harmless; never used unseen."""

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

import grokinterp as gi
from tests.stress.bench import TINY, Bench, Program, command, differing, train, unbroken

SMALL = TINY.replace(steps=20)
SPOILERS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a flipped bit": lambda content, chance: _flipped(content, chance, 1),
    "eight flipped bits": lambda content, chance: _flipped(content, chance, 8),
    "cut in half": lambda content, chance: content[: len(content) // 2],
    "empty": lambda content, chance: b"",
    "cut somewhere": lambda content, chance: content[: chance.randrange(len(content))],
    "zeros at the end": lambda content, chance: content[:-64] + bytes(min(64, len(content))),
    "a block of zeros": lambda content, chance: _zeros(content, chance),
}


def finished(bench: Bench) -> None:
    """Every kind of file of a finished run: what is read is right, or refused by its name."""
    out = bench.new()
    assert train(bench, SMALL, out).end() == 0
    whole = contents(out)
    for _ in range(bench.some(120, quick=3)):
        for path in sorted(out.rglob("*.*")):
            original = path.read_bytes()
            how, spoilt = spoil(original, bench.chance)
            path.write_bytes(spoilt)
            bench.check(_judge(f"{how}, {path.name}", path, lambda: same(whole, contents(out))))
            path.write_bytes(original)


def resumed(bench: Bench) -> None:
    """Every kind of file of an unfinished run: it goes on to the same bits, or is refused."""
    expected = unbroken(bench, SMALL)
    broken = half_trained(bench)
    for _ in range(bench.some(40, quick=1)):
        for path in sorted(broken.rglob("*.*")):
            out = bench.folder / "copy"
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(broken, out)
            spoilt_file = out / path.relative_to(broken)
            how, spoilt = spoil(path.read_bytes(), bench.chance)
            spoilt_file.write_bytes(spoilt)

            def go_on(out: Path = out) -> str | None:
                gi.train(SMALL, out, resume=True, progress=False)
                return differing(out, expected)

            bench.check(_judge(f"{how}, {path.name} of an unfinished run", spoilt_file, go_on))


def leftovers(bench: Bench) -> None:
    """A lock file, and files aside, full of anything: nothing heeds them."""
    expected = unbroken(bench, SMALL)
    names = (".lock", ".writing-run.json", ".writing-metrics.csv", ".writing-resume.safetensors")
    for name in names[: bench.some(4, quick=1)]:
        broken = half_trained(bench)
        (broken / name).write_bytes(bench.chance.randbytes(5000))
        gi.train(SMALL, broken, resume=True, progress=False)
        bench.check(differing(broken, expected))


def command_line(bench: Bench) -> None:
    """What `info` says of a spoilt run: one line with the file's name and status 2."""
    out = bench.new()
    assert train(bench, SMALL, out).end() == 0
    for attempt in range(bench.some(10, quick=0)):
        for path in sorted(out.rglob("*.*")):
            original = path.read_bytes()
            how, spoilt = spoil(original, bench.chance)
            path.write_bytes(spoilt)
            program = Program(bench.folder / f"log-{attempt}-{path.name}", command, "info", out)
            status, said = program.end(), program.said().strip()
            path.write_bytes(original)
            named = status == 2 and path.name in said and len(said.splitlines()) == 1
            harmless = status == 0 and "all files are whole" in said
            problem = None if named or harmless else f"status {status}: {said[-300:]}"
            bench.check(problem and f"{how}, {path.name}: {problem}")


def spoil(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    """A file as a bad disk gives it back, and what was done to it."""
    while True:
        how = chance.choice(sorted(SPOILERS))
        if (spoilt := SPOILERS[how](content, chance)) != content:
            return how, spoilt


def half_trained(bench: Bench) -> Path:
    """A run with a state to resume from."""
    from grokinterp.training.loop import Session, using_threads

    out = bench.new()
    with using_threads(SMALL.threads):  # as a training does: another number rounds differently
        session = Session([(SMALL, out)], resume=False)
        while session.step < 12:
            session.update()
        session.save_state()
    return out


def contents(out: Path) -> dict[str, object]:
    """Everything that a reader of a run gets."""
    run = gi.load(out)
    run.verify()
    return {
        "recipe": run.recipe, "steps": run.steps, "finished": run.finished, "task": run.task,
        "metrics": run.metrics, "rows": run.train_indices,
        **{f"{step} {name}": w for step in run.steps for name, w in run.weights(step).items()},
    }  # fmt: skip


def same(one: dict[str, object], other: dict[str, object]) -> str | None:
    """What differs between the contents of two runs."""
    for key in one.keys() | other.keys():
        this, that = one.get(key), other.get(key)
        if isinstance(this, torch.Tensor) and isinstance(that, torch.Tensor):
            alike = torch.equal(this, that)
        elif isinstance(this, pd.DataFrame) and isinstance(that, pd.DataFrame):
            alike = this.equals(that)
        else:
            alike = this == that
        if not alike:
            return f"{key} is another, and nothing was said"
    return None


def _judge(what: str, path: Path, use: Callable[[], str | None]) -> str | None:
    """The use of a spoilt file: refused by its name in one line, or without any difference."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        problem = use()
    except gi.InputError as error:
        line = str(error)
        problem = None if path.name in line and "\n" not in line else f"not named in: {line}"
    except Exception as error:
        problem = repr(error)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return problem and f"{what}: {problem}"


def _flipped(content: bytes, chance: random.Random, n: int) -> bytes:
    spoilt = bytearray(content)
    for _ in range(n):
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
    return bytes(spoilt)


def _zeros(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + bytes(min(512, len(content) - start)) + content[start + 512 :]


FAULTS = {
    "spoilt files of a finished run, read": finished,
    "spoilt files of an unfinished run, trained on": resumed,
    "a lock file and files aside full of anything": leftovers,
    "spoilt files of a finished run, info": command_line,
}
