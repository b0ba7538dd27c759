"""Key frequencies: which Fourier frequencies carry a model's answer, and how sure that is.

No source publishes a threshold, and five rules are in use, which differ on some models. The logits
of a network that memorised lie along Fourier directions too, so a rule's choice is taken only where
its fit to unmirrored test pairs passes (`grokinterp.fourier.heldout`). Everything that needs key
frequencies and is given none gets them from here.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import wraps
from inspect import Parameter, signature
from typing import Any, Concatenate

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.fourier import spectra
from grokinterp.fourier.answers import (
    LogitTally,
    checked_frequencies,
    logit_shares,
    no_frequencies_reason,
    usable_group,
)
from grokinterp.fourier.heldout import HeldoutFit, HeldoutTally, heldout_fit
from grokinterp.reading._load import ABOUT, P, R, Subject, loaded, run_of, snapshot_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.run import Run
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import Task

SHARE_FLOOR = 1e-12  # shares below this are rounding noise, whose ratios mean nothing
MIN_KEPT = 0.5  # kept shares must sum to this much for a sparse circuit


@dataclass(frozen=True)
class Choice:
    """What a rule chose: frequencies ascending, the share of every k, and the cuts it weighed.

    A cut is how many of the largest shares are kept, and how many times smaller the next one is.
    """

    frequencies: tuple[int, ...]
    shares: Float[Tensor, " n_frequencies"]
    cuts: tuple[tuple[int, float], ...] = ()  # best first; empty for a rule without a cut
    reason: str | None = None  # why frequencies is empty


def largest_ratio_cut(shares: Float[Tensor, " n_frequencies"], what: str) -> Choice:
    """Sort the shares, cut at the largest ratio of neighbours in the upper half of the list.

    Accepted only if the kept shares sum to at least 0.5; otherwise no frequency is key.

    >>> largest_ratio_cut(torch.tensor([0.01, 0.6, 0.02, 0.3, 0.01, 0.01]), "logits").frequencies
    (2, 4)
    """
    ordered, order = shares.clamp_min(SHARE_FLOOR).sort(descending=True)
    ratios = (ordered[:-1] / ordered[1:])[: math.ceil(len(shares) / 2)]
    if len(ratios) == 0:
        ratios = torch.tensor([math.inf])  # one frequency: there is nothing to cut off
    by_ratio = ratios.argsort(descending=True, stable=True)
    cuts = tuple((int(i) + 1, float(ratios[i])) for i in by_ratio)
    n_kept, _ = cuts[0]
    kept = float(shares[order[:n_kept]].sum())
    if not shares.isfinite().all():
        return Choice((), shares, reason=f"the {what} is not finite")
    if not kept >= MIN_KEPT:
        reason = (
            f"no sparse circuit: the {n_kept} leading of {len(shares)} frequencies hold "
            f"{kept:.1%} of the {what}, less than {MIN_KEPT:.0%}"
        )
        return Choice((), shares, cuts, reason)
    return Choice(tuple(sorted((order[:n_kept] + 1).tolist())), shares, cuts)


def logits_rule(snapshot: Snapshot) -> Choice:
    """Shares of centred logit variance along cos/sin(w_k f(a, b)); largest-ratio cut. The default.

    It asks nothing of the architecture: any model with logits over the answers has these shares.
    """
    return largest_ratio_cut(logit_shares(snapshot), "logit variance along cos/sin(w_k f(a, b))")


def embedding_rule(snapshot: Snapshot) -> Choice:
    """Power of `W_E` along the token axis; largest-ratio cut.

    "Non-negligible norm in W_E" (Nanda et al. 2023, section 4.1), made precise by the cut.
    """
    power = spectra.embedding_spectrum(snapshot)[1:]
    return largest_ratio_cut(power / power.sum(), "embedding's power")


def embedding_demo_rule(snapshot: Snapshot) -> Choice:
    """Frequencies with a cos or sin row of `W_E` whose norm is above max / 4.

    As TransformerLens' Grokking_Demo has it now; it has no notion of a model without a circuit.
    """
    norms = spectra.embedding_components(snapshot).norm(dim=1)[1:]
    row_frequency = torch.arange(len(norms)) // 2 + 1
    power = spectra.embedding_spectrum(snapshot)[1:]
    chosen = row_frequency[norms > norms.max() / 4].unique().tolist()
    return Choice(tuple(chosen), power / power.sum())


def neuron_logit_rule(snapshot: Snapshot) -> Choice:
    """Power of `W_out @ W_U` along the class axis; largest-ratio cut.

    The rule the paper names for its progress measures (Nanda et al. 2023, appendix C.2).
    """
    power = spectra.neuron_logit_spectrum(snapshot)[1:]
    return largest_ratio_cut(power / power.sum(), "neuron-logit map's power")


def neurons_rule(snapshot: Snapshot) -> Choice:
    """Every frequency that is the leading one of at least one neuron.

    The paper's notebook: no minimum count, so one stray neuron adds a frequency. Shares are those
    of the neurons (dead ones are not counted).
    """
    fractions = spectra.neuron_frequency_fractions(snapshot)
    leading = fractions[~fractions.isnan().any(dim=1)].argmax(dim=1)
    counts = torch.bincount(leading, minlength=fractions.shape[1])
    chosen = tuple((counts.nonzero().flatten() + 1).tolist())
    reason = None if chosen else "every neuron is dead"
    return Choice(chosen, counts.double() / max(int(counts.sum()), 1), reason=reason)


RULES: dict[str, Callable[[Snapshot], Choice]] = {
    "logits": logits_rule,
    "embedding": embedding_rule,
    "embedding_demo": embedding_demo_rule,
    "neuron_logit": neuron_logit_rule,
    "neurons": neurons_rule,
}


class Keys(tuple[int, ...]):
    """Key frequencies, ascending, where there are none the reason, and caveats as `notes`.

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
    """A rule's choice, what unmirrored test pairs say of it, and the frequencies that are key."""

    keys: Keys
    choice: Choice | None  # None for a task without Fourier directions
    heldout: HeldoutFit | None  # None where nothing was chosen, or there is no such pair to ask


