"""Watch: a training loop of the user's own, recorded every so many steps, measures included.

measures.csv of the run folder has the column `step` and those of the measures, with a row a
checkpoint; a cell is empty where a measure has no value. It is listed and checked by run.json as
metrics.csv is, and `run.measures` reads it.
"""

import contextlib
import math
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.base.checks import whole
from grokinterp.base.errors import InputError, names, shown, whole_number
from grokinterp.fourier._key_frequencies import accepted
from grokinterp.fourier.answers import checked_frequencies
from grokinterp.fourier.basis import n_frequencies
from grokinterp.models.user_models import AnyModel
from grokinterp.progress.measures import MEASURES, Measure, checked_measures, measured_row
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.metrics import Metrics
from grokinterp.runs.recorder import Logged, Recorder, recorded
from grokinterp.runs.run import RunFolder
from grokinterp.runs.writer import Measured
from grokinterp.tasks.task import Task

WATCHED = (
    "restricted_loss", "excluded_loss", "restricted_loss_heldout", "sum_sq_weights",
    "gini_embedding",
)  # fmt: skip
_BREAKS_A_TABLE = re.compile(r'[,"\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]')


class Watch(Recorder):
    """A `gi.Recorder` to call at every step: it saves every so many, and writes measures too.

        with gi.Watch("runs/mine", task=task, train_mask=mask, every=100) as watch:
            for step in range(10_001):
                watch(step, model)      # weights, metrics and measures at 0, 100, 200, ...
                ...                     # your update
        run = watch.close()             # or gi.load("runs/mine")
        run.measures                    # a DataFrame, one row a checkpoint

    It takes the model as it is after `step` updates, 0 the untrained one, and leaves it so: its
    mode, hooks and gradients, and the random numbers that training draws next. At a step that is
    not a multiple of `every`, and at the one that was saved last, a call returns at once (under
    1 microsecond). `save(step, model)` saves any other later step with a row of measures, `log` its
    metrics alone.

    `measures` are names of registered measures of snapshots (`gi.progress.MEASURES`, those of
    `gi.register.measure` too). By default restricted and excluded loss, the held-out twin of the
    restricted loss (nats), the sum of squares of all weights and the Gini of the embedding's
    frequencies: they take next to nothing beside the forward over the table that the metrics need.
    `[]` writes none. Those that need key frequencies take `frequencies`, or where none are given
    the key frequencies of the very checkpoint, and are NaN where it has none: a value says nothing
    of steps before, and two rows may be of other frequencies. `gi.progress_measures(run)` measures
    all checkpoints with those of the last one.

    A watched step of the default transformer at p = 113 takes about as long as 0.4 training steps
    (117 ms beside 320 ms on one thread, 111 beside 240 on two; 95 and 84 without measures: `python
    tests/benchmarks/watching.py THREADS`), so with every=100 it adds half a percent.

    All else is as in `gi.Recorder`: arguments, `resume=True`, `close()`, what is refused. Whoever
    resumes has to ask for the measures that the run was begun with; rows after its last checkpoint
    are forgotten. Of a run that a recorder began without measures, rows begin where a watch goes
    on. InputError, in one line and before anything is written, for a measure that is not known, is
    one of runs, has no meaning for this task, or has a column for every key frequency and no
    `frequencies`; and at a step where a measure raises, or has a column that it did not have at
    first.

    >>> import tempfile
    >>> import torch
    >>> import grokinterp as gi
    >>> task, mask = gi.ModularTask("add", p=5), torch.arange(25) % 2 == 0
    >>> layers = torch.nn.Embedding(6, 4), torch.nn.Flatten(), torch.nn.Linear(12, 5)
    >>> net, asked = torch.nn.Sequential(*layers), ["sum_sq_weights", "logit_margin"]
    >>> with tempfile.TemporaryDirectory() as out:
    ...     with gi.Watch(out, task=task, train_mask=mask, every=10, measures=asked) as watch:
    ...         for step in range(21):
    ...             _ = watch(step, net)
    ...             net[2].weight.data *= 0.9  # where your update stands
    ...     run = gi.load(out)
    ...     run.steps, list(run.measures)
    ((0, 10, 20), ['step', 'sum_sq_weights', 'logit_margin_mean', 'logit_margin_q01'])
    """

    def __init__(
        self,
        out: str | Path,
        *,
        task: Task,
        train_mask: Bool[Tensor, " n_inputs"] | None = None,
        train_indices: Int[Tensor, " n_train"] | None = None,
        resume: bool = False,
        every: int = 100,
        measures: Sequence[str] | None = None,
        frequencies: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            out, task=task, train_mask=train_mask, train_indices=train_indices, resume=resume
        )
        self._every = whole("every", every, least=1, such_as="100")
        self._frequencies = _frequencies(task, frequencies)
        self._entries = _entries(task, measures, given=self._frequencies is not None)
        self._columns = self._columns_so_far()
        self._saved = self.last_step  # of a run that goes on: its last checkpoint
        self._begun_at = -1 if self.last_step is None else self.last_step

    def __call__(self, step: SupportsIndex, model: AnyModel) -> Metrics | None:
        """Save a step that is a multiple of `every`, and return its metrics; else None, at once.

        The step that was saved last is not saved again, so that a loop may pass it twice: one that
        gathers the gradients of several batches for an update. Nor are, with `resume=True`, the
        steps of the run that it goes on with: a trainer may begin again at an older checkpoint of
        its own, and what was recorded first is kept.
        """
        number = step if type(step) is int else whole_number(step)
        if number is None or number < 0:
            return self.save(step, model)  # which refuses it
        if number % self._every or number == self._saved or number <= self._begun_at:
            return None
        return self.save(step, model)

    def save(
        self, step: SupportsIndex, model: AnyModel, *, metrics: Logged | None = None
    ) -> Metrics:
        """Save the weights and measures of a step and log its metrics, which are returned."""
        with _same_random_numbers():
            logged = super().save(step, model, metrics=metrics)
        self._saved = self.last_step
        return logged

    def _measured(self, seen: Snapshot) -> Measured | None:
        if not self._entries:
            return None
        _ = seen.all_logits  # one forward, for the metrics and for every measure
        keys = self._frequencies
        if keys is None:
            needed = any(entry.needs_frequencies for entry in self._entries)
            keys = accepted(seen).keys if needed else ()
        row = measured_row(self._entries, seen, keys)
        for column in row:
            _refuse_column(column)
        # A NaN without a column is no news: what the model lacks now has no suffixes to tell.
        known = self._columns or tuple(row)
        if new := [x for x in row if x not in known and not math.isnan(row[x])]:
            raise InputError(
                f"the measures of step {seen.step} have the columns {names(new)}, and measures.csv "
                f"of {self.path} has {names(known)}; give the same at every step, NaN "
                "where there is no value."
            )
        self._columns = known
        return Measured([entry.name for entry in self._entries], row, self._frequencies)

    def _columns_so_far(self) -> tuple[str, ...] | None:
        """The columns of a run to go on with, whose measures have to be these; None without any."""
        begun = self._resume and recorded(self.path, self._task, self._train_mask)
        if not begun or not begun.steps or begun.measures is None:
            return None
        asked, there = [entry.name for entry in self._entries], begun.measures["names"]
        if set(asked) != set(there):
            raise InputError(
                f"{self.path} was begun with the measures {names(there)}, and measures= asks for "
                f"{names(asked) or 'none'}; give those it was begun with, or another folder."
            )
        self._refuse_other_frequencies(begun.measures.get("frequencies"))
        table = RunFolder(self.path).measures()
        return None if table is None else tuple(table.columns.drop("step"))

    def _refuse_other_frequencies(self, there: Sequence[int] | None) -> None:
        """A column is of the same frequencies from the first row to the last."""
        asked = None if self._frequencies is None else list(self._frequencies)
        if there == asked or not any(entry.needs_frequencies for entry in self._entries):
            return
        said, ours = ("none" if x is None else shown(x) for x in (there, asked))
        raise InputError(
            f"{self.path} was begun with frequencies={said}, and frequencies={ours} is asked for; "
            "give those it was begun with, or another folder."
        )


