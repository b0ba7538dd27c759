"""The path of the weights: walks and lines made by hand, long-hand sums, and the shipped run."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import grokinterp as gi
from grokinterp.sweeps import measured
from tests.made_runs import changed, made_run

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here

N_STEPS = 40


class Net(torch.nn.Module):
    """A network of many weights that nobody trains: its path is what the test makes it."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(6, 1500, dtype=torch.float64))

    def forward(self, tokens):
        return self.table[tokens].sum(1)[:, :5]


def recorded(folder, path, *, spacing=10):
    """A run whose weights at step 10 i are path[i]; of a module whose code is not at hand."""
    net, task = Net(), gi.ModularTask("add", p=5)
    mask = torch.arange(25) < 15
    with gi.Recorder(folder, task=task, train_mask=mask) as recorder:
        for i, weights in enumerate(path):
            net.table.data = weights.reshape(6, 1500)
            recorder.save(spacing * i, net)
    return gi.load(folder)


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(N_STEPS + 1, 9_000, dtype=torch.float64, generator=generator)
    return recorded(tmp_path_factory.mktemp("runs") / "walk", steps.cumsum(0))


def found_on(run, start=0, end=10 * N_STEPS):
    return gi.geometry.drift(run, window=(start, end))


def test_a_random_walk_is_diffusion(walk):
    """9,000 dimensions are so many that its numbers are nearly those of infinitely many."""
    found = found_on(walk)
    assert found.exponent == pytest.approx(0.5, abs=0.01)
    assert found.uncorrelated.exponent == pytest.approx(0.5, abs=0.005)
    assert found.straight.exponent == pytest.approx(1, abs=0.005)
    assert found.directedness == pytest.approx(0, abs=0.02)
    assert found.table().cos_previous.abs().max() < 0.05
    # Its covariance is that of a path of independent steps, whose eigenvalues are known.
    k = N_STEPS + 1
    variances = 1 / (2 * np.sin(np.pi * np.arange(1, k) / (2 * k))) ** 2
    shares = variances / variances.sum()
    assert found.whole.walk_shares[:9] == pytest.approx(shares[:9], rel=0.02)
    assert found.whole.shares[:3] == pytest.approx(shares[:3], rel=0.03)
    assert found.whole.walk_participation == pytest.approx(1 / (shares**2).sum(), rel=0.02)
    assert found.whole.shares[0] == pytest.approx(6 / math.pi**2, abs=0.02)
    assert found.whole.participation == pytest.approx(2.5, abs=0.15)


def test_a_straight_line_is_drift(tmp_path):
    start, way = torch.randn(2, 9_000, dtype=torch.float64)
    found = found_on(recorded(tmp_path / "line", [start + i * way for i in range(8)]))
    assert found.exponent == pytest.approx(1, abs=1e-9)
    assert found.displacement.low == pytest.approx(1, abs=1e-9)
    assert found.directedness == pytest.approx(1, abs=1e-9)
    assert found.table().cos_previous[1:].tolist() == pytest.approx([1] * 6)
    assert found.plateau.shares[0] == pytest.approx(1)
    assert found.plateau.participation == pytest.approx(1)
    assert found.plateau.walk_shares[0] < 0.7
    assert found.table().length.tolist() == pytest.approx([float(way.norm())] * 7)


def test_steps_that_shrink_are_no_diffusion(tmp_path):
    """A straight line whose speed falls as 1/sqrt(t) has the exponent of a random walk."""
    way = torch.randn(9_000, dtype=torch.float64)
    line = [(i**0.5) * way for i in range(12)]
    found = found_on(recorded(tmp_path / "slowing", line))
    assert found.exponent == pytest.approx(0.5, abs=1e-9)
    assert found.straight.exponent == pytest.approx(0.5, abs=1e-9)
    assert found.uncorrelated.exponent < 0.2
    assert found.directedness == pytest.approx(1, abs=1e-9)


