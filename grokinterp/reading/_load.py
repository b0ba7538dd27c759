"""`gi.load`, and what `x` may be in every analysis: a path, a run, a snapshot, or a model.

Checkpoints of others become the parts of a run in `open_foreign`: recognised, checked, and with a
note for every guess. They are read where they are, when they are asked for.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial, wraps
from inspect import Parameter, signature
from itertools import pairwise
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import instance, listed
from grokinterp.base.errors import InputError, named, nearest, shown, whole_number
from grokinterp.base.paths import address_of, as_path, kind_at, reaching
from grokinterp.models._recognise import recognise
from grokinterp.models._recognise_module import recognise_module
from grokinterp.models.architecture import Weights
from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.models.factory import Factory
from grokinterp.models.module import GivenModule
from grokinterp.models.recognised import Recognised
from grokinterp.models.user_models import AnyModel, hooked_model
from grokinterp.reading.addresses import calling_by_address, local_copy, where_from
from grokinterp.reading.checkpoint_files import Source
from grokinterp.reading.checkpoint_formats import holds_foreign, open_source
from grokinterp.reading.operation_words import operation_said
from grokinterp.reading.settings import Settings, check_sizes, flat
from grokinterp.reading.stored_losses import LossEvidence, log_ratio, stored_at
from grokinterp.reading.task_and_architecture import (
    Inferred,
    among_readings,
    check_biases,
    infer,
    task_of,
    with_direction,
    with_inputs,
)
from grokinterp.reading.training_rows import Split, find_split, rows_without_losses
from grokinterp.recipe.builtin import BUILTIN, as_recipe
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs._snapshot import Snapshot, from_weights, snapshot
from grokinterp.runs.manifest import Manifest, current_versions
from grokinterp.runs.metrics import columns_of, evaluate, logged_unmirrored
from grokinterp.runs.one_checkpoint import OneCheckpoint
from grokinterp.runs.run import Run
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.splits import mask_of
from grokinterp.tasks.task import Task

RunOrPath = Run | str | Path
Subject = RunOrPath | Snapshot | AnyModel
P = ParamSpec("P")
R = TypeVar("R")
ABOUT = {  # what is said of a subject by name: see `snapshot_of`
    name: Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    for name, default, annotation in (
        ("step", -1, int), ("task", None, "Task | None"),
        ("train_mask", None, 'Bool[Tensor, " n_inputs"] | None'),
    )
}  # fmt: skip


def load(
    path: str | Path,
    *,
    format: str = "auto",
    module: torch.nn.Module | None = None,
    **settings: Any,
) -> Run:
    """Open a run folder, or checkpoints that somebody else wrote.

    A run that `gi.Recorder` wrote of a module of one's own has its weights, not its code: `module`
    is one with which it is computed again (whose own weights do not matter). Foreign checkpoints of
    a network that weights do not show take it too, or the function that makes it:
    `gi.load("ckpts/", model="mymodule:build", p=97)`.

    Foreign checkpoints (see `grokinterp.reading.checkpoint_formats`) are read where they
    are, never executed; `run.notes` says what was inferred or assumed. What the files do not say
    can be given as settings: `gi.load("model.pt", split="torch", data_seed=0, train_fraction=0.3)`;
    see `grokinterp.reading.settings`.

    `path` may be an address, of Hugging Face (`gi.load("hf://user/repo/folder")`, with the extra
    `grokinterp[hub]`) or any other that fsspec knows (`s3://`, `gs://`, `https://.../model.pt`,
    `file://`): it is copied into a temporary folder, which `run.path` names and which is removed at
    the end of the process (`grokinterp.reading.addresses` says what is copied, and when again).
    Nothing else touches the network.

    Raises an InputError in one line for what is missing, no run, damaged, or written by a newer
    version.

    >>> import tempfile
    >>> import torch
    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")  # a run that ships, by its name; a path elsewhere
    >>> run.task, run.steps[-1]
    (ModularTask(operation='add', p=31, equals_token=True, seed=5), 10000)
    >>> with tempfile.TemporaryDirectory() as folder:  # as TransformerLens' demo has it
    ...     theirs = gi.load(gi.export(run, f"{folder}/grokking_demo.pth"))
    ...     theirs.task.title, len(theirs.steps), torch.equal(theirs.train_mask, run.train_mask)
    ('add mod 31', 26, True)
    >>> theirs.notes[0]
    "weights of epoch e are taken to be step e + 1, as the code of TransformerLens' Grokking_Demo
    saves them (format=steps takes them as they are counted)"
    """
    path = as_path("path", local_copy(path), such_as="runs/mine")
    with calling_by_address(path), reaching(path):
        if module is not None and format != "auto" and not holds_foreign(path):
            raise InputError(
                f"format={shown(format)} is of checkpoints of others, and {path} is a run; leave "
                "format out."
            )
        if holds_foreign(path) or format != "auto":
            settings |= {} if module is None else {"model": module}
            return Run(path, open_foreign(path, format=format, settings=settings))
        if settings:
            raise InputError(
                f"{path} is a run of grokinterp: it knows its {next(iter(settings))!r}; settings "
                "are for checkpoints of others."
            )
        return Run(path, module=module)


def loaded(x: Subject) -> Run | Snapshot | AnyModel:
    """What an analysis looks at: the run that lies at a path; everything else as it is."""
    return load(x) if isinstance(x, str | Path) else x


def run_of(
    x: Subject,
    *,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Run:
    """The run, or the one at a path; a snapshot or a model is a run of one checkpoint."""
    x = loaded(x)
    if isinstance(x, Run) and task is None and train_mask is None:
        return x
    seen = snapshot_of(x, task=task, train_mask=train_mask)
    return x if isinstance(x, Run) else OneCheckpoint(seen)


def recipe_of(x: Recipe | RunOrPath) -> Recipe:
    """The recipe that is given as itself, by its name or its TOML file, or as a run that has one.

    A name of a built-in recipe is that recipe, also where a run of this name ships.
    """
    give = "gi.Recipe(...), a run, or the name of a built-in recipe such as 'mod31-grokked'"
    instance(x, (Recipe, Run, str, Path), "recipe", give=give)
    if isinstance(x, str | Path) and x not in BUILTIN:
        kind = "folder" if address_of(x) else kind_at(as_path("recipe", x, such_as="runs/mine"))
        if kind is None:
            raise InputError(
                f"{shown(str(x))} is no built-in recipe, no TOML file and no folder of a run; "
                f"{nearest(x, BUILTIN)}"
            )
        x = load(x) if kind == "folder" else x
    if not isinstance(x, Run):
        return as_recipe(x)
    if x.recipe is None:
        raise InputError(
            f"{x.path} has no recipe, as grokinterp did not train it; give gi.Recipe(...) with its "
            "settings, or a TOML file."
        )
    return x.recipe


def runs_of(
    given: Subject | Sequence[Subject],
    *,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> list[Run]:
    """The runs of a list, or the one that is given by itself."""
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not several or isinstance(given, Mapping):
        raise InputError(f"{named(given)} is no run; give gi.load(path), or a list of them.")
    return [run_of(one, task=task, train_mask=train_mask) for one in several]


def named_runs(
    runs: Subject | Sequence[Subject] | Mapping[str, Subject], **about: Any
) -> dict[str, Run]:
    """Runs by the names they are given, or by those of their folders."""
    if isinstance(runs, Mapping):
        return dict(zip(runs, runs_of(list(runs.values()), **about), strict=True))
    several = runs_of(runs, **about)
    named = {run.path.name: run for run in several}
    if len(named) < len(several):
        raise InputError("two runs have folders of one name; give a dict of names and runs.")
    return named


def snapshot_of(
    x: Subject,
    *,
    step: int = -1,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Snapshot:
    """The snapshot that an analysis is about: of a run's step (-1: the last), or of a model."""
    x = loaded(x)
    if step != -1 and not isinstance(x, Run):
        raise InputError(f"step={shown(step)} is for runs; a {type(x).__name__} has one step only.")
    if isinstance(x, Run | Snapshot):
        if train_mask is not None or (task is not None and task != x.task):
            raise InputError(
                f"task= and train_mask= are for models, this {type(x).__name__.lower()} has its "
                "own; give gi.snapshot(run.model(), task, train_mask=mask) to use others."
            )
        return x.snapshot(step) if isinstance(x, Run) else x
    model = hooked_model(
        x,
        otherwise="is not something to analyse; give a run (gi.load(path)), a snapshot, or a "
        "hooked model with task=",
    )
    if task is None:
        raise InputError("a model needs its task; give task=gi.ModularTask('add', p=113).")
    return snapshot(model, task, train_mask=train_mask)


