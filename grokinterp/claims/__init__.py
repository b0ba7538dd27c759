"""What papers say, tested on runs: a claim, its verdict, and the evidence it rests on."""

from grokinterp.base.names import room_names
from grokinterp.claims.evidence import Evidence
from grokinterp.claims.registry import CLAIMS, Claim, Finding, claim

__all__ = ["CLAIMS", "Claim", "Evidence", "Finding", "claim"]
__getattr__, __dir__ = room_names(__name__, __all__)