def test_a_contraction_lies_along_minus_theta_and_a_turn_does_not(tmp_path):
    start, other = torch.linalg.qr(torch.randn(9_000, 2, dtype=torch.float64)).Q.T
    contraction = recorded(tmp_path / "contraction", [0.9**i * start for i in range(6)])
    assert found_on(contraction).cos_origin == pytest.approx([1] * 5)
    growth = recorded(tmp_path / "growth", [1.1**i * start for i in range(6)])
    assert found_on(growth).cos_origin == pytest.approx([-1] * 5)
    away = recorded(tmp_path / "away", [start, start + other])
    assert found_on(away).cos_origin == pytest.approx([0], abs=1e-12)
    angle = 0.3  # a chord of a circle leans inwards by half of it
    circle = [math.cos(i * angle) * start + math.sin(i * angle) * other for i in range(6)]
    turned = found_on(recorded(tmp_path / "circle", circle))
    assert turned.cos_origin == pytest.approx([math.sin(angle / 2)] * 5)
    assert turned.table().cos_previous[1:].tolist() == pytest.approx([math.cos(angle)] * 4)


def long_hand(run, start, end):
    """The table, the exponent and the components from flat vectors, with scipy and an SVD."""
    theta = {
        step: torch.cat([w.double().flatten() for w in run.weights(step).values()])
        for step in run.steps
    }
    seen = [step for step in run.steps if start <= step <= end]
    away = [float((theta[step] - theta[seen[0]]).norm()) for step in seen[1:]]
    fit = stats.linregress(np.log(np.array(seen[1:]) - seen[0]), np.log(away))
    points = torch.stack([theta[step] for step in seen])
    variances = torch.linalg.svdvals(points - points.mean(0)) ** 2
    moves = [
        (theta[b] - theta[a], theta[a]) for a, b in zip(run.steps, run.steps[1:], strict=False)
    ]
    along = [float(-(s @ t) / s.norm() / t.norm()) for s, t in moves]
    return away, fit, variances / variances.sum(), along


@pytest.mark.parametrize("held", [1 << 28, 1 << 21])
def test_it_is_what_flat_vectors_give_however_many_are_held(held, monkeypatch):
    monkeypatch.setattr("grokinterp.geometry.weight_path.HELD", held)
    run = gi.load("mod31-small")
    found = gi.geometry.drift(run, window=(290, 2400))
    assert found.window == (300, 2250)
    away, fit, shares, along = long_hand(run, 290, 2400)
    table = found.table()
    assert table.displacement.dropna().tolist() == pytest.approx(away, rel=1e-9)
    assert table[table.displacement.notna()].to.tolist() == [
        s for s in run.steps if 300 < s <= 2250
    ]
    assert found.cos_origin == pytest.approx(along, rel=1e-9)
    assert found.exponent == pytest.approx(fit.slope)
    assert found.displacement.standard_error == pytest.approx(fit.stderr)
    n = len(away)
    half = stats.t.ppf(0.975, n - 2) * fit.stderr
    assert (found.displacement.low, found.displacement.high) == pytest.approx(
        (fit.slope - half, fit.slope + half)
    )
    assert found.plateau.shares[:5] == pytest.approx(shares[:5].tolist(), rel=1e-6)
    assert found.whole.shares[:3] == pytest.approx(long_hand(run, 0, 10_000)[2][:3].tolist())
    assert (found.plateau.start, found.plateau.end, found.plateau.n_checkpoints) == (
        300,
        2250,
        n + 1,
    )
    assert found.n_weights == 16_799


def test_the_shipped_run_is_no_contraction_and_drifts_more_than_it_wanders(shipped):
    found = gi.geometry.drift(shipped)
    assert found.window == (200, 4800)
    cosines = found.table().set_index("step").cos_origin
    assert cosines.loc[2000:4000].between(0.26, 0.305).all()
    assert cosines.loc[5500:6700].between(0.38, 0.50).all()
    assert cosines.loc[9000] == pytest.approx(0.18, abs=0.005)
    assert cosines.max() < 0.71
    # About 1/2, and yet no diffusion: steps of these lengths that wander would have 0.30.
    assert found.exponent == pytest.approx(0.477, abs=0.005)
    assert found.uncorrelated.exponent == pytest.approx(0.298, abs=0.005)
    assert found.straight.exponent == pytest.approx(0.664, abs=0.005)
    assert found.table().set_index("step").cos_previous.loc[1600:4400].min() > 0.8
    assert found.plateau.shares[0] == pytest.approx(0.780, abs=0.005)
    assert found.plateau.walk_shares[0] == pytest.approx(0.637, abs=0.005)
    assert found.whole.shares[0] == pytest.approx(0.578, abs=0.005)
    assert "from memorization_step 170 to the start of cleanup, 5160" in found.notes[0]