def of_any(function: Callable[Concatenate[Snapshot, P], R]) -> Callable[..., R]:
    """A function of a snapshot as one of whatever an analysis takes: `snapshot_of` it."""
    shown = signature(function)
    _, *others = shown.parameters.values()

    @wraps(function)
    def of_subject(x: Subject, *args: Any, **options: Any) -> R:
        about = {name: options.pop(name) for name in ABOUT if name in options}
        return function(snapshot_of(x, **about), *args, **options)

    parameters = [Parameter("x", Parameter.POSITIONAL_OR_KEYWORD), *others, *ABOUT.values()]
    vars(of_subject)["__signature__"] = shown.replace(parameters=parameters)
    return of_subject


def steps_of(x: Subject, step: int | Sequence[int] | str) -> list[int]:
    """The steps that `step` asks for: one, several, or "all" of a run."""
    if isinstance(step, str) and step == "all":  # an array would be compared number by number
        return list(x.steps) if isinstance(x, Run) else [-1]
    if whole_number(step) is not None or not isinstance(step, Iterable):
        return [step]  # type: ignore[list-item]
    found = [] if isinstance(step, str) else listed("step", step, such_as="[0, 100]")
    if not found:
        wrong = "is not a step" if isinstance(step, str) else "has no step"
        raise InputError(f"step={shown(step)} {wrong}; give a number, several, or 'all'.")
    return found


