"""Seeded initial weights of our own, so that every TransformerLens starts from the same numbers."""

from math import prod
from typing import Literal, get_args

import torch

from grokinterp.errors import InputError, nearest
from grokinterp.models.architecture import Architecture, BaseArchitecture, Weights, is_bias

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
    if rule not in rules:
        if rule in get_args(InitRule):
            raise InputError(
                f"init={rule!r} is not for models of kind {architecture.kind}; give "
                f"{' or '.join(rules)}."
            )
        raise InputError(f"init={rule!r} is not known; {nearest(rule, rules)}")
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
