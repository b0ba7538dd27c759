"""Which hooked model does a user mean, what are its weights, and how is one alone with it?

The model inside a wrapper is meant where the wrapper changes nothing: torch.compile, DataParallel,
DistributedDataParallel, AveragedModel. A module that holds one, such as Lightning's, is refused,
since nobody can see from outside what it does besides; the attribute with the model is named.

Some weights are made of others at every forward:

pruned          W = W_orig * W_mask             torch.nn.utils.prune
parametrized    W = f(original)                 torch.nn.utils.parametrize, and on it
                                                parametrizations.weight_norm, .spectral_norm, ...
older norms     W = g v / |v|, W_orig / sigma   torch.nn.utils.weight_norm, .spectral_norm

What lies in the module under the weight's own name may be older than the last update of its parts:
it is made anew here. Its numbers do not show that a weight is pruned: a zero is a zero.

TransformerLens puts hooks into the model itself, for `run_with_cache` too, and takes all of them
out after a run. Two threads with one model would see each other's hooks, lose their own, and leave
some behind: so one thread at a time has it, in evaluation and as it was written, since what
torch.compile made of it knows no hooks.
"""

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim.swa_utils import AveragedModel

from grokinterp.base.errors import InputError, named, shown
from grokinterp.models.hooked_module import HookedModule


@runtime_checkable
class HookedModel(Protocol):
    """What this package asks of a model: the surface TransformerLens 3 and 4 share.

    Both have a configuration `cfg` too, which a user's own module need not: `configuration`.
    """

    hook_dict: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def state_dict(self, *args: Any, **kwargs: Any) -> Any: ...
    def parameters(self, recurse: bool = True) -> Any: ...
    def add_perma_hook(self, *args: Any, **kwargs: Any) -> Any: ...
    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any: ...
    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any: ...


def configuration(model: HookedModel) -> Any:
    """What the model says of its sizes and kind; None where it says nothing."""
    return getattr(model, "cfg", None)


# Modules that do what the one inside them does, and stand in the names of its weights.
BETWEEN = re.compile(r"_orig_mod\.|_checkpoint_wrapped_module\.")
GATHER = "gather the full state dict, load it into an unwrapped model, and give that"


def effective_state(module: torch.nn.Module) -> dict[str, Tensor]:
    """The state dict with the weights that the module computes with, differentiable in their parts.

    >>> from torch.nn.utils import prune
    >>> linear = torch.nn.Linear(2, 1, bias=False)
    >>> _ = prune.l1_unstructured(linear, "weight", amount=1)
    >>> list(linear.state_dict()), list(effective_state(linear))
    (['weight_orig', 'weight_mask'], ['weight'])
    """
    state: dict[str, Tensor] = module.state_dict(keep_vars=True)
    for key, sources, make in _made(module):
        if missing := [source for source in sources if source not in state]:
            raise InputError(
                f"the weight {key!r} is pruned or parametrized, and its part {missing[0]!r} "
                f"is not in the state dict of this {type(module).__name__}; make it a plain weight "
                "first: torch.nn.utils.prune.remove or parametrize.remove_parametrizations."
            )
        for source in sources:
            del state[source]
        state[key] = make()
    return {BETWEEN.sub("", key): weight for key, weight in state.items()}


def _made(module: torch.nn.Module) -> Iterator[tuple[str, list[str], Callable[[], Tensor]]]:
    """Name, parts and maker of every such weight of a module and of the modules in it."""
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for name, parts, make in _made_here(part):
            yield prefix + name, [prefix + each for each in parts], make


def _made_here(part: torch.nn.Module) -> Iterator[tuple[str, list[str], Callable[[], Tensor]]]:
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


AnyModel = HookedModel | torch.nn.Module  # what a user may give, wrapped or not
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MODELS = "a HookedTransformer, a TransformerBridge or any torch.nn.Module"
SURFACE = ("run_with_cache", "run_with_hooks", "add_perma_hook")


