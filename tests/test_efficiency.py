"""The norm that memorising and generalising take, and the size of training set where they cross."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import grokinterp as gi
from grokinterp.encodings import efficiency, efficiency_fit
from tests.made_runs import changed, made_run


class TestTheFit:
    def test_a_power_law_that_crosses_a_level(self):
        sizes = [100, 200, 400, 800]
        fit = efficiency_fit(sizes, [2 * size**0.3 for size in sizes], [15.0, 15.0])
        assert (fit.exponent, fit.factor) == pytest.approx((0.3, 2), rel=1e-9)
        assert fit.d_crit == pytest.approx(7.5 ** (1 / 0.3), rel=1e-9)
        assert (fit.d_low, fit.d_high) == pytest.approx((fit.d_crit, fit.d_crit), rel=1e-6)
        assert (fit.p_gen, fit.p_gen_sd, fit.reason) == (15, 0, "")
        assert fit.p_mem(fit.d_crit) == pytest.approx(15)

    def test_units_play_no_part(self):
        sizes, mem, gen = [100, 200, 300, 800], [5.0, 7.5, 8.0, 15.0], [10.0, 10.5, 9.0]
        fit = efficiency_fit(sizes, mem, gen)
        scaled = efficiency_fit([7 * x for x in sizes], [3 * x for x in mem], [3 * x for x in gen])
        assert scaled.exponent == pytest.approx(fit.exponent)
        for name in ("d_crit", "d_low", "d_high"):
            assert getattr(scaled, name) == pytest.approx(7 * getattr(fit, name))
        assert fit.d_low < fit.d_crit < fit.d_high
        assert fit.p_gen_sd == pytest.approx(np.std(gen, ddof=1))

    def test_the_interval_by_its_formula(self):
        """Of five runs against three, worked out with numpy's line."""
        sizes, mem = np.array([100, 200, 400, 800, 800]), np.array([5.1, 7.0, 10.2, 14.0, 14.3])
        gen = np.array([10.0, 10.4, 9.9])
        fit = efficiency_fit(sizes.tolist(), mem.tolist(), gen.tolist())
        x, y, g = np.log(sizes), np.log(mem), np.log(gen)
        slope, start = np.polyfit(x, y, 1)
        at = (g.mean() - start) / slope
        noise = ((y - start - slope * x) ** 2).sum() / 3
        of_line = noise * (1 / 5 + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
        of_level = g.var(ddof=1) / 3
        degrees = (of_line + of_level) ** 2 / (of_line**2 / 3 + of_level**2 / 2)
        half = stats.t.ppf(0.975, degrees) * np.sqrt(of_line + of_level) / slope
        assert (fit.d_low, fit.d_crit, fit.d_high) == pytest.approx(
            np.exp([at - half, at, at + half]), rel=1e-9
        )

    def test_the_interval_holds_the_crossing_as_often_as_it_says(self):
        """95 % of 1000 sweeps of eight runs and four, with a spread of 3 %."""
        rng, held = np.random.default_rng(0), 0
        sizes = [200, 200, 400, 400, 600, 600, 800, 800]
        for _ in range(1000):
            mem = [1.7 * d**0.37 * math.exp(0.03 * rng.standard_normal()) for d in sizes]
            gen = [16.5 * math.exp(0.03 * rng.standard_normal()) for _ in range(4)]
            fit = efficiency_fit(sizes, mem, gen)
            held += fit.d_low <= (16.5 / 1.7) ** (1 / 0.37) <= fit.d_high
        assert 0.93 <= held / 1000 <= 0.97

    @pytest.mark.parametrize(
        ("given", "reason", "known"),
        [
            (([], [], []), "no power law: 0 sizes of memorising runs", ()),
            (([5, 5], [1, 2], [1, 2]), "no power law: 1 sizes", ("p_gen",)),
            (([5, 9], [1, 2], []), "no crossing: there is no generalising run", ("exponent",)),
            (([5, 9], [2, 1], [1]), "memorising does not get dearer", ("exponent", "p_gen")),
            (([5, 9], [1, 2], [1.5]), "no interval: 2 memorising and 1 generalising", ("d_crit",)),
            (([5, 9, 20], [1, 5, 1.8], [1.5, 1.6]), "slope of log p_mem is not told", ("d_crit",)),
        ],
    )
    def test_what_too_few_runs_cannot_say(self, given, reason, known):
        fit = efficiency_fit(*given)
        assert reason in fit.reason
        for name in known:
            assert math.isfinite(getattr(fit, name))
        assert math.isnan(fit.d_low)
        assert math.isnan(fit.d_crit) == ("no interval" not in fit.reason)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (([1, 2], [1.0], []), "2 sizes and 1 numbers"),
            (([1, 2], [1.0, -3.0], []), "p_mem=-3.0 is not a number above 0"),
            (([1, math.nan], [1.0, 2.0], []), "sizes=nan is not a number above 0"),
        ],
    )
    def test_what_is_refused(self, given, message):
        with pytest.raises(gi.InputError, match=message):
            efficiency_fit(*given)
        for size in (-1, 0, "a", math.nan):
            with pytest.raises(gi.InputError, match=r"size=.* is not a number above 0"):
                efficiency_fit([1, 4], [1, 2], []).p_mem(size)

    def test_what_is_larger_than_all_floats(self):
        flat = efficiency_fit([100, 200], [1, 1.0000001], [5])
        assert math.isnan(flat.d_crit)
        assert flat.reason == "no crossing: memorising hardly gets dearer with more rows"
        assert efficiency_fit([1, 2], [1, 1e300], []).p_mem(1e308) == math.inf
        apart = efficiency_fit([1, 2, 3], [1, 2**0.01, 3**0.01], [1.1, 40])
        assert math.isfinite(apart.d_crit)
        assert apart.reason == "no interval: its end is larger than all numbers"


