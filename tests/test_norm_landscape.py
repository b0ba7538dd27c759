"""Held norms: which generalise, how free runs walk to them, and what the logits' scale alone does.

Most runs are made by hand: a recipe, a log, and weights of chosen norms.
"""

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.claims import norm_landscape
from grokinterp.claims.control_runs import runs_in
from tests.made_runs import curves, recipe_run
from tests.small_runs import norm

STEPS = 1000
BASE = gi.Recipe(
    model="mlp", p=7, operation="subtract", d_mlp=4, steps=STEPS, checkpoints=[0, STEPS]
)
N0 = 10.0
HELD = {"norm_clamp": "global", "weight_decay": 0.0}


def held(alpha, t95=None, *, seed=0, t99=50, log=None, **changes):
    """A run whose norm is held at `alpha` times the initial one."""
    recipe = BASE.replace(clamp_to=alpha, seed=seed, data_seed=seed, **{**HELD, **changes})
    log = curves(STEPS, fits=t99, generalizes=t95) if log is None else log
    return recipe_run(recipe, log, {0: alpha * N0, STEPS: alpha * N0})


def free(path, t95=500, *, seed=0, **changes):
    """A run with weight decay whose norm goes by {step: N/N0}."""
    recipe = BASE.replace(**{"weight_decay": 1.0, "seed": seed, "data_seed": seed, **changes})
    norms = {step: alpha * N0 for step, alpha in path.items()}
    return recipe_run(recipe, curves(STEPS, fits=50, generalizes=t95), norms)


def landscape(*runs, **options):
    return norm_landscape({f"run {i}": run for i, run in enumerate(runs)}, **options)


CLOSED = tuple(
    held(alpha, t95) for alpha, t95 in ((0.5, None), (1.0, 300), (2.0, 400), (4.0, None))
)


class TestTheZone:
    def test_closed(self):
        zone = landscape(*CLOSED).zone
        assert (zone.below, zone.low, zone.high, zone.above) == (0.5, 1.0, 2.0, 4.0)
        assert zone.closed
        assert zone.gaps == ()

    @pytest.mark.parametrize(
        ("outcomes", "ends", "said"),
        [
            ({1.0: 300, 2.0: None}, (None, 1.0, 1.0, 2.0), "open below"),
            ({1.0: None, 2.0: 300}, (1.0, 2.0, 2.0, None), "open above"),
            ({1.0: 200, 2.0: 300}, (None, 1.0, 2.0, None), "open above"),
            ({1.0: None, 2.0: None}, (None, None, None, None), "there is no zone"),
        ],
    )
    def test_open_and_empty(self, outcomes, ends, said):
        found = landscape(*(held(alpha, t95) for alpha, t95 in outcomes.items()))
        zone = found.zone
        assert (zone.below, zone.low, zone.high, zone.above) == ends
        assert not zone.closed
        assert any(said in note for note in found.notes)

    def test_a_norm_inside_that_fails(self):
        found = landscape(held(1.0, 300), held(2.0), held(3.0, 300))
        assert found.zone.gaps == (2.0,)
        assert any("inside the zone fail: 2 N0" in note for note in found.notes)

    def test_more_than_half_of_the_seeds(self):
        late = {1.0: (300, 500, None), 2.0: (300, None, None)}
        found = landscape(*(held(alpha, t95, seed=i) for alpha, each in late.items()
                            for i, t95 in enumerate(each)))  # fmt: skip
        table = found.table().set_index("alpha")
        assert (found.zone.low, found.zone.high, found.zone.above) == (1.0, 1.0, 2.0)
        assert table.n_seeds.tolist() == [3, 3]
        assert table.n_generalize.tolist() == [2, 1]
        assert table.t95[1.0] == 500
        assert math.isnan(table.t95[2.0])
        assert table.t95_low.tolist() == [300, 300]
        assert table.t95_high.isna().all()
        assert not any("seeds a norm" in note for note in found.notes)

    def test_where_a_norm_lies(self):
        zone = gi.claims.Zone(low=1.0, high=2.0, below=0.5)
        words = [zone.where(x) for x in (0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 2.1, math.nan)]
        assert words == ["below", "below", "edge", "inside", "inside", "inside", "untried", ""]
        assert gi.claims.Zone().where(1.0) == ""


