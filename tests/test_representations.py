"""Clouds that turn into circles: shapes made by hand, definitions long-hand, and shipped runs."""

import json
import math
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.geometry.clouds import halves, rows_of_answers
from grokinterp.geometry.frequency_planes import frequencies_of, phase_rqi, probe_scores
from grokinterp.geometry.persistent_loops import upper_quantile
from grokinterp.geometry.symmetrised_grams import centred_gram, orbits_of, permuted_symmetries
from grokinterp.geometry.transition_steps import first_above, held_above, transition_of
from grokinterp.runs._snapshot import from_weights
from grokinterp.sweeps import measured
from tests import clock
from tests.made_runs import made_run
from tests.tables import split

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here

P = 113


def ring(n, *frequencies, radii=None):
    """A product of circles: x at the angle w_k x of each."""
    angle = 2 * math.pi * torch.outer(torch.arange(n).double(), torch.tensor(frequencies)) / n
    radii = torch.ones(len(frequencies)) if radii is None else torch.tensor(radii)
    return torch.cat([radii * angle.cos(), radii * angle.sin()], dim=1)


def noise(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def symmetric_group(n):
    """The elements of S_n as tuples, and their table: (g h)(x) = g(h(x))."""
    each = list(permutations(range(n)))
    number = {g: i for i, g in enumerate(each)}
    table = [[number[tuple(g[h[x]] for x in range(n))] for h in each] for g in each]
    return each, torch.tensor(table)


def dihedral(n):
    """The table of the symmetries of a polygon; 2 r + s is rotation r after reflection s."""
    table = torch.empty(2 * n, 2 * n, dtype=torch.int64)
    for (r, s), (q, t) in product(product(range(n), range(2)), repeat=2):
        table[2 * r + s, 2 * q + t] = 2 * ((r + (-q if s else q)) % n) + (s + t) % 2
    return table


def symmetry_by_hand(points, table):
    """The definition: the Gram matrix moved by every element, and averaged."""
    n = len(points)
    centred = points - points.mean(dim=0)
    gram = centred @ centred.T
    off = ~torch.eye(n, dtype=torch.bool)
    gram = torch.where(off, gram - gram[off].mean(), 0.0)
    moved = torch.stack([gram[row][:, row] for row in table])  # [x, g, h] is G[xg, xh]
    return float(moved.mean(dim=0).square().sum() / gram.square().sum())


# --- symmetry ---


@pytest.mark.parametrize("points", [ring(12, 1), ring(17, 2, 5, radii=[1.0, 3.0]), ring(9, 1, 2)])
def test_circles_and_their_products_are_symmetric(points):
    assert gi.geometry.group_symmetry(points) == pytest.approx(1, abs=1e-12)
    assert gi.geometry.group_symmetry(7 * points + 100) == pytest.approx(1, abs=1e-9)
    shuffled = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(3))]
    assert gi.geometry.group_symmetry(shuffled) < 0.5


@pytest.mark.parametrize(
    "table", [symmetric_group(3)[1], dihedral(4), (torch.arange(7)[:, None] + torch.arange(7)) % 7]
)
def test_symmetry_is_the_average_over_a_group(table):
    points = noise(len(table), 3)
    found = gi.geometry.group_symmetry(points, table)
    assert found == pytest.approx(symmetry_by_hand(points, table), rel=1e-12)
    # the right transposed table moves from the right, which is another symmetry of another cloud
    other = gi.geometry.group_symmetry(points, table.T)
    assert other == pytest.approx(symmetry_by_hand(points, table.T), rel=1e-12)


def test_the_points_that_a_permutation_makes_are_symmetric_under_its_group():
    each, table = symmetric_group(4)
    matrices = torch.eye(4, dtype=torch.float64)[torch.tensor(each)].transpose(1, 2).flatten(1)
    assert gi.geometry.group_symmetry(matrices, table) == pytest.approx(1, abs=1e-12)
    assert gi.geometry.group_symmetry(matrices) < 0.5  # the cyclic group is not theirs


