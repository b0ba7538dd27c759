"""One process writes a run folder at a time; whoever reads it is not held up.

The lock is the operating system's, on a file `.lock` in the folder, so it ends with the process
that holds it, however that ends: a file that a killed process left behind locks nothing. What
stands in the file is for people only. Where a file system knows no locks, work goes on without
one, and the log says so.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import time
import weakref
from pathlib import Path
from types import TracebackType

from grokinterp.base.errors import InputError
from grokinterp.base.paths import reaching, refuse_address

LOCK = ".lock"
HAS_FLOCK = os.name == "posix"  # with it a locked file can be renamed, removed and read
TRIES = 20  # of taking a lock file that its last owner is just removing
HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Hold:
    """A folder held by this process until `release()`, the end of a `with`, or its own end."""

    def __init__(self, folder: Path, file: Path) -> None:
        made = [one for one in file.parents if not one.exists()]  # the innermost first
        descriptor = _take(folder, file)
        _name_owner(descriptor)
        self.release = weakref.finalize(self, _release, descriptor, file, made, os.getpid())

    def __enter__(self) -> "Hold":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def hold(folder: Path, *, file: Path | None = None) -> Hold:
    """Be the one that writes a folder; use it in a `with` block.

    `file` is the lock file, `.lock` in the folder unless said otherwise. The folder it is in is
    made where it is missing, and removed at the end if it is still empty. A second process, or a
    second thread of this one, is refused: InputError with the owner's number, its machine and since
    when.
    """
    refuse_address(folder)
    return Hold(folder, folder / LOCK if file is None else file)


def open_locked(path: Path) -> int | None:
    """A descriptor of the file, locked and not yet written to; None while another has it.

    The file is made where it is missing. OSError as of opening, and where there are no locks.
    """
    for _ in range(TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if not _lock(descriptor):
                os.close(descriptor)
                return None
            # Its last owner may have removed or renamed it after we opened it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def _take(folder: Path, file: Path) -> int:
    """The descriptor of the folder's lock; -1 where the file system has no locks."""
    for last in range(TRIES):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = open_locked(file)
        except (FileNotFoundError, FileExistsError):  # its last owner just removed the empty folder
            if last == TRIES - 1:
                with reaching(folder):
                    raise
            continue
        except OSError as error:
            if error.errno not in NO_LOCKS:
                error.filename = str(folder)  # what the user knows of
                with reaching(folder):
                    raise
            logging.getLogger(__name__).warning(
                "%s is on a file system without locks; let only one process write it.", folder
            )
            return -1
        if descriptor is None:
            raise InputError(
                f"{folder} is being written by {_owner(file)}; wait until that ends (close its "
                "Recorder, stop its training), or give another folder."
            )
        return descriptor
    raise AssertionError


def _release(descriptor: int, file: Path, made: list[Path], owner: int) -> None:
    if os.getpid() != owner:  # a fork: the lock is its parent's
        if descriptor >= 0:
            os.close(descriptor)
        return
    if not HAS_FLOCK and descriptor >= 0:  # an open file cannot be removed there
        os.close(descriptor)
    with contextlib.suppress(OSError):  # the disk may have become read-only; it locks nothing
        file.unlink()
    if HAS_FLOCK and descriptor >= 0:
        os.close(descriptor)
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _name_owner(descriptor: int) -> None:
    """Say whose lock it is; a full disk may keep that from being said."""
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            os.truncate(descriptor, 0)
            os.write(descriptor, json.dumps(owner).encode())


def _owner(file: Path) -> str:
    """Who holds a lock, as far as it is said."""
    if not file.is_file():  # nor a pipe, for which this would wait
        return "another process"
    try:
        said = json.loads(file.read_bytes())
        pid, host, since = int(said["pid"]), str(said["host"]), str(said["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    mine = pid == os.getpid() and host == socket.gethostname()
    return f"{'this very process' if mine else 'process'} {pid} on {host} since {since}"


if os.name == "posix":
    import fcntl

    def _lock(descriptor: int) -> bool:
        """Lock an open file, of which every opening counts on its own; False if another has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                return False
            raise
        return True

else:  # pragma: no cover
    import msvcrt

    def _lock(descriptor: int) -> bool:
        """Lock a byte far behind the text, which others could not read otherwise."""
        try:
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            os.lseek(descriptor, 0, os.SEEK_SET)
        except OSError as error:
            if error.errno in HELD:
                return False
            raise
        return True
