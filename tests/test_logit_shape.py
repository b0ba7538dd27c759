import itertools
import math

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.circuits.clock_and_pizza import (
    distance_irrelevance,
    logit_forms,
    operand_grid,
    pizza_envelope,
)
from grokinterp.runs._snapshot import Snapshot, from_weights
from grokinterp.tasks import ModularTask
from tests import clock
from tests.exact_clock import ExactClock, random_radii

TASKS = [("add", 7), ("add", 6), ("subtract", 5), ("subtract", 4), ("multiply", 7), ("add", 2)]


def random_snapshot(operation, p):
    task = ModularTask(operation, p)
    generator = torch.Generator().manual_seed(p)
    logits = torch.randn(p * p, p, generator=generator, dtype=torch.float64)
    return fixed(task, logits)


def fixed(task, logits):
    """Logits that do not come from a model; blocks are asked for in table order."""
    start = [0]

    def forward(tokens, names):
        block = logits[start[0] : start[0] + len(tokens)]
        start[0] += len(tokens)
        return block, {}

    return Snapshot(task, weights={}, n_layers=1, forward=forward)


def exponents(operation, p):
    """(n, e, f): the exponent of every token, and of every pair as a list of (a, b, x, y)."""
    if operation != "multiply":
        sign = -1 if operation == "subtract" else 1
        pairs = [(a, b, a, sign * b % p) for a in range(p) for b in range(p)]
        return p, {c: c for c in range(p)}, pairs
    root = next(g for g in range(2, p) if len({g**i % p for i in range(p - 1)}) == p - 1)
    log = {root**i % p: i for i in range(p - 1)}
    return p - 1, log, [(a, b, log[a], log[b]) for a in log for b in log]


@pytest.mark.parametrize(("operation", "p"), TASKS)
def test_distance_irrelevance_by_its_definition(operation, p):
    snapshot = random_snapshot(operation, p)
    n, _, pairs = exponents(operation, p)
    by_distance = {}
    for a, b, x, y in pairs:
        right = float(snapshot.logits[a * p + b, snapshot.task.labels[a * p + b]])
        by_distance.setdefault((x - y) % n, []).append(right)
    everything = [value for values in by_distance.values() for value in values]
    expected = np.mean([np.std(values) for values in by_distance.values()]) / np.std(everything)
    found = distance_irrelevance(snapshot)
    assert found.value == pytest.approx(expected)
    table = found.table()
    if operation != "multiply":  # whose logarithms have a base, that is, distances have a unit
        for d in range(n):
            assert table["std"][d] == pytest.approx(np.std(by_distance[d]))
            assert table["mean"][d] == pytest.approx(np.mean(by_distance[d]))
    assert table.attrs["std_all"] == pytest.approx(np.std(everything))


