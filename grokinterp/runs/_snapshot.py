"""Snapshot: one model at one step, seen over its whole task; and how one is taken of a model.

What is counted over a whole table block by block is a `Tally`, so that no table of logits has to be
kept. At p = 1009 the logits of one checkpoint are 4 GB; a tally is as large as what it counts.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import mask, tensors, text, whole
from grokinterp.base.errors import InputError, shown
from grokinterp.base.result import card
from grokinterp.models.architecture import BaseArchitecture, Weights
from grokinterp.models.cross_entropy import right_answers
from grokinterp.models.hooked_module import HookedModule, buffers_in
from grokinterp.models.kinds import architecture_of, has_positions, layers_of, weights_of
from grokinterp.models.layers import neurons_name
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.models.user_models import (
    AnyModel,
    HookedModel,
    alone_with,
    configuration,
    hooked_model,
)
from grokinterp.runs.forwards import (
    BLOCK_ROWS,
    Forward,
    agree,
    forward_of,
    hooked_forward,
    over_blocks,
    row_blocks,
    try_on,
)
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import Task, check_task, unmirrored_rows

KEPT_CELLS = 2**26  # of a table that is kept for another look: 256 MB; p up to 400
T = TypeVar("T")
AnyTally = TypeVar("AnyTally", bound="Tally")


@dataclass(frozen=True)
class Block:
    """Some consecutive inputs of a task, with the logits and activations of a model."""

    rows: slice
    logits: Float[Tensor, "rows n_classes"]  # of the answer classes
    labels: Int[Tensor, " rows"]
    activations: Mapping[str, Tensor]  # at the hook names that a tally needs


@runtime_checkable
class Tally(Protocol):
    """What is made with a snapshot and then gets every block of its table once, in order."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The hook names of the activations that it counts."""

    def add(self, block: Block) -> None:
        """Count a block, whose tensors are overwritten afterwards."""