def test_the_diagonal_of_the_gram_matrix_is_left_out():
    """With it a random cloud scores about a half: every group keeps the identity."""
    points = noise(P, 128)
    centred = points - points.mean(dim=0)
    gram = centred @ centred.T
    kept = torch.stack([gram.diagonal(d).sum() + gram.diagonal(d - P).sum() for d in range(1, P)])
    with_diagonal = (gram.diagonal().sum() ** 2 + kept.square().sum()) / P / gram.square().sum()
    assert with_diagonal > 0.4
    assert gi.geometry.group_symmetry(points) == pytest.approx(1 / P, abs=0.005)


def test_where_all_pairs_are_alike_there_is_no_symmetry_to_speak_of():
    assert math.isnan(gi.geometry.group_symmetry(torch.eye(6)))


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        (torch.zeros(4, 4, dtype=torch.int64), "once in each row"),
        ((torch.arange(4)[:, None] - torch.arange(4)) % 4, "neutral element"),
        (torch.rand(4, 4), "torch.float32"),
        ((torch.arange(5)[:, None] + torch.arange(5)) % 5, "5 elements and the cloud 4 points"),
        ([[0]], "give a tensor"),
    ],
)
def test_a_table_of_no_group_is_refused(table, wrong):
    with pytest.raises(gi.InputError, match=wrong):
        gi.geometry.group_symmetry(noise(4, 2), table)


def test_a_loop_that_is_not_associative_is_refused():
    """A Latin square with a neutral element that is no group's."""
    square = torch.tensor(
        [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]]
    )
    with pytest.raises(gi.InputError, match=r"\(x y\) z"):
        gi.geometry.group_symmetry(noise(5, 2), square)


def test_null_orders_are_what_they_say():
    points = noise(20, 4)
    gram, orbits = centred_gram(points), orbits_of(None, 20)
    found = permuted_symmetries(gram, orbits, n_null=5, seed=2)
    generator = torch.Generator().manual_seed(2)
    for value in found.tolist():
        order = torch.randperm(20, generator=generator)
        inverse = order.argsort()
        assert value == pytest.approx(gi.geometry.group_symmetry(points[inverse]), rel=1e-9)


def test_nulls_keep_their_level():
    """Of 200 clouds without a structure at most 8 % are above their null, of both kinds."""
    symmetric = looped = 0
    orbits = orbits_of(None, 24)
    for seed in range(200):
        points = noise(24, 5, seed=1000 + seed)
        gram = centred_gram(points)
        null = upper_quantile(permuted_symmetries(gram, orbits, n_null=39, seed=seed))
        symmetric += gi.geometry.group_symmetry(points) > null
        found = gi.geometry.persistence(points, n_null=19, seed=seed)
        looped += found.longest > found.null95
        assert (found.longest > found.null95) == (found.p <= 0.05)
    assert 0 < symmetric <= 16
    assert looped <= 16


# --- dimensions and frequencies ---


def test_equal_circles_have_two_dimensions_each():
    ranks = [gi.geometry.participation_ratio(ring(P, *ks)) for ks in ((9,), (9, 18, 53, 55))]
    assert ranks == pytest.approx([2, 8], rel=1e-12)
    spread = noise(60, 5)
    values = torch.linalg.eigvalsh(torch.cov(spread.T))
    by_hand = float(values.sum() ** 2 / values.square().sum())
    assert gi.geometry.participation_ratio(spread + 3) == pytest.approx(by_hand, rel=1e-10)
    with pytest.raises(gi.InputError, match="zeros"):
        gi.geometry.participation_ratio(torch.ones(5, 2))