def rising_steps(run: Run, steps: int | Sequence[int] | str) -> list[int]:
    """The checkpoints that `steps` asks for, which have to rise; -1 is the last."""
    found = []
    for step in steps_of(run, steps):
        number = whole_number(step)
        if number is None:
            raise InputError(
                f"step={shown(step)} is not a step; give a whole number, -1 for the last."
            )
        found.append(run.steps[-1] if number == -1 else number)
    if any(later <= earlier for earlier, later in pairwise(found)):
        raise InputError(f"steps={shown(steps)} do not rise; give checkpoints in order, each once.")
    return found


@dataclass(frozen=True)
class ForeignStore:
    """The parts of a run, read from a source when asked for."""

    source: Source
    recognised: Recognised
    manifest: Manifest
    rows: Int[Tensor, " n_train"] | None
    logged: pd.DataFrame  # what the files say: step and any of the columns of metrics.csv

    def weights(self, step: int) -> Weights:
        """The weights of a step under canonical names."""
        return _weights(self.source, self.recognised, step)

    def train_indices(self) -> Int[Tensor, " n_train"] | None:
        """Rows of the training set; None where nobody knows them."""
        return self.rows

    def metrics(self, *, progress: bool = False) -> pd.DataFrame:
        """What the files logged; at checkpoints, what they did not is computed."""
        task = self.manifest.task
        mask = None if self.rows is None else mask_of(self.rows, task.n_inputs)
        unmirrored = logged_unmirrored(task, mask)
        columns = columns_of(task, split_known=mask is not None)
        rows = []
        for step in progress_bar(self.manifest.steps, "evaluate", progress and mask is not None):
            row: dict[str, float] = {"step": step}
            if mask is not None:
                at_step = from_weights(self.weights(step), self.recognised.architecture, task)
                row |= evaluate(at_step.all_logits, task.targets, mask, unmirrored)
            rows.append(row)
        computed = pd.DataFrame(rows, columns=["step", *columns])
        computed = computed.astype({x: self.logged[x].dtype for x in computed if x in self.logged})
        known = self.logged.set_index("step").combine_first(computed.set_index("step"))
        return known[list(columns)].sort_index().reset_index()

    def verify(self) -> None:
        """Read every checkpoint; the first that cannot be used is named in the error."""
        for step in self.manifest.steps:
            self.weights(step)


def open_foreign(
    path: Path, *, format: str, settings: Mapping[str, Any], progress: bool = False
) -> ForeignStore:
    """Checkpoints of somebody else as the parts of a run: recognised, checked, a note a guess."""
    given = Settings.from_dict(settings)
    source = open_source(path, format=format, step=given.step, metrics=given.metrics)
    config = Settings.from_config(source.config)
    combined = given.over(config)
    given.check_config(source.config, str(path))
    last = max(source.states)
    state, where = source.states[last](), _where(source, last)
    if given.model is not None:
        recognised: Recognised = _of_module(given, source.config)
    else:
        recognised = recognise(
            state, combined.of_architecture(), where, prefix=given.prefix, p=combined.p
        )
    given.refuse_unused(recognised.architecture, where)
    operation_known = combined.operation is not None
    says_inputs = bool(combined.inputs()) or given.equals_token is not None
    inferred: Inferred | None = None
    guess = partial(
        with_inputs,
        recognised,
        state=state,
        operation=combined.operation,
        p=combined.p,
        where=where,
    )
    try:
        task, task_notes = task_of(recognised.architecture, given, config, source)
    except InputError:
        if says_inputs or (found := guess(None)) is None:
            raise
        task, task_notes, inferred = found.task, (), found
    papers = source.format in ("paper", "trainer")  # whose code keeps the vocabulary of p = 113
    ignored = ("d_vocab", "d_vocab_out") if papers else ()
    if recognised.architecture.named:
        check_sizes(source.configs, recognised.architecture, task.p, {*given.said(), *ignored})
    if inferred is None:
        inferred = infer(recognised, state, task, operation_known=operation_known, where=where)
        inferred = among_readings(
            inferred, state, lambda each: task_of(each.architecture, given, config, source)[0],
            operation_known=operation_known, where=where,
        )  # fmt: skip
        if not (inferred.answers_half or says_inputs):
            inferred = guess(inferred) or inferred
    if "attention_dir" in inferred.unsure:
        without = replace(_evidence(source, inferred.recognised, inferred.task), stored={})
        rows = rows_without_losses(given, config, source, without)
        size = given if given.train_fraction or given.n_train else config
        inferred = with_direction(inferred, source, rows, size)
    recognised, task = inferred.recognised, inferred.task
    if task_notes and not inferred.above_chance:  # p is less than the shapes say, and not so either
        raise InputError(f"{where} says p={task.p}, which its shapes and its answers contradict.")
    for step in progress_bar(source.states, "check", progress):
        check_biases(_weights(source, recognised, step), given.biases, where)
    evidence = _evidence(source, recognised, task)
    split = find_split(given, config, source, evidence)
    source, alignment = _with_aligned_losses(source, evidence, split)
    known = [f"{key}={value}" for key, value in config.said().items()]
    notes = [
        *where_from(path), *source.notes,
        *([f"its configuration says {', '.join(known)}"] if known else []),
        *operation_said(flat(source.config)).notes(),
        *recognised.notes, *task_notes, *inferred.notes.values(), inferred.so_read, *split.notes,
        *alignment,
    ]  # fmt: skip
    described = None
    if split.rows is not None:
        n_train = len(split.rows)
        described = {**split.described, "n_train": n_train, "n_test": task.n_inputs - n_train}
    manifest = Manifest(
        task, recognised.architecture, None, described, sorted(source.states), finished=True,
        versions=current_versions(),
        source={
            "file": path.name, "format": source.format, "layout": recognised.layout,
            "notes": notes,
        },
        steps_known=source.steps_known,
    )  # fmt: skip
    return ForeignStore(source, recognised, manifest, split.rows, source.logged_metrics())


