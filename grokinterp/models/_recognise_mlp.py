"""Whose MLP is this? A multilayer perceptron on operand pairs, from names and shapes alone.

Matrices stand under any names, as torch.nn.Linear has them ([out, in]) or the other way round, with
biases or without; `mlp_readings` says in which ways they can be read. Where that is more than one,
the usual reading is taken, with the others beside it. What is no matrix, no bias and no buffer by
its name is refused: it may be a part of the forward.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from grokinterp.base.errors import InputError, names, one_line, shown
from grokinterp.models.architecture import LARGEST_OF, Weights, is_bias, refuse_not_finite
from grokinterp.models.foreign_names import NORM, POSITION, has_attention, other_architecture
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.models.mlp_readings import Matrix, Reading, is_matrix, readings, tables_in
from grokinterp.models.network_in import COPIES, Network, network_in
from grokinterp.models.recognised import Recognised, in_one_precision

WHAT = "a multilayer perceptron"
_BUFFER = re.compile(r"(^|[._])(\w*basis|dft\w*|fourier\w*|freqs?|omegas?|\w*mask)$")
_BIAS = re.compile(r"b\d*|\w*bias\w*")
_ITSELF = "give the module itself: gi.snapshot(model, task)"


@dataclass(frozen=True, kw_only=True)
class RecognisedMLP(Recognised):
    """How a state dict of an MLP is read, and its architecture."""

    architecture: MLPArchitecture
    reading: Reading
    biases: Mapping[str, str]  # of a layer, or of a table, by the name of its matrix
    shapes: Mapping[str, tuple[int, ...]]  # of all its tensors, as they are stored

    def weights(self, state: Mapping[str, Tensor], where: str) -> Weights:
        """A state dict of this layout as canonical weights."""
        found = _parts(state, network_in(state, where, prefix=self.prefix), where).weights
        reading, shape = self.reading, self.architecture
        for name in sorted(self.shapes.keys() | found.keys()):
            there = tuple(found[name].shape) if name in found else "missing"
            wanted = self.shapes.get(name, "missing")
            if there != wanted:
                raise InputError(
                    f"{where}: weight {shown(name)} is {there}, and {wanted} in the last of its "
                    "checkpoints; leave it out."
                )
        tables = [self._table(matrix, found) for matrix in reading.tables]
        layers = [matrix.of(found) for matrix in reading.layers]
        offsets = [found.get(self.biases.get(matrix.name, "")) for matrix in reading.layers]
        if reading.straight:
            layers.insert(0, torch.cat(tables))
            offsets.insert(0, found.get(self.biases.get("", "")))
        if reading.tied:
            layers.append(tables[0].T)
            offsets.append(None)
        if reading.linear_end:
            *layers, before, last = layers
            *offsets, first, second = offsets
            moved = last.new_zeros(last.shape[1]) if first is None else _product(first, last)
            layers.append(_product(before, last))
            offsets.append(moved if second is None else moved + second)
        named = shape.parameter_shapes()
        embeddings = [] if reading.straight else tables
        made = dict(zip(dict.fromkeys(shape.tables), embeddings, strict=True))
        inner = [name for name in named if name not in made]
        for name, weight in zip(inner[::2], layers, strict=True):
            made[name] = weight
        for name, offset in zip(inner[1::2], offsets, strict=True):
            made[name] = layers[0].new_zeros(named[name]) if offset is None else offset
        shape.check(made)
        diverged = "the training diverged before it was saved: leave this checkpoint out"
        refuse_not_finite(made, where, diverged)
        return {name: made[name].contiguous() for name in named}

    def _table(self, matrix: Matrix, found: Mapping[str, Tensor]) -> Tensor:
        """The rows of an operand; the bias of a linear layer on one-hot vectors is in every row."""
        offset = found.get(self.biases.get(matrix.name, ""))
        return matrix.of(found) if offset is None else matrix.of(found) + offset

    @property
    def described(self) -> str:
        """How the operands come in, and the sizes from input to output."""
        shape = self.architecture
        how = "concatenated" if shape.combine == "concat" else "summed"
        vectors = "one-hot"
        if shape.d_embed:
            vectors = "each with an embedding" if shape.separate else "embedded"
        sizes = " -> ".join(map(str, (shape.d_input, *shape.widths, shape.n_classes)))
        turned = self.reading.squares_turned
        axes = "[out, in]" if turned else "[in, out]"
        squares = "" if turned is None else f", square matrices {axes}"
        end = ", the last two layers as one, without a nonlinearity between them"
        end = end if self.reading.linear_end else ""
        return f"an MLP of a and b, {vectors} and {how}, {sizes}{squares}{end}"

    def held(self, rows: int) -> int:
        """Neurons before and after the nonlinearity, and embeddings."""
        return rows * (4 * sum(self.architecture.widths) + 4 * self.architecture.d_embed)

    @property
    def parts(self) -> str:
        """Neurons."""
        return f"{sum(self.architecture.widths)} neurons"


def recognise_mlp(
    state: Mapping[str, Tensor],
    network: Network,
    given: Mapping[str, Any],
    where: str,
    *,
    p: int | None = None,
) -> RecognisedMLP | None:
    """The MLP whose weights these are; None where they are of something else.

    `given` is what somebody says of its architecture: `act_fn`, which no weights say, and sizes,
    which have to agree, as has `p`. InputError for an MLP that no reading makes sense of.
    """
    if has_attention(network.names.values()):
        return None
    parts = _parts(state, network, where)
    if not parts.matrices or other_architecture({**parts.weights, **parts.left_out}) is not None:
        return None
    parts.refuse_not_understood()
    if len(parts.matrices) > (most := LARGEST_OF["n_layers"]):
        n = len(parts.matrices)
        raise InputError(f"{where} has {n} layers; a network of at most {most} is read.")
    found = readings(parts.matrices)
    if not found:
        raise parts.unfit()
    hints = {len(x) for x in parts.left_out.values() if x.ndim == 2 and x.shape[0] == x.shape[1]}
    for wanted in (set() if p is None else {p}, hints):
        found = [each for each in found if each.p in wanted] or found
    biases = [parts.biases(each) for each in found]
    if all(unplaced for _, unplaced in biases):
        raise parts.not_understood(biases[0][1])
    first, *others = (
        _recognised(each, placed, parts, network, given)
        for each, (placed, unplaced) in zip(found, biases, strict=True)
        if not unplaced
    )
    architecture = first.architecture
    for key, value in given.items():
        has = getattr(architecture, key, value)
        if value != has:
            raise InputError(
                f"{key}={value} contradicts the weights of {where}, which have {key}={has}; "
                "correct it or leave it out."
            )
    return replace(first, others=tuple(others))


def _recognised(
    reading: Reading, biases: Mapping[str, str], parts: "_Parts", network: Network,
    given: Mapping[str, Any],
) -> RecognisedMLP:  # fmt: skip
    made = RecognisedMLP(
        layout="perceptron", reading=reading, biases=biases,
        shapes={name: tuple(x.shape) for name, x in parts.weights.items()},
        architecture=MLPArchitecture(**reading.sizes, act_fn=given.get("act_fn") or "relu"),
        assumed=() if given.get("act_fn") else ("act_fn",),
    )  # fmt: skip
    notes = [*network.notes, *parts.notes, f"read as {made.described}"]
    if len(reading.tables) == 2:
        notes.append("{} is taken to be of a, {} of b".format(*(x.name for x in reading.tables)))
    if made.architecture.d_embed and made.architecture.combine == "sum":
        notes.append(
            "embeddings are taken to be added up; if the code takes their mean, as nn.EmbeddingBag "
            "does, halve the embedding in the file"
        )
    if reading.tied:
        notes.append("no last matrix: taken to be the embedding's own (a tied unembedding)")
    return replace(made, notes=tuple(notes))


@dataclass(frozen=True)
class _Parts:
    """The tensors of a file without wrappers: weights, and what is no weight."""

    where: str
    weights: dict[str, Tensor]
    left_out: dict[str, Tensor]  # buffers by their names
    notes: tuple[str, ...]

    @cached_property
    def matrices(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the matrices of layers and tables by name, in the order of the file."""
        return {
            name: tuple(x.shape) for name, x in self.weights.items()
            if x.ndim == 2 and 0 not in x.shape and is_matrix(name)
        }  # fmt: skip

    @cached_property
    def offsets(self) -> list[str]:
        """Names of the biases."""
        return [
            name for name, x in self.weights.items()
            if x.ndim == 1 and (is_bias(name) or _BIAS.fullmatch(name.rpartition(".")[2]))
        ]  # fmt: skip

    def refuse_not_understood(self) -> None:
        """InputError for norms, positions, and whatever is neither a matrix nor a bias."""
        norms = [name for name in self.weights if NORM.search(name)]
        scales = [
            name for name, x in self.weights.items()
            if x.ndim == 1 and name.rpartition(".")[2] in ("weight", "running_mean")
        ]  # fmt: skip
        if norms or scales:
            raise InputError(
                f"{self.where} holds {WHAT} with normalisation layers ({names(norms or scales)}), "
                f"which an MLP has no place for here; {_ITSELF}."
            )
        positions = [name for name in self.weights if POSITION.search(name)]
        known = {*self.matrices, *self.offsets} - {*positions}
        if unknown := [name for name in self.weights if name not in known]:
            raise self.not_understood(unknown)

    def not_understood(self, unknown: Sequence[str]) -> InputError:
        """The error about tensors that no layer of an MLP is."""
        return InputError(
            f"{self.where} holds {WHAT} with {names(unknown)}, which is not understood; take out "
            f"what the network does not use, or {_ITSELF}."
        )

    def unfit(self) -> InputError:
        """The error about matrices that fit no two operands."""
        shapes = self.matrices
        if len(shapes) == len(tables_in(shapes)):
            return InputError(f"{self.where} holds an embedding alone; give all of the network.")
        if len(shapes) == 1:
            (only,) = shapes.values()
            return InputError(
                f"{self.where} holds a linear model ({only[1]} -> {only[0]}), which has no hidden "
                f"layer; {_ITSELF}."
            )
        listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:4])
        inner = [name.partition(".")[2] for name in shapes]
        several = any("." in name and inner.count(name) > 1 for name in inner[:20])
        return InputError(
            f"{self.where} holds {WHAT} ({one_line(listed, most=100)}) that does not read two "
            "operands of as many tokens as it has classes, p: that takes p or 2 p inputs, or d or "
            "2 d of embeddings [p, d]; "
            f"{'set prefix= if it is one of several networks, or ' if several else ''}{_ITSELF}."
        )

    def biases(self, reading: Reading) -> tuple[dict[str, str], list[str]]:
        """The bias of each layer by the name of its matrix, and those that no layer has.

        "" is the first layer where the tables are that. One of no name like a matrix's belongs to
        the one layer of its width that has none.
        """
        widths = {matrix.name: matrix.d_out for matrix in reading.layers}
        first = {"": reading.tables[0].d_out} if reading.straight else {}
        # One for both operands would be added once or twice: nobody knows.
        own = {x.name: x.d_out for x in reading.tables if len(reading.tables) == 2}
        found = {
            matrix: partner for matrix, width in (widths | own).items()
            if (partner := _partner(matrix)) in self.offsets
            and len(self.weights[partner]) == width
        }  # fmt: skip
        unplaced, placed = [], {*found.values()}
        for name in self.offsets:
            if name in placed:
                continue
            n = len(self.weights[name])
            free = [x for x, width in (first | widths).items() if x not in found and n == width]
            if len(free) == 1:
                found[free[0]] = name
            else:
                unplaced.append(name)
        return found, unplaced


