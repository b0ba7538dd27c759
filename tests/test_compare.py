import json
import math
import shutil
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp import encodings
from grokinterp.comparison.lineup import Clock, names_of, outcome, regimes_of, settings_of
from grokinterp.comparison.profile import PROFILED, _at_the_end, _features, _peak
from grokinterp.viz import comparison_page
from tests.labels import axis_titles

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

module = sys.modules["grokinterp.comparison._compare"]
GROKKED, STEADY = "mod31-grokked", "mod31-steady"


@pytest.fixture(scope="module")
def pair(mod31):
    return [mod31[GROKKED], mod31[STEADY]]


@pytest.fixture(scope="module")
def found(pair):
    return gi.compare(pair)


def copied(run, folder):
    shutil.copytree(run.path, folder)
    return folder


def rerecorded(run, folder, *, change=lambda step, weights: weights, steps=None):
    """The run written anew without a recipe, with other weights."""
    with gi.Recorder(folder, task=run.task, train_mask=run.train_mask) as recorder:
        for step in steps or run.steps:
            weights = change(step, run.weights(step))
            recorder.save(step, run.architecture.hooked(weights))
    return gi.load(folder)


def only_metrics(profile, places):
    """In place of `measure`: what was logged at the checkpoint of each place."""
    logged = profile.run.metrics.drop_duplicates("step", keep="last").set_index("step")
    rows = [
        {"place": place, "position": math.nan, "step": step} | dict(logged.loc[step])
        for place, step in places.items()
    ]
    return replace(profile, course=pd.DataFrame(rows))


