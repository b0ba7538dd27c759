"""All progress measures of a run, a row per checkpoint."""

from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from grokinterp.errors import InputError, shown
from grokinterp.fourier.acceptance import Keys, accepted
from grokinterp.fourier.answers import checked_frequencies, no_frequencies_reason, usable_group
from grokinterp.memory import kept_memory
from grokinterp.progress.measures import MEASURES, count
from grokinterp.runs.resolve import check_run, check_snapshot
from grokinterp.runs.run import Run
from grokinterp.runs.snapshot import Snapshot


def progress_measures(
    run: Run,
    *,
    frequencies: Sequence[int] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """One row a checkpoint, one column a measure; see `grokinterp.progress.MEASURES`.

    Losses and accuracies are over the p answer classes, in nats. The key frequencies are those of
    the last checkpoint (`gi.key_frequencies`) unless given, for every row, so that rows can be
    compared; they stand in `.attrs["frequencies"]` (None for a task without Fourier directions).
    Measures that need them are NaN where there are none, and `.attrs["reason"]` says why.
    `.attrs["note"]` is a caveat, such as that memorisation was not ruled out, or None.
    """
    check_run(run)
    bar = tqdm(run.steps, desc="measure", unit="checkpoint", disable=None if progress else True)
    rows = []
    with kept_memory():
        last = run.snapshot()
        key = _key_frequencies(last, frequencies)
        for step in bar:
            snapshot = last if step == last.step else run.snapshot(step)
            rows.append({"step": step} | measure_snapshot(snapshot, key))
    frame = pd.DataFrame(rows)
    frame.attrs = {
        "frequencies": None if usable_group(last) is None else list(key),
        "reason": key.reason,
        "note": "; ".join(key.notes) or None,
    }
    return frame


def measure_snapshot(snapshot: Snapshot, frequencies: Sequence[int]) -> dict[str, float]:
    """Every registered measure of one snapshot; a column that two of them give is refused."""
    check_snapshot(snapshot)
    group = usable_group(snapshot)
    frequencies = () if group is None else checked_frequencies(frequencies, group)
    count(snapshot)
    row: dict[str, float] = {}
    by: dict[str, str] = {}
    for entry in MEASURES.values():
        columns = entry.columns(snapshot, frequencies)
        for column in columns:
            if column == "step" or column in row:
                other = by.get(column, "every table")
                raise InputError(
                    f"measure {entry.name!r} gives a column {shown(column)}, which {other} has "
                    "already; give it another prefix or name."
                )
            by[column] = f"measure {entry.name!r}"
        row |= columns
    return row


def _key_frequencies(last: Snapshot, given: Sequence[int] | None) -> Keys:
    group = usable_group(last)
    if group is None:
        return Keys(reason=no_frequencies_reason(last))
    if given is None:
        count(last)  # what the measures of this checkpoint need is counted in the same forward
        return accepted(last).keys
    return Keys(checked_frequencies(given, group), reason=None if given else "none were given")
