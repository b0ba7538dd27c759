"""Runs whose checkpoints are made by hand: any weights at any steps, and what they logged."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from grokinterp.runs.manifest import Manifest
from grokinterp.runs.run import Run


class Made:
    """A store that holds weights, and a log if one is given, in memory."""

    def __init__(self, task, architecture, checkpoints, train, recipe, metrics):
        steps = sorted(checkpoints)
        self.manifest = Manifest(task, architecture, recipe, None, steps=steps, finished=True)
        self.checkpoints, self.train, self.log = checkpoints, train, metrics

    def metrics(self):
        if self.log is None:
            raise AssertionError("nothing of this is measured on logged metrics")
        return self.log

    def train_indices(self):
        return self.train

    def weights(self, step):
        return self.checkpoints[step]

    def verify(self):
        pass


def made_run(
    task, architecture, checkpoints, *, train=None, name="made", recipe=None, metrics=None
):
    """A run with {step: weights}; `train` are the rows trained on."""
    return Run(name, Made(task, architecture, checkpoints, train, recipe, metrics))


def changed(run, change, *, name="changed"):
    """The run with every checkpoint's weights put through a function."""
    checkpoints = {step: change(run.weights(step)) for step in run.steps}
    return made_run(run.task, run.architecture, checkpoints, train=run.train_indices, name=name)


def curves(steps, *, fits=None, generalizes=None, every=10, end=1.0):
    """A log whose train accuracy is 1 from a step on, and whose test accuracy is `end`."""
    step = np.arange(0, steps + 1, every)
    train = np.where(step >= (math.inf if fits is None else fits), 1.0, 0.1)
    test = np.where(step >= (math.inf if generalizes is None else generalizes), end, 0.0)
    columns = {"step": step, "train_loss": 2 - train, "test_loss": 3 - test}
    return pd.DataFrame(columns | {"train_acc": train, "test_acc": test})


def recipe_run(recipe, metrics, norms=None, *, weights=None, name="made"):
    """A run of a recipe with this log, whose weights have these norms, {step: norm}, or are these.

    Weights that are given are those of its first and its last step.
    """
    architecture, checkpoints = recipe.architecture(), {0: weights, recipe.steps: weights}
    if weights is None:
        shapes = architecture.parameter_shapes()
        ones = {name: torch.ones(shape) for name, shape in shapes.items()}
        size = math.sqrt(sum(one.numel() for one in ones.values()))
        checkpoints = {
            step: {name: one * (norm / size) for name, one in ones.items()}
            for step, norm in (norms or {0: 1.0, recipe.steps: 1.0}).items()
        }
    return made_run(
        recipe.build_task(), architecture, checkpoints, train=recipe.train_indices(), name=name,
        recipe=recipe, metrics=metrics,
    )  # fmt: skip


def wider_network(run):
    """An untrained network for the task of a run, eight wider."""
    shape = replace(run.architecture, d_model=run.architecture.d_model + 8)
    return shape.hooked(shape.initial(seed=0))
