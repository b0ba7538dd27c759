"""A file as large as the paper's, in a process of its own so that its memory can be told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from grokinterp.models.foreign_names import PAPER, to_foreign

pytestmark = pytest.mark.slow

N_CHECKPOINTS = 500
IMPORT = r"""
import json, re, sys, time
from pathlib import Path
begin = time.monotonic()
import grokinterp as gi
run = gi.import_run(sys.argv[1], sys.argv[2], train_indices=sys.argv[3])
seconds = time.monotonic() - begin
# Not ru_maxrss, which begins with the peak of the process that started this one.
peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
begin = time.monotonic()
for step in run.steps[:20]:
    run.snapshot(step).logits
one = (time.monotonic() - begin) / 20  # seconds for the logits of a checkpoint, here and now
print(json.dumps({"n": len(run.steps), "seconds": seconds, "one": one, "bytes": peak}))
"""


@pytest.fixture(scope="module")
def large_file(shipped, tmp_path_factory):
    """500 checkpoints of 227,000 parameters: the shipped ones, each a little different."""
    generator = torch.Generator().manual_seed(0)
    states = []
    for number in range(N_CHECKPOINTS):
        weights = shipped.weights(shipped.steps[number // 20])
        moved = {
            name: w + 1e-5 * torch.randn(w.shape, generator=generator) if "W_" in name else w
            for name, w in weights.items()
        }
        states.append(to_foreign(moved, PAPER, 1))
    path = tmp_path_factory.mktemp("large") / "full_run_data.pth"
    content = {
        "train_losses": [float("nan")] * 50_000,  # those of these weights are not known
        "test_losses": [1.0] * 5_000,
        "epochs": list(range(0, 50_000, 100)),
        "state_dicts": states,
    }
    torch.save(content, path)
    rows = path.with_name("rows.pt")
    torch.save(shipped.train_indices, rows)
    yield path
    path.unlink()


def test_it_is_imported_in_little_time_and_memory(large_file, tmp_path):
    assert large_file.stat().st_size > 450e6
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, large_file, tmp_path / "run", large_file.parent / "rows.pt"],
        capture_output=True, text=True, check=True, env=dict(os.environ),
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["n"] == N_CHECKPOINTS
    assert found["bytes"] < 1.5e9
    # Accuracies of every checkpoint are most of it: 45 s where the logits of one took 0.06 s.
    assert found["seconds"] < 4 * N_CHECKPOINTS * found["one"]
    assert len(list(Path(tmp_path / "run" / "weights").iterdir())) == N_CHECKPOINTS
