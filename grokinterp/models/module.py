"""Any torch.nn.Module as an architecture: a kind of one's own, or a module that a loop trains.

`ModuleArchitecture` is what a stranger's kind of model extends: one method that builds the module.
`GivenModule` is that of a module which somebody else built: a run of it holds its weights, but not
its code, so it is computed while the module is at hand (`gi.load(path, module=Net())`).

The weights are the parameters and floating-point buffers under the module's own names; it is run in
evaluation, by torch.func.functional_call, so that no module's own weights are changed.
"""

import contextlib
import copy
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError, one_line, shown
from grokinterp.base.keys import derived
from grokinterp.base.plugins import strangers
from grokinterp.models.architecture import BaseArchitecture, Weights
from grokinterp.models.factory import Factory
from grokinterp.models.hooked_module import HookedModule, at_answer, buffers_in, near, weights_in
from grokinterp.models.user_models import HookedModel, alone_with, unwrapped
from grokinterp.tasks.task import Task

AnyModule = TypeVar("AnyModule", bound="ModuleArchitecture")
GAINS = (torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.RMSNorm)  # of which 1 is no size


@dataclass(frozen=True)
class ModuleArchitecture(BaseArchitecture):
    """A kind of model of one's own: one method that builds its torch.nn.Module.

    The fields are keys of recipes. It is trained by autograd, from the module's own initial weights
    under the recipe's seed. What acts only in training (Dropout, BatchNorm) is refused there.

    >>> from dataclasses import dataclass
    >>> import torch
    >>> import grokinterp as gi
    >>> @gi.register.model("two-layers")
    ... @dataclass(frozen=True, kw_only=True)
    ... class TwoLayers(gi.models.ModuleArchitecture):
    ...     width: int = 64
    ...     def module(self, task):
    ...         d_in = task.model_inputs[0].numel()
    ...         return torch.nn.Sequential(
    ...             torch.nn.Flatten(), torch.nn.Linear(d_in, self.width), torch.nn.ReLU(),
    ...             torch.nn.Linear(self.width, task.n_classes),
    ...         )
    >>> lattices = {"task": "ising", "lattice": 4, "n_train": 9, "n_test": 9}
    >>> recipe = gi.Recipe(model="two-layers", width=8, **lattices)
    >>> recipe.architecture().parameter_shapes()["1.weight"]
    (8, 16)
    >>> del gi.models.MODELS["two-layers"]  # take it out again
    """

    init_rules: ClassVar[tuple[str, ...]] = ("module",)
    named: ClassVar[bool] = False

    @abstractmethod
    def module(self, task: Task) -> torch.nn.Module:
        """A module from inputs to logits [n, n_classes], or [n, positions, n_classes]."""

    @classmethod
    def of_recipe(cls: type[AnyModule], task: Task, values: Mapping[str, Any]) -> AnyModule:
        """The architecture on a task."""
        made = super().of_recipe(task, values).for_task(task)
        for name, part in made.template.named_modules():
            if isinstance(part, _DropoutNd | _BatchNorm) and getattr(part, "p", True):
                raise InputError(
                    f"{name or 'the module'} of {cls.kind!r} is a {type(part).__name__}, which "
                    "acts only in training, and not alike each time; leave it out."
                )
        return made

    def for_task(self: AnyModule, task: Task) -> AnyModule:
        """The architecture on a task, whose sizes the module takes."""
        bound = copy.copy(self)
        vars(bound).pop("template", None)
        object.__setattr__(bound, "task", task)
        return bound

    @cached_property
    def template(self) -> torch.nn.Module:
        """A module of this architecture, in evaluation, whose own weights say nothing."""
        return self._made(seed=0).eval()

    def _made(self, *, seed: int) -> torch.nn.Module:
        task: Task | None = vars(self).get("task")
        if task is None:
            raise InputError(f"{self} is of no task yet; give architecture.for_task(task).")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with strangers(f"model={self.kind!r}", self):
                module = self.module(task)
        if not isinstance(module, torch.nn.Module):
            raise InputError(
                f"module() of {self.kind!r} returns a {type(module).__name__}; return a "
                "torch.nn.Module."
            )
        return module

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter and floating-point buffer."""
        return {name: tuple(weight.shape) for name, weight in weights_in(self.template).items()}

    @property
    def buffers(self) -> Collection[str]:
        """The module's floating-point buffers."""
        return buffers_in(self.template)

    def initial(self, *, seed: int, rule: str = "", scale: float = 1.0) -> Weights:
        """The module's own initial weights under a seed, but for gains of norms times `scale`.

        torch's random state is left as it was; what another generator draws is not repeated.
        """
        word("init", rule or self.init_rules[0], self.init_rules)
        module = self._made(seed=seed)
        gains = {
            f"{name}.weight".lstrip(".")
            for name, part in module.named_modules()
            if isinstance(part, GAINS)
        }
        scaled = dict(module.named_parameters()).keys() - gains
        return {
            name: weight.detach().clone() * (scale if name in scaled else 1.0)
            for name, weight in weights_in(module).items()
        }

    def trained(self, biases: str) -> list[str]:
        """The parameters that are trained: those that ask for a gradient."""
        asking = {name for name, x in self.template.named_parameters() if x.requires_grad}
        return [name for name in super().trained(biases) if name in asking]

    def forward(
        self,
        weights: Mapping[str, Tensor],
        inputs: Tensor,
        cache: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Logits where the answer is read, [n, n_classes], differentiable in the weights.

        A `cache` gets the outputs of all sub-modules that are called once and return a tensor.
        """
        module, own = HookedModule(self.template), next(self.template.parameters(), None)
        first = next(iter(weights.values()), inputs)
        if inputs.is_floating_point():
            inputs = inputs.to(first.dtype)
        seen: dict[str, Tensor] = {}
        with alone_with(self.template):
            if own is not None and own.device != first.device:
                self.template.to(first.device)
            with contextlib.nullcontext() if cache is None else module.keeping(seen):
                try:
                    logits = torch.func.functional_call(self.template, dict(weights), (inputs,))
                except RuntimeError as error:
                    raise self._refused(error, own, first) from error
        if cache is not None:
            cache |= {name: at_answer(x, logits) for name, x in seen.items()}
        return at_answer(logits, logits)

    def _refused(self, error: RuntimeError, own: Tensor | None, given: Tensor) -> Exception:
        """What to say of a module that cannot be computed as it is asked to be."""
        told = one_line(str(error), most=120)
        if "vmap" in told:
            return InputError(
                f"the module of {self.kind!r} cannot be computed by torch.func.vmap, which this "
                f"needs ({told}); leave out what looks at values, as one_hot does."
            )
        if own is not None and own.dtype != given.dtype:
            return InputError(
                f"the module of {self.kind!r} does not compute in {given.dtype} ({told}); have it "
                "take the precision of its weights."
            )
        return error

    def own_activations(self, inputs: Tensor) -> Collection[str]:
        """None: they come from the hooked module, which says what it does not call."""
        return ()

    def hooked(self, weights: Mapping[str, Tensor], *, device: str = "cpu") -> HookedModel:
        """The module with copies of these weights, seen through hooks."""
        self.check(weights)
        module = copy_of(self.template).to(device)
        if len(precisions := {weight.dtype for weight in weights.values()}) == 1:
            module.to(precisions.pop())
        for name, weight in weights_in(module).items():
            weight.data = weights[name].to(device, copy=True)
        return HookedModule(module.eval(), self)

    def why_not(self, task: Task, *, stored: bool = False) -> str | None:
        """Why its module does not read the inputs of a task; two of them are tried."""
        if stored:
            return None
        shape: tuple[int, ...] = ()
        try:
            with torch.no_grad():
                inputs = task.model_inputs[[0, -1]]
                weights = {name: x.detach() for name, x in weights_in(self.template).items()}
                logits, again = (self.forward(weights, inputs) for _ in range(2))
                shape = tuple(logits.shape)
        except InputError:
            raise
        except Exception as error:
            told = one_line(f"{type(error).__name__}: {error}", most=120)
            return f"its module cannot read the inputs of {task.title} ({told})"
        if not near(logits, again):
            return "its module gives other logits when it is run again: something acts by chance"
        if len(shape) == 2 and shape[0] == 2 and fit_classes(shape[1], task):
            return None
        return (
            f"its module gives logits of shape {shape} for two inputs of {task.title}, not "
            f"(2, {task.n_classes})"
        )


@dataclass(frozen=True)
class GivenModule(ModuleArchitecture):
    """A module that was built elsewhere, by the name of its class and the shapes of its weights.

    It computes while `with_module` has given it the module, as a `Recorder` does; a run of it that
    another process opens has its weights and metrics, and needs the module for all else.

    >>> import torch
    >>> import grokinterp as gi
    >>> given = gi.models.GivenModule.of_module(torch.nn.Linear(2, 5))
    >>> given.name, given.parameter_shapes()
    ('Linear', {'weight': (5, 2), 'bias': (5,)})
    >>> stored = gi.models.GivenModule.from_dict(given.to_dict())  # as another process reads it
    >>> stored.missing
    'this run is of a module of your own, Linear, whose code it does not hold; give the module:
    gi.load(path, module=Linear(...))'
    >>> stored.with_module(torch.nn.Linear(2, 5)).missing is None
    True
    """

    kind: ClassVar[str] = "module"

    name: str = derived()
    shapes: Mapping[str, tuple[int, ...]] = derived(shown=False)
    buffers: tuple[str, ...] = derived((), shown=False)
    factory: Factory | None = derived(None, shown=False)  # noqa: RUF009  that makes it, if named

    @classmethod
    def of_module(cls, module: torch.nn.Module, *, factory: Factory | None = None) -> "GivenModule":
        """The architecture of a module, of which it keeps a copy."""
        shapes = {name: tuple(weight.shape) for name, weight in weights_in(module).items()}
        name = type(module).__qualname__
        return cls(name, shapes, factory=factory).with_module(module)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GivenModule":
        """What `to_dict` gave, without its module."""
        shapes = {name: tuple(shape) for name, shape in values["shapes"].items()}
        made_by = values.get("factory")
        factory = made_by and Factory(made_by, values.get("arguments", {}))
        return cls(values["name"], shapes, tuple(values.get("buffers", ())), factory or None)

    def to_dict(self) -> dict[str, Any]:
        """Names and shapes, which is all of a module that a file can hold."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        stored = {"kind": self.kind, "name": self.name, "shapes": shapes}
        if self.factory is not None:
            stored |= {"factory": self.factory.name, "arguments": dict(self.factory.arguments)}
        return stored | ({"buffers": list(self.buffers)} if self.buffers else {})

    def with_module(self, module: torch.nn.Module) -> "GivenModule":
        """The same with a copy of the module to compute with; InputError for another's."""
        if not isinstance(module, torch.nn.Module):
            wrong = "is a class" if isinstance(module, type) else "is no torch.nn.Module"
            raise InputError(f"module={shown(module)} {wrong}; give {self.name}(...).")
        module, _ = unwrapped(module)
        self.check(weights_in(module))
        made = copy.copy(self)
        vars(made)["template"] = copy_of(module).cpu().eval()
        vars(made)["buffers"] = tuple(buffers_in(module))
        return made

    def for_task(self, task: Task) -> "GivenModule":
        """Itself: its module takes nothing from a task."""
        return self

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter and floating-point buffer."""
        return dict(self.shapes)

    def module(self, task: Task) -> torch.nn.Module:
        """Refused, as `template` is: the code of the module is not in its run."""
        return self._made(seed=0)

    @property
    def missing(self) -> str | None:
        """The module, while nobody has given it, or named the function that makes it."""
        if "template" in vars(self) or (self.factory is not None and self.factory.is_named):
            return None
        of = f"this run is of a module of your own, {self.name}, whose code it does not hold; give "
        if self.factory is None:
            return f"{of}the module: gi.load(path, module={self.name}(...))"
        module = self.factory.name.partition(":")[0]
        return (
            f"{of}that of {self.factory.name}: grokinterp --plugin {module} ..., or gi.load(path, "
            "module=...)"
        )

    def _made(self, *, seed: int) -> torch.nn.Module:
        if self.missing is None and self.factory is not None:
            module = self.factory.module()
            self.check(weights_in(module))
            return module
        built = f"{self.name} was built elsewhere; its run cannot build another"
        raise InputError(f"{self.missing or built}.")


def fit_classes(n: int, task: Task) -> bool:
    """Whether logits of n classes are of a task: its answers, and those of all words besides."""
    if task.modular is None:
        return n == task.n_classes
    counts = task.modular.reads.class_counts
    return n in counts or (task.modular.sizes_may_be_larger and n >= counts[0])


def copy_of(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of a module; of tensors that its forward left in it, as autograd made them, values."""
    left: dict[int, Any] = {
        id(x): x.detach().clone()
        for part in module.modules()
        for x in vars(part).values()
        if isinstance(x, Tensor) and not x.is_leaf
    }
    try:
        return copy.deepcopy(module, left)
    except Exception as error:  # of what a module may hold: locks, files, generators
        told = one_line(f"{type(error).__name__}: {error}", most=120)
        raise InputError(
            f"the {type(module).__name__} cannot be copied ({told}); take out of it what is not "
            "part of the network."
        ) from error
