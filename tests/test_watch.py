"""gi.Watch: one's own loop, with weights, metrics and measures every so many steps."""

import hashlib
import itertools
import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.models.transformer import TransformerArchitecture
from tests import clock

P = 7
TASK = gi.ModularTask("add", p=P)
MASK = torch.arange(P * P) % 3 == 0
LOSSES = ["restricted_loss", "excluded_loss", "restricted_loss_heldout"]


def model(seed, **changes):
    architecture = TransformerArchitecture(
        **{
            "n_layers": 1, "n_heads": 2, "d_model": 16, "d_head": 8, "d_mlp": 32,
            "d_vocab": P + 1, "d_vocab_out": P, "n_ctx": 3,
        } | changes
    )  # fmt: skip
    return architecture.hooked(architecture.initial(seed=seed))


class Net(torch.nn.Module):
    """A module of one's own, with dropout."""

    def __init__(self):
        super().__init__()
        self.table, self.drop = torch.nn.Embedding(P + 1, 8), torch.nn.Dropout(0.5)
        self.out = torch.nn.Linear(24, P)

    def forward(self, tokens):
        return self.out(self.drop(self.table(tokens).flatten(1)))


def watch(out, **changes):
    given = {"task": TASK, "train_mask": MASK, "every": 10, "measures": ["sum_sq_weights"]}
    return gi.Watch(out, **given | changes)


def squares(net):
    return sum(float(x.detach().double().square().sum()) for x in net.parameters())


@pytest.fixture
def begun(tmp_path):
    with watch(tmp_path / "run") as first:
        for step in range(25):
            first(step, model(step))
    return tmp_path / "run"


