"""Which readings as an MLP do the names and shapes of matrices allow?

From first to last the layers are a chain: each gives as many numbers as the next one reads, and the
last has p classes. How the operands come in is what the first layer reads:

p, 2 p    one-hot vectors, summed or concatenated
d, 2 d    rows of an embedding [p, d], or of one for each operand, summed or concatenated

The last matrix may follow the one before it without a nonlinearity, as an unembedding does; both
are one then. Two tables [p, h] whose sum goes through the nonlinearity straight into the last layer
are the first matrix of the two-hot input.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, permutations, product
from typing import Any

from torch import Tensor

from grokinterp.models.foreign_names import is_table

Shapes = Mapping[str, tuple[int, ...]]  # of matrices, by name

MOST_PAIRED = 20  # matrices among which two tables of operands are looked for
MOST_PERMUTED = 5  # matrices whose order is looked for, where names do not say it
_MATRIX = re.compile(  # the last part of a matrix's name
    r"(\w*_)?(weights?|kernel|matrix|\d+|[UE])|[Ww](?!eight)\w{0,12}"
    r"|\w*(embed\w*|emb|wte|fc\w*|lin(ear)?\w*|hidden\w*|input\w*|output\w*|readout|head|proj\w*)"
)
_FIRST = re.compile(r"(^|[._])(W_in|fc_in|in|input\w*|in_\w+|first\w*)([._]|$)")
_LAST = re.compile(
    r"(^|[._])(un_?embed\w*|out(put)?\w*|fc_out|W_U|W_out|\w*head|classifier|readout|decoder"
    r"|last\w*|final\w*|logits?|U)([._]|$)"
)
_OWN = re.compile(r"blocks\.\d+\.mlp\.W_in|unembed\.W_U")  # of this package, [in, out]
_OPERANDS = (("a", "b"), ("x", "y"), ("i", "j"), ("l", "r"), ("left", "right"), ("lhs", "rhs"),
             ("first", "second"))  # fmt: skip
_STEM = r"(w|e|u|fc|emb|embed|embedding|lin|linear|proj|in)?_?"  # before an operand in a part


@dataclass(frozen=True)
class Matrix:
    """A matrix of a file by its name, and how it is to be read: [in, out]."""

    name: str
    turned: bool  # stored as [out, in]
    d_in: int
    d_out: int

    def of(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Its numbers [in, out]."""
        stored = weights[self.name]
        return stored.T if self.turned else stored


@dataclass(frozen=True)
class Reading:
    """Which of the matrices are tables of operands, and which layers, from first to last."""

    tables: tuple[Matrix, ...]  # [p, d] of both operands, or of a and of b
    layers: tuple[Matrix, ...]
    straight: bool = False  # the tables are the first layer
    tied: bool = False  # the table is the last layer too
    linear_end: bool = False  # no nonlinearity before the last layer

    @property
    def p(self) -> int:
        """The number of classes."""
        return self.tables[0].d_in if self.tied else self.layers[-1].d_out

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the hidden layers."""
        first = (self.tables[0].d_out,) if self.straight else ()
        inner = self.layers if self.tied else self.layers[:-1]
        every = (*first, *(layer.d_out for layer in inner))
        return every[:-1] if self.linear_end else every

    @property
    def squares_turned(self) -> bool | None:
        """How its square matrices are read, where nothing but the answers says it."""
        free = (x.turned for x in self.layers if x.d_in == x.d_out and _turned(x.name) is None)
        return next(free, None)

    @property
    def sizes(self) -> dict[str, Any]:
        """What `MLPArchitecture` is made from."""
        p, embedded = self.p, bool(self.tables) and not self.straight
        summed = len(self.tables) == 1 if self.straight else (
            self.layers[0].d_in == (self.tables[0].d_out if embedded else p)
        )  # fmt: skip
        return {
            "p": p, "n_classes": p, "widths": self.widths,
            "d_embed": self.tables[0].d_out if embedded else 0,
            "combine": "sum" if summed else "concat",
            "separate": embedded and len(self.tables) == 2,
        }  # fmt: skip


def readings(shapes: Shapes) -> list[Reading]:
    """All that the shapes allow, the usual one first.

    Usual are a nonlinearity after every layer, hidden layers wider than p, and embeddings without a
    nonlinearity of their own.

    >>> readings({"W_in": (32, 7), "W_out": (7, 32)})[0].sizes["combine"]
    'sum'
    """
    tables = tables_in(shapes)
    orders = _orders([name for name in shapes if name not in tables])
    tried = chain(
        (_with_tables(shapes, tables, order) for order in orders[:2]),
        # An embedding in an nn.Sequential has the name of a layer.
        (_with_tables(shapes, order[:1], order[1:]) for order in orders[:2] if not tables),
        (_with_tables(shapes, tables, order) for order in orders[2:]),
        (_tied(shapes, tables, order) for order in orders[:1]),
    )
    found = next((found for each in tried if (found := [*dict.fromkeys(each)])), [])
    found = [each for each in found if each.p > 1]
    found += [replace(each, linear_end=True) for each in found if len(each.widths) > 1]
    return sorted(
        found, key=lambda each: (each.linear_end, min(each.widths) < each.p, each.straight)
    )


def tables_in(shapes: Shapes) -> list[str]:
    """The names of the embedding, or of one for each operand, a's first."""
    named = [x for x in shapes if _is_embedding(x, shapes[x])]
    if named:
        return sorted(named, key=_natural)
    for one, other in permutations(list(shapes)[:MOST_PAIRED], 2):
        if shapes[one] == shapes[other] and _are_operands(one, other):
            return [one, other]
    return []