class TestTheTable:
    def test_norms_and_dates(self):
        table = landscape(*CLOSED).table()
        assert table.alpha.tolist() == [0.5, 1.0, 2.0, 4.0]
        assert table.norm.tolist() == pytest.approx([5.0, 10.0, 20.0, 40.0])
        assert table.t99.tolist() == [50.0] * 4
        assert table.t95.tolist()[1:3] == [300.0, 400.0]

    def test_last_and_best_apart(self):
        log = curves(STEPS, fits=50)
        log.loc[log.step.between(300, 400), ["test_acc", "test_loss"]] = (0.8, 1.5)
        row = landscape(held(1.0, log=log)).table().iloc[0]
        assert (row.test_acc, row.best_test_acc) == (0.0, 0.8)
        assert (row.test_loss, row.best_test_loss) == (3.0, 1.5)
        assert (row.train_loss, row.best_train_loss) == (1.0, 1.0)

    def test_what_does_not_fit(self):
        row = landscape(held(0.1, t99=None)).table().iloc[0]
        assert row.n_fit == row.n_generalize == 0
        assert row.t99 is None

    def test_a_run_that_diverges(self):
        log = curves(STEPS, fits=50)
        log.loc[log.step > 500, ["train_loss", "test_loss"]] = np.nan
        row = landscape(held(1.0, log=log), held(1.0, 300, seed=1)).table().iloc[0]
        assert row.train_loss is None
        assert row.best_train_loss == 1.0

    def test_unmirrored_pairs_where_they_are_known(self):
        log = curves(STEPS, fits=50, generalizes=300).assign(
            test_loss_unmirrored=7.0, test_acc_unmirrored=0.25
        )
        found = landscape(held(1.0, log=log, operation="add"))
        row = found.table().iloc[0]
        assert (row.test_loss, row.test_acc, row.t95) == (7.0, 0.25, 300)
        assert any("unmirrored" in note for note in found.notes)


class TestFreeRuns:
    @pytest.mark.parametrize(
        ("path", "starts", "at_t95", "came_from"),
        [
            ({0: 1, 100: 5, 500: 2, 1000: 2}, "inside", "inside", "above"),
            ({0: 1, 100: 4.5, 500: 3, 1000: 2}, "inside", "edge", "above"),
            ({0: 1, 500: 2, 1000: 1}, "inside", "inside", "inside"),
            ({0: 1, 500: 8, 1000: 1}, "inside", "above", "outside"),
            ({0: 1, 500: 3, 1000: 1}, "inside", "edge", ""),
        ],
    )
    def test_the_way_in(self, path, starts, at_t95, came_from):
        row = landscape(*CLOSED, free(path)).free[0]
        assert (row["starts"], row["at_t95"], row["came_from"]) == (starts, at_t95, came_from)

    def test_from_below(self):
        """As where the initial weights are small: norms 1 and 2 fail, 3 and 4 do not, 8 does."""
        runs = (held(1.0), held(2.0), held(3.0, 300), held(4.0, 300), held(8.0))
        row = landscape(*runs, free({0: 1, 50: 2, 500: 3.5, 600: 4, 1000: 3})).free[0]
        assert (row["starts"], row["came_from"]) == ("below", "below")
        assert (row["at_t99"], row["at_max"], row["at_t95"]) == ("below", "inside", "inside")
        assert row["n0"] == pytest.approx(N0)
        assert row["alpha_t99"] == pytest.approx(2)
        assert row["alpha_t95"] == pytest.approx(3.5)
        assert row["alpha_max"] == pytest.approx(4)
        assert row["alpha_last"] == pytest.approx(3)
        assert row["over_max_t95"] == pytest.approx(3.5 / 4)

    def test_what_never_generalises_or_has_no_zone(self):
        never = landscape(*CLOSED, free({0: 1, 1000: 5}, t95=None)).free[0]
        assert never["came_from"] == ""
        assert math.isnan(never["alpha_t95"])
        without = landscape(held(1.0), free({0: 1, 1000: 5})).free[0]
        assert without["starts"] == without["came_from"] == ""
        alone = landscape(free({0: 1, 1000: 5}))
        assert alone.table().empty
        assert "there is no landscape" in alone.notes[0]
        assert alone.free[0]["alpha_max"] == pytest.approx(5)

    def test_without_one(self):
        assert any("there is no path" in note for note in landscape(*CLOSED).notes)


