"""What a model's weights and neurons hold of each frequency, by token, operand pair or answer.

Answer classes are taken in the order of the task's group (their discrete logarithms for
multiplication, 0 left out), operand tokens in that of their own map into it (b by the logarithm of
b + 1 in a b + a), both in plain order where there is none. Powers are sums of squares, cos and sin
merged; row 0 is the constant, row k frequency k. Kinds of weights are known by their names and
shapes: a transformer's, those of an MLP on the operands' learned embeddings, one table for both or
one each, and those of an MLP on two one-hot operands, concatenated or summed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError
from grokinterp.fourier.basis import n_frequencies, spectrum, transform
from grokinterp.runs._snapshot import Snapshot
from grokinterp.tasks.answer_group import UNDEFINED

TABLES = ("embed.W_E", "embed_a.W_E", "embed_b.W_E")  # of embeddings, of both operands or of one
BLOCK_NEURONS = 16  # transformed at once: small in float64, and fast


def input_weights(
    weights: Mapping[str, Tensor], p: int, *, path: str = "direct"
) -> Float[Tensor, "2 p neurons"]:
    """Pre-activation of every neuron of the first hidden layer per operand token (float64).

    Block 0 is operand a's, block 1 operand b's: of an MLP the halves of the rows of its first W_in,
    or all rows for both where the operands are summed, after the embedding W_E where it has one, or
    each operand's own. A transformer treats both operands alike, and `path`
    says which of its maps it is: "direct" is W_E W_in, without attention; "attention" is W_E (sum
    over heads of W_V W_O) W_in of the first block, what a neuron reads where every head looks at
    the token with the same weight, the only way in for a model that answers at "=". Both leave the
    query-key circuit, positions, biases and LayerNorms out. InputError for other names or shapes.
    """
    word("path", path, ("direct", "attention"))
    w_in = _weight(weights, "blocks.0.mlp.W_in")
    own = [name for name in TABLES if name in weights]
    tables = [_weight(weights, name)[:p] for name in own] or [torch.eye(p, dtype=torch.float64)]
    d = tables[0].shape[1]
    if path == "attention" and "blocks.0.attn.W_V" in weights:
        w_v, w_o = (_weight(weights, f"blocks.0.attn.W_{x}") for x in "VO")
        tables = [table @ (w_v @ w_o).sum(dim=0) for table in tables]
    elif path == "attention":
        raise InputError(f"path={path!r} is a transformer's; an MLP has 'direct' only.")
    operands = all(len(table) == p and table.shape[1] == d for table in tables)
    if operands and len(w_in) in (d, 2 * d):  # both operands' rows, or operand a's, then b's
        first, second = w_in[:d], w_in[-d:]
        return torch.stack([tables[0] @ first, tables[-1] @ second])
    raise InputError(
        f"blocks.0.mlp.W_in has {len(w_in)} rows, which is no function of {p} operand tokens; give "
        "a transformer or an MLP on two operands, and its own p."
    )


def output_weights(weights: Mapping[str, Tensor], p: int) -> Float[Tensor, "p neurons"]:
    """What every neuron of the last hidden layer adds to each answer class, per unit (float64).

    W_out W_U for a transformer (norms after it are left out), W_U for an MLP; transposed, without
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
    if name not in weights and "embed.W_E" in weights and not any(".mlp." in x for x in weights):
        raise InputError("the model has no MLP, so no neurons that read or write.")
    if name not in weights:
        raise InputError(f"the model has no weight {name!r}, by which it reads or writes.")
    return weights[name].double()


def embedding_spectrum(snapshot: Snapshot) -> Float[Tensor, " n_frequencies_and_constant"]:
    """Power of `W_E` (operand tokens only) along the token axis: see `embedding_components`.

    `gi.fourier.embedding_spectrum` takes a run too (with `step`), a path, or a model with `task`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> power = gi.fourier.embedding_spectrum(run)
    >>> power.topk(3).indices.tolist()  # the strongest frequencies
    [14, 1, 8]
    >>> round((power[[1, 8, 14]].sum() / power.sum()).item(), 2)  # what they hold
    0.9
    """
    return spectrum(_embedding(snapshot)).sum(dim=1)


def unembedding_spectrum(snapshot: Snapshot) -> Float[Tensor, " n_frequencies_and_constant"]:
    """Power of `W_U` (answer classes only) along the class axis.

    `gi.fourier.unembedding_spectrum` takes a run too (with `step`), a path, or a model with `task`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> power = gi.fourier.unembedding_spectrum(run)
    >>> power.topk(3).indices.tolist()  # the strongest frequencies
    [14, 1, 8]
    >>> round((power[[1, 8, 14]].sum() / power.sum()).item(), 2)  # what they hold
    0.97
    """
    return _of_classes(snapshot, _weight(snapshot.named_weights, "unembed.W_U"))