class Snapshot:
    """A model's answers and activations at the answer position, over all inputs of its task.

    Everything is computed when first asked for, at most once. Rows are in table order (`a*p + b`).
    `logits` and `activation` are whole tables. What does not fit into memory is looked at in blocks
    (`tally`, `logit_blocks`, `activation_parts`), where only tables of at most 2^26 cells are kept.
    Build one with `run.snapshot(step)` or `gi.snapshot(model, task)`.

    >>> import grokinterp as gi
    >>> seen = gi.load("mod31-small").snapshot(300)
    >>> seen.logits.shape, seen.activation("blocks.0.attn.hook_pattern").shape, seen.step
    (torch.Size([961, 31]), torch.Size([961, 4, 3]), 300)
    """

    def __init__(
        self,
        task: Task,
        *,
        weights: Weights,
        buffers: Collection[str] = (),
        named: bool = True,
        n_layers: int,
        forward: Forward,
        kind: str = "transformer",
        positions: bool = True,
        hooked: Callable[[], HookedModel] | None = None,
        architecture: BaseArchitecture | None = None,
        linear_readout: bool = True,
        train_mask: Bool[Tensor, " n_inputs"] | None = None,
        step: int | None = None,
    ) -> None:
        self.task = task
        self.state = weights  # with running statistics and the like, as a run keeps them
        self.weights = {name: x for name, x in weights.items() if name not in buffers}
        self._named = named
        self.n_layers = n_layers
        self.kind = kind  # what its architecture is called
        self.positions = positions  # it has attention and a residual stream over positions
        self.architecture = architecture  # None: `weights` alone do not say what it computes
        self.linear_readout = linear_readout  # the unembedding reads the last residual as it is
        self.train_mask = None if train_mask is None else train_mask.clone()
        self.step = step
        self._forward = torch.no_grad()(forward)
        self._hooked = hooked
        self._activations: dict[str, Tensor] = {}
        self._memo: dict[object, object] = {}

    @property
    def named_weights(self) -> Weights:
        """The weights where their names say what they do; none of a module, which has its own.

        Operand tokens are the first rows of W_E, answer classes the first columns of W_U, whatever
        ids they have.
        """
        named = self.weights if self._named else {}
        return self.memo("named weights", lambda: dict(self.task.in_order(named)))

    @property
    def modular_task(self) -> ModularTask:
        """The task of modular arithmetic; InputError for any other."""
        if self.task.modular is None:
            raise InputError(
                f"{self.task.title} has no operand tokens; this looks at modular arithmetic."
            )
        return self.task.modular

    @property
    def test_rows(self) -> Bool[Tensor, " n_inputs"] | None:
        """True for inputs that were not trained on; None without a split that leaves any."""
        train = self.train_mask
        return None if train is None or bool(train.all()) else ~train

    @property
    def unmirrored_rows(self) -> Bool[Tensor, " n_inputs"] | None:
        """Test inputs whose mirror is not trained on either; all of them where none has a mirror.

        None without a split that leaves test inputs. See `grokinterp.tasks.unmirrored_rows`.
        """
        if self.train_mask is None or self.test_rows is None:
            return None
        return unmirrored_rows(self.task, self.train_mask)

    @property
    def transformer(self) -> TransformerArchitecture | None:
        """The architecture of a plain transformer; None for any other model."""
        return None if self.architecture is None else self.architecture.transformer

    @property
    def logits(self) -> Float[Tensor, "n_inputs n_classes"]:
        """Logits of the answer classes on every input (the "=" class is left out)."""
        return self.task.of_answers(self.all_logits)

    @property
    def all_logits(self) -> Float[Tensor, "n_inputs d_vocab_out"]:
        """Logits as the training softmax saw them, with the "=" class where the model has one."""
        return self.memo("logits", lambda: self._whole()[0])

    @property
    def mlp_post(self) -> Float[Tensor, "n_inputs d_mlp"]:
        """Activations of the last MLP's neurons after the nonlinearity."""
        return self.activation(self.mlp_post_name)

    @property
    def mlp_post_name(self) -> str:
        """Hook name of the last MLP's neurons after the nonlinearity."""
        return self.neurons_name(None)

    def neurons_name(self, layer: int | str | None) -> str:
        """Hook name of a layer's neurons: of a layer by its number (None: the last), or its name.

        InputError where layers have names and none is given, and for attention without an MLP.
        """
        if layer is None and not self.n_layers:
            raise InputError(
                f"the layers of this {self.kind} have names of its own, as its hook_dict lists "
                "them; give one, such as layer='fc1'."
            )
        layer = self.n_layers - 1 if layer is None else layer
        name = neurons_name(layer)
        block, mlp, _ = name.rpartition("mlp.")
        of_block = [x for x in self.weights if mlp and x.startswith(block)]
        if self.positions and of_block and not any(x.startswith(block + mlp) for x in of_block):
            raise InputError(f"this {self.kind} has no MLP in layer {layer}, so no neurons.")
        return name

    def width_of(self, layer: int | str | None = None) -> int:
        """How many neurons a layer has."""
        name = self.neurons_name(layer)
        _, found = self._run(slice(1), (name,))
        return found[name].shape[-1]

    def activation(self, name: str) -> Float[Tensor, "n_inputs ..."]:
        """The activation at a hook name, of a transformer at the answer position.

        [n_inputs, ...] without the position axis; attention patterns and scores are
        [n_inputs, n_heads, key position].
        """
        self.gather(text("name", name, such_as=repr(neurons_name(0))))
        return self._activations[name]

    def gather(self, *names: str) -> None:
        """Compute several activations in one forward, for `activation` to return."""
        missing = tuple(name for name in names if name not in self._activations)
        if missing:
            logits, found = self._whole(missing)
            self.memo("logits", lambda: logits)
            self._activations |= found

    def tally(self, kind: Callable[["Snapshot"], AnyTally]) -> AnyTally:
        """A `Tally` of this kind that has counted the whole table."""
        self.tally_all(kind)
        return self._memo[kind]  # type: ignore[return-value]

    def tally_all(self, *kinds: Callable[["Snapshot"], Tally]) -> None:
        """Count those that have not been counted yet in one forward, for `tally` to return."""
        for kind in kinds:
            if not callable(kind):
                raise InputError(f"{shown(kind)} is no kind of tally; give a class of `Tally`.")
        missing = {kind: kind(self) for kind in kinds if kind not in self._memo}
        if not missing:
            return
        names = tuple({name for tally in missing.values() for name in tally.needs})
        labels = self.task.labels
        for rows, logits, found in self._blocks(names):
            block = Block(rows, self.task.of_answers(logits), labels[rows], found)
            for tally in missing.values():
                tally.add(block)
            del block, logits, found  # so that the next block is computed where this one was
        for kind, tally in missing.items():
            self._memo[kind] = tally

    def logit_blocks(
        self, rows: Int[Tensor, " n"]
    ) -> Iterator[tuple[Int[Tensor, " some"], Float[Tensor, "some n_classes"]]]:
        """Some rows' logits of the answer classes, with their numbers, a block at a time."""
        for some in rows.split(BLOCK_ROWS):
            if "logits" in self._memo:
                yield some, self.logits.index_select(0, some)
            else:
                logits, _ = self._run(some, ())
                yield some, self.task.of_answers(logits)

    def on_rows(
        self, rows: Int[Tensor, " n"], *names: str
    ) -> tuple[Float[Tensor, "n n_classes"], Mapping[str, Tensor]]:
        """Logits of the answer classes and activations of some rows alone; nothing is kept."""
        logits, found = over_blocks(self._forward, self.task.model_inputs[rows], names)
        return self.task.of_answers(logits), found

    def activation_parts(self, name: str) -> Iterator[Float[Tensor, "n_inputs some"]]:
        """An activation [n_inputs, width] whose columns come in parts; in one where it is small.

        Every part of a large one takes a forward of its own.
        """
        n = self.task.n_inputs
        _, found = self._run(slice(1), (name,))
        width = found[name].shape[1]
        if name in self._activations or n * width <= KEPT_CELLS:
            yield self.activation(name)
            return
        step = max(1, KEPT_CELLS // n)
        for first in range(0, width, step):
            part = torch.empty(n, min(step, width - first), dtype=found[name].dtype)
            for rows in row_blocks(n):
                _, found = self._run(rows, (name,))
                part[rows] = found[name][:, first : first + step]
            yield part

    def logits_with(
        self,
        weights: Mapping[str, Tensor],
        *,
        rows: Bool[Tensor, " n_inputs"] | Int[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n n_classes"]:
        """Logits of the answer classes with other weights of this architecture; none are kept.

        On all inputs, or on `rows`: those that are true, or rows of these numbers in this order.
        """
        if self.architecture is None:
            raise InputError(
                "the weights alone do not say what this model computes; give a plain transformer, "
                "MLP or CNN, without hooks or modules of its own."
            )
        weights = self.with_buffers(tensors("weights", weights))
        self.architecture.check(weights)
        inputs = self.task.model_inputs
        inputs = inputs if rows is None else inputs[_rows(rows, self.task.n_inputs)]
        logits, _ = over_blocks(forward_of(weights, self.architecture), inputs)
        return self.task.of_answers(logits)

    def with_buffers(self, weights: Mapping[str, Tensor]) -> Weights:
        """Weights of this architecture with the buffers of this model, in their precision."""
        buffers = {x: self.state[x] for x in self.state.keys() - self.weights.keys()}
        first = next(iter((weights or buffers).values()), None)
        return {name: x.to(first) for name, x in buffers.items()} | dict(weights)

    def hooked(self) -> HookedModel:
        """The model, for hooks: the user's own, or one built from the weights. Do not change it."""
        if self._hooked is None:
            raise InputError("this snapshot has no model; make it with gi.snapshot(model, task).")
        return self._hooked()

    def compute(self) -> None:
        """Run the forward now: the logits, and the neurons of the last MLP where there is one."""
        with contextlib.suppress(InputError):
            _ = self.mlp_post
        _ = self.all_logits

    def memo(self, key: str, compute: Callable[[], T]) -> T:
        """What `compute()` returned the first time this key was asked for."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]  # type: ignore[return-value]

    def __repr__(self) -> str:
        at = "" if self.step is None else f" at step {self.step}"
        return f"Snapshot({self.task.title}{at})"

    def _repr_html_(self) -> str:
        about = f"{self.kind}, layers: {self.n_layers}"
        if "logits" not in self._memo:
            return card(repr(self), [about, "nothing is computed yet; .logits runs the model"])
        right = right_answers(self.logits, self.task.labels).double()
        seen = {"train": self.train_mask, "test": self.test_rows, "all": torch.ones_like(right) > 0}
        accuracies = [
            {"inputs": name, "n": int(rows.sum()), "accuracy": float(right[rows].mean())}
            for name, rows in seen.items()
            if rows is not None
        ]
        return card(repr(self), [about], pd.DataFrame(accuracies))

    def _run(
        self, rows: slice | Tensor, names: tuple[str, ...]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Logits and activations of some rows of the table."""
        return self._forward(self.task.model_inputs[rows], names)

    def _whole(self, names: tuple[str, ...] = ()) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The same of all rows."""
        return over_blocks(self._forward, self.task.model_inputs, names)

    def _blocks(
        self, names: tuple[str, ...]
    ) -> Iterator[tuple[slice, Tensor, Mapping[str, Tensor]]]:
        """Rows, logits and activations of all inputs in blocks; logits are kept where small."""
        n = self.task.n_inputs
        known = "logits" in self._memo and set(names) <= set(self._activations)
        whole = None
        for rows in row_blocks(n):
            if known:
                yield rows, self.all_logits[rows], {x: self._activations[x][rows] for x in names}
                continue
            logits, found = self._run(rows, names)
            if rows.start == 0 and n * logits.shape[1] <= KEPT_CELLS:
                whole = logits.new_empty(n, logits.shape[1])
            if whole is not None:
                whole[rows] = logits
            yield rows, logits, found
            del logits, found
        if whole is not None:
            self.memo("logits", lambda: whole)


def _rows(given: object, n: int) -> Tensor:
    """Rows of a table of n, given as a mask of all or as numbers."""
    found = None
    if isinstance(given, Tensor | np.ndarray | list | tuple):
        with contextlib.suppress(Exception):  # torch knows many ways to say that it is no tensor
            found = torch.as_tensor(given)
    if found is not None and found.ndim == 1:
        if found.dtype == torch.bool and len(found) == n:
            return found
        numbers = not (found.dtype.is_floating_point or found.dtype == torch.bool)
        if numbers and bool(((found >= 0) & (found < n)).all()):
            return found.long()
    raise InputError(
        f"rows={shown(given)} are no rows of the table; give a mask of {n} truth values, or "
        f"numbers from 0 to {n - 1}."
    )


def need_residual_stream(snapshot: Snapshot) -> None:
    """Refuse a model that has neither attention nor a residual stream."""
    if not snapshot.positions:
        raise InputError(
            f"this {snapshot.kind} has no attention and no residual stream; give a transformer, or "
            "use gi.ablate, which takes all models."
        )


def from_weights(
    weights: Weights,
    architecture: BaseArchitecture,
    task: Task,
    *,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    step: int | None = None,
) -> Snapshot:
    """A snapshot of canonical weights."""
    hooked = cache(partial(architecture.hooked, weights))
    return Snapshot(
        task,
        weights=weights,
        buffers=architecture.buffers,
        named=architecture.named,
        n_layers=architecture.n_layers,
        kind=architecture.kind,
        positions=architecture.positions,
        forward=forward_of(weights, architecture, hooked),
        hooked=hooked,
        architecture=architecture,
        linear_readout=architecture.linear_readout,
        train_mask=train_mask,
        step=step,
    )


def snapshot(
    model: AnyModel,
    task: Task,
    *,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    step: int | None = None,
) -> Snapshot:
    """Any model of the user's own, seen over a whole task; the model is not changed.

    A hooked one, or any torch.nn.Module from `task.model_inputs` to logits: the outputs of its
    named sub-modules are then the activations, under their names.

    `train_mask` says which rows `a*p + b` were trained on; without it, measures that need the split
    are null. The model has to fit the task: as many tokens and positions as its inputs have, and as
    many classes as answers (or one more for "=").

    A model inside torch.compile, DataParallel or AveragedModel is seen as if it were given itself,
    and a pruned or parametrized hooked one with the weights that it computes with; in evaluation
    (no dropout), whatever mode it is in. Weights and mask are copied: training may go on. Logits
    and neurons are those of the model as it is now; activations that are asked for later come from
    the model as it is then, unless it is a plain transformer. Several threads may look at one
    model.

    >>> import torch
    >>> import grokinterp as gi
    >>> net = torch.nn.Sequential(torch.nn.EmbeddingBag(6, 4), torch.nn.Linear(4, 5))
    >>> gi.snapshot(net, gi.ModularTask("add", p=5)).activation("0").shape
    torch.Size([25, 4])
    """
    check_task(task)
    hooked = hooked_model(model)
    if train_mask is not None:
        train_mask = mask("train_mask", train_mask, task.n_inputs).cpu()
    if step is not None:
        step = whole("step", step, least=0, such_as="100")
    with alone_with(hooked):
        try_on(hooked, task)
        architecture = architecture_of(hooked)
        # As they lie in memory in a run: a transposed matrix is multiplied with other roundings.
        weights = {name: weight.cpu().contiguous() for name, weight in weights_of(hooked).items()}
        theirs = partial(hooked_forward, hooked)
        if architecture is not None:
            ours = forward_of(weights, architecture)
            # Not where a module is replaced or hooked: then weights do not say what it computes.
            if agree(lambda x: ours(x, ())[0], lambda x: theirs(x, ())[0], task):
                weights = {name: weights[name] for name in architecture.parameter_shapes()}
                return from_weights(weights, architecture, task, train_mask=train_mask, step=step)
        cfg = configuration(hooked)
        seen = Snapshot(
            task,
            weights=weights,
            buffers=buffers_in(hooked.module) if isinstance(hooked, HookedModule) else (),
            named=not isinstance(hooked, HookedModule),
            n_layers=layers_of(hooked),
            kind=getattr(cfg, "kind", "transformer" if has_positions(hooked) else "module"),
            positions=has_positions(hooked),
            forward=theirs,
            hooked=lambda: hooked,
            linear_readout=getattr(cfg, "normalization_type", None) is None
            and getattr(cfg, "output_logits_soft_cap", -1.0) <= 0,
            train_mask=train_mask,
            step=step,
        )
        seen.compute()
        return seen
