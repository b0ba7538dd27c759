"""The report as one HTML file: the template filled, with styles, scripts and figures inside."""

import shlex
from collections.abc import Sequence
from typing import Any

from plotly.offline import get_plotlyjs

from grokinterp.encodings.comparison.compare import Comparison
from grokinterp.recipe.builtin import recipes
from grokinterp.runs.environment import current_versions
from grokinterp.runs.run import Run
from grokinterp.viz.attention import circuitsvis_script
from grokinterp.viz.report.about import About
from grokinterp.viz.report.drawing import Drawn
from grokinterp.viz.report.pack import as_text, packed, packed_patterns, zipped
from grokinterp.viz.report.panels import SECTIONS
from grokinterp.viz.report.stops import stops_of
from grokinterp.viz.report.summary import because, findings, headline, undetermined
from grokinterp.viz.templates import asset, render
from grokinterp.viz.theme import DARK, LIGHT

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
