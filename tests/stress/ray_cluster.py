"""A sweep on a Ray cluster of two nodes of this machine, one of which is killed in the middle.

    python -m tests.stress.ray_cluster [--quick]

The same runs are made by local workers first; every file must be the same, bit by bit.
"""

import argparse
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grokinterp as gi
from grokinterp.sweeps import Sweep
from tests.stress.bench import Bench, differing, files

BASE = gi.recipes()["mod11-quick"]
RUNS, QUICK_RUNS, QUICK_STEPS = 24, 6, 600
ALONE = {  # a cluster that nobody else can use, and that reports to nobody
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}


def node_killed(bench: Bench) -> None:
    """Kill a node when a third of the runs is done."""
    base = BASE.replace(steps=QUICK_STEPS) if bench.quick else BASE
    sweep = Sweep(base, ({"seed": tuple(range(bench.some(RUNS, quick=QUICK_RUNS)))},))
    names = list(sweep.recipes())
    file = bench.folder / "sweep.toml"
    file.write_text(sweep.to_toml())
    local, out = bench.folder / "local", bench.folder / "ray"
    took = time.monotonic()
    assert sweeping(file, local, "--workers", "2").wait() == 0
    took = time.monotonic() - took
    os.environ.update(ALONE)  # before ray is imported
    from ray.cluster_utils import Cluster

    start = time.monotonic()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        program = sweeping(file, out, "--executor", "ray", "--address", cluster.address)
        while n_rows(out) < len(names) // 3:
            assert program.poll() is None, program.communicate()
            time.sleep(0.1)
        done = n_rows(out)
        cluster.remove_node(node, allow_graceful=False)
        err = program.communicate()[1]
        assert program.returncode == 0, err
    finally:
        cluster.shutdown()
    bench.note = (
        f"{len(names)} runs, a node of two killed after {done}; local workers {took:.0f} s, "
        f"cluster {time.monotonic() - start:.0f} s with its start"
    )
    for name in (*names, "results.csv"):
        whole, made = local / name, out / name
        if name in names:
            bench.check(differing(made, files(whole)))
        else:
            bench.check(None if made.read_bytes() == whole.read_bytes() else f"{name} differs")
    if err:
        bench.losses.append(f"not silent: {err[:300]}")


def sweeping(file: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """The command, with a thread a run."""
    return subprocess.Popen(
        [sys.executable, "-m", "grokinterp.cli", "sweep", str(file), "--out", str(out),
         "--threads", "1", *more],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def n_rows(out: Path) -> int:
    """How many runs the table has."""
    table = out / "results.csv"
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


FAULTS = {"kill -9 of a node of a Ray cluster": node_killed}


def main() -> None:
    """Try it, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_RUNS} short runs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="grokinterp-stress-") as folder:
        bench = Bench(Path(folder), random.Random(0), asked.quick)
        node_killed(bench)
    print(bench.note)
    print(f"{bench.survived} of {bench.tried} the same bit by bit", *bench.losses, sep="\n")
    sys.exit(bool(bench.losses))


if __name__ == "__main__":
    main()
