"""What is an architecture: the kinds of network, their weights, and how these start?

Canonical names and shapes of a transformer are those of HookedTransformer's properties, whatever
TransformerLens is installed: `embed.W_E` [d_vocab, d_model], `blocks.0.attn.W_Q`
[n_heads, d_model, d_head], ... Initial weights are drawn here, so that every TransformerLens starts
from the same numbers.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, fields
from functools import partial
from math import prod
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from grokinterp.base.checks import refused, word
from grokinterp.base.errors import InputError
from grokinterp.base.keys import Key, Kind, fields_from, keys_of, registers
from grokinterp.base.registry import Registry
from grokinterp.models.interchangeable_units import Units
from grokinterp.models.user_models import HookedModel
from grokinterp.tasks.task import Task

Weights = dict[str, Tensor]
AnyArchitecture = TypeVar("AnyArchitecture", bound="BaseArchitecture")

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.nn.functional.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_new": partial(torch.nn.functional.gelu, approximate="tanh"),
    "silu": torch.nn.functional.silu,
}
# Those of networks that are computed here alone; HookedTransformer does not know the last, which is
# that of the solution in closed form (Gromov 2023, arXiv 2301.02679).
NONLINEARITIES = {**ACTIVATIONS, "quadratic": torch.square}

NORMS = (None, "LN", "LNPre", "RMS", "RMSPre")

LARGEST = 1_000_000  # no size is larger; a number beyond it is a damaged file's
LARGEST_OF = {"n_layers": 1000, "n_ctx": 10_000, "lattice": 10_000}  # which cost more than a row
SMALLEST_OF = {"d_embed": 0}  # of all others 1
CHOICES: dict[str, tuple[str | None, ...]] = {  # of fields that are no keys
    "normalization_type": NORMS,
    "norm_position": ("pre", "post"),
    "attention_dir": ("causal", "bidirectional"),
}
MODELS: Registry[type["BaseArchitecture"]] = Registry(
    "model", reserved={"module": "what runs of modules without a kind are called"}
)


@runtime_checkable
class Loss(Protocol):
    """What is minimised, as gradients need it: see `grokinterp.updates.objectives`."""

    @property
    def mean_over_rows(self) -> bool: ...  # noqa: D102
    def checked_loss(self, logits: Tensor, labels: Tensor) -> Tensor: ...  # noqa: D102
    def by_logits(self, logits: Tensor, labels: Tensor) -> Tensor: ...  # noqa: D102


Gradients = Callable[[Mapping[str, Tensor]], Weights]  # of fixed rows, at any weights

# The forward of fixed weights: of inputs, a cache or None, and `keep_pre`; see `answers`.
Answers = Callable[..., Tensor]


@dataclass(frozen=True)
class BaseArchitecture(Kind):
    """Which network: a frozen dataclass of sizes that knows its weights and how they answer.

    A kind of model extends it. What differs between kinds is a method or an attribute of it; one
    that is registered (`gi.register.model`) is named by recipes, and its fields are their keys.

    >>> import grokinterp as gi
    >>> architecture = gi.load("mod31-small").architecture
    >>> isinstance(architecture, gi.models.BaseArchitecture), architecture.kind
    (True, 'transformer')
    >>> weights = architecture.initial(seed=0)
    >>> list(weights)[:3], weights["blocks.0.mlp.W_in"].shape
    (['embed.W_E', 'pos_embed.W_pos', 'blocks.0.attn.W_Q'], torch.Size([32, 160]))
    >>> architecture.forward(weights, gi.ModularTask("add", p=31).model_inputs).shape
    torch.Size([961, 31])
    """

    positions: ClassVar[bool] = False  # activations have an axis of positions, the answer's last
    named: ClassVar[bool] = True  # names of its weights say what they do, as in every kind of ours
    init_rules: ClassVar[tuple[str, ...]] = ("xavier", "torch")  # of `initial`; the first is usual
    usual_biases: ClassVar[str] = "all"  # that a recipe trains
    usual: ClassVar[Mapping[str, Any]] = {}  # defaults of the task's keys, where others are meant
    more_keys: ClassVar[tuple[Key, ...]] = ()  # of recipes, besides the fields
    n_layers = 0  # whose neurons are `blocks.N.mlp`
    linear_readout: ClassVar[bool] = True  # logits are linear in the last layer's neurons

    @classmethod
    def keys(cls) -> tuple[Key, ...]:
        """The keys of recipes that it has, those of its initial weights among them."""
        return (
            *super().keys(),
            *cls.more_keys,
            Key(
                "biases", str, cls.usual_biases, choices=("none", "mlp", "all"), wanted="text",
                help='which biases are trained: "none", "mlp" or "all"',
                read=lambda x: {True: "all", False: "none"}.get(x) if isinstance(x, bool) else (
                    x if isinstance(x, str) else None
                ),
            ),
            Key(
                "init", str, cls.init_rules[0], choices=cls.init_rules,
                help="rule of the initial weights",
            ),
            Key(
                "init_scale", float, 1.0, above=0, synonyms=("w0",),
                help="multiplies the initial weights (w0)",
            ),
        )  # fmt: skip

    @classmethod
    def of_recipe(
        cls: type[AnyArchitecture], task: Task, values: Mapping[str, Any]
    ) -> AnyArchitecture:
        """The architecture for a task, from the values of a recipe's keys."""
        return cls(**fields_from(keys_of(cls), values))

    @classmethod
    def _not_for(cls, task: Task, reads: str) -> InputError:
        """The error about a task whose inputs it cannot read."""
        pair = f"model={cls.kind!r} is not for task={task.kind!r}"
        return InputError(f"{pair}: it reads {reads}, the task is {task.title}.")

    @classmethod
    def from_dict(cls: type[AnyArchitecture], values: Mapping[str, Any]) -> AnyArchitecture:
        """The architecture stored by `to_dict`; what is not stored has its default."""
        stored = {x.name: values[x.name] for x in fields(cls) if x.name in values}
        for name, value in stored.items():  # JSON has no tuples
            stored[name] = tuple(value) if isinstance(value, list) else value
        return cls(**stored)

    def to_dict(self) -> dict[str, Any]:
        """What `shape_from_dict` (`grokinterp.models.kinds`) reads."""
        return {"kind": self.registered_kind("model"), **self.fields_given()}

    @property
    def missing(self) -> str | None:
        """What it lacks to compute anything; None where nothing."""
        return None

    @property
    def buffers(self) -> Collection[str]:
        """The weights that are no parameters, such as running statistics."""
        return ()

    def parameters(self, weights: Mapping[str, Tensor]) -> Weights:
        """Those of the weights that are parameters."""
        buffers = set(self.buffers)
        return {name: weight for name, weight in weights.items() if name not in buffers}

    @property
    def transformer(self) -> Any:
        """Itself, of a `TransformerArchitecture`; None of any other kind."""
        return None

    def for_task(self: AnyArchitecture, task: Task) -> AnyArchitecture:
        """The architecture as it is on a task, where it takes something from that."""
        return self

    @abstractmethod
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""

    @abstractmethod
    def forward(
        self,
        weights: Mapping[str, Tensor],
        inputs: Tensor,
        cache: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Logits where the answer is read, [n, n_classes], differentiable in the weights.

        Fills a `cache` with the activations it comes by, under their hook names.
        """

    def answers(self, weights: Mapping[str, Tensor]) -> Answers:
        """The forward of fixed weights, `(inputs, cache=None, *, keep_pre=True)`, made once.

        Without `keep_pre` a cache may lack pre-activations, which can be faster.
        """
        return lambda inputs, cache=None, *, keep_pre=True: self.forward(weights, inputs, cache)

    def own_activations(self, inputs: Tensor) -> Collection[str] | None:
        """The hook names that `forward` fills a cache with; None where only a hooked model does."""
        return None

    @abstractmethod
    def hooked(self, weights: Mapping[str, Tensor], *, device: str = "cpu") -> HookedModel:
        """A hooked model with copies of these weights, in their precision, for evaluation."""

    def gradients_on(self, inputs: Tensor, labels: Tensor, objective: Loss) -> Gradients:
        """What finds the gradient of an objective on these rows by every weight.

        By autograd, unless a kind has a faster way to the same.
        """

        def gradients(weights: Mapping[str, Tensor]) -> Weights:
            leaves = {name: x.detach().requires_grad_() for name, x in weights.items()}
            loss = objective.checked_loss(self.forward(leaves, inputs), labels)
            found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
            return dict(zip(leaves, found, strict=True))

        return gradients

    def squares_of_gradients(
        self, weights: Mapping[str, Tensor], inputs: Tensor, cotangents: Callable[[Tensor], Tensor]
    ) -> Weights | None:
        """Sums over inputs and v of (v . d logits / d weight)^2, for the v that logits give.

        `cotangents(logits)` [n_v, n, classes]. None where there is no way but the Jacobian.
        """
        return None

    def interchangeable_units(self) -> Units:
        """The units that can change places, by what they are called; none where nobody knows them.

        >>> import grokinterp as gi
        >>> [*gi.load("mod31-small").architecture.interchangeable_units()]
        ['heads of layer 0', 'neurons of layer 0']
        """
        return {}

    def trained(self, biases: str) -> list[str]:
        """The weights that are trained, by the `biases` of a recipe: "none", "mlp" or "all".

        A key bias never is: it adds the same to every score of a query, so that its gradient is 0,
        and what is computed of it is rounding, which Adam would turn into steps.
        """
        return [
            name
            for name in self.parameter_shapes()
            if not name.endswith("attn.b_K")
            and (not is_bias(name) or biases == "all" or (biases == "mlp" and ".mlp." in name))
        ]

    def with_module(self: AnyArchitecture, module: torch.nn.Module) -> AnyArchitecture:
        """The architecture with the module of which a run has the weights alone."""
        raise InputError(
            f"a run of kind {self.kind} builds its models itself; module= is for runs that "
            "gi.Recorder wrote of modules of your own."
        )

    def why_not(self, task: Task, *, stored: bool = False) -> str | None:
        """Why it does not fit a task, with the sizes of both; None where it does.

        A run that is `stored` may hold more than its task asks for, as earlier versions wrote.
        """
        return None

    def why_not_functional(self, inputs: Tensor) -> str | None:
        """Why `forward` cannot go through torch.func (vmap, vjp) on such inputs; None if it can."""
        return None

    def why_not_stacked(self, inputs: Tensor) -> str | None:
        """Why several cannot be computed side by side, with an axis of members; None if they can.

        Then `forward` and `gradients_on` take weights, inputs and labels with that axis.
        """
        return f"models of kind {self.kind} are not batched"

    def refuse_unfit(self, task: Task) -> None:
        """InputError where it does not fit a task."""
        if reason := self.why_not(task):
            raise InputError(f"{reason}; give the task it was trained on.")

    def check(self, weights: Mapping[str, Tensor]) -> None:
        """Refuse weights whose names or shapes are not this architecture's."""
        shapes = self.parameter_shapes()
        if unknown := sorted(set(weights) - set(shapes)):
            raise InputError(f"weight {unknown[0]!r} does not belong to {self}.")
        for name, shape in shapes.items():
            if name not in weights:
                raise InputError(f"weight {name!r} of shape {shape} is missing.")
            if tuple(weights[name].shape) != shape:
                raise InputError(
                    f"weight {name!r} has shape {tuple(weights[name].shape)}, expected {shape}."
                )

    def initial(self, *, seed: int, rule: str = "", scale: float = 1.0) -> Weights:
        """Random float32 weights in canonical order from an own generator; the usual rule if none.

        `rule="xavier"`: normal of std sqrt(2/(fan_in + fan_out)), zero biases (Glorot and Bengio
        2010). `rule="torch"`: PyTorch's defaults, uniform within 1/sqrt(fan_in) for matrices and
        biases, and standard normal for an embedding. The fans of a 3x3 convolution are 9 times its
        channels. Of a transformer, see `TransformerArchitecture`.

        All but LayerNorm gains are then multiplied by `scale`, the w0 of Manning-Coe et al. 2025
        (arXiv 2502.01739, section 2). The global random state is not touched. InputError for a
        rule that is not one of its kind.
        """
        word("init", rule := rule or self.init_rules[0], self.init_rules)
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        shapes = self.parameter_shapes()
        for name, shape in shapes.items():
            if rule == "torch" and not name.endswith(".W_E"):
                # A bias has the bound of its matrix, whose name differs by one letter.
                layer, _, last = name.rpartition(".")
                fan_in, _ = _fans(shapes[f"{layer}.{last.replace('b', 'W', 1)}"])
                unit = 2 * torch.rand(shape, generator=generator) - 1
                weights[name] = unit * (fan_in**-0.5 * scale)
            elif is_bias(name) or name.endswith(".w"):
                weights[name] = torch.full(shape, 0.0 if is_bias(name) else 1.0)
            else:
                std = self._std(rule, name, shape)
                weights[name] = torch.randn(shape, generator=generator) * (std * scale)
        return weights

    def _std(self, rule: str, name: str, shape: tuple[int, ...]) -> float:
        """The standard deviation of a matrix by a rule."""
        return 1.0 if rule == "torch" else (2 / sum(_fans(shape))) ** 0.5


class VisitedArchitecture(BaseArchitecture):
    """One whose `forward` shows every activation to `visit`, and goes on with what that returns."""

    @abstractmethod
    def hook_names(self) -> tuple[str, ...]:
        """Names of the activations, in the order of the forward."""

    def own_activations(self, inputs: Tensor) -> Collection[str]:
        """All of them."""
        return self.hook_names()

    def hooked(self, weights: Mapping[str, Tensor], *, device: str = "cpu") -> HookedModel:
        """A HookedNetwork with copies of these weights."""
        from grokinterp.models.hooked import HookedNetwork

        return HookedNetwork(self, weights).to(device).eval()


register_model = registers(MODELS, BaseArchitecture)


def is_bias(name: str) -> bool:
    """Whether a parameter's name is that of a bias, a LayerNorm's included.

    >>> is_bias("blocks.0.mlp.b_in"), is_bias("fc1.bias"), is_bias("embed.W_E")
    (True, True, False)
    """
    last = name.rpartition(".")[2]
    return last in ("b", "bias") or last.startswith("b_")


def all_finite(weights: Mapping[str, Tensor]) -> bool:
    """Whether no weight is infinite or NaN."""
    return all(bool(weight.isfinite().all()) for weight in weights.values())


def refuse_not_finite(weights: Mapping[str, Tensor], where: str, advice: str) -> None:
    """InputError, naming the first of these weights with NaN or infinite values, if one has any.

    >>> refuse_not_finite({"embed.W_E": torch.tensor([1, torch.nan])}, "step 3", "lower lr")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: step 3: weight 'embed.W_E' is not finite (NaN: 1 of 2);
    lower lr.
    """
    for name, weight in weights.items():
        if n := int((~weight.isfinite()).sum()):
            what = "NaN" if bool(weight.isnan().any()) else "infinite"
            raise InputError(
                f"{where}: weight {name!r} is not finite ({what}: {n} of {weight.numel()}); "
                f"{advice}."
            )


def attention_softmax(scores: Tensor, dim: int) -> Tensor:
    """The softmax of attention scores over key positions, 0 where it is NaN.

    So both model classes of TransformerLens take it, and so a network whose scores are NaN or
    overflow has the same answers in every forward here. Elsewhere nothing is changed, not a bit.

    >>> attention_softmax(torch.tensor([[0.0, 0.0], [torch.nan, 0.0]]), dim=1).tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """
    return scores.softmax(dim).nan_to_num(nan=0.0)


def check_sizes(architecture: BaseArchitecture, *, absent: Collection[str] = ()) -> None:
    """Refuse sizes and words of a kind of this package that are out of range or not known.

    But for sizes of parts that it has not, which are `absent`.
    """
    for field in fields(architecture):
        name, value = field.name, getattr(architecture, field.name)
        if name in absent:
            continue
        if field.type is int:
            _check_size(name, value)
        elif field.type == tuple[int, ...]:
            most = LARGEST_OF["n_layers"]
            if not isinstance(value, tuple) or not 1 <= len(value) <= most:
                raise refused(name, value, f"a tuple of 1 to {most} sizes", "such as (64,)")
            for place, size in enumerate(value):
                _check_size(f"{name}[{place}]", size)
        elif value not in (valid_here := _choices(field) or (value,)):
            valid = ", ".join(map(str, valid_here))
            raise InputError(f"{name}={value!r} is not known; valid are: {valid}.")


def _choices(field: Field[Any]) -> tuple[str | None, ...]:
    """The words that a field may be: those of its key, or of the field where it is no key."""
    own: tuple[str, ...] = (field.metadata.get("key") or {}).get("choices", ())
    return own or CHOICES.get(field.name, ())


def _check_size(name: str, value: object) -> None:
    """Refuse a size that is no plain whole number in its range."""
    smallest, largest = SMALLEST_OF.get(name, 1), LARGEST_OF.get(name, LARGEST)
    if type(value) is not int or not smallest <= value <= largest:
        raise InputError(f"{name}={value!r} is not a whole number from {smallest} to {largest}.")


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of a matrix [d_in, d_out] or a convolution [out, in, 3, 3]."""
    if len(shape) == 2:
        return shape[0], shape[1]
    return prod(shape[1:]), shape[0] * prod(shape[2:])
