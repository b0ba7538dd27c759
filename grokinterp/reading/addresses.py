"""How is what lies at an address (hf://, s3://, https://, ...) read? Copied, and then as on disk.

An address of any protocol that fsspec knows is copied into a temporary folder of this process,
which is removed when it ends; `file://` is read where it lies. Of a folder all files are copied
down to five levels, under their names, but no hidden ones (Hydra's alone) and none that no
analysis reads: states of optimisers and schedulers, what a run resumes from, weights in formats
that are not read. Of a file, those beside it that belong to it by their names too (`x.json`,
`config.json`, `metrics.csv`: `grokinterp.reading.companions`); over http(s) the file alone, since
there is no telling what lies beside it.

Whoever loads an address again looks there again: it is copied anew, unless all its files have the
size and the time or checksum that they had. Runs that were opened before keep their copy. What
changes while it is copied is refused, or has the checksums of its run.json.
"""

import atexit
import contextlib
import functools
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from grokinterp.base.errors import InputError, one_line
from grokinterp.base.files import copy_at_most
from grokinterp.base.paths import address_of
from grokinterp.reading.companions import LARGEST_LOG, belongs_to
from grokinterp.reading.shipped import shipped_run
from grokinterp.runs.manifest import RESUME, RUN_JSON

MOST_BYTES = 20 * 10**9  # of one address
MOST_FILES = 20_000
LEVELS = 5  # of a folder: lightning_logs/version_0/checkpoints/epoch=3-step=400.ckpt and above
AT_ONCE = 8  # files in copying
SECONDS = 60  # until a web server that says nothing is given up
_OF_NO_USE = re.compile(
    rf"\.(?!hydra$)|{re.escape(RESUME)}$|(optimizer|scheduler|scaler|rng_state)(_\d+)?\.(pt|pth|bin|pkl)$"
    r"|training_args\.bin$|.*\.(onnx|h5|msgpack|gguf|ot|tflite|py|pyc|md|png|jpe?g|pdf|html?)$",
    re.IGNORECASE,
)
_STAMPS = (  # what places say of the time or content of a file, in whatever capitals
    "mtime", "created", "modified", "lastmodified", "last_modified", "updated", "last-modified",
    "etag", "content-md5", "content_md5", "md5hash", "checksum", "blob_id", "xet_hash",
)  # fmt: skip
_OVER_HTTP = re.compile("https?://")
_lock = threading.Lock()
_copies: dict[str, tuple[object, Path]] = {}  # by address: what was there, and the copy
_origins: dict[Path, str] = {}  # of every copy, the address as messages show it


def local_copy(path: str | Path) -> str | Path:
    """The path of a copy of what lies at an address, or of a run that ships, by its name.

    Every other path stays as it is (`grokinterp.reading.shipped` has the names).

    A path without "//" is one of this machine where something lies there. InputError in one line
    for what is not there, may not be read, cannot be reached, is too much (20 GB, 20,000 files), or
    needs a package that is not installed.

    >>> local_copy("runs/mine")
    'runs/mine'
    >>> local_copy("nowhere://runs/mine")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: nowhere://runs/mine cannot be read: fsspec knows no ...
    """
    path = shipped_run(path)
    address = address_of(path) if isinstance(path, str | Path) and str(path).isprintable() else None
    if address is None or ("://" not in str(path) and os.path.exists(path)):
        return path
    with _lock, _reached(address):
        if _OVER_HTTP.match(address):
            return _copied(_Web(), address, address)
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        system, root = url_to_fs(address)
        if isinstance(system, LocalFileSystem):
            return Path(root)
        system.invalidate_cache()  # listings that were kept would hide what has changed
        return _copied(system, root, address)


class _Web:
    """Files at http(s) addresses as fsspec has them; its own way wants another package."""

    def info(self, url: str) -> dict[str, Any]:
        with self.open(url, "rb") as answer:
            size = answer.headers.get("Content-Length", "")
            about = {"name": url, "type": "file", **dict(answer.headers)}
            return about | {"size": int(size) if size.isdecimal() else None}

    def open(self, url: str, mode: str) -> Any:
        try:
            return urlopen(url, timeout=SECONDS)
        except HTTPError as error:
            with error:
                kind = {404: FileNotFoundError, 410: FileNotFoundError}.get(error.code, OSError)
                kind = PermissionError if error.code in (401, 403) else kind
                raise kind(f"{error.code} {error.reason}") from None


