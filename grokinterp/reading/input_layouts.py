"""In which ways can the inputs of a transformer have been laid out, and which is its own?

Sizes say how many tokens, positions and classes there are, not which token is which. Where they are
not those of `a b =` or `a b`, or the network answers little when it is read so, other layouts and
numberings are tried: an operator's token between the operands, a token before them, numbers that
begin after the other tokens, contexts that hold the answer too. One is taken only where it answers
half of the table, and a quarter of it more than any other layout; of its own numberings the one
with at most half the errors of any other (a - b is the same for numbers that begin one later).
Which of two operands comes first is not asked: a before b, so that a - b read the other way round
would be another operation.
"""

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

from grokinterp.base.errors import InputError
from grokinterp.models.architecture import BaseArchitecture
from grokinterp.models.transformer import NetworkSizes
from grokinterp.tasks.modular import ModularTask

LAYOUTS = ("a b =", "a b", "a op b =", "a op b", "op a b =", "op a b", "bos a b =", "bos a op b =")
MOST_OTHERS = 3  # words that are no operands, whose ids are tried in every order
FAR_MORE = 0.25  # of the table, that the layout has to answer beyond every other
HALF = 0.5  # of the table, that it has to answer


def possible_inputs(sizes: NetworkSizes, operation: str, p: int | None) -> Iterator[ModularTask]:
    """The tasks that a transformer of these sizes can read, under every layout and numbering.

    A context may be longer than the layout by what follows "=": the answer, and an end.

    >>> tasks = list(possible_inputs(NetworkSizes(9, 4, 7), "add", None))
    >>> list(dict.fromkeys(task.layout for task in tasks if task.p == 7))
    ['a b =', 'a op b =', 'op a b =', 'bos a b =']
    """
    seen = set()
    for layout in LAYOUTS:
        words = layout.split()
        others = [word for word in dict.fromkeys(words) if word not in ("a", "b")]
        if not len(words) <= sizes.n_ctx <= len(words) + 2 * (words[-1] == "="):
            continue
        for n in dict.fromkeys((p,) if p else (sizes.d_vocab_out, sizes.d_vocab - len(others))):
            for ids in _numberings(sizes, n, others):
                try:
                    task = ModularTask(operation, n, layout=layout, **ids)
                except InputError:  # no p, or not a table that there is room for
                    continue
                key = (task.reads, layout)
                if key not in seen and sizes.hold(NetworkSizes.least_for(task)):
                    seen.add(key)
                    yield task


def _numberings(sizes: NetworkSizes, p: int, others: list[str]) -> Iterator[dict[str, Any]]:
    """Ids of every token and answer: the numbers first, or after all other tokens."""
    spare = sizes.d_vocab - p
    if not len(others) <= spare <= MOST_OTHERS:
        return
    for order in permutations(range(spare), len(others)):
        words = dict(zip(others, (p + place for place in order), strict=True))
        yield {"token_ids": words} if words else {}
    for order in permutations(range(spare), len(others)) if spare else ():
        ids = {"token_ids": dict(zip(others, order, strict=True)), "operand_ids": spare}
        yield ids
        if sizes.d_vocab_out >= spare + p:
            yield {**ids, "answer_ids": spare}


def layouts_of_module(
    architecture: BaseArchitecture, operation: str, p: int, inputs: Mapping[str, Any]
) -> Iterator[tuple[ModularTask, str | None]]:
    """Tasks in the layout that is known, or in every one; and why a module does not read them."""
    for layout in [inputs["layout"]] if "layout" in inputs else LAYOUTS:
        task = ModularTask(operation, p, **{**inputs, "layout": layout})
        yield task, architecture.why_not(task)