class TestTheScaleOfLogits:
    def test_beside_the_norms_that_it_acts_like(self):
        found = landscape(*CLOSED, held(2.0, output_scale=0.25), held(2.0, 300, output_scale=4.0))
        low, high = found.scaled
        assert (low["acts_like"], high["acts_like"]) == (1.0, 4.0)
        assert (low["share"], low["nearest_share"], low["own_share"]) == (0.0, 1.0, 1.0)
        assert (high["t95"], high["nearest"], high["nearest_t95"]) == (300, 4.0, None)
        assert (high["own"], high["own_t95"]) == (2.0, 400)
        assert len(found.norms) == 4

    def test_beside_the_one_that_the_network_has(self):
        """What is a control is another scale than most runs have, whether that is 1 or not."""
        usual = [held(alpha, t95, output_scale=0.5) for alpha, t95 in ((0.5, 100), (1.0, 200))]
        walk = free({0: 1, 1000: 1}, output_scale=0.5)
        found = landscape(*usual, walk, held(1.0, output_scale=0.125), held(1.0, output_scale=1.0))
        assert [each["alpha"] for each in found.norms] == [0.5, 1.0]
        assert [each["acts_like"] for each in found.scaled] == [0.5, pytest.approx(2**0.5)]
        assert [each["nearest_t95"] for each in found.scaled] == [100, 200]
        assert len(found.free) == 1

    def test_another_degree(self):
        found = landscape(*CLOSED, held(2.0, output_scale=0.5), degree=1)
        assert found.scaled[0]["acts_like"] == found.scaled[0]["nearest"] == 1.0
        with pytest.raises(gi.InputError, match="degree=1e-09 is not a number from 1 on"):
            landscape(*CLOSED, held(2.0, output_scale=0.5), degree=1e-9)


