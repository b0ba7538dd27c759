"""Key frequencies: which Fourier frequencies carry a model's answer, and how sure that is."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from grokinterp.arguments import word
from grokinterp.errors import InputError
from grokinterp.fourier.acceptance import accepted
from grokinterp.fourier.answers import logit_shares
from grokinterp.fourier.heldout import HeldoutFit
from grokinterp.fourier.rules import RULES
from grokinterp.models.unwrapping import AnyModel
from grokinterp.notebook import card
from grokinterp.runs.resolve import check_run, snapshot_of
from grokinterp.runs.run import Run
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.modular import ModularTask

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class KeyFrequencies:
    """The key frequencies of a model, by one rule, with what the others say.

    `frequencies` is () when the model was looked at and has no sparse circuit that reaches inputs
    it was not trained on, None when its task has no Fourier directions; `reason` says why. It can
    be iterated over like the tuple. `shares` holds every k, so that another cut can be judged; a
    large share shows that the logits vary along a frequency, not that anything breaks without it
    (ablate for that), and those of a network that memorised can be large too.

    `heldout` is the fit of the rule's choice to unmirrored test pairs that decided (None where
    nothing was chosen or there is no split to ask), `rejected` the choice where it was refused, and
    `notes` say what was not ruled out.
    """

    frequencies: tuple[int, ...] | None
    rule: str
    shares: dict[int, float] = field(repr=False)
    reason: str | None
    step: int | None
    cut_ratio: float | None  # smallest kept share over largest dropped one
    runner_up: tuple[int, float] | None  # the second-best cut: how many it keeps, its ratio
    other_rules: dict[str, tuple[int, ...]]  # what every other applicable rule chooses
    emerged: dict[int, int] | None  # frequency -> step, for a run
    rejected: tuple[int, ...] = ()  # what the rule chose, where unmirrored test pairs refuse it
    heldout: HeldoutFit | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[int]:
        return iter(self.frequencies or ())

    def __len__(self) -> int:
        return len(self.frequencies or ())

    def _repr_html_(self) -> str:
        listed = "undefined" if self.frequencies is None else ", ".join(map(str, self)) or "none"
        lines = [] if self.step is None else [f"step {self.step}"]
        if self:
            lines.append(f"their shares sum to {self.kept_share:.4g}")
        if self and self.cut_ratio is not None:
            lines.append(f"the smallest is {self.cut_ratio:.4g} times the next share")
        if self.reason is not None:
            lines.append(self.reason)
        title = f"Key frequencies ({self.rule} rule): {listed}"
        return card(title, lines, self.table(), notes=self.notes)

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

    def plot(self) -> "go.Figure":
        """The share of every frequency, the key ones in colour."""
        from grokinterp.viz import plot_key_frequencies

        return plot_key_frequencies(self)


def key_frequencies(
    x: Run | Snapshot | AnyModel,
    *,
    rule: str = "logits",
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> KeyFrequencies:
    """The key frequencies of a run (its last checkpoint), a snapshot, or a model with its task.

    `rule` is one of "logits" (default), "embedding", "embedding_demo", "neuron_logit", "neurons";
    see `grokinterp.fourier.rules`. Its choice is taken where the fit of the logits of unmirrored
    test pairs by these frequencies has a loss below a uniform answer's and below that of 50
    placebos (`grokinterp.fourier.heldout`), else there are none; without a split, or with
    everything trained on, it is taken with a note. `other_rules` has what each rule chooses by
    itself, unasked.

    For a run, `emerged` says at which checkpoint each key frequency first had half of its final
    share of the logit variance; the share can dip again while others grow (`frequency_shares` has
    all of them).
    """
    word("rule", rule, RULES)
    snapshot = snapshot_of(x, task=task, train_mask=train_mask)
    found = accepted(snapshot, rule)
    choice, keys = found.choice, found.keys
    if choice is None:
        return KeyFrequencies(None, rule, {}, keys.reason, snapshot.step, None, None, {}, None)
    second = choice.cuts[1] if len(choice.cuts) > 1 else None
    return KeyFrequencies(
        frequencies=tuple(keys),
        rule=rule,
        shares=dict(enumerate(choice.shares.tolist(), start=1)),
        reason=keys.reason,
        step=snapshot.step,
        cut_ratio=choice.cuts[0].ratio if choice.cuts else None,
        runner_up=(second.n_kept, second.ratio) if second else None,
        other_rules=_other_rules(snapshot, rule),
        emerged=_emergence(x, tuple(keys)) if isinstance(x, Run) else None,
        rejected=found.rejected,
        heldout=found.heldout,
        notes=keys.notes,
    )


def frequency_shares(run: Run) -> pd.DataFrame:
    """Share of the centred logit variance along each frequency, a row per checkpoint."""
    check_run(run)
    rows = {step: logit_shares(run.snapshot(step)).tolist() for step in run.steps}
    frame = pd.DataFrame.from_dict(rows, orient="index").rename(columns=lambda column: column + 1)
    return frame.rename_axis(index="step", columns="k")


def _other_rules(snapshot: Snapshot, rule: str) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, other in RULES.items():
        if name != rule:
            try:
                found[name] = other(snapshot).frequencies
            except InputError:  # the model lacks the matrix that this rule looks at
                continue
    return found


def _emergence(run: Run, frequencies: tuple[int, ...]) -> dict[int, int]:
    if not frequencies:
        return {}
    shares = frequency_shares(run)
    return {
        k: int((shares[k] >= shares[k].iloc[-1] / 2).idxmax())  # the first step where it holds
        for k in frequencies
    }
