"""A run, or several, as one HTML file to look at, mail and keep.

The template is filled with what `about.py` says of each run and what `panels.py` draws; styles,
scripts and figures are inside.
"""

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from plotly.offline import get_plotlyjs
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.files import write_whole
from grokinterp.base.paths import new_file
from grokinterp.circuits._figures.answers import circuitsvis_script
from grokinterp.comparison._compare import Comparison, compare
from grokinterp.comparison.lineup import PLACES, Clock, names_of
from grokinterp.figures._figure import DARK, LIGHT
from grokinterp.figures.pages import asset, packed, packed_json, render, zipped
from grokinterp.reading._load import Subject, runs_of
from grokinterp.recipe.builtin import recipes
from grokinterp.reporting.about import About, about_run, in_words
from grokinterp.reporting.panels import ONCE, SECTIONS, Drawn, Panel, draw_panels
from grokinterp.runs.manifest import current_versions
from grokinterp.runs.run import Run, nearest_step
from grokinterp.tasks.task import Task

PARTS = 8  # of the way between two places
SCRIPTS = ("unpack.js", "panels.js", "tables.js", "moving.js")  # together one module


def slider_positions(abouts: Sequence[About]) -> dict[str, list[dict[str, Any]]]:
    """Where the slider can stand: by "step", and of several runs that learned test by "phase" too.

    A position has a key (the step, or the place on `Clock`), a label, and the checkpoint of each
    run that is nearest to it.
    """

    def stop(key: float, label: str, *axes: Callable[[int], float]) -> dict[str, Any]:
        near = [nearest_step(x.steps, key, at=at) for x, at in zip(abouts, axes, strict=True)]
        return {"key": key, "label": label, "steps": near}

    every = sorted({step for about in abouts for step in about.steps})
    found = {
        "step": [stop(step, _step_label(abouts, step), *(float,) * len(abouts)) for step in every]
    }
    clocks = [clock for about in abouts if (clock := _clock(about))]
    if len(clocks) == len(abouts) > 1:
        found["phase"] = [
            stop(place, _between_places(place), *(clock.position for clock in clocks))
            for place in (i / PARTS for i in range(3 * PARTS + 1))
        ]
    return found


def _step_label(abouts: Sequence[About], step: int) -> str:
    """Of one run with the phase that the step is in; an open phase goes on to the end."""
    for phase in (abouts[0].phases.phases or ()) if len(abouts) == 1 else ():
        begun = phase.start is not None and phase.start <= step
        if begun and (phase.end is None or step < phase.end):
            return f"step {step} · {phase.name.replace('_', ' ')}"
    return f"step {step}"


def _between_places(position: float) -> str:
    before = int(position)
    if position == before:
        return PLACES[before]
    return f"{PLACES[before]} → {PLACES[before + 1]}, {position - before:.0%}"


def _clock(about: About) -> Clock | None:
    t_train, t_test, last = about.phases.t_train, about.phases.t_test, about.run.steps[-1]
    if t_train is None or t_test is None or t_test > last:
        return None
    return Clock(t_train, max(t_train, t_test), last)


def report_page(
    abouts: Sequence[About],
    drawn: Sequence[Sequence[Drawn]],
    compared: tuple[Drawn, Comparison | None] | None = None,
) -> str:
    """The whole page: of each run what was measured and its panels; of several, the comparison."""
    several = len(abouts) > 1
    versions = current_versions()
    positions = slider_positions(abouts)
    data = {"plotly.js": zipped(get_plotlyjs().encode())}
    if any(panel.patterns for panels in drawn for panel in panels):
        data["circuitsvis.js"] = zipped(circuitsvis_script().encode())
    cells: list[list[dict[str, Any]]] = []  # of each run, its panels
    for i, (about, panels) in enumerate(zip(abouts, drawn, strict=True)):
        cells.append([])
        for panel in panels:
            name = panel.panel.name
            own_id = f"{name}-{i + 1}" if several else name
            data |= _data(panel, own_id)
            label = about.name if several else ""
            cells[i].append(_cell(panel, own_id, i, file=f"{about.name}-{name}", label=label))
    sections = []
    for section, title in SECTIONS.items():
        rows = [[cell for cell in own if cell["section"] == section] for own in cells]
        if several:  # a row for each panel, with one cell per run
            rows = [list(row) for row in zip(*rows, strict=True)]
        sections.append({"id": section, "title": title, "rows": rows})
    comparison = None
    if compared:
        panel, comparison = compared
        name = panel.panel.name
        data |= _data(panel, name)
        rows = [[_cell(panel, name, 0, file=name)]]
        sections.append({"id": "comparison", "title": "Comparison", "rows": rows})
    themes = {"light": LIGHT, "dark": DARK}
    paths = [about.run.path for about in abouts]
    return render(
        "report.html.j2",
        title=f"grokinterp report: {', '.join(about.name for about in abouts)}",
        version=versions["grokinterp"],
        versions=_listed(versions),
        style=asset("page.css"),
        script="\n".join(map(asset, SCRIPTS)),
        sections=sections,
        comparison=comparison,
        modes=list(positions),
        n_stops=len(positions["step"]),
        runs=[_run(about) for about in abouts],
        # The runs as they were given; of an absolute path only the name, which others can use.
        command=shlex.join(
            ["grokinterp", "report", *(x.name if x.is_absolute() else str(x) for x in paths)]
        ),
        packed=data,
        report={
            "names": [about.name for about in abouts],
            "modes": list(positions),
            "stops": positions,
            "templates": {name: template.to_plotly_json() for name, template in themes.items()},
        },
    )


