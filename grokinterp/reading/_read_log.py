"""`gi.read_log`: the curves in a log of any tool, as one table."""

from pathlib import Path

import pandas as pd

from grokinterp.base.paths import as_path
from grokinterp.reading.addresses import calling_by_address, local_copy
from grokinterp.reading.logs.columns import OURS, Columns
from grokinterp.reading.logs.table import By, logs_at


def read_log(
    path: str | Path, *, columns: Columns | str | None = None, by: By = None
) -> pd.DataFrame:
    """The curves in a log of any tool: a row a step, columns as those of metrics.csv.

        gi.read_log("metrics.csv")
        gi.read_log("events.out.tfevents.17", columns={"test_acc": "Accuracy/heldout"})

    Columns are `step` and those of train_loss, test_loss, train_acc, test_acc,
    test_loss_unmirrored, test_acc_unmirrored and excluded_loss that it has; losses in nats as they
    were logged, accuracies from 0 to 1; NaN where a step has none. `.attrs["notes"]` says how it
    was read: which column was taken for which, in which unit, what was left out. Several runs stand
    one after the other, told apart by a first column `run`.

    `columns` says which column is which, by our names; `by` which one tells runs apart. Formats:
    CSV and its kin, JSON, JSONL, npz, npy, pickles, Parquet, event files of TensorBoard, lines of
    `key=value`, those of plug-ins (`gi.register.log_format`), all of them gzipped too. Nothing in
    a file is executed. InputError in one line for what is no log.

    A log says what was written. It does not show of which weights: tools log before an update, or
    after it, or a mean over an epoch.

    >>> import tempfile
    >>> import pandas as pd
    >>> import grokinterp as gi
    >>> theirs = pd.DataFrame({"epoch": [0, 10, 20], "val/acc": [3.1, 47.5, 100.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     theirs.to_csv(f"{folder}/log.csv", index=False)
    ...     log = gi.read_log(f"{folder}/log.csv")
    >>> list(log), log.test_acc.round(3).tolist()
    (['step', 'test_acc'], [0.031, 0.475, 1.0])
    >>> log.attrs["notes"]
    ['read epoch as step, val/acc as test_acc, percent (val/acc goes up to 100)']
    """
    there = as_path("path", local_copy(path), such_as="metrics.csv")
    with calling_by_address(there):
        logs = logs_at(there, columns=columns, by=by)
    notes = list(dict.fromkeys(note for log in logs for note in log.notes))
    if len(logs) == 1 and logs[0].run is None:
        frame = logs[0].table.copy()
    else:
        frame = pd.concat([log.table.assign(run=log.run) for log in logs], ignore_index=True)
        frame = frame[["run", *(x for x in OURS if x in frame)]]
    frame.attrs = {"notes": notes}
    return frame
