"""A run as one file to look at, mail and keep."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from grokinterp.base.errors import InputError
from grokinterp.base.files import write_whole
from grokinterp.base.paths import as_path
from grokinterp.circuits._attention import AttentionPatterns
from grokinterp.circuits._figures.attention import circuitsvis_script
from grokinterp.comparison._compare import Comparison, compare
from grokinterp.comparison.lineup import PLACES, Clock, names_of
from grokinterp.figures._figure import DARK, LIGHT
from grokinterp.figures.pages import as_text, asset, packed, render, together, zipped
from grokinterp.reading._load import RunOrPath, runs_of
from grokinterp.recipe.builtin import recipes
from grokinterp.reporting.about import About, because, findings, headline, look_at, undetermined
from grokinterp.reporting.panels import ONCE, SECTIONS, Drawn, Panel, draw_panels
from grokinterp.runs.manifest import current_versions
from grokinterp.runs.run import Run, nearest_step

# MERGED viz.report.stops: Where the report's slider can stop: at steps, or at what the runs had learned.
# MERGED viz.report.page: The report as one HTML file: the template filled, with styles, scripts and figures inside.


PARTS = 8  # between two places


def stops_of(abouts: Sequence[About]) -> dict[str, list[dict[str, Any]]]:
    """By "step", and of several runs that learned test also by "phase".

    A stop has a key (the step, or the position of `alignment`), a label, and the checkpoint of each
    run that is nearest to it.
    """
    found = {"step": [_at_step(abouts, step) for step in _all_steps(abouts)]}
    clocks = [_clock(about) for about in abouts]
    if len(abouts) > 1 and all(clocks):
        found["phase"] = [_at_position(abouts, clocks, i / PARTS) for i in range(3 * PARTS + 1)]
    return found


def _all_steps(abouts: Sequence[About]) -> list[int]:
    return sorted({step for about in abouts for step in about.steps})


def _at_step(abouts: Sequence[About], step: int) -> dict[str, Any]:
    steps = [nearest_step(about.steps, step) for about in abouts]
    label = f"step {step}"
    if len(abouts) == 1 and (phase := _phase(abouts[0], step)):
        label += f" · {phase}"
    return {"key": step, "label": label, "steps": steps}


def _at_position(
    abouts: Sequence[About], clocks: Sequence[Clock | None], position: float
) -> dict[str, Any]:
    steps = [
        nearest_step(about.steps, position, at=clock.position)
        for about, clock in zip(abouts, clocks, strict=True)
        if clock
    ]
    before = int(position)
    label = PLACES[before]
    if position > before:
        label += f" → {PLACES[before + 1]}, {position - before:.0%}"
    return {"key": position, "label": label, "steps": steps}


def _clock(about: About) -> Clock | None:
    t_train, t_test, last = about.phases.t_train, about.phases.t_test, about.run.steps[-1]
    if t_train is None or t_test is None or t_test > last:
        return None
    return Clock(t_train, max(t_train, t_test), last)


def _phase(about: About, step: int) -> str | None:
    """The phase that a step is in; an open one goes on to the end."""
    for phase in about.phases.phases:
        if (
            phase.start is not None
            and phase.start <= step
            and (phase.end is None or step < phase.end)
        ):
            return phase.name.replace("_", " ")
    return None


SCRIPTS = ("unpack.js", "panels.js", "tables.js", "moving.js")  # together one module


def report_page(
    abouts: Sequence[About],
    drawn: Sequence[Sequence[Drawn]],
    compared: tuple[Drawn, Comparison | None] | None = None,
) -> str:
    """The whole page: of each run what was measured and its panels; of several, the comparison."""
    versions = current_versions()
    stops = stops_of(abouts)
    told = {
        "names": [about.name for about in abouts],
        "modes": list(stops),
        "stops": stops,
        "templates": {
            name: template.to_plotly_json() for name, template in (("light", LIGHT), ("dark", DARK))
        },
    }
    data = {"plotly.js": as_text(zipped(get_plotlyjs().encode()))}
    if any(panel.patterns for panels in drawn for panel in panels):
        data["circuitsvis.js"] = as_text(zipped(circuitsvis_script().encode()))
    for i, panels in enumerate(drawn):
        for panel in panels:
            data |= _data(panel, _id(panel, i, len(abouts)))
    sections = [_section(name, abouts, drawn) for name in SECTIONS]
    comparison = None
    if compared:
        panel, comparison = compared
        data |= _data(panel, panel.panel.name)
        row = [_panel(panel, panel.panel.name, 0, file=panel.panel.name)]
        sections.append({"id": "comparison", "title": "Comparison", "rows": [row]})
    return render(
        "report.html.j2",
        title=f"grokinterp report: {', '.join(about.name for about in abouts)}",
        version=versions["grokinterp"],
        versions=_listed(versions),
        style=asset("page.css"),
        script="\n".join(map(asset, SCRIPTS)),
        sections=sections,
        comparison=comparison,
        modes=list(stops),
        n_stops=len(stops["step"]),
        runs=[_run(about) for about in abouts],
        command=shlex.join(["grokinterp", "report", *(_given(about.run) for about in abouts)]),
        packed=data,
        report=told,
    )


def _id(panel: Drawn, run: int, n_runs: int) -> str:
    return panel.panel.name if n_runs == 1 else f"{panel.panel.name}-{run + 1}"


def _section(
    name: str, abouts: Sequence[About], drawn: Sequence[Sequence[Drawn]]
) -> dict[str, Any]:
    """Of one run, its panels; of several, a row for each panel with one cell a run."""
    own = [[panel for panel in panels if panel.panel.section == name] for panels in drawn]
    cells = [
        [
            _panel(
                panel,
                _id(panel, i, len(drawn)),
                i,
                file=f"{about.name}-{panel.panel.name}",
                label=about.name if len(drawn) > 1 else "",
            )
            for panel in panels
        ]
        for i, (about, panels) in enumerate(zip(abouts, own, strict=True))
    ]
    rows = cells if len(drawn) == 1 else [list(row) for row in zip(*cells, strict=True)]
    return {"id": name, "title": SECTIONS[name], "rows": rows}


def _panel(panel: Drawn, own_id: str, run: int, *, file: str, label: str = "") -> dict[str, Any]:
    """`file` is what its downloads are called, `label` the run it is of where there are several."""
    return {
        "id": own_id,
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
    """With the steps it is drawn of where these are few, and why others are missing."""
    found = [panel.panel.caption]
    if panel.steps:
        found.append(f"Of step{'s' * (len(panel.steps) > 1)} {', '.join(map(str, panel.steps))}.")
    if panel.reason and (panel.figure or panel.patterns):
        found.append(f"Missing at some steps: {panel.reason}")
    return " ".join(found)


def _given(run: Run) -> str:
    """The run as it was given; of an absolute path only the name, which others can use."""
    return run.path.name if run.path.is_absolute() else str(run.path)


def _data(panel: Drawn, name: str) -> dict[str, str]:
    """What the page holds of a panel: its figure, and its table as CSV."""
    found = {}
    if panel.figure is not None:
        found[f"data-{name}"] = as_text(packed(panel.figure))
    if panel.patterns:
        found[f"data-{name}"] = as_text(packed_patterns(panel.patterns))
    if panel.table is not None:
        table = panel.table.to_csv(index=False).encode()
        found[f"csv-{name}"] = as_text(zipped(table))
    return found


def _run(about: About) -> dict[str, Any]:
    run = about.run
    return {
        "name": about.name,
        "what": f"{run.task.title}, {run.architecture.kind}, {len(run.steps)} checkpoints, "
        f"steps {run.steps[0]} to {run.steps[-1]}" + ("" if run.finished else ", unfinished"),
        "headline": headline(about),
        "findings": findings(about),
        "undetermined": undetermined(about),
        "because": because(about),
        "recipe": run.recipe and run.recipe.to_toml(),
        "origin": _origin(run),
        "versions": "" if run.manifest.source else _trained_with(run),
    }


def _origin(run: Run) -> str:
    """The command that makes the run again, or what is known of where it came from."""
    if run.recipe is None:
        notes = "; ".join(run.notes)
        return "It has no recipe: its weights were recorded or imported" + (
            f" ({notes})." if notes else "."
        )
    named = [name for name, recipe in recipes().items() if recipe == run.recipe]
    if named:
        return f"grokinterp train {named[0]} --out {shlex.quote(run.path.name)}"
    return "Save this as recipe.toml, then: grokinterp train recipe.toml --out " + shlex.quote(
        run.path.name
    )


def _trained_with(run: Run) -> str:
    return "; ".join((_listed(run.manifest.versions), *run.manifest.changes()))


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in versions.items())


def report(
    runs: RunOrPath | Sequence[RunOrPath], path: str | Path, *, progress: bool = False
) -> Path:
    """Write a run, or several side by side, as one HTML file that needs no network.

    It tells in plain words what became of each run, and shows its training, embedding, attention,
    neurons, answers, circuit and encoding, all moved through training by one slider; several runs
    are lined up by step or by phase. What a run does not have is said where it would stand. Images
    are of at most 30 checkpoints; ablations, the circuit and pruning of two, with few placebos:
    `gi.ablate` has as many as you like. A file of that name is replaced, whole or not at
    all. InputError for what is not a run and for a path that cannot be written to.
    """
    given = runs_of(runs)
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


def packed_patterns(several: Mapping[int, AttentionPatterns]) -> bytes:
    """What CircuitsVis needs of each step and input."""
    first = next(iter(several.values()))
    frames = [
        {"step": step, "inputs": [found.props(i) for i in range(len(found.inputs))]}
        for step, found in several.items()
    ]
    return together(
        {"title": f"Attention of layer {first.layer} on chosen inputs", "frames": frames}
    )
