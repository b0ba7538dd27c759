"""What does a model read, and where does it answer? Words in a row, and the ids of all of them.

A layout is that sequence: `a op b =`. `a` and `b` are the operands, once each and in any order;
every other word is a token of its own, wherever it stands. The answer is read at the last position.

operand_ids   the token of every operand 0 to p-1: 0 to p-1 unless others are given
token_ids     the token of every other word: p, p + 1, ... in the order of their first appearance
answer_ids    the logit of every answer 0 to p-1: 0 to p-1 unless others are given

Ids are given as the first of consecutive ones, or one by one. So the code of Power et al. 2022
(arXiv 2201.02177, openai/grok: 239 tokens, the numbers after `<|eos|>`, "=" and the 20 operators in
the order of their text) is

    ModularTask("divide", 97, layout="eos a / b =", operand_ids=22, answer_ids=22,
                token_ids={"eos": 0, "=": 1, "/": 10})  # its tokenizer.stoi["/"]
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.checks import is_left_out
from grokinterp.base.errors import InputError, one_line, shown, whole_number

OPERANDS = ("a", "b")
USUAL = {True: "a b =", False: "a b"}  # by whether "=" follows the operands
MOST_WORDS = 64
LARGEST_ID = 1_000_000
_WANTED = 'give words between spaces, "a" and "b" once each, such as "a op b ="'


@dataclass(frozen=True)
class Layout:
    """Words in their order, and the ids of operands, of other words and of answers.

    >>> layout = Layout.of("a op b =", 7)
    >>> layout.others, layout.n_tokens, layout.tokens(torch.tensor([[2, 3]])).tolist()
    (('op', '='), 9, [[2, 7, 3, 8]])
    """

    words: tuple[str, ...]
    p: int
    operand_ids: tuple[int, ...]
    token_ids: tuple[int, ...]  # of `others`
    answer_ids: tuple[int, ...]

    @classmethod
    def of(
        cls,
        words: object,
        p: int,
        *,
        token_ids: object = None,
        operand_ids: object = None,
        answer_ids: object = None,
    ) -> "Layout":
        """The layout of these words, with ids as usual where none are given; else an InputError."""
        found = tuple(words.split()) if isinstance(words, str) else ()
        if any(found.count(operand) != 1 for operand in OPERANDS):
            raise InputError(f"layout={shown(words)} is no layout of two operands; {_WANTED}.")
        if len(found) > MOST_WORDS:
            raise InputError(f"layout has {len(found)} words; give at most {MOST_WORDS}.")
        others = _others(found)
        made = cls(
            found, p,
            _several("operand_ids", operand_ids, p),
            _of_words(token_ids, others, p),
            _several("answer_ids", answer_ids, p),
        )  # fmt: skip
        for name, ids in (
            ("operand_ids and token_ids", (*made.operand_ids, *made.token_ids)),
            ("answer_ids", made.answer_ids),
        ):
            if len(set(ids)) < len(ids):
                twice = next(x for x in ids if ids.count(x) > 1)
                raise InputError(f"{name} have {twice} twice; give every token an id of its own.")
        return made

    @property
    def others(self) -> tuple[str, ...]:
        """The words that are no operands, each once, in the order of their first appearance."""
        return _others(self.words)

    @cached_property
    def id_of(self) -> dict[str, int]:
        """The id of every word that is no operand."""
        return dict(zip(self.others, self.token_ids, strict=True))

    @property
    def operand_places(self) -> tuple[int, int]:
        """The positions of a and of b."""
        return self.words.index("a"), self.words.index("b")

    @property
    def position_names(self) -> tuple[str, ...]:
        """A name for every position: its word, "equals" for "=", numbered where it comes again.

        >>> Layout.of("a = b =", 5).position_names
        ('a', 'equals', 'b', 'equals_2')
        """
        names = ["equals" if word == "=" else word for word in self.words]
        earlier = [names[:place].count(name) for place, name in enumerate(names)]
        numbers = (f"_{n + 1}" if n else "" for n in earlier)
        return tuple(map("".join, zip(names, numbers, strict=True)))

    @property
    def text(self) -> str:
        """The words."""
        return " ".join(self.words)

    @property
    def usual_answers(self) -> bool:
        """Whether the answers are the first classes, in their order."""
        return self.answer_ids == (*range(self.p),)

    @property
    def in_own_order(self) -> bool:
        """Whether operands are the first tokens and answers the first classes, in their order."""
        return self.operand_ids == (*range(self.p),) and self.usual_answers

    @property
    def n_tokens(self) -> int:
        """How many tokens a model has at least."""
        return max(*self.operand_ids, *self.token_ids) + 1

    @property
    def n_answer_classes(self) -> int:
        """How many classes a model has at least."""
        return max(self.answer_ids) + 1

    @property
    def class_counts(self) -> tuple[int, int]:
        """How many classes a model can have: those of the answers, or one more a further word."""
        return self.n_answer_classes, self.n_answer_classes + len(self.others)

    @cached_property
    def operand_rows(self) -> Int[Tensor, " p"]:
        """The row of an embedding of every operand."""
        return torch.tensor(self.operand_ids)

    @cached_property
    def answer_columns(self) -> Int[Tensor, " p"]:
        """The column of the logits of every answer."""
        return torch.tensor(self.answer_ids)

    def tokens(self, operands: Int[Tensor, "n 2"]) -> Int[Tensor, "n n_ctx"]:
        """What a model reads of pairs of operands."""
        found = torch.empty(len(operands), len(self.words), dtype=torch.int64)
        for place, word in enumerate(self.words):
            if word in OPERANDS:
                found[:, place] = self.operand_rows[operands[:, OPERANDS.index(word)]]
            else:
                found[:, place] = self.id_of[word]
        return found

    def of_answers(self, logits: Float[Tensor, "*n classes"]) -> Float[Tensor, "*n p"]:
        """The logits of the answers, a view where they are consecutive."""
        first = self.answer_ids[0]
        if self.answer_ids == (*range(first, first + self.p),):
            return logits[..., first : first + self.p]
        return logits[..., self.answer_columns.to(logits.device)]

    def in_order(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights with the rows of operands first in W_E, and the columns of answers in W_U, b_U.

        So what is done to operand tokens and answer classes need not know their ids. The same
        weights where they are in this order already.
        """
        found = dict(weights)
        if "embed.W_E" in found and self.operand_ids != (*range(self.p),):
            rows = _first(self.operand_rows, len(found["embed.W_E"]))
            found["embed.W_E"] = found["embed.W_E"][rows]
        for name in ("unembed.W_U", "unembed.b_U"):
            if name in found and not self.usual_answers:
                columns = _first(self.answer_columns, found[name].shape[-1])
                found[name] = found[name][..., columns]
        return found