def rewritten(out, changes):
    path = out / "run.json"
    content = {k: v for k, v in json.loads(path.read_text()).items() if k != "checksum"} | changes
    text = json.dumps(content, sort_keys=True)
    content["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))


class TestWatching:
    def test_a_row_a_checkpoint(self, begun):
        run = gi.load(begun)
        run.verify()
        assert run.finished
        assert run.steps == (0, 10, 20)
        assert run.metrics["step"].tolist() == [0, 10, 20]
        assert run.measures.columns.tolist() == ["step", "sum_sq_weights"]
        assert run.measures["step"].dtype == "int64"
        expected = [squares(model(step)) for step in run.steps]
        assert run.measures["sum_sq_weights"].tolist() == pytest.approx(expected, rel=1e-6)
        for step in run.steps:
            assert torch.equal(run.model(step)(TASK.tokens), model(step)(TASK.tokens))

    def test_the_numbers_are_those_of_the_run(self, tmp_path):
        """Of the default measures, by the key frequencies of the only checkpoint."""
        p, keys = 31, (2, 5, 13)
        architecture = clock.clock_architecture(p, 3)
        task = gi.ModularTask("add", p)
        mask = torch.rand(p * p, generator=torch.Generator().manual_seed(0)) < 0.4
        exact = architecture.hooked(clock.clock_weights(p, keys, 10.0))
        with gi.Watch(tmp_path / "run", task=task, train_mask=mask) as watching:
            watching(0, exact)
        found = gi.load(tmp_path / "run").measures
        assert found.columns.tolist() == ["step", *LOSSES, "sum_sq_weights", "gini_embedding"]
        expected = gi.progress_measures(tmp_path / "run")
        assert expected.attrs["frequencies"] == list(keys)
        pd.testing.assert_frame_equal(found, expected[found.columns])
        with gi.Watch(
            tmp_path / "given", task=task, train_mask=mask, frequencies=[5, 2],
            measures=["excluded_loss_each", "restricted_loss"],
        ) as watching:  # fmt: skip
            watching.save(3, exact)
        row = watching.close().measures
        assert row.columns.tolist() == [
            "step", "excluded_loss_k2", "excluded_loss_k5", "restricted_loss"
        ]  # fmt: skip
        assert row["restricted_loss"].item() == pytest.approx(
            gi.progress.restricted_loss(watching.close().snapshot(), [2, 5]), rel=1e-9
        )

    def test_without_key_frequencies_cells_are_empty(self, tmp_path):
        with watch(tmp_path / "run", measures=None) as watching:
            watching(0, model(0))
        found = gi.load(tmp_path / "run").measures
        assert found[LOSSES].isna().all(axis=None)
        assert found[["sum_sq_weights", "gini_embedding"]].notna().all(axis=None)

    def test_a_call_returns_metrics_where_it_saves(self, tmp_path):
        watching = watch(tmp_path / "run")
        assert watching(7, model(0)) is None
        assert watching(np.int64(9), model(0)) is None
        assert not (tmp_path / "run").exists()
        assert set(watching(torch.tensor(10), model(0))) >= {"train_loss", "test_acc"}
        assert watching(10, model(1)) is None  # it is saved, as in a loop over several batches
        watching.log(15, model(15))
        assert watching.save(17, model(17), metrics={"train_loss": 0.5})["train_loss"] == 0.5
        run = watching.close()
        assert run.steps == (10, 17)
        assert run.metrics["step"].tolist() == [10, 15, 17]
        assert run.measures["step"].tolist() == [10, 17]
        with pytest.raises(gi.InputError, match="step=10 does not come after step 17"):
            watching(10, model(0))
        for wrong in (0.5, "10", None, -3, -10, True):
            with pytest.raises(gi.InputError, match="step="):
                watching(wrong, model(0))

    def test_a_step_that_is_not_watched_costs_nothing(self, tmp_path):
        watching, net, fastest = watch(tmp_path / "run", every=10**6), model(0), 1.0
        for _ in range(5):
            start = time.perf_counter()
            for step in range(1, 2001):
                watching(step, net)
            fastest = min(fastest, (time.perf_counter() - start) / 2000)
        assert fastest < 20e-6

    def test_no_measures(self, tmp_path):
        with watch(tmp_path / "run", measures=()) as watching:
            watching(0, model(0))
        assert gi.load(tmp_path / "run").measures is None
        assert not (tmp_path / "run/measures.csv").exists()
        assert "measures" not in json.loads((tmp_path / "run/run.json").read_text())

    def test_other_tasks_have_the_defaults_that_they_can(self, tmp_path):
        task = gi.IsingTask(lattice=4, n_train=12, n_test=8, n_temperatures=10, n_repeats=2)
        recipe = gi.Recipe(
            task="ising", lattice=4, n_temperatures=10, n_repeats=2, n_train=12, n_test=8,
            model="cnn",
        )  # fmt: skip
        architecture = recipe.architecture()
        net = architecture.hooked(architecture.initial(seed=0))
        with gi.Watch(tmp_path / "run", task=task, measures=["observables"]) as watching:
            watching(0, net)
        assert len(gi.load(tmp_path / "run").measures.columns) == 4
        with gi.Watch(tmp_path / "defaults", task=task) as watching:
            watching(0, net)
        found = gi.load(tmp_path / "defaults").measures
        assert found["sum_sq_weights"].notna().all()
        assert "restricted_loss_heldout" not in found


class TestTheModelIsLeftAlone:
    def test_mode_hooks_gradients_and_random_numbers(self, tmp_path, forgotten):
        @gi.register.measure("drawn", default=False)
        def drawn(snapshot):
            return float(torch.rand(())) + np.random.rand()

        net, seen = Net(), []
        net.table.eval()
        net.out.register_forward_hook(lambda *_: seen.append(1))
        torch.nn.functional.cross_entropy(net(TASK.tokens), TASK.labels).backward()
        state = {name: x.clone() for name, x in net.state_dict().items()}
        gradients = [x.grad.clone() for x in net.parameters()]
        modes = [part.training for part in net.modules()]
        hooks = dict(net.out._forward_hooks)

        def draws():
            return [torch.rand(3).tolist(), np.random.rand()]  # `random` is drawn by type checks

        def seed():
            torch.manual_seed(0)
            np.random.seed(0)

        seed()
        expected = draws()
        seed()
        with watch(tmp_path / "run", measures=["sum_sq_weights", "drawn"]) as watching:
            watching(0, net)
        assert draws() == expected
        assert [part.training for part in net.modules()] == modes
        assert net.out._forward_hooks == hooks
        assert all(map(torch.equal, (x.grad for x in net.parameters()), gradients))
        assert all(torch.equal(state[name], x) for name, x in net.state_dict().items())

    def test_training_ends_in_the_same_bits(self, tmp_path):
        def trained(watching):
            torch.manual_seed(0)
            net = Net()
            optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
            for step in range(21):
                watching(step, net)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(TASK.tokens), TASK.labels).backward()
                optimizer.step()
            return net.state_dict()

        with watch(tmp_path / "run", measures=None) as watching:
            watched = trained(watching)
        alone = trained(lambda step, net: None)
        assert all(torch.equal(alone[name], x) for name, x in watched.items())