@pytest.fixture(scope="module")
def memorised(tmp_path_factory):
    """Random labels that are learned by heart, and true ones that nothing is learned of."""
    folder = tmp_path_factory.mktemp("efficiency")
    common = {"p": 5, "model": "mlp", "d_mlp": 32, "biases": "none", "lr": 1e-2, "log_every": 50}
    found = {}
    for n in (10, 15, 20):
        recipe = gi.Recipe(operation="random", train_fraction=n / 25, steps=150, **common)
        found[f"random-{n}"] = gi.train(recipe, folder / f"random-{n}", progress=False)
    recipe = gi.Recipe(train_fraction=0.6, steps=10, **common)
    return found | {"unlearned": gi.train(recipe, folder / "unlearned", progress=False)}


class TestRuns:
    def test_the_numbers_by_hand(self):
        run = gi.load("mod31-small")
        (row,) = efficiency(run).rows
        weights, logits = run.weights(), run.snapshot().logits.double()
        norm = math.sqrt(sum(float(w.double().square().sum()) for w in weights.values()))
        logit = 0.0
        for i in run.train_indices.tolist():
            logit += float(logits[i, run.task.labels[i]] - logits[i].mean())
        logit /= len(run.train_indices)
        assert (row["norm"], row["logit"]) == pytest.approx((norm, logit), rel=1e-9)
        assert row["normalized_norm"] == pytest.approx(norm / math.sqrt(logit), rel=1e-9)
        (cubic,) = efficiency(run, exponent=1 / 3).rows
        assert cubic["normalized_norm"] == pytest.approx(norm / logit ** (1 / 3), rel=1e-9)
        assert (row["n_train"], row["labels"], row["stands_for"]) == (624, "true", "generalizing")
        unmirrored = run.snapshot().unmirrored_rows
        right = (logits.argmax(dim=1) == run.task.labels)[unmirrored]
        assert row["test_acc"] == pytest.approx(float(right.double().mean()))
        (early,) = efficiency(run, step=300).rows
        assert (early["step"], early["train_acc"], early["stands_for"]) == (300, 1.0, "")

    def test_scale_is_taken_out_of_a_network_of_two_layers(self, memorised):
        """Without biases its logits go with the square of its weights, so with exponent 1/2."""
        run = memorised["random-10"]
        (row,) = efficiency(run).rows
        (scaled,) = efficiency(changed(run, lambda w: {n: 1.5 * x for n, x in w.items()})).rows
        assert scaled["norm"] == pytest.approx(1.5 * row["norm"])
        assert scaled["logit"] == pytest.approx(2.25 * row["logit"], rel=1e-5)
        assert scaled["normalized_norm"] == pytest.approx(row["normalized_norm"], rel=1e-5)

    def test_what_each_run_stands_for(self, memorised):
        found = efficiency(memorised | {"grokked": "mod31-small"})
        table = found.table().set_index("run")
        assert table.stands_for.to_dict() == {
            "random-10": "memorizing", "random-15": "memorizing", "random-20": "memorizing",
            "unlearned": "", "grokked": "generalizing",
        }  # fmt: skip
        assert table.labels.tolist() == ["random"] * 3 + ["true"] * 2
        assert table.n_train.tolist() == [10, 15, 20, 15, 624]
        mem = table.normalized_norm[:3].tolist()
        assert found.fit == efficiency_fit([10, 15, 20], mem, [table.normalized_norm["grokked"]])
        assert found.p_mem_exponent == found.fit.exponent
        assert "the runs are of different models, whose norms cannot be compared" in found.notes
        assert any(note.startswith("1 of 5 runs neither") for note in found.notes)
        named = efficiency(list(memorised.values()))
        assert named.table().run.tolist() == list(memorised)
        assert math.isnan(named.d_crit)
        assert named.notes[0] == "no crossing: there is no generalising run"

    def test_without_a_split_there_is_a_norm_alone(self):
        run = gi.load("mod31-small")
        bare = made_run(run.task, run.architecture, {0: run.weights()})
        (row,) = efficiency(bare).rows
        assert row["norm"] == pytest.approx(efficiency(run).rows[0]["norm"])
        assert [math.isnan(row[x]) for x in ("n_train", "logit", "normalized_norm")] == [True] * 3
        drawn = efficiency(bare).plot()
        assert not drawn.data
        assert drawn.layout.annotations[0].text.startswith("no power law")

    def test_an_answer_that_is_not_favoured_has_no_normalised_norm(self):
        run = gi.load("mod31-small")
        turned = changed(run, lambda w: w | {"unembed.W_U": -w["unembed.W_U"]})
        (row,) = efficiency(turned).rows
        assert row["logit"] < 0
        assert math.isnan(row["normalized_norm"])
        assert row["stands_for"] == ""

    def test_label_noise_is_neither(self, tmp_path):
        recipe = gi.Recipe(p=5, model="mlp", d_mlp=8, operation="random", label_noise=0.5, steps=0)
        run = gi.train(recipe.replace(train_fraction=0.04, lr=0.1, steps=40), tmp_path / "run")
        (row,) = efficiency(run).rows
        assert (row["labels"], row["stands_for"], row["train_acc"]) == ("noisy", "", 1)

    def test_what_is_refused(self):
        for given, message in (
            ([gi.load("mod31-small")] * 2, "folders of one name"),
            ([], "is no run"),
        ):
            with pytest.raises(gi.InputError, match=message):
                efficiency(given)
        with pytest.raises(gi.InputError, match="exponent=0 is not a number above 0"):
            efficiency("mod31-small", exponent=0)
        with pytest.raises(gi.InputError, match="exponent=1000 is not a number above 0, at most 1"):
            efficiency("mod31-small", exponent=1000)


