"""What a file is by its first bytes, where it is none that the reader at hand can read.

For messages: a Git-LFS pointer, the HTML page of a download that failed or a picture is said to be
one, instead of what a parser stumbles over in it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

HEAD = 4096  # bytes that are looked at
LARGEST_HEADER = 2**32  # of a safetensors file, in bytes; eight letters read as far more


@dataclass(frozen=True)
class Kind:
    """What a file is, in words that continue "it is ...", and what to do about it, or ""."""

    what: str
    advice: str = ""

    @property
    def stands_in(self) -> bool:
        """Whether it is what a clone or a download leaves in the place of another file."""
        return self.what in ("a Git-LFS pointer", "an HTML page")


_UNPACK = "unpack it and give what is in it"
_BY_BEGINNING: tuple[tuple[bytes, Kind], ...] = (
    (b"version https://git-lfs.github.com/spec/",
     Kind("a Git-LFS pointer", "fetch the file that it stands for (git lfs pull)")),
    (b"PAR1", Kind("a Parquet file", "write it as CSV (pandas: read_parquet, then to_csv)")),
    (b"ARROW1", Kind("an Arrow or Feather file", "write it as CSV (read_feather, then to_csv)")),
    (b"\x89HDF\r\n\x1a\n", Kind("an HDF5 file")),
    (b"SQLite format 3\0", Kind("an SQLite database")),
    (b":W&B", Kind("a log of Weights & Biases in its own format", "export it as CSV")),
    (b"%PDF-", Kind("a PDF")),
    (b"\x89PNG\r\n\x1a\n", Kind("a PNG image")),
    (b"\xff\xd8\xff", Kind("a JPEG image")),
    (b"GIF8", Kind("a GIF image")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind("an old Excel or Word file", "save it as CSV")),
    (b"\x1f\x8b", Kind("a gzip archive", _UNPACK)),
    (b"BZh", Kind("a bzip2 archive", _UNPACK)),
    (b"\xfd7zXZ\0", Kind("an xz archive", _UNPACK)),
    (b"(\xb5/\xfd", Kind("a zstd archive", _UNPACK)),
    (b"7z\xbc\xaf'\x1c", Kind("a 7z archive", _UNPACK)),
    (b"Rar!\x1a\x07", Kind("a RAR archive", _UNPACK)),
    (b"GGUF", Kind("a GGUF model")),
    (b"\x7fELF", Kind("a program")),
    (b"\x93NUMPY", Kind("a numpy array")),
    (b"{\\rtf", Kind("an RTF document", "save it as plain text")),
)  # fmt: skip
_MARKUP = re.compile(rb"<(!doctype|!--|html|head|body|\?xml|svg|[a-z]+[ />])", re.IGNORECASE)
_JSON = re.compile(rb"""\{\s*("|\}|$)|\[\s*(["{\[\]\d-]|true|false|null|$)""")


def kind_of(head: bytes) -> Kind | None:
    r"""What the first bytes of a file (`HEAD` of them) say that it is; None where they do not.

    An empty head says nothing. Archives by zip and pickles are told apart by who opens them:
    torch.save writes the one and the other.

    >>> kind_of(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a").what
    'a Git-LFS pointer'
    >>> kind_of(b"\n<!DOCTYPE html><html>").what, kind_of(b'[{"step": 0}]').what
    ('an HTML page', 'JSON')
    >>> kind_of(b"step,test_acc\n0,0.1\n") is None
    True
    """
    for beginning, kind in _BY_BEGINNING:
        if head.startswith(beginning):
            return kind
    if is_safetensors(head):
        return Kind("a safetensors file")
    if head[257:262] == b"ustar":
        return Kind("a tar archive", _UNPACK)
    if b"brain.Event:" in head[:64]:
        return Kind("an event file of TensorBoard", "export its scalars as CSV")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _MARKUP.match(text):
        html = re.search(rb"<(!doctype html|html|head|body)", text, re.IGNORECASE)
        advice = "download the file itself (on a page of a repository: raw)"
        return Kind("an HTML page", advice) if html else Kind("XML")
    return Kind("JSON") if _JSON.match(text) else None


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do: the length of a header, and a JSON object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < LARGEST_HEADER


def kind_of_file(path: Path) -> Kind | None:
    """The same of a file on disk."""
    with path.open("rb") as file:
        return kind_of(file.read(HEAD))
