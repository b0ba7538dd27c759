"""What is asked of a network's activations: at which hooks, of which rows, by which decoders?

Rows are parted into folds such that (a, b) and (b, a) are in one: a network that is symmetric would
give one away by the other.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.fourier._key_frequencies import Keys
from grokinterp.fourier.answers import usable_group
from grokinterp.fourier.spectra import neuron_logit_map
from grokinterp.geometry.fourier_decoder import multiples, placebo_sets
from grokinterp.models.hooked_module import HookedModule
from grokinterp.runs._snapshot import Block, Snapshot
from grokinterp.runs.forwards import hooked_forward
from grokinterp.tasks.answer_group import UNDEFINED
from grokinterp.tasks.task import Task

MOST_ROWS = 16_384  # of which activations are kept: at 512 neurons 64 MB in float64


def usual_hooks(snapshot: Snapshot) -> tuple[tuple[str, ...], list[str]]:
    """Neurons and residual stream of every layer, the last one what the unembedding reads."""
    architecture = snapshot.architecture
    own = getattr(architecture, "hook_names", None)
    known = list(own() if own else snapshot.hooked().hook_dict)
    if snapshot.n_layers or snapshot.positions:
        convs = [name for name in known if name.endswith(".hook_pool")]
        blocks = [
            f"blocks.{i}.{name}"
            for i in range(snapshot.n_layers)
            for name in ("mlp.hook_post", "hook_resid_post")
        ]
        wanted = (*convs, *blocks, "ln_final.hook_normalized")
        return tuple(name for name in wanted if name in known), []
    model, some = snapshot.hooked(), snapshot.task.model_inputs[:64]
    if not isinstance(model, HookedModule):
        return (), []
    hidden = tuple(model.hidden_layers(some))
    found = model.last_linear(some)
    if found is not None and hidden:
        _, there = hooked_forward(model, some, hidden)
        for i, name in enumerate(hidden):
            if torch.equal(there[name].flatten(1), found[1].flatten(1).cpu()):
                return hidden[: i + 1], []
    return hidden, [
        "what the last layer reads is no sub-module's output: the last hook is the one before it"
    ] * bool(hidden)


@dataclass(frozen=True)
class Asked:
    """What is asked of every checkpoint: which rows, in which folds, by which decoders."""

    rows: Int[Tensor, " n"]  # numbers in the table, ascending
    fold: Int[Tensor, " n"]
    targets: Int[Tensor, " n"]  # exponents of the answers, or their classes
    order: int  # how many there are of them
    hooks: tuple[str, ...]
    frequencies: tuple[int, ...] | None
    sets: tuple[tuple[int, ...], ...]  # the key frequencies, then placebos; () without
    shuffles: int  # placebos of a decoder of classes
    seed: int
    neurons: str | None  # those that the unembedding reads as key frequencies or not
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, last: Snapshot, rows: Tensor, hooks: tuple[str, ...], keys: Keys, folds: int,
        placebos: int, seed: int,
    ) -> "Asked":  # fmt: skip
        """By the last checkpoint of a run."""
        task, group, notes = last.task, usable_group(last), list(keys.notes)
        stream = torch.Generator().manual_seed(seed)
        if group is not None:
            defined = group.of_input[rows] != UNDEFINED
            if not bool(defined.all()):
                notes.append(f"{int((~defined).sum())} rows with a zero factor are left out")
            rows = rows[defined]
        n = len(rows)
        rows, fold = _folds(task, rows, folds, stream)
        if len(rows) < n:
            notes.append(f"{len(rows)} of {n} rows are looked at")
        sets: list[tuple[int, ...]] = []
        if group is not None and keys:
            sets = [tuple(keys), *placebo_sets(keys, group.order, placebos, stream)]
            few = min(placebos, 1)
            notes += ["no placebo: every frequency is key"] if few and len(sets) == 1 else []
            if any(multiples(keys, group.order) & set(others) for others in sets[1:]):
                notes.append(
                    "placebos hold multiples of key frequencies, which neurons make of them: too "
                    "few other frequencies are left"
                )
        else:
            notes.append(
                f"classes are decoded, as there are no key frequencies ({keys.reason}): with "
                f"{task.n_classes} classes and {len(rows)} rows a linear decoder may miss what is "
                "there, and what it reads of an untrained network is its own work"
            )
        neurons = None
        if keys:
            try:
                neurons = last.mlp_post_name if last.linear_readout else None
                neuron_logit_map(last)
            except InputError:
                neurons = None
            if neurons is None:
                notes.append("no key_accuracy: the logits are not linear in neurons that are known")
        return cls(
            rows=rows,
            fold=fold,
            targets=(group.of_input if group else task.labels)[rows],
            order=group.order if group else task.n_classes,
            hooks=hooks,
            frequencies=tuple(keys) if sets else None,
            sets=tuple(sets),
            shuffles=0 if sets else placebos,
            seed=seed,
            neurons=neurons,
            notes=tuple(notes),
        )


def _folds(
    task: Task, rows: Int[Tensor, " n"], folds: int, stream: torch.Generator
) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """At most `MOST_ROWS` of the rows, and the fold of each, the same as its mirror's."""
    mirrors = torch.arange(task.n_inputs) if task.mirrors is None else task.mirrors
    _, pair = torch.minimum(rows, mirrors[rows]).unique(return_inverse=True)
    n_pairs = int(pair.max()) + 1 if len(pair) else 0
    if n_pairs < folds:
        raise InputError(
            f"{n_pairs} unmirrored test pairs cannot be parted into {folds} folds; give fewer "
            "folds=, or a run with more test inputs."
        )
    place = torch.randperm(n_pairs, generator=stream)
    order = place[pair].argsort(stable=True)[:MOST_ROWS].sort().values
    return rows[order], (place[pair] % folds)[order]


class Kept:
    """A `Tally` of some rows' logits and activations, and of the mean of some neurons."""

    def __init__(self, snapshot: Snapshot, asked: Asked) -> None:
        self._asked = asked
        own = () if asked.neurons is None else (asked.neurons,)
        self.needs = tuple(dict.fromkeys((*asked.hooks, *own)))
        self._n = snapshot.task.n_inputs
        self._logits: list[Tensor] = []
        self._activations: dict[str, list[Tensor]] = {name: [] for name in self.needs}
        self._total: Tensor | float = 0.0

    def add(self, block: Block) -> None:
        """Keep the rows of a block."""
        rows = self._asked.rows
        within = rows[(rows >= block.rows.start) & (rows < block.rows.stop)] - block.rows.start
        self._logits.append(block.logits[within])
        for name, kept in self._activations.items():
            kept.append(block.activations[name][within].flatten(1))
        if self._asked.neurons is not None:
            self._total = self._total + block.activations[self._asked.neurons].sum(
                dim=0, dtype=torch.float64
            )

    def take(self) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Logits, activations and the neurons' mean over the table; they are kept no longer."""
        logits = torch.cat(self._logits)
        found = {name: torch.cat(kept) for name, kept in self._activations.items()}
        self._logits, self._activations = [], {}
        return logits, found, torch.as_tensor(self._total) / self._n
