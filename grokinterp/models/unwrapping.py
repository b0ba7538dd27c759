"""Which model is meant: the one inside a wrapper; what is no model to look at, said in one line.

torch.compile(model)                           the model that was compiled
DataParallel, DistributedDataParallel          the model that each device has a copy of
torch.optim.swa_utils.AveragedModel            the averaged model
a module that holds one, such as Lightning's   refused: what it does besides, nobody can see from
                                               outside; the attribute that holds the model is named
"""

import sys
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from grokinterp.errors import InputError, named, shown
from grokinterp.models.adapter import HookedModel

AnyModel = HookedModel | torch.nn.Module  # what a user may give, wrapped or not
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MODELS = "a HookedTransformer, a TransformerBridge, or a HookedMLP or HookedCNN of this package"
SURFACE = ("run_with_cache", "run_with_hooks", "add_perma_hook")


def hooked_model(x: object, *, otherwise: str = f"is not a model; give {MODELS}") -> HookedModel:
    """The hooked model that is meant, itself or inside a wrapper; InputError where there is none.

    The wrapped model is the user's own object, not a copy, and nothing is changed. `otherwise` is
    what the InputError says of an x that is nothing like a model.
    """
    where = "model"
    while (inside := _inside(x)) is not None:
        name, x = inside
        where += f".{name}"
    if not _has_surface(x):
        raise InputError(_what_it_is(x, where, otherwise))
    assert isinstance(x, torch.nn.Module)
    if not isinstance(getattr(x, "hook_dict", None), Mapping):
        raise InputError(
            f"this {_name(x)} has no hook_dict: it was not set up; call self.setup() at the end of "
            "its __init__."
        )
    _refuse_unreadable(x)
    return cast(HookedModel, x)


def _inside(x: object) -> tuple[str, object] | None:
    """What a wrapper that changes nothing holds, and the name of the attribute."""
    # Whoever has compiled a model has imported this, which takes seconds.
    compiling = sys.modules.get("torch._dynamo.eval_frame")
    if compiling is not None and isinstance(x, compiling.OptimizedModule):
        return "_orig_mod", x._orig_mod
    if isinstance(x, DataParallel | DistributedDataParallel | AveragedModel):
        return "module", x.module
    return None


def _has_surface(x: object) -> bool:
    """Whether it is a module with hooks, as TransformerLens makes them.

    Its class says so: some wrappers have all the attributes of what they hold.
    """
    return isinstance(x, torch.nn.Module) and all(
        callable(getattr(type(x), name, None)) for name in SURFACE
    )


def _what_it_is(x: object, where: str, otherwise: str) -> str:
    """What was given in place of a hooked model, and what to give."""
    if isinstance(x, type):
        return f"{x.__name__} is a class, not a model; give an instance: {x.__name__}(...)."
    if isinstance(x, Mapping):
        if not any(isinstance(value, Tensor) for value in x.values()):
            return f"{named(x)} {otherwise}."
        return (
            "a state dict is weights alone, not a model; load it into one (model.load_state_dict) "
            "and give that, or open the file that it is from with gi.load(path)."
        )
    if isinstance(x, str) or hasattr(type(x), "__fspath__"):
        return f"{shown(x)} is a path, not a model; give gi.load(path), which opens a run."
    if isinstance(x, torch.jit.ScriptModule):
        return (
            "a torch.jit module has no hooks to look through; give the model that it was scripted "
            "or traced from."
        )
    if any(kind.__name__ == "FullyShardedDataParallel" for kind in type(x).__mro__):
        return (
            "the weights of a FullyShardedDataParallel model are in pieces; gather its full state "
            "dict, load it into an unwrapped model, and give that."
        )
    if held := _held(x):
        names = [f"{where}.{name}" for name in held]
        more = f" or {len(names) - 3} more" if len(names) > 3 else ""
        return (
            f"{_name(x)} is not a hooked model but holds {'one' if len(names) == 1 else 'several'};"
            f" give {' or '.join(names[:3])}{more}: what the {_name(x)} itself does with it, "
            "this cannot look into."
        )
    if isinstance(x, torch.nn.Module):
        return (
            f"{_name(x)} is a torch.nn.Module without hook points, which cannot be looked into; "
            f"give {MODELS}."
        )
    return f"{named(x)} {otherwise}."


def _held(x: object) -> list[str]:
    """The attributes that hold hooked models, the outermost only."""
    if isinstance(x, torch.nn.Module):
        within = [(name, part) for name, part in x.named_modules() if name]
    else:
        attributes = getattr(x, "__dict__", None)
        within = list(attributes.items()) if isinstance(attributes, dict) else []
    found: list[str] = []
    for name, part in within:
        if _has_surface(part) and not any(name.startswith(f"{other}.") for other in found):
            found.append(name)
    return found


def _refuse_unreadable(model: torch.nn.Module) -> None:
    """InputError where a weight has no numbers that can be computed with."""
    for name, weight in model.named_parameters():
        if is_lazy(weight):
            raise InputError(
                f"the weight {name!r} has no shape yet; run the model once, then give it."
            )
        if type(weight.data).__module__.startswith("torch.distributed"):
            raise InputError(
                f"the weight {name!r} is in pieces over several processes; gather the full state "
                "dict, load it into an unwrapped model, and give that."
            )
        if weight.device.type == "meta":
            raise InputError(
                f"the weight {name!r} is on the meta device, which holds no numbers; load weights "
                "into the model (model.to_empty, load_state_dict), then give it."
            )
        if weight.dtype not in PRECISIONS or weight.layout != torch.strided:
            raise InputError(
                f"the weight {name!r} is {weight.dtype} ({weight.layout}); give the model with "
                "dense weights of float16, bfloat16, float32 or float64, such as model.float()."
            )
    for name, part in model.named_modules():
        if type(part).__module__.startswith(("torch.ao.nn", "torch.nn.quantized")):
            raise InputError(
                f"{name!r} of the model is quantized ({_name(part)}); give the model as it was "
                "before it was quantized."
            )


def _name(x: object) -> str:
    return type(x).__name__
