"""A run as one file to look at, mail and keep."""

import os
from collections.abc import Sequence
from pathlib import Path

from grokinterp.circuits.subject import check_run
from grokinterp.encodings.comparison.compare import Comparison, compare
from grokinterp.encodings.comparison.lineup import names_of
from grokinterp.errors import InputError, named
from grokinterp.paths import as_path
from grokinterp.runs.files import write_whole
from grokinterp.runs.run import Run
from grokinterp.viz.report.about import look_at
from grokinterp.viz.report.drawing import Drawn, draw_panels
from grokinterp.viz.report.page import report_page
from grokinterp.viz.report.panels import ONCE, Panel


def report(runs: Run | Sequence[Run], path: str | Path, *, progress: bool = False) -> Path:
    """Write a run, or several side by side, as one HTML file that needs no network.

    It tells in plain words what became of each run, and shows its training, embedding, attention,
    neurons, answers, circuit and encoding, all moved through training by one slider; several runs
    are lined up by step or by phase. What a run does not have is said where it would stand. Images
    are of at most 30 checkpoints; ablations, the circuit and pruning of two, with few placebos:
    `gi.ablate` has as many as you like. A file of that name is replaced, whole or not at
    all. InputError for what is not a run and for a path that cannot be written to.
    """
    given = [runs] if isinstance(runs, Run) else runs
    if isinstance(given, str | Path) or not isinstance(given, Sequence) or not given:
        raise InputError(f"{named(runs)} is no run; give gi.load(path), or a list of them.")
    for run in given:
        check_run(run)
    path = as_path("path", path, such_as="report.html")
    if path.is_dir():  # before anything is measured
        raise InputError(f"{path} is a folder; give the name of a file, such as report.html.")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent} is no folder that can be written to; give another path.")
    names = [name.encode(errors="backslashreplace").decode() for name in names_of(given)]
    abouts = [
        look_at(run, name, n_runs=len(given), progress=progress)
        for run, name in zip(given, names, strict=True)
    ]
    drawn = [draw_panels(about, progress=progress) for about in abouts]
    compared = _compared(given, progress=progress) if len(given) > 1 else None
    write_whole(path, report_page(abouts, drawn, compared).encode(errors="backslashreplace"))
    return path


def _compared(runs: Sequence[Run], *, progress: bool) -> tuple[Drawn, Comparison | None]:
    """The comparison as a panel, and itself; or why these runs cannot be compared."""
    panel = Panel(
        "regimes",
        "comparison",
        "Medians of each regime, intervals over seeds shaded; in the order of learning.",
        ONCE,
    )
    try:
        found = compare(runs, progress=progress)
    except InputError as error:
        return Drawn(panel, reason=str(error)), None
    return Drawn(panel, figure=found.plot(), table=found.aligned()), found
