"""How figures of a sweep put numbers, names and axes into words."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from grokinterp.encodings.comparison.statistics import Spread
from grokinterp.viz.figure import plain

TIMES = ("memorization_step", "grok_step", "t_train", "t_test")
UNITS = {**dict.fromkeys(TIMES, "updates"), "train_loss": "nats", "test_loss": "nats"}
LONGEST = 28  # letters of a name in a figure


def name_of(given: object, *, longest: int = LONGEST) -> str:
    """A name of others for a figure: no tags, and no longer than there is space for.

    >>> name_of("<b>"), name_of("weight decay", longest=8)
    ('&lt;b&gt;', 'weight …')
    """
    text = " ".join(str(given).split())
    return plain(text if len(text) <= longest else text[: longest - 1] + "…")


def number(value: float) -> str:
    """A number as cells have it, in at most four digits or as a whole one.

    >>> number(8120.0), number(1234567.5), number(0.98342), number(3.2e-7)
    ('8,120', '1.23e+06', '0.983', '3.2e-07')
    """
    if 999.5 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def interval(found: Spread) -> str:
    """The interval of a median in words, "" where there is none."""
    return f"{number(found.low)} to {number(found.high)}" if found.coverage else ""


def coverages(found: Iterable[Spread]) -> str:
    """With which probability these intervals hold the median, "" where there are none.

    >>> coverages([Spread(2, 1.0, 0.0, 2.0, 0.5), Spread(3, 1.0, 0.0, 2.0, 0.75)])
    ' (50% to 75%)'
    """
    shares = sorted(one.coverage for one in found if one.coverage)
    if not shares:
        return ""
    low, high = f"{shares[0]:.0%}", f"{shares[-1]:.0%}"
    return f" ({low})" if low == high else f" ({low} to {high})"


def heading(title: str, lines: Sequence[str]) -> str:
    """The title of a figure with smaller lines below."""
    return "<br>".join([title, *(f'<span style="font-size:12px">{line}</span>' for line in lines)])


def titled(column: str) -> str:
    """A column as the title of an axis, with its unit where it has a known one."""
    return name_of(column) + (f" ({UNITS[column]})" if column in UNITS else "")


def counted(labels: Sequence[str]) -> str:
    """How many have each label.

    >>> counted(["grokked", "memorized", "grokked"])
    '2 grokked, 1 memorized'
    """
    n = Counter(labels)
    return ", ".join(f"{n[label]} {name_of(label)}" for label in sorted(n, key=lambda x: -n[x]))


def spans_decades(values: Iterable[float]) -> bool:
    """Whether an axis or a scale of colours is better logarithmic: above 0, over a decade or more.

    >>> spans_decades([1, 10]), spans_decades([1, 9]), spans_decades([0, 100])
    (True, False, False)
    """
    found = [value for value in values if not math.isnan(value)]
    return bool(found) and min(found) > 0 and max(found) >= 10 * min(found)


def log_ticks(values: Iterable[float], *, heights: bool = False) -> dict[str, Any]:
    """Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten, over two decades at powers.

    They are where the values are, or with `heights` at the logarithms of those places.

    >>> log_ticks([150, 2500])["ticktext"]
    ['200', '500', '1,000', '2,000']
    """
    found = [value for value in values if not math.isnan(value)]
    low, high = min(found), max(found)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 200 else (1,)
    all_ticks = [step * 10.0**power for power in powers for step in steps]
    ticks = [tick for tick in all_ticks if low * 0.999 <= tick <= high * 1.001]
    places = [math.log10(tick) for tick in ticks] if heights else ticks
    return {"tickvals": places, "ticktext": [number(tick) for tick in ticks]}