def _cell(panel: Drawn, own_id: str, run: int, *, file: str, label: str = "") -> dict[str, Any]:
    """`file` is what its downloads are called, `label` the run it is of where there are several."""
    return {
        "id": own_id,
        "section": panel.panel.section,
        "file": file,
        "label": label,
        "run": run,
        "only": panel.only,
        "kind": "plot" if panel.figure else "patterns" if panel.patterns else None,
        "title": panel.panel.name.replace("-", " ").capitalize(),
        "caption": _caption(panel),
        "reason": panel.reason,
    }


def _caption(panel: Drawn) -> str:
    """With the steps that it is drawn of where these are few, and why others are missing."""
    found = [panel.panel.caption]
    if panel.steps:
        found.append(f"Of step{'s' * (len(panel.steps) > 1)} {', '.join(map(str, panel.steps))}.")
    if panel.reason and (panel.figure or panel.patterns):
        found.append(f"Missing at some steps: {panel.reason}")
    return " ".join(found)


def _data(panel: Drawn, name: str) -> dict[str, str]:
    """What the page holds of a panel: its figure or patterns, and its table as CSV."""
    found = {}
    if panel.figure is not None:
        found[f"data-{name}"] = packed(panel.figure)
    if panel.patterns:  # what CircuitsVis needs of each step and input
        layer = next(iter(panel.patterns.values())).layer
        frames = [
            {"step": step, "inputs": [one.props(i) for i in range(len(one.inputs))]}
            for step, one in panel.patterns.items()
        ]
        title = f"Attention of layer {layer} on chosen inputs"
        found[f"data-{name}"] = packed_json({"title": title, "frames": frames})
    if panel.table is not None:
        table = panel.table.to_csv(index=False).encode()
        found[f"csv-{name}"] = zipped(table)
    return found


def _run(about: About) -> dict[str, Any]:
    run, trained = about.run, about.run.manifest
    return {
        "name": about.name,
        "what": f"{run.task.title}, {run.architecture.kind}, {len(run.steps)} checkpoints, "
        f"steps {run.steps[0]} to {run.steps[-1]}" + ("" if run.finished else ", unfinished"),
        **in_words(about),
        "recipe": run.recipe and run.recipe.to_toml(),
        "origin": _origin(run),
        "versions": ""
        if trained.source
        else "; ".join((_listed(trained.versions), *trained.changes())),
    }


def _origin(run: Run) -> str:
    """The command that makes the run again, or what is known of where it came from."""
    if run.recipe is None:
        notes = "; ".join(run.notes)
        return "It has no recipe: its weights were recorded or imported" + (
            f" ({notes})." if notes else "."
        )
    named = [name for name, recipe in recipes().items() if recipe == run.recipe]
    saved = "" if named else "Save this as recipe.toml, then: "
    what = named[0] if named else "recipe.toml"
    return f"{saved}grokinterp train {what} --out {shlex.quote(run.path.name)}"


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def report(
    runs: Subject | Sequence[Subject],
    path: str | Path,
    *,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Path:
    """Write a run, or several side by side, as one HTML file that needs no network.

    It says in plain words what became of each run, and shows its training, embedding, attention,
    neurons, answers, circuit and encoding, all moved through training by one slider; several runs
    are lined up by step or by phase. What a run does not have is said where it would stand. Images
    are of at most 30 checkpoints; ablations, the circuit and pruning are of two, with few placebos:
    `gi.ablate` has as many as you like. A file of that name is replaced, whole or not at all.
    InputError for what is not a run, and for a path that cannot be written to.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = gi.report(gi.load("mod31-small").snapshot(), f"{folder}/report.html")
    ...     page = path.read_text(encoding="utf-8")
    >>> path.name, "<title>grokinterp report" in page
    ('report.html', True)
    """
    given = runs_of(runs, task=task, train_mask=train_mask)
    path = new_file("path", path, such_as="report.html")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent} is no folder that can be written to; give another path.")
    names = [name.encode(errors="backslashreplace").decode() for name in names_of(given)]
    abouts = [
        about_run(run, name, n_runs=len(given), progress=progress)
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
