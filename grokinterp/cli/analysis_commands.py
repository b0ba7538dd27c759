"""Commands that look at runs: what they hold, measures, phases, ablations, comparisons, reports."""

import sys
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from grokinterp.base.errors import InputError, nearest
from grokinterp.cli._app import UNEXPECTED, Json, RunPath, a_file, write_text
from grokinterp.cli.terminal import (
    say,
    show,
    show_json,
    show_measures,
)

if TYPE_CHECKING:
    from grokinterp.progress.phases import Phases

OutCSV = Annotated[Path | None, Option(help="CSV file to write.", callback=a_file)]


def info(path: RunPath, as_json: Json = False) -> None:
    """Say what a run, or checkpoints of others, hold, and check every file."""
    from grokinterp.reading._load import load
    from grokinterp.runs.manifest import missing_split

    run = load(path)
    run.verify()
    rows = run.metrics.to_dict("records")
    # What imported a run says nothing of what trained it.
    differs = None if run.manifest.source else list(run.manifest.differs())
    facts = {
        "path": str(run.path),
        "finished": run.finished,
        "task": run.task.to_dict(),
        "architecture": run.architecture.to_dict(),
        "recipe": run.recipe and run.recipe.to_dict(),
        "source": run.manifest.source,
        "split": run.manifest.split,
        "steps": list(run.steps),
        "steps_known": run.steps_known,
        "last": rows and rows[-1],
        "versions": run.manifest.versions,
        "environment": run.manifest.environment,
        "later": run.manifest.later,
        "differs": differs,
    }
    if as_json:
        show_json(facts)
        return
    show(run)
    sections: dict[str, list[str]] = {}
    shown = ("recipe", "split", "last", "versions", "environment")
    for title in shown if run.recipe else ("architecture", *shown):
        if isinstance(values := facts[title], dict):
            sections[title] = [f"{key:<22}{value}" for key, value in values.items()]
    if run.train_mask is None and run.manifest.source is None:
        sections["split"] = [missing_split(None)]
    if changes := run.manifest.changes():
        sections["environment"] = [*sections.get("environment", []), *changes]
    if differs is not None:
        alike = "same versions; run.json does not say which machine"
        if run.manifest.environment is not None:
            alike = "same machine kind"
        sections["this machine"] = differs or [alike]
    if run.notes:
        sections["source"] = [f"- {note}" for note in run.notes]
    sections["checkpoints"] = [", ".join(map(str, run.steps))]
    for title, lines in sections.items():
        show(f"\n{title}\n" + "\n".join(f"  {line}" for line in lines))
    show("\nall files are whole")


def measure(path: RunPath, out: OutCSV = None, as_json: Json = False) -> None:
    """Compute every progress measure at every checkpoint.

    Without --out the CSV goes to standard output, or the main columns to a terminal.
    """
    from grokinterp.progress.measures import progress_measures
    from grokinterp.reading._load import load

    run = load(path)
    table = progress_measures(run, progress=True)
    reason, note = table.attrs["reason"], table.attrs["note"]
    if reason and not as_json:
        say(f"restricted, excluded and trig loss are null: {reason}")
    if out is not None:
        write_text(out, table.to_csv(index=False))
    if as_json:
        show_json(
            {
                "run": path,
                "key_frequencies": table.attrs["frequencies"],
                "reason": reason,  # why what needs key frequencies is null
                "notes": [*run.notes, *([note] if note else [])],
                "measures": table.to_dict("records"),
            }
        )
    elif out is not None:
        show(f"{out}: {len(table)} checkpoints, {len(table.columns)} columns")
    elif sys.stdout.isatty():
        show_measures(table)
    else:
        show(table.to_csv(index=False), nl=False)


def key_frequencies(
    path: RunPath,
    step: Annotated[int, Option(help="Checkpoint; -1 is the last.")] = -1,
    rule: Annotated[
        str, Option(help="logits, embedding, embedding_demo, neuron_logit or neurons.")
    ] = "logits",
    as_json: Json = False,
) -> None:
    """Find the frequencies that carry a model's answer, beside what other rules say.

    They are taken where the fit of unmirrored test pairs by them beats a
    uniform answer and 50 placebos; else there are none, with the reason.
    """
    from grokinterp.fourier._key_frequencies import key_frequencies as find
    from grokinterp.reading._load import load

    found = find(load(path), step=step, rule=rule)
    if as_json:
        show_json({"run": path, **found.to_dict()})
    else:
        show(found)


