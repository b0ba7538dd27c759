"""The controls of a recipe: which runs they are, what a recipe cannot have, and their command."""

import json
import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.claims import every_control
from tests.conftest import kinds_forgotten

pytestmark = pytest.mark.shapes_unchecked

NAMES = (
    "baseline", "no_decay", "decay_x0.3", "decay_x0.6", "decay_x3",
    "held_norm_0.8", "held_norm_1", "held_norm_1.3", "held_norm_5", "held_norm_8",
    "perpendicular", "temperature_0.1", "held_norm_1_scale_0.64", "held_norm_1_scale_1.69",
    "held_norm_5_scale_2.56",
    "random_labels_0.2", "random_labels_0.4", "random_labels_0.6", "random_labels_0.8",
    "data_0.2", "data_0.4", "data_0.6", "data_0.8", "init_x0.5", "init_x2",
)  # fmt: skip
SMALL = gi.Recipe(
    model="mlp", p=5, d_mlp=8, train_fraction=0.7, lr=0.05, weight_decay=0.5, steps=30, log_every=5,
    threads=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return gi.train(SMALL, tmp_path_factory.mktemp("trained") / "run", progress=False)


def made(recipe, name, **options):
    """What a control changes in a recipe, but for what is saved of it."""
    sweep = gi.controls(recipe, only=name, **options)
    (recipe,) = gi.controls(recipe, only=name, seeds=1).recipes().values()
    return {
        key: value
        for key, value in recipe.to_dict().items()
        if value != sweep.base.to_dict().get(key) and key != "checkpoints"
    }


def left_out(recipe):
    return {control.name: control.why_not for control in every_control(recipe) if control.why_not}


class TestWhichRunsTheyAre:
    def test_of_an_mlp_on_60_percent(self):
        sweep = gi.controls("mlp31")
        assert tuple(sweep.variants) == tuple(x for x in NAMES if x != "data_0.6")
        assert left_out("mlp31") == {"data_0.6": "this recipe is that already"}
        assert tuple(control.name for control in every_control("mlp31")) == NAMES
        assert all(control.decides for control in every_control("mlp31"))
        own = gi.recipes()["mlp31"]
        assert sweep.base == own.replace(checkpoints=sweep.base.checkpoints)

    def test_of_a_transformer_on_80_percent(self):
        assert left_out("mod31-grokked") == {"data_0.8": "this recipe is that already"}

    @pytest.mark.parametrize(
        ("name", "changed"),
        [
            ("baseline", {}),
            ("no_decay", {"weight_decay": 0.0}),
            ("decay_x0.3", {"weight_decay": 0.3, "steps": 13_340}),  # 4000 / 0.3, to a logged step
            ("decay_x0.6", {"weight_decay": 0.6, "steps": 6670}),
            ("decay_x3", {"weight_decay": 3.0}),
            ("perpendicular", {"weight_decay": 0.0, "orthogonal_gradients": True}),
            ("temperature_0.1", {"output_scale": 0.1}),
            ("random_labels_0.4", {"operation": "random", "train_fraction": 0.4}),
            ("data_0.8", {"train_fraction": 0.8}),
            ("init_x0.5", {"init_scale": 0.5}),
            ("init_x2", {"init_scale": 2.0}),
        ],
    )
    def test_what_one_changes(self, name, changed):
        assert made("mlp31", name) == changed

    def test_a_held_norm(self):
        held = made("mlp31", "held_norm_1.3")
        assert held.pop("clamp_to") == 1.3
        assert held == {
            "weight_decay": 0.0, "constraint": "norm_clamp", "norm_clamp": "global", "clamp_from": 0
        }  # fmt: skip
        assert made("mlp31", "held_norm_1_scale_1.69") == {
            **held, "clamp_to": 1.0, "output_scale": 1.69
        }  # fmt: skip
        assert made("mlp31", "held_norm_5_scale_2.56") == {
            **held, "clamp_to": 5.0, "output_scale": 2.56
        }  # fmt: skip

    def test_a_scale_is_what_a_norm_does_to_a_network_of_degree_two(self):
        recipe = SMALL.replace(biases="none")
        architecture = recipe.architecture()
        weights = {x: w.double() for x, w in architecture.initial(seed=0, rule="xavier").items()}
        inputs = recipe.build_task().model_inputs
        logits = architecture.answers(weights)(inputs)
        for factor in (0.8, 1.3):
            (name,) = [x for x in NAMES if x.endswith(f"scale_{factor**2:.3g}")]
            scale = made(recipe, name)["output_scale"]
            scaled = architecture.answers({x: factor * w for x, w in weights.items()})(inputs)
            torch.testing.assert_close(scaled, scale * logits)

    def test_seeds_count_up_together_from_the_recipes_own(self):
        recipe = gi.recipes()["mod113-grokked"]  # seed 1, data_seed 598
        runs = gi.controls(recipe, only="no_decay", seeds=3).recipes()
        assert list(runs) == ["no_decay,seed=1", "no_decay,seed=2", "no_decay,seed=3"]
        assert [(x.seed, x.data_seed) for x in runs.values()] == [(1, 598), (2, 599), (3, 600)]

    def test_checkpoints_are_few_and_near_everything(self):
        recipe = gi.recipes()["mod31-grokked"]
        baseline, *runs = gi.controls(recipe, seeds=1).recipes().values()
        assert baseline == recipe
        n_weights = sum(map(math.prod, recipe.architecture().parameter_shapes().values()))
        every = (len(run.checkpoint_steps()) for run in (baseline, *runs))
        assert 3 * sum(4 * n_weights * n for n in every) < 1e9
        for run in runs:
            first, *later = run.checkpoint_steps()
            assert (first, later[-1], len(later)) == (0, run.steps, 12)
            assert later[0] == pytest.approx(run.steps / 100, abs=run.log_every)
            assert all(b < 1.53 * a + run.log_every for a, b in pairwise(later))
            assert run.log_every == recipe.log_every
            assert not any(step % run.log_every for step in later)  # the log has no more rows

    def test_keys_that_a_recipe_has_of_its_own_stay(self):
        own = SMALL.replace(
            norm_clamp="layer", clamp_from=7, gradient_filter="ema", output_scale=0.5, lr=0.02
        )
        assert made(own, "no_decay") == {"weight_decay": 0.0}
        held = made(own, "held_norm_0.8")
        assert held == {
            "weight_decay": 0.0, "norm_clamp": "global", "clamp_from": 0, "clamp_to": 0.8
        }  # fmt: skip
        assert made(own, "temperature_0.1") == {"output_scale": 0.05}
        for recipe in gi.controls(own).recipes().values():
            assert (recipe.gradient_filter, recipe.lr) == ("ema", 0.02)


class TestWhatARecipeCannotHave:
    def test_decay_where_there_is_none(self):
        without = left_out(SMALL.replace(weight_decay=0))
        assert without == {
            "no_decay": "this recipe is that already",
            **dict.fromkeys(
                ("decay_x0.3", "decay_x0.6", "decay_x3"),
                "this recipe has no weight decay that could be multiplied",
            ),
        }
        assert made(SMALL.replace(weight_decay=0), "perpendicular") == {
            "orthogonal_gradients": True
        }

    def test_what_it_is_already(self):
        held = SMALL.replace(norm_clamp="global", clamp_to=5, weight_decay=0)
        assert left_out(held)["held_norm_5"] == "this recipe is that already"

    def test_sizes_and_random_answers_of_an_ising_task(self):
        reasons = left_out("ising-grokked")
        assert set(reasons) == {x for x in NAMES if x.startswith(("data", "random"))}
        assert all("draws its training inputs itself" in reason for reason in reasons.values())

    def test_random_answers_that_are_random_already(self):
        reasons = left_out(SMALL.replace(operation="random"))
        assert set(reasons) == {x for x in NAMES if x.startswith("random")}
        assert "random already" in reasons["random_labels_0.2"]

    def test_sizes_that_leave_nothing_to_train_on(self):
        reasons = left_out(SMALL.replace(p=2, train_fraction=0.5))
        assert {"random_labels_0.2", "data_0.2"} == set(reasons)
        assert "leaves nothing to train on" in reasons["data_0.2"]

    def test_initial_weights_of_another_run(self):
        reasons = left_out(SMALL.replace(start="mod31-small"))
        assert set(reasons) == {"init_x0.5", "init_x2"}

    def test_custom_kinds(self):
        with kinds_forgotten():

            @gi.register.operation("cubes")
            def cubes(a, b, p):
                return (a**3 + b**3) % p

            @gi.register.task("parity-of-bits")
            @dataclass(frozen=True, kw_only=True)
            class Parity(gi.tasks.TableTask):
                n_classes = 2
                usual_model = "mine"

                def inputs(self):
                    return torch.tensor([[i >> k & 1 for k in range(4)] for i in range(16)]).float()

                def answers(self):
                    return self.inputs().sum(1).long() % 2

            @gi.register.model("mine")
            @dataclass(frozen=True, kw_only=True)
            class Mine(gi.models.ModuleArchitecture):
                def module(self, task):
                    return torch.nn.Linear(4, task.n_classes)

            @gi.register.optimizer("plain")
            @dataclass(frozen=True, kw_only=True)
            class Plain(gi.updates.Optimizer):
                lr: float = 0.1

                def build(self, parameters):
                    return torch.optim.SGD(list(parameters), lr=self.lr)

            assert left_out(SMALL.replace(operation="cubes")) == {}
            recipe = gi.Recipe(task="parity-of-bits", optimizer="plain", train_fraction=0.6)
            reasons = left_out(recipe)
            assert set(reasons) == {
                x for x in NAMES if x.startswith(("random", "decay", "no_decay"))
            } | {"data_0.6"}  # fmt: skip
            assert "has answers of its own" in reasons["random_labels_0.2"]
            assert "weight_decay" in reasons["no_decay"]
            assert "weight_decay" not in gi.controls(recipe, only="held_norm_5").variants


class TestOnly:
    @pytest.mark.parametrize(
        ("only", "names"),
        [
            ("baseline", ["baseline"]),
            ("held_norm_1", ["held_norm_1"]),
            ("held_norm", [x for x in NAMES if x.startswith("held_norm")]),
            ("decay", ["decay_x0.3", "decay_x0.6", "decay_x3"]),
            (["init", "no_decay", "init_x2"], ["no_decay", "init_x0.5", "init_x2"]),
            (["data"], ["data_0.2", "data_0.4", "data_0.8"]),  # without that of the recipe
        ],
    )
    def test_takes_names_and_families(self, only, names):
        assert list(gi.controls("mlp31", only=only).variants) == names

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"only": "held_nrom"}, "only='held_nrom' is no control; did you mean 'held_norm'?"),
            ({"only": ["no_decay", 3]}, "only=3 is no control; valid are: baseline, "),
            ({"only": []}, r"only=\[\] names no control"),
            ({"only": "data_0.6"}, "no control of this recipe: this recipe is that already"),
            ({"seeds": 0}, "seeds=0 "),
            ({"seeds": 2.5}, "seeds=2.5 "),
        ],
    )
    def test_refuses_others_in_one_line(self, options, told):
        with pytest.raises(gi.InputError, match=told):
            gi.controls("mlp31", **options)


