"""Runs whose checkpoints are made by hand: any weights at any steps."""

from grokinterp.runs.manifest import Manifest
from grokinterp.runs.run import Run


class Made:
    """A store that holds weights in memory."""

    def __init__(self, task, architecture, checkpoints, train):
        steps = sorted(checkpoints)
        self.manifest = Manifest(task, architecture, None, None, steps=steps, finished=True)
        self.checkpoints, self.train = checkpoints, train

    def metrics(self):
        raise AssertionError("nothing of this is measured on logged metrics")

    def train_indices(self):
        return self.train

    def weights(self, step):
        return self.checkpoints[step]

    def verify(self):
        pass


def made_run(task, architecture, checkpoints, *, train=None, name="made"):
    """A run with {step: weights}; `train` are the rows trained on."""
    return Run(name, Made(task, architecture, checkpoints, train))


def changed(run, change, *, name="changed"):
    """The run with every checkpoint's weights put through a function."""
    checkpoints = {step: change(run.weights(step)) for step in run.steps}
    return made_run(run.task, run.architecture, checkpoints, train=run.train_indices, name=name)