@pytest.fixture
def forgotten():
    """Measures that a test registers are not there for the next one."""
    before = set(gi.progress.MEASURES)
    yield
    for name in set(gi.progress.MEASURES) - before:
        del gi.progress.MEASURES[name]


class TestGoingOn:
    def test_it_is_the_run_that_one_watch_would_have_written(self, begun, tmp_path):
        with watch(begun, resume=True) as second:
            assert second.last_step == 20
            for step in range(second.last_step, 45):
                second(step, model(step))
        with watch(tmp_path / "whole") as whole:
            for step in range(45):
                whole(step, model(step))
        for path in (tmp_path / "whole").rglob("*"):
            if path.is_file():
                there = begun / path.relative_to(tmp_path / "whole")
                assert path.read_bytes() == there.read_bytes(), path

    def test_a_trainer_that_resumes_from_an_older_checkpoint_passes_what_is_there(self, begun):
        there = gi.load(begun).weights(20)
        with watch(begun, resume=True) as second:
            for step in range(10, 31):
                second(step, model(step + 1))
        run = gi.load(begun)
        assert run.steps == (0, 10, 20, 30)
        assert all(torch.equal(x, there[name]) for name, x in run.weights(20).items())

    def test_what_a_kill_leaves_is_forgotten(self, begun):
        """measures.csv with a row whose checkpoint run.json does not name yet."""
        rewritten(begun, {"finished": False})
        with (begun / "measures.csv").open("a") as file:
            file.write("30,1.0\n")
        run = gi.load(begun)
        run.verify()
        assert run.measures["step"].tolist() == [0, 10, 20]
        with watch(begun, resume=True) as second:
            second(30, model(30))
        assert gi.load(begun).measures["step"].tolist() == [0, 10, 20, 30]
        assert gi.load(begun).measures["sum_sq_weights"].iloc[-1] != 1.0

    def test_a_loop_that_is_killed_leaves_a_run(self, tmp_path):
        code = f"""
import os, torch, grokinterp as gi
task = gi.ModularTask("add", p={P})
net = torch.nn.Sequential(torch.nn.Embedding({P + 1}, 8), torch.nn.Flatten(), torch.nn.Linear(24, {P}))
with gi.Watch({str(tmp_path / "run")!r}, task=task, every=10, measures=["sum_sq_weights"]) as watching:
    for step in range(100):
        watching(step, net)
        if step == 35:
            os.kill(os.getpid(), 9)
"""  # noqa: E501
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
        run = gi.load(tmp_path / "run")
        run.verify()
        assert not run.finished
        assert run.measures["step"].tolist() == [0, 10, 20, 30]
        with watch(tmp_path / "run", train_mask=None, resume=True) as second:
            second(40, torch.nn.Sequential(
                torch.nn.Embedding(P + 1, 8), torch.nn.Flatten(), torch.nn.Linear(24, P)
            ))  # fmt: skip
        assert gi.load(tmp_path / "run").measures["step"].tolist() == [0, 10, 20, 30, 40]

    def test_other_measures_are_refused(self, begun):
        before = (begun / "run.json").read_bytes()
        for others in (None, [], ["sum_sq_each"], ["sum_sq_weights", "gini_embedding"]):
            with pytest.raises(
                gi.InputError, match="begun with the measures 'sum_sq_weights', and measures="
            ):
                watch(begun, resume=True, measures=others)
        assert (begun / "run.json").read_bytes() == before

    def test_a_recorder_keeps_the_rows_and_a_watch_begins_them(self, begun, tmp_path):
        with gi.Recorder(begun, task=TASK, train_mask=MASK, resume=True) as plain:
            plain.save(30, model(30))
        with watch(begun, resume=True) as second:
            second(40, model(40))
        run = gi.load(begun)
        assert run.steps == (0, 10, 20, 30, 40)
        assert run.measures["step"].tolist() == [0, 10, 20, 40]
        with gi.Recorder(tmp_path / "plain", task=TASK, train_mask=MASK) as plain:
            plain.save(0, model(0))
        assert gi.load(tmp_path / "plain").measures is None
        with watch(tmp_path / "plain", resume=True) as second:
            second(10, model(10))
        assert gi.load(tmp_path / "plain").measures["step"].tolist() == [10]

    def test_a_flipped_byte_is_found(self, begun):
        path = begun / "measures.csv"
        path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
        with pytest.raises(gi.InputError, match=r"measures\.csv is damaged"):
            gi.load(begun).verify()
        path.unlink()
        with pytest.raises(gi.InputError, match=r"measures\.csv is missing"):
            watch(begun, resume=True)

    def test_a_run_json_with_odd_measures_is_damaged(self, begun):
        known = json.loads((begun / "run.json").read_text())["measures"]
        for odd in (5, {}, known | {"names": "abc"}, known | {"bytes": None}, {"names": [1]}):
            rewritten(begun, {"measures": odd})
            with pytest.raises(gi.InputError, match=r"run\.json is damaged"):
                gi.load(begun)

    def test_the_format_stays_that_of_0_2_0(self, begun):
        assert json.loads((begun / "run.json").read_text())["format"] == 1


