"""Ways to train that are said to grok sooner: their recipes, and what paired runs say of them."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import grokinterp as gi
from grokinterp.claims import METHODS, seconds_per_update, speed_ups
from tests.made_runs import made_run

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here
EXPERIMENTS = Path(__file__).parents[1] / "examples" / "explanations"
BASE = gi.Recipe(model="mlp", p=7, widths=[8], lr=0.01, steps=2000, log_every=10)
WEIGHTS = BASE.architecture().initial(seed=0, rule=BASE.init, scale=1.0)
ROWS = BASE.train_indices()


def log(t99, t95, train=1.0, test=1.0):
    """Curves of steps: accuracies are `train` from t99 on, `test` from t95 on; None is never."""
    steps = np.arange(0, BASE.steps + 1, 10)
    curves = {
        "train": np.where(steps >= (math.inf if t99 is None else t99), train, 0.1),
        "test": np.where(steps >= (math.inf if t95 is None else t95), test, 0.1),
    }
    return pd.DataFrame(
        {
            "step": steps,
            **{f"{x}_loss": 3 * (1.01 - curve) for x, curve in curves.items()},
            **{f"{x}_acc": curve for x, curve in curves.items()},
        }
    )


def told(recipe, seed, t99, t95, *, weights=WEIGHTS, name=None, **levels):
    """A run of a recipe at a seed that learned train and test at these steps."""
    recipe = recipe.replace(seed=seed, data_seed=seed)
    task, architecture = recipe.build_task(), recipe.architecture()
    first = {x: w * 2 for x, w in WEIGHTS.items()}
    return made_run(
        task, architecture, {0: first, BASE.steps: weights}, train=ROWS, recipe=recipe,
        metrics=log(t99, t95, **levels), name=name or f"{id(recipe)}",
    )  # fmt: skip


def of(name, *dates, seeds=None, **levels):
    """Runs of a method, or of the baseline, of which each has (t99, t95)."""
    recipe = METHODS[name].of(BASE) if name in METHODS else BASE
    seeds = range(len(dates)) if seeds is None else seeds
    return {
        f"folder {seed} of {name}": told(recipe, seed, *each, **levels)
        for seed, each in zip(seeds, dates, strict=True)
    }


BASELINE = of("baseline", (100, 600), (100, 640), (120, 1180))


class TestTheSweep:
    def test_each_method_changes_what_it_says_and_nothing_else(self):
        found = gi.accelerations(BASE).members()
        names = list(dict.fromkeys(variant for variant, _ in found.values()))
        assert names == ["baseline", *METHODS]
        assert len(found) == 3 * len(names)
        first = dict(reversed(found.values()))
        kept = {"checkpoints": first["baseline"].checkpoints}
        assert first["baseline"] == BASE.replace(**kept)
        wanted = {
            "grokfast_ema": {"gradient_filter": "ema", "filter_alpha": 0.98, "filter_lambda": 2.0},
            "grokfast_ma": {"gradient_filter": "ma", "filter_window": 100, "filter_lambda": 5.0},
            "perpendicular": {"orthogonal_gradients": True, "weight_decay": 0},
            "perpendicular_decay": {"orthogonal_gradients": True},
            "stablemax": {"objective": "stablemax"},
            "held_norm_0.8": {"norm_clamp": "global", "clamp_to": 0.8, "weight_decay": 0},
            "temperature_0.1": {"output_scale": 0.1},
            "mse": {"objective": "mse"},
            "muon": {"optimizer": "muon", "lr": 0.02, "adamw_lr": 0.01},
            "lr_x0.3": {"lr": 0.003},
            "lr_x3": {"lr": 0.03},
            "decay_x0.3": {"weight_decay": 0.3},
            "decay_x3": {"weight_decay": 3},
            "lr_x3_decay_x0.3": {"lr": 0.03, "weight_decay": 0.3},
        }
        del first["baseline"]
        assert first == {x: BASE.replace(**keys, **kept) for x, keys in wanted.items()}

    def test_runs_are_paired_from_the_seeds_of_the_recipe_on(self):
        sweep = gi.accelerations(BASE.replace(seed=4, data_seed=598), only=["mse"], seeds=2)
        assert gi.accelerations(sweep.base, only="mse", seeds=2) == sweep
        assert gi.accelerations(sweep.base, only=["baseline", "mse"], seeds=2) == sweep
        pairs = [(x.seed, x.data_seed, x.objective) for x in sweep.recipes().values()]
        usual = "cross_entropy"
        assert pairs == [(4, 598, usual), (5, 599, usual), (4, 598, "mse"), (5, 599, "mse")]

    def test_a_norm_is_held_from_the_start_whatever_the_recipe_holds(self):
        late = BASE.replace(norm_clamp="layer", clamp_from=100, clamp_to=2.0)
        held = gi.accelerations(late, only=["held_norm_0.8"], seeds=1).recipes()
        found = held["held_norm_0.8,seed=0"].to_dict()
        assert (found["norm_clamp"], found["clamp_from"], found["clamp_to"]) == ("global", 0, 0.8)

    def test_few_checkpoints_are_saved(self):
        for steps in (0, 1, 5, 4000, 12_001):
            for recipe in gi.accelerations(BASE.replace(steps=steps), only=[]).recipes().values():
                saved = recipe.checkpoint_steps()
                assert (saved[0], saved[-1]) == (0, steps)
                assert len(saved) <= 14

    def test_what_a_recipe_has_already_is_left_out(self):
        there = BASE.replace(weight_decay=0, objective="mse", orthogonal_gradients=True)
        names = set(gi.accelerations(there).variants)
        assert not names & {"mse", "perpendicular", "perpendicular_decay", "decay_x3"}
        assert {"baseline", "stablemax", "lr_x3"} <= names
        with pytest.raises(gi.InputError, match="only='mse' is not for this recipe: it is the"):
            gi.accelerations(there, only=["mse"])

    def test_it_takes_a_run_and_refuses_what_is_none(self, tmp_path):
        run = gi.load("mod31-small")
        assert gi.accelerations(run).base.p == 31
        assert gi.accelerations(str(run.path)) == gi.accelerations(run)
        for wrong, message in (
            ({"only": ["ms"]}, "'ms' is no method; did you mean 'mse'"),
            ({"only": 3}, "only=3 is not a list"),
            ({"seeds": 0}, "seeds=0 is not a whole number"),
        ):
            with pytest.raises(gi.InputError, match=message):
                gi.accelerations(BASE, **wrong)

    @pytest.mark.parametrize("name", ["mlp31", "mod31"])
    def test_the_experiment_files_are_these_sweeps(self, name):
        file = EXPERIMENTS / f"accelerate-{name}.toml"
        recipe = {"mod31": "mod31-grokked"}.get(name, name)
        found, wanted = gi.Sweep.from_toml(file), gi.accelerations(recipe)
        assert found.members() == wanted.members()
        assert found.ensemble == wanted.ensemble


class TestOutcomes:
    def test_sooner_by_hand(self):
        found = speed_ups(BASELINE | of("perpendicular", (150, 200), (80, 160), (300, 360)))
        method = found["perpendicular"]
        assert (method.verdict, method.t99, method.t95, method.delay) == ("sooner", 150, 200, 60)
        assert method.ratio == 640 / 200  # of medians
        assert (method.ratio_low, method.ratio_high) == (600 / 200, 640 / 160)
        assert (method.pairs, method.sooner, method.p, method.p_later) == (3, 3, 1 / 8, 1)
        assert method.no_delay
        assert not found["baseline"].no_delay
        assert [each.method for each in found.methods] == ["perpendicular", "baseline"]
        assert "p = 0.125 at best, and chance alone would make 0.12 of 1" in " ".join(found.notes)

    def test_one_late_run_is_a_delay(self):
        found = speed_ups(BASELINE | of("perpendicular", (100, 200), (100, 160), (100, 210)))
        assert found["perpendicular"].no_delay is False

    def test_later_and_mixed(self):
        found = speed_ups(
            BASELINE
            | of("grokfast_ema", (90, 920), (90, 860), (90, 1420))
            | of("mse", (90, 500), (90, 900), (90, 1100))
        )
        assert found["grokfast_ema"].verdict == "later"
        assert found["grokfast_ema"].ratio == 640 / 920
        assert found["mse"].verdict == "mixed"
        assert (found["mse"].sooner, found["mse"].p) == (2, stats.binom.sf(1, 3, 0.5))

    def test_never_is_later_and_has_ratio_0(self):
        found = speed_ups(BASELINE | of("muon", (90, None), (90, 500), (90, None)))
        method = found["muon"]
        assert (method.verdict, method.never, method.failed) == ("never", 2, 0)
        assert (method.t95, method.ratio, method.ratio_low) == (math.inf, 0, 0)
        assert method.no_delay is False
        once = speed_ups(BASELINE | of("muon", (90, None), (90, 650), (90, 1190)))["muon"]
        assert (once.verdict, once.t95, once.p_later) == ("later", 1190, 1 / 8)

    def test_what_does_not_fit_its_training_data_has_failed_and_is_not_slow(self):
        found = speed_ups(BASELINE | of("stablemax", (90, 400), (90, None), (90, 400), train=0.98))
        method = found["stablemax"]
        assert (method.verdict, method.failed, method.never) == ("failed", 3, 0)
        assert all(map(math.isnan, (method.t95, method.ratio, method.ratio_low, method.delay)))
        assert found.methods[-1] is method

    def test_a_run_that_diverged_has_failed(self):
        broken = {x: w * math.nan for x, w in WEIGHTS.items()}
        found = speed_ups(BASELINE | of("lr_x3", (90, 200), (90, 200), (90, 200), weights=broken))
        assert found["lr_x3"].verdict == "failed"
        assert found.tuned == "baseline"  # a setting that fails cannot be it

    def test_one_failed_run_of_three(self):
        bad = of("mse", (90, 400), seeds=[2], train=0.5)
        method = speed_ups(BASELINE | of("mse", (90, 400), (90, 400)) | bad)["mse"]
        assert (method.verdict, method.failed, method.sooner) == ("mixed", 1, 2)
        assert (method.pairs, method.ratio) == (3, 620 / 400)

    def test_runs_are_paired_by_their_seeds(self):
        shuffled = of("mse", (90, 590), (90, 300), seeds=[2, 0])
        method = speed_ups(BASELINE | shuffled)["mse"]
        assert (method.pairs, method.ratio_low, method.ratio_high) == (2, 2, 2)
        alone = speed_ups(BASELINE | of("mse", (90, 300), seeds=[7]))
        assert (alone["mse"].verdict, alone["mse"].pairs) == ("unpaired", 0)
        assert math.isnan(alone["mse"].ratio)
        assert "no dated run of the baseline to pair with: mse" in alone.notes

    def test_a_baseline_that_never_generalises(self):
        never = of("baseline", (90, None), (90, None))
        found = speed_ups(
            never | of("mse", (90, 400), (90, 800)) | of("muon", (9, None), (9, None))
        )
        assert (found["mse"].verdict, found["mse"].ratio) == ("sooner", math.inf)
        assert found["baseline"].verdict == found["muon"].verdict == "never"
        assert math.isnan(found["muon"].ratio)
        assert found.to_dict()["methods"][0]["ratio"] is None

    def test_a_baseline_that_fails_is_compared_with_nothing(self):
        failed = of("baseline", (90, 400), train=0.5)
        found = speed_ups(failed | of("mse", (90, 400)))
        assert (found["baseline"].verdict, found["mse"].verdict) == ("failed", "unpaired")

    def test_the_end_of_each_run(self):
        found = speed_ups(BASELINE)
        norm = math.sqrt(sum(float((w.double() ** 2).sum()) for w in WEIGHTS.values()))
        rows = found.runs()
        assert rows["norm"].tolist() == pytest.approx([norm] * 3)
        assert rows["norm_start"].tolist() == pytest.approx([2 * norm] * 3)
        assert rows["norm_max"].tolist() == pytest.approx([2 * norm] * 3)
        assert rows["test_acc"].tolist() == [1] * 3
        assert rows["label"].tolist() == ["grokked"] * 3


class TestTheTunedBaseline:
    METHODS = of("mse", (90, 320), (90, 320), (90, 320))

    def test_it_is_the_soonest_of_rate_and_decay(self):
        found = speed_ups(
            BASELINE
            | self.METHODS
            | of("lr_x3", (90, 160), (90, 160), (90, 160))
            | of("decay_x3", (90, 100), (90, None), (90, None))
        )
        assert found.tuned == "lr_x3"
        assert found["mse"].ratio == 2
        assert found["mse"].ratio_tuned == 0.5
        assert "tuned baseline: lr_x3, t95 160" in str(found)

    def test_other_rates_count_too_and_other_keys_do_not(self):
        other = {"a": told(BASE.replace(lr=0.5), 0, 90, 200)}
        found = speed_ups(BASELINE | self.METHODS | other)
        assert found.tuned == "lr=0.5"
        other = {"a": told(BASE.replace(lr=0.5, init_scale=2.0), 0, 90, 200)}
        assert speed_ups(BASELINE | self.METHODS | other).tuned == ""

    def test_one_failed_seed_is_enough(self):
        bad = of("lr_x3", (90, 100), seeds=[2], train=0.9)
        found = speed_ups(BASELINE | of("lr_x3", (90, 100), (90, 100)) | bad)
        assert found.tuned == "baseline"

    def test_without_any_it_is_said(self):
        found = speed_ups(BASELINE | self.METHODS)
        assert found.tuned == ""
        assert any("the baseline is not tuned" in note for note in found.notes)
        assert math.isnan(found["mse"].ratio_tuned)


class TestTheBaseline:
    def test_it_is_told_by_recipes_and_not_by_names(self):
        runs = [*BASELINE.values(), *of("mse", (90, 400)).values(), *of("muon", (9, 40)).values()]
        found = speed_ups({f"baseline {i}": run for i, run in enumerate(reversed(runs))})
        assert found.runs().groupby("method").size().to_dict() == {
            "baseline": 3, "mse": 1, "muon": 1,
        }  # fmt: skip

    def test_two_settings_of_which_neither_follows(self):
        two = {"a": told(BASE, 0, 90, 400), "b": told(BASE.replace(lr=0.5), 0, 90, 200)}
        with pytest.raises(gi.InputError, match="do not say which is the baseline"):
            speed_ups(two)
        found = speed_ups(two, baseline=BASE.replace(steps=5))  # whose length does not matter
        assert found["lr=0.5"].ratio == 2
        with pytest.raises(gi.InputError, match="the recipe of none of these runs"):
            speed_ups(two, baseline=BASE.replace(lr=3))

    def test_runs_that_say_little(self):
        task, architecture = BASE.build_task(), BASE.architecture()
        bare = made_run(task, architecture, {0: WEIGHTS}, name="bare")
        stranger = made_run(
            task, architecture, {0: WEIGHTS, 2000: WEIGHTS}, train=ROWS, metrics=log(90, 400)
        )
        found = speed_ups(BASELINE | of("mse", (90, 400)) | {"s": stranger})
        assert found["no recipe"].verdict == "unpaired"
        assert any("without a recipe" in note for note in found.notes)
        alone = speed_ups(gi.snapshot(bare.model(), task))
        assert (alone["baseline"].verdict, alone["baseline"].runs) == ("unknown", 1)
        assert any("no dates" in note for note in alone.notes)


class TestTimes:
    def test_seconds_are_updates_times_those_of_one(self):
        methods = of("mse", (90, 320), (90, 320), (90, 320))
        found = speed_ups(BASELINE | methods, seconds={"baseline": 0.01, "mse": 0.02, "muon": 1})
        assert found["baseline"].seconds == pytest.approx(6.4)
        assert (found["mse"].seconds, found["mse"].ratio_seconds) == pytest.approx((6.4, 1))
        assert found["mse"].ratio == 2
        with pytest.raises(gi.InputError, match=r"seconds\['mse'\]=-1 is not a number above 0"):
            speed_ups(BASELINE | methods, seconds={"mse": -1})

    def test_each_variant_is_timed_and_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        wide = BASE.replace(widths=[600])
        times = seconds_per_update({"small": BASE, "wide": wide}, updates=20, threads=1)
        assert times.seconds["wide"] > times.seconds["small"] > 0
        assert times.table()["ratio"].tolist()[0] == 1
        assert (times.threads, times.updates) == (1, 100)
        assert not list(tmp_path.iterdir())
        with pytest.raises(gi.InputError, match="no recipes are given"):
            seconds_per_update({})


def test_its_figure():
    found = speed_ups(
        BASELINE
        | of("lr_x3", (90, 160), (90, 170), (90, 180))
        | of("muon", (90, None), (90, None), (90, 700))
        | of("mse", (None, None), (None, None), (None, None))
    )
    drawn = found.plot()
    dots = {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in drawn.data}
    assert [x for x, y in dots["t95: generalises"] if y == "lr_x3"] == [160, 170, 180]
    assert ("muon" in {y for _, y in dots["median t95"]}) is False
    assert [each.text for each in drawn.layout.annotations] == ["never 2 of 3", "failed 3 of 3"]
    lines = {shape.name: shape.x0 for shape in drawn.layout.shapes}
    assert lines == {"baseline": 640, "tuned: lr_x3": 170, "last update: 2,000": 2000}
    order = list(reversed(drawn.layout.yaxis.categoryarray))
    assert order == ["lr_x3", "baseline", "muon", "mse"]


def test_its_figure_of_one_checkpoint_says_why_there_is_nothing_to_see():
    drawn = gi.viz.plot_speed_ups(gi.load("mod31-small").snapshot())
    assert "the log does not show when test was learned" in (
        drawn.layout.annotations[0].text.replace("<br>", " ")
    )
    assert not drawn.layout.shapes


def test_the_command_of_a_recipe_that_diverges_says_so(run, tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text(BASE.replace(steps=10, threads=1, lr=1e30).to_toml())
    command = ("accelerate", file, "--out", tmp_path / "runs", "--only", "mse", "--seeds", "1")
    status, _, error = run(*command)
    assert status == 2
    assert "2 of 2 runs failed, baseline,seed=0: " in error
    assert "diverged" in error


def test_the_command(run, tmp_path):
    file, out, drawn = tmp_path / "tiny.toml", tmp_path / "runs", tmp_path / "figure.html"
    file.write_text(BASE.replace(steps=30, threads=1).to_toml())
    words = ("accelerate", file, "--out", out, "--only", "mse", "--seeds", "1")
    status, text, error = run(*words, "--figure", drawn)
    assert (status, error) == (0, "")
    assert "Speed-ups" in text
    assert "Update times" in text
    assert drawn.stat().st_size > 1000
    assert len(pd.read_csv(out / "results.csv")) == 2
    status, text, _ = run(*words, "--json")  # nothing is trained again
    found = json.loads(text)
    assert status == 0
    assert {each["method"] for each in found["methods"]} == {"baseline", "mse"}
    assert found["update_times"]["seconds"].keys() == {"baseline", "mse"}
    status, _, error = run("accelerate", file, "--out", out, "--only", "mes")
    assert (status, error) == (2, "grokinterp: 'mes' is no method; did you mean 'mse'?\n")


def test_a_run_whose_training_diverged_has_failed(tmp_path):
    tiny = gi.Recipe(model="mlp", p=5, d_mlp=8, steps=20, log_every=5, threads=1)
    sweep = gi.Sweep(tiny, (), variants={"baseline": {}, "fast": {"lr": 1e30}})
    gi.run_sweep(sweep, tmp_path, progress=False)
    assert not gi.load(tmp_path / "fast").finished
    found = gi.claims.speed_ups(tmp_path, baseline=tiny)
    assert (found["lr=1e+30"].failed, found["lr=1e+30"].verdict) == (1, "failed")
