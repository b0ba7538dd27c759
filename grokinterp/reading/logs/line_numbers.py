"""Which number of a line of text belongs to which name?

The text between the numbers decides it, so lines that differ in their numbers alone are taken apart
once. A number belongs to the name before it, with `=`, `:`, a bracket or nothing between: the
longest run of words that says a step, a loss or an accuracy. A word of a side that stands alone
("Train: loss=1 acc=0.5") is of the names without a side after it, until the next such word.

A number without a name, or a name without a side, has what stands between its number and a comma, a
bar, the end of brackets or of the line: `0.9 train acc, 0.1 test acc`, `acc 0.9 (train), 0.1
(test)`. What a number has so is of no other. Of two names for one number both are left out.
"""

import re
from functools import lru_cache
from typing import Literal, NamedTuple

from grokinterp.reading.logs.series import is_axis
from grokinterp.reading.words import KINDS, SIDES, curve_of, is_about_losses, side_of, words_of

SPACES = "\u00a0\u202f\u2009"  # that group digits: no-break, narrow no-break, thin
NUMBER = re.compile(
    rf"(?=[\d.+\-ni])((?:(?<![\w.)\]@-])[+-])?"
    r"(?:(?<![\w.@])|(?<=\bepoch)|(?<=\bstep)|(?<=\biter)|(?<=\bep)|(?<=\bE)"
    r"|(?<=\bepoch_)|(?<=\bstep_))"
    rf"(?:\d{{1,3}}(?:[ {SPACES}'\u2019]\d{{3}})+(?![\d.:/\w%-]|,\d)"
    r"|\d{1,3}(?:\.\d{3})+(?:,\d+)?(?![\d.eE]|,\d)"
    r"|\d+(?:[_,]\d+)*(?:\.\d*)?(?:[eE][+-]?\d+)?"
    r"|\.\d+(?:[eE][+-]?\d+)?)(?:[kKmM](?!\w))?"
    r"|(?<![\w.])[+-]?(?:nan|inf(?:inity)?)\b)",
    re.IGNORECASE,
)
MOST_WORDS = 4  # of a name
_NAME = re.compile(r"[A-Za-z_][\w./@-]*|\([A-Za-z]+\)")
_WORD = re.compile(r"[A-Za-z]+")
_GAP = re.compile(r"[\s=:\[\](){}<>|'\"#,;*~@-]*")  # between a name and its number
_BETWEEN = re.compile(r"[\s'\"]+")  # the words of a name
_OTHERS = {  # before a name, words that make it one of something else
    "best", "max", "min", "last", "previous", "prev", "initial", "target", "ema", "smoothed",
    "running", "std", "stderr", "delta", "log", "log10", "final", "lr", "total", "weight", "reg",
}  # fmt: skip
_THERE = re.compile(r"(\bat|@|\bfrom|\bin)\s+\w+\W*$", re.IGNORECASE)  # of the step of a best one
_APART = re.compile(r"[\s,/|;&()]*")  # between numbers of one list
_LISTED = re.compile(r"[,|;&]|\band\b|\s/\s")  # between names of one list
_OF = re.compile(r"\s?/\s?")
_SIDE = "|".join(SIDES)
_KIND = "|".join(KINDS)
_TWO_SIDES = re.compile(rf"\b({_SIDE})\s?[/|]\s?({_SIDE})(?![A-Za-z])", re.IGNORECASE)
_ONE_KIND = re.compile(rf"(?<![A-Za-z])({_KIND})(?![A-Za-z])", re.IGNORECASE)
_ONE_SIDE = re.compile(rf"\W*({_SIDE})\W*", re.IGNORECASE)
_KIND_SIDE = re.compile(rf"(?<![A-Za-z])({_KIND})[\W_]+({_SIDE})(\W*)$", re.IGNORECASE)
_AFTER = re.compile(  # its number
    r"[\s%]*\)?\s*(?:(?:on|of|for|in)\s+)?(?:[\[(]\s?([A-Za-z][\w@ ]{0,40})[\])]"
    r"|([A-Za-z][\w@ ]{0,40})(?=[,|;)\]}]|/\s|\n))"
)
_ARROW = re.compile(r"[\s%]*(?:[-=]+>|\u2192)\s*")  # from the value before to that of now
_SPREADS = ("\u00b1", "+/-", "+-", "/", "*", "x")  # before a number that says no value by itself
_RUN = "seed|run|run_name|run_id|experiment|exp|trial|name"  # words that tell runs apart
SETTINGS = (  # words for what may differ from run to run, and says nothing else
    "wd", "weight_decay", "lr", "learning_rate", "frac", "frac_train", "train_frac", "data_frac",
    "fraction", "train_fraction", "training_fraction", "dropout", "d_model", "d_mlp", "n_layers",
    "n_heads", "num_layers", "num_heads", "width", "depth", "batch_size", "pid", "rank", "gpu",
    "model", "p",
)  # fmt: skip
_SETTING = "|".join(word.replace("_", "[ _-]?") for word in SETTINGS)
_RUN_NUMBER = re.compile(
    rf"(?<![\w./-])({_RUN}|{_SETTING}(?=['\"]?\s*[=:])|{_SETTING}(?<=\w\w))['\"]?\s*[=:]?\s*$",
    re.IGNORECASE,
)
_RUN_WORD = re.compile(
    rf"(?<![\w./-])({_RUN})['\"]?\s*[=:]\s*['\"]?([A-Za-z][\w.-]*)", re.IGNORECASE
)
_UNIT = re.compile(r"(ms|us|s|sec|min|h|it|x)\b")  # of a time that a step takes
_NO_STEP = re.compile(r"(?<![\w./-])([A-Za-z_]+)['\"]?\s*[=:]\s*['\"]?([A-Za-z?]\w*)")


