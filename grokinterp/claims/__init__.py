"""What papers say, tested on runs: a claim, its verdict, and the evidence it rests on."""

from grokinterp.base.names import room_names
from grokinterp.claims.claim import Claim

__all__ = [
    "Claim",
]
__getattr__, __dir__ = room_names(__name__, __all__)