def neuron_logit_spectrum(snapshot: Snapshot) -> Float[Tensor, " n_frequencies_and_constant"]:
    """Power of the neuron-logit map `W_out @ W_U` along the class axis (W_L of Nanda et al.).

    `gi.fourier.neuron_logit_spectrum` takes a run too (with `step`), a path, or a model with
    `task`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> power = gi.fourier.neuron_logit_spectrum(run)
    >>> power.topk(3).indices.tolist()  # the strongest frequencies
    [14, 1, 8]
    >>> round((power[[1, 8, 14]].sum() / power.sum()).item(), 2)  # what they hold
    0.99
    """
    return _of_classes(snapshot, neuron_logit_map(snapshot))


def neuron_logit_map(snapshot: Snapshot) -> Float[Tensor, "d_mlp d_vocab_out"]:
    """`W_out @ W_U` of the last layer, in float64; `W_U` of an MLP, whose neurons it reads.

    `gi.fourier.neuron_logit_map` takes a run too (with `step`), a path, or a model with `task`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> gi.fourier.neuron_logit_map(run).shape  # 160 neurons, 31 answers
    torch.Size([160, 31])
    >>> weights = run.weights()
    >>> by_hand = weights["blocks.0.mlp.W_out"].double() @ weights["unembed.W_U"].double()
    >>> by_hand.equal(gi.fourier.neuron_logit_map(run))
    True
    """
    return neuron_logit_weights(snapshot.named_weights)


def embedding_components(snapshot: Snapshot) -> Float[Tensor, "n d"]:
    """`W_E` in `fourier_basis` over the tokens: constant, cos 1, sin 1, cos 2, ... (float64).

    Of an MLP with two-hot input, of its first matrix. Where each operand has rows or a table of its
    own: operand a's columns, then operand b's.
    """
    return transform(_embedding(snapshot))


def neuron_frequency_fractions(
    snapshot: Snapshot, *, layer: int | str | None = None
) -> Float[Tensor, "d_mlp n_frequencies"]:
    r"""Fraction of each neuron's variance over (a, b) that belongs to one frequency.

    For frequency k, the 8 terms const, cos w_k, sin w_k of a times the same of b without
    const times const, of the centred 2-D transform of the post-activations, over all terms
    (Nanda et al. 2023, arXiv 2301.05217, section 4 and their notebook). NaN for a dead neuron.
    `layer` is the last one unless given. A high fraction says what a neuron depends on, not that
    the network uses it.

    `gi.fourier.neuron_frequency_fractions` takes a run too (with `step`), a path, or a model with
    `task`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> fractions = gi.fourier.neuron_frequency_fractions(run)
    >>> fractions.shape, (fractions.argmax(dim=1) + 1).unique().tolist()  # the neurons' frequencies
    (torch.Size([160, 15]), [1, 8, 14])
    >>> round(fractions.amax(dim=1).median().item(), 2)  # half of the neurons are at least so pure
    0.88
    """
    powers = neuron_powers(snapshot, layer=layer)
    return (powers.first + powers.second + powers.both) / powers.total[:, None]


@dataclass(frozen=True)
class NeuronPowers:
    """Sums of squares of neurons over (a, b), by frequency (columns k = 1, 2, ...; float64).

    `first` and `second` belong to waves of a alone and of b alone, `both` to the products of a wave
    of a and a wave of b of the same frequency. `total` is the sum of squares around the mean, 0 for
    a dead neuron (the same activation on every input).
    """

    total: Float[Tensor, " d_mlp"]
    first: Float[Tensor, "d_mlp n_frequencies"]
    second: Float[Tensor, "d_mlp n_frequencies"]
    both: Float[Tensor, "d_mlp n_frequencies"]


