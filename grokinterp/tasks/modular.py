"""What is the task of modular arithmetic? Its pairs of operands, how they are read, answers."""

import warnings
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from grokinterp.base.checks import is_left_out, truth, whole
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.keys import key
from grokinterp.tasks.answer_group import UNDEFINED, AnswerGroup, find_group, is_prime
from grokinterp.tasks.layout import OPERANDS, USUAL, Layout
from grokinterp.tasks.operations import OPERATIONS, get_operation
from grokinterp.tasks.task import Task, register_task

LARGEST_P = 10_000  # beyond it the table of p*p pairs fits into no memory
IDS = ("token_ids", "operand_ids", "answer_ids")
Ids = int | tuple[int, ...]  # the first of consecutive ones, or all


def _ids(given: Any) -> Ids | None:
    several = tuple(given) if isinstance(given, list | tuple) else ()
    return several or whole_number(given)


def _ids_of_words(given: Any) -> tuple[tuple[str, int], ...] | tuple[int, ...] | None:
    """Ids in their order, or pairs of a word and its id, whose order says nothing."""
    parts = given.items() if isinstance(given, Mapping) else given
    parts = parts if isinstance(given, Mapping | list | tuple) else ()
    several = [tuple(x) if isinstance(x, list) else x for x in parts]
    if all(isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], str) for x in several):
        several.sort(key=lambda pair: pair[0])
    return tuple(several) or None


