"""What commands print: lines, tables as wide as the terminal, JSON."""

import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SHOWN = {  # measures, and what stands above them where the name is long
    **{name: name for name in ("step", "train_loss", "test_loss", "test_acc")},
    **{name: name for name in ("restricted_loss", "excluded_loss")},
    "median_r_energy": "|r(E)|",
    "median_r_abs_magnetization": "|r(|M|)|",
    "median_r_magnetization": "|r(M)|",
}
SHOWN_ROWS = 40
WIDE = 120  # columns, where no terminal says how many there are


def show_measures(table: "pd.DataFrame") -> None:
    """The main measures at no more than 40 checkpoints, without those that are null throughout."""
    stride = -(-len(table) // SHOWN_ROWS)
    columns = [column for column in SHOWN if column in table and table[column].notna().any()]
    places = sorted({*range(0, len(table), stride), len(table) - 1})
    rows = table[columns].iloc[places].itertuples(index=False)
    texts = [(str(int(step)), *map(_number, numbers)) for step, *numbers in rows]
    show_table([SHOWN[column] for column in columns], texts)
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


def show_table(
    columns: Sequence[str], rows: Sequence[tuple[str, ...]], *, words: Sequence[str] = ()
) -> None:
    """A table as wide as the terminal: numbers, and columns of words."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False)
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


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