def neuron_powers(snapshot: Snapshot, *, layer: int | str | None = None) -> NeuronPowers:
    """The powers of a layer's neurons (the last one's unless given), computed once per snapshot."""
    name = snapshot.neurons_name(layer)

    def compute() -> NeuronPowers:
        task, orders = snapshot.modular_task, operand_orders(snapshot)
        rows = task.row_of[orders[0]][:, orders[1]]
        if bool((rows == UNDEFINED).any()):
            a, b = (int(side[0]) for side in torch.nonzero(task.row_of == UNDEFINED).T)
            raise InputError(
                f"{task.title} leaves pairs out, ({a}, {b}) is one of them, so that there is no "
                "Fourier transform over a and b; look at the activations themselves."
            )
        plain = torch.equal(rows.flatten(), torch.arange(task.n_inputs))
        parts = []
        for neurons in snapshot.activation_parts(name):
            if neurons.ndim != 2:
                raise InputError(
                    f"{name!r} has activations of shape {tuple(neurons.shape)}; give a layer whose "
                    "activations are [inputs, neurons]."
                )
            grid = neurons.view(*rows.shape, -1) if plain else neurons[rows]
            parts += [_grid_powers(block.double()) for block in grid.split(BLOCK_NEURONS, dim=2)]
        return NeuronPowers(*(torch.cat(part) for part in zip(*parts, strict=True)))

    return snapshot.memo(f"neuron_powers_{name}", compute)


def answer_order(snapshot: Snapshot) -> Int[Tensor, " n"]:
    """The answer classes in the order of the task's group, in plain order where it has none."""
    group = snapshot.task.answer_group
    return torch.arange(snapshot.modular_task.p) if group is None else group.tokens


def operand_orders(snapshot: Snapshot) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """The tokens of a and of b in the order of their maps into the task's group.

    In plain order both where there is no group, or where a map of one of them is no bijection, as
    a**2 is none.
    """
    group, plain = snapshot.task.answer_group, torch.arange(snapshot.modular_task.p)
    of_a, of_b = (None, None) if group is None else group.operand_orders
    return (plain, plain) if of_a is None or of_b is None else (of_a, of_b)


def token_order(snapshot: Snapshot) -> Int[Tensor, " n"]:
    """The operand tokens in the order that both operands have; InputError where these differ."""
    of_a, of_b = operand_orders(snapshot)
    if not torch.equal(of_a, of_b):
        raise InputError(
            f"in {snapshot.task.title} the operands a and b are counted in different orders, so "
            "that an embedding of both has no frequencies; look at neurons or logits."
        )
    return of_a


def _grid_powers(grid: Float[Tensor, "n n m"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = len(grid)
    half = torch.fft.rfft(grid, dim=1, norm="ortho")  # over b: k = 0 .. n // 2
    power = torch.fft.fft(half, dim=0, norm="ortho").abs().square()  # over a: k and n - k
    power[:, 1 : (n + 1) // 2] *= 2  # the conjugate half over b
    folded = power[: n // 2 + 1].clone()  # [k over a, k over b, neuron]
    folded[1 : (n + 1) // 2] += power[n // 2 + 1 :].flip(0)
    folded[0, 0] = 0.0
    constant = grid.amax(dim=(0, 1)) - grid.amin(dim=(0, 1)) == 0
    folded[:, :, constant] = 0.0  # what the transform leaves there is rounding
    k = torch.arange(1, n_frequencies(n) + 1)
    return folded.sum(dim=(0, 1)), folded[k, 0].T, folded[0, k].T, folded[k, k].T


@dataclass(frozen=True)
class OperandTables:
    """What each operand token is read as, [p, d]: of both operands, or of a and of b."""

    name: str  # "W_E", or "W_in" where its rows take the place of an embedding
    tables: tuple[Float[Tensor, "p d"], ...]


def operand_tables(snapshot: Snapshot) -> OperandTables:
    """The tables by which a model reads its operands; InputError where it has none (float64)."""
    weights = snapshot.named_weights
    if own := [name for name in TABLES if name in weights]:
        return OperandTables("W_E", tuple(_weight(weights, name) for name in own))
    if "blocks.0.mlp.W_in" not in weights:
        return OperandTables("W_E", (_weight(weights, "embed.W_E"),))  # which says what is missing
    p = snapshot.modular_task.p
    blocks = input_weights(weights, p)
    summed = len(weights["blocks.0.mlp.W_in"]) == p
    return OperandTables("W_in", tuple(blocks)[: 1 if summed else 2])


def _embedding(snapshot: Snapshot) -> Float[Tensor, "n d_of_all_tables"]:
    """What each operand token is embedded as; its row in each of the tables."""
    tables = operand_tables(snapshot).tables
    orders = operand_orders(snapshot) if len(tables) == 2 else (token_order(snapshot),)
    return torch.cat([table[order] for table, order in zip(tables, orders, strict=True)], dim=1)


def _of_classes(
    snapshot: Snapshot, matrix: Float[Tensor, "d d_vocab_out"]
) -> Float[Tensor, " n_frequencies_and_constant"]:
    """Power of a matrix along the answer classes, in the order of the task's group."""
    return spectrum(matrix.T[answer_order(snapshot)]).sum(dim=1)
