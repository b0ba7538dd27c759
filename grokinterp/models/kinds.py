"""Which kinds of model can a run hold, what differs between them, and do they fit a task?

A transformer is a HookedTransformer or TransformerBridge, whose activations have a
position axis and whose answer is read at the last position. An MLP and a CNN are
HookedRootModules of this package, whose activations have none.

A transformer fits a task when it has as many tokens as the inputs are made of, as many positions as
they are long, and as many classes as there are answers, or one more for each further token:

[a, b, =]   p + 1 tokens, 3 positions, p classes or p + 1 (the papers' "=" class: 114 at p = 113)
[a, b]      p tokens, 2 positions, p classes

A network with more of any of these was trained on other inputs, and answers these with numbers
that look like results. That sizes fit is no proof: no size says which token is which.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError
from grokinterp.models import answer_position, cnn, mlp, transformer_lens_adapter
from grokinterp.models.architecture import Architecture, Weights
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.layers import recorder
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.models.user_models import HookedModel, configuration, effective_state
from grokinterp.tasks.ising import IsingTask
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import Task

Shape = Architecture | MLPArchitecture | CNNArchitecture
KINDS: dict[str, type[Shape]] = {
    kind.kind: kind for kind in (Architecture, MLPArchitecture, CNNArchitecture)
}


def shape_to_dict(architecture: Shape) -> dict[str, Any]:
    """What `shape_from_dict` reads; a transformer's has no "kind"."""
    kind = {} if isinstance(architecture, Architecture) else {"kind": architecture.kind}
    return kind | asdict(architecture)


def shape_from_dict(values: Mapping[str, Any]) -> Shape:
    """The architecture of a run.json."""
    kind = word("kind", values.get("kind", Architecture.kind), KINDS)
    return KINDS[kind].from_dict(values)


def build_model(
    architecture: Shape, weights: Mapping[str, Tensor], *, device: str = "cpu"
) -> HookedModel:
    """A hooked model with copies of these weights, in their precision, for evaluation.

    It is one of TransformerLens, or this package's HookedMLP or HookedCNN.
    """
    if isinstance(architecture, Architecture):
        return transformer_lens_adapter.build_model(architecture, weights, device=device)
    from grokinterp.models import hooked

    mlp = isinstance(architecture, MLPArchitecture)
    kind = hooked.HookedMLP if mlp else hooked.HookedCNN
    return kind(architecture, weights).to(device).eval()


def architecture_of(model: HookedModel) -> Shape | None:
    """The architecture of a plain model, or None for one that none of the kinds describes."""
    if has_positions(model):
        return transformer_lens_adapter.architecture_of(model)
    hooked = any(point.fwd_hooks for point in model.hook_dict.values())
    found: Shape = configuration(model)
    return None if hooked else found


def weights_of(model: HookedModel) -> Weights:
    """Detached copies of a model's weights under canonical names and shapes."""
    if has_positions(model):
        return transformer_lens_adapter.canonical_weights(model)
    assert isinstance(model, torch.nn.Module)
    state = effective_state(model)
    return {name: weight.detach().clone() for name, weight in state.items()}


def has_positions(model: HookedModel) -> bool:
    """Whether activations have a position axis, the last being that of the answer."""
    return not isinstance(configuration(model), MLPArchitecture | CNNArchitecture)


def layers_of(model: HookedModel) -> int:
    """How many layers a hooked model has: what its configuration says, else its hook points."""
    said = getattr(configuration(model), "n_layers", None)
    if isinstance(said, int):
        return said
    names = (re.match(r"blocks\.(\d+)\.", name) for name in model.hook_dict)
    return max((int(name[1]) + 1 for name in names if name), default=0)