def plot(
    name: Annotated[
        str, Argument(metavar="NAME", help="Such as phases, progress, embedding_circles, ablation.")
    ],
    path: Annotated[
        str, Argument(metavar="RUN", help="A run, checkpoints of others; for phases a log too.")
    ],
    out: Annotated[
        Path, Option(metavar="FIG.svg", help="File: .html, .svg, .png or .pdf.", callback=a_file)
    ],
    step: Annotated[
        str | None, Option(metavar="N|all", help="Checkpoint; all gives a slider, in .html.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="An argument of the figure; may be repeated."),
    ] = None,
    width: Annotated[int, Option(help="Pixels of a still image.")] = 900,
) -> None:
    """Draw one figure of a run into a file: any plot_NAME of gi.viz.

    Such as: grokinterp plot neurons RUN --step 2000 --set neurons=[3,5] --out n.svg
    Still images need kaleido (pip install 'grokinterp[export]') and Chrome.
    """
    from grokinterp import viz
    from grokinterp.recipe.recipe import parse_setting

    names = [each.removeprefix("plot_") for each in viz.__all__ if each.startswith("plot_")]
    name = name.removeprefix("plot_").replace("-", "_")
    if name not in names:
        raise InputError(f"{name!r} is no figure; {nearest(name, names)}")
    options = dict(parse_setting(setting) for setting in settings or [])
    if step is not None:
        options["step"] = parse_setting(f"step={step}")[1]
    draw = getattr(viz, f"plot_{name}")
    for each in signature(draw).parameters.values():
        if (
            each.kind is each.KEYWORD_ONLY
            and each.default is each.empty
            and each.name not in options
        ):
            raise InputError(f"{name} needs {each.name!r}; give --set {each.name}=VALUE.")
    written = draw(path, **options).save(out, width=width)
    show(f"{written}: {written.stat().st_size / 1e3:.0f} kB")


def phases(
    path: Annotated[
        str,
        Argument(metavar="RUN_OR_LOG", help="A run, checkpoints of others, or a log of any tool."),
    ],
    as_json: Json = False,
    expect: Annotated[
        str | None, Option(metavar="LABEL", help="Exit with 3 if the label is another.")
    ] = None,
    columns: Annotated[
        str | None,
        Option(
            metavar="OURS=THEIRS,...",
            help="Which column of a log is which, such as step=epoch,test_acc=val/acc; by number "
            "from 0 where it has no header.",
        ),
    ] = None,
    by: Annotated[
        str | None, Option(metavar="COLUMN", help="Which column of a log tells its runs apart.")
    ] = None,
) -> None:
    """Label a run and date its phases: memorization, circuit formation, cleanup.

    Logs are CSV, JSON, JSONL, npz, pickles, Parquet, event files of TensorBoard
    or lines of key=value, gzipped or not. What was read as what is printed.
    """
    from grokinterp.progress._detect_phases import run_or_log
    from grokinterp.progress.labels import LABELS
    from grokinterp.progress.measures import progress_measures
    from grokinterp.progress.phases import PhasesOfRuns, phases_of
    from grokinterp.runs.run import Run

    if expect is not None and expect not in LABELS:
        raise InputError(f"--expect {expect!r} is not a label; {nearest(expect, LABELS)}")
    x = run_or_log(path, columns=columns, by=by)
    measures = progress_measures(x, progress=True) if isinstance(x, Run) else None
    found = phases_of(x, str(path), measures=measures)
    if as_json:
        show_json(found.to_dict())
    elif isinstance(found, PhasesOfRuns):
        for name, one in found.runs.items():
            show(f"{path}, run {name}: {_of_phases(one)}")
    else:
        show(f"{path}: {_of_phases(found)}")
        if measures is not None:
            show("")
            show_measures(measures)
    labels = {found.label} if not isinstance(found, PhasesOfRuns) else found.labels
    if expect is not None and labels != {expect}:
        given = ", ".join(map(repr, sorted(labels)))
        say(f"the label is {given}, expected {expect!r}")
        raise Exit(UNEXPECTED)


def _of_phases(found: "Phases") -> str:
    """Their text, which begins with the label."""
    return str(found).removeprefix("Phases: ")


def ablate(
    path: RunPath,
    step: Annotated[int, Option(help="Checkpoint; -1 is the last.")] = -1,
    mode: Annotated[
        str, Option(help="What stands in for a part: zero, mean or resample.")
    ] = "mean",
    placebos: Annotated[int, Option(help="Random controls of each part; 0 for none.")] = 50,
    out: OutCSV = None,
    as_json: Json = False,
) -> None:
    """Take parts out of a model one at a time, each against placebos of its size.

    Heads, attention, MLP, skip paths, neuron clusters, Fourier components and
    the neuron-logit directions: loss and accuracy on train, test and all
    inputs. The CSV has every column, as --json does; a terminal gets the main
    ones. --json and a terminal also tell how far the circuit alone is the model.
    """
    from grokinterp.circuits import faithfulness
    from grokinterp.circuits.ablation import ablate as ablate_run
    from grokinterp.reading._load import load

    run = load(path)
    found = ablate_run(run, step=step, mode=mode, placebos=placebos, progress=True)
    table = found.table()
    if out is not None:
        write_text(out, table.to_csv(index=False))
    circuit = no_circuit = None
    if as_json or (out is None and sys.stdout.isatty()):
        try:
            circuit = faithfulness(run, step=step, placebos=0)
        except InputError as error:  # no circuit is claimed of it; the table stands
            no_circuit = str(error)
    if as_json:
        show_json(
            {
                "run": path,
                "step": run.snapshot(step).step,
                "mode": mode,
                "key_frequencies": found.frequencies,
                "notes": found.notes,
                "ablations": table.to_dict("records"),
                "faithfulness": circuit and circuit.to_dict(),
                "no_faithfulness": no_circuit,
            }
        )
        return
    if out is None and sys.stdout.isatty():
        show(found)
        if circuit is not None:
            show(f"\n{circuit}")
        else:
            say(str(no_circuit))
        return
    for note in found.notes:
        say(note)
    if out is not None:
        show(f"{out}: {len(table)} ablations, {len(table.columns)} columns")
    else:
        show(table.to_csv(index=False), nl=False)


def compare(
    paths: Annotated[list[str], Argument(metavar="RUN...", help="Two runs or more, of one task.")],
    align: Annotated[
        str, Option(help="Where runs are looked at in training: phase or step.")
    ] = "phase",
    by: Annotated[
        str, Option(help="What says the regime: setting (most of its seeds) or label.")
    ] = "setting",
    as_json: Json = False,
    out: Annotated[Path | None, Option(help="HTML file to write.", callback=a_file)] = None,
) -> None:
    """Set grokked and steady runs side by side, with a verdict on each published claim.

    Features, compressibility, information geometry, norms and losses: medians
    with intervals over seeds. A verdict takes three seeds a regime.
    """
    from grokinterp.comparison._compare import compare as compare_runs
    from grokinterp.reading._load import load

    found = compare_runs([load(path) for path in paths], align=align, by=by, progress=True)
    if out is not None:
        from grokinterp.comparison._figures import comparison_page

        write_text(out, comparison_page(found))
    if as_json:
        show_json(found.to_dict())
        return
    show(found)
    if out is not None:
        show(f"\n{out}: figure, measures and runs")


def report(
    paths: Annotated[
        list[str], Argument(metavar="RUN...", help="A run, or several to set side by side.")
    ],
    out: Annotated[
        Path | None,
        Option(
            help="HTML file to write.",
            show_default="NAME-report.html, or report.html",
            callback=a_file,
        ),
    ] = None,
) -> None:
    """Write a run as one HTML file that works offline: what happened, and pictures of it.

    One slider moves all panels through training. Several runs stand side by
    side, lined up by step or by phase.
    """
    from grokinterp.reading._load import load
    from grokinterp.reporting import report as write_report

    runs = [load(path) for path in paths]
    name = f"{runs[0].path.resolve().name}-report.html" if len(runs) == 1 else "report.html"
    written = write_report(runs, out or Path(name), progress=True)
    show(f"{written}: {written.stat().st_size / 1e6:.1f} MB; open it in a browser")