@register_task("modular")
@dataclass(frozen=True, repr=False)
class ModularTask(Task):
    """One binary operation mod p over its pairs of operands, a outer and b inner.

    Row `a*p + b` where all pairs have an answer; a division leaves b = 0 out. `operands` has the
    pair of every row. `seed` fixes the labels of a random operation and means nothing for others.

    `layout` is the sequence that a model reads, such as `"a op b ="`, whose last position is that
    of the answer; `grokinterp.tasks.layout` says which token every word is, and what ids change of
    it. Without a layout `equals_token` says whether it is `"a b ="` or `"a b"`; in any layout it is
    whether the last word is no operand.

    >>> task = ModularTask("add", p=5)
    >>> task.n_inputs, task.tokens[7].tolist(), task.labels[7].item()
    (25, [1, 2, 5], 3)
    >>> task = ModularTask("divide", p=5, layout="a op b =", token_ids={"op": 6, "=": 5})
    >>> task.n_inputs, task.operands[6].tolist(), task.tokens[6].tolist(), task.labels[6].item()
    (20, [1, 3], [1, 6, 3, 5], 2)

    InputError for an operation that is not known or no formula, a layout that is none, and ids that
    are not one for each.
    """

    usual_model: ClassVar[str] = "transformer"

    operation: str = key(
        usual="add", help="what is learned: a name, or a formula such as a*b + a",
        synonyms=("fn_name",), wanted="text", read=lambda given: get_operation(given).name,
    )  # fmt: skip
    p: int = key(usual=113, help="the modulus", most=LARGEST_P, synonyms=("modulus",))
    equals_token: bool = key(None, usual=True, help='the inputs are [a, b, "="], otherwise [a, b]')
    _: KW_ONLY
    seed: int = key(
        0, name="data_seed", least=0, most=2**40,
        help="of the split, and of the labels of a random operation",
    )  # fmt: skip
    layout: str | None = key(
        None, replaces=("equals_token",), wanted='words such as "a op b ="',
        help='what the model reads, such as "a op b =", the answer at its end',
        read=lambda given: " ".join(given.split()) if isinstance(given, str) else None,
    )  # fmt: skip
    token_ids: tuple[Any, ...] | None = key(
        None, read=_ids_of_words, wanted='a table such as {op = 97, "=" = 98}',
        help="of the other words of the layout, where these are not p, p + 1, ...",
    )  # fmt: skip
    operand_ids: Ids | None = key(  # noqa: RUF009
        None, read=_ids, wanted="the first of p consecutive ids, or a list of p",
        help="of the operands, where these are not 0 to p-1: the first, or all",
    )  # fmt: skip
    answer_ids: Ids | None = key(  # noqa: RUF009
        None, read=_ids, wanted="the first of p consecutive classes, or a list of p",
        help="the logits of the answers, where these are not 0 to p-1: the first, or all",
    )  # fmt: skip

    def __post_init__(self) -> None:
        p = whole("p", self.p, least=2, most=LARGEST_P, such_as="113")
        seed = whole("seed", self.seed, least=-(2**63), most=2**63 - 1, such_as="0")
        operation = get_operation(self.operation)
        operation.check(p, seed)
        ends = None if self.equals_token is None else truth("equals_token", self.equals_token)
        words = USUAL[ends is not False] if self.layout in (None, "") else self.layout
        given = {name: getattr(self, name) for name in IDS}
        read = Layout.of(words, p, **given)
        equals = read.words[-1] not in OPERANDS
        if ends not in (None, equals):
            raise InputError(
                f"equals_token={ends} contradicts layout={shown(read.text)}; give one of them, and "
                "None for the other."
            )
        kept = {
            "token_ids": tuple(read.id_of.items()),
            "operand_ids": _first_or_all(read.operand_ids),
            "answer_ids": _first_or_all(read.answer_ids),
        }
        made = {
            "p": p, "seed": seed, "equals_token": equals, "operation": operation.name,
            "layout": read.text,
            **{name: None if is_left_out(given[name]) else kept[name] for name in IDS},
        }  # fmt: skip
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        shown_fields = {**{name: getattr(self, name) for name in _ALWAYS}, **self._more()}
        return f"ModularTask({', '.join(f'{name}={x!r}' for name, x in shown_fields.items())})"

    def to_dict(self) -> dict[str, object]:
        """What `task_from_dict` needs to build the same task again; the layout if it is unusual."""
        own = {name: getattr(self, name) for name in _ALWAYS}
        return {"task": self.registered_kind("task"), **own, **self._more()}

    def _more(self) -> dict[str, Any]:
        """The fields that 0.2.0 does not have, where they are not as in its tasks."""
        more = {} if self.layout in USUAL.values() else {"layout": self.layout}
        return more | {name: x for name in IDS if (x := getattr(self, name)) is not None}

    @property
    def modular(self) -> "ModularTask":
        """Itself."""
        return self

    @cached_property
    def reads(self) -> Layout:
        """The layout with all ids."""
        given = {name: getattr(self, name) for name in IDS}
        return Layout.of(self.layout, self.p, **given)

    @property
    def sizes_may_be_larger(self) -> bool:
        """Whether a model may have more tokens and positions: layout and ids were given."""
        return any(getattr(self, name) is not None for name in IDS)

    @cached_property
    def _table(self) -> Int[Tensor, " p_squared"]:
        """The answer of every pair, -1 of those that have none."""
        return get_operation(self.operation).table(self.p, self.seed)

    @cached_property
    def _left_out(self) -> bool:
        partial = get_operation(self.operation).partial
        return partial and bool((self._table == UNDEFINED).any())

    @property
    def n_inputs(self) -> int:
        """Number of operand pairs: p*p, less those without an answer."""
        return len(self.labels) if self._left_out else self.p * self.p

    @property
    def n_classes(self) -> int:
        """Number of answer classes, p: the "=" class of some models is not one of them."""
        return self.p

    @property
    def d_vocab(self) -> int:
        """Number of input tokens: p operands and every other word of the layout."""
        return self.reads.n_tokens

    @cached_property
    def operands(self) -> Int[Tensor, "n_inputs 2"]:
        """The operand pair of every row, in table order."""
        each = torch.arange(self.p)
        every = torch.cartesian_prod(each, each)
        return every[self._table != UNDEFINED] if self._left_out else every

    @property
    def inputs(self) -> Int[Tensor, "n_inputs 2"]:
        """The same under its name in 0.2.0, which works for one more release."""
        warnings.warn("task.inputs: write task.operands.", DeprecationWarning, stacklevel=2)
        return self.operands

    @cached_property
    def row_of(self) -> Int[Tensor, "p p"]:
        """The row of every pair [a, b]; -1 of those that are left out.

        >>> ModularTask("divide", p=3).row_of.tolist()
        [[-1, 0, 1], [-1, 2, 3], [-1, 4, 5]]
        """
        rows = torch.full((self.p, self.p), UNDEFINED)
        rows[self.operands[:, 0], self.operands[:, 1]] = torch.arange(self.n_inputs)
        return rows

    def on_grid(self, values: Num[Tensor, "n_inputs ..."]) -> Num[Tensor, "p p ..."]:
        """A value of every row as [a, b], NaN for pairs that are left out."""
        if not self._left_out:
            return values.view(self.p, self.p, *values.shape[1:])
        values = values if values.is_floating_point() else values.float()
        grid = values.new_full((self.p, self.p, *values.shape[1:]), torch.nan)
        grid[self.operands[:, 0], self.operands[:, 1]] = values
        return grid

    @cached_property
    def tokens(self) -> Int[Tensor, "n_inputs n_ctx"]:
        """What a model reads: the words of the layout."""
        return self.reads.tokens(self.operands)

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return f"{self.operation} mod {self.p}"

    @property
    def model_inputs(self) -> Int[Tensor, "n_inputs n_ctx"]:
        """What a model reads: the tokens."""
        return self.tokens

    @cached_property
    def labels(self) -> Int[Tensor, " n_inputs"]:
        """The right answer of every pair."""
        return self._table[self._table != UNDEFINED] if self._left_out else self._table

    @cached_property
    def targets(self) -> Int[Tensor, " n_inputs"]:
        """The class of the right answer among all that a model has."""
        return self.labels if self.reads.usual_answers else self.reads.answer_columns[self.labels]

    def of_answers(self, logits: Float[Tensor, "*n classes"]) -> Float[Tensor, "*n n_classes"]:
        """The logits of the answers among those of all classes."""
        return self.reads.of_answers(logits)

    def in_order(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights with operand tokens and answer classes first: themselves, but for other ids."""
        return weights if self.reads.in_own_order else self.reads.in_order(weights)

    @cached_property
    def mirrors(self) -> Int[Tensor, " n_inputs"] | None:
        """The row of (b, a), where (a, b) and (b, a) have the same label everywhere."""
        rows = self.row_of[self.operands[:, 1], self.operands[:, 0]]
        if bool((rows == UNDEFINED).any()):
            return None
        return rows if torch.equal(self.labels, self.labels[rows]) else None

    @cached_property
    def answer_group(self) -> AnswerGroup | None:
        """The group that carries the answer, or None: see `no_group_reason`."""
        operation = get_operation(self.operation)
        table = self._table.view(self.p, self.p)  # which refuses a group that it contradicts
        if operation.seeded and operation.group is None:
            return None
        kind = {None: None, "multiply": "multiply"}.get(operation.group, "add")
        if (found := find_group(table, order=kind)) is None:
            return None
        e, u, v, order = found
        a, b = u[self.operands[:, 0]], v[self.operands[:, 1]]
        of_input = ((a + b) % order).where((a != UNDEFINED) & (b != UNDEFINED), UNDEFINED)
        return AnswerGroup(order, e, of_input, u, v)

    @property
    def no_group_reason(self) -> str | None:
        """Why the answers have no Fourier directions, or None when they have."""
        if self.answer_group is not None:
            return None
        operation = get_operation(self.operation)
        if operation.group == "multiply" and not is_prime(self.p):
            return f"multiplication mod {self.p} has no discrete logarithm ({self.p} is no prime)"
        why = operation.no_group or (
            "its labels are drawn" if operation.seeded else
            f"its answers mod {self.p} are no sum u(a) + v(b)"
            + (" and no product u(a) v(b)" if is_prime(self.p) else "")
            + " that takes every value"
        )  # fmt: skip
        return f"the operation {self.operation!r} is not a function of one group exponent: {why}"

    def asks_the_same(self, other: Task) -> bool:
        """Whether another task has the same pairs with the same answers, however they are read."""
        theirs = other.modular
        if theirs is None or self.p != theirs.p or self.n_inputs != theirs.n_inputs:
            return False
        same_pairs = torch.equal(self.operands, theirs.operands)
        return same_pairs and torch.equal(self.labels, theirs.labels)

    def modules(self) -> set[str]:
        """That of its operation too, where it is no formula."""
        of_operation = {OPERATIONS.home(x) for x in [self.operation] if x in OPERATIONS}
        return {type(self).__module__, *of_operation}


_ALWAYS = ("operation", "p", "equals_token", "seed")


def _first_or_all(ids: tuple[int, ...]) -> Ids:
    """The first of consecutive ids, so that tasks which read the same are equal; else all."""
    return ids[0] if ids == (*range(ids[0], ids[0] + len(ids)),) else ids
