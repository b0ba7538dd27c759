"""Runs of a moment, for what updates do to weights."""

import math

import torch

import grokinterp as gi

SMALL = gi.Recipe(
    model="mlp", p=5, d_mlp=8, train_fraction=0.8, lr=0.05, steps=30, checkpoints="every:10",
    log_every=1, threads=1,
)  # fmt: skip


def each_trained_once(folder):
    """What gives the run of `SMALL` with some keys changed, and the same run when asked again."""
    made = {}

    def run(**changes):
        key = repr(sorted(changes.items()))
        if key not in made:
            recipe = SMALL.replace(**changes)
            made[key] = gi.train(recipe, folder / str(len(made)), progress=False)
        return made[key]

    return run


def norm(weights):
    """The norm of all weights together."""
    return math.sqrt(sum(float(w.double().square().sum()) for w in weights.values()))


def flat(weights):
    """All weights one after the other, in float64."""
    return torch.cat([w.double().flatten() for w in weights.values()])