def _is_embedding(name: str, shape: tuple[int, ...]) -> bool:
    return (is_table(name, shape) and not _LAST.search(name)) or name.rpartition(".")[2] == "E"


def is_matrix(name: str) -> bool:
    """Whether a name is that of a layer's matrix, or of a table.

    >>> is_matrix("net.0.weight"), is_matrix("W_in"), is_matrix("b")
    (True, True, False)
    """
    return bool(_MATRIX.fullmatch(name.rpartition(".")[2]))


def _chains(shapes: Shapes, order: Sequence[str]) -> Iterator[tuple[Matrix, ...]]:
    """Ways to read matrices so that each gives what the next one reads.

    Square ones may be read either way, and then all are alike.
    """
    for start_turned, squares_turned in product((True, False), repeat=2) if order else ():
        layers: list[Matrix] = []
        for name in order:
            rows, columns = shapes[name]
            turned = _turned(name)
            if turned is None and rows == columns:
                turned = squares_turned
            elif turned is None:
                turned = columns == layers[-1].d_out if layers else start_turned
            d_in, d_out = (columns, rows) if turned else (rows, columns)
            if layers and d_in != layers[-1].d_out:
                break
            layers.append(Matrix(name, turned, d_in, d_out))
        else:
            yield tuple(layers)


def _with_tables(shapes: Shapes, names: Sequence[str], order: Sequence[str]) -> Iterator[Reading]:
    """How the operands come in, by what the first layer reads."""
    for layers in _chains(shapes, order):
        d_in, p = layers[0].d_in, layers[-1].d_out
        if not names and len(layers) > 1 and d_in in (p, 2 * p):
            yield Reading((), layers)
        tables = tuple(found for name in names if (found := _table(shapes, name, p)))
        widths = {table.d_out for table in tables}
        if len(names) not in (1, 2) or len(tables) < len(names) or len(widths) > 1:
            continue
        (d,) = widths
        if len(layers) > 1 and d_in in (d, 2 * d):
            yield Reading(tables, layers)
        if d_in == d and (len(layers) == 1 or len(tables) == 2):
            yield Reading(tables, layers, straight=True)


def _tied(shapes: Shapes, names: Sequence[str], order: Sequence[str]) -> Iterator[Reading]:
    """With the one embedding in the place of a last matrix that is not there."""
    for layers in _chains(shapes, order) if len(names) == 1 else ():
        p, d = shapes[names[0]]
        if layers[-1].d_out == d and d != p and layers[0].d_in in (d, 2 * d):
            yield Reading((Matrix(names[0], False, p, d),), layers, tied=True)


def _table(shapes: Shapes, name: str, p: int) -> Matrix | None:
    """A table of p rows, as it is stored or turned; None where no axis is that long."""
    rows, columns = shapes[name]
    # A square one is [p, d], unless it is one of the linear layers of each operand by its name.
    linear = _turned(name) is True and re.search("[A-Za-z]", name.rpartition(".")[0]) is not None
    linear = linear and not _is_embedding(name, (rows, columns))
    turned = columns == p and (rows != p or linear)
    if not turned and rows != p:
        return None
    return Matrix(name, turned, p, rows if turned else columns)


def _turned(name: str) -> bool | None:
    """Whether a matrix is stored [out, in]; None where its name does not say it.

    >>> _turned("fc1.weight"), _turned("unembed.W_U"), _turned("W_1")
    (True, False, None)
    """
    last = name.rpartition(".")[2]
    if last == "weight":
        return True
    return False if last == "kernel" or _OWN.fullmatch(name) else None


def _orders(given: Sequence[str]) -> list[tuple[str, ...]]:
    """Orders of layers: by their names, as the file has them, and then any other.

    >>> _orders(["out.weight", "hidden.1.weight", "hidden.0.weight"])[0]
    ('hidden.0.weight', 'hidden.1.weight', 'out.weight')
    """
    by_name = sorted(given, key=lambda name: (_rank(name), _natural(name)))
    others: Iterable[tuple[str, ...]] = ()
    if len(given) <= MOST_PERMUTED:
        others = permutations(given)
    return list(dict.fromkeys(chain((tuple(by_name), tuple(given)), others)))


def _rank(name: str) -> int:
    return 2 if _LAST.search(name) else 0 if _FIRST.search(name) else 1


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(x), "") if x.isdecimal() else (-1, x) for x in re.split(r"(\d+)", name)]


def _are_operands(one: str, other: str) -> bool:
    """Whether two names differ by an operand alone, a's first.

    >>> _are_operands("W_x", "W_y"), _are_operands("fc1.weight", "fc2.weight")
    (True, False)
    """
    parts = [(x, y) for x, y in zip(one.split("."), other.split("."), strict=False) if x != y]
    if one.count(".") != other.count(".") or len(parts) != 1:
        return False
    x, y = (part.lower() for part in parts[0])
    for first, second in _OPERANDS:
        stem = x.removesuffix(first)
        if stem != x and stem + second == y and re.fullmatch(_STEM, stem):
            return True
    return False