REFUSED = {
    "no measure": ({"measures": ["restricted_los"]}, "did you mean 'restricted_loss'"),
    "one of runs": ({"measures": ["compressibility"]}, "is no measure of a snapshot"),
    "one twice": ({"measures": ["sum_sq_each"] * 2}, "asked for twice"),
    "a text": ({"measures": "restricted_loss"}, "measures='restricted_loss' is not a list"),
    "one of other tasks": ({"measures": ["observables"]}, "'observables' has no meaning for"),
    "columns that change": ({"measures": ["excluded_loss_each"]}, "give frequencies="),
    "never": ({"every": 0}, "every=0 is not a whole number from 1"),
    "true": ({"every": True}, "every=True is not a whole number"),
    "no such frequency": ({"frequencies": [4]}, "frequency=4 is not a whole number from 1 to 3"),
}


class TestRefusals:
    @pytest.mark.parametrize("case", REFUSED)
    def test_when_it_is_made(self, case, tmp_path):
        given, message = REFUSED[case]
        with pytest.raises(gi.InputError, match=message) as error:
            watch(tmp_path / "run", **given)
        assert len(str(error.value)) <= 400
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()

    def test_frequencies_without_fourier_directions(self, tmp_path):
        task = gi.IsingTask(lattice=4, n_train=12, n_test=8, n_temperatures=10, n_repeats=2)
        with pytest.raises(gi.InputError, match="no Fourier directions; leave it out"):
            gi.Watch(tmp_path / "run", task=task, frequencies=[1])

    def test_a_measure_that_fails_writes_nothing(self, tmp_path, forgotten):
        behaviour = {"columns": {"a": 1.0}}

        @gi.register.measure("odd", prefix="odd_", default=False)
        def odd(snapshot):
            if behaviour["columns"] is None:
                raise RuntimeError("no such luck")
            return behaviour["columns"]

        with watch(tmp_path / "run", measures=["odd"]) as watching:
            behaviour["columns"] = None
            with pytest.raises(gi.InputError, match="'odd' raised RuntimeError at step 0"):
                watching(0, model(0))
            assert not (tmp_path / "run").exists()
            behaviour["columns"] = {"a,b": 1.0}
            with pytest.raises(gi.InputError, match="cannot stand in a CSV"):
                watching(0, model(0))
            behaviour["columns"] = {"a": 1.0, "b": 2.0}
            watching(0, model(0))
            behaviour["columns"] = {"a": 1.0, "c": 2.0}
            with pytest.raises(gi.InputError, match=r"step 10 have .*'odd_c'.* has 'odd_a', "):
                watching(10, model(10))
            behaviour["columns"] = {"a": float("inf")}
            watching(10, model(10))
        run = gi.load(tmp_path / "run")
        assert run.measures.iloc[0].tolist() == [0, 1, 2]
        assert run.measures.iloc[1].tolist()[:2] == [10, float("inf")]
        assert np.isnan(run.measures["odd_b"].iloc[1])

    def test_a_folder_that_holds_a_run(self, begun):
        with pytest.raises(gi.InputError, match="already holds a run"):
            watch(begun)(0, model(0))


