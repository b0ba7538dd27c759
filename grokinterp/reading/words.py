"""In which words others say what they keep: steps, losses, accuracies, training rows.

A name is taken apart into words ("valAcc", "val/acc", "val_acc" are the same two) and understood
only if each of them is: "best_val_loss" is the loss of another step, "log_train_loss" perhaps a
logarithm.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# MERGED runs.foreign.steps: The step that a checkpoint's own words or its name give it.


_SIDES = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "te"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), "validation"),
    **dict.fromkeys(("heldout", "holdout"), "validation"),
}
_KINDS = {
    **dict.fromkeys(("loss", "losses", "nll", "xent", "crossentropy"), "loss"),
    **dict.fromkeys(("acc", "accs", "accuracy", "accuracies"), "acc"),
}
_FILLERS = {  # which change nothing about a loss or an accuracy
    "curve", "curves", "history", "hist", "list", "lists", "all", "mean", "avg", "average",
    "value", "values", "metric", "metrics", "full", "set", "per", "epoch", "epochs", "step",
    "steps", "cross", "entropy", "over", "time",
}  # fmt: skip
_UPDATES = (
    "step", "global_step", "iteration", "iter_num", "iter", "it", "update", "num_updates",
    "n_updates", "current_step", "train_step", "training_step", "optimizer_step", "steps_run",
    "steps_trained", "iteration_number",
)  # fmt: skip
_EPOCHS = (
    "epoch", "current_epoch", "ep", "epoch_num", "epoch_number", "epochs_run", "epochs_trained",
)  # fmt: skip
STEPS = (*_UPDATES, *_EPOCHS)  # in the order in which they count

_AXES = {"step", "epoch", "iteration", "iter", "it", "update"}
_ABOUT_AXES = {  # beside one of these and a side
    "global", "log", "logged", "logging", "eval", "checkpoint", "metric", "loss", "acc", "list",
    "history", "at", "of", "number", "num", "train", "test", "validation",
}  # fmt: skip
_ROWS = {"index", "indices", "indexes", "idx", "idxs", "inds", "ids", "rows", "mask"}
_PAIRS = {"data", "pairs", "inputs", "input", "x", "dataset"}
SPLITS = {"split", "splits", "indices", "idx", "data", "dataset"}  # groups with a "train" in them
GROUPS = {  # that hold such values, and say nothing themselves
    "metric", "metrics", "stat", "stats", "statistics", "log", "logs", "logger", "history", "hist",
    "result", "results", "meta", "metadata", "info", "extra", "extras", "curve", "curves",
    "record", "records", "progress", "trainer_state", "training_state", "train_state",
    "log_history", "metrics_history", "training_history", "train_history", "loss_history",
    "training_log", "train_log", "rows", "loss_curves", "measurements",
}  # fmt: skip
CONFIGS = (
    "config", "cfg", "conf", "args", "arguments", "hparams", "hyper_parameters", "hyperparameters",
    "hyperparams", "model_config", "model_args", "model_cfg", "model_hparams", "model_kwargs",
    "train_config", "training_config", "training_args", "train_args", "data_config", "data_args",
    "task_config", "task", "data", "dataset", "settings", "options", "opt", "recipe", "setup",
    "params", "meta", "metadata", "info", "extra", "experiment", "exp_config", "run_config",
)  # fmt: skip
_EVERY = {"every", "interval", "freq", "frequency"}
_EVERY_WHAT = {"log", "logging", "print", "eval", "evaluation", "test", "val", "metrics", "record"}
COUNTS = (  # of epochs or steps that were planned, in a configuration
    "num_epochs", "n_epochs", "epochs", "max_epochs", "num_epoch", "n_epoch", "total_epochs",
    "epoch", "num_steps", "n_steps", "steps", "max_steps", "total_steps", "training_steps",
    "train_steps", "num_training_steps", "iterations", "num_iterations", "n_iterations", "n_iters",
    "num_iters", "max_iters", "iters", "max_iterations", "optimization_steps",
)  # fmt: skip
LONGEST = 100  # characters of a name that is looked at


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case.

    >>> words_of("trainLosses"), words_of("val/acc"), words_of("testloss")
    (('train', 'losses'), ('val', 'acc'), ('test', 'loss'))
    """
    if len(name) > LONGEST:
        return ()
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    apart = re.sub(r"(?<![a-z])(train|test|valid|val)(?=loss|acc)", r"\1_", apart)
    return tuple(re.findall(r"[a-z\d]+", apart))


def measured(words: Sequence[str]) -> tuple[str | None, str] | None:
    """Which side and what is measured; no side where none is named, None where it is no measure.

    >>> measured(words_of("valid/accuracy")), measured(words_of("losses"))
    (('validation', 'acc'), (None, 'loss'))
    >>> measured(words_of("best_val_loss")) is measured(words_of("lr")) is None
    True
    """
    sides = {_SIDES[word] for word in words if word in _SIDES}
    kinds = {_KINDS[word] for word in words if word in _KINDS}
    unmirrored = "_unmirrored" if "unmirrored" in words else ""
    if {"cross", "entropy"} <= set(words):
        kinds.add("loss")
    known = {*_SIDES, *_KINDS, *_FILLERS, "unmirrored"}
    if len(sides) > 1 or len(kinds) != 1 or not set(words) <= known:
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
    """Whether a name says the steps of a list: the word for it, and the side, if of one."""
    plain = [_singular(_SIDES.get(word, _KINDS.get(word, word))) for word in words]
    core = [word for word in plain if word in _AXES]
    if len(core) != 1 or not set(plain) <= _AXES | _ABOUT_AXES:
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
    rest = [word for word in words if _SIDES.get(word) != "train"]
    if len(rest) == len(words):
        return None
    if len(rest) == 0:
        return "rows" if set(groups) & SPLITS else None
    if len(rest) == 1 and rest[0] in _ROWS:
        return "rows"
    return "pairs" if len(rest) == 1 and rest[0] in _PAIRS else None


def is_known(name: str) -> bool:
    """Whether a name is of losses, of steps or of training rows, and so of no weight."""
    words = words_of(name)
    return bool(
        (words and (measured(words) or step_word(words) or axis_word(words)))
        or says_training_rows(words, ())
    )


def is_group(words: Sequence[str]) -> bool:
    """Whether a mapping of this name is looked into for losses, steps and rows."""
    name = "_".join(words)
    about = all(word in _SIDES or word in _KINDS for word in words)
    return name in GROUPS or name in SPLITS or (bool(words) and about)


def says_nothing_itself(words: Iterable[str]) -> bool:
    """Whether a group's name adds nothing to the names in it ("metrics", unlike "train")."""
    return not any(word in _SIDES or word in _KINDS for word in words)


def says_interval(words: Sequence[str]) -> bool:
    """Whether a name is of the number of steps between two entries of a log: "log_every"."""
    rest = [word for word in words if word not in _EVERY]
    return len(rest) == len(words) - 1 and set(rest) <= _EVERY_WHAT | {"steps", "epochs", "n"}


def _singular(word: str) -> str:
    return word.removesuffix("s") if word.removesuffix("s") in _AXES | _ABOUT_AXES else word


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