class TestNumbers:
    """What stands side by side is what the single measures say."""

    @pytest.mark.parametrize("place", [0, 1])
    def test_at_the_end(self, found, pair, place):
        run, values = pair[place], found.profiles[place].values
        curve = encodings.pruning_curve(run)
        assert values["c"] == pytest.approx(curve.c, rel=1e-6)
        assert values["prunable"] == curve.prunable
        fourier = encodings.pruning_curve(run, basis="fourier")
        assert values["c_fourier"] == pytest.approx(fourier.c, rel=1e-6)
        path = gi.geometry.information_path(run)
        assert values["path_length"] == path.length
        assert values["straightness"] == path.straightness
        ipr = gi.fourier.neuron_ipr(run).means
        assert values["ipr_input"] == ipr["ipr_input"]
        assert values["n_key_frequencies"] == len(gi.key_frequencies(run).frequencies)
        last = run.metrics.iloc[-1]
        for column in ("train_loss", "test_loss", "train_acc", "test_acc"):
            assert values[column] == last[column]
        every = torch.cat([w.double().flatten() for w in run.weights().values()])
        assert values["weight_norm"] == pytest.approx(float(every.norm()), rel=1e-12)
        phases = gi.detect_phases(run.metrics)
        assert (values["t_train"], values["t_test"]) == (phases.t_train, phases.t_test)
        assert set(values) <= set(PROFILED)

    def test_the_delay_is_the_path_from_train_to_test_learned(self, found, pair):
        profile = found.profiles[0]
        path = gi.geometry.information_path(pair[0])
        stage = gi.geometry.stages_of(profile.phases, path.steps)["delay"]
        assert profile.values["delay_straightness"] == path.between(*stage).straightness
        steps = gi.geometry.step_geometry(
            pair[0], steps=path.between(*stage).steps, form="exact", stiff_above=None
        )
        assert profile.values["delay_cos_consecutive"] == steps.cos_consecutive.median()

    def test_stages_are_those_of_each_path(self, found, pair):
        table = found.stages()
        for run, profile in zip(pair, found.profiles, strict=True):
            path = gi.geometry.information_path(run)
            expected = path.table(gi.geometry.stages_of(profile.phases, run.steps))
            rows = table[table["run"] == profile.name].reset_index(drop=True)
            assert (rows.regime == found.regimes[profile.name]).all()
            pd.testing.assert_frame_equal(rows[expected.columns], expected, check_like=True)

    def test_over_training(self, found, pair):
        for run, profile in zip(pair, found.profiles, strict=True):
            course = profile.course.drop_duplicates("step").set_index("step")
            metrics = run.metrics.drop_duplicates("step", keep="last").set_index("step")
            learnt = metrics.test_acc >= 0.9 * metrics.test_acc.max()
            for step, row in course.iterrows():
                assert row.test_loss == metrics.test_loss[step]
                assert math.isnan(row.c) == (not learnt[step])
            some = course.index[course.c.notna()][0]
            curve = encodings.pruning_curve(run, step=int(some))
            assert course.c[some] == pytest.approx(curve.c, rel=1e-6)
            measured = encodings.features(run, steps=[int(some)]).iloc[0]
            assert course.ipr_output[some] == measured.ipr_output
            t_test, last = profile.clock.t_test, run.steps[-1]
            soon = course.c[(course.index <= 3 * t_test) & (course.index < last)].notna().sum()
            assert ("c_peak" in profile.values) == (soon >= 2 and last > 3 * t_test)
            if "c_peak" in profile.values:
                assert profile.values["c_peak"] == course.c.max()
                assert profile.values["c_peak_over_t_test"] == course.c.idxmax() / t_test

    @pytest.mark.parametrize(
        ("steps", "c", "expected"),
        [  # t_test = 100: soon is up to 300, and the end has to lie after that
            ([50, 100, 200, 300, 900], [None, 2, 5, 3, 4], (5, 5 / 4, 2)),
            ([50, 100, 200, 300, 900], [None, 1, 2, 3, 4], (4, 1, 9)),
            ([50, 100, 900, 900], [None, 2, 4, 4], None),  # one soon
            ([50, 100, 200, 300], [None, 2, 5, 3], None),  # no later end
        ],
    )
    def test_a_peak_takes_two_checkpoints_soon_after_and_a_later_end(self, steps, c, expected):
        course = pd.DataFrame({"step": steps, "c": pd.Series(c, dtype=float)})
        peak = _peak(course, course.c.iloc[-1], Clock(t_train=50, t_test=100, last=steps[-1]))
        names = ("c_peak", "c_peak_over_end", "c_peak_over_t_test")
        assert peak == ({} if expected is None else dict(zip(names, expected, strict=True)))

    def test_one_seed_has_no_interval_and_no_verdict(self, found):
        table = found.table().set_index("measure")
        assert table.grokked_n.max() == table.steady_n.max() == 1
        assert table.grokked_low.isna().all()
        assert (table.grokked_coverage == 0).all()
        assert {claim.verdict for claim in found.claims} == {"undetermined"}
        assert any("give at least 3 seeds" in note for note in found.notes)

    def test_regimes_and_settings(self, found):
        assert list(found.regimes.values()) == ["grokked", "steady"]
        assert list(found.settings.values()) == ["init_scale=1", "init_scale=0.3"]
        runs = found.runs()
        assert list(runs.label) == ["grokked", "steady"]
        assert list(runs.c) == [p.values["c"] for p in found.profiles]

    def test_aligned_by_phase(self, found):
        table = found.aligned()
        assert set(table.position) <= {0.0, 0.5, 1.0, 1.25, 1.5, 1.75} | {
            round(2 + i / 10, 10) for i in range(11)
        }
        start = table[(table.position == 0) & (table.measure == "weight_norm")]
        norms = dict(zip(start.regime, start["median"], strict=True))
        assert norms["grokked"] == found.profiles[0].values["weight_norm_start"]
        assert norms["steady"] == found.profiles[1].values["weight_norm_start"]
        assert (table.n <= table.n_runs).all()

    def test_aligned_by_step(self, pair, monkeypatch):
        monkeypatch.setattr(module, "measure_profile", only_metrics)
        found = gi.compare(pair, align="step")
        table = found.aligned()
        assert "position" not in table
        assert set(table.step) <= set(pair[0].steps) & set(pair[1].steps)
        middle = int(sorted(set(table.step))[8])
        here = table[(table.step == middle) & (table.measure == "test_loss")]
        expected = [run.metrics.set_index("step").test_loss[middle] for run in pair]
        assert list(here["median"]) == expected

    def test_features_of_a_model_whose_layers_have_none_are_left_out(self):
        class Summed(gi.ModularTask):
            def observables(self):
                return {"sum": self.tokens[:, :2].sum(dim=1).double()}

        sizes = {"p": 5, "d_model": 8, "n_heads": 1, "d_head": 8, "d_mlp": 8}
        shape = gi.Recipe(**sizes).architecture()
        model = shape.hooked(shape.initial(seed=0))
        assert _features(gi.snapshot(model, Summed("add", p=5))) == {}

    def test_nothing_is_changed(self, found, pair):
        before = [run.metrics.copy() for run in pair]
        found.table(), found.runs(), found.aligned(), found.plot()
        for run, frame in zip(pair, before, strict=True):
            pd.testing.assert_frame_equal(run.metrics, frame)
        with pytest.raises(AttributeError):
            found.align = "step"

    def test_what_json_holds(self, found):
        values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert [row["run"] for row in values["runs"]] == list(found.regimes)
        assert values["claims"][1]["numbers"]["c_steady"] == found.profiles[1].values["c"]
        assert values["claims"][2]["numbers"]["r"] is None
        assert len(values["measures"]) == len(found.table())