def where_from(path: Path) -> tuple[str, ...]:
    """A note of the address that a path is a copy of; nothing for other paths."""
    return (f"copied from {_origins[path]}",) if path in _origins else ()


@contextlib.contextmanager
def calling_by_address(path: Path) -> Iterator[None]:
    """Let what is refused in a copy be called by its address."""
    try:
        yield
    except InputError as error:
        if path not in _origins:
            raise
        address = _origins[path]
        told = str(error).replace(str(path), address)
        raise InputError(told.replace(str(path.parent), address.rpartition("/")[0])) from error


def _copied(system: Any, root: str, address: str) -> Path:
    """A copy of a file or a folder, the last one where all is as it was."""
    about = system.info(root)
    is_file = about["type"] == "file"
    there = _beside(system, root, about) if is_file else _below(system, root, about)
    sizes = [_size(details) or 0 for _, details in there.values()]
    if not there:
        raise InputError(f"{_shown(address)} has no files to read; give a run, or checkpoints.")
    if len(there) > MOST_FILES or sum(sizes) > MOST_BYTES:
        raise InputError(
            f"{_shown(address)} has {len(there)} files of {sum(sizes) / 1e9:.1f} GB, and at most "
            f"{MOST_FILES} of {MOST_BYTES / 1e9:.0f} GB are copied; give one run or file in it, or "
            "download it and give its path."
        )
    stamps = {name: _stamps(path, details) for name, (path, details) in there.items()}
    known, copy = _copies.get(address, (None, None))
    if copy is not None and known == stamps and all(len(x) > 2 for x in stamps.values()):
        return copy
    scratch = _scratch()
    if sum(sizes) > shutil.disk_usage(scratch).free:
        raise InputError(
            f"{_shown(address)} has {sum(sizes) / 1e9:.1f} GB, more than {tempfile.gettempdir()} "
            "has room for; set TMPDIR to a larger place."
        )
    names = [x for x in _as_path(root).parts if x.strip("/")]
    folder = Path(tempfile.mkdtemp(dir=scratch)) / (names[-1 - is_file :] or ["copy"])[0]
    try:
        _fetch(system, there, folder, address)
    except BaseException:
        shutil.rmtree(folder.parent, ignore_errors=True)
        raise
    copy = folder / next(iter(there)) if is_file else folder
    _copies[address], _origins[copy] = (stamps, copy), _shown(address)
    return copy


def _stamps(path: str, details: Mapping[str, Any]) -> tuple[Any, ...]:
    """A file's place and size, and what is said of its time or content."""
    said = {key.lower(): str(value) for key, value in details.items() if value}
    return (path, _size(details), *(said[key] for key in _STAMPS if key in said))


def _size(details: Mapping[str, Any]) -> int | None:
    """Bytes of a file, which some places say as text."""
    size = details.get("size")
    if isinstance(size, str):
        return int(size) if size.isdecimal() else None
    return size if isinstance(size, int) else None


Found = dict[str, tuple[str, Mapping[str, Any]]]  # by name here: the path there, what is said of it


def _as_path(root: str) -> PurePosixPath:
    return PurePosixPath(unquote(urlsplit(root).path) if _OVER_HTTP.match(root) else root)


def _beside(system: Any, root: str, about: Mapping[str, Any]) -> Found:
    """A file, first, and those next to it that belong to it."""
    name = _as_path(root).name or "file"
    found: Found = {name: (root, about)}
    if not _OVER_HTTP.match(root):
        with contextlib.suppress(Exception):  # a place that lists nothing
            for other in system.ls(root.rpartition("/")[0], detail=True):
                beside = other["name"].rpartition("/")[2]
                small = (_size(other) or 0) <= LARGEST_LOG and belongs_to(Path(name), beside)
                if other["type"] == "file" and (small or _is_part_of(name, beside)):
                    found.setdefault(beside, (other["name"], other))
    return found