@pytest.mark.parametrize("n", [11, 12])
def test_share_and_circularity_of_each_frequency(n):
    found = frequencies_of(ring(n, 2, 4, radii=[1.0, 2.0]))
    assert found.share.tolist() == pytest.approx([0, 0.2, 0, 0.8, *[0] * (n // 2 - 4)], abs=1e-12)
    assert found.circularity[[1, 3]].tolist() == pytest.approx([1, 1], abs=1e-12)
    assert math.isnan(found.circularity[-1]) == (n % 2 == 0)  # the last one has no sine
    flat = ring(n, 2)
    flat[:, 1] *= 0.25
    assert frequencies_of(flat).circularity[1] == pytest.approx(0.25, abs=1e-12)


def test_a_probe_is_scored_on_points_that_it_was_not_fitted_on():
    """More dimensions than points fit any target: R^2 is 1 where fitted, and below 0 held out."""
    points = noise(P, 128)
    points = points - points.mean(dim=0)
    targets = ring(P, 5)
    fitted = points @ torch.linalg.pinv(points) @ targets
    assert (fitted - targets).abs().max() < 1e-9
    assert probe_scores(points).max() < 0
    with_ring = torch.cat([points / 50, ring(P, 5)], dim=1)
    found = probe_scores(with_ring - with_ring.mean(dim=0))
    assert found[4] > 0.95
    assert (found > 0.1).sum() == 1


def test_phase_rqi_by_its_definition():
    n, points = 7, ring(7, 2) + 0.6 * torch.cat([noise(7, 2)], dim=1)
    points = points - points.mean(dim=0)
    plane = torch.stack([ring(n, 2)[:, 0], ring(n, 2)[:, 1]]) @ points
    theta = torch.atan2(*(points @ torch.linalg.pinv(plane)).T.flip(0))
    right = every = 0
    for i, j, m in product(range(n), repeat=3):
        q = (i + j - m) % n
        if {i, j} == {m, q}:
            continue
        off = float(theta[i] + theta[j] - theta[m] - theta[q])
        every += 1
        right += abs(math.remainder(off, 2 * math.pi)) < 4 * math.pi / n
    assert 0 < right < every
    assert phase_rqi(points, 2) == pytest.approx(right / every)
    assert phase_rqi(ring(P, 9), 9) == 1
    assert phase_rqi(noise(P, 3) - noise(P, 3).mean(dim=0), 9) == pytest.approx(4 / P, abs=0.04)
    assert math.isnan(phase_rqi(ring(6, 3), 3))


# --- loops ---


def test_a_circle_has_the_loop_that_geometry_gives():
    found = gi.geometry.persistence(5 * ring(30, 1) + 3, n_null=19)
    assert found.scale == pytest.approx(5)
    birth, death = found.bars[0].tolist()
    assert birth == pytest.approx(2 * math.sin(math.pi / 30), rel=1e-6)
    assert death == pytest.approx(math.sqrt(3), rel=1e-6)
    assert found.p == 1 / 20
    assert found.longest > 2 * found.null95
    assert found.second == 0
    assert found.table().shape == (1, 3)


def test_a_torus_has_two_loops_and_a_cloud_none():
    each = torch.arange(12)
    a, b = torch.cartesian_prod(each, each).T
    torus = torch.cat([ring(12, 1)[a], ring(12, 1)[b]], dim=1)
    found = gi.geometry.persistence(torus, n_null=19)
    assert found.second == pytest.approx(found.longest, rel=1e-6)
    assert found.second > found.null95
    side = 2 * math.sin(math.pi / 12) / math.sqrt(2)  # in radii; all others are squares of the grid
    assert found.lengths[2] == pytest.approx((math.sqrt(2) - 1) * side, rel=1e-5)
    assert gi.geometry.persistence(noise(50, 4), n_null=19).p > 0.05


def test_many_points_are_thinned_and_it_says_so():
    found = gi.geometry.persistence(ring(700, 1), n_null=0)
    assert found.n_points == 300
    assert "300 of the 700 points" in found.notes[0]
    assert found.longest > 1.4
    assert math.isnan(found.null95)
    assert math.isnan(found.p)


@pytest.mark.parametrize(
    ("points", "wrong"),
    [(torch.ones(9, 2), "all equal"), (noise(3, 2), "too few"), (noise(9, 2) / 0, "not finite")],
)
def test_what_has_no_loop_is_refused(points, wrong):
    with pytest.raises(gi.InputError, match=wrong):
        gi.geometry.persistence(points)


def test_without_ripser_loops_are_missing_and_all_else_is_there(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ripser", None)
    with pytest.raises(gi.InputError, match=r"grokinterp\[topology\]"):
        gi.geometry.persistence(ring(9, 1))
    found = gi.geometry.representations("mod31-small", step=-1, of="embedding")
    row = found.table().iloc[0]
    assert math.isnan(row.h1)
    assert row.symmetry > 0.8
    assert sum("grokinterp[topology]" in note for note in found.notes) == 1


def test_a_quantile_is_passed_in_one_of_twenty():
    assert math.isnan(upper_quantile(torch.arange(18.0)))
    assert [upper_quantile(torch.arange(n * 1.0)) for n in (19, 39, 99)] == [18, 37, 94]


# --- dates ---


def test_a_transition_is_where_a_curve_stays_above_its_middle():
    steps = list(range(0, 100, 10))
    values = [0.9, 0.0, 0.1, 0.6, 0.3, 0.7, 0.9, 0.9, 1.0, 1.0]
    found = transition_of("x", steps, values, after=5)
    assert (found.step, found.interval, found.reason) == (50, (40, 50), "")
    falling = transition_of("x", steps, [1 - y for y in values], after=5, falls=True)
    assert (falling.step, falling.width) == (found.step, pytest.approx(found.width))
    for given, after, reason in (
        ([math.nan] * 10, 0, "no curve"),
        ([0.5] * 9 + [0.6], 0, "from 0.5 to 0.6, by less than 0.2"),
        ([0.0] * 8 + [1.0, 0.0], 0, "does not stay"),
        (values, None, "nobody knows when"),
        (values, 95, "fewer than 2 checkpoints"),
    ):
        found = transition_of("x", steps, given, after=after)
        assert found.step is None
        assert reason in found.reason


def test_one_checkpoint_above_a_null_is_not_yet_a_date():
    values, nulls = [3, 0, 3, 3, 0, 3, 3], [1] * 7
    assert first_above(range(7), values, nulls) == 2
    assert held_above(range(7), values, nulls) == 5
    assert held_above(range(6), values[:6], nulls[:6]) is None
    assert first_above(range(2), [3, 3], [math.nan] * 2) is None


# --- networks ---


@pytest.fixture(scope="module")
def small():
    return gi.geometry.representations("mod31-small", step=[0, 100, 300, 3500, 10_000], n_null=19)


def test_clock_weights_are_circles():
    task, keys = gi.ModularTask("add", 31), (3, 8)
    seen = from_weights(
        clock.clock_weights(31, keys, 20.0), clock.clock_architecture(31, 2), task,
        train_mask=split(task, 0.4),
    )  # fmt: skip
    found = gi.geometry.representations(seen, n_null=19, rows="test")
    assert found.key_frequencies == keys
    table = found.table().set_index("cloud")
    for name in ("embedding", "unembedding"):
        row = table.loc[name]
        exact = {"symmetry": 1, "key_share": 1, "circularity": 1, "phase_rqi": 1}
        assert row[list(exact)].tolist() == pytest.approx([1] * 4, abs=1e-5)
        assert row.participation_ratio == pytest.approx(4, abs=1e-4)
        assert row.probe_r2 > 0.95
    assert table.loc["answers", "symmetry"] > 0.95
    assert [each.reason for each in found.transitions[:3]] == [
        "nobody knows the steps of these checkpoints"
    ] * 3


def test_answers_are_means_of_activations_by_answer():
    run = gi.load("mod31-small")
    seen, hook = run.snapshot(3500), "blocks.0.mlp.hook_post"
    found = gi.geometry.representations(seen, of="answers", at=hook, rows="all", n_null=0)
    values, labels = seen.activation(hook).double(), run.task.labels
    means = torch.stack([values[labels == c].mean(dim=0) for c in range(31)])
    row = found.table().iloc[0]
    assert row.symmetry == pytest.approx(gi.geometry.group_symmetry(means), rel=1e-9)
    assert row.participation_ratio == pytest.approx(gi.geometry.participation_ratio(means))
    between = (means - values.mean(dim=0)).square().sum() * 31
    total = (values - values.mean(dim=0)).square().sum()
    assert row.between_share == pytest.approx(float(between / total), rel=1e-9)
    assert row.between_chance == 30 / 960
    assert "trained on too" in found.notes[0]


def test_points_that_differ_by_rounding_have_no_shape():
    """Before its nonlinearity an MLP adds a and b: over all inputs every answer has one mean."""
    found = gi.geometry.representations(
        "mlp113-grokked", [2800, 5600, 140_000], of="answers", at="blocks.0.mlp.hook_pre",
        rows="all", n_null=0,
    )  # fmt: skip
    table = found.table()
    assert table[["symmetry", "participation_ratio", "reliability"]].isna().all(axis=None)
    assert (table["between_share"] < 1e-9).all()
    assert "all points of answers are equal: they have no shape" in found.notes
    assert found.transition("answers").step is None


@pytest.mark.parametrize("measure", ["group_symmetry", "participation_ratio", "persistence"])
def test_points_may_be_of_any_size_and_have_to_be_real(measure):
    look = getattr(gi.geometry, measure)
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double()

    def seen(x):
        found = look(x)
        return getattr(found, "longest", found)

    one = seen(points)
    for same in (torch.nn.Parameter(points), points * 1e200, points * 1e-200):
        assert seen(same) == pytest.approx(one, rel=1e-6)
    for odd, said in (
        (points[:0], "there is no point"), (points[:, :0], "there is no point"),
        (points.to(torch.complex64), "give real numbers"), (points * math.nan, "not finite"),
    ):  # fmt: skip
        with pytest.raises(gi.InputError, match=said):
            look(odd)


def test_reliability_is_of_means_over_either_half():
    run, hook = gi.load("mod31-small"), "blocks.0.mlp.hook_post"
    seen = run.snapshot(3500)
    row = gi.geometry.representations(seen, of="answers", at=hook, n_null=0).table().iloc[0]
    rows = rows_of_answers(run, "unmirrored").numbers
    values, labels = seen.activation(hook)[rows].double(), run.task.labels[rows]
    half = halves(labels)
    both = [c for c in range(31) if {0, 1} <= set(half[labels == c].tolist())]
    grams = []
    for side in (0, 1):
        points = torch.stack([values[(labels == c) & (half == side)].mean(dim=0) for c in both])
        points -= points.mean(dim=0)
        grams.append((points @ points.T)[~torch.eye(len(both), dtype=torch.bool)])
    first, second = (gram - gram.mean() for gram in grams)
    cosine = first @ second / first.norm() / second.norm()
    assert row.reliability == pytest.approx(float(cosine), rel=1e-9)
    counts = [torch.bincount(labels[half == side], minlength=31) for side in (0, 1)]
    assert (counts[0] - counts[1]).unique().tolist() == [0, 1]


def test_points_that_are_left_out_are_left_out_of_the_group_too(small):
    """Seven answers have no unmirrored row; the average is over the pairs that there are."""
    run = gi.load("mod31-small")
    seen, labels = run.snapshot(3500), run.task.labels
    rows = seen.unmirrored_rows
    values = seen.activation("blocks.0.hook_resid_post").double()
    there = [c for c in range(31) if bool((labels[rows] == c).any())]
    means = torch.stack([values[rows & (labels == c)].mean(dim=0) for c in there])
    gram = centred_gram(means)
    sums, counts = torch.zeros(31), torch.zeros(31)
    for i, j in product(range(len(there)), repeat=2):
        if i != j:
            sums[(there[j] - there[i]) % 31] += gram[i, j]
            counts[(there[j] - there[i]) % 31] += 1
    by_hand = float((sums.square() / counts.clamp(min=1)).sum() / gram.square().sum())
    row = small.table().query("cloud == 'answers' and step == 3500").iloc[0]
    assert row.n_points == len(there) == 24
    assert row.symmetry == pytest.approx(by_hand, rel=1e-5)
    assert math.isnan(row.key_share)
    assert "7 answers have no input of these rows" in small.notes


def test_a_table_has_all_that_is_asked_for(small):
    assert small.table().shape == (15, 20)
    assert small.clouds == ("embedding", "unembedding", "answers")
    assert (small.memorization_step, small.grok_step) == (260, 3530)
    assert [each.cloud for each in small.transitions] == [
        *small.clouds, "test_accuracy", "test_loss"
    ]  # fmt: skip
    each = small.frequencies()
    assert len(each) == 5 * 2 * 15  # not of the answers
    weighted = each[(each["cloud"] == "embedding") & (each["step"] == 10_000) & each["key"]]
    row = small.table().query("cloud == 'embedding' and step == 10000").iloc[0]
    assert row.key_share == pytest.approx(weighted["share"].sum())
    mean = np.average(weighted["circularity"], weights=weighted["share"])
    assert row.circularity == pytest.approx(mean)
    assert row.probe_r2 == pytest.approx(weighted["probe_r2"].mean())
    assert any("of 15 rows chance alone puts about 0.75" in note for note in small.notes)
    assert json.loads(json.dumps(small.to_dict()))["key_frequencies"] == [1, 8, 14]
    assert "transitions:" in str(small)


def test_scale_and_rotation_change_nothing(small):
    """Weight decay shrinks everything; it is not topology."""
    run = gi.load("mod31-small")
    weights = run.weights()
    shrunk = weights | {"unembed.W_U": weights["unembed.W_U"] / 64}
    found = gi.geometry.representations(
        made_run(run.task, run.architecture, {10_000: shrunk}, metrics=run.metrics),
        of="unembedding", n_null=19, frequencies=[1, 8, 14],
    )  # fmt: skip
    row, before = found.table().iloc[0], small.table().query("step == 10000").iloc[1]
    names = ["symmetry", "participation_ratio", "key_share", "probe_r2", "h1", "phase_rqi"]
    assert row[names].tolist() == pytest.approx(before[names].tolist(), rel=1e-5)


def test_a_group_that_is_given_is_that_of_the_task(small):
    table = (torch.arange(31)[:, None] + torch.arange(31)) % 31
    found = gi.geometry.representations(
        "mod31-small", -1, group=table, frequencies=[1, 8, 14], n_null=19
    )
    own = small.table().query("step == 10000").reset_index(drop=True)
    pd.testing.assert_frame_equal(found.table(), own)
    without = gi.geometry.representations("mod31-small", -1, group=table, n_null=0, of="embedding")
    assert without.key_frequencies == ()
    assert any("group=" in note for note in without.notes)


def test_a_task_without_a_group_has_dimensions_and_loops_alone():
    task = gi.ModularTask("a**2 + a*b + b**2", p=11)
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Embedding(12, 6), torch.nn.Flatten(), torch.nn.Linear(18, 11)
    )
    found = gi.geometry.representations(module, task=task, at="1", rows="all", n_null=19)
    table = found.table().set_index("cloud")
    assert table.loc["answers", ["symmetry", "key_share", "probe_r2"]].isna().all()
    assert table.loc["answers", ["participation_ratio", "h1", "between_share"]].notna().all()
    assert table.loc["embedding", "n_points"] == 0
    for said in ("answers has no group that moves its points", "there is no cloud embedding"):
        assert any(said in note for note in found.notes)
    nowhere = gi.geometry.representations(module, task=task, rows="all", n_null=0)
    assert any("at='fc1'" in note for note in nowhere.notes)
    unsplit = gi.geometry.representations(module, task=task, at="1", n_null=0)
    assert any("rows='all'" in note for note in unsplit.notes)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("multiply", {"embedding": 10}),  # without token 0
        ("subtract", {"embedding": 11}),  # b the other way round
        ("a*b + a", {"embedding_a": 10, "embedding_b": 10}),  # by log a, and by log (b + 1)
        ("a**2 + b", {"embedding_a": 11, "embedding_b": 11}),  # a**2 is no order
    ],
)
def test_operands_are_in_the_order_of_their_own_maps(operation, expected):
    """An embedding that is a circle in the order of the last operand."""
    task = gi.ModularTask(operation, 11)
    architecture = clock.clock_architecture(11, 1)
    weights = clock.clock_weights(11, (1,), 1.0)
    order = task.answer_group.operand_orders[1]
    table = 0.3 * noise(12, 4).float()
    table[order] = torch.nn.functional.pad(ring(len(order), 1), (0, 2)).float()
    seen = from_weights(weights | {"embed.W_E": table}, architecture, task)
    found = gi.geometry.representations(seen, of="embedding", n_null=0)
    table = found.table().set_index("cloud")
    assert dict(table["n_points"]) == expected
    assert table["symmetry"].iloc[-1] == pytest.approx(1, abs=1e-6)
    if len(expected) == 2:
        assert not table["symmetry"].iloc[0] > 0.9
    assert math.isnan(table["symmetry"].iloc[0]) == (operation == "a**2 + b")


def test_an_mlp_has_a_cloud_of_each_operand():
    options = {"n_null": 0, "rows": "test", "frequencies": [1]}
    found = gi.geometry.representations("mlp113-grokked", 11_200, **options)
    table = found.table().set_index("cloud")
    assert list(table.index) == ["embedding_a", "embedding_b", "unembedding", "answers"]
    weights = gi.load("mlp113-grokked").weights(11_200)["blocks.0.mlp.W_in"]
    for name, half in zip(table.index[:2], weights.split(P), strict=True):
        assert table.loc[name, "symmetry"] == pytest.approx(gi.geometry.group_symmetry(half))
    assert "blocks.0.mlp.hook_post" in found.notes[0]


@dataclass(frozen=True, kw_only=True)
class Parity(gi.tasks.TableTask):
    """Two answers, no operands and no group."""

    n_classes = 2

    def inputs(self):
        return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)

    def answers(self):
        return self.inputs().sum(dim=1).long() % 2


