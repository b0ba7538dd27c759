"""The page of a sweep: its figures, chosen by the keys that vary, and its table."""

import html
from collections.abc import Sequence

import pandas as pd

from grokinterp.base.checks import text
from grokinterp.base.errors import InputError
from grokinterp.figures._figure import Figure
from grokinterp.figures.pages import asset, html_table, render
from grokinterp.recipe.keys import CHANCE, WATCHING
from grokinterp.sweeps._figures.cells import LABEL, NO_LABEL, Table, counted
from grokinterp.sweeps._figures.phase_diagram import plot_phase_diagram
from grokinterp.sweeps._figures.scaling import plot_scaling
from grokinterp.sweeps.table import FINGERPRINT, NOTE

PREFERRED = ("grok_step", "t_test", "test_loss")  # the first that a run has a value in is drawn
PANELS_DRAWN = 6
MOST_ROWS = 1000
COLUMN = 104  # pixels of a cell that holds an interval, legibly
BESIDE = 170  # pixels beside the cells: names of the y axis, bar of colours
OWN_BEST = (
    "t_train and t_test are when a run came within 5 % of its own best accuracy, which need not be "
    "good: read them with the labels."
)


def sweep_page(table: pd.DataFrame, *, value: str | None = None, title: str = "Sweep") -> str:
    """One HTML page that needs no network: what varied, figures of it, and the table.

    `table` is what `run_sweep` returns, or its results.csv; `value` is the column drawn, unless
    given the first of grok_step, t_test and test_loss that a run has. The axes are the recipe keys
    that vary, but never the seeds, nor keys that the others determine (one value for each
    combination of them). One key makes a scaling plot; two make phase diagrams of the value and of
    the label; of more, the two with the most values are drawn, with a panel for each combination of
    the others, at most six. The page says what is left out, and lists at most 1,000 runs.
    InputError for a table without a run, and for a `value` that no run has as a number.

    >>> import grokinterp as gi, pandas as pd
    >>> runs = [(7, 0, 400), (7, 1, 500), (11, 0, 900), (11, 1, 1000)]
    >>> table = pd.DataFrame(runs, columns=["p", "seed", "grok_step"])
    >>> page = gi.viz.sweep_page(table, title="Primes")
    >>> "<title>Primes</title>" in page, "p: 7, 11" in page
    (True, True)
    """
    runs = Table(table)
    text("title", title, such_as="'Sweep'")
    if value is not None:
        runs.numbers(value)  # refused before anything is drawn
    keys, notes = _axes(runs)
    value = value or next((name for name in PREFERRED if _has(runs, name)), None)
    drawn, more = _drawn(runs, keys, value)
    notes += more
    charts = [
        {"html": chart.to_html(full_html=False, include_plotlyjs=i == 0), "width": width}
        for i, (chart, width) in enumerate(drawn)
    ]
    if n := sum(note is not None for note in runs.column_if_any(NOTE)):
        notes.append(f"{n} of {len(table)} runs have a note: see the table.")
    rows = table.head(MOST_ROWS).drop(columns=FINGERPRINT, errors="ignore")
    return render(
        "sweep.html.j2",
        title=title,
        summary=_summary(runs, keys),
        notes=notes,
        charts=charts,
        style=asset("page.css"),
        n_runs=len(table),
        n_shown=len(rows),
        runs=html_table(rows, _cell),
    )


def _axes(table: Table) -> tuple[list[str], list[str]]:
    """The keys that make axes, and notes on those that vary and make none."""
    keys, notes = [], []
    for key, cells in table.varied.items():
        if key in CHANCE:
            continue
        if None in cells:
            notes.append(f"{key} varies and is empty in some runs, so it is no axis.")
        else:
            keys.append(key)
    watching = (*WATCHING, "steps")  # most often depend on others, so they are the first to leave
    backwards = keys[::-1]
    for key in sorted(backwards, key=lambda key: key not in watching):
        others = [other for other in keys if other != key]
        if others and table.determined(key, others):
            keys = others
            notes.append(f"{key} varies with {' and '.join(others)}, so it is no axis of its own.")
    return keys, notes


def _drawn(
    table: Table, keys: Sequence[str], value: str | None
) -> tuple[list[tuple[Figure, int]], list[str]]:
    """The figures that these keys allow, and notes on what they leave out.

    With each figure comes the width in pixels below which its text is too small.
    """
    labelled = set(table.labels(asked=False)) != {NO_LABEL}
    notes = []
    if value is None:
        notes.append(f"No run has a value in {', '.join(PREFERRED)}: there is no such figure.")
    elif PREFERRED[0] in table.frame.columns and not _has(table, PREFERRED[0]):
        notes.append(f"No run has a {PREFERRED[0]}.")
    if value in ("t_train", "t_test"):
        notes.append(OWN_BEST)
    if not keys:
        return [], [*notes, "Nothing but seeds varies: there is no axis to draw along."]
    if len(keys) == 1:
        return [(plot_scaling(table.frame, x=keys[0], value=value), 0)] if value else [], notes
    n = {key: len(table.axis(key).names) for key in keys}
    x, y = sorted(sorted(keys, key=lambda key: -n[key])[:2], key=keys.index)
    others, part = [key for key in keys if key not in (x, y)], table.frame
    if others:
        panels = table.axis(*others, least=1)
        part = part[panels.places < PANELS_DRAWN]
        if (n_panels := len(panels.names)) > PANELS_DRAWN:
            notes.append(
                f"{n_panels - PANELS_DRAWN} of {n_panels} combinations of {' and '.join(others)} "
                "are not drawn; draw them with plot_phase_diagram from a part of the table."
            )
    width = BESIDE + COLUMN * len(Table(part).axis(x, least=1).names)
    figures = []
    for column in ([value] if value else []) + [LABEL] * labelled:
        try:
            drawn = plot_phase_diagram(part, x=x, y=y, value=column, by=others)
        except InputError as error:  # what is left out may be all that has a value
            notes.append(f"No figure of {column}: {error}")
        else:
            figures.append((drawn, width))
    return figures, notes


def _summary(table: Table, keys: Sequence[str]) -> list[str]:
    """What was swept, in lines."""
    lines = []
    for key in keys:
        names = table.axis(key).names
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        lines.append(f"{key}: {shown}")
    chance = {key: {*map(str, cells)} for key, cells in table.varied.items() if key in CHANCE}
    lines += [f"{key}: {len(values)} values" for key, values in chance.items()]
    labels = table.labels(asked=False)
    lines += [] if set(labels) == {NO_LABEL} else [f"labels: {counted(labels)}"]
    return [html.unescape(line) for line in lines]  # the template escapes names as figures do


def _cell(value: float) -> str:
    """Whole numbers as they are: a column of steps with a gap in it has become one of floats."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e9 else f"{value:.4g}"


def _has(table: Table, column: str) -> bool:
    try:
        table.numbers(column)
    except InputError:
        return False
    return True
