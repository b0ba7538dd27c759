"""The kinds of model a run can hold, and what differs between them.

A transformer is a HookedTransformer or TransformerBridge (`adapter`), whose activations have a
position axis and whose answer is read at the last position. An MLP and a CNN are
HookedRootModules of this package, whose activations have none.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from grokinterp.errors import InputError, nearest
from grokinterp.models import adapter, answer_position, cnn_forward, mlp_forward
from grokinterp.models.adapter import HookedModel, configuration
from grokinterp.models.architecture import Architecture, Weights
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.effective import effective_state
from grokinterp.models.fits import misfit
from grokinterp.models.mlp import MLPArchitecture
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
    kind = values.get("kind", Architecture.kind)
    if kind not in KINDS:
        raise InputError(f"model kind {kind!r} is not known; {nearest(str(kind), KINDS)}")
    return KINDS[kind].from_dict(values)


def build_model(
    architecture: Shape, weights: Mapping[str, Tensor], *, device: str = "cpu"
) -> HookedModel:
    """A hooked model with these weights: of TransformerLens, or this package's MLP or CNN."""
    if isinstance(architecture, Architecture):
        return adapter.build_model(architecture, weights, device=device)
    from grokinterp.models import hooked  # when needed: it imports TransformerLens

    if isinstance(architecture, MLPArchitecture):
        return hooked.build_mlp(architecture, weights, device=device)
    return hooked.build_cnn(architecture, weights, device=device)


def architecture_of(model: HookedModel) -> Shape | None:
    """The architecture of a plain model, or None for one that none of the kinds describes."""
    if has_positions(model):
        return adapter.architecture_of(model)
    hooked = any(point.fwd_hooks for point in model.hook_dict.values())
    found: Shape = configuration(model)
    return None if hooked else found


def weights_of(model: HookedModel) -> Weights:
    """Detached copies of a model's weights under canonical names and shapes."""
    if has_positions(model):
        return adapter.canonical_weights(model)
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
        self._answers = None
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
        weights, architecture = self._weights, self._architecture
        if isinstance(architecture, MLPArchitecture):
            return mlp_forward.answer_logits(
                weights, inputs, architecture=architecture, cache=cache
            )
        if isinstance(architecture, CNNArchitecture):
            return cnn_forward.answer_logits(
                weights, inputs, architecture=architecture, cache=cache
            )
        assert self._answers is not None
        if not answer_position.applies_to(architecture, inputs.shape[1]):
            return None
        return self._answers(inputs, cache=cache, keep_pre=keep_pre)


def why_not(architecture: Any, task: Task) -> str | None:
    """Why a run cannot hold a model of this shape with this task; None where it can.

    A run of an earlier version may hold a transformer with more tokens, positions or classes than
    its task has. What is read or given now has to fit: see `grokinterp.models.fits`.
    """
    if isinstance(task, ModularTask) and isinstance(architecture, Architecture):
        if (
            architecture.d_vocab_out < task.n_classes
            or architecture.d_vocab < task.d_vocab
            or architecture.n_ctx < 2 + task.equals_token
        ):
            return misfit(architecture, task)
        return None
    return misfit(architecture, task)
