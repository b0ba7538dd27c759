"""Where are the runs and the table of a sweep kept? In a folder, or at any path of fsspec.

`runs/scales` is a folder. `s3://bucket/scales` and other paths of fsspec are remote: a run is
trained in a scratch folder of the machine that trains it, sent there whole when it is finished or
stopped, and fetched from there to go on. What was not sent is lost with its machine.
"""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokinterp.base.errors import InputError, one_line
from grokinterp.base.files import ASIDE, hold, write_whole
from grokinterp.base.paths import new_folder
from grokinterp.runs.manifest import METRICS, RESUME, RUN_JSON

LAST = (METRICS, RUN_JSON, RESUME)  # in the order in which a run folder is written


def place_of(out: str | Path, *, across_processes: bool) -> "Place":
    """The place that a user names; InputError for one that cannot be used."""
    url = str(out)
    if not url:
        raise InputError("no folder is given; name one for the runs and their table.")
    if "://" not in url:
        folder = new_folder(Path(out), give="a folder for the runs")
        return Place(folder.absolute() if across_processes else folder)
    if re.match("https?://", url):
        raise InputError(f"{out} can only be read; give a folder, or a path such as s3://bucket/x.")
    if across_processes and url.startswith("memory://"):
        raise InputError(f"{out} is within one process; give one local worker, or another place.")
    try:
        from fsspec.core import url_to_fs

        system, root = url_to_fs(url.rstrip("/"))
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"{out} cannot be used ({error}); give a folder.") from None
    scratch = Path(tempfile.mkdtemp(prefix="grokinterp-sweep-"))
    return RemotePlace(scratch, url.rstrip("/"), system, root)


@dataclass(frozen=True)
class Place:
    """A folder that is seen wherever the runs are trained. It goes to other processes."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None

    def has(self, name: str, files: Iterable[str]) -> bool:
        """Whether all these files of a run are there."""
        return all((self.folder / name / file).is_file() for file in files)

    def write(self, name: str, content: bytes) -> None:
        """Put a file there, whole or not at all, unless it is there already."""
        if self.read(name) != content:
            self._write(name, content)

    def _write(self, name: str, content: bytes) -> None:
        write_whole(self.folder / name, content)

    def held(self) -> AbstractContextManager[object]:
        """Keep others from sweeping into it."""
        return hold(self.folder)

    @contextmanager
    def run_folder(self, name: str) -> Iterator[Path]:
        """A folder to train a run in; in the end the place has what it holds."""
        yield self.folder / name


@dataclass(frozen=True)
class RemotePlace(Place):
    """The same at a path of fsspec; its `folder` is a scratch folder for the runs in training."""

    url: str
    system: Any
    root: str  # the path of the place in its file system

    def __str__(self) -> str:
        return self.url

    def read(self, name: str) -> bytes | None:  # noqa: D102
        with self._reached(), suppress(FileNotFoundError):
            return self.system.cat_file(f"{self.root}/{name}")
        return None

    def has(self, name: str, files: Iterable[str]) -> bool:  # noqa: D102
        there = f"{self.root}/{name}"
        with self._reached():
            return {f"{there}/{file}" for file in files} <= set(self.system.find(there))

    def _write(self, name: str, content: bytes) -> None:
        path = f"{self.root}/{name}"
        folder, _, last = path.rpartition("/")
        aside = f"{folder}/{ASIDE}{last}"
        with self._reached():
            self.system.makedirs(folder, exist_ok=True)
            self.system.pipe_file(aside, content)
            self.system.mv(aside, path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold nothing, as such paths have no locks; at the end the scratch folder is removed."""
        try:
            yield
        finally:
            with suppress(OSError):  # what could not be sent is left there
                self.folder.rmdir()

    @contextmanager
    def run_folder(self, name: str) -> Iterator[Path]:
        """A scratch folder; one that a killed worker has left is used as it is."""
        folder, there, fetched = self.folder / name, f"{self.root}/{name}", {}
        if not (folder / RUN_JSON).is_file():
            found = self.system.find(there) if self.system.exists(there) else []
            names = [path.removeprefix(there).lstrip("/") for path in found]
            # run.json comes last, so that what is cut off is fetched again.
            for file in sorted(names, key=lambda file: file == RUN_JSON):
                if not Path(file).name.startswith("."):  # aside, and cut off
                    write_whole(folder / file, self.system.cat_file(f"{there}/{file}"))
            fetched = _times(folder)
        try:
            yield folder
        finally:
            changed = [file for file, time in _times(folder).items() if fetched.get(file) != time]
            for file in sorted(changed, key=lambda file: LAST.index(file) if file in LAST else -1):
                self.write(f"{name}/{file}", (folder / file).read_bytes())
            if not (folder / RESUME).exists() and self.system.exists(f"{there}/{RESUME}"):
                self.system.rm(f"{there}/{RESUME}")
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # others may still be training in it
                self.folder.rmdir()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Name this place in whatever error a library of its protocol raises."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or self.url
            raise
        except Exception as error:
            told = one_line(f"{type(error).__name__}: {error}", most=200)
            raise InputError(
                f"{self.url} cannot be used ({told}); put this right, or give a folder."
            ) from error


def _times(folder: Path) -> dict[str, int]:
    """When every file of a run was written."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