def test_its_figure(memorised):
    drawn = efficiency(memorised | {"grokked": "mod31-small"}).plot()
    names = [part.name for part in drawn.data]
    assert names[:3] == ["memorising random labels", "generalising", "in neither fit"]
    assert len(drawn.data[0].x) == 3
    assert any(name.startswith("memorising: D") for name in names)


@pytest.mark.slow
def test_memorising_gets_dearer_with_more_rows_and_generalising_does_not(tmp_path):
    """Two-hot MLPs at p = 31: one needs between 450 and 500 rows to generalise in 8000 steps."""
    runs = {}
    for size in (200, 400, 600, 800):
        for operation in ("random", "add"):
            recipe = gi.Recipe(
                model="mlp", operation=operation, p=31, train_fraction=size / 961, d_mlp=256,
                lr=3e-3, weight_decay=1.0, steps=3000, checkpoints=(3000,), log_every=100,
            )  # fmt: skip
            name = f"{operation}-{size}"
            runs[name] = gi.train(recipe, tmp_path / name, progress=False)
    found = efficiency(runs)
    roles = found.table().set_index("run").stands_for
    assert (roles.filter(like="random") == "memorizing").all()
    assert roles[[f"add-{size}" for size in (200, 400, 600, 800)]].tolist() == [
        "", "", "generalizing", "generalizing"
    ]  # fmt: skip
    assert 0.25 < found.p_mem_exponent < 0.5
    assert found.fit.p_gen_sd < 0.05 * found.p_gen
    assert 400 < found.d_crit < 600
    assert torch.tensor(found.d_crit_interval).isfinite().all()
