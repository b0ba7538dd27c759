"""With which weights a module computes, where it makes them of others at every forward.

pruned          W = W_orig * W_mask             torch.nn.utils.prune
parametrized    W = f(original)                 torch.nn.utils.parametrize, and on it
                                                parametrizations.weight_norm, .spectral_norm, ...
older norms     W = g v / |v|, W_orig / sigma   torch.nn.utils.weight_norm, .spectral_norm

What lies in the module under the weight's own name may be older than the last update of what it is
made of: it is made anew here. That a weight is pruned, its numbers do not show: a zero is a zero.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from grokinterp.errors import InputError

# Modules that do what the one inside them does, and stand in the names of its weights.
BETWEEN = ("_orig_mod.", "_checkpoint_wrapped_module.")


class Made(NamedTuple):
    """A weight that is made of others: its name, theirs, and how."""

    key: str
    sources: tuple[str, ...]
    make: Callable[[], Tensor]


def effective_state(module: torch.nn.Module) -> dict[str, Tensor]:
    """The state dict with the weights that the module computes with, differentiable in their parts.

    >>> from torch.nn.utils import prune
    >>> linear = torch.nn.Linear(2, 1, bias=False)
    >>> _ = prune.l1_unstructured(linear, "weight", amount=1)
    >>> list(linear.state_dict()), list(effective_state(linear))
    (['weight_orig', 'weight_mask'], ['weight'])
    """
    state: dict[str, Tensor] = module.state_dict(keep_vars=True)
    for made in _made(module):
        if missing := [source for source in made.sources if source not in state]:
            raise InputError(
                f"the weight {made.key!r} is pruned or parametrized, and its part {missing[0]!r} "
                f"is not in the state dict of this {type(module).__name__}; make it a plain weight "
                "first: torch.nn.utils.prune.remove or parametrize.remove_parametrizations."
            )
        for source in made.sources:
            del state[source]
        state[made.key] = made.make()
    for key in [key for key in state if any(part in key for part in BETWEEN)]:
        name = key
        for part in BETWEEN:
            name = name.replace(part, "")
        state[name] = state.pop(key)
    return state


def _made(module: torch.nn.Module) -> Iterator[Made]:
    """Every such weight of a module and of the modules in it."""
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for name, parts, make in _made_here(part):
            yield Made(prefix + name, tuple(prefix + each for each in parts), make)


def _made_here(part: torch.nn.Module) -> Iterator[tuple[str, list[str], Callable[[], Tensor]]]:
    """Name, parts and maker of each such weight of one module."""
    if parametrize.is_parametrized(part):
        for name, steps in dict(part.parametrizations.items()).items():  # type: ignore
            keys = [f"parametrizations.{name}.{key}" for key in steps.state_dict()]
            yield name, keys, partial(getattr, part, name)
    for hook in part._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            name = hook._tensor_name
            yield name, [f"{name}_orig", f"{name}_mask"], partial(hook.apply_mask, part)
        elif isinstance(hook, WeightNorm):
            keys = [f"{hook.name}_g", f"{hook.name}_v"]
            yield hook.name, keys, partial(hook.compute_weight, part)
        elif isinstance(hook, SpectralNorm):
            keys = [f"{hook.name}_{x}" for x in ("orig", "u", "v")]
            yield hook.name, keys, partial(hook.compute_weight, part, do_power_iteration=False)