def says_that_two_answers_have_no_shape(found):
    assert found.table()[["symmetry", "participation_ratio", "h1"]].isna().all(axis=None)
    assert found.table()["n_points"].tolist() == [0, found.table()["n_points"][1], 2]
    assert any("answers has 2 points, fewer than 5" in note for note in found.notes)
    assert found.transition("embedding").step is None
    assert gi.viz.plot_representations(found).layout.annotations
    assert gi.viz.plot_clouds(found).layout.annotations


def test_two_answers_have_no_shape():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    found = gi.geometry.representations(net, task=Parity(), at="1", rows="all", n_null=0)
    says_that_two_answers_have_no_shape(found)
    assert found.table()["between_share"].iloc[2] < 1


@pytest.mark.slow  # its configurations take ten seconds to draw
def test_so_has_an_ising_run():
    says_that_two_answers_have_no_shape(
        gi.geometry.representations("ising-grokked", 20_000, n_null=0)
    )


def test_bad_requests_are_told_in_one_line(small):
    for options, wrong in (
        ({"of": "embeding"}, "did you mean 'embedding'"),
        ({"of": []}, "has no cloud"),
        ({"rows": "tset"}, "did you mean 'test'"),
        ({"at": "blocks.7.hook_resid_post", "of": "answers"}, "blocks.7"),
        ({"n_null": -1}, "n_null"),
        ({"step": [300, 0]}, "do not rise"),
        ({"group": torch.zeros(3, 3, dtype=torch.int64)}, "once in each row"),
        ({"group": symmetric_group(3)[1]}, "6 elements and the cloud 31 points"),
    ):
        with pytest.raises(gi.InputError, match=wrong):
            gi.geometry.representations("mod31-small", **{"step": 0, "n_null": 0} | options)
    with pytest.raises(gi.InputError, match="steps that were measured"):
        gi.viz.plot_clouds(small, steps=[7])


