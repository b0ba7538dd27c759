"""The step that a checkpoint's own words or its name give it."""

import re
from dataclasses import dataclass

from grokinterp.runs.foreign.words import counts_epochs

_SEED = re.compile(r"seed[-_=.]?\d+", re.IGNORECASE)
_WORDS = ("step", "iter(?:ation)?", "epoch", "(?<![a-z])ep")  # "ep" also ends "sweep"


@dataclass(frozen=True)
class Step:
    """A step, the word that it is said in (None: a number in a name), and where."""

    number: int
    word: str | None
    inside: bool

    @property
    def origin(self) -> str:
        """Where it is from, in a few words."""
        return f"its {self.word!r}" if self.inside else "the number in its name"

    @property
    def in_epochs(self) -> bool:
        """Whether it counts epochs."""
        return self.word is not None and counts_epochs(self.word)


def step_of(inside: tuple[int, str] | None, stem: str) -> tuple[Step | None, Step | None]:
    """The step of a file, and the other one that it also has and that differs.

    What is said inside counts, but epochs inside do not count where the name has a step.
    """
    said = None if inside is None else Step(*inside, inside=True)
    found = step_in(stem)
    named = None if found is None else Step(*found, inside=False)
    if said is None or named is None:
        return said or named, None
    in_steps = named.word is not None and not named.in_epochs
    first, second = (named, said) if said.in_epochs and in_steps else (said, named)
    return first, second if first.number != second.number else None


def step_in(stem: str) -> tuple[int, str | None] | None:
    """The step in a file's name: after "step" or "epoch", else the only whole number in it.

    A seed is none, and of "step_10k" or "1e4" nothing is guessed.

    >>> [step_in(x) for x in ("step_00000100", "epoch=3-step=1200", "17")]
    [(100, 'step'), (1200, 'step'), (17, None)]
    >>> [step_in(x) for x in ("best", "seed_3", "step_10k", "sweep2_p7")]
    [None, None, None, None]
    """
    stem = _SEED.sub("", stem)
    for word in _WORDS:
        if found := re.search(rf"({word})s?[-_=.]?(\d+)(?![\da-z]|\.\d)", stem, re.IGNORECASE):
            return int(found[2]), found[1].lower()
    numbers = re.findall(r"(?<![\d.a-zA-Z])\d+(?![\d.]|[a-zA-Z])", stem.replace("_", " "))
    return (int(numbers[0]), None) if len(numbers) == 1 else None
