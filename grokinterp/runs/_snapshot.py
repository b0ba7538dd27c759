"""Snapshot: one model at one step, seen over its whole task."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import tensors
from grokinterp.base.errors import InputError, shown
from grokinterp.base.result import card
from grokinterp.models.architecture import Architecture, Weights
from grokinterp.models.cross_entropy import right_answers
from grokinterp.models.kinds import QuickForward, Shape, build_model, has_positions
from grokinterp.models.user_models import HookedModel, alone_with
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import Task, unmirrored_rows

# MERGED runs.forward: Forwards of a model on some inputs: its answer logits, and activations by hook name.
# MERGED runs.tally: What is counted over a whole table block by block, so that no table of logits has to be kept.
#
#     class Mean:
#         needs = ()
#
#         def __init__(self, snapshot):
#             self.sum = 0.0
#
#         def add(self, block):
#             self.sum += block.logits.double().sum()
#
#     snapshot.tally(Mean).sum
#
# At p = 1009 the logits of one checkpoint are 4 GB; a tally of them is as large as what it counts.


Forward = Callable[[Tensor, tuple[str, ...]], tuple[Tensor, Mapping[str, Tensor]]]


def forward_of(
    weights: Weights,
    architecture: Shape,
    hooked: Callable[[], HookedModel] | None = None,
) -> Forward:
    """The forward of canonical weights: without a hooked model where that suffices."""
    # Built when first needed: that imports TransformerLens.
    hooked = hooked or cache(partial(build_model, architecture, weights))
    quick = QuickForward(architecture, weights)

    def forward(inputs: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Mapping[str, Tensor]]:
        found: dict[str, Tensor] = {}
        keep_pre = any(name.endswith("hook_pre") for name in names)
        logits = quick(inputs, found if names else None, keep_pre=keep_pre)
        if logits is not None and set(names) <= set(found):
            return logits, {name: found[name] for name in names}
        return hooked_forward(hooked(), inputs, names)

    return forward


def hooked_forward(
    model: HookedModel, inputs: Tensor, names: tuple[str, ...]
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The forward of a hooked model, of a transformer at the answer position."""
    device = device_of(model)
    if unknown := sorted(set(names) - set(model.hook_dict)):
        raise InputError(f"the model has no activation {unknown[0]!r} (model.hook_dict lists all).")
    with alone_with(model):
        if names:
            logits, cache = model.run_with_cache(inputs.to(device), names_filter=list(names))
        else:
            logits, cache = model(inputs.to(device)), {}
    at = answer if has_positions(model) else lambda x, name="": x
    return at(logits).cpu(), {name: at(cache[name], name).cpu() for name in names}


def device_of(model: HookedModel) -> torch.device:
    """Where a model computes: where its first weight lies."""
    first = next(iter(model.parameters()), None)
    return torch.device("cpu") if first is None else first.device


def answer(x: Tensor, name: str = "") -> Tensor:
    """A transformer's activation or logits at the answer position, the last."""
    is_attention = name.endswith(("hook_pattern", "hook_attn_scores"))
    return x[:, :, -1] if is_attention else x[:, -1]


