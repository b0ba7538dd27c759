"""Which points stand for what a model has learned of each operand and each answer?

Three clouds: the `embedding` of the operand tokens, the `unembedding` of the answer classes, and
the `answers`, the mean activation over some inputs with each answer. An MLP on one-hot operands has
its first matrix in place of an embedding. Where the operands differ, in their tables or in the
order in which the task's group counts them, there is a cloud of each.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.checks import listed, member, text, word
from grokinterp.base.errors import InputError, shown
from grokinterp.fourier.answers import no_frequencies_reason, usable_group
from grokinterp.fourier.spectra import operand_tables
from grokinterp.geometry.symmetrised_grams import centred_gram
from grokinterp.progress.scored_checkpoints import ROWS, ChosenRows, choose_rows
from grokinterp.runs._snapshot import Block, Snapshot
from grokinterp.runs.run import Run

CLOUDS = ("embedding", "unembedding", "answers")
EVERY_ROW = (*ROWS, "train", "all")
FEWEST = 5  # points of a cloud: with fewer, nearly every order is a symmetry
ROUNDING = 1e-6  # of what means are taken of, in single precision
NEITHER = -1  # half of the inputs
Order = Int[Tensor, " n"]


@dataclass(frozen=True)
class Cloud:
    """Points [n, d] in float64, in the order of the task's cyclic group where `unordered` is "".

    `elements` are their places in that order, of `order` in all: an answer that no input of the
    rows has is left out. `missing` says why there is no point. The rest is of the answers.
    """

    name: str
    points: Float[Tensor, "n d"] = field(default_factory=lambda: torch.empty(0, 0).double())
    elements: Order = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    order: int = 0
    unordered: str = ""  # why they are in no such order
    missing: str = ""
    equal: bool = False  # but for rounding
    between_share: float = math.nan  # sum of squares between answers, over all of it
    between_chance: float = math.nan
    reliability: float = math.nan  # of their arrangement, by halves of the inputs


def clouds_of(
    snapshot: Snapshot,
    of: Sequence[str],
    *,
    at: str | None,
    rows: ChosenRows,
    by_group: bool = True,
) -> Iterator[Cloud]:
    """The clouds of a checkpoint, by operand and answer in the order of the task's group.

    `at` is the hook of the answers, `rows` the inputs that they are means over. With `by_group`
    False, tokens and answers are in plain order, all of them.
    """
    find = {"embedding": _embeddings, "unembedding": _unembedding}
    for name in of:
        try:
            if name == "answers":
                found = [_answers(snapshot, at, rows, by_group)]
            else:
                found = list(find[name](snapshot, by_group))
        except InputError as error:
            if name == "answers" and at is not None and not rows.reason:
                raise
            found = [Cloud(name, missing=str(error).rstrip("."))]
        for cloud in found:
            if cloud.points.isfinite().all():
                yield cloud
            else:
                yield Cloud(cloud.name, missing="it has entries that are not finite")


def checked_clouds(of: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds of clouds that are asked for, each once."""
    given = [of] if isinstance(of, str) else listed("of", of, such_as="['answers']")
    if not given:
        raise InputError(f"of={shown(of)} has no cloud; give some of {', '.join(CLOUDS)}.")
    return tuple(dict.fromkeys(member(name, CLOUDS, "cloud") for name in given))


def rows_of_answers(run: Run, rows: str) -> ChosenRows:
    """The inputs that answers are means over: as `choose_rows`, "train", or "all"."""
    word("rows", rows, EVERY_ROW)
    if rows in ROWS or (run.train_mask is None and rows == "train"):
        chosen = choose_rows(run, rows if rows in ROWS else "test")
        return ChosenRows(rows, chosen.numbers, chosen.note, chosen.reason)
    every = torch.arange(run.task.n_inputs)
    if rows == "all":
        note = f"over all {len(every)} inputs, those trained on too: memorised answers are mixed in"
        return ChosenRows(rows, every, note=note)
    numbers = every[run.train_mask]
    return ChosenRows(rows, numbers, note=f"over the {len(numbers)} inputs trained on")


