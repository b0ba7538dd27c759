"""Critical sizes of the training set: predicted by norms, of learning, and of forgetting.

Runs are made by hand. Their networks look answers up: a hidden unit a pair, and one that is never
active, whose weights make the norm what it should be.
"""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.claims import Bracket, critical_size
from grokinterp.encodings import efficiency, efficiency_fit
from grokinterp.tasks import unmirrored_rows
from tests.made_runs import curves, recipe_run

P, STEPS = 7, 1000
BASE = gi.Recipe(
    model="mlp", p=P, operation="subtract", d_mlp=P * P + 1, steps=STEPS, checkpoints=[0, STEPS]
)


def answering(answers, *, p=P, norm=None):
    """The weights of a network with these answers, whose right logits are 1/2 and all others 0."""
    pairs = torch.arange(p * p)
    w_in, w_out = torch.zeros(2 * p, p * p + 1), torch.zeros(p * p + 1, p)
    w_in[pairs // p, pairs] = 1.0
    w_in[p + pairs % p, pairs] = 1.0
    w_out[pairs, torch.as_tensor(answers)] = 1.0
    bias = torch.full((p * p + 1,), -1.5)
    found = {
        "blocks.0.mlp.W_in": w_in, "blocks.0.mlp.b_in": bias,
        "unembed.W_U": w_out, "unembed.b_U": torch.zeros(p),
    }  # fmt: skip
    if norm is not None:
        rest = sum(float(w.square().sum()) for w in found.values()) - 1.5**2
        bias[-1] = -math.sqrt(norm**2 - rest)
    return found


def first(size, *, t95=None, seed=0, norm=None, name="run", **changes):
    """A run from initial weights on `size` pairs, right on those, or on all once it has t95."""
    fraction = (size + 0.5) / P**2
    recipe = BASE.replace(train_fraction=fraction, seed=seed, data_seed=seed, **changes)
    labels = recipe.build_task().labels
    answers = (labels + 1) % P
    rows = recipe.train_indices() if t95 is None else slice(None)
    answers[rows] = labels[rows]
    log = curves(recipe.steps, fits=50, generalizes=t95)
    return recipe_run(recipe, log, weights=answering(answers, norm=norm), name=name)


def again(size, share, *, start="start", seed=0, **changes):
    """A run that went on from another one, right on a share of what neither was trained on."""
    recipe = BASE.replace(
        train_fraction=(size + 0.5) / P**2, seed=seed, data_seed=seed, start=start, **changes
    )
    labels = recipe.build_task().labels
    answers = (labels + 1) % P
    answers[recipe.train_indices()] = labels[recipe.train_indices()]
    others = BASE.replace(train_fraction=START, data_seed=0).train_indices()
    never = torch.ones(P**2, dtype=torch.bool)
    never[others] = never[recipe.train_indices()] = False
    rows = never.nonzero().flatten()
    right = rows[: round(share * len(rows))]
    answers[right] = labels[right]
    log = curves(recipe.steps, fits=50)
    return recipe_run(recipe, log, weights=answering(answers), name=f"again-{size}-{seed}")


START = 39.5 / P**2
GROKKED = first(39, t95=300, name="start")


class TestTheBracket:
    @pytest.mark.parametrize(
        ("shares", "none", "every", "half"),
        [
            ({100: 0, 400: 1}, 100, 400, 200),
            ({100: 0, 200: 1 / 3, 800: 2 / 3, 900: 1}, 100, 900, 400),
            ({100: 1, 200: 1}, None, 100, math.nan),
            ({100: 0, 200: 0}, 200, None, math.nan),
            ({100: 1 / 3, 400: 2 / 3}, None, None, 200),
            ({100: 0, 200: 1, 300: 0, 1200: 1}, 100, 1200, 600),
            ({}, None, None, math.nan),
        ],
    )
    def test_closed_open_and_uneven(self, shares, none, every, half):
        found = Bracket.of(shares)
        assert (found.none, found.every) == (none, every)
        assert found.half == pytest.approx(half, nan_ok=True)

    @pytest.mark.parametrize(
        ("shares", "said"),
        [
            ({100: 0, 400: 1}, "no run at 100, all from 400"),
            ({100: 1, 200: 1}, "open below, all from 100"),
            ({100: 0, 200: 0}, "no run at 200, open above"),
            ({100: 1, 200: 0}, "open below, open above"),  # all do somewhere, and none somewhere
        ],
    )
    def test_what_it_says(self, shares, said):
        assert str(Bracket.of(shares)) == said


@pytest.fixture(scope="module")
def predicted():
    """Random labels whose norm at a fixed logit is 6 D^(1/2), true ones with 30: D_crit is 25."""
    unit = math.sqrt(0.5 * (1 - 1 / P))  # the root of every right logit, less the mean
    runs = {
        f"random-{size}": first(size, operation="random", norm=6 * math.sqrt(size) * unit)
        for size in (20, 30, 40)
    }
    runs |= {f"unlearned-{size}": first(size) for size in (20, 24)}
    late = {(26, 0): 800, (26, 1): None, (26, 2): 600, (30, 0): 300, (30, 1): 500, (40, 0): 100}
    for (size, seed), t95 in late.items():
        norm = None if t95 is None else 30 * unit
        runs[f"true-{size}-{seed}"] = first(size, t95=t95, seed=seed, norm=norm)
    return runs


class TestLearning:
    def test_predicted_and_observed(self, predicted):
        found = critical_size(predicted)
        assert found.d_crit == pytest.approx(25, rel=1e-4)
        assert found.efficiency.p_mem_exponent == pytest.approx(0.5, rel=1e-4)
        assert (found.observed.none, found.observed.every) == (24, 30)
        part = 0.5 / (2 / 3)  # of the way from 24 to 26, in log D
        assert found.observed.half == pytest.approx(24 * (26 / 24) ** part)
        table = found.table().set_index("n_train")
        assert table.n_seeds.tolist() == [1, 1, 3, 2, 1]
        assert table.n_generalize.tolist() == [0, 0, 2, 2, 1]
        assert table.t95[[26, 30, 40]].tolist() == [800, 400, 100]
        assert table.t95[[20, 24]].isna().all()
        assert table.test_acc[24] == 0.0
        assert found.budget == (STEPS, STEPS)
        assert "fewer than 3 seeds at some size" in found.notes
        assert len(found.table("runs")) == len(predicted)
        assert found.to_dict()["observed"]["every"] == 30
        assert "predicted: memorising gets dearer at D = 25" in str(found)

    def test_the_prediction_is_that_of_efficiency_without_started_runs(self, predicted):
        found = critical_size(predicted | {"start": GROKKED, "again": again(10, 0.0)})
        assert found.efficiency.fit == efficiency(predicted | {"start": GROKKED}).fit
        assert len(found.forgetting) == 1

    def test_open_on_either_side(self):
        below = critical_size([first(30, t95=300)])
        assert any(note.startswith("open below: at the smallest") for note in below.notes)
        above = critical_size([first(30)])
        assert any(note.startswith("open above: at the largest") for note in above.notes)
        assert (below.observed.none, above.observed.every) == (None, None)

    def test_one_that_still_rises(self):
        recipe = BASE.replace(train_fraction=20.5 / P**2)
        log = curves(STEPS, fits=50)
        log["test_acc"] = log.step / (2 * STEPS)
        weights = answering((recipe.build_task().labels + 1) % P)
        found = critical_size([recipe_run(recipe, log, weights=weights), first(30, name="flat")])
        assert found.table().rise.tolist() == pytest.approx([0.05, 0.0])
        assert any(note.startswith("test accuracy still rises at 20:") for note in found.notes)

    def test_what_is_left_out(self, predicted):
        others = {
            "rate": first(22, t95=100, lr=0.1),
            "sum": first(22, t95=100, operation="x2xyy2"),
            "long": first(24, seed=1, steps=2000),
        }
        found = critical_size(predicted | others)
        assert found.observed == critical_size(predicted).observed
        assert "left out: rate (other lr)" in found.notes
        assert "left out: sum (another operation than subtract)" in found.notes
        assert found.budget == (1000, 2000)
        assert "not all runs are as long: 1,000 to 2,000 updates" in found.notes

    def test_one_checkpoint_generalises_and_does_not_say_when(self):
        seen = gi.load("mod31-small").snapshot()
        (row,) = critical_size(seen).sizes
        assert (row["n_generalize"], row["t95"]) == (1, None)

    def test_one_that_knows_nothing(self):
        run = gi.load("mod31-small")
        found = critical_size(gi.snapshot(run.model(), run.task))
        assert found.table().empty
        assert found.observed == Bracket()
        assert any("no run with true labels" in note for note in found.notes)


class TestForgetting:
    def test_outcomes_and_bracket(self):
        runs = [GROKKED, again(5, 0.0), again(12, 0.5), again(20, 1.0), again(30, 1.0)]
        found = critical_size(runs)
        table = found.table("ungrokking")
        assert table.outcome.tolist() == ["forgets", "neither", "keeps", "keeps"]
        assert table.n_train.tolist() == [5, 12, 20, 30]
        assert set(table.n_start) == {39}
        assert set(table.n_never) == {10}
        assert table.acc.tolist() == [0.0, 0.5, 1.0, 1.0]
        assert set(table.start_acc) == {1.0}
        assert (found.ungrokking.none, found.ungrokking.every) == (12, 20)

    def test_only_what_neither_was_trained_on(self):
        """With another split, what the first run was trained on is no test of the second."""
        run = again(20, 1.0, seed=3)
        (row,) = critical_size([GROKKED, run]).forgetting
        assert row["n_never"] == int((~(run.train_mask | GROKKED.train_mask)).sum()) < 10

    def test_hysteresis(self):
        runs = [GROKKED, first(20, name="from-init"), again(20, 1.0), again(5, 0.0)]
        found = critical_size(runs)
        assert found.hysteresis == (20,)
        assert "hysteresis: kept, but not found from the initial weights, at 20" in str(found)
        assert critical_size([GROKKED, again(20, 1.0)]).hysteresis == ()
        most = [*runs, again(20, 0.5, seed=1), again(20, 1.0, seed=2)]
        assert critical_size(most).hysteresis == (20,)
        assert critical_size([*most, again(20, 0.0, seed=3)]).hysteresis == ()

    def test_one_seed_that_forgets_is_no_keeping(self):
        runs = [GROKKED, again(20, 1.0), again(20, 0.0, seed=1), again(30, 1.0)]
        found = critical_size(runs)
        assert (found.ungrokking.none, found.ungrokking.every) == (None, 30)
        assert found.hysteresis == ()

    @pytest.mark.parametrize(
        ("start", "why"),
        [
            (None, "the run it started from, start, is not here"),
            (first(39, name="start"), "the run it started from does not generalise"),
            (
                first(39, t95=9, name="start", operation="add"),
                "started from a run with other labels",
            ),
            (first(39, t95=9, name="start", start="x"), "a run that started from another one"),
            (recipe_run(BASE.replace(p=5), curves(STEPS), name="start"), "a run of another task"),
        ],
    )
    def test_what_cannot_be_said(self, start, why):
        found = critical_size([again(20, 1.0), *([] if start is None else [start])])
        row = found.forgetting[0]
        assert row["outcome"] == "unknown"
        assert why in row["why"]
        assert any(why in note for note in found.notes)
        assert found.ungrokking == Bracket()

    def test_nothing_is_left_to_test_on(self):
        every = first(48, t95=300, name="start")
        whole = again(48, 1.0)
        found = critical_size([every, whole])
        (row,) = found.forgetting
        never = int((~(every.train_mask | whole.train_mask)).sum())
        assert row["n_never"] == never == 1

    def test_unmirrored_pairs_of_a_commutative_operation(self):
        p, recipe = 11, gi.Recipe(model="mlp", p=11, d_mlp=122, steps=STEPS, train_fraction=0.3)
        labels = recipe.build_task().labels
        weights, log = answering(labels, p=p), curves(STEPS, fits=50, generalizes=300)
        start = recipe_run(recipe, log, weights=weights, name="start")
        went_on = recipe_run(
            recipe.replace(train_fraction=0.2, start="start"), log, weights=weights, name="again"
        )
        (row,) = critical_size([start, went_on]).forgetting
        assert row["unmirrored"]
        assert row["n_never"] == int(unmirrored_rows(start.task, start.train_mask).sum()) >= 20
        assert row["outcome"] == "keeps"


def test_trained_from_a_folder(tmp_path):
    """The start run is read from where the recipe says."""
    recipe = gi.Recipe(model="mlp", p=5, d_mlp=8, steps=10, train_fraction=0.8, log_every=5)
    start = gi.train(recipe, tmp_path / "elsewhere", progress=False)
    less = recipe.replace(train_fraction=0.5, start=str(start.path))
    gi.train(less, tmp_path / "runs" / "less", progress=False)
    found = critical_size(tmp_path / "runs")
    (row,) = found.forgetting
    assert (row["n_train"], row["n_start"], row["n_never"]) == (12, 20, 5)
    assert row["why"] == "the run it started from does not generalise"
    assert found.sizes == ()


class TestTheExample:
    """Tables of real runs that examples/explanations has, and what its README says of them."""

    FOLDER = Path(__file__).parent.parent / "examples" / "explanations"

    def test_what_is_trained(self):
        recipes = gi.Sweep.from_toml(self.FOLDER / "critical-size.toml").recipes()
        sizes = {len(recipe.train_indices()) for recipe in recipes.values()}
        assert sizes == {200, 400, 450, 500, 576, 600, 800}
        table = pd.read_csv(self.FOLDER / "critical-size.csv")
        assert [run.removeprefix("sizes/") for run in table.run] == sorted(recipes)
        assert {recipe.weight_decay for recipe in recipes.values()} == {1.0}

    def test_predicted_and_observed(self):
        table = pd.read_csv(self.FOLDER / "critical-size.csv")
        random, true = table[table.labels == "random"], table[table.labels == "true"]
        level = true[true.stands_for == "generalizing"].normalized_norm
        fit = efficiency_fit(list(random.n_train), list(random.normalized_norm), list(level))
        assert 0.25 <= fit.exponent <= 0.5
        assert level.max() / level.min() < 1.1
        assert (round(fit.d_crit), round(fit.d_low), round(fit.d_high)) == (475, 459, 492)
        found = Bracket.of(true.groupby("n_train").generalizes.mean().to_dict())
        assert (found.none, found.every, round(found.half)) == (450, 500, 474)
        assert fit.d_low < found.half < fit.d_high

    def test_ungrokking(self):
        table = pd.read_csv(self.FOLDER / "ungrokking.csv").set_index("n_train")
        assert (table.acc[200] < 0.2).all()
        assert (table.acc_all[400] > 0.9).all()
        assert (table.acc[600] == 1).all()
        assert (table.train_acc == 1).all()


def test_the_picture(predicted):
    drawn = critical_size(
        predicted | {"start": GROKKED, "b": again(5, 0), "c": again(20, 1)}
    ).plot()
    names = [trace.name for trace in drawn.data]
    assert names[:3] == ["memorising random labels", "generalising", "in neither fit"]
    assert names[-2:] == ["from initial weights", "from a network that generalised"]
    assert sorted(drawn.data[-1].x) == [5, 20]
    bands = {shape.name: (shape.x0, shape.x1) for shape in drawn.layout.shapes if shape.name}
    assert bands["generalise: from none to all"] == (24, 30)
    assert bands["keep it: from none to all"] == (5, 20)
    (crossing,) = (name for name in bands if name.startswith("crossing"))
    assert bands[crossing][0] == critical_size(predicted | {"start": GROKKED}).d_crit
