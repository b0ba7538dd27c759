"""kill -9 of trainings and of recorders, at moments of chance and before every disk operation."""

import signal
import time
from pathlib import Path

import grokinterp as gi
from tests.stress.bench import (
    TINY,
    Bench,
    Program,
    Traps,
    files,
    finish,
    train,
    unbroken,
    unreadable,
)  # fmt: skip

VARIANTS = (
    TINY.replace(steps=120),
    TINY.replace(steps=120, batch_size=7, n_layers=2, biases="all"),
    gi.Recipe(model="mlp", p=7, d_mlp=16, steps=120, checkpoints="every:5", threads=1),
)
SHORT = TINY.replace(steps=6, checkpoints="every:3")
RECORDED = range(0, 100, 10)


def moments(bench: Bench) -> None:
    """Kill at random moments, again and again, until the run is done nevertheless."""
    for recipe in VARIANTS[: bench.some(len(VARIANTS), quick=1)]:
        start = time.monotonic()
        expected = unbroken(bench, recipe)
        whole = time.monotonic() - start
        wanted = bench.tried + bench.some(40, quick=4)
        while bench.tried < wanted:
            out = bench.new()
            problem = None
            for _ in range(bench.some(8, quick=3)):
                program = train(bench, recipe, out)
                time.sleep(bench.chance.uniform(0, 0.7 * whole))
                if program.end(signal.SIGKILL) != -signal.SIGKILL:
                    break  # it was done before
                problem = unreadable(out)
                bench.check(problem)
                if problem:
                    break
            if not problem and (problem := finish(bench, recipe, out, expected)):
                bench.losses.append(problem)


def first_save(bench: Bench) -> None:
    """Kill in the tenths of a second in which a run folder comes into being."""
    expected = unbroken(bench, SHORT)
    out = bench.new()
    start = time.monotonic()
    train(bench, SHORT, out).end()
    whole = time.monotonic() - start
    for _ in range(bench.some(60, quick=2)):
        out = bench.new()
        program = train(bench, SHORT, out)
        time.sleep(bench.chance.uniform(0, whole))
        program.end(signal.SIGKILL)
        bench.check(unreadable(out) or finish(bench, SHORT, out, expected))


def operations(bench: Bench) -> None:
    """Kill before the n-th disk operation, for every n; then once more while it is resumed."""
    expected = unbroken(bench, SHORT)
    n = 40 if bench.quick else total_operations(bench)
    chosen = range(1, n + 1)
    for number in bench.chance.sample(chosen, min(n, bench.some(n, quick=2))):
        out = bench.new()
        program = train(bench, SHORT, out, die_at=number)
        problem = None if program.end() == -signal.SIGKILL else f"not killed: {program.said()}"
        again = train(bench, SHORT, out, die_at=bench.chance.randrange(1, n))
        again.end()
        problem = problem or unreadable(out) or finish(bench, SHORT, out, expected)
        bench.check(problem and f"killed before disk operation {number}: {problem}")


def total_operations(bench: Bench) -> int:
    """How often a short training does something to the disk, by bisection of where it is killed."""
    low, high = 1, 512
    while low < high:
        middle = (low + high) // 2
        killed = train(bench, SHORT, bench.new("count"), die_at=middle).end() == -signal.SIGKILL
        low, high = (middle + 1, high) if killed else (low, middle)
    return low - 1


def recorder(bench: Bench) -> None:
    """Kill a loop of the user's own between and during its saves: what was saved is there."""
    if bench.quick:
        bench.note = "left out: it imports TransformerLens, which takes seconds"
        return
    whole = bench.new("whole")
    assert Program(bench.folder / "log", record, whole, 0).end() == 0
    expected = files(whole)
    for number in range(1, 400, 3):
        out = bench.new()
        if Program(bench.folder / "log", record, out, number).end() == 0:
            return
        problem = unreadable(out)
        if not problem and (out / "run.json").exists():
            for step in gi.runs.manifest.Manifest.read(out).steps:
                name = f"weights/step_{step:08d}.safetensors"
                if (out / name).read_bytes() != expected[name]:
                    problem = f"{out}/{name} is not what was recorded"
        bench.check(problem)


def record(out: Path, die_at: int) -> None:
    """A recorder that saves other weights every time, killed before a disk operation."""
    architecture = TINY.architecture()
    models = [architecture.hooked(architecture.initial(seed=s)) for s in RECORDED]
    if die_at:
        Traps(die_at=die_at).set()
    with gi.Recorder(out, task=TINY.build_task(), train_indices=TINY.train_indices()) as recorder:
        for step, model in zip(RECORDED, models, strict=True):
            recorder.save(step, model)


FAULTS = {
    "kill -9 of a training, at random moments": moments,
    "kill -9 of a training, during its first save": first_save,
    "kill -9 of a training, before every disk operation": operations,
    "kill -9 of a recorder, before disk operations": recorder,
}
