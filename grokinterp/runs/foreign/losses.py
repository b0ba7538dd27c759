"""The losses and accuracies that somebody else's files keep, on our step axis."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from grokinterp.runs.foreign.source import Source
from grokinterp.runs.foreign.splits import Evidence, Split, log_ratio
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED
from grokinterp.tasks.splits import mask_of


def logged_metrics(source: Source) -> pd.DataFrame:
    """A row per logged step: step and the columns of metrics.csv, NaN where nothing was logged."""
    frame = source.log
    if frame is None:
        frame = pd.DataFrame({"step": pd.Series(dtype="int64")})
    for column, curve in source.losses.items():
        part = pd.DataFrame({"step": curve.steps, column: curve.values})
        if source.logged_steps is not None:
            part = part[part["step"].isin(source.logged_steps)]
        if column not in frame:
            frame = frame.merge(part[np.isfinite(part[column])], on="step", how="outer")
    return frame.reindex(columns=["step", *COLUMNS, *UNMIRRORED]).sort_values(
        "step", ignore_index=True
    )


def stored_at(logged: pd.DataFrame, column: str, steps: Iterable[int]) -> dict[int, float]:
    """What was logged for these steps, where it was."""
    known = logged[["step", column]].dropna()
    known = known[known["step"].isin(list(steps)) & np.isfinite(known[column])]
    return dict(zip(known["step"].tolist(), known[column].tolist(), strict=True))


def aligned(source: Source, evidence: Evidence, split: Split) -> tuple[Source, tuple[str, ...]]:
    """The demo's test losses on the step that they agree with: after the update, or before."""
    curve = source.losses.get("test_loss")
    if source.format != "demo" or curve is None or split.rows is None:
        return source, ()
    test = ~mask_of(split.rows, evidence.task.n_inputs)
    if not test.any():
        return source, ()

    def moved(by: int) -> Source:
        shifted = {
            column: replace(each, steps=each.steps + by)
            for column, each in source.losses.items()
            if column.startswith("test")
        }
        return replace(source, losses={**source.losses, **shifted})

    def mismatch(by: int) -> float:
        stored = stored_at(logged_metrics(moved(by)), "test_loss", evidence.looked_at())
        found = {step: float(evidence.losses_of(step)[test].mean()) for step in stored}
        ratios = [abs(log_ratio(found[step], stored[step])) for step in stored]
        return float(np.mean(ratios)) if ratios else np.inf

    if mismatch(-1) < mismatch(0) / 10:
        return moved(-1), ("test losses are those before the update, as they agree so",)
    return source, ()
