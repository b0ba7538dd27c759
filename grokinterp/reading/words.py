"""Which words in a name say that it is a step, a loss, an accuracy, or the rows trained on?

A name is taken apart into words ("valAcc", "val/acc" and "val_acc" are the same two) and understood
only if each of them is: "best_val_loss" is the loss of another step, "log_train_loss" perhaps a
logarithm.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

LONGEST_KEY = 100  # characters of a name that is looked at
SIDES = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "te"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), "validation"),
    **dict.fromkeys(("heldout", "holdout"), "validation"),
}
KINDS = {
    **dict.fromkeys(("loss", "losses", "nll", "ce", "xent", "crossentropy"), "loss"),
    **dict.fromkeys(("acc", "accs", "accuracy", "accuracies", "acc1", "top1"), "acc"),
    **dict.fromkeys(("err", "error", "errors"), "err"),  # 1 - accuracy
}
FILLERS = {  # which change nothing about a loss or an accuracy
    "curve", "curves", "history", "hist", "list", "lists", "all", "mean", "avg", "average",
    "value", "values", "metric", "metrics", "full", "set", "per", "epoch", "epochs", "step",
    "steps", "cross", "entropy", "over", "time", "rate", "score", "on", "percent", "pct",
    "percentage",
}  # fmt: skip
_UPDATES = (
    "step", "global_step", "iteration", "iter_num", "iter", "it", "update", "num_updates",
    "n_updates", "current_step", "train_step", "training_step", "optimizer_step", "steps_run",
    "steps_trained", "iteration_number", "trainer_global_step", "train_global_step",
)  # fmt: skip
_EPOCHS = (
    "epoch", "current_epoch", "ep", "epoch_num", "epoch_number", "epochs_run", "epochs_trained",
)  # fmt: skip
STEPS = (*_UPDATES, *_EPOCHS)  # in the order in which they count

_AXES = {"step", "epoch", "iteration", "iter", "it", "update"}
_ABOUT_AXES = {  # which a name may have besides one of these and a side
    "global", "log", "logged", "logging", "eval", "checkpoint", "metric", "loss", "acc", "list",
    "history", "at", "of", "number", "num", "n", "idx", "count", "counter", "current", "trainer",
    "train", "test", "validation",
}  # fmt: skip
_ROWS = {"index", "indices", "indexes", "idx", "idxs", "inds", "ids", "rows", "mask"}
_PAIRS = {"data", "pairs", "inputs", "input", "x", "dataset"}
SPLIT_GROUPS = {"split", "splits", "indices", "idx", "data", "dataset"}  # with a "train" in them

_OF_CURVES = {*SIDES, *KINDS, *FILLERS, "unmirrored"}  # all words that a name of one may have

CurveOf = tuple[str | None, str]  # the side (None: not named) and what is measured


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case.

    >>> words_of("trainLosses"), words_of("val/acc"), words_of("testloss")
    (('train', 'losses'), ('val', 'acc'), ('test', 'loss'))
    >>> words_of("held-out error")
    ('heldout', 'error')
    """
    if len(name) > LONGEST_KEY:
        return ()
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    apart = re.sub(r"(?<![a-z])h[eo]ld[\s_.-]?out(?![a-z])", "heldout", apart)
    apart = re.sub(r"(?<![a-z])acc@1(?!\d)", "acc1", apart)
    apart = re.sub(r"(?<![a-z])(train|test|valid|val|eval)(?=loss|acc|err)", r"\1_", apart)
    return tuple(re.findall(r"[a-z\d]+", apart))


def curve_of(words: Sequence[str]) -> CurveOf | None:
    """Which side and what is measured; no side where none is named, None where it is no measure.

    >>> curve_of(words_of("valid/accuracy")), curve_of(words_of("losses"))
    (('validation', 'acc'), (None, 'loss'))
    >>> curve_of(words_of("best_val_loss")) is curve_of(words_of("lr")) is None
    True
    """
    sides = {SIDES[word] for word in words if word in SIDES}
    if len(sides) > 1 and {"eval", "evaluation"} & set(words):  # of what was evaluated: eval_train
        sides = {SIDES[word] for word in words if word in SIDES and word[:4] != "eval"}
    kinds = {KINDS[word] for word in words if word in KINDS}
    unmirrored = "_unmirrored" if "unmirrored" in words else ""
    if {"cross", "entropy"} <= set(words):
        kinds.add("loss")
    if len(sides) > 1 or len(kinds) != 1 or not set(words) <= _OF_CURVES:
        return None
    return next(iter(sides), None), kinds.pop() + unmirrored


def step_word(words: Sequence[str]) -> str | None:
    """The word for a step, if that is what a name says."""
    name = "_".join(words)
    return name if name in STEPS else None


def counts_epochs(word: str) -> bool:
    """Whether a word for a step counts epochs."""
    return word in _EPOCHS or word.rstrip("s") in ("epoch", "ep")


def axis_word(words: Sequence[str]) -> tuple[str, str | None] | None:
    """Whether a name says the steps of a list: the word for it, and the side, if of one.

    A log of steps may be their logarithm, and so is none; `log_steps` are those that were logged.

    >>> axis_word(("log", "step")) is None, axis_word(("log", "steps"))
    (True, ('step', None))
    """
    if "log" in words and _AXES.intersection(words):
        return None
    known = _AXES | _ABOUT_AXES
    plain = [SIDES.get(word, KINDS.get(word, word)) for word in words]
    plain = [x.removesuffix("s") if x.removesuffix("s") in known else x for x in plain]
    core = [word for word in plain if word in _AXES]
    if len(core) != 1 or not set(plain) <= known:
        return None
    sides = {word for word in plain if word in ("train", "test", "validation")}
    return core[0], (sides.pop() if len(sides) == 1 else None)


def says_training_rows(words: Sequence[str], groups: Sequence[str]) -> str | None:
    """Whether a name is of the rows ("rows") or pairs ("pairs") that were trained on.

    >>> says_training_rows(("train", "idx"), ()), says_training_rows(("train",), ("split",))
    ('rows', 'rows')
    >>> says_training_rows(("train", "data"), ()), says_training_rows(("train", "loss"), ())
    ('pairs', None)
    """
    rest = [word for word in words if SIDES.get(word) != "train"]
    if len(rest) == len(words) or len(rest) > 1:
        return None
    if rest:
        return "rows" if rest[0] in _ROWS else "pairs" if rest[0] in _PAIRS else None
    return "rows" if SPLIT_GROUPS.intersection(groups) else None


def is_known(name: str) -> bool:
    """Whether a name is of losses, of steps or of training rows, and so of no weight."""
    words = words_of(name)
    is_rows = says_training_rows(words, ()) is not None
    return is_rows or bool(curve_of(words) or step_word(words) or axis_word(words))


def is_about_losses(word: str) -> bool:
    """Whether a word is of a side (train, test) or of what is measured (loss, accuracy).

    >>> is_about_losses("eval"), is_about_losses("config")
    (True, False)
    """
    return word in SIDES or word in KINDS


def side_of(words: Sequence[str]) -> str | None:
    """The side that words name and nothing else, such as a folder's name or a cell's.

    >>> side_of(("valid",)), side_of(("train", "loss"))
    ('validation', None)
    """
    sides = {SIDES.get(word) for word in words if word not in FILLERS}
    return sides.pop() if len(sides) == 1 else None
