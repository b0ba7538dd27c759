"""Logs that tempt phase detection into a wrong label: noise, and curves that do odd things.

    python -m tests.adversarial 1000 500

scores both kinds. Noise has learned nothing, so only "undetermined" and "not_learned" are right.
The label of an odd curve follows from how it is made; what happens to it afterwards (spikes,
measurement noise) changes nothing of it.
"""

import collections
import sys

import numpy as np
import pandas as pd

import grokinterp as gi

NOISE = ("binomial", "uniform", "clipped walk", "reflected walk")
NOTHING = ("undetermined", "not_learned")


def noise(index, seed=0):
    """A log of coin flips in small batches, of uniform numbers or of random walks."""
    rng = np.random.default_rng([seed, index])
    kind = NOISE[index % len(NOISE)]
    rows = int(rng.choice([30, 60, 100, 200, 400, 800, 1200]))
    every = int(rng.choice([1, 10, 100]))
    steps = np.arange(rows) * every + (every if rng.random() < 0.2 else 0)

    def accuracy():
        if kind == "binomial":
            batch, share = (
                int(rng.choice([8, 16, 32, 64])),
                rng.choice([0.5, rng.uniform(0.05, 0.95)]),
            )
            return rng.binomial(batch, share, rows) / batch
        if kind == "uniform":
            return rng.uniform(0, 1, rows)
        at, values = rng.choice([0.5, 0.0, rng.uniform(0, 1)]), []
        sigma = rng.choice([0.01, 0.02, 0.05, 0.1])
        for _ in range(rows):
            values.append(at)
            at += rng.normal(0, sigma)
            at = np.clip(at, 0, 1) if kind == "clipped walk" else 1 - abs(1 - abs(at) % 2)
        return np.array(values)

    frame = {"step": steps, "train_acc": accuracy(), "test_acc": accuracy()}
    if index // len(NOISE) % 2:
        frame |= {side: rng.exponential(2, rows) for side in ("train_loss", "test_loss")}
    return kind, pd.DataFrame(frame)


def rises(steps, at, width, low, high):
    return low + (high - low) / (1 + np.exp(-np.clip((steps - at) / width, -60, 60)))


def odd(index, seed=0):
    """A curve of a known label: its kind, its log, its label."""
    rng = np.random.default_rng([seed, index])
    kind = ODD[index % len(ODD)]
    rows = int(rng.choice([60, 150, 400, 1000]))
    last = rows * int(rng.choice([1, 10, 100]))
    steps = np.linspace(0, last, rows + 1).round()
    chance = 1 / int(rng.choice([10, 59, 113]))
    t_train = rng.uniform(0.03, 0.08) * last
    t_test = rng.uniform(0.35, 0.5) * last
    best = 1.0 if kind != "train below .99" else rng.uniform(0.92, 0.985)
    train = rises(steps, t_train, t_train / 8, chance, best)
    narrow = last / 60
    test, label = rises(steps, t_test, narrow, chance, best), "grokked"
    low = chance + rng.uniform(0, 0.2)
    if kind == "lost":
        test = np.minimum(test, rises(steps, rng.uniform(0.7, 0.85) * last, -narrow / 2, low, best))
    elif kind == "double":
        gap = rises(steps, 0.66 * last, -narrow / 2, low, best)
        test = np.minimum(test, np.maximum(gap, rises(steps, 0.85 * last, narrow / 2, low, best)))
    elif kind == "stairs":
        heights = np.sort(rng.uniform(0.1, 0.9, int(rng.integers(2, 6))))
        edges = np.sort(rng.uniform(0.15, 0.7, len(heights) + 1)) * last
        stairs = np.array([chance, *heights, 1.0])
        test = stairs[np.searchsorted(edges, steps, side="right")]
    elif kind == "two plateaus":
        middle = rng.uniform(0.3, 0.8)
        test = np.where(
            steps < 0.6 * last,
            rises(steps, 0.25 * last, narrow, chance, middle),
            rises(steps, 0.7 * last, narrow / 2, middle, 1.0),
        )
    elif kind == "memorized":
        test, label = rises(steps, t_test, narrow, chance, rng.uniform(0.05, 0.4)), "memorized"
    elif kind == "steady":
        test, label = rises(steps, 1.1 * t_train, t_train / 8, chance, best), "steady"
    elif kind == "burst":
        test, label = np.full(rows + 1, chance + 0.1), "memorized"
    if kind in ("spikes", "memorized", "burst") or rng.random() < 0.5:
        for curve in (train, test):
            for cell in rng.choice(
                np.arange(2, rows - 3, 6), int(rng.integers(1, 5)), replace=False
            ):
                curve[cell] = rng.uniform(0, 1)
    if kind == "burst":  # too short to be held
        first = int(rng.integers(2, rows // 2))
        test[first : first + 4] = 1.0
    counted = rng.choice([0, 1000, 9000])
    if counted:
        train, test = (rng.binomial(counted, np.clip(x, 0, 1)) / counted for x in (train, test))
    return (
        kind,
        pd.DataFrame({"step": steps.astype(int), "train_acc": train, "test_acc": test}),
        label,
    )


ODD = (
    "lost", "double", "stairs", "two plateaus", "train below .99", "spikes", "memorized", "steady",
    "burst",
)  # fmt: skip


def score_noise(number, seed=0):
    """Kind and label of every log of noise that got a firm one."""
    firm = []
    for index in range(number):
        kind, frame = noise(index, seed)
        label = gi.detect_phases(frame).label
        if label not in NOTHING:
            firm.append((index, kind, label))
    return firm


def score_odd(number, seed=0):
    """Every odd curve whose label is not its own."""
    wrong = []
    for index in range(number):
        kind, frame, label = odd(index, seed)
        found = gi.detect_phases(frame)
        if found.label != label:
            wrong.append((index, kind, label, found.label, found.reasons[0]))
    return wrong


if __name__ == "__main__":
    numbers = [int(x) for x in sys.argv[1:3]] or [1000, 500]
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    firm, wrong = score_noise(numbers[0], seed), score_odd(numbers[1], seed)
    print(f"noise with a firm label: {len(firm)} of {numbers[0]}")
    print(dict(collections.Counter((kind, label) for _, kind, label in firm)))
    print(f"odd curves with another label than their own: {len(wrong)} of {numbers[1]}")
    for each in wrong:
        print(*each)