def answer_hook(snapshot: Snapshot, at: str | None) -> str:
    """Where answers are looked at: what the unembedding reads, unless a hook is named."""
    if at is not None:
        return text("at", at, such_as="'blocks.0.hook_resid_post'", empty=False)
    if snapshot.positions and snapshot.n_layers:
        return f"blocks.{snapshot.n_layers - 1}.hook_resid_post"
    if not snapshot.n_layers:
        raise InputError(
            f"the layers of this {snapshot.kind} have names of its own, as its hook_dict lists "
            "them; give the one that its readout reads, such as at='fc1'."
        )
    return snapshot.mlp_post_name


def _embeddings(snapshot: Snapshot, by_group: bool) -> Iterator[Cloud]:
    plain = torch.arange(snapshot.modular_task.p)
    tables, orders = operand_tables(snapshot).tables, _operand_orders(snapshot, by_group)
    if len(tables) == 1 and orders[0] is orders[1]:  # one table, read in one way
        each = [("embedding", tables[0], orders[0])]
    else:
        names = ("embedding_a", "embedding_b")
        each = list(zip(names, (tables[0], tables[-1]), orders, strict=True))
    for name, table, order in each:
        unordered = "" if order is not None else _why_unordered(snapshot, by_group)
        yield _whole(name, table[plain if order is None else order], unordered)


def _operand_orders(snapshot: Snapshot, by_group: bool) -> tuple[Order | None, Order | None]:
    """Tokens of a and of b in the order of the group, one object where that is the same."""
    group = usable_group(snapshot) if by_group else None
    a, b = (None, None) if group is None else group.operand_orders
    return (a, a) if a is not None and b is not None and torch.equal(a, b) else (a, b)


def _why_unordered(snapshot: Snapshot, by_group: bool) -> str:
    if not by_group:
        return "in the order of group="
    if usable_group(snapshot) is None:
        return no_frequencies_reason(snapshot)
    return "several tokens have one exponent in the group, so the group does not move them"


def _unembedding(snapshot: Snapshot, by_group: bool) -> Iterator[Cloud]:
    weights = snapshot.named_weights
    if "unembed.W_U" not in weights:
        raise InputError("the model has no weight 'unembed.W_U', a vector for every answer")
    order, unordered = _answer_order(snapshot, by_group)
    yield _whole("unembedding", weights["unembed.W_U"].T.double()[order], unordered)


def _whole(name: str, points: Float[Tensor, "n d"], unordered: str) -> Cloud:
    n, equal = len(points), bool((points == points[:1]).all())
    return Cloud(
        name, points, elements=torch.arange(n), order=n, unordered=unordered, equal=equal,
    )  # fmt: skip


def _answer_order(snapshot: Snapshot, by_group: bool) -> tuple[Order, str]:
    group = usable_group(snapshot) if by_group else None
    if group is not None:
        return group.tokens, ""
    return torch.arange(snapshot.task.n_classes), _why_unordered(snapshot, by_group)


def _answers(snapshot: Snapshot, at: str | None, rows: ChosenRows, by_group: bool) -> Cloud:
    if rows.reason:
        raise InputError(f"{rows.reason}; rows='all' looks at all inputs")
    order, unordered = _answer_order(snapshot, by_group)
    counted = snapshot.tally(AnswersAt(answer_hook(snapshot, at), rows.name, rows.numbers))
    elements = (counted.counts[order] > 0).nonzero().flatten()
    there = order[elements]
    counts, sums, n = counted.counts[there], counted.sums[there], int(counted.counts[there].sum())
    if not n:
        return Cloud("answers", missing="none of the inputs has an answer with an exponent")
    means = sums / counts[:, None]
    squares = counted.squares[there].sum()
    around = sums.sum(dim=0).square().sum() / n
    total = squares - around
    between = ((means - sums.sum(dim=0) / n).square().sum(dim=1) * counts).sum()
    equal = bool(between <= ROUNDING**2 * squares)
    halves_of = counted.counts_of_halves[:, there], counted.halves[:, there]
    return Cloud(
        "answers", means, elements=elements, order=len(order), unordered=unordered, equal=equal,
        between_share=float(between / total) if total > ROUNDING**2 * squares else math.nan,
        between_chance=(len(there) - 1) / (n - 1) if n > 1 else math.nan,
        reliability=math.nan if equal else _reliability(*halves_of),
    )  # fmt: skip