def hooked_model(x: object, *, otherwise: str = f"is not a model; give {MODELS}") -> HookedModel:
    """The model that is meant, itself or inside a wrapper; InputError where there is none.

    A module without hook points is seen through a `HookedModule`. The wrapped model is the user's
    own object, not a copy, and nothing is changed. `otherwise` is what the InputError says of an x
    that is nothing like a model.
    """
    x, where = unwrapped(x)
    if not _has_surface(x):
        if (refusal := _what_it_is(x, where, otherwise)) is not None:
            raise InputError(refusal)
        assert isinstance(x, torch.nn.Module)
        _refuse_unreadable(x)
        return cast(HookedModel, HookedModule(x))
    assert isinstance(x, torch.nn.Module)
    if not isinstance(getattr(x, "hook_dict", None), Mapping):
        raise InputError(
            f"this {type(x).__name__} has no hook_dict: it was not set up; call self.setup() at "
            "the end of its __init__."
        )
    _refuse_unreadable(x)
    return cast(HookedModel, x)


def unwrapped(x: Any) -> tuple[Any, str]:
    """What lies in wrappers that change nothing (what is in none, itself), and where: "model"."""
    where = "model"
    while (inside := _inside(x)) is not None:
        name, x = inside
        where += f".{name}"
    return x, where


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

    Its class is asked, since some wrappers have all the attributes of what they hold.
    """
    return isinstance(x, torch.nn.Module) and all(
        callable(getattr(type(x), name, None)) for name in SURFACE
    )


def _what_it_is(x: object, where: str, otherwise: str) -> str | None:
    """What was given in place of a model, and what to give; None of a plain module."""
    kind = type(x).__name__
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
            "a torch.jit module has no hooks; give the model that it was scripted or traced from."
        )
    if any(base.__name__ == "FullyShardedDataParallel" for base in type(x).__mro__):
        return f"the weights of a FullyShardedDataParallel model are in pieces; {GATHER}."
    if held := _held(x):
        names = [f"{where}.{name}" for name in held]
        more = f" or {len(names) - 3} more" if len(names) > 3 else ""
        return (
            f"{kind} is not a hooked model but holds {'one' if len(names) == 1 else 'several'};"
            f" give {' or '.join(names[:3])}{more}: what the {kind} itself does with it "
            "cannot be seen."
        )
    return None if isinstance(x, torch.nn.Module) else f"{named(x)} {otherwise}."


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
            raise InputError(f"the weight {name!r} is in pieces over several processes; {GATHER}.")
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
                f"{name!r} of the model is quantized ({type(part).__name__}); give the model as it "
                "was before it was quantized."
            )


_LOCKS: WeakKeyDictionary[object, threading.RLock] = WeakKeyDictionary()
_GUARD = threading.Lock()  # of the table of locks
_OTHERS = threading.RLock()  # of models that no table can hold without keeping them alive
_EAGER: list[Any] = []  # one entry a thread that looks at a compiled model; the first can undo it


@contextlib.contextmanager
def alone_with(model: object) -> Iterator[None]:
    """Be alone with a model, to be held wherever this package runs it or looks at its hooks.

        with alone_with(model):
            logits = model.run_with_hooks(tokens, fwd_hooks=hooks)

    Meanwhile every part of it is in evaluation; afterwards each is as it was. The thread that holds
    it may take it again, as a hook does that looks at the model by itself. Runs of the model by the
    user's own code do not wait for it.
    """
    with _lock_of(model), _in_evaluation(model), _as_written(model):
        yield


def _lock_of(model: object) -> threading.RLock:
    model = model.module if isinstance(model, HookedModule) else model
    with _GUARD:
        try:
            return _LOCKS.setdefault(model, threading.RLock())
        except TypeError:
            return _OTHERS


@contextlib.contextmanager
def _in_evaluation(model: object) -> Iterator[None]:
    """Every part of a module in evaluation, and back: train() would set all parts to one mode."""
    parts = model.modules() if isinstance(model, torch.nn.Module) else ()
    training = [part for part in parts if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def _as_written(model: object) -> Iterator[None]:
    """Nothing compiled, where a module or a part of it is to be compiled at its first run."""
    if not _is_compiled(model):
        yield
        return
    with _GUARD:  # one setting for all threads: the first sets it, the last puts it back
        _EAGER.append(None if _EAGER else torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _GUARD:
            if (stance := _EAGER.pop()) is not None:  # the one at the bottom
                stance.__exit__(None, None, None)


def _is_compiled(model: object) -> bool:
    # Whoever has compiled a model has imported this, which takes seconds.
    if "torch._dynamo" not in sys.modules or not isinstance(model, torch.nn.Module):
        return False
    return any(
        part._compiled_call_impl is not None or "_orig_mod" in part._modules
        for part in model.modules()
    )
