"""Ablation: what breaks without a part, against placebos of the same size."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import LARGEST_SEED, listed, whole, word
from grokinterp.base.errors import InputError, shown
from grokinterp.base.result import Result, text_card
from grokinterp.circuits.edited import Edited
from grokinterp.circuits.interventions import MODES, Intervention, Setting, as_interventions, replay
from grokinterp.circuits.standard import standard_of
from grokinterp.fourier._key_frequencies import Keys, subject_of
from grokinterp.models.cross_entropy import cross_entropies, right_answers
from grokinterp.progress.measures import MEASURES, checked_measures, measured_row
from grokinterp.reading._load import Subject, loaded, steps_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.tasks.task import Task

ABOVE, WITHIN, NONE = "above chance", "not above chance", "no placebo"
UNKNOWN = "undetermined"  # a loss is not a number
MOST_SHOWN = 60  # rows of a text: all standard ablations of a checkpoint
LOSS_ROUNDING = 1e-5  # relative; of float32 logits, where nothing was changed


@dataclass(frozen=True)
class Score:
    """Cross-entropy in nats and accuracy over the p classes, on three sets of inputs.

    NaN on train and test without a split, and on sets that were not evaluated.
    """

    loss_train: float
    loss_test: float
    loss_all: float
    acc_train: float
    acc_test: float
    acc_all: float


def score(snapshot: Snapshot, logits: Float[Tensor, "n p"], *, test_only: bool = False) -> Score:
    """Loss and accuracy of these logits on train, test and all inputs.

    `test_only`: the logits are of `snapshot.test_rows` alone.
    """
    labels, train = snapshot.task.labels, snapshot.train_mask
    if test_only:
        labels = labels[snapshot.test_rows]
    every = torch.ones(len(labels), dtype=torch.bool)
    known = (None, None) if train is None else (train, ~train)
    sets = (None, every, None) if test_only else (*known, every)
    values = cross_entropies(logits, labels), right_answers(logits, labels).double()
    return Score(
        *(math.nan if rows is None else float(x[rows].mean()) for x in values for rows in sets)
    )


@dataclass(frozen=True)
class Placebo:
    """One control: the same intervention on another part of the same size."""

    name: str
    harmonic: bool  # at 2k or 4k of a key frequency, where a circuit of k leaks: kept apart
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
    measures: Mapping[str, float] = field(default_factory=dict)  # those asked for, with it in place
    whole_measures: Mapping[str, float] = field(default_factory=dict)  # and without

    @property
    def ratio(self) -> float:
        """Loss on all inputs with the intervention over that without (inf if that is 0)."""
        return self.over_whole(self.score)

    @property
    def placebo_ratios(self) -> list[float]:
        """The same of every placebo that is no harmonic."""
        return [self.over_whole(p.score) for p in self.placebos if not p.harmonic]

    def over_whole(self, score: Score) -> float:
        """A loss on all inputs over that of the whole model; 1 where both are 0."""
        loss, whole = score.loss_all, self.whole.loss_all
        return loss / whole if whole else math.inf if loss else 1.0

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
        return ABOVE if more > less * (1 + LOSS_ROUNDING) else WITHIN


@dataclass(frozen=True, kw_only=True)
class Ablation(Result):
    """What interventions do to a model's loss and accuracy.

    The table of all inputs is a census, so a change has no sampling error over inputs; what it is
    compared with is the placebo distribution. An effect says that the part matters to this network
    as it stands, not how it computes, and removing two parts need not cost the sum of both.

    >>> import grokinterp as gi
    >>> from grokinterp.circuits import hooks
    >>> run = gi.load("mod31-small")
    >>> found = gi.ablate(run, [hooks.heads(0, 2), hooks.neurons(0, 3)], placebos=5)
    >>> found["head 0.2 (mean)"].verdict, found["neuron 3 (mean)"].verdict
    ('above chance', 'above chance')
    >>> found.table()[["ablation", "ratio", "n_placebos"]].round()
              ablation   ratio  n_placebos
    0  head 0.2 (mean)  3109.0           5
    1  neuron 3 (mean)     1.0           5
    >>> found.placebos()[["ablation", "placebo"]].tail(2)
              ablation                    placebo
    8  neuron 3 (mean)  1 random neurons 3 (mean)
    9  neuron 3 (mean)  1 random neurons 4 (mean)
    """

    rows: tuple[Row, ...] = field(repr=False)
    frequencies: tuple[int, ...]
    n_placebos: int
    seed: int

    def __repr__(self) -> str:
        steps = len({row.step for row in self.rows})
        return f"Ablation({len(self.rows)} rows, {steps} checkpoints, {self.frequencies}; .table())"

    def _title(self) -> str:
        return f"Ablations: {len(self.rows)}"

    def _lines(self) -> list[str]:
        keys = ", ".join(map(str, self.frequencies)) or "none"
        return [
            f"key frequencies {keys}; up to {self.n_placebos} placebos each, seed {self.seed}",
            "ratio is loss on all inputs over that of the whole model",
        ]

    def __str__(self) -> str:
        """All rows of a checkpoint, as a shell is shown them."""
        shown = self._in_order()
        return text_card(self._title(), self._lines(), shown, notes=self.notes, most=MOST_SHOWN)

    def _short_table(self) -> pd.DataFrame:
        columns = ["step", "ablation", "loss_all", "acc_all", "ratio"]
        columns += ["placebo_min", "placebo_max", "verdict"]
        return self.table().sort_values("ratio", ascending=False)[columns]

    def _in_order(self) -> pd.DataFrame:
        rows = []
        for row in self.rows:
            others = row.placebo_ratios
            numbers = {"loss_all": row.score.loss_all, "acc_all": row.score.acc_all}
            rows.append(
                {"ablation": row.name, **numbers, "ratio": row.ratio, **row.measures}
                | {"placebos": (min(others), max(others)) if others else None}
                | {"verdict": row.verdict}
            )
        frame = pd.DataFrame(rows)
        several = len({row.step for row in self.rows}) > 1
        if several:
            frame.insert(0, "step", [row.step for row in self.rows])
        return frame

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> Row:
        """The first row of that name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise InputError(f"no ablation is called {shown(name)}; .table() lists them.")

    def table(self) -> pd.DataFrame:
        """One row per intervention and checkpoint; `change_` columns are differences of losses.

        `ratio` is loss on all inputs over that of the whole model; `placebo_` columns are ratios of
        the placebos, harmonics left out. `placebo_rank` is the share of them (itself counted) that
        cost at least as much; for what keeps only a part, at most as much. Null: train and test
        without a split, `placebo_` without placebos (`no_placebo` says why). Of each measure that
        was asked for, a column of its name with the intervention, and one with `whole_` before it.
        """
        return pd.DataFrame([_flat(row) for row in self.rows])

    def placebos(self) -> pd.DataFrame:
        """One row per placebo, with its ablation; harmonics of key frequencies too."""
        return pd.DataFrame(
            [
                {"step": row.step, "ablation": row.name, "placebo": placebo.name}
                | {"harmonic": placebo.harmonic, "ratio": row.over_whole(placebo.score)}
                | vars(placebo.score)
                for row in self.rows
                for placebo in row.placebos
            ]
        )


