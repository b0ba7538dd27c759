"""Operations on tensors whose leading axis counts members: models that are computed side by side.

Each is the operation of one model, batched, so that a member's numbers do not depend on the others.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.architecture import attention_softmax

ALIGNED = 4  # float32 numbers, 16 bytes
TINY = 400  # multiplications, as in torch's bmm on a CPU: fewer are rounded otherwise there


def affine(
    x: Float[Tensor, "members rows d_in"],
    weight: Float[Tensor, "members d_in d_out"],
    bias: Float[Tensor, "members d_out"],
) -> Float[Tensor, "members rows d_out"]:
    """`x @ weight + bias` of every member."""
    if _apart(x, weight):
        each = zip(bias, x, weight, strict=True)
        return torch.stack([torch.addmm(b, _moved(rows), _moved(w)) for b, rows, w in each])
    return torch.baddbmm(bias[:, None], x, weight)


def affine_gradients(
    x: Float[Tensor, "members rows d_in"], upstream: Float[Tensor, "members rows d_out"]
) -> tuple[Float[Tensor, "members d_in d_out"], Float[Tensor, "members d_out"]]:
    """Gradients by the weight and the bias of `affine`."""
    return product(x.mT, upstream), upstream.sum(dim=1)


def product(
    left: Float[Tensor, "members rows inner"], right: Float[Tensor, "members inner columns"]
) -> Float[Tensor, "members rows columns"]:
    """`left @ right` of every member."""
    if _apart(left, right):
        each = zip(left, right, strict=True)
        return torch.stack([_moved(a) @ _moved(b) for a, b in each])
    return left @ right


def softmax_over_places(
    scores: Float[Tensor, "members n_ctx n n_heads"],
) -> Float[Tensor, "members n_ctx n n_heads"]:
    """The softmax over key positions.

    On a CPU a member at a time: torch splits it among its threads, and what is left over in each
    part behind the last whole vector is rounded otherwise.
    """
    if scores.device.type == "cpu":
        return torch.stack([attention_softmax(each, dim=0) for each in scores])
    return attention_softmax(scores, dim=1)


def _apart(left: Tensor, right: Tensor) -> bool:
    """Whether a batched product would be rounded otherwise than a single one, on a CPU.

    So it is where torch multiplies a few numbers by itself, and where members begin at addresses
    that no matrix of its own begins at.
    """
    (rows, inner), columns = left.shape[1:], right.shape[2]
    sizes = (rows * inner, inner * columns, rows * columns)
    return left.device.type == "cpu" and (
        rows * inner * columns < TINY or any(size % ALIGNED for size in sizes)
    )


def _moved(x: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The matrix at an address of its own, in the same order of memory."""
    return x.clone() if x[:1].storage_offset() % ALIGNED else x


def flat(rows: Int[Tensor, "members n"], n_rows: int) -> Int[Tensor, " all_rows"]:
    """Rows of each member's own table of `n_rows`, counted through all tables.

    >>> flat(torch.tensor([[0, 2], [1, 1]]), 3).tolist()
    [0, 2, 4, 4]
    """
    first = torch.arange(len(rows), device=rows.device) * n_rows
    return (rows + first[:, None]).flatten()


@dataclass(frozen=True)
class Lookup:
    """A table a member, and the row of it that every input reads; without `rows` it has one row.

    `rows` are counted through all tables, as by `flat`.
    """

    table: Float[Tensor, "members n_rows ..."]
    rows: Int[Tensor, " all_rows"] | None = None

    def read(self) -> Float[Tensor, "members n_or_1 ..."]:
        """What every input reads, [members, n, ...], or [members, 1, ...] where that is one row."""
        if self.rows is None:
            return self.table
        # index_select, not table[rows]: its backward is a scatter-add, far faster on a CPU.
        return (
            self.table.flatten(0, 1).index_select(0, self.rows).unflatten(0, (len(self.table), -1))
        )

    def add_gradient(
        self,
        total: Float[Tensor, "members n_rows ..."],
        upstream: Float[Tensor, "members n ..."],
    ) -> None:
        """Add the gradient by the table, from the one by what every input has read."""
        if self.rows is None:
            total.add_(upstream.sum(dim=1, keepdim=True))
        else:
            total.view(-1, *total.shape[2:]).index_add_(0, self.rows, upstream.flatten(0, 1))


def mean_loss_gradients(
    logits: Float[Tensor, "members n n_classes"], labels: Int[Tensor, "members n"]
) -> Float[Tensor, "members n n_classes"]:
    """Gradient of every member's mean cross-entropy by its logits, see `mean_loss_gradient`."""
    right = labels[..., None]
    wrong = logits.softmax(dim=2).scatter_(2, right, 0.0)
    return wrong.scatter_(2, right, -wrong.sum(dim=2, keepdim=True)).div_(labels.shape[1])
