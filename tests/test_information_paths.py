"""Paths of predictions: arcs of known length, walks without one, and runs."""

import dataclasses
import math
from itertools import pairwise

import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.base.errors import InputError
from grokinterp.geometry.paths import information_path, path_of, stages_of
from grokinterp.geometry.predictions import geodesic_point, pairwise_distances, root_probabilities
from grokinterp.progress.labels import Margin
from grokinterp.progress.phases import Phase, Phases
from tests.made_runs import changed, made_run
from tests.test_neurons import random_model


def draw(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def path(roots):
    return path_of(pairwise_distances(roots), range(len(roots)))


def latitude(angles, colatitude=math.pi / 4):
    """Points of one input and three classes on a circle of latitude around class 3."""
    x, y = angles.cos() * math.sin(colatitude), angles.sin() * math.sin(colatitude)
    return torch.stack([x, y, torch.full_like(x, math.cos(colatitude))], dim=1)[:, None]


def evenly(n, end=math.pi / 2):
    return torch.linspace(0, end, n, dtype=torch.float64)


@pytest.mark.parametrize("fractions", [evenly(17, 1.0), evenly(17, 1.0) ** 3])
def test_a_geodesic_is_straight_however_it_is_sampled(fractions):
    p, q = root_probabilities(draw(6, 4, scale=2)), root_probabilities(draw(6, 4, seed=1, scale=2))
    found = path(torch.stack([geodesic_point(p, q, float(t)) for t in fractions]))
    assert found.straightness == pytest.approx(1, abs=1e-12)
    assert found.growth == pytest.approx(0, abs=1e-12)
    assert found.limit.length == pytest.approx(found.geodesic, rel=1e-12)
    assert found.limit.straightness == pytest.approx(1, abs=1e-12)


def test_a_detour_over_a_corner():
    """Three certain answers, one after the other: twice pi to go, pi apart."""
    found = path(torch.eye(3, dtype=torch.float64)[:, None])
    assert found.length == pytest.approx(2 * math.pi, rel=1e-14)
    assert found.geodesic == pytest.approx(math.pi, rel=1e-14)
    assert found.straightness == pytest.approx(0.5, rel=1e-14)


@pytest.mark.parametrize("warp", [1, 2])
def test_a_circle_of_latitude_has_its_length(warp):
    """2 sin(theta) Delta phi, evenly sampled or not; in pieces 4 arcsin(sin theta sin(d/2))."""
    angles = evenly(65, 1.0) ** warp * math.pi / 2
    found = path(latitude(angles))
    pieces = 4 * (math.sin(math.pi / 4) * (angles.diff() / 2).sin()).asin()
    assert found.length == pytest.approx(float(pieces.sum()), rel=1e-12)
    true = 2 * math.sin(math.pi / 4) * math.pi / 2
    assert found.length < true
    assert found.limit.length == pytest.approx(true, rel=1e-6)
    assert abs(found.length / true - 1) > 1e-5  # so that the limit has something to add
    assert found.limit.order == pytest.approx(2, abs=0.01)
    assert found.limit.straightness == pytest.approx(found.geodesic / true, rel=1e-6)
    assert found.straightness == found.geodesic / found.length > found.limit.straightness


def test_rough_paths_have_no_limit():
    walk = torch.stack([root_probabilities(x) for x in draw(257, 40, 6, scale=0.05).cumsum(dim=0)])
    noise = torch.stack([root_probabilities(x) for x in draw(257, 40, 6, seed=1, scale=0.05)])
    for points, order in ((walk, -0.5), (noise, -1.0)):
        found = path(points)
        assert found.limit.length is None
        assert found.limit.straightness is None
        assert found.limit.order == pytest.approx(order, abs=0.1)
        assert "no sign of a limit" in found.limit.reason
        assert found.growth == pytest.approx(2**-order - 1, rel=0.1)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 14])