def agree(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], task: Task) -> bool:
    """Whether two forwards give the same logits, within float32, on a sample of the inputs.

    NaN is the same as NaN: a diverged model is what it was, and its measures say what it is.
    """
    inputs = task.model_inputs[:: max(1, task.n_inputs // 64)]
    with torch.no_grad():
        found, expected = ours(inputs), theirs(inputs)
    other = (found != expected) & ~(found.isnan() & expected.isnan())
    size = expected[expected.isfinite()].norm()
    return bool((found - expected)[other].norm() <= 1e-3 * size)


@dataclass(frozen=True)
class Block:
    """Some consecutive inputs of a task, and what a model makes of them."""

    rows: slice
    logits: Float[Tensor, "rows n_classes"]  # of the answer classes
    labels: Int[Tensor, " rows"]
    activations: Mapping[str, Tensor]  # at the hook names that a tally needs


@runtime_checkable
class Tally(Protocol):
    """Made with a snapshot, then shown every block of its table once, in order."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Hook names of the activations it looks at."""

    def add(self, block: Block) -> None:
        """Count a block; what it holds is overwritten afterwards."""


BLOCK_ROWS = 2048  # inputs a forward sees at once: intermediate results stay in the cache
KEPT_CELLS = 2**26  # of a table that is kept for another look: 256 MB; p up to 400
T = TypeVar("T")
AnyTally = TypeVar("AnyTally", bound=Tally)


class Snapshot:
    """A model's answers and activations at the answer position, over all inputs of its task.

    Everything is computed when first asked for, at most once. Rows are in table order (`a*p + b`).
    `logits` and `activation` are whole tables; what fits into no memory is looked at in blocks
    (`tally`, `logit_blocks`, `activation_parts`), where only tables of at most 2^26 cells are kept.
    Build one with `run.snapshot(step)` or `gi.snapshot(model, task)`.
    """

    def __init__(
        self,
        task: Task,
        *,
        weights: Weights,
        n_layers: int,
        forward: Forward,
        kind: str = "transformer",
        hooked: Callable[[], HookedModel] | None = None,
        architecture: Shape | None = None,
        linear_readout: bool = True,
        train_mask: Bool[Tensor, " n_inputs"] | None = None,
        step: int | None = None,
    ) -> None:
        self.task = task
        self.weights = weights
        self.n_layers = n_layers
        self.kind = kind  # "transformer", "mlp" or "cnn"
        self.architecture = architecture  # None: `weights` alone do not say what it computes
        self.linear_readout = linear_readout  # the unembedding reads the last residual as it is
        self.train_mask = None if train_mask is None else train_mask.clone()
        self.step = step
        self._forward = forward
        self._hooked = hooked
        self._activations: dict[str, Tensor] = {}
        self._memo: dict[object, object] = {}

    @property
    def modular_task(self) -> ModularTask:
        """The task, where it is one of modular arithmetic; refused for another."""
        if not isinstance(self.task, ModularTask):
            raise InputError(
                f"{self.task.title} has no operand tokens; this looks at modular arithmetic."
            )
        return self.task

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
        train = self.train_mask
        if train is None or bool(train.all()):
            return None
        return unmirrored_rows(self.task, train)

    @property
    def transformer(self) -> Architecture | None:
        """The architecture, where it is a transformer's and the weights say what it computes."""
        return self.architecture if isinstance(self.architecture, Architecture) else None

    @property
    def logits(self) -> Float[Tensor, "n_inputs n_classes"]:
        """Logits of the answer classes on every input (the "=" class is left out)."""
        return self.all_logits[:, : self.task.n_classes]

    @property
    def all_logits(self) -> Float[Tensor, "n_inputs d_vocab_out"]:
        """Logits as the training softmax saw them, with the "=" class where the model has one."""
        return self.memo("logits", lambda: over_blocks(self._forward, self.task.model_inputs)[0])

    @property
    def mlp_post(self) -> Float[Tensor, "n_inputs d_mlp"]:
        """Activations of the last MLP's neurons after the nonlinearity."""
        return self.activation(self.mlp_post_name)

    @property
    def mlp_post_name(self) -> str:
        """Hook name of the last MLP's neurons after the nonlinearity."""
        return f"blocks.{self.n_layers - 1}.mlp.hook_post"

    def activation(self, name: str) -> Float[Tensor, "n_inputs ..."]:
        """The activation at a hook name, of a transformer at the answer position.

        [n_inputs, ...] without the position axis; attention patterns and scores are
        [n_inputs, n_heads, key position].
        """
        if not isinstance(name, str):
            raise InputError(
                f"{shown(name)} is not the name of a hook point; give such as "
                f"{self.mlp_post_name!r}."
            )
        self.gather(name)
        return self._activations[name]

    def gather(self, *names: str) -> None:
        """Compute several activations in one forward, for `activation` to return."""
        missing = tuple(name for name in names if name not in self._activations)
        if missing:
            logits, found = over_blocks(self._forward, self.task.model_inputs, missing)
            self.memo("logits", lambda: logits)
            self._activations |= found

    def tally(self, kind: Callable[["Snapshot"], AnyTally]) -> AnyTally:
        """What a kind of `Tally` counted over the whole table."""
        self.tally_all(kind)
        return self._memo[kind]  # type: ignore[return-value]

    def tally_all(self, *kinds: Callable[["Snapshot"], Tally]) -> None:
        """Count all of these that are not known yet in one forward, for `tally` to return."""
        for kind in kinds:
            if not callable(kind):
                raise InputError(f"{shown(kind)} is no kind of tally; give a class of `Tally`.")
        missing = {kind: kind(self) for kind in kinds if kind not in self._memo}
        if not missing:
            return
        names = tuple({name for tally in missing.values() for name in tally.needs})
        n_classes, labels = self.task.n_classes, self.task.labels
        first = 0
        for logits, found in self._blocks(names):
            rows = slice(first, first + len(logits))
            block = Block(rows, logits[:, :n_classes], labels[rows], found)
            for tally in missing.values():
                tally.add(block)
            first = rows.stop
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
                with torch.no_grad():
                    logits, _ = self._forward(self.task.model_inputs[some], ())
                yield some, logits[:, : self.task.n_classes]

    def activation_parts(self, name: str) -> Iterator[Float[Tensor, "n_inputs some"]]:
        """An activation [n_inputs, width] whose columns come in parts; in one where it is small.

        Every part of a large one is a forward of its own.
        """
        n = self.task.n_inputs
        with torch.no_grad():
            _, found = self._forward(self.task.model_inputs[:1], (name,))
        width = found[name].shape[1]
        if name in self._activations or n * width <= KEPT_CELLS:
            yield self.activation(name)
            return
        step = max(1, KEPT_CELLS // n)
        for first in range(0, width, step):
            part = torch.empty(n, min(step, width - first), dtype=found[name].dtype)
            row = 0
            for inputs in self.task.model_inputs.split(BLOCK_ROWS):
                with torch.no_grad():
                    _, found = self._forward(inputs, (name,))
                block = found[name][:, first : first + step]
                part[row : row + len(block)] = block
                row += len(block)
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
        self.architecture.check(tensors("weights", weights))
        inputs = self.task.model_inputs
        inputs = inputs if rows is None else inputs[_rows(rows, self.task.n_inputs)]
        logits, _ = over_blocks(forward_of(dict(weights), self.architecture), inputs)
        return logits[:, : self.task.n_classes]

    def hooked(self) -> HookedModel:
        """The model, for hooks: the user's own, or one built from the weights. Leave it so."""
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
        rows = {"train": self.train_mask, "test": self.test_rows, "all": None}
        right = right_answers(self.logits, self.task.labels).double()
        seen = {
            name: right if mask is None else right[mask]
            for name, mask in rows.items()
            if mask is not None or name == "all"
        }
        accuracies = [
            {"inputs": name, "n": len(each), "accuracy": float(each.mean())}
            for name, each in seen.items()
        ]
        return card(repr(self), [about], pd.DataFrame(accuracies))

    def _blocks(self, names: tuple[str, ...]) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
        """Logits and activations of all inputs, block by block; logits are kept where small."""
        if "logits" in self._memo and set(names) <= set(self._activations):
            kept = {name: self._activations[name].split(BLOCK_ROWS) for name in names}
            for place, logits in enumerate(self.all_logits.split(BLOCK_ROWS)):
                yield logits, {name: parts[place] for name, parts in kept.items()}
            return
        whole, first = None, 0
        for inputs in self.task.model_inputs.split(BLOCK_ROWS):
            with torch.no_grad():
                logits, found = self._forward(inputs, names)
            if first == 0 and self.task.n_inputs * logits.shape[1] <= KEPT_CELLS:
                whole = logits.new_empty(self.task.n_inputs, logits.shape[1])
            if whole is not None:
                whole[first : first + len(logits)] = logits
            first += len(logits)
            yield logits, found
            del logits, found
        if whole is not None:
            self.memo("logits", lambda: whole)


def _rows(given: object, n: int) -> Tensor:
    """Rows of a table of n: a mask of them all, or numbers of some."""
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


def over_blocks(
    forward: Forward, inputs: Tensor, names: tuple[str, ...] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and activations of all these inputs, computed a block at a time."""
    whole: dict[str, Tensor] = {}
    first = 0
    for block in inputs.split(BLOCK_ROWS):
        with torch.no_grad():
            logits, found = forward(block, names)
        for name, part in {"logits": logits, **{n: found[n] for n in names}}.items():
            if name not in whole:
                whole[name] = part.new_empty(len(inputs), *part.shape[1:])
            whole[name][first : first + len(block)] = part
        first += len(block)
    return whole.pop("logits"), whole


def need_residual_stream(snapshot: Snapshot) -> None:
    """Refuse a model that has neither attention nor a residual stream."""
    if snapshot.kind != "transformer":
        raise InputError(
            f"this {snapshot.kind} has no attention and no residual stream; give a transformer, or "
            "use gi.ablate, which takes all models."
        )
