"""Logs of every kind, and what damages them, for `tests/fuzz.py`.

A mutation flips, removes or inserts bytes, puts other words and numbers into a text, or does these
to what is packed in a file and packs it again with right checksums.
"""

import bz2
import gzip
import io
import json
import lzma
import random
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import grokinterp as gi
from tests import fuzz_texts
from tests.log_writers import WRITERS

PACKED: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    ".gz": (gzip.decompress, gzip.compress),
    ".bz2": (bz2.decompress, bz2.compress),
    ".xz": (lzma.decompress, lzma.compress),
}
TEXTS = (".csv", ".tsv", ".dat", ".txt", ".log", ".out", ".json", ".jsonl", "")


def corpus(folder: Path) -> dict[Path, Callable[[Path], object]]:
    """A small log of every kind, and what reads a damaged copy of each."""
    rows = np.arange(40)
    frame = pd.DataFrame({
        "step": 10 * rows, "train_loss": np.exp(-rows / 3), "test_loss": 4 - rows / 20,
        "train_acc": np.minimum(rows / 5, 1), "test_acc": 1 / (1 + np.exp(20.0 - rows)),
    })  # fmt: skip
    looks: dict[Path, Callable[[Path], object]] = {}
    for name, write in WRITERS.items():
        path, options = write(frame, folder / "logs" / name)
        looks[path] = partial(look_at, **options)
    several = pd.concat([frame.assign(seed=seed) for seed in range(3)])
    several.to_csv(folder / "several.csv", index=False)
    (folder / "state.json").write_text(json.dumps({"log_history": frame.to_dict("records")}))
    return {**looks, folder / "several.csv": look_at, folder / "state.json": look_at}


def look_at(path: Path, **options: Any) -> None:
    """Read it, and use what it gives."""
    gi.read_log(path, **options)
    str(gi.detect_phases(path, **options))


def mutate(source: Path, target: Path, rng: random.Random, other: Callable[..., bytes]) -> None:
    """A damaged copy of a log; `other` damages bytes."""
    victim = rng.choice(fuzz_texts.copied(source, target))
    content = victim.read_bytes()
    packed = PACKED.get(victim.suffix)
    if packed and rng.random() < 0.7:
        unpack, pack = packed
        content = pack(_mutated(unpack(content), victim.with_suffix("").suffix, rng, other))
    elif victim.suffix == ".npz" and rng.random() < 0.7:
        content = _mutated_arrays(content, rng, other)
    else:
        content = _mutated(content, victim.suffix, rng, other)
    victim.write_bytes(content)


def _mutated(content: bytes, suffix: str, rng: random.Random, other: Callable[..., bytes]) -> bytes:
    if suffix in TEXTS and rng.random() < 0.7:
        return fuzz_texts.mutated_text(content, rng)
    return other(content, rng)


def _mutated_arrays(content: bytes, rng: random.Random, other: Callable[..., bytes]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    victim = rng.choice(list(members))
    members[victim] = other(members[victim], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()
