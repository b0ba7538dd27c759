"""Ablation: what breaks without a part, against placebos of the same size."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.circuits.edits import check_mode
from grokinterp.circuits.interventions import HookPair, Intervention, Setting, intervention
from grokinterp.circuits.replay import replay
from grokinterp.circuits.standard import standard_interventions
from grokinterp.circuits.subject import Subject, subject_of
from grokinterp.errors import InputError
from grokinterp.fourier.answers import no_frequencies_reason, usable_group
from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.runs.run import Run
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.modular import ModularTask

PLACEBOS = 50
ABOVE, WITHIN, NONE = "above chance", "not above chance", "no placebo"
UNKNOWN = "undetermined"  # a loss is not a number
ROUNDING = 1e-5  # relative; losses of float32 logits differ by less where nothing was changed


@dataclass(frozen=True)
class Score:
    """Cross-entropy in nats and accuracy over the p classes, on three sets of inputs.

    NaN on train and test without a split.
    """

    loss_train: float
    loss_test: float
    loss_all: float
    acc_train: float
    acc_test: float
    acc_all: float


@dataclass(frozen=True)
class Placebo:
    """One control: the same intervention on another part of the same size."""

    name: str
    harmonic: bool  # at 2k or 4k of a key frequency, where a circuit of k leaks: listed apart
    score: Score


@dataclass(frozen=True)
class Row:
    """One intervention on one checkpoint, the model without it, and its placebos."""

    step: int | None
    name: str
    kind: str
    hooks: tuple[str, ...]
    score: Score
    whole: Score
    keeps: bool  # it keeps only the part it names
    placebos: tuple[Placebo, ...] = field(repr=False)
    no_placebo: str | None

    @property
    def ratio(self) -> float:
        """Loss on all inputs with the intervention over that without; NaN where that is 0."""
        return self.score.loss_all / (self.whole.loss_all or math.nan)

    @property
    def placebo_ratios(self) -> list[float]:
        """The same of every placebo that is no harmonic."""
        whole = self.whole.loss_all or math.nan
        return [p.score.loss_all / whole for p in self.placebos if not p.harmonic]

    @property
    def verdict(self) -> str:
        """Whether it does more than any placebo: costs more or, keeping only a part, costs less."""
        own = self.score.loss_all
        others = [p.score.loss_all for p in self.placebos if not p.harmonic]
        if not others:
            return NONE
        if any(math.isnan(loss) for loss in (own, *others)):
            return UNKNOWN
        less, more = (own, min(others)) if self.keeps else (max(others), own)
        return ABOVE if more > less * (1 + ROUNDING) else WITHIN


@dataclass(frozen=True)
class Ablation:
    """What interventions do to a model's loss and accuracy.

    The table of all inputs is a census, so a change has no sampling error over inputs; what it is
    compared with is the placebo distribution. An effect says that the part matters to this network
    as it stands, not how it computes, and removing two parts need not cost the sum of both.
    """

    rows: tuple[Row, ...]
    frequencies: tuple[int, ...]
    notes: tuple[str, ...]
    n_placebos: int
    seed: int

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> Row:
        """The first row of that name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise InputError(f"no ablation is called {name!r}; .table() lists them.")

    def table(self) -> pd.DataFrame:
        """One row an intervention and checkpoint; `change_` columns are differences of losses.

        `ratio` is loss on all inputs over that of the whole model, `placebo_` columns are ratios of
        the placebos, harmonics left out, and `placebo_rank` is the share of them (itself counted)
        that cost at least as much; of what keeps only a part, at most as much.
        """
        return pd.DataFrame([_flat(row) for row in self.rows])

    def placebos(self) -> pd.DataFrame:
        """One row a placebo, with the ablation it belongs to; harmonics of key frequencies too."""
        return pd.DataFrame(
            [
                {
                    "step": row.step,
                    "ablation": row.name,
                    "placebo": placebo.name,
                    "harmonic": placebo.harmonic,
                    "ratio": placebo.score.loss_all / (row.whole.loss_all or math.nan),
                    **vars(placebo.score),
                }
                for row in self.rows
                for placebo in row.placebos
            ]
        )


