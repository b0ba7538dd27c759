"""Logs that claim to be more than they are, or are damaged: one line or a result, in seconds."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import subprocess
import sys
import time
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import grokinterp as gi

SLOWEST = 5.0  # seconds of this process
ZEROS = b"0" * (1 << 20)


def packed_by(compressor, n=600):
    """A compressed file of `n` megabytes of zeros."""
    parts = [compressor.compress(ZEROS) for _ in range(n)]
    return b"".join([*parts, compressor.flush()])


class Gzip:
    """gzip as a compressor of blocks."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.file = gzip.GzipFile(fileobj=self.buffer, mode="wb", mtime=0)

    def compress(self, block):
        self.file.write(block)
        return b""

    def flush(self):
        self.file.close()
        return self.buffer.getvalue()


def npz_bomb(declared=None):
    """A compressed array of 800 MB, or one that says another size than it has."""
    buffer, array = io.BytesIO(), io.BytesIO()
    n = 100_000_000 if declared is None else 8
    np.lib.format.write_array_header_1_0(
        array, {"descr": "<f8", "fortran_order": False, "shape": (declared or n,)}
    )
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("test_acc.npy", "w", force_zip64=True) as member,
    ):
        member.write(array.getvalue())
        for _ in range(8 * n // len(ZEROS) + 1):
            member.write(b"\0" * len(ZEROS))
    return buffer.getvalue()


def parquet_bomb(rows):
    """A few bytes that are a column of many equal rows."""
    buffer = io.BytesIO()
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array([0.5]))
    pq.write_table(pa.table({"step": column, "test_acc": column}), buffer, compression="zstd")
    return buffer.getvalue()


BOMBS = {
    "log.csv.gz": lambda: packed_by(Gzip()),
    "log.csv.bz2": lambda: packed_by(bz2.BZ2Compressor(), 300),
    "log.csv.xz": lambda: packed_by(lzma.LZMACompressor(preset=0)),
    "log.json.gz": lambda: packed_by(Gzip()),
    "log.npz": npz_bomb,
    "short.npz": lambda: npz_bomb(2**60),
    "log.parquet": lambda: parquet_bomb(60_000_000),
    "log.parquet.gz": lambda: gzip.compress(parquet_bomb(60_000_000)),
    "twice.csv.gz": lambda: gzip.compress(packed_by(Gzip())),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs_are_refused_within_seconds(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BOMBS[name]())
    before = time.process_time()
    with pytest.raises(gi.InputError) as error:
        gi.detect_phases(path)
    assert time.process_time() - before < SLOWEST
    assert str(path) in str(error.value)
    assert len(str(error.value)) <= 400


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", b"[" * 100_000, "nested too deeply"),
        ("x.jsonl", b'{"step": 0}\n' + b"[" * 100_000 + b"\n{}\n", "nested too deeply"),
        ("x.json", b'{"step": [' + b"9" * 5000 + b"]}", "cannot be read"),
        ("x.json", b'"just text"', "no log"),
        ("x.json", b"{}", "found: nothing"),
        ("x.json", json.dumps({f"c{i}": [i] for i in range(3000)}).encode(), "column"),
        ("x.json", json.dumps([{f"c{i}": i for i in range(1500)}]).encode(), "column"),
        ("x.npz", b"PK\x03\x04" + b"\0" * 40, "damaged"),
        (
            "x.npy",
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9",
            "damaged",
        ),
        ("x.pkl", pickle.dumps({"step": [0], "f": print}), "print|no log|column"),
        ("x.pkl", b"\x80\x02cos\nsystem\n(S'touch witness'\ntR.", "os.system"),
        ("x.parquet", b"PAR1" + b"\0" * 100 + b"PAR1", "no whole Parquet file"),
        ("events.out.tfevents.1", b"\x18" + b"\0" * 7 + b"abcd" + b"brain.Event:2", "scalars"),
        ("x.log", b"a" * 3_000_000, "characters in line 1"),
        ("x.csv", b'step,test_acc\n"' + b"0," * 1000, "never closed"),
    ],
)
def test_what_is_damaged_is_one_line(name, content, said, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(gi.InputError, match=said) as error:
        gi.detect_phases(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_no_encoding_writes(tmp_path):
    text = '{"step": [0, 1], "test_acc": [0.1, 0.2], "\\ud800": [1, 2], "run": ["\\udfff", "a"]}'
    (tmp_path / "x.json").write_text(text)
    found = gi.detect_phases(tmp_path / "x.json")
    str(found).encode()


def test_pickled_objects_of_pandas_are_no_logs_and_not_run(tmp_path):
    pd.DataFrame({"step": [0], "test_acc": [0.5]}).to_pickle(tmp_path / "x.pkl")
    with pytest.raises(gi.InputError, match=r"x\.pkl"):
        gi.detect_phases(tmp_path / "x.pkl")


@pytest.mark.slow
def test_damaged_logs_are_read_or_refused():
    """tests/fuzz.py on logs in short: in a process of its own, as its audit hook stays for ever."""
    done = subprocess.run(
        [sys.executable, "tests/fuzz.py", "1000", "5", "logs"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("1000 logs: {'run': ")