class QuickForward:
    """The forward of fixed weights without a hooked model, on as many blocks of inputs as wanted.

    Differentiable in the weights.
    """

    def __init__(self, architecture: Shape, weights: Weights) -> None:
        self._architecture, self._weights = architecture, weights
        if isinstance(architecture, Architecture):
            self._answers = answer_position.AnswerForward(
                weights, act_fn=architecture.act_fn, attention_rate=architecture.attention_rate
            )

    def __call__(
        self, inputs: Tensor, cache: dict[str, Tensor] | None = None, *, keep_pre: bool = True
    ) -> Tensor | None:
        """Answer logits, [n, n_classes]; None where only a hooked model gives them.

        Fills `cache` with the activations it comes by, under their hook names; without `keep_pre`
        it may leave out pre-activations, which is faster.
        """
        weights, architecture, visit = self._weights, self._architecture, recorder(cache)
        if isinstance(architecture, MLPArchitecture):
            return mlp.answer_logits(weights, inputs, architecture=architecture, visit=visit)
        if isinstance(architecture, CNNArchitecture):
            return cnn.answer_logits(weights, inputs, architecture=architecture, visit=visit)
        if not answer_position.applies_to(architecture, inputs.shape[-1]):
            return None
        return self._answers(inputs, cache=cache, keep_pre=keep_pre)


class NetworkSizes(NamedTuple):
    """How many tokens, positions and classes a transformer has."""

    d_vocab: int
    n_ctx: int
    d_vocab_out: int

    @classmethod
    def of(cls, architecture: Any) -> "NetworkSizes":
        """Those of an architecture, or of a configuration."""
        return cls(architecture.d_vocab, architecture.n_ctx, architecture.d_vocab_out)

    def __str__(self) -> str:
        return f"{self.d_vocab} tokens, {self.n_ctx} positions and {self.d_vocab_out} classes"

    @property
    def inputs(self) -> tuple[int, bool] | None:
        """The p, and whether "=" follows the operands, where these are the sizes of such inputs.

        >>> NetworkSizes(114, 3, 113).inputs, NetworkSizes(9, 4, 7).inputs
        ((113, True), None)
        """
        equals = self.n_ctx == 3
        p = self.d_vocab - equals
        fits = self.n_ctx in (2, 3) and p >= 2 and self.d_vocab_out in (p, p + equals)
        return (p, equals) if fits else None

    @property
    def guess(self) -> str:
        """What such inputs may have been, where they are none that can be read."""
        p = self.d_vocab_out
        if self.n_ctx in (2, 3) and p > 2 and self.d_vocab in (2 * p, 2 * p + 1):
            return f"operands with tokens of their own (b from {p} on) are not supported"
        return "longer sequences, further tokens and longer contexts are not supported"


def misfit(architecture: Any, task: Task) -> str | None:
    """Why a model of this shape was not trained on the task, with both sizes; None where it fits.

    `architecture` is one of this package's, or the configuration of a transformer of the user's
    own.

    >>> misfit(MLPArchitecture(p=7, widths=(8,), n_classes=7), ModularTask("add", 7, False))
    >>> misfit(MLPArchitecture(p=7, widths=(8,), n_classes=7), ModularTask("add", 5, False))
    'the MLP reads 2 operands of 7 tokens and has 7 classes; add mod 5 has 2 of 5 and 5 classes'
    """
    if isinstance(architecture, CNNArchitecture):
        side, n_classes = architecture.lattice, architecture.n_classes
        if not isinstance(task, IsingTask):
            return f"the CNN reads lattices of side {side}, the task is {task.title}"
        if (side, n_classes) == (task.lattice, task.n_classes):
            return None
        return (
            f"the CNN reads lattices of side {side} and has {n_classes} classes; "
            f"{task.title} has side {task.lattice} and {task.n_classes} classes"
        )
    if not isinstance(task, ModularTask):
        kind = getattr(architecture, "kind", Architecture.kind)
        return f"the {kind} reads operand tokens, the task is {task.title}"
    if isinstance(architecture, MLPArchitecture):
        p, n_classes = architecture.p, architecture.n_classes
        if task.equals_token:
            return (
                f"the MLP reads 2 operands of {p} tokens, the task is {task.title} with a third, "
                'the "=" token; give equals_token=False'
            )
        if (p, n_classes) == (task.p, task.n_classes):
            return None
        return (
            f"the MLP reads 2 operands of {p} tokens and has {n_classes} classes; "
            f"{task.title} has 2 of {task.p} and {task.n_classes} classes"
        )
    return _transformer_misfit(NetworkSizes.of(architecture), task, "the model")