def _reliability(counts: Int[Tensor, "2 n"], sums: Float[Tensor, "2 n d"]) -> float:
    """The cosine of the centred Grams of the means over either half of the inputs."""
    both = (counts > 0).all(dim=0)
    if int(both.sum()) < FEWEST:
        return math.nan
    first, second = (centred_gram(x) for x in sums[:, both] / counts[:, both, None])
    size = float(first.norm() * second.norm())
    return float((first * second).sum()) / size if size > 0 else math.nan


@dataclass(frozen=True)
class AnswersAt:
    """Makes the `Tally` of a snapshot's activations at a hook, by answer, over some rows."""

    hook: str
    rows: str  # which a snapshot has once
    numbers: Int[Tensor, " n"] = field(compare=False)

    def __call__(self, snapshot: Snapshot) -> "AnswerSums":
        """One that has counted nothing yet."""
        half = torch.full((snapshot.task.n_inputs,), NEITHER, dtype=torch.int64)
        half[self.numbers] = halves(snapshot.task.labels[self.numbers])
        return AnswerSums(self.hook, half, snapshot.task.n_classes)


def halves(labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """0 or 1 for every input, so that each answer has as many of both, or one more of 0.

    >>> halves(torch.tensor([4, 4, 7, 7, 7])).sort().values.tolist()
    [0, 0, 0, 1, 1]
    """
    n = len(labels)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    order = order[labels[order].argsort(stable=True)]
    _, counts = labels.unique(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    found = torch.empty(n, dtype=torch.int64)
    found[order] = (torch.arange(n) - starts) % 2
    return found


class AnswerSums:
    """A `Tally` of the activations at a hook, of some inputs: sums and squares by answer.

    Sums and counts are also those of either half of the inputs.
    """

    def __init__(self, hook: str, half: Int[Tensor, " n_inputs"], n_classes: int) -> None:
        self.needs = (hook,)
        self._hook, self._half, self._n_classes = hook, half, n_classes
        self.counts_of_halves = torch.zeros(2, n_classes, dtype=torch.int64)
        self.squares = torch.zeros(n_classes, dtype=torch.float64)
        self.halves = torch.zeros(2, n_classes, 0, dtype=torch.float64)

    @property
    def counts(self) -> Int[Tensor, " n_classes"]:
        """How many inputs have each answer."""
        return self.counts_of_halves.sum(dim=0)

    @property
    def sums(self) -> Float[Tensor, "n_classes d"]:
        """The sum of their activations."""
        return self.halves.sum(dim=0)

    def add(self, block: Block) -> None:
        """Count a block."""
        half = self._half[block.rows]
        rows = half != NEITHER
        found = block.activations[self._hook][rows].flatten(1).double()
        if not self.halves.numel():
            self.halves = found.new_zeros(2, self._n_classes, found.shape[1])
        labels = block.labels[rows]
        both = labels + self._n_classes * half[rows]
        self.halves.view(2 * self._n_classes, -1).index_add_(0, both, found)
        self.squares.index_add_(0, labels, found.square().sum(dim=1))
        counts = torch.bincount(both, minlength=2 * self._n_classes)
        self.counts_of_halves += counts.view(2, self._n_classes)