@pytest.mark.parametrize(("operation", "p"), TASKS)
def test_forms_by_least_squares_on_the_whole_cube(operation, p):
    snapshot = random_snapshot(operation, p)
    n, log, pairs = exponents(operation, p)
    classes = list(log)
    cube = np.array([[float(snapshot.logits[a * p + b, c]) for c in classes] for a, b, *_ in pairs])
    cube = cube - cube.mean(axis=1, keepdims=True)
    of_means = np.sum(cube.mean(axis=0) ** 2) * len(pairs) / np.sum(cube**2)
    cube = cube - cube.mean(axis=0)
    found = logit_forms(snapshot, frequencies=range(1, n // 2 + 1))
    assert found.class_means == pytest.approx(of_means)
    expected = {"clock": 0.0, "pizza": 0.0, "free": 0.0}
    for fit in found.fits:
        w = 2 * math.pi * fit.frequency / n
        wave = np.array([[math.cos(w * (x + y - log[c])) for c in classes] for *_, x, y in pairs])
        # The half angle on integers that are not reduced: its sign must not matter.
        envelope = np.array([[abs(math.cos(w * (x - y) / 2))] for *_, x, y in pairs])
        same = np.array([[float((x - y) % n == d) for d in range(n)] for *_, x, y in pairs])
        for name, columns in (
            ("clock", [wave]),
            ("pizza", [envelope * wave]),
            ("free", [same[:, [d]] * wave for d in range(n)]),
        ):
            matrix = np.stack([column.ravel() for column in columns], axis=1)
            solution = np.linalg.lstsq(matrix, cube.ravel(), rcond=None)[0]
            rest = cube.ravel() - matrix @ solution
            share = 1 - np.sum(rest**2) / np.sum(cube**2)
            assert getattr(fit, name) == pytest.approx(share, abs=1e-12), name
            expected[name] += share
            if name != "free" and np.abs(matrix).max() > 1e-9:
                amplitude = getattr(fit, f"{name}_amplitude")
                assert amplitude == pytest.approx(solution[0], abs=1e-12)
    for name, total in expected.items():
        assert getattr(found, name) == pytest.approx(total)


def test_waves_of_all_frequencies_fit_jointly_as_they_do_one_by_one():
    snapshot = random_snapshot("add", 7)
    a, b, c = (np.array(axis) for axis in zip(*itertools.product(range(7), repeat=3), strict=True))
    cube = snapshot.logits.numpy()
    cube = cube - cube.mean(1, keepdims=True)
    cube = (cube - cube.mean(0)).ravel()
    pizzas = np.stack(
        [
            np.abs(np.cos(np.pi * k * (a - b) / 7)) * np.cos(2 * np.pi * k * (a + b - c) / 7)
            for k in (1, 2, 3)
        ],
        axis=1,
    )
    rest = cube - pizzas @ np.linalg.lstsq(pizzas, cube, rcond=None)[0]
    found = logit_forms(snapshot, frequencies=[1, 2, 3])
    assert found.pizza == pytest.approx(1 - np.sum(rest**2) / np.sum(cube**2))


def test_the_hand_built_pizza_has_the_pizzas_form():
    p, keys = 31, (2, 5, 13)
    weights = clock.clock_weights(p, keys, 10.0)
    snapshot = from_weights(weights, clock.clock_architecture(p, 3), ModularTask("add", p))
    forms = logit_forms(snapshot)
    assert forms.pizza == pytest.approx(1, abs=1e-3)
    assert forms.free == pytest.approx(1, abs=1e-3)
    # Of the form's variance, a clock explains mean(|cos|)^2 / mean(cos^2).
    assert forms.clock == pytest.approx(2 * clock.mean_envelope(p) ** 2, abs=1e-3)
    assert [fit.pizza_amplitude for fit in forms.fits] == pytest.approx([10.0] * 3, rel=1e-3)
    # Neurons have 64 phases: the harmonics that these leave vary with a + b.
    assert distance_irrelevance(snapshot).value < 0.01


def test_an_exact_clock_has_the_clocks_form():
    p, keys = 31, (3, 7)
    radii = random_radii(p)
    model = ExactClock(p, keys, radii)
    forms = logit_forms(model, task=ModularTask("add", p))
    product = torch.outer(radii, radii)
    assert [fit.frequency for fit in forms.fits] == [3, 7]
    expected = float(product.mean() ** 2 / product.square().mean())
    assert forms.clock == pytest.approx(expected)
    assert [fit.clock_amplitude for fit in forms.fits] == pytest.approx([float(product.mean())] * 2)
    assert forms.clock - forms.pizza > 0.15
    assert forms.clock < forms.free < 1
    assert distance_irrelevance(model, task=ModularTask("add", p)).value > 0.9


def test_a_right_answer_that_never_varies_has_no_q():
    model = ExactClock(7, (1, 2), torch.ones(7, dtype=torch.float64))
    found = distance_irrelevance(model, task=ModularTask("add", 7))
    assert found.value is None
    assert "the same for all pairs" in found.reason


@pytest.mark.parametrize("order", [5, 6, 7, 12])
def test_the_envelope_is_a_function_on_the_group(order):
    for k in range(1, order // 2 + 1):
        for d in range(-order, 2 * order):
            expected = abs(math.cos(math.pi * k * d / order))
            assert float(pizza_envelope(k, order)[d % order]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("operation", "p"), TASKS)
def test_the_grid_adds_exponents(operation, p):
    task = ModularTask(operation, p)
    group = task.answer_group
    grid = operand_grid(task, group)
    x = torch.arange(group.order)
    assert torch.equal(group.of_input[grid], (x[:, None] + x) % group.order)
    assert torch.equal(group.of_token[grid // p], x[:, None].expand_as(grid))
    assert len(grid.flatten().unique()) == group.order**2


def test_what_has_no_forms_says_so():
    task = ModularTask("add", 7)
    constant = fixed(task, torch.zeros(49, 7))
    with pytest.raises(gi.InputError, match="no key frequencies"):
        logit_forms(constant)
    silent = logit_forms(constant, frequencies=[1])
    assert (silent.clock, silent.pizza, silent.free, silent.class_means) == (0, 0, 0, 0)
    other = random_snapshot("x2xyy2", 7)
    for measure in (logit_forms, distance_irrelevance):
        with pytest.raises(gi.InputError, match="not a function of one group exponent"):
            measure(other)
    with pytest.raises(gi.InputError, match="frequency=9 is not a whole number from 1 to 3"):
        logit_forms(constant, frequencies=[9])


def test_the_table_has_a_row_per_frequency_and_one_for_all(tiny_run):
    forms = logit_forms(tiny_run, frequencies=[1, 3])
    table = forms.table()
    assert table["frequency"].tolist()[-1] == "all"
    assert set(table["frequency"].tolist()[:-1]) == {1, 3}
    assert table["free"].iloc[-1] == pytest.approx(forms.free)
    assert table.attrs["class_means"] == forms.class_means
    assert table.attrs["step"] == tiny_run.steps[-1]
    early = logit_forms(tiny_run, frequencies=[1, 3], step=0)
    assert early.step == 0
    assert early.clock != forms.clock


def test_the_shipped_run_by_the_cube(shipped):
    """p = 113 against the 1.4 million entries of one wave."""
    forms = logit_forms(shipped, frequencies=[55])
    logits = shipped.snapshot().logits.double().view(113, 113, 113)
    logits = logits - logits.mean(2, keepdim=True)
    logits = logits - logits.mean((0, 1))
    i = torch.arange(113)
    distance, total = i[:, None, None] - i[:, None], i[:, None, None] + i[:, None] - i
    wave = (2 * torch.pi * 55 * total.double() / 113).cos()
    for name, cube in (
        ("clock", wave),
        ("pizza", wave * (torch.pi * 55 * distance.double() / 113).cos().abs()),
    ):
        share = (logits * cube).sum() ** 2 / cube.square().sum() / logits.square().sum()
        assert getattr(forms.fits[0], name) == pytest.approx(float(share), rel=1e-9)


def test_weights_are_not_touched(tiny_run):
    recipe = gi.Recipe(p=7, d_model=8, n_heads=1, d_head=8, d_mlp=16)
    weights = recipe.architecture().initial(seed=0)
    before = {name: weight.clone() for name, weight in weights.items()}
    snapshot = from_weights(weights, recipe.architecture(), ModularTask("add", 7))
    logits = snapshot.logits.clone()
    logit_forms(snapshot, frequencies=[1])
    distance_irrelevance(snapshot)
    assert torch.equal(snapshot.logits, logits)
    assert all(torch.equal(before[name], weight) for name, weight in weights.items())
