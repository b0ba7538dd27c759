"""Which side does another line say for a line of text: `Test Error:` above its accuracy?"""

import re

from grokinterp.reading.logs.line_numbers import NUMBER, plan_of, side_in
from grokinterp.reading.words import SIDES

_SIDE = "|".join(SIDES)
_SIDE_ALONE = re.compile(
    rf"\W*({_SIDE})(?:\s+(?:errors?|set|results?|metrics|performance))*\W*", re.IGNORECASE
)
_SIDE_FIRST = re.compile(rf"\W*({_SIDE})(?![\w./-])", re.IGNORECASE)
_STAR = re.compile(r"\s*\*\s")
_OF_ESTIMATOR = ":Saving dict for global step "  # of TensorFlow: what it evaluated


class Sides:
    """The sides that lines say for those below them."""

    def __init__(self) -> None:
        self.above = ""  # of a line that is a side alone
        self.begins = ""  # with which the line before began

    def said_in(self, line: str) -> str:
        """A line with the side that another line says for it, or the tool that prints it.

        A line that is a side alone says it of all below, until one says its step or its side.
        """
        if alone := _SIDE_ALONE.fullmatch(line):
            self.above = alone[1]
            return line
        if _OF_ESTIMATOR in line:
            return f"eval {line}"
        if _STAR.match(line):  # the mean over the lines before, as examples of PyTorch print it
            return f"{self.begins} {line}"
        begins = _SIDE_FIRST.match(line)
        self.begins = begins[1] if begins else ""
        plan = plan_of(tuple(NUMBER.split(line)[::2])) if self.above else None
        if plan is None:
            return line
        if any(slot.kind == "step" or side_in(slot.name) for slot in plan.slots):
            self.above = ""
        return f"{self.above} {line}" if self.above else line
