"""How fast training and measuring are on this machine, beside the usual way to do the same."""

from grokinterp.bench.bench import Bench, bench

__all__ = ["Bench", "bench"]