def test_refinement_is_monotone_and_keeps_both_ends(n):
    found = path(torch.stack([root_probabilities(x) for x in draw(n, 5, 4, scale=2)]))
    table = found.refinement().set_index("stride")
    assert list(table.index) == [2**i for i in range(len(table))]
    for stride, row in table.iterrows():
        kept = sorted({*range(0, n, stride), n - 1})
        assert row["n_checkpoints"] == len(kept)
        length = sum(float(found.distances[a, b]) for a, b in pairwise(kept))
        assert row["length"] == pytest.approx(length, rel=1e-12)
    assert (table["length"].diff().dropna() <= 1e-12).all()
    assert table["length"].iloc[-1] == found.geodesic  # both ends alone
    if n >= 3:
        assert found.growth == pytest.approx(table["length"][1] / table["length"][2] - 1)
    if n < 9:
        assert found.limit.reason == f"{n} checkpoints; a limit takes 9"
    if n < 3:
        assert math.isnan(found.growth)


def test_parts_of_a_path():
    whole = path_of(
        pairwise_distances(latitude(evenly(10))), [0, 5, 10, 20, 30, 40, 60, 80, 90, 99]
    )
    part = whole.between(10, 60)
    assert part.steps == (10, 20, 30, 40, 60)
    assert torch.equal(part.distances, whole.distances[2:7, 2:7])
    assert whole.thinned(4).steps == (0, 30, 90, 99)
    assert whole.between(10, 10).length == 0
    assert math.isnan(whole.between(10, 10).straightness)
    with pytest.raises(
        InputError, match=r"step 12 is no checkpoint of this path; the nearest is 10"
    ):
        whole.between(12, 60)
    with pytest.raises(InputError, match="runs backwards"):
        whole.between(60, 10)
    for stride in (0, -1, True):
        with pytest.raises(InputError, match="stride="):
            whole.thinned(stride)


def test_the_table_has_a_row_a_stage():
    whole = path_of(
        pairwise_distances(latitude(evenly(20))),
        range(20),
        rows="train",
        n_samples=1,
        n_rows=3,
        seed=4,
    )
    table = whole.table({"late": (8, 19), "early": (0, 4)})
    assert table["part"].tolist() == ["whole", "late", "early"]
    for _, row in table.iterrows():
        part = whole.between(row["start"], row["end"])
        for name in ("length", "geodesic", "straightness", "growth"):
            assert row[name] == getattr(part, name)
        assert row["n_checkpoints"] == len(part.steps)
        assert row["reason"] == part.limit.reason
    late, early = table.iloc[1], table.iloc[2]
    assert late["limit_length"] == whole.between(8, 19).limit.length
    assert late["limit_straightness"] == whole.between(8, 19).limit.straightness
    assert late["order"] == whole.between(8, 19).limit.order
    assert math.isnan(early["limit_length"])
    assert early["reason"] == "5 checkpoints; a limit takes 9"
    assert table.attrs == {"rows": "train", "n_samples": 1, "n_rows": 3, "seed": 4}
    pd.testing.assert_frame_equal(whole.table(), table.iloc[:1])


def test_stages_lie_between_the_nearest_checkpoints():
    phases = Phases(
        label="grokked", memorization_step=None, grok_step=None,
        phases=(
            Phase("memorization", 0, 140, None), Phase("circuit_formation", 140, 900, None),
            Phase("cleanup", 900, None, None),
        ),
        key_frequencies=None, reasons=(), margin=Margin(1, ""), t_train=120, t_test=950,
    )  # fmt: skip
    steps = [0, 100, 200, 800, 1000, 5000]
    assert stages_of(phases, steps) == {
        "memorization": (0, 100),
        "circuit_formation": (100, 800),  # 900 is as near to 1000: the earlier
        "learning": (0, 100),
        "delay": (100, 1000),
        "after": (1000, 5000),
    }
    assert stages_of(phases, [0, 5000]) == {"after": (0, 5000)}
    together = dataclasses.replace(phases, phases=(), t_test=120)
    assert stages_of(together, steps) == {}


@pytest.fixture(scope="module")
def dense_run(tmp_path_factory):
    """A smooth run: full batches, a small rate, every update saved."""
    recipe = gi.Recipe(
        model="mlp", p=11, d_mlp=32, train_fraction=0.6, steps=64, checkpoints="every:1", lr=2e-3
    )
    return gi.train(recipe, tmp_path_factory.mktemp("dense") / "run")