def ablate(
    x: Subject,
    interventions: Iterable[Any] | None = None,  # of `Intervention`, or of lists of hook pairs
    *,
    step: int | Sequence[int] | Literal["all"] = -1,
    mode: str = "mean",
    placebos: int = 50,
    seed: int = 0,
    measures: Sequence[str] | None = None,
    frequencies: Sequence[int] | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Ablation:
    """Loss and accuracy of a model with parts of it ablated, each against placebos of its size.

    `interventions` are those of `grokinterp.circuits.hooks`, or lists of hook pairs of one's own;
    without any, `standard_interventions`: heads, attention, MLP, skips, patterns, the embedding's
    frequencies, neuron clusters, Fourier components and the neuron-logit directions, in `mode`.

    `step` is one checkpoint of a run, several, or "all"; the key frequencies are those of the last
    checkpoint unless given. Losses are over the p answer classes. Placebos of single frequencies
    are all others that are not key; of sets, neurons, heads and directions, `placebos` random ones.
    Means, permutations and Fourier components are over all inputs of the task.

    `measures` are names of registered measures of snapshots (`gi.progress.MEASURES`), such as
    "restricted_loss": each is taken of the model with the intervention in place, its forward on the
    whole table, and without. What a measure reads from the weights alone no intervention changes;
    those that need frequencies take the key ones of the whole model.

    A standard intervention that this model does not have is left out, with the reason in `.notes`;
    without key frequencies (`gi.key_frequencies`) only heads, layers and skips are ablated.
    `progress` shows a bar over the steps. InputError where the model's own logits are not finite,
    for parts it does not have and for hook points it does not know. The model is left as it is,
    whatever a hook raises: weights, hooks, flags.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.ablate(run, placebos=5)
    >>> found.table().sort_values("ratio")[["ablation", "acc_all", "verdict"]].tail(4).round(2)
                               ablation  acc_all       verdict
    21  drop k = 1, 8, 14 at the logits     0.02  above chance
    4       attention patterns 0 (mean)     0.39    no placebo
    2                   head 0.2 (mean)     0.28  above chance
    5                attention 0 (mean)     0.03    no placebo
    >>> found = gi.ablate(run, [gi.hooks.mlp(0)], step=[0, -1])
    >>> found.table()[["step", "acc_all", "ratio"]].round()
        step  acc_all  ratio
    0      0      0.0    1.0
    1  10000      0.0  920.0
    """
    placebos = whole("placebos", placebos, least=0, such_as="50")
    word("mode", mode, MODES)
    seed = whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    asked = [] if measures is None else checked_measures("measures", measures, "snapshot")
    given = None if interventions is None else as_interventions(interventions)
    x = loaded(x)
    rows: list[Row] = []
    notes: dict[str, None] = {}
    for one in tqdm(steps_of(x, step), desc="ablate", disable=None if progress else True):
        snapshot, keys = subject_of(x, one, frequencies, task, train_mask)
        chosen = list(standard_of(snapshot, keys, mode)) if given is None else given
        notes |= dict.fromkeys(keys.notes)
        if not keys:
            null = " (and measures that need some are null)" if asked else ""
            notes[f"no key frequencies, so only parts are ablated{null}: {keys.reason}"] = None
        if snapshot.train_mask is None:
            notes["train and test are null: the model came without a split"] = None
        notes |= dict.fromkeys(one for one in chosen if isinstance(one, str))
        some = [one for one in chosen if isinstance(one, Intervention)]
        done = _ablate_one(snapshot, some, Setting(snapshot, keys, placebos, seed))
        rows += _measured(done, snapshot, some, keys, asked) if asked else done
    if not rows:
        raise InputError(
            "nothing of this model is known to be taken out; give interventions, such as "
            "[hooks.neurons('fc1', range(8))]."
        )
    return Ablation(
        rows=tuple(rows), frequencies=keys, notes=tuple(notes), n_placebos=placebos, seed=seed
    )


def ablation_ratios(ablations: Iterable[Ablation]) -> pd.DataFrame:
    """Median, smallest and largest ratio of each kind of ablation, over checkpoints and seeds.

    Give a list with one `Ablation` per seed (and several checkpoints in each, if you like); `size`
    is the number of rows, each head or frequency and each checkpoint counting as one. Ratios are to
    the loss of the whole model at the same checkpoint.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.ablate(run, [gi.hooks.heads(0, i) for i in range(4)], placebos=0)
    >>> gi.circuits.ablation_ratios([found]).round()
              kind  median    min     max  size
    0  head (mean)   753.0  303.0  3109.0     4
    """
    given = listed("ablations", ablations, such_as="[gi.ablate(run)]")
    if not given or not all(isinstance(one, Ablation) for one in given):
        raise InputError(
            "ablation_ratios needs a list of what `ablate` returns; give at least one."
        )
    tables = pd.concat([ablation.table() for ablation in given])
    grouped = tables.groupby("kind", sort=False)["ratio"]
    return grouped.agg(["median", "min", "max", "size"]).reset_index()


def _ablate_one(
    snapshot: Snapshot, chosen: Sequence[Intervention], setting: Setting
) -> Iterator[Row]:
    whole = score(snapshot, replay(snapshot, ()))
    if not math.isfinite(whole.loss_all):
        at = "" if snapshot.step is None else f" at step {snapshot.step}"
        raise InputError(f"the model's loss{at} is {whole.loss_all}; look at an earlier step.")
    missing = "there is no other part of its size" if setting.n else "none were asked for"
    known: dict[tuple[object, ...] | None, Score] = {}

    def scored(one: Intervention) -> Score:
        if one.same is None or one.same not in known:
            known[one.same] = score(snapshot, replay(snapshot, one))
        return known[one.same]

    for one in chosen:
        own = scored(one)
        drawn = one.draw(setting) if one.draw and setting.n else []
        yield Row(
            step=snapshot.step,
            name=one.name,
            kind=one.kind,
            hooks=tuple(name for name, _ in one),
            score=own,
            whole=whole,
            keeps=one.keeps,
            placebos=tuple(Placebo(p.name, p.harmonic, scored(p)) for p in drawn),
            no_placebo=one.no_placebo or missing if all(p.harmonic for p in drawn) else None,
        )


def _measured(
    rows: Iterable[Row],
    snapshot: Snapshot,
    interventions: Sequence[Intervention],
    keys: Keys,
    names: Sequence[str],
) -> Iterator[Row]:
    """The rows with measures of the model as each intervention leaves it."""
    entries = [MEASURES[name] for name in names]
    whole = measured_row(entries, snapshot, keys)
    for row, one in zip(rows, interventions, strict=True):
        found = measured_row(entries, Edited(snapshot, one), keys)
        yield replace(row, measures=found, whole_measures=whole)


def _flat(row: Row) -> dict[str, object]:
    others = pd.Series(row.placebo_ratios, dtype=float)
    known = len(others) and others.notna().all() and not math.isnan(row.ratio)
    as_extreme = int((others <= row.ratio if row.keeps else others >= row.ratio).sum())
    return {
        "step": row.step,
        "ablation": row.name,
        "kind": row.kind,
        **vars(row.score),
        **row.measures,
        **{f"whole_{name}": value for name, value in row.whole_measures.items()},
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
