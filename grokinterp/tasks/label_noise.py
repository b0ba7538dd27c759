"""Which training labels are wrong? A task some of whose labels are drawn anew, once."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.keys import key
from grokinterp.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """The key of every recipe that makes some of the training labels wrong."""

    label_noise: float = key(
        0.0, least=0, most=1, help="the share of the training rows whose label is a wrong one"
    )


def with_label_noise(task: Task, rows: Int[Tensor, " n_train"], share: float, *, seed: int) -> Task:
    """The task with wrong labels in `round(share * n_train)` of the rows, which a seed draws.

    Each wrong label is drawn uniformly among the classes that are not the right one (as Nakkiran et
    al. 2020, arXiv 1912.02292, section 4 do), once for all. Test rows keep theirs. Symmetries and
    the group are those of the task itself: they are what could be learned. Losses and accuracies on
    training rows are then of the labels that are trained on, wrong ones among them.

    >>> import torch
    >>> import grokinterp as gi
    >>> task = gi.ModularTask("add", p=5)
    >>> noisy = gi.tasks.with_label_noise(task, torch.arange(10), 0.2, seed=0)
    >>> noisy.title, (noisy.labels != task.labels).nonzero().flatten().tolist()
    ('add mod 5, 2 of 10 training labels wrong', [5, 6])
    >>> noisy.commutative, noisy == task
    (True, False)
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + 1)  # not that of the split
    n_wrong = round(share * len(rows))
    wrong = rows[torch.randperm(len(rows), generator=generator)[:n_wrong]]
    away = torch.randint(1, max(task.n_classes, 2), (n_wrong,), generator=generator)
    labels = task.labels.clone()
    labels[wrong] = (labels[wrong] + away) % task.n_classes
    made: Task = object.__new__(_noisy(type(task)))  # type: ignore[arg-type]
    about = f"{task.title}, {n_wrong} of {len(rows)} training labels wrong"
    vars(made)["_noise"] = _Noise(task, labels, about, (rows, share, seed))
    made.__init__(**task.fields_given())  # type: ignore[misc]  # sets what is no field too
    return made


@dataclass(frozen=True)
class _Noise:
    clean: Task
    labels: Tensor
    title: str
    drawn: tuple[Tensor, float, int]


class _NoisyLabels:
    """What differs from the task without noise."""

    _noise: _Noise

    @property
    def labels(self) -> Tensor:
        return self._noise.labels

    @property
    def mirrors(self) -> Tensor | None:
        return self._noise.clean.mirrors

    @property
    def title(self) -> str:
        return self._noise.title

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, _NoisyLabels) and self._noise.clean == other._noise.clean
        return same and torch.equal(self.labels, other.labels)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self._noise.clean)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._noise.clean, *self._noise.drawn)


def refuse_wrong_labels(task: Task) -> None:
    """InputError for wrong labels, which a run keeps by the recipe that draws them, or not."""
    if isinstance(task, _NoisyLabels):
        raise InputError(
            f"the task is {task.title}, which no recipe draws, so they could not be read again; "
            "train by gi.Recipe(label_noise=...), or give the task without them."
        )


def _again(task: Task, rows: Tensor, share: float, seed: int) -> Task:
    return with_label_noise(task, rows, share, seed=seed)


@lru_cache(maxsize=64)
def _noisy(kind: type[Task]) -> type[Task]:
    about = {"kind": kind.kind, "__module__": kind.__module__}
    return type(kind.__name__, (_NoisyLabels, kind), about)