class TestLoopsOfOthers:
    def test_the_callback_of_transformers(self, tmp_path):
        """As the Trainer calls it, with its own state; several batches may make one update."""
        from transformers import TrainerCallback, TrainerControl, TrainerState

        net = Net()
        with watch(tmp_path / "run", every=2) as watching:

            class Watching(TrainerCallback):
                def on_step_end(self, args, state, control, model=None, **kwargs):
                    watching(state.global_step, model)

                on_train_begin = on_step_end

            callback, state, control = Watching(), TrainerState(), TrainerControl()
            callback.on_train_begin(None, state, control, model=net)
            for update in range(5):
                with torch.no_grad():
                    net.out.bias += 1
                state.global_step = update + 1
                callback.on_step_end(None, state, control, model=net, train_dataloader=None)
        run = gi.load(tmp_path / "run")
        assert run.steps == (0, 2, 4)
        bias = [run.weights(step)["out.bias"] for step in run.steps]
        for before, after in itertools.pairwise(bias):
            torch.testing.assert_close(after - before, torch.full((P,), 2.0))

    def test_the_line_of_lightning(self, tmp_path):
        """LambdaCallback calls with (trainer, module), and (trainer, module, outputs, batch, i)."""

        class Trainer:
            global_step = 0

        class Module:
            net = Net()

        with watch(tmp_path / "run", every=2) as watching:
            at = lambda trainer, module, *_: watching(trainer.global_step, module.net)  # noqa: E731
            at(Trainer, Module)
            for i in range(9):
                Trainer.global_step = (i + 1) // 2  # two batches an update
                at(Trainer, Module, {}, [], i)
        assert gi.load(tmp_path / "run").steps == (0, 2, 4)


class TestWhatMeasuresAndLoopsDo:
    def test_a_measure_that_changes_weights_changes_nothing_that_is_saved(self, tmp_path):
        @gi.register.measure("zeroes", default=False)
        def zeroes(snapshot):
            for weight in snapshot.weights.values():
                weight.zero_()
            return 1.0

        try:
            wanted = model(0)
            with gi.Recorder(tmp_path / "plain", task=TASK, train_mask=MASK) as plain:
                expected = plain.save(0, wanted)
            with watch(tmp_path / "run", measures=["zeroes"]) as other:
                assert other(0, model(0)) == expected
            saved = gi.load(tmp_path / "run").weights(0)
            for name, weight in gi.load(tmp_path / "plain").weights(0).items():
                assert torch.equal(saved[name], weight)
        finally:
            del gi.progress.MEASURES["zeroes"]

    def test_autocast_of_the_loop_does_not_change_metrics(self, tmp_path):
        with watch(tmp_path / "run", measures=LOSSES[:1], frequencies=[1]) as plain:
            expected = plain(0, model(0))
        with (
            watch(tmp_path / "other", measures=LOSSES[:1], frequencies=[1]) as other,
            torch.autocast("cpu", dtype=torch.bfloat16),
        ):
            assert other(0, model(0)) == expected
        one, two = (gi.load(tmp_path / name).measures for name in ("run", "other"))
        pd.testing.assert_frame_equal(one, two)

    def test_other_frequencies_are_refused(self, tmp_path):
        given = {"measures": ["restricted_loss"], "frequencies": [1, 2]}
        with watch(tmp_path / "run", **given) as first:
            first(0, model(0))
        for other in ([1, 3], None):
            with pytest.raises(gi.InputError, match=r"begun with frequencies=\[1, 2\]"):
                watch(tmp_path / "run", resume=True, **given | {"frequencies": other})
        with watch(tmp_path / "run", resume=True, **given) as second:
            second(10, model(1))
        assert second.close().measures["step"].tolist() == [0, 10]

    @pytest.mark.parametrize("separator", list("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))
    def test_columns_with_line_separators_are_refused_at_once(self, separator, tmp_path):
        gi.register.measure("parted", prefix=f"a{separator}b", default=False)(lambda snapshot: {})
        try:
            with pytest.raises(gi.InputError, match="cannot stand in a CSV"):
                watch(tmp_path / "run", measures=["parted"])
        finally:
            del gi.progress.MEASURES["parted"]
