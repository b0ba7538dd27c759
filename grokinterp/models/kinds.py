"""Which architecture has a hooked model that is given, and what are its weights?

Activations of a transformer have an axis of positions, and its answer is read at the last one.
Those of an MLP, a CNN and a plain module have none, as these say.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from grokinterp.models import transformer_lens_adapter
from grokinterp.models.architecture import MODELS, BaseArchitecture, Weights
from grokinterp.models.hooked_module import HookedModule, weights_in
from grokinterp.models.module import GivenModule
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.models.user_models import HookedModel, configuration, effective_state
from grokinterp.tasks.task import Task


def shape_from_dict(values: Mapping[str, Any], task: Task) -> BaseArchitecture:
    """The architecture that `to_dict` of one describes, on its task; a transformer has no kind."""
    name = values.get("kind", "transformer")
    kind = GivenModule if name == GivenModule.kind else MODELS.find(name)
    return kind.from_dict(values).for_task(task)


def architecture_of(model: HookedModel) -> BaseArchitecture | None:
    """The architecture of a plain model, or None for one that none of the kinds describes."""
    if has_positions(model):
        return TransformerArchitecture.of_model(model)
    if any(point.fwd_hooks for point in model.hook_dict.values()):
        return None
    known: BaseArchitecture | None = configuration(model)
    if known is None and isinstance(model, HookedModule):
        return GivenModule.of_module(model.module)
    return known


def weights_of(model: HookedModel) -> Weights:
    """Detached copies of a model's weights under canonical names and shapes."""
    if has_positions(model):
        return transformer_lens_adapter.canonical_weights(model)
    assert isinstance(model, torch.nn.Module)
    state = weights_in(model.module) if isinstance(model, HookedModule) else effective_state(model)
    return {name: weight.detach().clone() for name, weight in state.items()}


def has_positions(model: HookedModel) -> bool:
    """Whether activations have a position axis, the last being that of the answer."""
    said = getattr(configuration(model), "positions", None)
    said = getattr(model, "positions", True) if said is None else said
    return said is not False


def layers_of(model: HookedModel) -> int:
    """How many layers a hooked model has: what its configuration says, else its hook points."""
    said = getattr(configuration(model), "n_layers", getattr(model, "n_layers", None))
    if isinstance(said, int):
        return said
    names = (re.match(r"blocks\.(\d+)\.", name) for name in model.hook_dict)
    return max((int(name[1]) + 1 for name in names if name), default=0)
