"""What neurons read of operand tokens and write to answer classes, from weights alone.

Three kinds of weights are known by their names and shapes: a transformer's, those of an MLP on the
two operands' learned embeddings side by side, and those of an MLP on two one-hot operands.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.errors import InputError, nearest

PATHS = ("direct", "attention")


def input_weights(
    weights: Mapping[str, Tensor], p: int, *, path: str = "direct"
) -> Float[Tensor, "2 p neurons"]:
    r"""Pre-activation of every neuron of the first hidden layer per operand token (float64).

    Block 0 is operand a's, block 1 operand b's. With W_in of the first layer: an MLP's are the
    halves of W_in's rows, behind the embedding W_E where it has one. A transformer treats both
    operands alike, and `path` says which of its maps it is: "direct" is W_E W_in, without
    attention; "attention" is W_E (sum over heads of W_V W_O) W_in of the first block, what a neuron
    reads where every head looks at the token with the same weight, which is the only way in for a
    model that answers at "=". Both leave the query-key circuit, positions, biases and LayerNorms
    out. InputError for other names or shapes.
    """
    if path not in PATHS:
        raise InputError(f"path={path!r} is not known; {nearest(str(path), PATHS)}")
    w_in = _weight(weights, "blocks.0.mlp.W_in")
    embedding = torch.eye(p, dtype=torch.float64)
    if "embed.W_E" in weights:
        embedding = _weight(weights, "embed.W_E")[:p]
    d = embedding.shape[1]
    if len(embedding) == p and len(w_in) == 2 * d:  # an MLP: operand a's rows, then b's
        if path != "direct":
            raise InputError(f"path={path!r} is a transformer's; an MLP has 'direct' only.")
        return embedding @ w_in.view(2, d, -1)
    if len(embedding) == p and len(w_in) == d and "embed.W_E" in weights:
        if path == "attention":
            w_v, w_o = (_weight(weights, f"blocks.0.attn.W_{x}") for x in "VO")
            embedding = embedding @ (w_v @ w_o).sum(dim=0)
        return (embedding @ w_in).expand(2, -1, -1)
    raise InputError(
        f"blocks.0.mlp.W_in has {len(w_in)} rows, which is no function of {p} operand tokens; give "
        "a transformer or an MLP on two operands, and its own p."
    )


def output_weights(weights: Mapping[str, Tensor], p: int) -> Float[Tensor, "p neurons"]:
    """What every neuron of the last hidden layer adds to each answer class, per unit (float64).

    W_out W_U for a transformer (a final LayerNorm is left out), W_U for an MLP; transposed, without
    the class of "=". InputError for other names or shapes.
    """
    classes = neuron_logit_weights(weights)
    if classes.shape[1] < p:
        raise InputError(
            f"the output weights have shape {tuple(classes.shape)}, expected {len(classes)} "
            f"neurons and at least {p} classes; give the model's own p."
        )
    return classes.T[:p]


def neuron_logit_weights(weights: Mapping[str, Tensor]) -> Float[Tensor, "neurons d_vocab_out"]:
    """The same of all classes, that of "=" too: the neuron-logit map W_L of Nanda et al. 2023."""
    layers = [int(name.split(".")[1]) for name in weights if name.endswith("mlp.W_in")]
    last = f"blocks.{max(layers, default=0)}.mlp"
    width = _weight(weights, f"{last}.W_in").shape[1]
    classes = _weight(weights, "unembed.W_U")
    if f"{last}.W_out" in weights or "blocks.0.attn.W_V" in weights:  # only an MLP has none
        classes = _weight(weights, f"{last}.W_out") @ classes
    if len(classes) != width:
        raise InputError(
            f"the output weights have shape {tuple(classes.shape)}, expected {width} neurons."
        )
    return classes


def _weight(weights: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in weights:
        raise InputError(f"the model has no weight {name!r}; its neurons read and write by it.")
    return weights[name].double()