def test_what_is_not_finite_is_said_and_not_measured():
    run = gi.load("mod31-small")
    weights = run.weights(300)
    broken = weights | {"unembed.W_U": weights["unembed.W_U"] * math.nan}
    checkpoints = {0: run.weights(0), 300: broken}
    made = made_run(run.task, run.architecture, checkpoints, metrics=run.metrics)
    found = gi.geometry.representations(made, of="unembedding", n_null=0, frequencies=[1])
    assert found.table()["symmetry"].isna().tolist() == [False, True]
    assert "there is no cloud unembedding: it has entries that are not finite (step 300)" in (
        found.notes
    )


def test_clouds_are_drawn_where_they_are(small):
    drawn = gi.viz.plot_clouds(small, steps=[10_000])
    k, panel = 14, drawn.data[0]
    table = gi.load("mod31-small").weights()["embed.W_E"][:31].double()
    table = table - table.mean(dim=0)
    angle = 2 * math.pi * k * torch.arange(31) / 31
    along = angle.cos().double() @ table
    expected = table @ along / along.norm()
    ratio = torch.tensor(panel.x) / expected
    assert ratio.std() / ratio.mean() < 1e-4
    assert list(panel.marker.color) == [k * x % 31 for x in range(31)]


# --- the runs that ship ---


