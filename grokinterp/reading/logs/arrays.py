"""Logs as arrays of numpy: a table in `.npy`, or an array a metric in `.npz`."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from grokinterp.base.errors import InputError, shown
from grokinterp.base.paths import file_at
from grokinterp.reading.logs.contents import LARGEST_TEXT, WANTED
from grokinterp.reading.logs.formats import log_format
from grokinterp.reading.logs.nested import table_in, without_names
from grokinterp.reading.logs.series import MOST_CELLS, MOST_COLUMNS
from grokinterp.reading.tensor_files import DAMAGE

MAGIC = b"\x93NUMPY"


def _is_array(head: bytes) -> bool:
    return head.startswith(MAGIC) or (head.startswith(b"PK") and b".npy" in head[:200])


@log_format("numpy", suffixes=(".npy", ".npz"), begins=_is_array)
def read_arrays(path: Path) -> pd.DataFrame:
    """Arrays by name, those of one length a table; what they unpack to is limited.

    Arrays of Python's objects are refused: they are pickles.
    """
    file_at(path, wanted=WANTED, largest=LARGEST_TEXT)
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                file.seek(0)
                return _as_table(_array(file, path.stat().st_size, path), path)
        with zipfile.ZipFile(path) as archive:
            return table_in(dict(_arrays(archive, path)), str(path))
    except InputError:
        raise
    except (*DAMAGE, OSError, SyntaxError, zipfile.LargeZipFile, zlib.error) as error:
        reason = shown(str(error) or type(error).__name__)
        raise InputError(f"{path} is damaged or cut off ({reason}); restore it.") from None


def _arrays(archive: zipfile.ZipFile, path: Path) -> list[tuple[str, np.ndarray]]:
    infos = archive.infolist()
    if len(infos) > MOST_COLUMNS or sum(info.file_size for info in infos) > LARGEST_TEXT:
        raise InputError(
            f"{path} has {len(infos)} arrays of {sum(x.file_size for x in infos) / 1e6:.0f} MB; at "
            f"most {MOST_COLUMNS} of {LARGEST_TEXT / 1e6:.0f} MB are read: keep the curves."
        )
    found = []
    for info in infos:
        if info.filename.endswith(".npy"):
            with archive.open(info) as member:  # which ends where its directory says
                content = member.read(info.file_size + 1)
            array = _array(io.BytesIO(content), len(content), path)
            found.append((info.filename.removesuffix(".npy"), array))
    return found


def _array(file: IO[bytes], size: int, path: Path) -> np.ndarray:
    """One array, no larger than what is there: its header is compared with that first."""
    version = np.lib.format.read_magic(file)
    read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0", None)
    if read_header is None:
        raise ValueError("its header is of a version that is not known")
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise InputError(
            f"{path} holds Python's objects, a pickle; save arrays of numbers "
            "(np.savez('log.npz', step=steps, test_acc=values))."
        )
    count = int(np.prod(shape, dtype=object))
    if count > MOST_CELLS or count * dtype.itemsize > size - file.tell():
        raise ValueError("it is shorter than its header says")
    flat = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _as_table(array: np.ndarray, path: Path) -> pd.DataFrame:
    """A structured array by its names; rows of a matrix without any."""
    if array.dtype.names:
        return pd.DataFrame({name: array[name].reshape(-1) for name in array.dtype.names})
    if array.ndim != 2 or array.shape[1] > MOST_COLUMNS or array.dtype.kind not in "biuf":
        raise InputError(
            f"{path} is an array of shape {array.shape}; give one of shape [rows, columns]."
        )
    return without_names(pd.DataFrame(np.array(array, dtype=float)))