class TestOfWhat:
    def test_a_run_its_folder_a_file_and_the_recipe_are_one(self, trained, tmp_path):
        (tmp_path / "mine.toml").write_text(SMALL.to_toml())
        for same in (trained, trained.path, str(trained.path), tmp_path / "mine.toml"):
            assert gi.controls(same) == gi.controls(SMALL)

    def test_a_run_without_a_recipe_is_refused(self, trained, tmp_path):
        with gi.Recorder(tmp_path / "own", task=trained.task) as recorder:
            recorder.save(0, trained.model(0))
        for given in (tmp_path / "own", gi.load(tmp_path / "own")):
            with pytest.raises(gi.InputError, match=r"own has no recipe.*give gi\.Recipe"):
                gi.controls(given)

    @pytest.mark.parametrize("given", [None, 3, "mlp32", "nowhere/run"])
    def test_what_is_no_recipe_is_refused(self, given):
        with pytest.raises(gi.InputError):
            gi.controls(given)


class TestTheCommand:
    def test_it_trains_and_tells(self, run, tmp_path):
        (tmp_path / "mine.toml").write_text(SMALL.to_toml())
        out = tmp_path / "out"
        command = ("controls", tmp_path / "mine.toml", "--out", out, "--seeds", "1")
        command += ("--only", "baseline,held_norm_0.8")
        status, printed, err = run(*command)
        assert (status, err) == (0, "")
        lines = printed.splitlines()
        assert (
            lines[0]
            == "baseline                the other seeds: how much of a difference is chance?"
        )
        assert lines[2].startswith("2 runs, 60 steps: about ")
        assert lines[-1] == f"Next: grokinterp explain {out}/baseline,seed=0 --controls {out}"
        assert {x.name for x in out.iterdir() if x.is_dir()} == {
            "baseline,seed=0", "held_norm_0.8,seed=0"
        }  # fmt: skip
        table = pd.read_csv(out / "results.csv").set_index("variant")
        assert lines[-5].split("  ")[-1] == "of unmirrored pairs"
        for name, learned, grokked, accuracy, unmirrored in map(str.split, lines[-4:-2]):
            row = table.loc[name]
            for text, step in ((learned, row.memorization_step), (grokked, row.grok_step)):
                assert text == ("-" if math.isnan(step) else f"{step:.0f}")
            assert accuracy == f"{row.test_acc:.3f}"
            assert unmirrored == f"{row.test_acc_unmirrored:.3f}"
        held = gi.load(out / "held_norm_0.8,seed=0")
        norms = [sum(float(w.double().square().sum()) for w in held.weights(step).values()) ** 0.5
                 for step in held.steps]  # fmt: skip
        assert max(norms) == pytest.approx(min(norms), rel=1e-5)

        written = (out / "results.csv").stat().st_mtime_ns
        status, printed, err = run(*command, "--json")  # nothing is done again
        assert (status, err) == (0, "")
        found = json.loads(printed)
        assert [x["control"] for x in found["controls"]] == ["baseline", "held_norm_0.8"]
        assert found["controls"][1]["seed"] == [0]
        assert found["controls"][1]["test_acc"] == [table.test_acc["held_norm_0.8"]]
        assert (out / "results.csv").stat().st_mtime_ns == written

        run_json = out / "baseline,seed=0" / "run.json"
        before = run_json.stat().st_mtime_ns
        status, printed, err = run(*command[:-1], "no_decay", "--json")  # beside what is there
        assert (status, err) == (0, "")
        assert [x["control"] for x in json.loads(printed)["controls"]] == [
            "baseline", "held_norm_0.8", "no_decay"
        ]  # fmt: skip
        assert run_json.stat().st_mtime_ns == before

    def test_more_names_and_more_seeds_go_beside_what_is_there(self, run, tmp_path):
        short, out = SMALL.replace(steps=2), tmp_path / "out"
        (tmp_path / "mine.toml").write_text(short.to_toml())
        sweep = gi.controls(short, only="no_decay", seeds=1)
        mine = {"no_decay": {"weight_decay": 0.0}, "mine": {"widths": [4]}}  # a variant of my own
        gi.run_sweep(replace(sweep, variants=mine), out, progress=False)
        command = ("controls", tmp_path / "mine.toml", "--out", out, "--only", "baseline")
        status, printed, err = run(*command, "--seeds", "2")
        assert (status, err) == (0, "")
        assert "mine                    no control of this recipe" in printed
        assert list(pd.read_csv(out / "results.csv").run) == [
            f"{name},seed={seed}" for name in ("no_decay", "mine", "baseline") for seed in (0, 1)
        ]
        status, _, err = run(*command, "--seeds", "1")  # not fewer: a folder is one sweep
        assert status == 2
        assert "no_decay,seed=1 is not asked for" in err

    def test_a_recipe_that_diverges(self, run, tmp_path):
        (tmp_path / "mine.toml").write_text(SMALL.replace(lr=1e30).to_toml())
        command = ("controls", tmp_path / "mine.toml", "--out", tmp_path / "out", "--seeds", "1")
        status, printed, err = run(*command, "--only", "no_decay")
        assert status == 2
        assert "1 runs, 30 steps\n" in printed  # without a time: none was taken
        assert "1 of 1 runs failed, no_decay,seed=0: " in err

    def test_of_a_run_it_names_what_is_left_out(self, run, tmp_path):
        gi.train(SMALL.replace(steps=2, train_fraction=0.8), tmp_path / "run", progress=False)
        command = ("controls", tmp_path / "run", "--out", tmp_path / "out", "--seeds", "1")
        status, printed, _ = run(*command, "--only", "data")
        assert status == 0
        assert "data_0.8                is left out: this recipe is that already" in printed
        assert "random" not in printed
        next_one = f"grokinterp explain {tmp_path}/run --controls {tmp_path}/out"
        assert printed.splitlines()[-1] == f"Next: {next_one}"

    @pytest.mark.parametrize(
        ("more", "told"),
        [
            (("--only", "no_decai"), "did you mean 'no_decay'?"),
            (("--seeds", "0"), "seeds=0"),
            (("--executor", "slurm"), "executor='slurm'"),
        ],
    )
    def test_bad_input_is_one_line_and_status_2(self, run, tmp_path, more, told):
        status, _, err = run("controls", "mlp31", "--out", tmp_path / "out", *more)
        assert (status, len(err.splitlines())) == (2, 1)
        assert told in err
