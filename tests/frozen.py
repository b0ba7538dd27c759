"""What the commands say of the shipped runs and of two small ones, to hold a rebuilding against.

    python tests/frozen.py write OUT            # with the package that is installed
    python tests/frozen.py compare BEFORE AFTER

Written are `phases`, `measure`, `ablate` and `compare` with --json, `gi.paper_table` and, from
the reports, all panels as CSV and figure. The two small runs are trained into OUT, or taken from
`--runs FOLDER`, so that both sides read the same weights. Compared: texts to the letter, numbers to
1e-9 relative. Nothing is stored in the repository: the outputs of one state are made from a clone
of it.
"""

import argparse
import base64
import gzip
import io
import json
import math
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
SHIPPED = (
    "mod113-grokked", "mod113-steady", "mlp113-grokked", "mlp113-steady", "ising-grokked",
    "ising-steady",
)  # fmt: skip
PAIRS = {"mod113": SHIPPED[0:2], "mlp113": SHIPPED[2:4], "ising": SHIPPED[4:6]}
SMALL = ("mod31-grokked", "mod31-steady")
RELATIVE = 1e-9
# Renamed on purpose: the new name of a column, by the old one.
RENAMED: dict[str, str] = {}


def write(out: Path, runs: Path | None) -> None:
    """Every output of every run under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    if runs is None:
        for name in SMALL:
            command("train", name, "--out", out / "runs" / name)
    else:
        shutil.copytree(runs, out / "runs", dirs_exist_ok=True)
    folders = {name: CHECKPOINTS / name for name in SHIPPED}
    folders |= {name: out / "runs" / name for name in SMALL}
    for name, folder in folders.items():
        print(name, flush=True)
        keep(out / f"{name}.phases.json", command("phases", folder, "--json"))
        keep(out / f"{name}.ablate.json", command("ablate", folder, "--json"))
        command("measure", folder, "--out", out / f"{name}.measure.csv")
        report = out / f"{name}.html"
        command("report", folder, "--out", report)
        for panel, content in panels(report).items():
            keep(out / f"{name}.panels" / panel, content)
        report.unlink()
        if "mod" in name:
            keep(out / f"{name}.paper_table.csv", paper_table(folder))
    for name, pair in (PAIRS | {"mod31": SMALL}).items():
        found = command("compare", *(folders[run] for run in pair), "--json")
        keep(out / f"{name}.compare.json", found)


def command(*arguments: object) -> str:
    """What a command writes to standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "grokinterp.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def keep(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def paper_table(folder: Path) -> str:
    import grokinterp as gi

    return gi.paper_table(gi.load(folder)).table().to_csv(index=False)


def panels(report: Path) -> dict[str, str]:
    """The tables of a report's panels as CSV, and their figures as JSON."""
    found = {}
    for kind, name, text in re.findall(
        r'id="(csv|data)-([\w-]+)"[^>]*>([A-Za-z0-9+/=\s]+)<', report.read_text()
    ):
        raw = gzip.decompress(base64.b64decode(text))
        if kind == "csv":
            found[f"{name}.csv"] = raw.decode()
        else:
            length = int.from_bytes(raw[:4], "little")
            figure = json.loads(raw[4 : 4 + length])
            found[f"{name}.json"] = json.dumps(unpacked(figure, raw[4 + length :]))
    return found


def unpacked(part, arrays: bytes):
    """The figure with its arrays as lists; images stay as the codes that the page has."""
    import numpy as np

    if isinstance(part, list):
        return [unpacked(one, arrays) for one in part]
    if not isinstance(part, dict):
        return part
    if "at" not in part or "type" not in part:
        return {name: unpacked(value, arrays) for name, value in part.items()}
    count = math.prod(part["shape"])
    if part["type"] != "q2":
        dtype = np.dtype("<" + part["type"])
        return np.frombuffer(arrays, dtype, count, part["at"]).tolist()
    raw = np.frombuffer(arrays, "u1", 2 * count, part["at"])
    codes = raw[:count].astype(int) + 256 * raw[count:].astype(int)
    return {"low": part["low"], "step": part["step"], "codes": codes.tolist()}


def compare(before: Path, after: Path) -> int:
    """The number of outputs that differ; each is named with its first difference."""
    ours = {path.relative_to(before) for path in before.rglob("*") if is_output(path)}
    theirs = {path.relative_to(after) for path in after.rglob("*") if is_output(path)}
    differing = 0
    for name in sorted(ours | theirs):
        if name not in ours or name not in theirs:
            why = f"is missing {'before' if name not in ours else 'after'}"
        else:
            why = difference(read(before / name), read(after / name), "")
        if why:
            differing += 1
            print(f"{name}: {why}")
    print(f"{len(ours | theirs)} outputs, {differing} differ")
    return differing


def is_output(path: Path) -> bool:
    return path.suffix in (".json", ".csv") and "runs" not in path.parts


def read(path: Path):
    if path.suffix == ".json":
        return json.loads(path.read_text())
    frame = pd.read_csv(io.StringIO(path.read_text()), float_precision="round_trip")
    return frame.to_dict("list")


def difference(one, other, where: str) -> str:
    """The first place at which two outputs are not the same; "" where there is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        one = {RENAMED.get(name, name): value for name, value in one.items()}
        if missing := one.keys() - other.keys():
            return f"{where} lacks {sorted(missing)}"
        if new := other.keys() - one.keys() - set(RENAMED):
            return f"{where} has {sorted(new)} besides"
        pairs = [(f"{where}.{name}", one[name], other[name]) for name in one]
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"{where} has {len(other)} entries, had {len(one)}"
        pairs = [(f"{where}[{i}]", *pair) for i, pair in enumerate(zip(one, other, strict=True))]
    elif is_number(one) and is_number(other):
        both_nan = math.isnan(one) and math.isnan(other)
        same = both_nan or one == other or math.isclose(one, other, rel_tol=RELATIVE)
        return "" if same else f"{where} is {other}, was {one}"
    elif where.endswith(".run") and Path(one).name == Path(other).name:
        return ""  # the same run, in another clone
    else:
        return "" if one == other else f"{where} is {str(other)[:120]!r}, was {str(one)[:120]!r}"
    return next(filter(None, (difference(a, b, place) for place, a, b in pairs)), "")


def is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("out", type=Path)
    writing.add_argument("--runs", type=Path)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.command == "write":
        write(given.out, given.runs)
    else:
        raise SystemExit(bool(compare(given.before, given.after)))


if __name__ == "__main__":
    main()
