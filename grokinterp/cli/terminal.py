"""What the command line puts on a terminal."""

import contextlib
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grokinterp.base.result import plain_values

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from grokinterp.bench._bench import Bench
    from grokinterp.circuits._faithfulness import Faithfulness
    from grokinterp.circuits.ablation import Ablation
    from grokinterp.comparison._compare import Comparison
    from grokinterp.progress.phases import Phases
    from grokinterp.training.verification import Verification

SHOWN = {  # measures, and what stands above them where the name is long
    **{name: name for name in ("step", "train_loss", "test_loss", "test_acc")},
    **{name: name for name in ("restricted_loss", "excluded_loss")},
    "median_r_energy": "|r(E)|",
    "median_r_abs_magnetization": "|r(|M|)|",
    "median_r_magnetization": "|r(M)|",
}
SHOWN_ROWS = 40
WIDE = 120  # columns of tables with intervals, where no terminal says how many there are


def show_phases(path: Path, found: "Phases") -> None:
    """Label, steps, phases and reasons."""
    keys = found.key_frequencies
    listed = "null" if keys is None else ", ".join(map(str, keys)) or "none"
    show(
        f"{path}: {found.label}\n"
        f"  memorization_step  {_step(found.memorization_step)}\n"
        f"  grok_step          {_step(found.grok_step)}{_on_unmirrored(found)}\n"
        f"  key frequencies    {listed}"
    )
    for phase in found.phases:
        span = f"{_step(phase.start)} to {_step(phase.end)}"
        if phase.end_interval:
            span += f"  (end between {phase.end_interval[0]} and {phase.end_interval[1]})"
        show(f"  {phase.name:<19}{span}")
    for reason in found.reasons:
        show(f"  - {reason}")


def _on_unmirrored(found: "Phases") -> str:
    step = found.grok_step_unmirrored
    return "" if step is None else f"  ({step} on unmirrored pairs)"