class Slot(NamedTuple):
    """A name and where in the line its number is."""

    name: str
    at: int  # counted over the numbers of the line
    kind: Literal["step", "share", "loss", "run"]
    is_percent: bool = False
    of: int | None = None  # the number of which it is a part, as 45 of 60


class Plan(NamedTuple):
    """What the numbers of a line are."""

    slots: tuple[Slot, ...] = ()
    runs: tuple[tuple[str, str], ...] = ()  # words that tell runs apart, such as run=a
    dropped: tuple[str, ...] = ()  # names whose number is not certain
    no_step: str = ""  # what stands where a step should

    @property
    def has_curves(self) -> bool:
        """Whether a loss or an accuracy is among them."""
        return any(slot.kind in ("share", "loss") for slot in self.slots)


class _Found(NamedTuple):
    """A name before its side is known: the word for one that stood alone, or was in a name."""

    slot: Slot
    side: str = ""
    is_alone: bool = True


@lru_cache(maxsize=2048)
def plan_of(texts: tuple[str, ...]) -> Plan | None:
    """What the numbers between texts are; None where there is nothing to read.

    >>> [slot.name for slot in plan_of(("Epoch ", ": Train: loss=", " | Val: loss=", "")).slots]
    ['Epoch', 'Train loss', 'Val loss']
    >>> plan_of(("best val acc ", " after=", "")) is None
    True
    >>> plan_of(("best val acc ", " lr=", "")).slots
    (Slot(name='lr', at=1, kind='run', is_percent=False, of=None),)
    """
    found, dropped, no_step = _found(texts)
    slots, twice = _with_sides(found)
    runs = tuple(
        (x[1].lower(), x[2]) for text in texts for x in _RUN_WORD.finditer(text)
        if side_of(words_of(x[2])) is None
    )  # fmt: skip
    if not any(slot.kind == "step" for slot in slots):
        no_step = no_step or _text_for_step(texts)
    else:
        no_step = ""
    plan = Plan(tuple(slots), runs, (*dropped, *twice), no_step)
    return plan if any(plan) else None