def accepted(snapshot: Snapshot, rule: str = "logits") -> Accepted:
    """The key frequencies of a snapshot by one of `RULES`, computed once."""

    def compute() -> Accepted:
        if usable_group(snapshot) is None:
            return Accepted(Keys(reason=no_frequencies_reason(snapshot)), None, None)
        if snapshot.unmirrored_rows is not None:
            snapshot.tally_all(LogitTally, HeldoutTally)  # one forward for both
        choice = RULES[rule](snapshot)
        if not choice.frequencies:
            return Accepted(Keys(reason=choice.reason), choice, None)
        fit = heldout_fit(snapshot, choice.frequencies)
        if fit is None:
            why = "the split is not known" if snapshot.train_mask is None else "all is trained on"
            note = f"memorisation was not ruled out: {why}"
            return Accepted(Keys(choice.frequencies, notes=[note]), choice, None)
        if not fit.passes:
            return Accepted(Keys(reason=fit.why_not, undecided=not fit.decides), choice, fit)
        return Accepted(Keys(choice.frequencies, notes=fit.notes), choice, fit)

    return snapshot.memo(f"key frequencies by {rule}", compute)


@dataclass(frozen=True, kw_only=True)
class KeyFrequencies(Result):
    """The key frequencies of a model, by one rule, with what the others say.

    `frequencies` is () when the model was looked at and has no sparse circuit that reaches inputs
    it was not trained on, None when its task has no Fourier directions; `reason` says why. It can
    be iterated over like the tuple. `shares` holds every k, so that another cut can be judged; a
    large share shows that the logits vary along a frequency, not that anything breaks without it
    (ablate for that), and those of a network that memorised can be large too.

    `heldout` is the fit of the rule's choice to unmirrored test pairs that decided (None where
    nothing was chosen or there is no split to ask), `rejected` the choice where it was refused, and
    `notes` say what was not ruled out.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.key_frequencies(run)
    >>> list(found), round(found.kept_share, 2), found.emerged
    ([1, 8, 14], 0.94, {1: 2250, 8: 3500, 14: 200})
    >>> found.table()[["k", "share", "key", "neurons"]].head(4).round(3)
        k  share    key  neurons
    0  14  0.716   True     True
    1   1  0.148   True     True
    2   8  0.074   True     True
    3   3  0.007  False    False
    >>> [round(x, 3) for x in found.threshold_interval]  # any cut between them gives the same
    [0.007, 0.074]
    """

    frequencies: tuple[int, ...] | None
    rule: str
    shares: dict[int, float] = field(default_factory=dict, repr=False)
    reason: str | None
    step: int | None
    cut_ratio: float | None = None  # smallest kept share over largest dropped one
    runner_up: tuple[int, float] | None = None  # the second-best cut: how many it keeps, its ratio
    other_rules: dict[str, tuple[int, ...]] = field(default_factory=dict)  # what the others choose
    emerged: dict[int, int] | None = None  # frequency -> step, for a run
    rejected: tuple[int, ...] = ()  # what the rule chose, where unmirrored test pairs refuse it
    heldout: HeldoutFit | None = field(default=None, repr=False)

    def __iter__(self) -> Iterator[int]:
        return iter(self.frequencies or ())

    def __len__(self) -> int:
        return len(self.frequencies or ())

    def _title(self) -> str:
        found = "undefined" if self.frequencies is None else ", ".join(map(str, self)) or "none"
        return f"Key frequencies ({self.rule} rule): {found}"

    def _lines(self) -> list[str]:
        lines = [] if self.step is None else [f"step {self.step}"]
        if self:
            lines.append(f"their shares sum to {self.kept_share:.4g}")
        if self and self.cut_ratio is not None:
            lines.append(f"the smallest is {self.cut_ratio:.4g} times the next share")
        return lines if self.reason is None else [*lines, self.reason]

    @property
    def kept_share(self) -> float:
        """Sum of the shares of the key frequencies."""
        return sum(self.shares[k] for k in self)

    @property
    def threshold_interval(self) -> tuple[float, float] | None:
        """Any threshold on the shares in (largest dropped, smallest kept] gives the same set."""
        if not self:
            return None
        dropped = [share for k, share in self.shares.items() if k not in self]
        return max(dropped, default=0.0), min(self.shares[k] for k in self)

    def table(self) -> pd.DataFrame:
        """One row per frequency: its share, whether it is key, when it emerged, who else has it."""
        frame = pd.DataFrame({"k": list(self.shares), "share": list(self.shares.values())})
        frame["key"] = frame["k"].isin(list(self))
        if self.emerged is not None:
            frame["emerged"] = frame["k"].map(self.emerged).astype("Int64")
        for rule, chosen in self.other_rules.items():
            frame[rule] = frame["k"].isin(chosen)
        return frame.sort_values("share", ascending=False, ignore_index=True)


