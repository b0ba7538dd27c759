"""Disks that become full or read-only: mounted ones, and every disk operation failing in turn."""

import contextlib
import errno
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.stress.bench import (
    TINY,
    Bench,
    Program,
    as_root,
    command,
    differing,
    files,
    finish,
    one_line,
    train,
    unbroken,
    unreadable,
    wait_for,
)

SHORT = TINY.replace(steps=6, checkpoints="every:3")
FULL, READ_ONLY = "No space left on device", "Read-only file system"
NO_MOUNTS = "left out: mounting takes root, and a system that allows it"


@contextlib.contextmanager
def mounted(bench: Bench, *what: str) -> Iterator[Path | None]:
    """A disk of its own, None where it cannot be had."""
    place = bench.new("disk")
    place.mkdir()
    if not as_root("mount", *what, place):
        bench.note = NO_MOUNTS
        yield None
        return
    try:
        yield place
    finally:
        as_root("umount", "-l", place)  # unless it is unmounted already


def failing(bench: Bench) -> None:
    """From the n-th disk operation on, every one that takes room, or all that write, fail."""
    expected = unbroken(bench, SHORT)
    for number, text in ((errno.ENOSPC, FULL), (errno.EROFS, READ_ONLY)):
        chosen = range(2, 75, 3 if bench.quick else 1)
        for n in bench.chance.sample(chosen, bench.some(len(chosen), quick=1)):
            out = bench.new()
            program = train(bench, SHORT, out, fail_from=n, number=number)
            if (status := program.end()) == 0:
                problem = differing(out, expected)
            else:
                problem = one_line(program, status, expected=text) or unreadable(out)
            problem = problem or finish(bench, SHORT, out, expected)
            bench.check(problem and f"{text} from disk operation {n} on: {problem}")


def full(bench: Bench) -> None:
    """A disk fills up in the middle; with more room the training goes on to the same bits."""
    recipe = TINY.replace(steps=120)
    expected = unbroken(bench, recipe)
    size = sum(map(len, expected.values())) // 1024
    for _ in range(bench.some(15, quick=2)):
        room = bench.chance.randrange(8, size)
        with mounted(bench, "-t", "tmpfs", "-o", f"size={room}k", "tmpfs") as disk:
            if disk is None:
                return
            file = bench.folder / "recipe.toml"
            file.write_text(recipe.to_toml())
            arguments = ("train", file, "--out", disk / "run", "--resume")
            program = Program(bench.folder / f"log{bench.tried}", command, *arguments)
            status = program.end()
            problem = one_line(program, status, expected=FULL) or unreadable(disk / "run")
            assert as_root("mount", "-o", "remount,size=50m", disk)
            program = Program(bench.folder / "log-again", command, *arguments)
            if status := program.end():
                problem = problem or f"did not go on ({status}): {program.said()}"
            problem = problem or differing(disk / "run", expected)
            bench.check(problem and f"full after {room}k: {problem}")


def read_only(bench: Bench) -> None:
    """A disk's own error makes it read-only in the middle; checked and mounted anew, it goes on."""
    recipe = TINY.replace(steps=120)
    start = time.monotonic()
    expected = unbroken(bench, recipe)
    whole = time.monotonic() - start
    for attempt in range(bench.some(12, quick=1)):
        image = bench.folder / f"image{attempt}"
        with image.open("wb") as file:
            file.truncate(12_000_000)
        if not as_root("mkfs.ext4", "-q", image):
            bench.note = NO_MOUNTS
            return
        (bench.folder / "recipe.toml").write_text(recipe.to_toml())
        loop = ("-o", "loop,errors=remount-ro", str(image))
        with mounted(bench, *loop) as disk:
            if disk is None:
                return
            arguments = ("train", bench.folder / "recipe.toml", "--out", disk / "run", "--resume")
            program = Program(bench.folder / f"log{attempt}", command, *arguments)
            wait_for(lambda out=disk / "run": out.exists())
            time.sleep(bench.chance.uniform(0, 0.5 * whole))
            if not _break(disk):
                program.end(signal.SIGKILL)
                bench.note = "left out: this kernel cannot be told that a disk is broken"
                return
            problem = None
            if (status := program.end()) != 0:  # it may have been done before
                broken = "Input/output error" if "Input/output" in program.said() else READ_ONLY
                problem = one_line(program, status, expected=broken) or unreadable(disk / "run")
            subprocess.run(["umount", str(disk)], check=True)
            subprocess.run(["e2fsck", "-fy", str(image)], check=False, capture_output=True)
            assert as_root("mount", *loop, disk)
            program = Program(bench.folder / "log-again", command, *arguments)
            if status := program.end():
                problem = problem or f"did not go on ({status}): {program.said()}"
            problem = problem or differing(disk / "run", expected)
            bench.check(problem)
            subprocess.run(["umount", str(disk)], check=True)


def other_commands(bench: Bench) -> None:
    """Writing one file onto a full disk: one line, and the old file as it was."""
    out = bench.new()
    assert train(bench, TINY, out).end() == 0
    checkpoints = bench.folder / "foreign.pth"
    assert Program(bench.folder / "log", command, "export", out, "--out", checkpoints).end() == 0
    asked = {
        "measure": ("measure", out, "--out"),
        "export": ("export", out, "--out"),
        "import": ("import", checkpoints, "--out"),
        "report": ("report", out, "--out"),
    }
    for name in list(asked)[1 : 3 if bench.quick else 4] if bench.quick else asked:
        with mounted(bench, "-t", "tmpfs", "-o", "size=64k", "tmpfs") as disk:
            if disk is None:
                return
            if name != "import":
                (disk / "target").write_bytes(b"old")
            with contextlib.suppress(OSError), (disk / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(4096))
                    filler.flush()
            before = files(disk)
            program = Program(bench.folder / f"log-{name}", command, *asked[name], disk / "target")
            status = program.end()
            problem = one_line(program, status, expected=FULL, after="loss are null")
            if not problem and files(disk) != before:
                problem = f"left {sorted(files(disk).keys() ^ before.keys())} on the disk"
            bench.check(problem and f"{name}: {problem}")


def _break(disk: Path) -> bool:
    source = subprocess.run(
        ["findmnt", "-no", "SOURCE", str(disk)], capture_output=True, text=True, check=False
    ).stdout.strip()
    try:
        Path(f"/sys/fs/ext4/{Path(source).name}/trigger_fs_error").write_text("1")
    except OSError:
        return False
    return True


FAULTS = {
    "disk full or read-only from the n-th disk operation on": failing,
    "disk full in the middle of a training, then more room": full,
    "disk read-only in the middle of a training, then repaired": read_only,
    "disk full under import, export, measure and report": other_commands,
}