def _refuse_column(column: str) -> None:
    if _BREAKS_A_TABLE.search(column):
        raise InputError(
            f"column {shown(column)} of a measure cannot stand in a CSV; leave commas, "
            "quotation marks and line breaks out of its name."
        )


def _frequencies(task: Task, given: Sequence[int] | None) -> tuple[int, ...] | None:
    """Frequencies that were given, checked; None where none were."""
    if given is None:
        return None
    group = task.answer_group
    if group is None or not n_frequencies(group.order):
        raise InputError(
            f"frequencies={shown(given)}: {task.title} has no Fourier directions; leave it out."
        )
    return checked_frequencies(given, group)


def _entries(task: Task, asked: Sequence[str] | None, *, given: bool) -> list[Measure]:
    """The measures that were asked for, in that order; InputError for what cannot be watched."""
    chosen = checked_measures("measures", WATCHED if asked is None else asked, "snapshot")
    known = {entry.name: entry for entry in MEASURES.every()}
    found = [known[name] for name in chosen]
    if asked is None:
        return [entry for entry in found if entry.is_defined_for(task)]
    for entry in found:
        _refuse_column(f"{entry.name}{entry.prefix or ''}")
        if not entry.is_defined_for(task):
            raise InputError(
                f"measure {entry.name!r} has no meaning for {task.title}; leave it out of measures."
            )
        if entry.needs_frequencies and entry.prefix and not given:
            raise InputError(
                f"measure {entry.name!r} has a column for every key frequency, which differ from "
                "one checkpoint to another; give frequencies=, such as [1, 5], or leave it out."
            )
    return found


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Whatever a measure draws, training draws the same as without it."""
    python, numpy = random.getstate(), np.random.get_state()
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
