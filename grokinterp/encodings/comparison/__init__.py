"""Runs side by side, and verdicts on published claims: `compare`."""

from grokinterp.encodings.comparison.claim import Claim
from grokinterp.encodings.comparison.compare import Comparison, compare
from grokinterp.encodings.comparison.outcome import RunProfile
from grokinterp.encodings.comparison.profile import MEASURES
from grokinterp.encodings.comparison.statistics import Contrast, Spread, contrast, spread

__all__ = [
    "MEASURES",
    "Claim",
    "Comparison",
    "Contrast",
    "RunProfile",
    "Spread",
    "compare",
    "contrast",
    "spread",
]
