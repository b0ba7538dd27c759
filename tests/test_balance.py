"""How the norm falls beside what weight decay alone would do."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.models.mlp import MLPArchitecture
from tests.made_runs import changed, made_run

TASK = gi.ModularTask("add", p=5, equals_token=False)
NET = MLPArchitecture(p=5, widths=(6,), n_classes=5)
GIVEN = {"lr": 0.01, "weight_decay": 0.5}


def at_steps(change, steps=(0, 10, 30)):
    """A run whose weights at a step are what `change` makes of the first ones."""
    first = {name: w.double() for name, w in NET.initial(seed=0).items()}
    return made_run(TASK, NET, {step: change(first, step) for step in steps})


def cosine(one, other):
    return float(one @ other / one.norm() / other.norm())


def flat(weights):
    return torch.cat([w.double().flatten() for w in weights.values()])


class TestMadeByHand:
    def test_decay_alone_has_the_ratio_of_its_own_rate(self):
        run = at_steps(lambda first, step: {n: w * (1 - 0.005) ** step for n, w in first.items()})
        found = gi.training.balance(run, **GIVEN)
        table = found.table()
        expected = -math.log(1 - 0.005)
        assert table.k[:2].tolist() == pytest.approx([expected] * 2, rel=1e-12)
        assert table.ratio[:2].tolist() == pytest.approx([expected / 0.005] * 2, rel=1e-12)
        assert table.cancelled[:2].tolist() == pytest.approx([1 - expected / 0.005] * 2, rel=1e-9)
        assert table.cos_shrinking[:2].tolist() == pytest.approx([1, 1], abs=1e-12)
        assert table.end.tolist()[:2] == [10, 30]
        assert table.iloc[2, 3:].isna().all()
        assert (found.peak_step, found.grown) == (0, 1.0)
        assert found.shrunk == pytest.approx((1 - 0.005) ** 30)
        window = found.over(0, 30)
        assert window["ratio"] == pytest.approx(expected / 0.005)
        assert window["norm_end"] / window["norm_start"] == pytest.approx(found.shrunk)

    def test_each_matrix_has_a_balance_of_its_own(self):
        """One shrinks, one stands still, one grows."""
        rates = {"blocks.0.mlp.W_in": 0.01, "unembed.W_U": -0.02}

        def change(first, step):
            return {n: w * math.exp(-rates.get(n, 0) * step) for n, w in first.items()}

        run = at_steps(change)
        found = gi.training.balance(run, **GIVEN)
        for name in ("blocks.0.mlp.W_in", "unembed.W_U"):
            assert found.table(name).k[:2].tolist() == pytest.approx([rates[name]] * 2, rel=1e-9)
        assert found.table("unembed.W_U").cos_shrinking[0] == pytest.approx(-1)
        assert math.isnan(found.table("blocks.0.mlp.b_in").k[0])  # zeros have no rate
        assert math.isnan(found.table("blocks.0.mlp.b_in").cos_shrinking[0])
        moved = flat(run.weights(10)) - flat(run.weights(0))
        whole = found.table()
        assert whole.cos_shrinking[0] == pytest.approx(cosine(moved, -flat(run.weights(0))))
        assert whole.norm.tolist() == pytest.approx(
            [float(flat(run.weights(step)).norm()) for step in run.steps]
        )
        every = found.by_matrix()
        assert every.matrix.unique().tolist() == ["all", *found.matrices]
        assert len(every) == 3 * (1 + len(found.matrices))

    def test_a_window_lies_between_its_smallest_and_its_largest_interval(self):
        norms = {0: 1.0, 10: 0.9, 30: 0.85, 40: 0.5}
        run = at_steps(lambda first, s: {n: w * norms[s] for n, w in first.items()}, tuple(norms))
        found = gi.training.balance(run, **GIVEN)
        window = found.over(0, 40)
        ratios = found.table().ratio[:3]
        assert window["ratio"] == pytest.approx(math.log(2) / 40 / 0.005)
        assert window["ratio"] == pytest.approx(np.average(ratios, weights=[10, 20, 10]))
        assert (window["ratio_least"], window["ratio_most"]) == (ratios[1], ratios[2])
        part = gi.training.balance(run, steps=[10, -1], **GIVEN)
        assert part.steps == (10, 40)
        assert part.table().k[0] == pytest.approx(found.over(10, 40)["k"])

    def test_what_the_loop_logged_joins_the_table(self):
        run = at_steps(lambda first, step: {n: w / (1 + step) for n, w in first.items()})
        run.dynamics = pd.DataFrame(
            {"step": [0, 5, 10, 20, 30], "update_loss": [9.0, 1.0, 3.0, 4.0, 6.0],
             "update_decay": 2.0, "cos_updates": -0.5}
        )  # fmt: skip
        table = gi.training.balance(run).table()
        # Of the updates from steps 0 and 5, then of those from 10 and 20.
        assert table.update_loss[:2].tolist() == [5.0, 3.5]
        assert table.update_decay[:2].tolist() == [2.0, 2.0]
        assert "update_loss" not in gi.training.balance(run).table("unembed.W_U")


def test_where_matrices_alone_decay_the_rate_of_all_is_weighted(tmp_path):
    recipe = gi.Recipe(
        p=5, model="mlp", d_mlp=8, lr=0.05, weight_decay=0.5, decay_on="matrices", biases="all",
        lr_schedule="linear", steps=8, checkpoints="every:4", log_every=1,
    )  # fmt: skip
    run = gi.train(recipe, tmp_path / "run", progress=False)
    found = gi.training.balance(run)
    shares = (1 - 1.5 / 8, 1 - 5.5 / 8)  # of lr, mean over updates 0 to 3 and 4 to 7
    for place, share in enumerate(shares):
        weights = run.weights(4 * place)
        squares = {name: float(w.double().square().sum()) for name, w in weights.items()}
        matrices = sum(x for name, x in squares.items() if ".W_" in name)
        rate = 0.05 * 0.5 * share
        assert found.table().decay[place] == pytest.approx(rate * matrices / sum(squares.values()))
        assert found.table("unembed.W_U").decay[place] == pytest.approx(rate)
        assert found.table("unembed.b_U").decay[place] == 0
        assert math.isnan(found.table("unembed.b_U").ratio[place])
    logged = run.dynamics.update_decay
    assert found.table().update_decay[0] == pytest.approx(logged[:4].mean())
    assert any("not all weights decay alike" in note for note in found.notes)
    for given, times in ({"lr": 0.1}, 0.1 / 0.05 / shares[0]), ({"weight_decay": 1.0}, 2):
        again = gi.training.balance(run, **given)  # the other one, and its groups, by the recipe
        assert again.table("unembed.b_U").decay[0] == 0
        assert again.table().decay[0] == pytest.approx(times * found.table().decay[0])


@pytest.fixture(scope="module")
def descent(tmp_path_factory):
    """Plain gradient descent with decay and a warm-up, every step saved."""
    recipe = gi.Recipe(
        p=5, model="mlp", d_mlp=8, optimizer="sgd", lr=0.5, weight_decay=0.01, warmup=4, steps=8,
        checkpoints="every:1", train_fraction=0.6,
    )  # fmt: skip
    return gi.train(recipe, tmp_path_factory.mktemp("balance") / "sgd", progress=False)


class TestGradientDescent:
    """theta' - theta = -lr_t (g + wd theta): all numbers follow from the weights and gradients."""

    def gradient(self, run, step):
        weights = {n: w.double().requires_grad_() for n, w in run.weights(step).items()}
        rows = run.train_mask
        logits = run.architecture.forward(weights, run.task.model_inputs[rows])
        loss = torch.nn.functional.cross_entropy(logits, run.task.labels[rows])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(weights.values()))])

    def test_cosines_are_those_of_the_step_and_of_the_gradient(self, descent):
        found = gi.training.balance(descent, gradients=True).table()
        assert math.isnan(found.cos_shrinking[0])  # the first update has rate 0
        for row in found.iloc[1:-1].itertuples():
            theta, slope = flat(descent.weights(row.step)), self.gradient(descent, row.step)
            assert row.cos_gradient == pytest.approx(cosine(slope, theta), abs=1e-9)
            assert row.cos_shrinking == pytest.approx(cosine(slope + 0.01 * theta, theta), abs=1e-5)

    def test_the_rate_is_the_mean_of_the_interval(self, descent):
        every = gi.training.balance(descent).table()
        assert every.decay[:8].tolist() == pytest.approx(
            [0.005 * min(step / 4, 1) for step in range(8)]
        )
        ends = gi.training.balance(descent, steps=[0, 8])
        assert ends.table().decay[0] == pytest.approx(0.005 * (0 + 1 + 2 + 3 + 4 * 4) / 4 / 8)
        assert ends.over(0, 8)["decay"] == pytest.approx(every.decay[:8].mean())
        constant = gi.training.balance(descent, steps=[0, 8], lr=0.1).table()
        assert constant.decay[0] == pytest.approx(0.001)