def _found(texts: tuple[str, ...]) -> tuple[list[_Found], list[str], str]:
    """The names of the numbers in their order, those left out, and what is no step."""
    line = _Line(texts)
    for at in range(len(texts) - 1):
        line.look_at(at)
    return line.all_found(), line.dropped, line.no_step


class _Line:
    """A line while its numbers are looked at, one after the other."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.given = texts
        self.texts = [*texts[:-1], texts[-1] + "\n"]  # without what a number before has taken
        self.found: list[_Found] = []
        self.dropped: list[str] = []
        self.no_step = ""
        self.side, self.is_alone = "", True  # the word for a side that was last
        self.done = -1  # the number up to which all are taken
        self.waiting: list[Slot] = []  # numbers with a side after them, and no kind yet
        self.closing = ""  # the side that stands last in the line, after its number

    def look_at(self, at: int) -> None:
        """Find the name of a number, and whether it is certain."""
        before, after = self.texts[at : at + 2]
        name, start = _name_in(before, at)
        alone = "" if name else self._of_side(before, after, at)
        for word in _WORD.finditer("" if alone else before[:start]):
            if word[0].lower() in SIDES and _is_a_word(before, word):
                self.side, self.is_alone = word[0], True
        if at <= self.done:
            return
        is_whole = _is_whole(before, after, at, len(self.texts) - 2)
        if names := _listed(before):
            self._take_list(names, at)
        elif name := name or alone:
            slot = _slot(name, at, _is_percent(after))
            if not is_whole:
                if slot.kind == "step" and re.match(r"\w", after) and not _UNIT.match(after):
                    self.no_step = self.no_step or f"{name} ...{after[:10]}"
            elif slot.kind == "step":
                self._take_step(slot)
            else:
                self._take(slot, is_side_said=not alone)
        elif is_whole and (run := _run_in(before)):
            self.found.append(_Found(Slot(run, at, "run")))
        elif is_whole:
            self._take_named_after(before, after, at)

    def all_found(self) -> list[_Found]:
        """The names; a side that ends a line is of all of them, where it is the only one."""
        own = {one.side for one in self.found} | {side_in(one.slot.name) for one in self.found}
        if not self.closing or own - {"", self.closing, side_of(words_of(self.closing))}:
            return self.found
        return [
            one._replace(side=self.closing)
            if one.slot.kind in ("share", "loss") and not side_in(one.slot.name) else one
            for one in self.found
        ]  # fmt: skip

    def _take_list(self, names: list[str], at: int) -> None:
        """As many numbers as there are names that stand together; none where it is not so."""
        end = at + len(names)
        apart = self.texts[at + 1 : end]
        is_list = end < len(self.texts) and all(x and _APART.fullmatch(x) for x in apart)
        goes_on = is_list and end + 1 < len(self.texts) and _APART.fullmatch(self.texts[end])
        if not is_list or goes_on:
            self.dropped += names
            return
        self.done = end - 1
        percent = _is_percent(self.texts[end])
        first = side_in(names[0])
        for i, name in enumerate(names):
            alone = first and not side_in(name)  # train loss | acc: 1 | 0.5
            own = f"{first} {name}" if alone else name
            self.found.append(_Found(_slot(own, at + i, percent)))

    def _take_step(self, slot: Slot) -> None:
        """A step; the one of a best value, further on in a line, is none."""
        if _THERE.search(self.texts[slot.at]) and _OTHERS & _lower(self.given[: slot.at + 1]):
            return
        if sides := [word for word in words_of(slot.name) if word in SIDES]:
            self.side, self.is_alone = sides[0], True
        self.found.append(_Found(slot))

    def _take(self, slot: Slot, *, is_side_said: bool) -> None:
        """A loss or an accuracy, which may be a part of a whole."""
        while _ARROW.fullmatch(self.texts[slot.at + 1]) and slot.at + 2 < len(self.texts):
            self.done = slot.at + 1
            slot = slot._replace(at=self.done, is_percent=_is_percent(self.texts[self.done + 1]))
        if _OF.fullmatch(self.texts[slot.at + 1]) and slot.at + 2 < len(self.texts):
            slot = self._part(slot)
            if slot.kind != "share":
                self.dropped.append(slot.name)
                return
        side, kind = curve_of(words_of(slot.name)) or (None, "")
        said = self._said_after(max(slot.at, self.done), is_side_known=bool(side or self.side))
        other_side, other_kind = _meaning(said)
        if other_kind not in ("", kind) or (side and other_side not in (None, side)):
            self.dropped += [slot.name, said]
            return
        word = _side_word(said)
        alone = _Found(slot, word) if word else _Found(slot, self.side, self.is_alone)
        self.found.append(_Found(slot) if side else alone)
        if side and is_side_said and " " in slot.name:
            word = next((x for x in slot.name.split() if side_of(words_of(x))), "")
            self.side, self.is_alone = word, False

    def _take_named_after(self, before: str, after: str, at: int) -> None:
        """A number without a name before it, where its name or side comes after it."""
        unit = re.match(r"\s+([A-Za-z]+)", after)
        if at == 0 and unit and is_axis(unit[1]) and before.strip().lower() == "after":
            self.found.append(_Found(Slot(unit[1], at, "step")))  # After 10 epochs: ...
            return
        if before.strip() == "=":  # loss = 2 (* 1 = 2 loss)
            return
        is_spread = before.strip() in _SPREADS and before == self.given[at]
        is_spread = is_spread or re.match(r"[\s%]*\)", after) is not None  # 0.5 (0.4) train loss
        is_part = _OF.fullmatch(after) is not None and at + 2 < len(self.texts)
        said = self._said_after(at + is_part, is_side_known=False)
        side, kind = _meaning(said)
        if kind:
            self._take_waiting(kind)
            self._take_after(said if side else f"{self.side} {said}", at, is_spread=is_spread)
        elif side and (last := self._kind_before(at)):
            self._take_after(f"{_side_word(said)} {last}", at, is_spread=is_spread)
        elif side:
            self.texts[at + 1] = after  # which is of what comes, perhaps: 5 (val), loss 0.1
            self.waiting.append(Slot(_side_word(said), at, "loss", _is_percent(after)))

    def _take_after(self, name: str, at: int, *, is_spread: bool) -> None:
        """A number whose name is known by what comes after it."""
        slot = _slot(name.strip(), at, _is_percent(self.given[at + 1]))
        if _OF.fullmatch(self.texts[at + 1]) and slot.kind == "share":
            slot = self._part(slot)
        if is_spread:
            self.dropped.append(slot.name)
        else:
            self.found.append(_Found(slot))

    def _take_waiting(self, kind: str) -> None:
        """Numbers with a side after them whose kind is that of the one after: 90% train, ..."""
        for one in self.waiting:
            self.found.append(_Found(_slot(f"{one.name} {kind}", one.at, one.is_percent)))
        self.waiting = []

    def _said_after(self, at: int, *, is_side_known: bool) -> str:
        """A name or side that a number has after it; no number after it has that, too.

        Brackets with a name after them ("[val] loss") begin the next part of a line, unless later
        ones end theirs ("acc=0.9 [train] acc=0.1 [test]").
        """
        found = _AFTER.match(self.texts[at + 1])
        if found is None or not any(_meaning(_words(found))):
            return ""
        if not _ends_there(self.texts[at + 1]) and (
            is_side_known or not any(map(_ends_there, self.texts[at + 2 :]))
        ):
            return ""
        self.texts[at + 1] = self.texts[at + 1][found.end() :]
        if at + 2 == len(self.texts):
            self.closing = _side_word(_words(found))
        return _words(found)

    def _kind_before(self, at: int) -> str:
        """What the number just before measures; "" where it is no loss or accuracy."""
        last = self.found[-1].slot if self.found else None
        measure = curve_of(words_of(last.name)) if last and last.at in (at - 1, at - 2) else None
        return measure[1] if measure else ""

    def _of_side(self, before: str, after: str, at: int) -> str:
        """The name of a number after a side alone: `acc train 0.9 val 0.5`, `loss 1 (val 2)`.

        Where neither brackets nor another side say that it is of the kind before, it may be of any.
        """
        said = _KIND_SIDE.search(before)
        if said and re.search(r"[=:\]]", said[3]):
            return f"{said[2]} {said[1]}"
        word = re.match(r"\W*([A-Za-z]+)", after)
        if word and not is_about_losses(word[1].lower()) and not is_axis(word[1]):
            return ""
        if said:
            return f"{said[2]} {said[1]}"
        if (unit := re.match(r"[%\s]*([A-Za-z]+)", after)) and unit[1].lower() in KINDS:
            return ""  # Train 90% acc
        side, kind = _ONE_SIDE.fullmatch(before), self._kind_before(at)
        if not side or not kind:
            return ""
        last = self.found[-1]
        is_beside = (last.side and last.is_alone) or side_in(last.slot.name)
        if not is_beside and not re.search(r"[\[(]", before):
            self.dropped.append(side[1])
            return ""
        return f"{side[1]} {kind}"

    def _part(self, slot: Slot) -> Slot:
        """A part of a whole: the percentage in brackets after it, where there is one."""
        self.done = slot.at + 1
        bracket, *after = self.texts[slot.at + 2 : slot.at + 4]
        if bracket.strip() == "(" and after and _is_percent(after[0]):
            self.done = slot.at + 2
            return slot._replace(at=self.done, is_percent=True)
        return slot._replace(of=self.done)


def _meaning(said: str) -> tuple[str | None, str]:
    """The side and the kind that words say, and nothing else."""
    words = words_of(said)
    return curve_of(words) or (side_of(words), "")


def _words(found: re.Match[str]) -> str:
    """The name or side after a number, in brackets or not."""
    return (found[1] or found[2]).strip()


def _side_word(said: str) -> str:
    """The word for a side among others."""
    return next((word for word in said.split() if side_of(words_of(word))), "")


def _ends_there(text: str) -> bool:
    """Whether a text begins with the name or side of the number before it, and names no other."""
    found = _AFTER.match(text)
    if found is None or not any(_meaning(_words(found))):
        return False
    return not re.match(r"\s*[A-Za-z]", text[found.end() :]) or not _name_in(text, 0)[0]


def _with_sides(found: list[_Found]) -> tuple[list[Slot], list[str]]:
    """The slots, with the side of those without one; and names that come twice in a line.

    A side that is part of another name ("Train Loss 1 Acc 0.5") counts where it is the only one of
    the line, or where each side has a name like it.
    """
    sides = {side_of(words_of(one.side)) for one in found if one.side}
    for one in found:
        if (measure := curve_of(words_of(one.slot.name))) and measure[0]:
            sides.add(measure[0])
    slots = []
    for one in found:
        if one.side and not one.is_alone:
            like = {x.side for x in found if x.slot.name.lower() == one.slot.name.lower()}
            if len(sides) > 1 and len(like) < len(sides):
                slots.append(one.slot)
                continue
        name = f"{one.side} {one.slot.name}" if one.side else one.slot.name
        slots.append(one.slot._replace(name=name))
    names = [slot.name for slot in slots]
    twice = {
        slot.name for slot in slots
        if slot.kind in ("share", "loss") and names.count(slot.name) > 1
    }  # fmt: skip
    kept: dict[str, Slot] = {}
    for slot in slots:  # the first step of a line: others are of a best value
        if slot.name not in twice:
            kept.setdefault(slot.name, slot)
    return list(kept.values()), sorted(twice)


def _slot(name: str, at: int, is_percent: bool) -> Slot:
    measure = curve_of(words_of(name))
    if measure is None:
        return Slot(name, at, "step")
    share = measure[1].startswith(("acc", "err"))
    return Slot(name, at, "share" if share else "loss", is_percent)


def _is_whole(before: str, after: str, at: int, last: int) -> bool:
    """Whether a number is one: no part of a date, a time or a word, and no "5 ms"."""
    if re.match(r"\w", after) or (before in ("-", ":", ".") and at):
        return False
    return not (after in ("-", ":", ".") and at < last)


def _is_percent(after: str) -> bool:
    return after[:1] == "%" or (after[1:2] == "%" and after[:1].isspace())


def _lower(texts: tuple[str, ...]) -> set[str]:
    return {word.lower() for text in texts for word in _WORD.findall(text)}


def _is_a_word(text: str, word: re.Match[str]) -> bool:
    """Whether letters are no part of a longer name, such as a file's."""
    before, after = text[: word.start()], text[word.end() :]
    return not (before[-1:] in "_/.-@" and before[-1:]) and not re.match(r"[\w.@-]\w|[/(]\w", after)


