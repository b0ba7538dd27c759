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
