"""What weights does a transformer of given sizes have, and how do weights of any kind start?

Canonical names and shapes are those of HookedTransformer's properties, whatever TransformerLens
is installed: `embed.W_E` [d_vocab, d_model], `blocks.0.attn.W_Q` [n_heads, d_model, d_head], ...
Initial weights are drawn here, so that every TransformerLens starts from the same numbers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from math import prod
from typing import Any, ClassVar, Literal, TypeVar, get_args

import torch
from torch import Tensor

from grokinterp.base.checks import number, refused, word
from grokinterp.base.errors import InputError

Weights = dict[str, Tensor]
AnyArchitecture = TypeVar("AnyArchitecture", bound="BaseArchitecture")

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.nn.functional.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_new": partial(torch.nn.functional.gelu, approximate="tanh"),
    "silu": torch.nn.functional.silu,
}

LARGEST = 1_000_000  # no size is larger; a number beyond it is a damaged file's
LARGEST_OF = {"n_layers": 1000, "n_ctx": 10_000, "lattice": 10_000}  # which cost more than a row
SMALLEST_OF = {"d_embed": 0}  # of all others 1
CHOICES: dict[str, tuple[str | None, ...]] = {
    "act_fn": tuple(ACTIVATIONS),
    "normalization_type": (None, "LN"),
    "attention_dir": ("causal", "bidirectional"),
}


@dataclass(frozen=True)
class BaseArchitecture:
    """What every kind of architecture, a frozen dataclass of sizes, can say about its weights."""

    kind: ClassVar[str]  # "transformer", "mlp", "cnn"

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.type is int:
                _check_size(name, value)
            elif field.type == tuple[int, ...]:
                most = LARGEST_OF["n_layers"]
                if not isinstance(value, tuple) or not 1 <= len(value) <= most:
                    raise refused(name, value, f"a tuple of 1 to {most} sizes", "such as (64,)")
                for place, size in enumerate(value):
                    _check_size(f"{name}[{place}]", size)
            elif name in CHOICES and value not in CHOICES[name]:
                valid = ", ".join(str(choice) for choice in CHOICES[name])
                raise InputError(f"{name}={value!r} is not known; valid are: {valid}.")

    @classmethod
    def from_dict(cls: type[AnyArchitecture], values: Mapping[str, Any]) -> AnyArchitecture:
        """The architecture stored by `dataclasses.asdict`; what is not stored has its default."""
        stored = {x.name: values[x.name] for x in fields(cls) if x.name in values}
        for field in fields(cls):  # JSON has no tuples
            if field.type == tuple[int, ...] and isinstance(stored.get(field.name), list):
                stored[field.name] = tuple(stored[field.name])
        return cls(**stored)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""
        raise NotImplementedError

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


@dataclass(frozen=True)
class Architecture(BaseArchitecture):
    """Sizes and kinds of a transformer's parts, in TransformerLens' words.

    `attention_rate` r replaces every attention pattern A by r A + (1 - r): 1 is attention, 0 gives
    every position the weight 1 (Zhong et al. 2023, arXiv 2306.17844, section 4).
    """

    kind: ClassVar[str] = "transformer"

    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    d_vocab_out: int
    n_ctx: int
    act_fn: str = "relu"
    normalization_type: str | None = None  # "LN": before attention, MLP and unembedding
    eps: float = 1e-5  # of the LayerNorm
    attention_dir: str = "causal"
    attention_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number("attention_rate", self.attention_rate, least=0, most=1, such_as="0.5")
        if not 0 < self.eps < 1:
            raise InputError(f"eps={self.eps} is not between 0 and 1; give such as 1e-5.")

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""
        heads, d_model, d_head = self.n_heads, self.d_model, self.d_head
        shapes: dict[str, tuple[int, ...]] = {
            "embed.W_E": (self.d_vocab, d_model),
            "pos_embed.W_pos": (self.n_ctx, d_model),
        }
        layer_norm = {"w": (d_model,), "b": (d_model,)} if self.normalization_type else {}
        for layer in range(self.n_layers):
            attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
            shapes |= {f"blocks.{layer}.ln1.{x}": shape for x, shape in layer_norm.items()}
            shapes |= {f"{attn}.W_{x}": (heads, d_model, d_head) for x in "QKV"}
            shapes |= {f"{attn}.b_{x}": (heads, d_head) for x in "QKV"}
            shapes |= {f"{attn}.W_O": (heads, d_head, d_model), f"{attn}.b_O": (d_model,)}
            shapes |= {f"blocks.{layer}.ln2.{x}": shape for x, shape in layer_norm.items()}
            shapes |= {f"{mlp}.W_in": (d_model, self.d_mlp), f"{mlp}.b_in": (self.d_mlp,)}
            shapes |= {f"{mlp}.W_out": (self.d_mlp, d_model), f"{mlp}.b_out": (d_model,)}
        shapes |= {f"ln_final.{x}": shape for x, shape in layer_norm.items()}
        shapes |= {"unembed.W_U": (d_model, self.d_vocab_out), "unembed.b_U": (self.d_vocab_out,)}
        return shapes


def is_bias(name: str) -> bool:
    """Whether a canonical parameter name is a bias, a LayerNorm's included.

    >>> is_bias("blocks.0.mlp.b_in"), is_bias("ln_final.b"), is_bias("embed.W_E")
    (True, True, False)
    """
    last = name.rpartition(".")[2]
    return last == "b" or last.startswith("b_")


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


def _check_size(name: str, value: object) -> None:
    """Refuse a size that is no plain whole number in its range."""
    smallest, largest = SMALLEST_OF.get(name, 1), LARGEST_OF.get(name, LARGEST)
    if type(value) is not int or not smallest <= value <= largest:
        raise InputError(f"{name}={value!r} is not a whole number from {smallest} to {largest}.")


InitRule = Literal["gpt2", "paper", "xavier", "torch"]
RULES_OF: dict[str, tuple[str, ...]] = {
    "transformer": ("gpt2", "paper"),
    "mlp": ("xavier", "torch"),
    "cnn": ("xavier", "torch"),
}


def initial_weights(
    architecture: BaseArchitecture, *, seed: int, rule: str = "gpt2", init_scale: float = 1.0
) -> Weights:
    r"""Random weights in canonical order from an own generator; float32.

    Of a transformer: normal matrices, zero biases, LayerNorm gains of 1.
    `rule="gpt2"`: std 0.8/sqrt(d_model) for every matrix (TransformerLens 3's "gpt2" mode).
    `rule="paper"`: std 1/sqrt(d_model), the unembedding 1/sqrt(d_vocab_out) (released code of
    Nanda et al. 2023; W_out too uses d_model although its fan-in is d_mlp).

    Of an MLP or a CNN, where a 3x3 convolution has fans of 9 times its channels:
    `rule="xavier"`: normal of std sqrt(2/(fan_in + fan_out)), zero biases (Glorot and Bengio 2010).
    `rule="torch"`: PyTorch's defaults, uniform within 1/sqrt(fan_in) for matrices and biases, and
    standard normal for an embedding.

    All but the LayerNorm gains are then multiplied by `init_scale`, the w0 of Manning-Coe et al.
    2025 (arXiv 2502.01739, section 2). The global random state is not touched. InputError for a
    rule that is not one of the architecture's kind.
    """
    rules = RULES_OF[architecture.kind]
    if rule in get_args(InitRule) and rule not in rules:
        kind = f"for models of kind {architecture.kind}"
        raise InputError(f"init={rule!r} is not {kind}; give {' or '.join(rules)}.")
    word("init", rule, rules)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    shapes = architecture.parameter_shapes()
    for name, shape in shapes.items():
        if rule == "torch" and name != "embed.W_E":
            # A bias has the bound of its matrix, whose name differs by one letter.
            layer, _, last = name.rpartition(".")
            fan_in, _ = _fans(shapes[f"{layer}.{last.replace('b', 'W', 1)}"])
            unit = 2 * torch.rand(shape, generator=generator) - 1
            weights[name] = unit * (fan_in**-0.5 * init_scale)
        elif is_bias(name) or name.endswith(".w"):
            weights[name] = torch.full(shape, 0.0 if is_bias(name) else 1.0)
        else:
            std = _std(architecture, rule, name, shape)
            weights[name] = torch.randn(shape, generator=generator) * (std * init_scale)
    return weights


def _std(architecture: BaseArchitecture, rule: str, name: str, shape: tuple[int, ...]) -> float:
    if not isinstance(architecture, Architecture):
        return 1.0 if rule == "torch" else (2 / sum(_fans(shape))) ** 0.5
    if rule == "gpt2":
        return 0.8 / architecture.d_model**0.5
    d_model, d_out = architecture.d_model, architecture.d_vocab_out
    return float((d_out if name == "unembed.W_U" else d_model) ** -0.5)


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of a matrix [d_in, d_out] or a convolution [out, in, 3, 3]."""
    if len(shape) == 2:
        return shape[0], shape[1]
    return prod(shape[1:]), shape[0] * prod(shape[2:])