def _name_in(before: str, at: int) -> tuple[str, int]:
    """The name at the end of what stands before a number, and where it begins; "" for none."""
    if at == 0 and re.fullmatch(r"\W*E", before, re.IGNORECASE):  # E10
        return "epoch", 0
    words: list[tuple[str, int]] = []
    end = len(before)
    gap = _GAP.match(before[::-1])
    end -= len(gap[0]) if gap else 0
    found = list(_NAME.finditer(before[:end]))
    while found and found[-1].end() == end and len(words) <= MOST_WORDS:
        word = found.pop()
        words.insert(0, (word[0], word.start()))
        between = _BETWEEN.search(before[: word.start()][::-1])
        if between is None or between.start() != 0:
            break
        end = word.start() - len(between[0])
    for first, (_, start) in enumerate(words):
        name = " ".join(word for word, _ in words[first:])
        if curve_of(words_of(name)) or is_axis(name):
            others = first and words[first - 1][0].lower() in _OTHERS
            glued = at > 0 and start == 0  # to the number before, as in 100it
            return ("", len(before)) if others or glued else (name.rstrip("_"), start)
    return "", len(before)


def side_in(name: str) -> str:
    """The side that the name of a loss or an accuracy says; "" for none."""
    side, _ = curve_of(words_of(name)) or (None, "")
    return side or ""