class TestWhatCannotBeSaid:
    def test_without_decoupled_decay_there_is_no_ratio(self):
        found = gi.training.balance("ising-grokked", steps=[0, 1000, 10_000])
        assert found.table().ratio.isna().all()
        assert (found.table().k[:2] > 0).all()
        assert found.notes == (
            "no ratio: weight decay of optimizer='adam' is no shrinking by itself",
        )
        given = gi.training.balance("ising-grokked", steps=[0, 1000], lr=1e-4, weight_decay=0.1)
        assert given.table().decay[0] == pytest.approx(1e-5)
        assert not given.notes

    def test_a_constraint_moves_the_weights_too(self, descent, tmp_path):
        @gi.updates.register_constraint("halved-in-tests")
        @dataclass(frozen=True, kw_only=True)
        class Halved(gi.updates.Constraint):
            def constrained(self, weights, state):
                return {name: w / 2 for name, w in weights.items()}

        try:
            recipe = descent.recipe.replace(constraint="halved-in-tests", steps=2)
            found = gi.training.balance(gi.train(recipe, tmp_path / "halved", progress=False))
        finally:
            del gi.updates.CONSTRAINTS["halved-in-tests"]
        assert found.notes == ("constraint='halved-in-tests' moves the weights, too",)
        assert found.table().k[0] == pytest.approx(math.log(2))

    def test_without_a_recipe_both_numbers_have_to_be_given(self):
        run = at_steps(lambda first, step: first)
        assert (
            "there is no recipe that says lr and weight_decay" in gi.training.balance(run).notes[0]
        )
        one = gi.training.balance(run, lr=1e-3)
        assert "no recipe that says weight_decay" in one.notes[0]
        none = gi.training.balance(run, lr=1e-3, weight_decay=0)
        assert none.notes == ("no ratio: there is no weight decay that the loss could cancel",)
        assert gi.training.balance(run, **GIVEN).table().k[0] == 0

    def test_one_checkpoint_has_a_norm_alone(self):
        run = gi.load("mod31-small")
        found = gi.training.balance(run.snapshot(), gradients=True)
        assert len(found.table()) == 1
        assert found.table().norm[0] == pytest.approx(float(flat(run.weights()).norm()))
        assert found.table().cos_gradient[0] < -0.99
        assert found.notes == ("one checkpoint has a norm, and no rate: that takes two",)
        assert "step" in str(found)
        assert [line.name for line in found.plot().data] == ["norm", "cos: gradient with weights"]

    def test_steps_that_nobody_knows_date_nothing(self):
        run = at_steps(lambda first, step: {n: w / (1 + step) for n, w in first.items()})
        run.manifest.steps_known = False
        found = gi.training.balance(run, **GIVEN)
        assert found.table().k.isna().all()
        assert (found.table().cos_shrinking[:2] > 0.99).all()
        assert "nobody knows how many updates" in found.notes[0]

    def test_gradients_take_a_split_and_finite_weights(self):
        run = at_steps(lambda first, step: first)
        found = gi.training.balance(run, gradients=True, **GIVEN)
        assert found.cos_gradient is None
        assert found.notes == ("no gradients: nobody knows which rows were trained on",)
        diverged = changed(run, lambda weights: {n: w * math.nan for n, w in weights.items()})
        notes = gi.training.balance(diverged, **GIVEN).notes
        assert notes == ("weights of step 0 are not finite, so there is no norm",)

    def test_a_module_that_cannot_be_differentiated_so_has_no_gradients(self):
        """The statistics of a BatchNorm are no parameters, and ask for no gradient."""
        net = torch.nn.Sequential(
            torch.nn.Embedding(5, 4),
            torch.nn.Flatten(),
            torch.nn.BatchNorm1d(8),
            torch.nn.Linear(8, 5),
        )
        mask = torch.arange(25) < 12
        found = gi.training.balance(net, task=TASK, train_mask=mask, gradients=True)
        assert found.notes[-1].startswith("no gradients: the module")
        assert found.matrices == ("0.weight", "2.weight", "2.bias", "3.weight", "3.bias")

    def test_a_module_of_ones_own_has_one_too(self):
        net = torch.nn.Sequential(
            torch.nn.Embedding(5, 4), torch.nn.Flatten(), torch.nn.Linear(8, 5)
        )
        mask = torch.arange(25) < 12
        found = gi.training.balance(net, task=TASK, train_mask=mask, gradients=True)
        assert found.matrices == ("0.weight", "2.weight", "2.bias")
        loss = torch.nn.functional.cross_entropy(net(TASK.model_inputs[mask]), TASK.labels[mask])
        slope = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
        theta = torch.cat([w.detach().flatten() for w in net.parameters()])
        assert found.table().cos_gradient[0] == pytest.approx(cosine(slope, theta), abs=1e-5)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda run: gi.training.balance(run, steps=[10, 0]), "do not rise"),
            (lambda run: gi.training.balance(run, lr=-1), "lr=-1 is not a number above 0"),
            (lambda run: gi.training.balance(run).over(0, 7), "step 7 is no checkpoint"),
            (lambda run: gi.training.balance(run).over(10, 0), "is empty; give start < end"),
            (lambda run: gi.training.balance(run).table("W_U"), "'W_U' is no matrix"),
        ],
    )
    def test_what_is_refused(self, call, message):
        with pytest.raises(gi.InputError, match=message):
            call(at_steps(lambda first, step: first))


