"""What was said about a source, held against what its weights say: the task and the split."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.models.architecture import Architecture, Weights, is_bias
from grokinterp.models.kinds import NetworkSizes, fitting_task
from grokinterp.reading.checkpoint_file import Source
from grokinterp.reading.settings import Settings, seeds_in
from grokinterp.reading.tensor_files import read_file
from grokinterp.reading.training_rows import (
    RULES,
    Evidence,
    Split,
    drawn,
    given_split,
    rows_of,
    searched_split,
    tried,
)
from grokinterp.runs.manifest import missing_split
from grokinterp.tasks.modular import ModularTask


def stated_task(
    architecture: Architecture, said: Settings, config: Settings, source: Source
) -> tuple[ModularTask, tuple[str, ...]]:
    """The operation, the modulus and the "=" token, which the sizes of the weights have to fit."""
    where = str(source.path)
    operation = said.operation or config.operation or "add"
    if operation == "random" and said.operation is None:
        raise InputError(
            f"{where} learned random labels, which nobody can draw again; give operation=random "
            "data_seed=... if they are those of this package."
        )
    p = config.p if said.p is None else said.p
    sizes, notes = _sizes(architecture, p, config, source)
    if sizes.inputs is not None and p not in (None, sizes.inputs[0]):
        says = said.p is None
        where = f"{where} says p={p} and" if says else f"p={p} contradicts {where}, which"
    task = fitting_task(
        sizes, operation=operation, p=p, equals_token=said.equals_token,
        seed=said.data_seed or 0, what=where,
    )  # fmt: skip
    has_class = architecture.d_vocab_out > task.p
    if said.equals_class is not None and said.equals_class != has_class:
        raise InputError(
            f"equals_class={said.equals_class} contradicts {source.path}, which has "
            f"{architecture.d_vocab_out} classes for p={task.p}; leave it out."
        )
    return task, notes


def _sizes(
    shape: Architecture, p: int | None, config: Settings, source: Source
) -> tuple[NetworkSizes, tuple[str, ...]]:
    """What of tokens, positions and classes is used: the paper's code keeps those of p = 113."""
    sizes = NetworkSizes(shape.d_vocab, shape.n_ctx, shape.d_vocab_out)
    if source.format not in ("paper", "trainer") or p is None or p != config.p:
        return sizes, ()
    if sizes.inputs is None or p >= sizes.inputs[0]:
        return sizes, ()
    note = f"p={p} as its config says; {sizes} are more than it needs"
    return NetworkSizes(p + sizes.inputs[1], sizes.n_ctx, p), (note,)


def check_biases(weights: Weights, said: str | None, where: str) -> None:
    """Refuse `biases=` ("none", "mlp" or "all") where another bias is not zero."""
    allowed = {None: ".b", "none": "no bias", "mlp": ".mlp.b_", "all": ".b"}[said]
    for name, weight in weights.items():
        if is_bias(name) and allowed not in name and weight.any():
            raise InputError(f"biases={said} contradicts {where}, whose {name!r} is not zero.")


def stated_split(said: Settings, config: Settings, source: Source, evidence: Evidence) -> Split:
    """The split that was set, that the files keep, or that their configuration fixes."""
    kept = None if source.train_data is None else rows_of(source.train_data, evidence.task)
    if said.train_fraction is not None or said.n_train is not None:
        config = replace(config, train_fraction=None, n_train=None)  # another size was set
    asked = said.over(config)
    if said.split is not None and said.train_indices is not None:
        raise InputError("split and train_indices are both set; set one of them.")
    if said.train_indices is not None:
        rows = rows_of(_rows_file(Path(said.train_indices)), evidence.task)
        split = given_split(rows, Path(said.train_indices).name, evidence)
    elif said.split == "search":
        split = searched_split(
            evidence, fraction=said.train_fraction, n_train=said.n_train, seed=said.data_seed
        )
    elif said.split is not None:
        split = drawn(said.split, asked, "settings", evidence)
    elif _sets_a_part(said):
        split = tried(said, asked, _seeds(said, source), evidence)
    elif kept is not None:
        return given_split(kept, source.path.name, evidence)
    elif (found := _of_the_papers_code(config, source, evidence)) is not None:
        return found
    elif _seeds(said, source) and (config.train_fraction or config.n_train):
        return tried(said, config, _seeds(said, source), evidence)
    else:
        return Split(None, None, (
            "the training rows are not known, so measures that need them are null; "
            + missing_split(source.path.name),
        ))  # fmt: skip
    _check_same(split, kept, evidence, source)
    return split


def rows_without_losses(
    said: Settings, config: Settings, source: Source, evidence: Evidence
) -> Tensor | None:
    """The training rows, as far as they are stated outright: nothing is tried or searched for.

    The losses of a reading of the weights that is in question would tell nothing.
    """
    outright = said.split in RULES or said.train_indices is not None
    nothing_set = said.split is None and not _sets_a_part(said)
    if not outright and not (nothing_set and source.train_data is not None):
        return None
    return stated_split(said, config, source, evidence).rows


def _sets_a_part(said: Settings) -> bool:
    """Whether a seed or a size was set without a rule; the seed of random labels is another."""
    seed = said.data_seed is not None and said.operation != "random"
    return seed or said.train_fraction is not None or said.n_train is not None


def _seeds(said: Settings, source: Source) -> tuple[int, ...]:
    if said.data_seed is not None and said.operation != "random":
        return (said.data_seed,)
    return tuple(dict.fromkeys(seed for _, seed in seeds_in(source.config)))


def _of_the_papers_code(config: Settings, source: Source, evidence: Evidence) -> Split | None:
    """The rows that the paper's code draws for its configuration, unless the losses contradict."""
    seed = source.config.get("seed")
    if source.format not in ("paper", "trainer") or not config.train_fraction:
        return None
    if type(seed) is not int or dict(seeds_in(source.config)) != {"seed": seed}:
        return None
    try:
        return drawn("python", replace(config, data_seed=seed), "config", evidence)
    except InputError as error:  # nobody set it: without it, the rest works
        other = tried(Settings(), config, (seed,), evidence)
        if other.rows is not None:
            return other
        return Split(None, None, (f"the training rows are not known: {error}",))


def _check_same(split: Split, kept: Tensor | None, evidence: Evidence, source: Source) -> None:
    """Refuse a split that was set where the files keep another."""
    if kept is None or split.rows is None or set(kept.tolist()) == set(split.rows.tolist()):
        return
    step = evidence.steps[-1]
    losses = evidence.losses_of(step)
    raise InputError(
        f"the split that was set is not the one {source.path} keeps: at step {step} its training "
        f"rows have loss {float(losses[split.rows].mean()):.6g}, those kept "
        f"{float(losses[kept].mean()):.6g}; leave it out."
    )


def _rows_file(path: Path) -> Tensor:
    data = read_file(path)
    if isinstance(data, Mapping) and len(data) == 1:
        data = next(iter(data.values()))
    elif isinstance(data, Mapping):
        data = data.get("train_indices")
    if isinstance(data, (list, tuple)) and all(type(x) is int for x in data):
        data = torch.tensor(data)
    if not isinstance(data, Tensor):
        raise InputError(f"{path} holds no 'train_indices'; give rows a*p + b as one tensor.")
    return data