class TestRefused:
    def test_no_list_of_runs(self, pair):
        for given, said in (
            ([pair[0]], "1 run cannot be compared; give two or more"),
            ([], "0 runs cannot be compared; give two or more"),
        ):
            with pytest.raises(gi.InputError, match=said):
                gi.compare(given)

    def test_words_that_are_not_known(self, pair):
        with pytest.raises(gi.InputError, match="align='phases' is not known; did you mean"):
            gi.compare(pair, align="phases")
        with pytest.raises(gi.InputError, match="by='labels' is not known; did you mean"):
            gi.compare(pair, by="labels")

    def test_no_step_in_common(self, pair, tmp_path):
        late = rerecorded(pair[0], tmp_path / "late", steps=[0, 100, 500])
        others = [step for step in pair[1].steps if step not in late.steps]
        other = rerecorded(pair[1], tmp_path / "other", steps=others)
        with pytest.raises(gi.InputError, match="no step was saved by all of these runs"):
            gi.compare([late, other], align="step")

    def test_other_tasks_and_other_models(self, pair, tiny_run):
        with pytest.raises(gi.InputError, match=r"different tasks \(p=31 and 7\)"):
            gi.compare([pair[0], tiny_run])
        wider = gi.load("checkpoints/mod113-grokked"), gi.load("checkpoints/mlp113-grokked")
        with pytest.raises(gi.InputError, match=r"different (tasks|models)"):
            gi.compare(list(wider))

    def test_other_widths(self, tiny, tiny_run, tmp_path):
        wider = gi.train(tiny.replace(d_mlp=48, seed=1), tmp_path / "wider", progress=False)
        with pytest.raises(gi.InputError, match=r"different models \(d_mlp=32 and 48\)"):
            gi.compare([tiny_run, wider])

    def test_the_same_run_twice(self, pair, tmp_path):
        again = gi.load(copied(pair[0], tmp_path / "again"))
        for runs in ([pair[0], pair[0]], [*pair, again]):
            with pytest.raises(gi.InputError, match="as two seeds"):
                gi.compare(runs)

    def test_a_damaged_and_a_missing_checkpoint_are_named(self, pair, tmp_path):
        folder = copied(pair[0], tmp_path / "damaged")
        file = folder / "weights" / "step_00000500.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(bytes(content))
        with pytest.raises(gi.InputError, match="step_00000500"):
            gi.compare([pair[1], gi.load(folder)])
        file.unlink()
        with pytest.raises(gi.InputError, match="step_00000500"):
            gi.compare([pair[1], gi.load(folder)])


