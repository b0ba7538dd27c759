"""How far do the distances within a cloud keep when a group moves its points?

A cloud has one point per element of a group. Its Gram matrix G (centred) is compared with its
average over the moves (g, h) -> (x g, x h) of all pairs: the part of G that the group leaves as it
is. The average is over orbits of pairs, those with one g^-1 h; of a cyclic group the circulant
diagonals. Nothing here needs to know a frequency or a representation.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.checks import cloud, tensor
from grokinterp.base.errors import InputError, shown

ALIKE = 1e-12  # of the size of the Gram matrix: pairs that differ by less differ by rounding
CELLS = 2**20  # of the Gram matrix, permuted at once


def group_symmetry(points: Float[Tensor, "n d"], group: Int[Tensor, "n n"] | None = None) -> float:
    r"""Which share of the structure of a cloud keeps when the group moves its points? From 0 to 1.

    points [n, d], one per element of the group. G = X X^T of the centred points, its diagonal left
    out and the mean of the rest taken out; G~ its average over the moves G[g, h] -> G[xg, xh];
    the share is |G~|^2 / |G|^2. 1: the group permutes the points as rotations and reflections
    would; about 1 / n for points without structure (2 / n where all elements are their own
    inverses). It is a squared linear CKA of the cloud with its symmetrised Gram
    (Kornblith et al. 2019, arXiv 1905.00414) without the diagonal, which every group keeps: with
    it a random cloud scores about a half. The measure is this package's own.

    `group` is a multiplication table, the number of g h at [g, h]; give its transpose for moves
    from the right. Without one, points are in the order of a cyclic group. NaN where all pairs are
    alike, as of a regular simplex. InputError for a table that is no group's, of another size than
    the cloud, and for points that are not finite.

    It does not say which symmetry there is beyond the group's, nor that the network uses it.

    >>> import math, torch
    >>> angles = 2 * math.pi * torch.arange(12) / 12
    >>> circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    >>> round(group_symmetry(circle), 6)
    1.0
    >>> shuffled = circle[torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    >>> round(group_symmetry(shuffled), 2)
    0.09
    """
    found = cloud("points", points)
    gram = centred_gram(found / (found.abs().max() or 1.0))
    return symmetry_of(gram, orbits_of(group, len(gram)))


def centred_gram(points: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """Inner products of the centred points, 0 on the diagonal, mean 0 off it (float64)."""
    centred = points.double() - points.double().mean(dim=0)
    gram = centred @ centred.T
    n, size = len(gram), float(gram.abs().max()) if len(gram) else 0.0
    gram.fill_diagonal_(0.0)
    gram -= gram.sum() / max(n * (n - 1), 1)
    gram.fill_diagonal_(0.0)
    return torch.where(gram.abs() > ALIKE * size, gram, 0.0)


def symmetry_of(gram: Float[Tensor, "n n"], orbits: Int[Tensor, "n n"]) -> float:
    """The share of a `centred_gram` that is the same on every orbit; NaN where it is 0.

    Where points are left out, orbits are parts of them and averages are over the pairs there are.
    """
    total = float(gram.square().sum())
    kept = _kept(gram.flatten(), orbits.flatten(), int(orbits.max()) + 1)
    return float(kept.sum()) / total if total > 0 else math.nan


def _kept(
    gram: Float[Tensor, " pairs"], orbits: Int[Tensor, " pairs"], n_orbits: int
) -> Float[Tensor, " n_orbits"]:
    """The sum of squares of every orbit's average."""
    sums = torch.bincount(orbits, weights=gram, minlength=n_orbits)
    return sums.square() / torch.bincount(orbits, minlength=n_orbits).clamp(min=1)


def permuted_symmetries(
    gram: Float[Tensor, "n n"], orbits: Int[Tensor, "n n"], *, n_null: int, seed: int
) -> Float[Tensor, " n_null"]:
    """The same of the points in `n_null` random orders: what it is without a symmetry."""
    n, total, n_orbits = len(gram), gram.square().sum(), int(orbits.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(n, generator=generator) for _ in range(n_null)])
    found = []
    for some in orders.split(max(1, CELLS // n**2)):
        moved = orbits[some[:, :, None], some[:, None, :]]
        moved = moved + n_orbits * torch.arange(len(some))[:, None, None]
        kept = _kept(gram.flatten().repeat(len(some)), moved.flatten(), n_orbits * len(some))
        found.append(kept.view(-1, n_orbits).sum(dim=1) / total)
    return torch.cat(found)


def orbits_of(group: Int[Tensor, "n n"] | None, n: int) -> Int[Tensor, "n n"]:
    """The number of g^-1 h for every pair, by which pairs are moved into each other.

    >>> orbits_of(None, 3).tolist()
    [[0, 1, 2], [2, 0, 1], [1, 2, 0]]
    """
    if group is None:
        each = torch.arange(n)
        return (each - each[:, None]) % n
    table = checked_table(group)
    if len(table) != n:
        raise InputError(
            f"group has {len(table)} elements and the cloud {n} points; give a table with an "
            "element per point."
        )
    return table[(table == _identity(table)).long().argmax(dim=1)]


def is_cyclic(group: Int[Tensor, "n n"]) -> bool:
    """Whether a table is that of Z_n with its elements in order, i + j mod n."""
    each = torch.arange(len(group))
    return torch.equal(group, (each + each[:, None]) % len(group))


def checked_table(group: Int[Tensor, "n n"]) -> Int[Tensor, "n n"]:
    """A multiplication table as int64; refused where it is that of no group."""
    table = tensor("group", group, ndim=2)
    n = len(table)
    wanted = "give the table of a group: the number of g h, from 0 to n - 1, at [g, h]"
    if table.is_floating_point() or table.is_complex() or table.dtype == torch.bool:
        raise InputError(f"group is {table.dtype}; {wanted}.")
    table, each = table.long(), torch.arange(n)
    in_each = (
        n > 0 and table.shape == (n, n) and torch.equal(table.sort(dim=1).values, each.expand(n, n))
    )
    if not (in_each and torch.equal(table.sort(dim=0).values, each[:, None].expand(n, n))):
        raise InputError(
            f"group={shown(group)} does not have every element once in each row and column; "
            f"{wanted}."
        )
    if not (table == each).all(dim=1).any() or not _associative(table):
        raise InputError(f"group has no neutral element, or (x y) z is not x (y z); {wanted}.")
    return table


def _identity(table: Int[Tensor, "n n"]) -> int:
    return int((table == torch.arange(len(table))).all(dim=1).long().argmax())


def _associative(table: Int[Tensor, "n n"]) -> bool:
    """(x y) z = x (y z) for all x, z and every y of a generating set, which proves it for all y."""
    reached = torch.zeros(len(table), dtype=torch.bool)
    reached[_identity(table)] = True
    while not bool(reached.all()):
        y = int((~reached).long().argmax())
        if not torch.equal(table[table[:, y]], table[:, table[y]]):
            return False
        reached[y] = True
        before = 0
        while before < int(reached.sum()):  # and all products of what is reached
            before = int(reached.sum())
            some = reached.nonzero().flatten()
            reached[table[some][:, some].flatten()] = True
    return True