class TestWhatIsLeftOut:
    @pytest.mark.parametrize(
        ("other", "said"),
        [
            (held(8.0, 300, lr=0.01), "run 4 (other lr)"),
            (held(8.0, 300, clamp_from=10), "not held from step 0 on"),
            (held(8.0, 300, norm_clamp="layer"), "norm_clamp or weight_decay other than"),
            (held(8.0, 300, weight_decay=1.0), "norm_clamp or weight_decay other than"),
            (free({0: 1, 1000: 1}, weight_decay=0.0), "neither a held norm nor weight decay"),
            (free({0: 1, 1000: 1}, output_scale=0.1), "another output_scale without a held norm"),
        ],
    )
    def test_by_its_recipe(self, other, said):
        found = landscape(*CLOSED, other)
        assert len(found.runs) == 4
        assert found.zone == landscape(*CLOSED).zone
        (note,) = (note for note in found.notes if note.startswith("left out"))
        assert said in note

    def test_a_snapshot_has_no_recipe(self):
        found = norm_landscape(gi.load("mod31-small").snapshot())
        assert found.table().empty
        assert found.budget is None
        assert math.isnan(found.n0)
        assert found.notes[0].endswith("(no recipe says whether the norm was held)")
        assert found.to_dict()["n0"] is None
        assert "no recipe" in found.plot().layout.annotations[0].text

    def test_budgets_that_differ(self):
        longer = recipe_run(
            BASE.replace(clamp_to=8.0, steps=2000, **HELD), curves(2000, fits=50),
            {0: 80.0, 2000: 80.0},
        )  # fmt: skip
        found = landscape(*CLOSED, longer)
        assert found.budget == (1000, 2000)
        assert any("1,000 to 2,000 updates" in note for note in found.notes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep of four trained runs, and what else may lie beside them."""
    out = tmp_path_factory.mktemp("sweep")
    base = gi.Recipe(
        model="mlp", p=5, d_mlp=8, train_fraction=0.8, steps=20, checkpoints="every:10",
        log_every=5, threads=1,
    )  # fmt: skip
    variants = {
        "free": {"weight_decay": 1.0},
        "half": {**HELD, "clamp_to": 0.5},
        "same": {**HELD, "clamp_to": 1.0},
        "double": {**HELD, "clamp_to": 2.0},
    }
    gi.run_sweep(gi.Sweep(base, (), variants=variants), out, progress=False)
    run = gi.load(out / "free")
    recorder = gi.Recorder(out / "unfinished", task=run.task, train_mask=run.train_mask)
    recorder.save(0, run.model())
    (out / "broken").mkdir()
    (out / "broken" / "run.json").write_text('{"format": 1, "checksum": "x", "task": {}}')
    (out / "notes").mkdir()
    (out / "notes" / "read.me").write_text("of another tool")
    yield out
    recorder.close()


class TestTrainedRuns:
    def test_norms_are_those_of_the_weights(self, folder):
        found = norm_landscape(folder)
        first = norm(gi.load(folder / "free").weights(0))
        assert found.table().norm.tolist() == pytest.approx([first / 2, first, 2 * first], rel=1e-5)
        assert [row["n0"] for row in found.runs] == pytest.approx([first] * 4, rel=1e-6)
        steps = [step for step, _ in found.paths["free"]]
        assert steps == [0, 5, 10, 15, 20]
        path = dict(found.paths["free"])
        for step in (0, 10, 20):
            assert path[step] == pytest.approx(norm(gi.load(folder / "free").weights(step)), 1e-5)

    def test_what_lies_in_a_folder(self, folder):
        runs = runs_in(folder)
        assert {*runs} == {"free", "half", "same", "double"}
        assert len(runs.notes) == 2
        assert "broken, which cannot be read" in runs.notes[0]
        assert "damaged" in runs.notes[0]
        assert runs.notes[1] == "left out: unfinished, which is unfinished, at step 0"
        assert norm_landscape(folder).notes[:2] == runs.notes

    def test_lists_and_names(self, folder):
        assert [*runs_in([folder / "free", folder / "half"])] == ["free", "half"]
        assert [*runs_in({"a": folder / "free"})] == ["a"]
        assert len(runs_in([folder])) == 4
        with pytest.raises(gi.InputError, match="two runs have folders of one name"):
            runs_in([folder / "free", folder])
        for empty in ([], {}):
            with pytest.raises(gi.InputError, match="is no run; give"):
                runs_in(empty)

    def test_a_folder_without_a_finished_run(self, folder, tmp_path):
        shutil.copytree(folder / "broken", tmp_path / "broken")
        with pytest.raises(gi.InputError, match="has no finished run; left out: broken"):
            runs_in(tmp_path)


class TestTheExample:
    """The table of real runs that examples/explanations has, and what the page says of it."""

    FOLDER = Path(__file__).parent.parent / "examples" / "explanations"

    def test_what_is_trained(self):
        recipes = gi.Sweep.from_toml(self.FOLDER / "norm-landscape.toml").recipes()
        table = pd.read_csv(self.FOLDER / "norm-landscape.csv").set_index("run")
        assert sorted(table.index) == sorted(recipes)
        for name, recipe in recipes.items():
            held = "clamp_to" in recipe.to_dict()
            assert recipe.weight_decay == float(not held)
            assert not held or table.alpha[name] == recipe.clamp_to

    def test_what_generalises(self):
        table = pd.read_csv(self.FOLDER / "norm-landscape.csv")
        done = table.t95.notna()
        held = table[table.kind == "held"]
        zone = gi.claims.Zone.of(done[held.index].groupby(held.alpha).mean().to_dict())
        assert (zone.below, zone.low, zone.high, zone.above) == (4.0, 5.0, 6.0, 8.0)
        assert done[table.kind == "free"].all()
        scaled = table[table.kind == "scaled"]
        assert done[scaled.index].groupby(scaled.alpha).mean().to_dict() == {3.0: 1.0, 5.0: 0.0}


def test_the_picture():
    drawn = landscape(*CLOSED, free({0: 1, 100: 5, 500: 2, 1000: 2})).plot()
    names = [trace.name for trace in drawn.data]
    assert names.count("train, last step") == names.count("test, best over the log") == 2
    assert {"free run", "free: test 95 %", "held: train 99 %", "held: test 95 %"} <= {*names}
    held_dates = next(trace for trace in drawn.data if trace.name == "held: test 95 %")
    assert (list(held_dates.x), list(held_dates.y)) == ([1.0, 2.0], [300, 400])
    assert [(s.x0, s.x1) for s in drawn.layout.shapes if s.showlegend] == [
        (1.0, 2.0), (0.5, 1.0)
    ]  # fmt: skip
    assert list(drawn.data[0].x) == [0.5, 1.0, 2.0, 4.0]