def unmeasured(profile, places):
    """In place of `measure` where only the line-up matters: as many runs as you like in no time."""
    return replace(
        profile, values={"c": 1.0}, course=pd.DataFrame(columns=["place", "position", "step"])
    )


@pytest.fixture
def line_up(monkeypatch):
    monkeypatch.setattr(module, "measure_profile", unmeasured)
    return gi.compare


class TestMarked:
    def test_nan_is_left_out_and_never_averaged(self, pair, tmp_path, monkeypatch, line_up):
        def broken(step=-1):  # as an earlier version saved it; this one refuses to
            weights = pair[0].weights(900 if step == -1 else step)
            bad = weights | {"embed.W_E": weights["embed.W_E"] * math.nan}
            return bad if step == 800 else weights

        nan = rerecorded(pair[0], tmp_path / "nan", steps=[0, 500, 800, 900])
        monkeypatch.setattr(nan, "weights", broken)
        found = line_up([*pair, nan])
        (row,) = found.runs()[found.runs()["run"] == "nan"].to_dict("records")
        assert row["regime"] == "left out"
        assert "step 800 hold NaN" in row["left_out"]
        assert any("nan is left out" in note for note in found.notes)
        assert found.table().grokked_n.max() == 1

    def test_unfinished_runs_are_left_out(self, pair, tmp_path, monkeypatch, line_up):
        other = gi.load(copied(pair[0], tmp_path / "other"))
        other.manifest.finished = False
        # Other weights, so that it is not the same run.
        monkeypatch.setattr(
            other, "weights", lambda step=-1: {k: 2 * w for k, w in pair[0].weights(step).items()}
        )
        found = line_up([*pair, other])
        assert "unfinished" in found.profiles[2].left_out
        assert found.regimes["other"] == "left out"

    def test_a_run_that_did_not_generalise_is_in_no_contrast(self, pair, tmp_path, line_up):
        recipe = gi.recipes()[GROKKED].replace(steps=100, seed=3)
        short = gi.train(recipe, tmp_path / "short", progress=False)
        found = line_up([*pair, short])
        assert found.regimes["short"] not in ("grokked", "steady")
        assert found.table().grokked_n.max() == 1
        notes = " ".join(found.notes)
        assert f"short is labelled {found.regimes['short']} and counts in no regime" in notes
        assert "also differ in steps" in notes
        assert "checkpoints differ between the runs" in notes
        assert "logged at different steps" in notes

    def test_a_run_without_test_inputs_is_left_out(self, pair, tiny, tmp_path, line_up):
        with gi.Recorder(tmp_path / "no split", task=pair[0].task) as recorder:
            recorder.save(0, pair[0].model(0))
            recorder.save(100, pair[0].model(100))
        found = line_up([*pair, gi.load(tmp_path / "no split")])
        assert found.profiles[2].left_out == "it has no test inputs"

    def test_a_run_whose_checkpoints_end_before_it_learned(self, pair, tmp_path, monkeypatch):
        trail = gi.load(copied(pair[0], tmp_path / "trail"))
        trail.manifest.steps = [step for step in trail.steps if step <= 300]
        assert "after its last checkpoint" in outcome(trail, "trail").left_out

    def test_all_left_out(self, pair, tmp_path, line_up, run):
        folders = []
        for name, step in (("a", 100), ("[b]", 200)):
            recorder = gi.Recorder(
                tmp_path / name, task=pair[0].task, train_mask=pair[0].train_mask
            )
            recorder.save(0, pair[0].model(step))
            folders.append(str(tmp_path / name))
        found = line_up([gi.load(folder) for folder in folders])
        assert set(found.regimes.values()) == {"left out"}
        assert set(found.table().all_n) == {1, 2}  # never empty
        assert found.aligned().empty
        assert found.stages().empty
        status, out, err = run("compare", *folders)
        assert (status, err) == (0, "")
        assert "a is left out: unfinished" in out
        assert "[b]" in out
        assert comparison_page(found)

    def test_confounded_settings_are_noted(self, found):
        assert not any("differ in" in note for note in found.notes)

    def test_a_run_without_a_recipe_is_a_setting_of_its_own(self, pair, tmp_path, line_up):
        mine = rerecorded(
            pair[0],
            tmp_path / "mine",
            change=lambda step, weights: {k: w * (1 + 1e-4) for k, w in weights.items()},
        )
        found = line_up([*pair, mine])
        assert found.settings["mine"] == "mine"
        assert any("mine has no recipe" in note for note in found.notes)

    @pytest.mark.slow
    def test_few_checkpoints_do_not_show_a_path(self, pair, tmp_path):
        few = rerecorded(
            pair[0],
            tmp_path / "few",
            steps=[0, 1000],
            change=lambda step, weights: {k: w * (1 + 1e-4) for k, w in weights.items()},
        )
        found = gi.compare([pair[1], few])
        profile = found.profiles[1]
        assert "delay_straightness" not in profile.values
        assert any("few" in note for note in found.notes)