class TestTheShippedRun:
    WINDOWS: ClassVar = {  # least and most ratio of the intervals in it
        (1200, 1600): (0.134, 0.134), (2500, 4400): (0.041, 0.054), (4400, 5500): (0.060, 0.089),
        (5500, 6100): (0.112, 0.134), (6100, 7000): (0.162, 0.196), (7300, 8000): (0.060, 0.092),
        (9000, 12_000): (0.005, 0.005),
    }  # fmt: skip

    def test_the_loss_cancels_most_of_the_decay(self, shipped):
        found = gi.training.balance(shipped)
        for window, expected in self.WINDOWS.items():
            over = found.over(*window)
            assert (over["ratio_least"], over["ratio_most"]) == pytest.approx(expected, abs=0.001)
        delay = found.over(1200, 6100)
        assert (delay["norm_start"], delay["norm_end"]) == pytest.approx((57.7, 40.4), abs=0.05)
        assert delay["ratio"] == pytest.approx(0.073, abs=0.001)
        for (start, end), expected in {
            (2000, 4400): (0.26, 0.30), (5500, 7000): (0.38, 0.50), (9000, 12_000): (0.18, 0.18)
        }.items():  # fmt: skip
            over = found.over(start, end)
            assert (over["cos_shrinking_least"], over["cos_shrinking_most"]) == pytest.approx(
                expected, abs=0.006
            )

    def test_the_gradient_points_along_the_weights_in_every_matrix(self, shipped):
        """But for W_K and W_pos at the transition, which decide the cosine of all there."""
        steps = [200, 2500, 5500, 5800, 6100, 12_000]
        found = gi.training.balance(shipped, steps=steps, gradients=True)
        assert found.table().cos_gradient.tolist() == pytest.approx(
            [-0.63, -0.94, -0.44, -0.22, -0.33, -0.998], abs=0.006
        )
        each = found.by_matrix().pivot(index="step", columns="matrix", values="cos_gradient")
        loud = ["blocks.0.attn.W_K", "pos_embed.W_pos"]
        at_transition = each.loc[[5500, 5800, 6100]].drop(columns="all")
        assert at_transition[loud].min().min() > -0.12
        assert at_transition.drop(columns=loud).max().max() < -0.87


class TestItsFigure:
    def test_of_a_run(self, shipped, descent):
        drawn = gi.training.balance(shipped, steps=[0, 1200, 6100, 12_000]).plot()
        assert [line.name for line in drawn.data] == [
            "norm", "k / (lr x weight decay)", "cos: displacement with -weights"
        ]  # fmt: skip
        ratio = drawn.data[1]
        assert ratio.y[1] == pytest.approx(0.073, abs=0.001)
        assert ratio.y[2] == ratio.y[3]  # held to the end of the interval
        one = gi.viz.plot_balance(descent, matrix="unembed.W_U", gradients=True)
        assert "unembed.W_U" in one.layout.title.text
        assert one.data[-1].name == "cos: gradient with weights"

    def test_without_a_ratio_k_itself_is_drawn(self):
        drawn = gi.viz.plot_balance("ising-grokked", steps=[0, 1000, 10_000])
        assert drawn.data[1].name == "k"
        assert drawn.data[1].y[0] > 0
