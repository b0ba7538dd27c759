"""Which frequencies carry the answer."""

from grokinterp.errors import InputError
from grokinterp.fourier.key_frequencies import KeyFrequencies
from grokinterp.viz.figure import Figure, figure
from grokinterp.viz.theme import COLOURS


def plot_key_frequencies(found: KeyFrequencies) -> Figure:
    """The share of every frequency on a log axis, the key ones in colour."""
    if found.frequencies is None:
        raise InputError(f"there are no frequencies to draw: {found.reason}.")
    listed = ", ".join(map(str, found)) or "none"
    drawn = figure(
        f"Key frequencies ({found.rule} rule): {listed}",
        "frequency k (cycles per p)",
        "share",
    )
    drawn.update_yaxes(type="log", exponentformat="power")
    for name, chosen in (("key", True), ("other", False)):
        bars = {k: share for k, share in found.shares.items() if (k in found) is chosen}
        drawn.add_bar(
            x=list(bars), y=list(bars.values()), name=name, marker={"color": COLOURS[name]}
        )
    return drawn