def _of_module(given: Settings, config: Mapping[str, Any]) -> Recognised:
    """The module that was given, or the one that the function of that name makes."""
    if isinstance(given.model, torch.nn.Module):
        module, factory = given.model, None
        how = f"the {type(module).__name__} that was given"
    else:
        said = {key: x for key, x in given.said().items() if key not in ("model", "step")}
        factory = Factory.of(given.model, {**config, **said})
        module, how = factory.module(), f"what {factory.name} returns"
    architecture = GivenModule.of_module(module, factory=factory)
    return recognise_module(module, architecture, prefix=given.prefix, how=how)


def _with_aligned_losses(
    source: Source, evidence: LossEvidence, split: Split
) -> tuple[Source, tuple[str, ...]]:
    """The demo's test losses on the step that they agree with: after the update, or before."""
    test = None if split.rows is None else ~mask_of(split.rows, evidence.task.n_inputs)
    aligned = source.format == "demo" and "test_loss" in source.losses
    if not aligned or test is None or not test.any():
        return source, ()
    earlier = {
        column: replace(curve, steps=curve.steps - int(column.startswith("test")))
        for column, curve in source.losses.items()
    }
    moved = replace(source, losses=earlier)

    def mismatch(read: Source) -> float:
        stored = stored_at(read.logged_metrics(), "test_loss", evidence.some_steps())
        ratios = [
            abs(log_ratio(float(evidence.losses_of(step)[test].mean()), loss))
            for step, loss in stored.items()
        ]
        return sum(ratios) / len(ratios) if ratios else math.inf

    if mismatch(moved) < mismatch(source) / 10:
        return moved, ("test losses are those before the update, as they agree so",)
    return source, ()


def progress_bar(steps: Collection[int], what: str, progress: bool) -> Iterable[int]:
    """The steps, with a bar on a terminal where `progress` is wanted."""
    return tqdm(steps, desc=what, unit="checkpoint", disable=None if progress else True)


def _weights(source: Source, recognised: Recognised, step: int) -> Weights:
    return recognised.weights(source.states[step](), _where(source, step))


def _where(source: Source, step: int) -> str:
    return str(source.path) if len(source.states) == 1 else f"{source.path}, step {step}"


def _evidence(source: Source, recognised: Recognised, task: ModularTask) -> LossEvidence:
    @cache
    def losses_of(step: int) -> Float[Tensor, " n_inputs"]:
        weights = _weights(source, recognised, step)
        logits = from_weights(weights, recognised.architecture, task).all_logits
        return cross_entropies(logits, task.targets)

    stored: Mapping[int, float] = stored_at(source.logged_metrics(), "train_loss", source.states)
    # Of codes that are not known, losses are those of their checkpoints or of an update before.
    known = source.format in ("paper", "trainer", "demo")
    exact = bool(stored) and (known or (source.log is not None and "train_loss" in source.log))
    stored = stored if exact else {**source.near, **stored}
    return LossEvidence(task, sorted(source.states), losses_of, stored, near=not exact)
