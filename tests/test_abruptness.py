"""How abruptly margins cross 0: hand-made ones of known speed, plain loops, the shipped runs."""

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.progress import MEASURES, Abruptness, abruptness, abruptness_of_margins
from grokinterp.runs.one_checkpoint import OneCheckpoint
from tests.made_runs import changed

pytestmark = pytest.mark.shapes_unchecked

NORMAL = NormalDist()
SPREAD = 7.5
SIGMAS = torch.tensor(
    [NORMAL.inv_cdf((i + 0.5) / 5000) for i in range(5000)], dtype=torch.float64
)  # fmt: skip


def crossing(mean, *, every=10):
    """What is found of 5000 normal margins around a mean that moves, from 0 to 6000."""
    steps = torch.arange(0, 6001, every, dtype=torch.float64)
    return abruptness_of_margins(mean(steps)[:, None] + SPREAD * SIGMAS, steps.tolist())


def logistic(width):
    return lambda steps: -30 + 46 * torch.sigmoid((steps - 4000) / width)


@pytest.fixture(scope="module")
def grokked(shipped):
    return abruptness(shipped)


@pytest.fixture(scope="module")
def small():
    run = gi.load("mod31-small")
    return run, abruptness(run)


class TestHandMadeMargins:
    def test_constant_drift_is_not_accelerated_and_is_all_threshold(self):
        found = crossing(lambda steps: -30 + 46 * steps / 6000)
        assert found.acceleration == pytest.approx(1, abs=1e-9)
        assert found.mean_speed == pytest.approx(46 / 6000)
        assert 0.96 <= found.threshold_share <= 1
        assert found.spread == pytest.approx(SPREAD, rel=1e-3)
        top = NORMAL.cdf(16 / SPREAD)
        for share, step in zip((0.1, 0.5, 0.9), ("t10", "t50", "t90"), strict=True):
            mean = SPREAD * NORMAL.inv_cdf(share * top)
            assert getattr(found.rise("accuracy"), step) == pytest.approx(
                (mean + 30) / 46 * 6000, abs=2
            )
        width = found.width_at_mean_speed
        assert width == pytest.approx(2.5631031 * SPREAD * 6000 / 46, rel=1e-3)
        assert found.rise("accuracy").width <= width  # the range of accuracy ends below 1

    @pytest.mark.parametrize(("width", "speed", "share"), [(600, 2.25, 0.48), (60, 17.6, 0.21)])
    def test_a_logistic_drift_is_accelerated(self, width, speed, share):
        """A = v(t50) / v_mean in closed form: the slope of the logistic function over its mean."""
        found = crossing(logistic(width))
        t50 = found.rise("accuracy").t50
        mean = logistic(width)(torch.tensor([0.0, t50, 6000.0], dtype=torch.float64))
        above = (mean + 30) / 46  # the logistic function itself
        slope = 46 / width * float(above[1] * (1 - above[1]))
        level = float(above[0] + 0.9 * (above[2] - above[0]))
        t90 = 4000 + width * math.log(level / (1 - level))
        expected = slope / (0.9 * float(mean[2] - mean[0]) / t90)
        assert found.acceleration == pytest.approx(expected, rel=0.02)
        assert found.acceleration == pytest.approx(speed, rel=0.01)
        assert found.threshold_share == pytest.approx(share, abs=0.01)

    def test_accuracy_of_a_step_is_steep_though_its_moment_null_is_exact(self):
        """The moment null says nothing about smoothness: it fits the fastest one best."""
        found = {width: crossing(logistic(width)) for width in (600, 60)}
        assert all(each.moment_null_rmse < 1e-3 for each in found.values())
        assert found[60].rise("accuracy").width < found[600].rise("accuracy").width / 5

    def test_coarse_steps_decide_nothing(self):
        found = crossing(logistic(60), every=100)
        assert found.n_between == 2
        assert found.acceleration is found.threshold_share is None
        assert "2 of the 4 checkpoints that it takes from t10 to t90" in found.notes[-1]
        assert found.rise("accuracy").width > 0  # what was seen is still said

    def test_it_is_the_definition(self):
        """Plain loops over every input, of walks that cross 0 many times."""
        generator = torch.Generator().manual_seed(0)
        walks = torch.randn(40, 300, generator=generator, dtype=torch.float64).cumsum(0) - 4
        margins = walks + torch.linspace(0, 14, 40, dtype=torch.float64)[:, None]
        steps = np.cumsum(np.arange(1, 41)).tolist()
        losses, norms = margins.exp().log1p() - margins, margins.abs() + 1
        found = abruptness_of_margins(margins, steps, losses=losses, norms=norms, after=10)
        flips, last = [0] * 300, [math.nan] * 300
        for row in range(300):
            for i in range(1, 40):
                one, two = float(margins[i - 1, row]), float(margins[i, row])
                if (one > 0) != (two > 0):
                    flips[row] += 1
                    last[row] = steps[i - 1] + (steps[i] - steps[i - 1]) * one / (one - two)
        assert found.n_flips.tolist() == flips
        assert found.flip_steps.tolist() == pytest.approx(last, nan_ok=True)
        seen = [x for x in last if not math.isnan(x)]
        assert found.flip_quantiles == pytest.approx(np.quantile(seen, (0.1, 0.5, 0.9)))
        assert found.one_flip == sum(n == 1 for n in flips) / 300
        curves = {
            "accuracy": (margins > 0).double().mean(1),
            "correct_probability": (-losses).exp().mean(1),
            "margin": margins.mean(1),
            "margin_over_norm": (margins / norms).mean(1),
            "loss": losses.mean(1),
            "log_loss": losses.mean(1).log(),
        }
        errors = []
        for name, curve in curves.items():
            values = curve.tolist()
            assert found.curves[name].tolist() == pytest.approx(values)
            rise = found.rise(name)
            assert (rise.start, rise.end) == pytest.approx(self.ends(values, steps, name))
            assert (rise.t10, rise.t50, rise.t90) == pytest.approx(self.passed(values, steps, name))
        for step, mean, spread, right in zip(
            steps, margins.mean(1), margins.std(1, correction=0), curves["accuracy"], strict=True
        ):
            if step >= 10:
                errors.append(float(right) - NORMAL.cdf(float(mean / spread)))
        assert found.moment_null_rmse == pytest.approx(math.sqrt(np.mean(np.square(errors))))

    def ends(self, values, steps, name):
        late = [x for x, step in zip(values, steps, strict=True) if step >= 10]
        worst = (max if "loss" in name else min)(late)
        rest = late[late.index(worst) :]
        return worst, (min if "loss" in name else max)(rest)

    def passed(self, values, steps, name):
        start, end = self.ends(values, steps, name)
        found = []
        for share in (0.1, 0.5, 0.9):
            level = start + share * (end - start)
            for i in range(1, len(values)):
                towards = values[i - 1] < level <= values[i]
                if "loss" in name:
                    towards = values[i - 1] > level >= values[i]
                if towards and steps[i] <= steps[values.index(end)]:
                    part = (level - values[i - 1]) / (values[i] - values[i - 1])
                    last = steps[i - 1] + part * (steps[i] - steps[i - 1])
            found.append(last)
        return found

    def test_of_margins_alone_there_is_no_loss(self):
        found = crossing(logistic(600))
        assert list(found.table().measure) == ["accuracy", "margin"]
        assert found.probability_ratio is None

    @pytest.mark.parametrize(
        ("margins", "steps", "options", "message"),
        [
            (torch.zeros(3, 2), [0, 1], {}, r"margins has shape \(3, 2\); give \[2 steps"),
            (torch.zeros(2, 0), [0, 1], {}, "n inputs"),
            (torch.zeros(2, 2), [1, 0], {}, "do not rise"),
            (torch.zeros(2, 2), [0, "a"], {}, "do not rise"),
            (torch.full((2, 2), torch.nan), [0, 1], {}, "not finite"),
            (torch.zeros(2, 2), [0, 1], {"losses": -torch.ones(2, 2)}, "losses has numbers below"),
            (torch.zeros(2, 2), [0, 1], {"norms": -torch.ones(2, 2)}, "norms has numbers below 0"),
            ([[0.0]], [0], {}, "margins is of type list"),
            (torch.zeros(2, 2), [0, 1], {"losses": torch.zeros(2, 3)}, "losses has shape"),
            (torch.zeros(2, 2), [0, 1], {"after": "late"}, "after='late' is not a number"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, margins, steps, options, message):
        with pytest.raises(gi.InputError, match=message):
            abruptness_of_margins(margins, steps, **options)


class TestShippedRuns:
    def test_when_accuracy_rises(self, grokked):
        rise = grokked.rise("accuracy")
        assert (rise.t10, rise.t50, rise.t90) == pytest.approx((4518, 5426, 6017), rel=0.01)
        widths = {"accuracy": 1499, "correct_probability": 1523, "margin": 3785}
        for measure, width in widths.items():
            assert grokked.rise(measure).width == pytest.approx(width, rel=0.01)
        assert grokked.probability_ratio == pytest.approx(1523 / 1499, rel=0.01)

    def test_margins_cross_smoothly(self, grokked):
        assert grokked.moment_null_rmse < 0.01
        assert grokked.one_flip >= 0.97
        assert grokked.acceleration == pytest.approx(1.65, abs=0.01)
        assert 0.55 <= grokked.threshold_share <= 0.75
        assert grokked.flip_quantiles == pytest.approx((4561, 5429, 5996), rel=1e-3)
        assert grokked.n_between == 4

    def test_its_curves_are_those_of_the_logits(self, shipped, grokked):
        seen = shipped.snapshot(5200)
        rows = seen.unmirrored_rows
        logits, labels = seen.logits.double()[rows], seen.task.labels[rows][:, None]
        right = logits.gather(1, labels).flatten()
        margins = right - logits.scatter(1, labels, -torch.inf).amax(1)
        row = grokked.curves.set_index("step").loc[5200]
        expected = {
            "margin": margins.mean(), "spread": margins.std(correction=0),
            "accuracy": (margins > 0).double().mean(),
            "correct_probability": logits.softmax(1).gather(1, labels).mean(),
            "margin_over_norm": (margins / (logits - logits.mean(1, True)).norm(dim=1)).mean(),
            "loss": -logits.log_softmax(1).gather(1, labels).mean(),
        }  # fmt: skip
        for name, value in expected.items():
            assert row[name] == pytest.approx(float(value), rel=1e-5), name
        assert grokked.notes == ("over the 6271 of 8939 test pairs whose mirror is not trained on",)

    def test_all_test_rows_have_the_logged_accuracy(self):
        run = gi.load("mod31-small")
        found = abruptness(run, rows="test", after=0)
        logged = run.metrics.set_index("step").test_acc[list(run.steps)]
        assert found.curves.accuracy.tolist() == pytest.approx(logged.tolist())
        assert (found.after, found.n_rows) == (0, 337)
        assert "also those whose mirror is trained on" in found.notes[0]

    def test_too_few_checkpoints_and_no_transition(self):
        few = abruptness("mlp113-grokked")
        assert few.acceleration is few.threshold_share is None
        assert "1 of the 4 checkpoints" in few.notes[-1]
        assert few.probability_ratio > 1.4  # its softmax is not saturated
        steady = abruptness("mod113-steady")
        assert steady.acceleration is steady.mean_speed is None
        assert "no transition: from step 180 on accuracy rises by 0.057" in steady.notes[-1]

    def test_its_columns(self, small):
        entry = MEASURES.find("abruptness")
        row, (run, found) = entry.columns_of_run(small[0]), small
        assert row["abruptness_t50"] == found.rise("accuracy").t50
        assert row["abruptness_acceleration"] == found.acceleration
        with pytest.raises(gi.InputError, match=r"no rise: it takes 2 checkpoints .*\."):
            entry.columns_of_run(OneCheckpoint(run.snapshot()))


class TestWhatCannotBeSaid:
    def nothing(self, found: Abruptness, why):
        assert found.acceleration is found.threshold_share is found.spread is None
        assert found.moment_null_rmse is None
        assert len(found.table()) == 0
        assert any(why in note for note in found.notes), found.notes
        assert why in str(found)
        assert found.plot().layout.title.text.startswith("How abrupt is generalisation?")

    def test_one_checkpoint(self):
        found = abruptness(gi.load("mod31-small").snapshot())
        self.nothing(found, "it takes 2 checkpoints")
        assert len(found.curves) == 1

    def test_a_run_without_a_split_or_without_test_inputs(self):
        torch.manual_seed(0)
        task = gi.ModularTask("add", p=5)
        module = torch.nn.Sequential(torch.nn.EmbeddingBag(6, 4), torch.nn.Linear(4, 5))
        self.nothing(abruptness(module, task=task), "split is missing")
        every = torch.ones(25, dtype=torch.bool)
        self.nothing(abruptness(module, task=task, train_mask=every), "every input is trained on")
        lower = task.operands[:, 0] >= task.operands[:, 1]
        mirrored = abruptness(module, task=task, train_mask=lower)
        self.nothing(mirrored, "rows='test' looks at them")
        assert abruptness(module, task=task, train_mask=lower, rows="test").n_rows == 10
        assert mirrored.flip_quantiles is mirrored.one_flip is None

    def test_a_task_without_mirrors_has_all_test_rows(self):
        task = gi.ModularTask("subtract", p=5)
        module = torch.nn.Sequential(torch.nn.EmbeddingBag(6, 4), torch.nn.Linear(4, 5))
        found = abruptness(module, task=task, train_mask=torch.arange(25) < 9)
        assert found.n_rows == 16
        assert "has no mirrors" in found.notes[0]

    def test_checkpoints_whose_steps_nobody_knows(self, monkeypatch):
        run = gi.load("mod31-small")
        monkeypatch.setattr(run.manifest, "steps_known", False)
        found = abruptness(run)
        self.nothing(found, "nobody knows the steps")
        assert len(found.curves) == len(run.steps)

    def test_checkpoints_that_diverged_are_left_out(self, small):
        run, whole = small
        broken = {run.steps[3], run.steps[-1]}

        def weights(step):
            return {
                name: x * torch.nan if step in broken else x
                for name, x in run.weights(step).items()
            }

        made = changed(run, lambda x: x)
        made._store.checkpoints = {step: weights(step) for step in run.steps}
        made.metrics = run.metrics
        found = abruptness(made)
        assert set(run.steps) - set(found.steps) == broken
        assert "2 checkpoints are not finite" in found.notes[-2] + found.notes[-1]
        assert found.acceleration == pytest.approx(whole.acceleration, rel=0.2)

    def test_wrong_arguments_are_refused(self):
        for options, message in (
            ({"rows": "unmirored"}, "did you mean 'unmirrored'"),
            ({"after": -1}, "after=-1 is not a number from 0 on"),
        ):
            with pytest.raises(gi.InputError, match=message):
                abruptness("mod31-small", **options)


def test_a_figure_shows_the_numbers(grokked):
    drawn = grokked.plot()
    lines = {line.name: line for line in drawn.data}
    assert list(lines["accuracy"].y) == grokked.curves.accuracy.tolist()
    assert list(lines["mean margin"].y) == grokked.curves.margin.tolist()
    assert sum(lines["last change of sign"].y) == int((grokked.n_flips > 0).sum())
    shaded = [shape for shape in drawn.layout.shapes if shape.type == "rect"]
    rise = grokked.rise("accuracy")
    assert {(shape.x0, shape.x1) for shape in shaded} == {(rise.t10, rise.t90)}
    assert "margins 1.65 times as fast" in drawn.layout.title.text


def test_plain_values_are_json(grokked):
    found = grokked.to_dict()
    assert found["rises"][0]["measure"] == "accuracy"
    assert len(found["n_flips"]) == grokked.n_rows == 6271
    assert isinstance(grokked.curves, pd.DataFrame)