def key_frequencies(
    x: Subject,
    *,
    rule: str = "logits",
    step: int = -1,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> KeyFrequencies:
    """The key frequencies of a run (at a step, the last unless given), a snapshot, or a model.

    `rule` is one of "logits" (default), "embedding", "embedding_demo", "neuron_logit", "neurons"
    (`gi.fourier.RULES`, whose docstrings say what each looks at). Its choice is taken where the fit
    of the logits of unmirrored test pairs by these frequencies has a loss below a uniform answer's
    and below that of 50 placebos (`grokinterp.fourier.heldout`), else there are none; without a
    split, or with everything trained on, it is taken with a note. `other_rules` has what each rule
    chooses by itself, unasked.

    At the last step of a run, `emerged` says at which checkpoint each key frequency first had half
    of its final share of the logit variance; the share can dip again while others grow
    (`frequency_shares` has all of them).

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> [gi.key_frequencies(run, step=step).frequencies for step in (100, 300, 10_000)]
    [(), (14,), (1, 8, 14)]
    >>> gi.key_frequencies(run, step=100).reason
    'no sparse circuit: the 1 leading of 15 frequencies hold 2.3% of the logit variance along
    cos/sin(w_k f(a, b)), less than 50%'
    """
    word("rule", rule, RULES)
    x = loaded(x)
    snapshot = snapshot_of(x, step=step, task=task, train_mask=train_mask)
    found = accepted(snapshot, rule)
    choice, keys = found.choice, found.keys
    if choice is None:
        return KeyFrequencies(frequencies=None, rule=rule, reason=keys.reason, step=snapshot.step)
    emerged: dict[int, int] | None = None
    if isinstance(x, Run) and snapshot.step == x.steps[-1]:
        emerged = {}
    if isinstance(x, Run) and emerged is not None and keys:
        over_steps = _shares_over(x, snapshot)
        emerged = {k: int((over_steps[k] >= over_steps[k].iloc[-1] / 2).idxmax()) for k in keys}
    others = {}
    for name in RULES:
        if name != rule:
            with contextlib.suppress(InputError):  # the model lacks the matrix of this rule
                others[name] = RULES[name](snapshot).frequencies
    return KeyFrequencies(
        frequencies=tuple(keys),
        rule=rule,
        shares=dict(enumerate(choice.shares.tolist(), start=1)),
        reason=keys.reason,
        step=snapshot.step,
        cut_ratio=choice.cuts[0][1] if choice.cuts else None,
        runner_up=choice.cuts[1] if len(choice.cuts) > 1 else None,
        other_rules=others,
        emerged=emerged,
        rejected=() if keys else choice.frequencies,
        heldout=found.heldout,
        notes=keys.notes,
    )


def frequency_shares(
    x: Subject,
    *,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> pd.DataFrame:
    """Share of the centred logit variance along each frequency, a row per checkpoint.

    `.attrs["frequencies"]` are the key ones of the last checkpoint.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> shares = gi.fourier.frequency_shares(run)
    >>> shares.attrs["frequencies"]
    [1, 8, 14]
    >>> shares.loc[[0, 300, 2250, 10_000], [1, 8, 14]].round(2)
    k        1     8     14
    step
    0      0.00  0.00  0.00
    300    0.01  0.00  0.76
    2250   0.08  0.02  0.78
    10000  0.15  0.07  0.72
    """
    run = run_of(x, task=task, train_mask=train_mask)
    last, keys = subject_of(run)
    frame = _shares_over(run, last)
    frame.attrs["frequencies"] = list(keys)
    return frame


def _shares_over(run: Run, last: Snapshot) -> pd.DataFrame:
    """The table, with the last checkpoint as it has been seen already."""
    *earlier, end = run.steps
    seen = {step: logit_shares(run.snapshot(step)) for step in earlier} | {end: logit_shares(last)}
    rows = {step: shares.tolist() for step, shares in seen.items()}
    frame = pd.DataFrame.from_dict(rows, orient="index").rename(columns=lambda column: column + 1)
    return frame.rename_axis(index="step", columns="k")


def subject_of(
    x: Subject,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> tuple[Snapshot, Keys]:
    """The snapshot, and its key frequencies ascending; () with the reason where there are none.

    The key frequencies of a run are those of its last checkpoint, whatever the step, so that steps
    can be compared (`gi.key_frequencies`); given ones are taken as they are.
    """
    x = loaded(x)
    last = snapshot_of(x, task=task, train_mask=train_mask)
    snapshot = last if step == -1 else snapshot_of(x, step=step)
    group = usable_group(last)
    if group is None or frequencies is None:
        return snapshot, accepted(last).keys
    chosen = checked_frequencies(frequencies, group)
    if isinstance(frequencies, Keys):  # handed on: why there are none is known already
        return snapshot, frequencies
    return snapshot, Keys(chosen, reason=None if chosen else "none were given")


def of_any_with_keys(
    function: Callable[Concatenate[Snapshot, Any, P], R], *, needed: bool = True
) -> Callable[..., R]:
    """As `of_any`, of a function of a snapshot and frequencies: the key ones unless given.

    Where there are none and they are `needed`, InputError says why.
    """
    shown = signature(function)
    _, frequencies, *others = shown.parameters.values()

    @wraps(function)
    def of_subject(
        x: Subject, frequencies: Sequence[int] | None = None, *args: Any, **options: Any
    ) -> R:
        about = {name: options.pop(name) for name in ABOUT if name in options}
        snapshot, keys = subject_of(x, frequencies=frequencies, **about)
        if frequencies is None and needed:
            need_key_frequencies(keys)
        return function(snapshot, keys, *args, **options)

    given = frequencies.replace(default=None, annotation="Sequence[int] | None")
    parameters = [Parameter("x", Parameter.POSITIONAL_OR_KEYWORD), given, *others, *ABOUT.values()]
    vars(of_subject)["__signature__"] = shown.replace(parameters=parameters)
    return of_subject


def need_key_frequencies(keys: Sequence[int]) -> None:
    """Refuse to look at a circuit that nobody claims."""
    if not keys:
        reason = keys.reason if isinstance(keys, Keys) else "none were given"
        raise InputError(
            f"the model has no key frequencies, so no circuit is claimed: {reason}. Where the task "
            "has a group, such as frequencies=[1, 5] are looked at all the same."
        )
