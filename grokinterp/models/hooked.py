"""A network of this package as a TransformerLens module: hooks, caches, names as it has them.

An MLP, a CNN, and a transformer that is none of TransformerLens' own.

This module imports TransformerLens, which takes seconds: import it where such a model is built.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from grokinterp.models.user_models import effective_state


class HookedNetwork(HookedRootModule):
    """Parameters and hook points under their canonical names; `cfg` is the architecture."""

    def __init__(self, cfg: Any, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        cfg.check(weights)
        self.cfg = cfg
        for name in cfg.parameter_shapes():
            owner, leaf = self._owner(name)
            owner.register_parameter(leaf, torch.nn.Parameter(weights[name].detach().clone()))
        for name in cfg.hook_names():
            owner, leaf = self._owner(name)
            owner.add_module(leaf, HookPoint())
        self.setup()

    def _owner(self, name: str) -> tuple[torch.nn.Module, str]:
        """The module that holds what has this dotted name, made where there is none; last part."""
        *path, leaf = name.split(".")
        module: torch.nn.Module = self
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = module.get_submodule(part)
        return module, leaf

    def forward(self, inputs: Tensor) -> Float[Tensor, "batch ... n_classes"]:
        """Logits, with every activation at its hook point."""
        weights = effective_state(self)  # where a part is pruned, it is made of others
        logits: Tensor = self.cfg.forward(weights, inputs, visit=self._visit)
        return logits

    def _visit(self, name: str, activation: Tensor) -> Tensor:
        found: Tensor = self.hook_dict[name](activation)
        return found
