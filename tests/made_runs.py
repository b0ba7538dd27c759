"""Runs whose checkpoints are made by hand: any weights at any steps."""

from grokinterp.runs.manifest import Manifest
from grokinterp.runs.run import Run


class Made:
    """A store that holds weights, and a log if one is given, in memory."""

    def __init__(self, task, architecture, checkpoints, train, recipe, log):
        steps = sorted(checkpoints)
        self.manifest = Manifest(task, architecture, recipe, None, steps=steps, finished=True)
        self.checkpoints, self.train, self.log = checkpoints, train, log

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