def _product(one: Tensor, other: Tensor) -> Tensor:
    """In float64, so that how the two are stored does not show in float32."""
    return (one.double() @ other.double()).to(one.dtype)


def _partner(matrix: str) -> str:
    """The name of the bias that belongs to a matrix.

    >>> [_partner(name) for name in ("fc1.weight", "mlp.W_in", "w1")]
    ['fc1.bias', 'mlp.b_in', 'b1']
    """
    layer, dot, last = matrix.rpartition(".")
    return layer + dot + re.sub("weight|kernel", "bias", re.sub(r"^[Ww](?!eight)", "b", last))


def _parts(state: Mapping[str, Tensor], network: Network, where: str) -> _Parts:
    """The tensors of a network, without buffers and copies by their names."""
    keys = {**network.names, **({} if network.given else {key: key for key in network.beside})}
    copies = [
        key for key, name in keys.items()
        if COPIES & {*re.split(r"[._]", name.lower().rpartition(".")[0])}
    ]  # fmt: skip
    copies = [] if len(copies) == len(keys) else copies
    weights: dict[str, Tensor] = {}
    left_out: dict[str, Tensor] = {}
    for key, name in keys.items():
        if key in copies:
            continue
        if name in weights or name in left_out:
            raise InputError(
                f"two of the weights are both {shown(name)}: {shown(key)} is one of them; keep one."
            )
        no_weight = _BUFFER.search(name) or not state[key].is_floating_point()
        (left_out if no_weight else weights)[name] = state[key]
    notes = []
    if left_out:
        notes.append(f"read without {names(left_out)}, by name or type no part of the forward")
    if copies:
        notes.append(f"left out are copies by their names: {names(copies)}")
    return _Parts(where, in_one_precision(weights), left_out, tuple(notes))