def _is_part_of(index: str, name: str) -> bool:
    """Whether a file is a part of the checkpoint that an index is of.

    >>> _is_part_of("model.safetensors.index.json", "model-00001-of-00002.safetensors")
    True
    """
    stem, suffix = PurePosixPath(index.removesuffix(".index.json")).stem, index.split(".")[-3:]
    known = len(suffix) == 3 and index.endswith(".index.json")
    shard = rf"{re.escape(stem)}-\d{{5}}-of-\d{{5}}\.{re.escape(suffix[0])}"
    return known and re.fullmatch(shard, name) is not None


def _below(system: Any, root: str, about: Mapping[str, Any]) -> Found:
    """The files of a folder that are of use, by their paths in it."""
    found: Found = {}
    for path, details in system.find(root, maxdepth=LEVELS, detail=True).items():
        for start in (root, about["name"]):  # of a revision, some say which it is
            if path.startswith(f"{start.rstrip('/')}/"):
                parts = PurePosixPath(path[len(start.rstrip("/")) + 1 :]).parts
                of_use = not any(map(_OF_NO_USE.match, parts))  # nor out of it by ".."
                if details["type"] == "file" and of_use:
                    found["/".join(parts)] = (path, details)
                break
    return found


def _fetch(system: Any, there: Found, folder: Path, address: str) -> None:
    def fetch(name: str) -> None:
        path, details = there[name]
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        # Not get_file, which draws bars for some protocols and asks nobody how much it is.
        with system.open(path, "rb") as source, open(copy, "wb") as target:
            n = copy_at_most(source, target, MOST_BYTES)
        if n is None:
            raise InputError(
                f"{_shown(address)} is larger than {MOST_BYTES / 1e9:.0f} GB, of which no more is "
                "copied; download it and give its path."
            )
        if _size(details) not in (None, n):
            raise InputError(
                f"{_shown(address)}: {name} has {n} bytes and not the {_size(details)} that were "
                "listed: it changed, or the connection was cut; try again."
            )

    # A run that is being written: what its run.json names is there already, and only grows.
    if RUN_JSON in there:
        fetch(RUN_JSON)
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        list(pool.map(fetch, [name for name in there if name != RUN_JSON]))
    finally:
        pool.shutdown(cancel_futures=True)


@functools.cache
def _scratch() -> Path:
    """The folder of all copies of this process."""
    folder, owner = Path(tempfile.mkdtemp(prefix="grokinterp-copies-")), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not at the end of a fork
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def _shown(address: str) -> str:
    """An address as messages show it: without what may be a secret, and not too long."""
    address = re.sub(r"//[^/@]*:[^/@]*@", "//", address.partition("?")[0])
    return one_line(address, most=120)


@contextlib.contextmanager
def _reached(address: str) -> Iterator[None]:
    """Turn what libraries say of an address into one line."""
    protocol, shown = address.partition("://")[0], _shown(address)
    try:
        yield
    except InputError:
        raise
    except (ImportError, ModuleNotFoundError) as error:
        package = "pip install 'grokinterp[hub]'" if protocol == "hf" else _said(error, address)
        raise InputError(
            f"{shown} cannot be read: {protocol}:// needs a package that is not installed "
            f"({package}); install it, or give a path of this machine."
        ) from error
    except FileNotFoundError as error:
        raise InputError(
            f"{shown} does not exist, or is not shown to you; check its spelling, or log in where "
            "it is private (hf auth login, keys of the bucket)."
        ) from error
    except PermissionError as error:
        raise InputError(
            f"{shown} may not be read ({_said(error, address)}); log in with an account that may "
            "(hf auth login, keys of the bucket), or give a path of this machine."
        ) from error
    except Exception as error:  # every library has its own
        if "rotocol not known" in str(error):
            raise InputError(
                f"{shown} cannot be read: fsspec knows no protocol {protocol!r}; give such as "
                "hf://user/repo, s3://bucket/run, https://..., or a path of this machine."
            ) from error
        raise InputError(
            f"{shown} cannot be read ({_said(error, address)}); check the address, your access and "
            "the network, or give a path of this machine."
        ) from error


def _said(error: Exception, address: str) -> str:
    """What an error says, without the secrets of an address."""
    text = str(error).replace(address, _shown(address))
    return one_line(f"{type(error).__name__}: {text}".partition("?")[0], most=120)