def show_measures(table: "pd.DataFrame") -> None:
    """The main measures of at most so many checkpoints, without those that are null throughout."""
    from rich.table import Table

    stride = -(-len(table) // SHOWN_ROWS)
    shown = Table(box=None, pad_edge=False)
    columns = [column for column in SHOWN if column in table and table[column].notna().any()]
    for column in columns:
        shown.add_column(SHOWN[column], justify="right")
    for position, row in table[columns].iterrows():
        if int(str(position)) % stride == 0 or position == len(table) - 1:
            shown.add_row(str(int(row["step"])), *(_number(row[c]) for c in columns[1:]))
    _draw(shown)
    if stride > 1:
        show(f"(one of {stride} checkpoints; `grokinterp measure --out FILE.csv` has all)")


def outcome(last: Mapping[Any, Any]) -> str:
    """Losses and accuracy of a run's last logged step in words, those that it has."""
    shown = {"train_loss": "train loss {:.3g}", "test_loss": "test loss {:.3g}"}
    shown |= {"test_acc": "test accuracy {:.4f}"}
    known = {name: last[name] for name in shown if not math.isnan(last[name])}
    told = ", ".join(shown[name].format(value) for name, value in known.items())
    unmirrored = last.get("test_acc_unmirrored", math.nan)  # NaN too where there are no such pairs
    return told + ("" if math.isnan(unmirrored) else f" ({unmirrored:.4f} on unmirrored pairs)")


def show_verification(path: Path, found: "Verification") -> None:
    """Same bits, or what differs at which step, and what may explain it."""
    compared = f"{len(found.weights)} checkpoints and {len(found.metrics)} logged steps compared"
    show(f"{path}: its first {found.steps} updates trained again, {compared}")
    if found.same_bits:
        show("same bits")
    else:
        _show_differences(found)
    explained = [*found.differs, *([] if found.known else ["run.json does not say which machine"])]
    for line in explained:
        show(f"  - {line}")
    if found.same_bits:
        return
    if not found.within_rounding:
        show("more than rounding: the recipe, or what computes it, is another than it was")
    elif found.holds:
        show("within rounding, which the above may explain")
    else:
        show("within rounding, but by all that is recorded the machine is the same")


def _show_differences(found: "Verification") -> None:
    from rich.table import Table

    show(f"differs from step {found.first} on; the largest relative differences, and for")
    show("comparison of a training that starts one unit in the last place off:")
    shown = Table(box=None, pad_edge=False)
    for column in ("step", "weights", "(off by one)", "metrics", "(off by one)"):
        shown.add_column(column, justify="right", no_wrap=True)
    steps = sorted({*found.weights, *found.metrics})
    for position, step in enumerate(steps):
        if position % -(-len(steps) // SHOWN_ROWS) and step not in found.weights:
            continue
        cells = [str(step)]
        controls = found.rounding or ({}, {})
        for values, control in zip((found.weights, found.metrics), controls, strict=True):
            cells += [f"{x[step]:.1e}" if step in x else "" for x in (values, control)]
        shown.add_row(*cells)
    _draw(shown)


def show_ablations(found: "Ablation") -> None:
    """Loss, accuracy and ratio of every ablation, with the range of its placebos."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    shown.add_column("ablation")
    for column in ("loss_all", "acc_all", "ratio", "placebos", ""):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in found:
        others = row.placebo_ratios
        span = f"{min(others):.3g} to {max(others):.3g}" if others else ""
        numbers = (row.score.loss_all, row.score.acc_all, row.ratio)
        shown.add_row(row.name, *map(_number, numbers), span, row.verdict)
    _draw(shown)


def show_faithfulness(found: "Faithfulness") -> None:
    """What the claimed circuit recovers on its own, and what is lost without it."""
    idle = ", ".join(name.removeprefix("alone less ") for name in found.not_needed) or "none"
    show(
        f"\nthe circuit alone (the key frequencies of the embedding, all heads, their neuron\n"
        f"clusters, u_k and v_k): loss {found.alone.score.loss_all:.3g}, {found.ratio:.3g} times "
        f"the model's\n  recovers {found.recovered:.6g} of the loss gained over mean logits, "
        f"{found.lost:.3g} is lost without it\n  parts it does not need: {idle}"
    )


def show_comparison(found: "Comparison") -> None:
    """Runs, medians of both regimes with their intervals, verdicts, reservations."""
    from rich.table import Table

    runs = found.runs()
    shown = Table(box=None, pad_edge=False)
    for column in ("run", "setting", "label", "counts as"):
        shown.add_column(column)
    for row in runs.itertuples():
        shown.add_row(plain(row.run), plain(row.setting), str(row.label), str(row.regime))
    _draw(shown)
    show("")
    shown = Table(box=None, pad_edge=False)
    for column in ("measure", "grokked", "n", "steady", "n"):
        shown.add_column(column, justify="left" if column == "measure" else "right")
    for measure in found.table().to_dict("records"):
        grokked, steady = (_median(measure, regime) for regime in ("grokked", "steady"))
        shown.add_row(str(measure["measure"]), *grokked, *steady)
    _draw(shown)
    show("medians of n runs; the interval of 3 holds the median with 75 %, of 6 or more with 95 %")
    for claim in found.claims:
        show(f"\n{claim.verdict.upper()}: {claim.statement}\n  {claim.reason}")
        show(f"  would change it: {claim.would_change}")
    if found.notes:
        show("\nto be read with it\n" + "\n".join(f"  - {note}" for note in found.notes))


def show_bench(found: "Bench") -> None:
    """Both ratios with their spread, and the rates of products."""
    where, rates = found.environment, found.products
    show(
        f"{where['cpu']}, {where['threads']} threads, torch {where['torch']}\n\n"
        f"{'':<30}{'here':>9}{'usual way':>11}{'ratio':>8}  (lowest to highest of the rounds)"
    )
    for row in found.table().itertuples():
        show(
            f"{row.what:<30}{row.ours_ms:>6.1f} ms{row.usual_ms:>8.1f} ms{row.ratio:>7.2f}x"
            f"  ({row.ratio_low:.2f} to {row.ratio_high:.2f})"
        )
    show(
        f"\nall measures of a run of 250 checkpoints: {found.all_measures_s:.1f} s\n"
        f"matrix products, GFLOP/s: forward {rates.forward:.0f}, backward {rates.backward:.0f}, "
        f"weights {rates.weights:.0f}; by torch.mm {rates.plain:.0f}; peak {rates.peak:.0f}\n"
        f"a training step: {rates.gflop:.2f} GFLOP, reached {found.reached:.0f} GFLOP/s; "
        f"its products alone would take {rates.floor_ms:.1f} ms at the peak"
    )


def plain(text: object) -> str:
    """Text of others without what a terminal would obey, or no encoding can write."""
    return "".join(
        x if x.isprintable() or x == "\n" else x.encode("unicode_escape").decode()
        for x in str(text)
    )


def show(text: object, *, nl: bool = True) -> None:
    """Text on standard output, whatever stands for it just now (the table of a sweep)."""
    _write(plain(text) + ("\n" if nl else ""))


def show_json(found: Mapping[str, Any]) -> None:
    """One JSON object on standard output, which every reader of JSON can read: NaN is null.

    Numbers of numpy and pandas are plain ones, tuples lists, keys text; so is what else has no form
    in JSON, such as a path.
    """
    show(json.dumps(plain_values(found), allow_nan=False))


def say(line: str) -> None:
    """One line on standard error; nothing where that cannot be written to."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"grokinterp: {plain(line)}\n")
        sys.stderr.flush()


def _draw(table: "Table") -> None:
    """A table of rich's, as wide as the terminal; where there is none, as intervals need."""
    from rich.console import Console

    console = Console(markup=False)  # a run's name may hold brackets
    if not console.is_terminal:
        console.width = WIDE
    with console.capture() as drawn:
        console.print(table)
    _write(drawn.get())


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        error.filename = "standard output"
        raise


def _median(measure: Mapping[Any, Any], regime: str) -> tuple[str, str]:
    """The median with its interval, and the number of runs."""
    n, *numbers = (measure[f"{regime}_{key}"] for key in ("n", "median", "low", "high"))
    middle, low, high = (f"{number:.4g}" for number in numbers)
    if not n:
        return "-", ""
    return (f"{middle} [{low}, {high}]" if n > 1 else middle), str(n)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"


def _step(step: int | float | None) -> str:
    return "null" if step is None else str(step)