def test_what_has_no_plateau_has_a_reason_and_the_rest(walk):
    found = gi.geometry.drift(walk)  # its label is not that of a run with a plateau
    assert found.window is None
    assert found.plateau is None
    assert math.isnan(found.exponent)
    assert math.isnan(found.directedness)
    assert found.notes[0].startswith("no plateau: ")
    assert found.table().displacement.isna().all()
    assert len(found.whole.shares) == N_STEPS
    assert set(found.components().part) == {"whole"}
    steady = gi.geometry.drift("mod113-steady")
    assert steady.notes == ("no plateau: the label of the run is steady; give window=",)
    assert len(steady.plot().data) == 4
    few = gi.geometry.drift(walk, window=(0, 20))
    assert few.notes == ("no exponent: 3 checkpoints on the plateau, it takes 4",)
    assert len(few.table().displacement.dropna()) == 2
    assert few.plateau.n_checkpoints == 3


def test_weights_that_stand_still_have_no_direction(tiny_run):
    start = tiny_run.weights(0)
    found = gi.geometry.drift(changed(tiny_run, lambda _: start), window=(0, 60))
    assert all(math.isnan(cosine) for cosine in found.cos_origin)
    assert math.isnan(found.exponent)
    assert found.whole.shares == ()
    assert math.isnan(found.whole.participation)
    assert found.notes[-1].startswith("no exponent: the weights do not move")
    assert "nan" not in str(found.to_dict()).lower()
    drawn = found.plot()
    assert not drawn.data
    assert "the weights do not move" in drawn.layout.annotations[0].text
    ends = {step: tiny_run.weights(step) for step in (0, 60)}
    two = made_run(tiny_run.task, tiny_run.architecture, ends)
    drawn = gi.viz.plot_drift(two, window=(0, 60))
    assert "along the step before" not in [each.name for each in drawn.data]


def test_checkpoints_without_steps_have_a_path_and_no_exponent(tiny_run):
    run = made_run(
        tiny_run.task, tiny_run.architecture,
        {i: tiny_run.weights(step) for i, step in enumerate(tiny_run.steps)},
    )  # fmt: skip
    run.manifest.steps_known = False
    found = gi.geometry.drift(run)
    assert found.notes == ("no plateau: nobody knows the steps of the checkpoints; give window=",)
    found = gi.geometry.drift(run, window=(0, 3))
    assert math.isnan(found.exponent)
    assert found.notes[0].startswith("no exponent: nobody knows the steps")
    assert len(found.plateau.shares) == 3


def test_what_is_refused(tiny_run):
    drift = gi.geometry.drift
    with pytest.raises(gi.InputError, match="one checkpoint is no path; give a run with several"):
        drift(tiny_run.snapshot())
    for window in ((60, 0), (0,), "plateau", (0, 1.5), 7):
        with pytest.raises(gi.InputError, match=r"window=.* give such as \(200, 5000\)|list"):
            drift(tiny_run, window=window)
    with pytest.raises(gi.InputError, match=r"window=\(1, 19\) holds 0 of the 4 checkpoints; give"):
        drift(tiny_run, window=(1, 19))
    bad = changed(tiny_run, lambda weights: {n: w * math.nan for n, w in weights.items()})
    with pytest.raises(gi.InputError, match="the weights at step 0 are not finite"):
        drift(bad, window=(0, 60))


def test_a_row_of_a_table_of_runs(tiny_run):
    run = gi.load("mod31-small")
    row, found = measured(run, ["drift"]), gi.geometry.drift(run)
    assert row["note"] == ""
    assert row["drift_exponent"] == found.exponent
    assert row["drift_exponent_uncorrelated"] == found.uncorrelated.exponent
    assert row["drift_exponent_straight"] == found.straight.exponent
    assert row["drift_first_component"] == found.plateau.shares[0]
    assert row["drift_first_component_of_walk"] == found.plateau.walk_shares[0]
    assert row["drift_first_component_of_run"] == found.whole.shares[0]
    row = measured(tiny_run, ["drift"])
    assert row["note"] == "drift: no exponent: fewer than 2 checkpoints lie on the plateau."
    assert "drift_exponent" not in row


def test_the_card_tells_the_exponent_beside_those_of_walks_and_lines():
    text = str(gi.geometry.drift("mod31-small"))
    assert "plateau 300 to 2250: displacement grows as time^0.613 (0.538 to 0.687)" in text
    assert "steps of these lengths: 0.357 if uncorrelated, 0.726 if straight" in text
    assert "first component, whole run: 57.5% (random walk 66.2%)" in text