def test_the_registered_measure_has_a_column_per_date():
    run = gi.load("mod31-small")
    found = measured(run, ["representations"])
    assert found["representations_unembedding_step"] == 1000
    assert found["representations_test_accuracy_step"] == 1400


def test_the_grokked_run_as_it_was_measured():
    run = gi.load("mod113-grokked")
    found = gi.geometry.representations(run, step=[800, 4800, 12_000], n_null=0)
    table = found.table().set_index(["step", "cloud"])
    expected = {
        "embedding": {
            "symmetry": [0.074, 0.439, 0.994], "participation_ratio": [31.0, 21.5, 7.9],
            "key_share": [0.166, 0.378, 0.980],
        },
        "unembedding": {"symmetry": [0.147, 0.691, 0.989]},
        "answers": {"symmetry": [0.192, 0.969, 0.992]},
    }  # fmt: skip
    for cloud, measures in expected.items():
        for name, values in measures.items():
            got = [table.loc[(step, cloud), name] for step in found.steps]
            within = 0.1 if name == "participation_ratio" else 0.01
            assert got == pytest.approx(values, abs=within), (cloud, name)
    k18 = found.frequencies().query("cloud == 'embedding' and frequency == 18")
    assert k18["phase_rqi"].tolist()[1:] == pytest.approx([0.45, 0.94], abs=0.01)
    probes = [table.loc[(step, "embedding"), "probe_r2"] for step in found.steps]
    assert probes == pytest.approx([0.04, 0.70, 0.995], abs=0.05)