def test_a_densely_saved_smooth_run_converges(dense_run):
    """What each halving adds falls, and the limit from every 4th foretells the finest length."""
    found = information_path(dense_run, rows="all", n_samples=None)
    assert found.steps == tuple(range(65))
    lengths = found.refinement()["length"].tolist()
    added = [one - two for one, two in pairwise(lengths)]
    assert all(one < two for one, two in pairwise(added[:5]))
    assert found.growth < 0.002
    assert found.limit.length == pytest.approx(lengths[0], rel=0.005)
    limit = found.thinned(4).limit.length
    assert abs(limit - lengths[0]) < abs(lengths[2] - lengths[0])


def test_what_the_weights_are_called_does_not_matter(dense_run):
    """Neurons in another order, and scaled before and after their ReLU."""
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    scale = 0.5 + torch.rand(32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def renamed(weights):
        w = {name: weight.double() for name, weight in weights.items()}
        w["blocks.0.mlp.W_in"] = (w["blocks.0.mlp.W_in"] * scale)[:, order]
        w["blocks.0.mlp.b_in"] = (w["blocks.0.mlp.b_in"] * scale)[order]
        w["unembed.W_U"] = (w["unembed.W_U"] / scale[:, None])[order]
        return w

    steps = [0, 1, 2, 30, 63, 64]
    expected = information_path(dense_run, steps=steps)
    found = information_path(changed(dense_run, renamed), steps=steps)
    torch.testing.assert_close(found.distances, expected.distances, rtol=1e-10, atol=1e-13)
    assert float(expected.distances[0, 1]) > 1e-5
    rounded = changed(dense_run, lambda w: {n: part.float() for n, part in renamed(w).items()})
    found = information_path(rounded, steps=steps)
    torch.testing.assert_close(found.distances, expected.distances, rtol=1e-3, atol=1e-6)


def test_rows_and_samples_are_those_asked_for(dense_run):
    train = dense_run.train_mask
    for rows, chosen in (("train", train), ("test", ~train), ("all", train | True)):
        found = information_path(dense_run, steps=[0, 64], rows=rows)
        logits = [dense_run.snapshot(step).logits[chosen] for step in (0, 64)]
        roots = torch.stack([root_probabilities(one) for one in logits])
        assert found.geodesic == pytest.approx(float(pairwise_distances(roots)[0, 1]), rel=1e-5)
        assert (found.rows, found.n_samples, found.n_rows) == (rows, chosen.sum(), chosen.sum())
    few = information_path(dense_run, steps=[0, -1], n_samples=7, seed=3)
    assert (few.steps, few.n_samples, few.n_rows, few.seed) == ((0, 64), 7, 49, 3)
    assert few.geodesic == information_path(dense_run, steps=[0, 64], n_samples=7, seed=3).geodesic
    assert few.geodesic != information_path(dense_run, steps=[0, 64], n_samples=7, seed=4).geodesic


def test_models_of_any_depth_have_paths():
    """Through the hooked forward, in float64."""
    weights, shape, task = random_model(2, 5)
    moved = {name: w + 1e-9 for name, w in weights.items()}
    run = made_run(task, shape, {0: weights, 10: moved})
    one, two = (information_path(run, rows="all", steps=s).length for s in ("all", [0, 10]))
    assert one == two > 0
    assert one < 1e-6


def test_what_cannot_be_used_is_refused(dense_run, tiny_run):
    for steps, says in (
        ([0, 7, 7], "do not rise"), ([5, 3], "do not rise"), ([0, 999], "999 is not saved"),
        ([0, True], "step=True"), ("al", "step='al'"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            information_path(dense_run, steps=steps)
    with pytest.raises(InputError, match="rows='tset'"):
        information_path(dense_run, rows="tset")
    broken = made_run(
        tiny_run.task, tiny_run.architecture,
        {0: tiny_run.weights(0), 5: {n: w * math.nan for n, w in tiny_run.weights(0).items()}},
    )  # fmt: skip
    with pytest.raises(InputError, match="weights at step 5 are not finite"):
        information_path(broken, rows="all")
    good = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    for distances, steps, says in (
        (good, [0], r"\(2, 2\) are not those of 1 steps"), (good, [3, 3], "steps of a path rise"),
        (good * math.nan, [0, 1], "no distances"), (-good, [0, 1], "no distances"),
        (good + 1, [0, 1], "no distances"), (good.triu(), [0, 1], "no distances"),
        (torch.ones(0, 0), [], "are not those of 0 steps"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            path_of(distances, steps)
