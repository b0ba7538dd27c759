"""Learning curves whose label and bends are known, to score phase detection against.

The logarithm of a loss is a chain of straight pieces with rounded joints (`chain`). Its bends are
the joints: there the slope is halfway between those of the two pieces, and the curvature largest.
Accuracies follow from losses as they do in runs of modular addition: train accuracy falls from 1 to
that of chance in proportion to the loss, test accuracy is 1 / (1 + kappa loss) once train is
learned. So the clean curves are analytic, and so is the truth. Noise, spikes, slingshots, mistaken
rows and the disorder of a table come afterwards and change nothing of it. A cut changes the label:
the truth is then that of the clean curve up to the last logged row.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

KINDS = (
    "grokked", "grokked", "grokked", "collapsed", "steady", "memorized", "cut_memorized",
    "cut_partial", "not_learned", "partial",
)  # fmt: skip
LABEL = {
    "grokked": "grokked", "collapsed": "grokked", "steady": "steady", "memorized": "memorized",
    "cut_memorized": "memorized", "cut_partial": "undetermined", "not_learned": "not_learned",
    "partial": "undetermined",
}  # fmt: skip
BOUNDARIES = ("memorization", "circuit_formation", "cleanup")


def chain(steps, first, knots, levels, roundings):
    """A chain of straight pieces through (0, first) and (knot, level) for each knot.

    The last pair gives the last piece its slope. Around a joint the slope goes from that of one
    piece to that of the next by a logistic function, whose scale is the rounding.
    """
    corners = np.array([0.0, *knots])
    slopes = np.diff([first, *levels]) / np.diff(corners)
    values = first + slopes[0] * steps
    for knot, change, width in zip(knots[:-1], np.diff(slopes), roundings, strict=True):
        hinge = np.logaddexp(0, (steps - knot) / width) - np.logaddexp(0, -knot / width)
        values = values + change * width * hinge
    return values


@dataclass(frozen=True)
class Clean:
    """The curves of a run without any disturbance, as functions of the step."""

    kind: str
    p: int
    kappa: float
    best: float
    last: float
    train: tuple
    test: tuple
    bends: dict
    collapse: float = np.inf

    def losses(self, steps):
        steps = np.asarray(steps, float)
        train, test = chain(steps, *self.train), chain(steps, *self.test)
        gone = steps >= self.collapse
        return np.exp(train), np.where(gone, 10 / self.kappa, np.exp(test))

    def accuracies(self, train, test):
        start, chance = np.log(self.p), 1 / self.p
        learned = np.clip(1 - train / start, 0, 1)
        right = np.maximum(1 / (1 + self.kappa * test) - chance, 0)
        return self.best * (chance + (1 - chance) * learned), self.best * (chance + right * learned)

    def label(self, losses_only):
        """The definitions, on curves so dense that their spacing decides nothing."""
        steps = np.unique(np.concatenate([np.linspace(0, 1, 20_001) ** 2, [1.0]])) * self.last
        train, test = self.losses(steps)
        if losses_only:
            if train.min() >= 1e-2:
                return "not_learned" if train.min() > train[0] / 2 else "undetermined"
            if test.min() >= 1e-2:
                return "memorized" if test.min() > test[0] / 2 else "undetermined"
            first, second = steps[np.argmax(train < 1e-2)], steps[np.argmax(test < 1e-2)]
        else:
            train, test = self.accuracies(train, test)
            halfway = (1 + train[0]) / 2
            if train.max() < halfway:
                return "not_learned"
            if test.max() < 0.95 * train.max():
                fits = train.max() >= 0.99 and test.max() < halfway
                return "memorized" if fits else "undetermined"
            first = steps[np.argmax(train >= 0.95 * train.max())]
            second = steps[np.argmax(test >= 0.95 * test.max())]
        return "grokked" if second - first > first else "steady"


def clean(kind, last, rng):
    """Draw a run of `last` steps; p, depths, times and roundings vary as they do between runs."""
    p = int(rng.choice([13, 23, 59, 97, 113, 251]))
    start = np.log(np.log(p))
    kappa = rng.uniform(0.2, 0.6)
    best = 1.0 if rng.random() < 0.8 or kind.endswith("memorized") else rng.uniform(0.9, 0.995)
    end = rng.uniform(0.45, 0.85) * last  # of cleanup
    cleanup = rng.uniform(0.35, 0.8) * end
    memorized = rng.uniform(0.03, 0.3) * cleanup
    shoulder = rng.uniform(0.05, 0.25) * memorized
    deep = rng.uniform(-16, -9)  # of the train loss, in nats of its logarithm
    floor = rng.uniform(max(deep, -15) + 1, -5.5) if rng.random() < 0.6 else rng.uniform(-7, -5.5)
    high = np.log(np.log(p) * rng.uniform(1.1, 6))  # of the test loss

    def rounded(*knots):
        pieces = np.diff([0, *knots, last])
        shorter = np.minimum(pieces[:-1], pieces[1:])
        return tuple(shorter * rng.uniform(0.02, 0.12, len(knots)))

    train = (
        start, (shoulder, memorized, last), (start - 0.3, deep, deep - rng.uniform(0, 1.5)),
        rounded(shoulder, memorized),
    )  # fmt: skip
    bends = {}
    if kind in ("grokked", "collapsed", "cut_memorized", "cut_partial"):
        sinking = high - rng.uniform(0.2, 1.8)
        tail = floor - rng.uniform(0, 0.08) * (sinking - floor)
        peak = memorized * rng.uniform(0.3, 1.1)
        knots = (peak, cleanup, end)
        test = (start, (*knots, last), (high, sinking, floor, tail), rounded(*knots))
        bends = dict(zip(BOUNDARIES, (memorized, cleanup, end), strict=True))
    elif kind == "steady":
        knots = (shoulder * rng.uniform(1, 1.15), memorized * rng.uniform(1, 1.15))
        test = (start, (*knots, last), (start - 0.2, deep + 1, deep), rounded(*knots))
    elif kind == "not_learned":
        slow = (start, (end, last), (start - rng.uniform(0, 0.3),) * 2, rounded(end))
        train = slow
        test = (start, (end, last), (start + rng.uniform(-0.2, 0.5),) * 2, rounded(end))
    else:
        share = rng.uniform(0.05, 0.45) if kind == "memorized" else rng.uniform(0.6, 0.82)
        after = np.log((1 / share - 1) / kappa)
        top = max(high, after + 0.1)
        test = (start, (memorized, last), (top, after), rounded(memorized))
    run = Clean(kind, p, kappa, best, last, train, test, bends)
    return _changed(run, end, rng)


def _changed(run, end, rng):
    """Collapses and cuts, which need the curves to know their steps."""
    values = {**run.__dict__}
    if run.kind == "collapsed":
        values["collapse"] = rng.uniform(end + 0.3 * (run.last - end), run.last * 0.95)
    if run.kind.startswith("cut"):
        steps = np.linspace(0, run.last, 20_001)[1:]
        share = run.accuracies(*run.losses(steps))[1]
        wanted = rng.uniform(0.1, 0.45) if run.kind == "cut_memorized" else rng.uniform(0.58, 0.85)
        after = steps > run.bends["memorization"] * 1.3
        values["last"] = steps[np.argmax(after & (share >= wanted * run.best))]
    return Clean(**values)


@dataclass(frozen=True)
class Generated:
    """A table as a person would have it, and what is true of it."""

    name: str
    frame: pd.DataFrame
    label: str
    bends: dict  # of grokked runs with losses: step, or None where the log ends before
    clean: Clean


def generated(index, seed=0):
    """The curve of a number; kinds, columns and spacings go round, everything else is drawn."""
    rng = np.random.default_rng([seed, index])
    kind = KINDS[index % len(KINDS)]
    columns = ("both", "both", "losses", "accuracies")[index // len(KINDS) % 4]
    spacing = ("even", "irregular", "even", "log")[(index // len(KINDS) + index // 40) % 4]
    rows = int(np.exp(rng.uniform(np.log(80), np.log(1500))))
    every = int(rng.choice([1, 10, 100]))
    while True:
        run = clean(kind, rows * every, rng)
        steps = logged_steps(spacing, rows, every, rng)
        steps = steps[steps <= run.last]
        run = replace(run, last=float(steps[-1]))
        if run.label(columns == "losses") == LABEL[kind]:
            break
    frame = disturbed(run, steps, rng)
    kept = {"both": ["loss", "acc"], "losses": ["loss"], "accuracies": ["acc"]}[columns]
    frame = frame[["step", *(f"{side}_{kind}" for kind in kept for side in ("train", "test"))]]
    bends = run.bends if LABEL[kind] == "grokked" and columns != "accuracies" else {}
    return Generated(
        f"{index}-{kind}-{columns}-{spacing}", untidy(frame, rng), LABEL[kind], bends, run
    )


def logged_steps(spacing, rows, every, rng):
    last = rows * every
    if spacing == "even":
        return np.arange(0, last + 1, every)
    if spacing == "irregular":
        return np.unique([0, *rng.integers(1, last, rows), last])
    return np.unique([0, *np.geomspace(1, last, rows).round().astype(int)])


def disturbed(run, steps, rng):
    """Losses with noise, spikes, slingshots, a mistaken row; accuracies, counted on a sample."""
    train, test = run.losses(steps)
    n = len(steps)
    for _ in range(rng.choice([0, 0, 1, 4])):  # slingshots: jumps that decay in a few rows
        length = min(rng.integers(3, 9), n // 15)
        begin = rng.integers(1, n)
        rows = slice(begin, begin + length)
        decay = np.exp(-np.arange(length) / rng.uniform(0.7, 2))[: n - begin]
        jump = np.exp(rng.normal())
        train[rows] += jump * decay
        test[rows] += jump * decay * rng.uniform(0.5, 2)
    for _ in range(rng.choice([0, 0, 2, 8])):  # isolated spikes
        row, factor = rng.integers(1, n), np.exp(rng.uniform(1, 5))
        train[row] *= factor
        test[row] *= factor
    if rng.random() < 0.15:  # one row of a log that cannot be true, such as a set mixed up
        test[rng.integers(1, n - 1)] = 1e-4
    train_acc, test_acc = run.accuracies(train, test)
    counted = rng.choice([500, 2000, 9000])
    sigma = rng.choice([0, 0.03, 0.1, 0.3])
    return pd.DataFrame(
        {
            "step": steps,
            "train_loss": train * np.exp(rng.normal(0, sigma, n)),
            "test_loss": test * np.exp(rng.normal(0, sigma, n)),
            "train_acc": rng.binomial(counted, np.clip(train_acc, 0, 1)) / counted,
            "test_acc": rng.binomial(counted, np.clip(test_acc, 0, 1)) / counted,
        }
    )


def untidy(frame, rng):
    """A late first row, cells without a number, disorder, steps logged twice (the last counts)."""
    if rng.random() < 0.1:
        frame = frame[rng.integers(1, 3) :]
    if rng.random() < 0.3:
        cells = rng.random((len(frame), len(frame.columns) - 1)) < 0.05
        frame = frame.copy()
        frame.iloc[:, 1:] = frame.iloc[:, 1:].mask(cells)
    if rng.random() < 0.2:
        frame = frame.sample(frac=1, random_state=int(rng.integers(2**31)))
    if rng.random() < 0.2:
        stale = frame.sample(min(5, len(frame)), random_state=int(rng.integers(2**31))).copy()
        stale.iloc[:, 1:] = 0.5
        frame = pd.concat([stale, frame])
    return frame.reset_index(drop=True)