def test_few_inputs_to_an_answer_hide_its_place():
    """Ten unmirrored pairs to an answer of an MLP: which pairs they are outweighs the answer."""
    few, every = (
        gi.geometry.representations("mlp113-grokked", -1, of="answers", rows=rows, n_null=0)
        for rows in ("unmirrored", "all")
    )
    hidden, seen = few.table().iloc[0], every.table().iloc[0]
    assert hidden.reliability < 0.4
    assert hidden.symmetry < 0.1
    assert any("their symmetry is a lower bound" in note for note in few.notes)
    assert seen.reliability > 0.7
    assert seen.symmetry > 0.7
    assert not any("lower bound" in note for note in every.notes)


@pytest.mark.slow
def test_the_grokked_run_in_full():
    """The order of transitions, and loops of the answers from 2,500 on, of all checkpoints."""
    found = gi.geometry.representations("mod113-grokked")
    steps = [found.transition(x).step for x in ("answers", "unembedding", "embedding")]
    assert [*steps, found.grok_step] == sorted([*steps, found.grok_step])
    intervals = {each.cloud: each.interval for each in found.transitions}
    for cloud, (least, most) in {
        "answers": (1200, 2000), "unembedding": (3000, 4000), "embedding": (4800, 5200)
    }.items():  # fmt: skip
        assert least <= intervals[cloud][0] < intervals[cloud][1] <= most
    answers = found.table().query("cloud == 'answers'").set_index("step")
    above = answers.h1 > answers.h1_null95
    assert above.loc[3000:].all()
    assert not above.loc[:2000].any()
    assert 2000 < found.h1_from["answers"] <= 3000
    assert 7000 <= found.h1_held_from["embedding"] <= 7300
    assert found.table().symmetry_null95.between(0.010, 0.014).all()
    assert answers.loc[3000, "symmetry"] == pytest.approx(0.871, abs=0.01)


@pytest.mark.slow
def test_the_steady_run_has_the_same_order_at_once():
    found = gi.geometry.representations("mod113-steady", [100, 130, 2000], n_null=0)
    table = found.table().set_index(["step", "cloud"])["symmetry"]
    assert table[(100, "answers")] == pytest.approx(0.19, abs=0.01)
    at_130 = [table[(130, x)] for x in ("answers", "unembedding", "embedding")]
    assert at_130 == pytest.approx([0.98, 0.81, 0.56], abs=0.01)
    assert table[(2000, "embedding")] == pytest.approx(0.85, abs=0.01)
    assert all(each.step is None for each in found.transitions[:3])


@pytest.mark.slow
def test_means_over_trained_rows_look_ordered_too_early():
    """With memorised rows mixed in, the answers' loop is above its null 1,000 steps before."""
    options = {"step": 2000, "of": "answers"}
    every = gi.geometry.representations("mod113-grokked", rows="all", **options).table().iloc[0]
    unseen = gi.geometry.representations("mod113-grokked", **options).table().iloc[0]
    assert every.h1 > every.h1_null95
    assert unseen.h1 < unseen.h1_null95