def ablate(
    x: Subject,
    interventions: Iterable[Intervention | Sequence[HookPair]] | None = None,
    *,
    step: int | Sequence[int] | Literal["all"] = -1,
    mode: str = "mean",
    placebos: int = PLACEBOS,
    seed: int = 0,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Ablation:
    """Loss and accuracy of a model with parts of it ablated, each against placebos of its size.

    `interventions` are those of `grokinterp.circuits.hooks`, or lists of hook pairs of one's own;
    without any, `standard_interventions`: heads, attention, MLP, skips, patterns, the embedding's
    frequencies, neuron clusters, Fourier components and the neuron-logit directions, in `mode`.

    `step` is one checkpoint of a run, several, or "all"; the key frequencies are those of the last
    one unless given. Losses are over the p answer classes. Placebos of single frequencies are
    all others that are not key; of sets, neurons, heads and directions `placebos` random ones.
    The model is left as it is: weights, hooks, flags.
    """
    if isinstance(placebos, bool) or not isinstance(placebos, int) or placebos < 0:
        raise InputError(f"placebos={placebos!r} is not a number of placebos; give such as 50.")
    check_mode(mode)
    given = None if interventions is None else list(interventions)
    steps = _steps(x, step)
    rows: list[Row] = []
    for one in tqdm(steps, desc="ablate", disable=None if progress else True):
        snapshot, keys = subject_of(
            x, step=one, frequencies=frequencies, task=task, train_mask=train_mask
        )
        chosen = (
            standard_interventions(snapshot, keys, mode=mode)
            if given is None
            else [i if isinstance(i, Intervention) else intervention(i) for i in given]
        )
        rows += _ablate_one(snapshot, chosen, Setting(snapshot, keys, placebos, seed))
    return Ablation(tuple(rows), keys, _notes(snapshot, keys), placebos, seed)


def spread(ablations: Iterable[Ablation]) -> pd.DataFrame:
    """Median, smallest and largest ratio of each kind of ablation, over checkpoints and seeds.

    Give a list of `Ablation`; rows of one kind (all heads, say) count as one each.
    """
    ablations = list(ablations)
    if not ablations or not all(isinstance(one, Ablation) for one in ablations):
        raise InputError("spread needs a list of what gi.ablate returned; give at least one.")
    tables = pd.concat([ablation.table() for ablation in ablations], ignore_index=True)
    grouped = tables.groupby("kind", sort=False)["ratio"]
    return grouped.agg(["median", "min", "max", "size"]).reset_index()


def score(snapshot: Snapshot, logits: Float[Tensor, "n_inputs p"]) -> Score:
    """Loss and accuracy of these logits on train, test and all inputs."""
    labels = snapshot.task.labels
    losses = cross_entropies(logits, labels)
    right = (logits.argmax(dim=1) == labels).double()
    train = snapshot.train_mask
    every = torch.ones(len(labels), dtype=torch.bool)
    sets = (None, None, every) if train is None else (train, ~train, every)
    values = [
        math.nan if rows is None else float(x[rows].mean())
        for x in (losses, right)
        for rows in sets
    ]
    return Score(*values)


def _ablate_one(snapshot: Snapshot, chosen: Sequence[Intervention], setting: Setting) -> list[Row]:
    whole = score(snapshot, replay(snapshot, ()))
    known: dict[tuple[object, ...] | None, Score] = {}

    def scored(one: Intervention) -> Score:
        if one.same is None or one.same not in known:
            known[one.same] = score(snapshot, replay(snapshot, one))
        return known[one.same]

    def row(one: Intervention) -> Row:
        own = scored(one)
        drawn = one.draw(setting) if one.draw and setting.n else []
        return Row(
            step=snapshot.step,
            name=one.name,
            kind=one.kind,
            hooks=tuple(name for name, _ in one),
            score=own,
            whole=whole,
            keeps=one.keeps,
            placebos=tuple(Placebo(p.name, p.harmonic, scored(p)) for p in drawn),
            no_placebo=None if drawn else one.no_placebo or _no_placebo(setting),
        )

    return [row(one) for one in chosen]


def _no_placebo(setting: Setting) -> str:
    return "there is no other part of its size" if setting.n else "placebos=0"


def _notes(snapshot: Snapshot, keys: tuple[int, ...]) -> tuple[str, ...]:
    notes = []
    if not keys:
        why = "the logits have none" if usable_group(snapshot) else no_frequencies_reason(snapshot)
        notes.append(f"no key frequencies, so only parts are ablated: {why}")
    if snapshot.train_mask is None:
        notes.append("train and test are null: the model came without a split")
    return tuple(notes)


def _steps(x: Subject, step: int | Sequence[int] | str) -> list[int]:
    if step == "all":
        return list(x.steps) if isinstance(x, Run) else [-1]
    if isinstance(step, str):
        raise InputError(f"step={step!r} is not a step; give a number, several, or 'all'.")
    steps = [step] if isinstance(step, int) else list(step)
    if not steps:
        raise InputError("step=[] names no checkpoint; give a number, several, or 'all'.")
    return steps


def _flat(row: Row) -> dict[str, object]:
    others = pd.Series(row.placebo_ratios, dtype=float)
    known = len(others) and others.notna().all() and not math.isnan(row.ratio)
    as_extreme = int((others <= row.ratio if row.keeps else others >= row.ratio).sum())
    return {
        "step": row.step,
        "ablation": row.name,
        "kind": row.kind,
        **vars(row.score),
        "change_train": row.score.loss_train - row.whole.loss_train,
        "change_test": row.score.loss_test - row.whole.loss_test,
        "change_all": row.score.loss_all - row.whole.loss_all,
        "ratio": row.ratio,
        "n_placebos": len(others),
        "placebo_median": others.median(),
        "placebo_min": others.min(),
        "placebo_max": others.max(),
        "placebo_rank": (as_extreme + 1) / (len(others) + 1) if known else math.nan,
        "verdict": row.verdict,
        "no_placebo": row.no_placebo,
        "hooks": " ".join(dict.fromkeys(row.hooks)),
    }