def _others(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word not in OPERANDS))


def _first(chosen: Int[Tensor, " p"], n: int) -> Int[Tensor, " n"]:
    """The chosen numbers, then all others up to n."""
    rest = torch.ones(n, dtype=torch.bool)
    rest[chosen] = False
    return torch.cat([chosen, rest.nonzero().flatten()])


def _several(name: str, given: object, p: int) -> tuple[int, ...]:
    """P ids: 0 to p-1, those from a number on, or those of a list."""
    if is_left_out(given):
        return tuple(range(p))
    advice = f"give the first of {p} consecutive ids, such as {name}=2, or a list of all {p}"
    if (first := whole_number(given)) is not None:
        ids: tuple[Any, ...] = tuple(range(first, first + p))
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        ids = tuple(map(whole_number, given))
        if len(ids) == 1 and ids[0] is not None:
            ids = tuple(range(ids[0], ids[0] + p))
    else:
        ids = ()
    if len(ids) != p or any(x is None or not 0 <= x <= LARGEST_ID for x in ids):
        raise InputError(f"{name}={shown(given)} are no ids of {p} numbers; {advice}.")
    return ids


def _of_words(given: object, others: tuple[str, ...], p: int) -> tuple[int, ...]:
    """The ids of the other words: p, p + 1, ..., or those of a mapping or of a list in order."""
    if is_left_out(given):
        return tuple(range(p, p + len(others)))
    example = "{" + ", ".join(f'"{word}": {p + i}' for i, word in enumerate(others)) + "}"
    advice = (
        f"give token_ids={one_line(example, most=100)}" if others
        else "leave token_ids out: all words are operands"
    )  # fmt: skip
    named: dict[Any, Any] | None = dict(given) if isinstance(given, Mapping) else None
    if named is None and isinstance(given, Iterable) and not isinstance(given, str | bytes):
        parts = list(given)
        pairs = all(isinstance(x, list | tuple) and len(x) == 2 for x in parts)
        if not pairs:
            named = dict(zip(others, parts, strict=False))
        elif all(isinstance(word, str) for word, _ in parts):
            named = dict(parts)
        named = named if named is not None and len(named) == len(parts) else None
    if named is None or set(named) != set(others):
        raise InputError(f"token_ids={shown(given)} are not those of {shown(others)}; {advice}.")
    ids = tuple(whole_number(named[word]) for word in others)
    if any(x is None or not 0 <= x <= LARGEST_ID for x in ids):
        raise InputError(f"token_ids={shown(given)} has what is no id; {advice}.")
    return ids  # type: ignore[return-value]