class TestRegimes:
    def test_most_seeds_of_a_setting_decide(self):
        labels = ["grokked", "steady", "steady", "grokked", None]
        settings = ["a", "a", "a", "b", "a"]
        by_setting = regimes_of(labels, settings, by="setting")
        assert by_setting == ["steady", "steady", "steady", "grokked", "left out"]
        by_label = regimes_of(labels, settings, by="label")
        assert by_label == ["grokked", "steady", "steady", "grokked", "left out"]

    def test_other_labels_neither_vote_nor_count(self):
        labels = ["grokked", "memorized", "memorized", "undetermined"]
        for by in ("setting", "label"):
            assert regimes_of(labels, ["a"] * 4, by=by) == labels

    def test_a_tie_is_mixed(self):
        assert regimes_of(["grokked", "steady"], ["a", "a"], by="setting") == ["mixed", "mixed"]
        assert regimes_of([None], ["a"], by="setting") == ["left out"]

    def test_names_tell_runs_apart(self, pair, tmp_path):
        twins = [gi.load(copied(pair[0], tmp_path / way / "run")) for way in ("a", "b")]
        assert names_of(twins) == ["a/run", "b/run"]
        assert names_of([*twins, pair[1]]) == [
            "a/run",
            "b/run",
            f"{pair[1].path.parent.name}/{STEADY}",
        ]

    def test_settings_leave_chance_out(self, tiny, tmp_path):
        runs = [
            gi.train(tiny.replace(steps=1, seed=s, lr=lr), tmp_path / f"{s}{lr}", progress=False)
            for s, lr in ((0, 0.01), (1, 0.01), (2, 0.02))
        ]
        assert settings_of(runs, ["a", "b", "c"]) == ["lr=0.01", "lr=0.01", "lr=0.02"]
        assert settings_of(runs[:2], ["a", "b"]) == ["one setting", "one setting"]


