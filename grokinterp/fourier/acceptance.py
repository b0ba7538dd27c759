"""Which frequencies are key: what a rule chooses, where it reaches inputs that were not trained on.

A network that answers (b, a) because it was trained on (a, b) has memorised, and its logits lie
along Fourier directions all the same: averaged over all pairs of one answer they are mostly right.
So a rule's choice is taken only where its fit to unmirrored test pairs passes
(`grokinterp.fourier.heldout`). Everything that needs key frequencies and is given none gets them
from here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from grokinterp.fourier.answers import LogitTally, no_frequencies_reason, usable_group
from grokinterp.fourier.heldout import HeldoutFit, HeldoutTally, heldout_fit
from grokinterp.fourier.rules import RULES, Choice
from grokinterp.runs.snapshot import Snapshot


class Keys(tuple[int, ...]):
    """Key frequencies, ascending, and where there are none the reason.

    `notes` are caveats: that memorisation was not ruled out, or that placebos were few.
    `undecided` is set where there might be some, and too few pairs to tell.

    >>> Keys([1, 5]), Keys(reason="none were given").reason
    ((1, 5), 'none were given')
    """

    reason: str | None
    notes: tuple[str, ...]
    undecided: bool

    def __new__(
        cls,
        frequencies: Iterable[int] = (),
        *,
        reason: str | None = None,
        notes: Iterable[str] = (),
        undecided: bool = False,
    ) -> "Keys":
        """From frequencies that are checked already."""
        self = super().__new__(cls, frequencies)
        self.reason, self.notes, self.undecided = reason, tuple(notes), undecided
        return self


@dataclass(frozen=True)
class Accepted:
    """A rule's choice, what unmirrored test pairs say of it, and the frequencies that remain."""

    keys: Keys
    choice: Choice | None  # None for a task without Fourier directions
    heldout: HeldoutFit | None  # None where nothing was chosen, or there is no such pair to ask

    @property
    def rejected(self) -> tuple[int, ...]:
        """What the rule chose and the pairs did not bear out."""
        return () if self.keys or self.choice is None else self.choice.frequencies


def accepted(snapshot: Snapshot, rule: str = "logits") -> Accepted:
    """The key frequencies of a snapshot by one of `RULES`, computed once.

    Where the split is unknown, or everything is trained on, the choice is taken with the note that
    memorisation was not ruled out.
    """
    return snapshot.memo(f"key frequencies by {rule}", lambda: _accepted(snapshot, rule))


def _accepted(snapshot: Snapshot, rule: str) -> Accepted:
    if usable_group(snapshot) is None:
        return Accepted(Keys(reason=no_frequencies_reason(snapshot)), None, None)
    if snapshot.unmirrored_rows is not None:
        snapshot.tally_all(LogitTally, HeldoutTally)  # one forward for both
    choice = RULES[rule](snapshot)
    if not choice.frequencies:
        return Accepted(Keys(reason=choice.reason), choice, None)
    fit = heldout_fit(snapshot, choice.frequencies)
    if fit is None:
        unknown = "the split is not known" if snapshot.train_mask is None else "all is trained on"
        note = f"memorisation was not ruled out: {unknown}"
        return Accepted(Keys(choice.frequencies, notes=[note]), choice, None)
    if not fit.passes:
        return Accepted(Keys(reason=fit.why_not, undecided=not fit.decides), choice, fit)
    return Accepted(Keys(choice.frequencies, notes=fit.notes), choice, fit)
