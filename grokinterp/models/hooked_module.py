"""Any torch.nn.Module with the surface of a hooked model, for as long as it is looked at.

The outputs of its named sub-modules are hook points (`fc1`, `layers.0.mlp`), and its own output is
`unembed.hook_out`, as everywhere. They are torch's forward hooks, which are there while it runs and
not before or after: the module itself is left as it was.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from grokinterp.base.errors import InputError, names

LOGITS = "unembed.hook_out"
ROUNDING = 0.01  # relative, of half precision in batches of other sizes
Hook = Callable[..., Any]  # (activation, hook) -> what goes on in its place, or None


@dataclass
class HookSite:
    """A hook point: its name, and the hooks that stay with it."""

    name: str
    fwd_hooks: list[Hook] = field(default_factory=list)


class HookedModule(torch.nn.Module):
    """A module seen through hooks, as `run_with_cache` and `run_with_hooks` have them.

    `cfg` is its architecture where it was built from one.
    """

    positions = False  # of every activation; see `at_answer`
    n_layers = 0  # by number; they have names

    def __init__(self, module: torch.nn.Module, cfg: Any = None) -> None:
        super().__init__()
        self.module = module
        self.cfg = cfg
        places = [name for name, _ in module.named_modules() if name]
        self.hook_dict: Any = {name: HookSite(name) for name in (*places, LOGITS)}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Parameters and buffers under the module's own names."""
        return self.module.state_dict(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output, with the hooks that stay."""
        return self.run_with_hooks(*args, **kwargs)

    def add_perma_hook(self, name: str, hook: Hook) -> None:
        """Add a hook that stays."""
        self._site(name).fwd_hooks.append(hook)

    def run_with_hooks(
        self, *inputs: Any, fwd_hooks: Iterable[tuple[str, Hook]] = (), **kwargs: Any
    ) -> Any:
        """The output with these hooks in place, each given the activation and its hook point."""
        sites = self.hook_dict.items()
        chosen: dict[str, list[Hook]] = {x: list(s.fwd_hooks) for x, s in sites if s.fwd_hooks}
        stay = set(chosen)
        for name, hook in fwd_hooks:
            chosen.setdefault(self._site(name).name, []).append(hook)
        with self._in_place(chosen) as reached:
            found = self.module(*(in_precision_of(self.module, x) for x in inputs), **kwargs)
        if idle := sorted(chosen.keys() - stay - reached):
            raise self._no_activation(idle[0], "is not called, or returns no tensor")
        return found

    def run_with_cache(
        self, *inputs: Any, names_filter: Sequence[str] | None = None, **kwargs: Any
    ) -> tuple[Any, dict[str, Tensor]]:
        """The output, and the activations at these hook points, or at all that have one."""
        cache: dict[str, Tensor] = {}
        with self.keeping(cache, names_filter):
            found = self.run_with_hooks(*inputs, **kwargs)
        return found, cache

    @contextlib.contextmanager
    def keeping(
        self, cache: dict[str, Tensor], asked: Sequence[str] | None = None
    ) -> Iterator[None]:
        """Fill a cache by the runs within; InputError for what is asked for and not there."""
        places = list(self.hook_dict) if asked is None else [self._site(x).name for x in asked]
        several: set[str] = set()

        def keep(activation: Tensor, hook: HookSite) -> Tensor:
            several.update({hook.name} & cache.keys())
            cache[hook.name] = activation
            return activation.clone()  # in which what comes after it may work in place

        with self._in_place({name: [keep] for name in places}):
            yield
        for name in several:
            del cache[name]
        if asked is not None and (missing := [name for name in places if name not in cache]):
            how = "is called several times in one forward" if missing[0] in several else (
                "is not called, or returns no tensor"
            )  # fmt: skip
            raise self._no_activation(missing[0], how)

    def _no_activation(self, name: str, how: str) -> InputError:
        return InputError(
            f"the sub-module {name!r} {how}, so it has no activation; name another: "
            f"{names(self.hook_dict)}."
        )

    def hidden_layers(self, inputs: Tensor) -> dict[str, int]:
        """The sub-modules without others in them whose outputs are [n, width], by name.

        Or [n, positions, width]. What only passes on its input and the last of all, whose output
        are the logits, are left out, and so is what has no row of its own for every input.
        """
        passing = (torch.nn.Flatten, torch.nn.Identity)
        leaves = {
            name
            for name, part in self.module.named_modules()
            if not {x for x, _ in part.named_children()} - {"parametrizations"}
            and not isinstance(part, passing) and "parametrizations." not in name
        }  # fmt: skip
        found: list[dict[str, int]] = []
        for given in (inputs, inputs[:-1]):
            with torch.no_grad():
                logits, cache = self.run_with_cache(given)
            last, n = at_answer(logits, logits), len(given)
            found.append({
                name: x.shape[-1] for name, x in cache.items()
                if name in leaves and x.ndim in (2, 3) and len(x) == n
                and not torch.equal(x[:, -1] if x.ndim > last.ndim else x, last)
            })  # fmt: skip
        return {name: width for name, width in found[0].items() if name in found[1]}

    def last_linear(self, inputs: Tensor) -> tuple[torch.nn.Linear, Tensor] | None:
        """The linear layer whose output are the logits, and what it reads of these inputs."""
        seen: dict[torch.nn.Linear, Tensor] = {}

        def keep(
            part: torch.nn.Linear, given: tuple[Tensor, ...], named: dict[str, Any], output: Any
        ) -> None:
            seen[part] = (given[0] if given else named["input"]).clone()

        with contextlib.ExitStack() as stack, torch.no_grad():
            for part in self.module.modules():
                if isinstance(part, torch.nn.Linear):
                    hook = part.register_forward_hook(keep, with_kwargs=True)
                    stack.callback(hook.remove)
            logits = self(inputs)
            for part, read in reversed(seen.items()):  # whatever is done to its output besides
                written = torch.nn.functional.linear(read, part.weight, part.bias)
                if written.shape == logits.shape and near(written, logits, within=1e-5):
                    return part, at_answer(read, logits)
        return None

    def _site(self, name: str) -> HookSite:
        if name not in self.hook_dict:
            raise InputError(
                f"the model has no hook point {name!r}; there are: {names(self.hook_dict)}."
            )
        return self.hook_dict[name]

    @contextlib.contextmanager
    def _in_place(self, chosen: Mapping[str, Sequence[Hook]]) -> Iterator[set[str]]:
        """Torch's forward hooks that call these, for as long as it takes; the names they reach."""
        reached: set[str] = set()

        def through(site: HookSite, hooks: Sequence[Hook]) -> Callable[..., Any]:
            def changed(part: torch.nn.Module, given: Any, output: Any) -> Any:
                if isinstance(output, Tensor):
                    reached.add(site.name)
                    for hook in hooks:
                        found = hook(output, hook=site)
                        output = output if found is None else found
                return output

            return changed

        with contextlib.ExitStack() as stack:
            for name, hooks in chosen.items():
                part = self.module.get_submodule("" if name == LOGITS else name)
                hook = part.register_forward_hook(through(self.hook_dict[name], hooks))
                stack.callback(hook.remove)
            yield reached


def weights_in(module: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers of a module, those that are tied once."""
    return {**dict(module.named_parameters()), **buffers_in(module)}


def buffers_in(module: torch.nn.Module) -> dict[str, Tensor]:
    """Its floating-point buffers, such as running statistics, that a state dict holds."""
    kept = set(module.state_dict())
    return {name: x for name, x in module.named_buffers()
            if name in kept and x.is_floating_point()}  # fmt: skip


def in_precision_of(module: torch.nn.Module, given: Any) -> Any:
    """An input of numbers in the precision of a module's weights; others as they are."""
    first = next(module.parameters(), None)
    real = isinstance(given, Tensor) and given.is_floating_point()
    return given.to(first.dtype) if real and first is not None else given


def near(one: Tensor, other: Tensor, *, within: float = ROUNDING) -> bool:
    """Whether two tensors are one but for rounding; NaN is 0."""
    one, other = (x.detach().double().nan_to_num() for x in (one, other))
    return bool(torch.dist(one, other) <= within * other.norm())


def at_answer(activation: Tensor, logits: Tensor) -> Tensor:
    """An activation where the answer is read: at the last position, where logits have positions."""
    if logits.ndim == activation.ndim == 3 and activation.shape[1] == logits.shape[1]:
        return activation[:, -1]
    return activation
