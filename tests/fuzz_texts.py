"""Small texts that people write beside their weights, and what loads them, for `tests/fuzz.py`.

Recipes and sweeps in TOML, files of training rows, a JSON and a CSV beside a checkpoint, run.json
without its checksum put right. A mutation puts another word, number or structure in the place of
one that is there, repeats or drops lines, or writes the text in another encoding.
"""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

import grokinterp as gi
from grokinterp.sweeps import Sweep

ODD = (
    "", "0", "-1", "1e400", "-0.0", "nan", "inf", "NaN", "Infinity", "null", "true", "false",
    "9" * 30, "9" * 5000, "0x" + "f" * 5000, "1" + "_0" * 3000, "1.5", "2**53", str(2**53),
    '""', '"x"', '"' + "x" * 5000 + '"', "'a\\nb'", '"\\ud800"', "[]", "{}", "[" * 3000,
    "{" * 3000, '{"a":' * 3000, "[1, [2]]", '{"p": 7}', '[["a", "b"]]', "2026-11-28",
    "12:00:00", "\0", "\ufeff",
    "é", "\uff11\uff12", "\u202e", "a.b.c", "a." * 2000 + "a", "=", ",", "\t", "#", '"', "x" * 5000,
    '"../../x"', '"/etc/passwd"', '"hf://x/y"', '"add"', "1e-320", "3.0", "1_000", "'torch'",
)  # fmt: skip
TOKENS = re.compile(r'"[^"\n]*"|[-+\w.]+')
ENCODINGS = ("utf-16", "utf-32", "latin-1", "utf-8-sig", "cp037")


def corpus(folder: Path, run: gi.Run) -> dict[Path, Callable[[Path], object]]:
    """The files and folders, and what is to be done with a damaged copy of each."""
    texts = folder / "texts"
    texts.mkdir()
    (texts / "recipe.toml").write_text(run.recipe.to_toml())
    (texts / "sweep.toml").write_text(
        'recipe = "mod11-quick"\nmeasures = ["features"]\nensemble = 2\nseeds = [0, 4]\n[set]\n'
        "steps = 100\nlog_every = 5\n[[axes]]\nlr = {log = [1e-4, 1e-2], n = 5}\n[[axes]]\n"
        "data_seed = [0, 1, 2]\nweight_decay = [0.1, 1, 2.5]\n"
    )
    beside = texts / "beside"
    beside.mkdir()
    torch.save(run.weights(), beside / "model_step_4.pt")
    config = {"p": 5, "fn_name": "add", "n_heads": 2, "d_model": 8, "seed": 0, "lr": 1e-3,
              "train_fraction": 0.5, "model": {"act_type": "relu", "n_ctx": 3}}  # fmt: skip
    (beside / "model_step_4.json").write_text(json.dumps(config, indent=1))
    run.metrics.to_csv(beside / "model_step_4.csv", index=False)
    rows = run.train_indices
    torch.save({"train_indices": rows}, texts / "rows.pt")
    np.save(texts / "rows.npy", rows.numpy())
    safetensors.torch.save_file({"train_indices": rows}, texts / "rows.safetensors")
    shutil.copytree(run.path, texts / "run")
    return {
        texts / "recipe.toml": gi.Recipe.from_toml,
        texts / "sweep.toml": lambda path: Sweep.from_toml(path).recipes(),
        beside: _look_at_checkpoint,
        texts / "run": _look_at_run,
        **{texts / f"rows.{kind}": _with_rows(beside) for kind in ("pt", "npy", "safetensors")},
    }


def _look_at_checkpoint(folder: Path) -> None:
    _look_at_run(folder / "model_step_4.pt")


def _look_at_run(path: Path) -> None:
    run = gi.load(path)
    _ = run.notes, run.metrics, run.train_mask
    gi.detect_phases(run)


def _with_rows(beside: Path) -> Callable[[Path], None]:
    def look(path: Path) -> None:
        _ = gi.load(beside / "model_step_4.pt", train_indices=str(path)).train_mask

    return look


def copied(source: Path, target: Path) -> list[Path]:
    """Copy a file or a folder; the files of the copy."""
    if source.is_dir():
        shutil.copytree(source, target)
        return [file for file in target.rglob("*") if file.is_file()]
    shutil.copy(source, target)
    return [target]


def victims(path: Path) -> list[Path]:
    """The files that may be damaged: texts, and of those that are none, everything."""
    if path.is_file():
        return [path]
    texts = [file for file in path.rglob("*") if file.suffix in (".json", ".csv")]
    return sorted(texts)


def mutated_text(content: bytes, rng: random.Random) -> bytes:
    """A text with other words, lines or bytes that stand for it."""
    text = content.decode("utf-8")
    for _ in range(rng.choice((1, 1, 2, 4))):
        found = list(TOKENS.finditer(text))
        lines = text.splitlines(keepends=True)
        match rng.randrange(8):
            case 0 | 1 | 2 | 3 if found:
                token = rng.choice(found)
                odd = rng.choice((*ODD, rng.choice(found)[0]))
                text = text[: token.start()] + odd + text[token.end() :]
            case 4 if lines:
                at = rng.randrange(len(lines))
                line = rng.choice(lines)
                lines[at:at] = [line] * min(rng.choice((1, 1, 3, 1000)), 1 + 10**5 // len(line))
                text = "".join(lines)
            case 5 if lines:
                del lines[rng.randrange(len(lines))]
                text = "".join(lines)
            case 6:
                at = rng.randrange(len(text) + 1)
                text = text[:at] + rng.choice(ODD) + text[at:]
            case 7 if rng.random() < 0.3:
                return text.encode(rng.choice(ENCODINGS), "replace")
    return text.encode("utf-8", "replace")