def why_not(architecture: Any, task: Task) -> str | None:
    """Why a run cannot hold a model of this shape with this task; None where it can.

    A run of an earlier version may hold a transformer with more tokens, positions or classes than
    its task has. What is read or given now has to fit: see `misfit`.
    """
    if isinstance(task, ModularTask) and isinstance(architecture, Architecture):
        sizes = NetworkSizes.of(architecture)
        least = NetworkSizes(task.d_vocab, 2 + task.equals_token, task.n_classes)
        if all(size >= enough for size, enough in zip(sizes, least, strict=True)):
            return None
    return misfit(architecture, task)


def refuse_unfit(architecture: Any, task: Task) -> None:
    """InputError where a model of this shape does not fit the task; see `misfit`."""
    own = isinstance(architecture, CNNArchitecture | MLPArchitecture)
    if isinstance(task, ModularTask) and not own:
        refuse_misfit(task, NetworkSizes.of(architecture))
    elif reason := misfit(architecture, task):
        raise InputError(f"{reason}; give the task it was trained on.")


def refuse_misfit(task: ModularTask, sizes: NetworkSizes, *, what: str = "the model") -> None:
    """InputError, naming both sizes, where a transformer of these sizes does not fit the task.

    `what` is what the network is called in the message, such as the name of its file.

    >>> refuse_misfit(ModularTask("add", 113), NetworkSizes(114, 3, 114))
    >>> refuse_misfit(ModularTask("add", 101), NetworkSizes(114, 3, 113))
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: the model has 114 tokens, 3 positions and 113 classes;
    add mod 101 read as [a, b, =] has 102 tokens, 3 positions and 101 or 102 classes; give the task
    it was trained on: p=113.
    """
    reason = _transformer_misfit(sizes, task, what)
    if reason is None:
        return
    if sizes.inputs is None:
        raise InputError(f"{reason}; {sizes.guess}.")
    p, equals = sizes.inputs
    changed = [f"p={p}"] if p != task.p else []
    if equals != task.equals_token:
        changed.append(f"equals_token={equals}")
    raise InputError(f"{reason}; give the task it was trained on: {', '.join(changed)}.")


def _transformer_misfit(sizes: NetworkSizes, task: ModularTask, what: str) -> str | None:
    p, equals = task.p, task.equals_token
    if sizes in [NetworkSizes(task.d_vocab, 2 + equals, p + more) for more in range(1 + equals)]:
        return None
    layout, classes = ("[a, b, =]", f"{p} or {p + 1}") if equals else ("[a, b]", str(p))
    return (
        f"{what} has {sizes}; {task.title} read as {layout} has {task.d_vocab} tokens, "
        f"{2 + equals} positions and {classes} classes"
    )


def fitting_task(
    sizes: NetworkSizes,
    *,
    operation: str = "add",
    p: int | None = None,
    equals_token: bool | None = None,
    seed: int = 0,
    what: str = "the model",
) -> ModularTask:
    """The task of a transformer of these sizes, or InputError where they fit none.

    `p` and `equals_token` are what somebody says; what nobody says follows from the sizes.

    >>> fitting_task(NetworkSizes(59, 2, 59))
    ModularTask(operation='add', p=59, equals_token=False, seed=0)
    """
    found_p, found_equals = sizes.inputs or (p, sizes.n_ctx > 2)
    if found_p is None:
        raise InputError(
            f"{what} has {sizes}, which fit no p: [a, b, =] has p + 1 tokens, 3 positions and p or "
            f"p + 1 classes, [a, b] has p tokens, 2 positions and p classes; {sizes.guess}."
        )
    equals = found_equals if equals_token is None else equals_token
    task = ModularTask(operation, found_p if p is None else p, equals, seed=seed)
    refuse_misfit(task, sizes, what=what)
    return task