def name_before(text: str) -> str:
    """The name of what follows a text; "" where it has none, or several together.

    >>> name_before("step 3, test acc: "), name_before("train/test acc: ")
    ('test acc', '')
    """
    name, _ = _name_in(text, 0)
    return "" if name and _listed(text) else name


def _listed(before: str) -> list[str]:
    """Names that stand together before their numbers: `train/test acc`, `train acc, test acc`."""
    if two := list(_TWO_SIDES.finditer(before)):
        rest = before[: two[-1].start()] + " " + before[two[-1].end() :]
        kinds = _ONE_KIND.findall(rest)
        return [f"{side} {kinds[-1]}" for side in two[-1].groups()] if kinds else []
    names: list[str] = []
    for chunk in reversed(_LISTED.split(before)):
        name, start = _name_in(chunk, 0)
        if not names and not chunk.strip(" :=([{'\""):
            continue
        if not name or curve_of(words_of(name)) is None:
            break
        names.insert(0, name)
        if chunk[:start].strip():
            break
    return names if len(names) > 1 else []


def _run_in(before: str) -> str:
    """The word that may tell runs apart and stands before a number."""
    found = _RUN_NUMBER.search(before)
    return re.sub(r"[ -]", "_", found[1].lower()) if found else ""


def _text_for_step(texts: tuple[str, ...]) -> str:
    """What stands after a name of a step, where it is no number: `step=?`."""
    for found in (x for text in texts for x in _NO_STEP.finditer(text)):
        name, word = found.groups()
        is_name = is_about_losses(word.lower()) or is_axis(word) or curve_of(words_of(word))
        if is_axis(name) and not is_name:
            return f"{name} {word}"
    return ""