class TestShown:
    def test_the_figure_draws_the_aligned_medians(self, found):
        table = found.aligned()
        figure = found.plot()
        lines = [t for t in figure.data if t.mode == "lines+markers" and t.name == "grokked"]
        rows = table[(table.regime == "grokked") & (table.measure == "test_loss")]
        assert list(lines[0].y) == list(rows["median"])
        assert list(lines[0].x) == list(rows.position)
        assert set(lines[0].marker.symbol) == {"circle"}  # one run, so it is always there
        assert "1 grokked, 1 steady" in figure.layout.title.text
        assert axis_titles(figure)[0] == {"phase"}
        names = [note.text for note in figure.layout.annotations]
        assert "path length (nats<sup>1/2</sup>)" in names

    def test_the_page_escapes_names_and_needs_no_network(self, pair, tmp_path, monkeypatch):
        run = gi.load(copied(pair[0], tmp_path / "<img src=x>"))
        monkeypatch.setattr(module, "measure_profile", unmeasured)
        page = comparison_page(gi.compare([run, pair[1]]))
        assert "<img src=x>" not in page
        assert "&lt;img src=x&gt;" in page
        assert "<script src" not in page

    def test_the_page_of_measured_runs(self, found):
        page = comparison_page(found)
        for claim in found.claims:
            assert f'<td class="{claim.verdict}">' in page
        assert f"{found.profiles[0].values['c']:.4g}" in page
        assert "Plotly.newPlot" in page

    def test_the_command(self, pair, run, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "measure_profile", unmeasured)
        paths = [str(r.path) for r in pair]
        status, out, err = run("compare", *paths, "--out", tmp_path / "page.html")
        assert (status, err) == (0, "")
        assert "UNDETERMINED: grokked and steady models learn the same features" in out
        assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
        status, out, _ = run("compare", *paths, "--json", "--align", "step", "--by", "label")
        values = json.loads(out)
        assert (status, values["align"], values["by"]) == (0, "step", "label")
        status, out, err = run("compare", paths[0])
        assert (status, out) == (2, "")
        assert "1 run cannot be compared; give two or more." in err
        status, _, err = run("compare", *paths, "--align", "epoch")
        assert status == 2
        assert "align='epoch'" in err


def test_a_formula_without_frequencies_of_its_tokens_is_compared_all_the_same(tmp_path):
    recipe = gi.Recipe(p=7, operation="a*b + a", d_model=8, n_heads=2, d_mlp=8, steps=1, threads=1)
    snapshot = gi.train(recipe, tmp_path).snapshot()
    curve = encodings.pruning_curve(snapshot, test_only=True)
    values, notes = _at_the_end(snapshot, curve, "mine")
    assert "c_fourier" not in values
    assert values["c"] == curve.c
    assert "n_key_frequencies" in values
    assert notes[0].startswith("mine: no compressibility in the Fourier basis (in a*b + a mod 7")


class TestSeeds:
    """What is told of runs whatever became of them."""

    def test_a_row_a_run(self, found, pair):
        rows = found.seeds().set_index("run")
        assert len(rows) == len(pair)
        for run, (_, row) in zip(pair, rows.iterrows(), strict=True):
            phases, keys = gi.detect_phases(run), gi.key_frequencies(run).frequencies
            assert row.label == phases.label
            assert (row.memorization_step, row.grok_step) == (
                phases.memorization_step, phases.grok_step
            )  # fmt: skip
            assert row.key_frequencies == keys
            sizes = gi.circuits.neuron_clusters(run).sizes
            assert row.clusters == ", ".join(f"{k}: {sizes[k]}" for k in keys if k in sizes)
            algorithm = gi.circuits.algorithm(run)
            assert row.algorithm == algorithm.verdict
            assert row.gradient_symmetricity == algorithm.gradient_symmetricity.value
            assert row.distance_irrelevance == algorithm.distance_irrelevance.value

    def test_shared_frequencies(self, found, pair):
        keys = [set(gi.key_frequencies(run)) for run in pair]
        table = found.shared_frequencies().set_index("frequency")
        assert set(table.index) == set.union(*keys)
        for k, row in table.iterrows():
            assert row.runs == sum(k in each for each in keys)
        assert table.by_chance.iloc[0] == pytest.approx(sum(map(len, keys)) / 15)

    def test_runs_that_learned_nothing_have_a_table_too(self, tmp_path):
        tiny = gi.Recipe(p=7, d_model=8, d_head=4, d_mlp=16, steps=20, checkpoints=(0, 20))
        runs = [gi.train(tiny.replace(seed=i), tmp_path / str(i), progress=False) for i in (0, 1)]
        some = gi.compare(runs)
        table = some.table().set_index("measure")
        losses = [run.metrics.test_loss.iloc[-1] for run in runs]
        assert table.all_n["test_loss"] == 2
        assert (table.all_min["test_loss"], table.all_max["test_loss"]) == (
            min(losses), max(losses)
        )  # fmt: skip
        assert some.seeds().label.notna().all()
        assert "key_frequencies" in str(some)
