"""Imports, reports, measures and exports, killed or asked to stop at any moment."""

import signal
import time
from pathlib import Path

import grokinterp as gi
from tests.stress.bench import (
    TINY,
    Bench,
    Program,
    Traps,
    command,
    differing,
    files,
    one_line,
    train,
    unreadable,
)

SMALL = TINY.replace(steps=20)


def foreign_file(bench: Bench) -> tuple[Path, Path]:
    """A run, and the same as a file of others."""
    out = bench.new()
    assert train(bench, SMALL, out).end() == 0
    file = bench.folder / "foreign.pth"
    gi.export(gi.load(out), file)
    return out, file


def imports(bench: Bench) -> None:
    """Killed before every disk operation: no folder, or a whole one, and the next try works."""
    _, source = foreign_file(bench)
    whole = bench.new("whole")
    assert Program(bench.folder / "log", command, "import", source, "--out", whole).end() == 0
    expected = files(whole)
    for number in range(1, 400):
        if bench.quick and number not in (9, 31):
            continue
        out = bench.new("deep") / "parent" / "run"
        log = bench.folder / f"log{number}"
        program = Program(log, trapped, {"die_at": number}, "import", source, "--out", out)
        if program.end() == 0:
            return
        bench.check(_import_again(bench, source, out, expected))


def imports_at_moments(bench: Bench) -> None:
    """Killed, or asked to stop, at random moments."""
    _, source = foreign_file(bench)
    whole = bench.new("whole")
    start = time.monotonic()
    assert Program(bench.folder / "log", command, "import", source, "--out", whole).end() == 0
    seconds = time.monotonic() - start
    expected = files(whole)
    for number in range(bench.some(60, quick=2)):
        out = bench.new("deep") / "parent" / "run"
        log = bench.folder / f"log{number}"
        program = Program(log, command, "import", source, "--out", out)
        time.sleep(bench.chance.uniform(0, seconds))
        asked = signal.SIGTERM if number % 2 else signal.SIGKILL
        status, problem = program.end(asked), None
        # Stopped at its last line, a whole run is there, which is looked at like a killed one's.
        if status == 130 and out.parent.exists() and [*out.parent.iterdir()] != [out]:
            problem = f"stopped, and left {list(out.parent.iterdir())}"
        elif status not in (0, 130, -asked):
            problem = f"status {status}: {program.said()}"
        bench.check(problem or _import_again(bench, source, out, expected))


def reports(bench: Bench) -> None:
    """Killed, or asked to stop, at random moments: the old page is there, or a whole new one."""
    if bench.quick:
        bench.note = "left out: a report takes seconds"
        return
    out, _ = foreign_file(bench)
    page = bench.new("page") / "report.html"
    page.parent.mkdir()
    start = time.monotonic()
    assert Program(bench.folder / "log", command, "report", out, "--out", page).end() == 0
    seconds = time.monotonic() - start
    for number in range(16):
        old = number % 4 < 2
        for left in page.parent.iterdir():  # by the one killed before
            left.unlink()
        if old:
            page.write_bytes(b"old")
        program = Program(bench.folder / f"log{number}", command, "report", out, "--out", page)
        time.sleep(bench.chance.uniform(0, 1.1 * seconds))
        asked = signal.SIGTERM if number % 2 else signal.SIGKILL
        status = program.end(asked)
        problem = _half(page, b"old" if old else None)
        if status not in (0, 130, -asked):
            problem = problem or f"status {status}: {program.said()}"
        if status == 130 and [path for path in page.parent.iterdir() if path != page]:
            problem = problem or f"stopped, and left {list(page.parent.iterdir())}"
        bench.check(problem)
    assert Program(bench.folder / "log", command, "report", out, "--out", page).end() == 0
    bench.check(None if [*page.parent.iterdir()] == [page] else "something was left aside")


def single_files(bench: Bench) -> None:
    """One file written by measure, export and report, killed before every disk operation of it."""
    out, _ = foreign_file(bench)
    names = ("export",) if bench.quick else ("export", "measure", "report")
    for name in names:
        target = bench.new(name) / "target"
        target.parent.mkdir()
        for number in range(1, 4 if bench.quick else 30):
            target.write_bytes(b"old")
            log = bench.folder / f"log-{name}-{number}"
            arguments = (name, out, "--out", target)
            status = Program(log, trapped, {"die_at": number}, *arguments).end()
            problem = _half(target, b"old")
            if not status:
                break
            bench.check(problem and f"{name}, disk operation {number}: {problem}")
        assert Program(bench.folder / "log", command, *arguments).end() == 0
        bench.check(
            None if [*target.parent.iterdir()] == [target] else f"{name} left something aside"
        )


def trapped(traps: dict[str, int], *arguments: object) -> None:
    """A command that meets its end at a disk operation."""
    command(*arguments, traps=Traps(**traps))


def _import_again(bench: Bench, source: Path, out: Path, expected: dict[str, bytes]) -> str | None:
    """What is wrong with what an import left, and with the next one."""
    done = out.exists()  # but for its last line
    problem = differing(out, expected) if done else None
    log = bench.folder / f"again-{time.monotonic_ns()}"
    program = Program(log, command, "import", source, "--out", out)
    if done:
        status = program.end()
        refused = one_line(program, status, expected="not an empty folder")
        return problem or unreadable(out) or refused
    if status := program.end():
        return problem or f"the next import failed ({status}): {program.said()}"
    left = [path.name for path in out.parent.iterdir() if path != out]
    return problem or differing(out, expected) or (f"left {left}" if left else None)


def _half(path: Path, old: bytes | None) -> str | None:
    """What is wrong with a file that is to be the old one or a whole new one."""
    if not path.exists():
        return None if old is None else "the old file is gone"
    content = path.read_bytes()
    if content == old or path.suffix != ".html" or content.rstrip().endswith(b"</html>"):
        return None
    return f"{len(content)} bytes that are no whole page"


FAULTS = {
    "kill -9 of an import, before every disk operation": imports,
    "kill -9 and SIGTERM of an import, at random moments": imports_at_moments,
    "kill -9 and SIGTERM of a report, at random moments": reports,
    "kill -9 of export, measure and report, while they write": single_files,
}
