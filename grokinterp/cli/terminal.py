"""What commands print: lines, tables as wide as the terminal, JSON."""

import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from grokinterp.circuits.ablation import Ablation
    from grokinterp.circuits.circuit import Faithfulness
    from grokinterp.comparison._compare import Comparison
    from grokinterp.progress.phases import Phases

SHOWN = {  # measures, and what stands above them where the name is long
    **{name: name for name in ("step", "train_loss", "test_loss", "test_acc")},
    **{name: name for name in ("restricted_loss", "excluded_loss")},
    "median_r_energy": "|r(E)|",
    "median_r_abs_magnetization": "|r(|M|)|",
    "median_r_magnetization": "|r(M)|",
}
SHOWN_ROWS = 40
WIDE = 120  # columns of tables with intervals, where no terminal says how many there are


def show_phases(path: str, found: "Phases") -> None:
    """Label, steps, phases and reasons."""
    keys = found.key_frequencies
    listed = "null" if keys is None else ", ".join(map(str, keys)) or "none"
    step = found.grok_step_unmirrored
    unmirrored = "" if step is None else f"  ({step} on unmirrored pairs)"
    show(f"{path}: {found.label}")
    show(f"  memorization_step  {_step(found.memorization_step)}")
    show(f"  grok_step          {_step(found.grok_step)}{unmirrored}")
    show(f"  key frequencies    {listed}")
    for phase in found.phases or ():
        span = f"{_step(phase.start)} to {_step(phase.end)}"
        if phase.end_interval:
            span += f"  (end between {phase.end_interval[0]} and {phase.end_interval[1]})"
        show(f"  {phase.name:<19}{span}")
    for reason in found.reasons:
        show(f"  - {reason}")


def show_measures(table: "pd.DataFrame") -> None:
    """The main measures at no more than 40 checkpoints, without those that are null throughout."""
    stride = -(-len(table) // SHOWN_ROWS)
    columns = [column for column in SHOWN if column in table and table[column].notna().any()]
    places = sorted({*range(0, len(table), stride), len(table) - 1})
    rows = table[columns].iloc[places].itertuples(index=False)
    texts = [(str(int(step)), *map(_number, numbers)) for step, *numbers in rows]
    _draw([], [SHOWN[column] for column in columns], texts)
    if stride > 1:
        show(f"(one of {stride} checkpoints; `grokinterp measure --out FILE.csv` has all)")


def outcome_line(last: Mapping[Any, Any]) -> str:
    """Losses and accuracy of a run's last logged step in words, as far as they are known."""
    words = {"train_loss": "train loss {:.3g}", "test_loss": "test loss {:.3g}"}
    words |= {"test_acc": "test accuracy {:.4f}"}
    known = [words[name].format(last[name]) for name in words if not math.isnan(last[name])]
    unmirrored = last.get("test_acc_unmirrored", math.nan)  # NaN too where there are no such pairs
    pairs = "" if math.isnan(unmirrored) else f" ({unmirrored:.4f} on unmirrored pairs)"
    return ", ".join(known) + pairs


def show_ablations(found: "Ablation") -> None:
    """Loss, accuracy and ratio of every ablation, with the range of its placebos."""
    rows = []
    for row in found:
        others = row.placebo_ratios
        span = f"{min(others):.3g} to {max(others):.3g}" if others else ""
        numbers = (row.score.loss_all, row.score.acc_all, row.ratio)
        rows.append((row.name, *map(_number, numbers), span, row.verdict))
    columns = ["loss_all", "acc_all", "ratio", "placebos", ""]
    _draw(["ablation"], columns, rows, no_wrap=True)


def show_faithfulness(found: "Faithfulness") -> None:
    """What the claimed circuit recovers alone, and what is lost without it."""
    idle = ", ".join(name.removeprefix("alone less ") for name in found.not_needed) or "none"
    show(
        f"\nthe circuit alone (the key frequencies of the embedding, all heads, their neuron\n"
        f"clusters, u_k and v_k): loss {found.alone.score.loss_all:.3g}, {found.ratio:.3g} times "
        f"the model's\n  recovers {found.recovered:.6g} of the loss gained over mean logits, "
        f"{found.lost:.3g} is lost without it\n  parts it does not need: {idle}"
    )


def show_comparison(found: "Comparison") -> None:
    """Runs, medians of both regimes with their intervals, verdicts, reservations."""
    runs = found.runs()[["run", "setting", "label", "regime"]].itertuples(index=False)
    _draw(
        ["run", "setting", "label", "counts as"], [], [tuple(map(printable, row)) for row in runs]
    )
    show("")
    rows = [
        (str(row["measure"]), *_median(row, "grokked"), *_median(row, "steady"))
        for row in found.table().to_dict("records")
    ]
    _draw(["measure"], ["grokked", "n", "steady", "n"], rows)
    show("medians of n runs; the interval of 3 holds the median with 75 %, of 6 or more with 95 %")
    for claim in found.claims:
        show(f"\n{claim.verdict.upper()}: {claim.statement}\n  {claim.reason}")
        show(f"  would change it: {claim.would_change}")
    if found.notes:
        show("\nto be read with it\n" + "\n".join(f"  - {note}" for note in found.notes))


def printable(text: object) -> str:
    """Text without what a terminal would obey or no encoding can write."""
    return "".join(
        x if x.isprintable() or x == "\n" else x.encode("unicode_escape").decode()
        for x in str(text)
    )


def show(text: object, *, nl: bool = True) -> None:
    """Print a text on standard output."""
    _write(printable(text) + ("\n" if nl else ""))


def show_json(found: Mapping[str, Any]) -> None:
    """Print one object as strict JSON on standard output (see `plain_values`; NaN is null)."""
    import json

    from grokinterp.base.result import plain_values

    show(json.dumps(plain_values(found), allow_nan=False))


def say(line: str) -> None:
    """Print a line on standard error; nothing where that cannot be written to."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"grokinterp: {printable(line)}\n")
        sys.stderr.flush()


def _draw(
    left: list[str], right: list[str], rows: Sequence[tuple[str, ...]], *, no_wrap: bool = False
) -> None:
    """A table as wide as the terminal, or as intervals need; numbers are in the columns `right`."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*left, box=None, pad_edge=False)
    for column in right:
        table.add_column(column, justify="right", no_wrap=no_wrap)
    for row in rows:
        table.add_row(*row)
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
