"""What the programs under test import, once, for the server that they are forked from."""

import contextlib
import io
import os
import threading
import warnings

import torch
import torch._dynamo  # which every optimizer imports
from tqdm.auto import tqdm

import grokinterp.cli
import grokinterp.recipe
import grokinterp.runs
import grokinterp.training
from grokinterp.runs.metrics import COLUMNS, csv_header, read_csv
from tests.stress import clocks, disks, flips, interruptions, kills, rivals  # noqa: F401

if "GROKINTERP_STRESS" in os.environ:  # the long way: what takes seconds to import too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformer_lens  # noqa: F401

    import grokinterp.encodings
    import grokinterp.progress
    import grokinterp.reporting

torch.set_num_threads(1)  # before a fork: threads of the parent are not in it
# What typer and pandas import when they are first used.
with contextlib.redirect_stdout(io.StringIO()):
    grokinterp.cli.app(["recipes", "mod31-grokked"], standalone_mode=False)
read_csv((csv_header(COLUMNS) + "0,1,1,1,1\n").encode())
tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a kill would leak
