"""What is in a file: its text, or what it unpacks to?

Text is in UTF-8, or in UTF-16 or UTF-32 with a mark; what is no text is named. A compressed file is
unpacked, up to a limit, and read as if it were plain.
"""

import bz2
import codecs
import contextlib
import gzip
import lzma
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from grokinterp.base.errors import InputError, shown
from grokinterp.base.files import HEAD, UNPACK, ZIP, Kind, copy_at_most, kind_of
from grokinterp.base.paths import file_at

LARGEST_TEXT = 256_000_000  # bytes
MARKS = (  # the longer first: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
WANTED = "give a log of losses or accuracies against step"
_PACKED: tuple[tuple[bytes, str, Any], ...] = (
    (b"\x1f\x8b", ".gz", gzip.open),
    (b"BZh", ".bz2", bz2.open),
    (b"\xfd7zXZ\0", ".xz", lzma.open),
)
WESTERN = bytes([9, 10, 13, *range(32, 127), *b"\xa0\x91\x92\x93\x94\x96\x97"])  # in cp1252


def text_of(path: Path, *, largest: int = LARGEST_TEXT) -> str:
    """The text of a file; what is none, or too large, is refused."""
    return content_of(path, largest=largest).decode().removeprefix("\ufeff")


def content_of(path: Path, *, largest: int = LARGEST_TEXT) -> bytes:
    """The content of a text file in UTF-8; what is no text, or too large, is refused."""
    return content_and_notes(path, largest=largest)[0]


def content_and_notes(path: Path, *, largest: int = LARGEST_TEXT) -> tuple[bytes, list[str]]:
    """The content of a text file in UTF-8, and a note where it was in another encoding."""
    size = file_at(path, wanted=WANTED).stat().st_size
    with path.open("rb") as file:
        head = file.read(HEAD)
        kind = kind_of(head) or (Kind("a zip archive", UNPACK) if head.startswith(ZIP) else None)
        if kind and kind.what != "JSON":
            raise InputError(f"{path} is {kind.what}, no log; {kind.advice or WANTED}.")
        if size > largest:
            raise InputError(
                f"{path} is {size / 1e6:.0f} MB large, and a log of at most "
                f"{largest / 1e6:.0f} MB is read; keep the columns that are needed, or every "
                "tenth row."
            )
        file.seek(0)
        content = file.read()
    notes: list[str] = []
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and _is_western(content):
        encoding = "cp1252"
        notes.append("read as text in cp1252, the encoding of Western Windows")
    try:
        text = content.decode(encoding)
        recoded = content if encoding == "utf-8" else text.encode()
    except UnicodeError as error:
        at = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        raise InputError(
            f"{path} is not text in {encoding.upper()}{at}; {WANTED}, saved as UTF-8."
        ) from None
    if (zero := recoded.find(b"\0")) >= 0:
        line = recoded.count(b"\n", 0, zero) + 1
        raise InputError(
            f"{path} has bytes of zero, the first in line {line}: it is no text, or damaged; "
            f"{WANTED}, saved as UTF-8."
        )
    return recoded, notes


def _is_western(content: bytes) -> bool:
    """Whether bytes are no UTF-8, but ASCII and the spaces and quotes of cp1252.

    Letters of other encodings look like those of cp1252, so that text with any is refused.
    """
    try:
        content.decode()
    except UnicodeDecodeError:
        return not content.translate(None, WESTERN)
    return False


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The path of a plain file: this one, or what is in it while the block lasts.

    InputError for one that unpacks to more than `LARGEST_TEXT` bytes, and for damage; messages
    about what is in it name the packed file.
    """
    with path.open("rb") as file:
        head = file.read(8)
    kind = next(((suffix, use) for begin, suffix, use in _PACKED if head.startswith(begin)), None)
    if kind is None:
        yield path
        return
    suffix, opened = kind
    with tempfile.TemporaryDirectory(prefix="grokinterp-") as folder:
        inner = Path(folder) / (path.name.removesuffix(suffix) or "log")
        _unpack(path, inner, opened)
        try:
            yield inner
        except InputError as error:
            raise InputError(str(error).replace(str(inner), str(path))) from None


def _unpack(path: Path, inner: Path, opened: Callable[[Any], IO[bytes]]) -> None:
    try:
        with opened(path) as packed, inner.open("wb") as plain:
            if copy_at_most(packed, plain, LARGEST_TEXT) is None:
                raise InputError(
                    f"{path} unpacks to more than {LARGEST_TEXT / 1e6:.0f} MB; keep the columns "
                    "that are needed, or every tenth row."
                )
    except (EOFError, OSError, zlib.error, lzma.LZMAError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is damaged or cut off ({shown(str(error))}); restore it from a copy."
        ) from None
