import json
import math
import shutil

import pytest
import torch

import grokinterp as gi
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.runs import manifest
from grokinterp.runs.manifest import Manifest
from grokinterp.training import learner, loop, verification, verify

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

SHIPPED_FACTS = {"threads", "cpu", "cpu_capability", "device"}


@pytest.fixture
def elsewhere(monkeypatch):
    """What is trained from now on was trained on another machine."""

    def move(**facts):
        here = manifest.current_environment

        def other(**asked):
            return {**here(**asked), **facts}

        monkeypatch.setattr(loop, "current_environment", other)

    return move


def stopped_at(step, recipe, folder, monkeypatch, *, resume=False):
    """Train until a step and stop there."""
    update = loop.Session.update

    def stopping(session):
        update(session)
        if session.step == step:
            loop.signal.raise_signal(loop.signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Session, "update", stopping)
        with pytest.raises(gi.Interrupted):
            gi.train(recipe, folder, resume=resume)


def test_a_run_says_on_what_it_was_trained(tiny, tmp_path):
    before = torch.get_num_threads()
    run = gi.train(tiny.replace(steps=2, threads=before + 1), tmp_path / "run")
    there = run.manifest.environment
    assert set(there) == SHIPPED_FACTS
    assert there["threads"] == before + 1  # what was used, not what is set otherwise
    assert there["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert all(there.values())
    assert run.manifest.differs() == ()
    assert run.manifest.later == []


def test_what_went_on_elsewhere_is_noted_with_its_step(tiny, tmp_path, monkeypatch, elsewhere):
    folder = tmp_path / "run"
    stopped_at(20, tiny, folder, monkeypatch)
    stopped_at(30, tiny, folder, monkeypatch, resume=True)  # here again: nothing to note
    assert Manifest.read(folder).later == []
    elsewhere(cpu="Another", threads=7)
    stopped_at(40, tiny, folder, monkeypatch, resume=True)
    elsewhere(cpu="A third")
    run = gi.train(tiny, folder, resume=True)
    assert [entry["from_step"] for entry in run.manifest.later] == [30, 40]
    assert [entry["environment"]["cpu"] for entry in run.manifest.later] == ["Another", "A third"]
    here = manifest.current_environment()
    assert run.manifest.environment == here
    told = run.manifest.differs()
    assert f"cpu Another there, {here['cpu']} here (from step 30 on)" in told
    assert run.manifest.differs(before=30) == ()
    assert "from step 30 on in another environment: threads" in run.manifest.changes()[0]


def test_what_was_begun_elsewhere_but_not_trained_there_is_forgotten(
    tiny, tmp_path, monkeypatch, elsewhere
):
    stopped_at(20, tiny, tmp_path / "run", monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Session, "update", lambda session: 1 / 0)
        patch.setattr(loop, "current_environment", lambda **_: {"cpu": "Another"})
        with pytest.raises(ZeroDivisionError):
            gi.train(tiny, tmp_path / "run", resume=True)
    assert gi.train(tiny, tmp_path / "run", resume=True).manifest.later == []


def test_runs_without_an_environment_are_read_and_trained_on(tiny, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    stopped_at(20, tiny, folder, monkeypatch)
    content = json.loads((folder / "run.json").read_text())
    del content["environment"], content["checksum"]
    content["checksum"] = manifest._checksum(content)
    (folder / "run.json").write_text(json.dumps(content))
    assert gi.load(folder).manifest.environment is None
    run = gi.train(tiny, folder, resume=True)
    assert run.manifest.environment is None
    assert [entry["from_step"] for entry in run.manifest.later] == [20]


@pytest.mark.parametrize("value", [{"environment": 3}, {"later": 3}, {"later": [{}]}])
def test_an_environment_of_another_type_is_damage(value, tiny_run, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    content = json.loads((tmp_path / "run/run.json").read_text())
    content |= value
    del content["checksum"]
    content["checksum"] = manifest._checksum(content)
    (tmp_path / "run/run.json").write_text(json.dumps(content))
    with pytest.raises(gi.InputError, match="damaged"):
        gi.load(tmp_path / "run")


def test_releases_of_a_kernel_and_what_one_side_lacks_do_not_differ():
    there = {"platform": "Linux-6.1.2-generic-x86_64-with-glibc2.36", "kernel": "own"}
    here = {"platform": "Linux-5.4-x86_64-with-glibc2.36"}
    assert manifest.differences(there, here) == ()
    here = {"platform": "Linux-5.4-x86_64-with-glibc2.41", "kernel": "torch"}
    assert len(manifest.differences(there, here)) == 2


def test_info_says_what_differs(run, tiny, tmp_path, elsewhere):
    gi.train(tiny.replace(steps=1), tmp_path / "same")
    status, out, _ = run("info", tmp_path / "same")
    assert (status, "this machine\n  same machine kind\n" in out) == (0, True)
    elsewhere(cpu="Another", kernel="own")
    gi.train(tiny.replace(steps=1), tmp_path / "other")
    _, out, _ = run("info", tmp_path / "other", "--json")
    found = json.loads(out)
    here = manifest.current_environment()
    assert found["differs"] == [f"cpu Another there, {here['cpu']} here"]
    assert found["environment"] == {**here, "cpu": "Another", "kernel": "own"}


class TestVerify:
    def test_what_was_trained_here_is_the_same_to_the_bit(self, tiny_run, run):
        files = {path: path.stat().st_mtime_ns for path in tiny_run.path.rglob("*")}
        found = verify(tiny_run)
        assert (found.same_bits, found.holds, found.first) == (True, True, None)
        assert (found.steps, list(found.weights)) == (60, [0, 20, 40, 60])
        assert list(found.metrics) == list(range(0, 61, 10))
        assert not any({**found.weights, **found.metrics}.values())
        assert found.table().step.tolist() == list(range(0, 61, 10))
        assert list(found.table()) == ["step", "weights", "metrics"]
        status, out, _ = run("verify", tiny_run.path, "--steps", 25)
        assert (status, "same bits" in out) == (0, True)
        assert "first 25 updates trained again, 2 checkpoints and 3 logged" in out
        assert files == {path: path.stat().st_mtime_ns for path in tiny_run.path.rglob("*")}

    @pytest.mark.parametrize("model", ["mlp", "cnn"])
    def test_other_models(self, model, tmp_path):
        sizes = {"task": "ising", "lattice": 4, "n_temperatures": 3, "n_repeats": 20, "n_test": 9}
        sizes |= {"n_train": 12, "sweeps": 3, "d_mlp": 8}
        recipe = gi.Recipe(**(sizes if model == "cnn" else {"model": "mlp", "p": 5, "d_mlp": 8}))
        recipe = recipe.replace(steps=40, checkpoints=[30], batch_size=5)
        found = verify(gi.train(recipe, tmp_path / "run"))
        assert (found.same_bits, found.steps, list(found.weights)) == (True, 40, [0, 30, 40])

    @pytest.mark.slow
    def test_checkpoints_that_start_late_leave_the_logged_steps(self, tiny, tmp_path):
        recipe = tiny.replace(steps=502, checkpoints=[501])
        found = verify(gi.train(recipe, tmp_path / "run"))
        assert (found.steps, list(found.weights), len(found.metrics)) == (100, [0], 11)
        assert found.same_bits

    @pytest.fixture
    def rounded(self, tiny, tmp_path, monkeypatch):
        """A run whose every gradient was rounded otherwise than here."""
        gradients_on = TransformerArchitecture.gradients_on

        def otherwise(*given):
            exact = gradients_on(*given)
            return lambda weights: {
                name: gradient * (1 + 3e-8 * torch.randn_like(gradient))
                for name, gradient in exact(weights).items()
            }

        with monkeypatch.context() as patch:
            patch.setattr(TransformerArchitecture, "gradients_on", otherwise)
            return gi.train(tiny, tmp_path / "rounded")

    def test_rounding_on_another_machine_is_what_was_to_be_expected(
        self, rounded, run, monkeypatch
    ):
        found = verify(rounded)
        assert (found.same_bits, found.within_rounding, found.holds) == (False, True, False)
        assert (found.first, found.weights[0]) == (10, 0)
        assert found.weights[20] > 0
        assert found.weights[60] < 10 * max(found.rounding[0].values())
        assert list(found.table())[3:] == ["weights_rounding", "metrics_rounding"]
        assert "weights (off by one)" in str(found)
        assert "6 of 7 logged steps differ, the first is 10" in str(found)
        status, out, _ = run("verify", rounded.path)
        assert (status, "by all that is recorded the machine is the same" in out) == (3, True)
        monkeypatch.setattr(manifest, "current_environment", lambda **_: {"cpu": "Another"})
        status, out, _ = run("verify", rounded.path)
        assert (status, "within rounding, which the above may explain" in out) == (0, True)
        assert " there, Another here" in out

    def test_another_recipe_is_more_than_rounding_on_any_machine(
        self, tiny, tmp_path, run, monkeypatch, elsewhere
    ):
        elsewhere(cpu="Another")
        with monkeypatch.context() as patch:
            patch.setattr(learner, "rate_share", lambda recipe, update: 1.01 * (update >= 0))
            gi.train(tiny, tmp_path / "run")
        status, out, _ = run("verify", tmp_path / "run", "--json")
        found = json.loads(out)
        assert status == 3
        assert (found["within_rounding"], found["holds"], found["first"]) == (False, False, 10)
        assert found["differs"]
        assert found["weights"]["0"] == 0 < found["weights"]["20"]

    def test_a_run_that_says_no_machine_may_be_of_another(self, rounded, monkeypatch):
        rounded.manifest.environment = None
        found = verify(rounded)
        assert (found.known, found.differs, found.holds) == (False, (), True)

    def test_the_number_of_threads_is_the_recorded_one(self, tiny, tmp_path, monkeypatch):
        stopped_at(20, tiny.replace(threads=1), tmp_path / "run", monkeypatch)
        run = gi.train(tiny.replace(threads=1), tmp_path / "run", resume=True)
        run.manifest.environment["threads"] = 3
        before, used = torch.get_num_threads(), []
        update = loop.Session.update
        monkeypatch.setattr(
            loop.Session,
            "update",
            lambda session: (used.append(torch.get_num_threads()), update(session)),
        )
        found = verify(run, steps=10)
        assert (found.steps, found.differs) == (10, ())  # what is used is what is recorded
        assert set(used) == {3}
        assert torch.get_num_threads() == before

    def test_what_cannot_be_verified_is_refused(self, tiny, tiny_run, tmp_path, run):
        with gi.Recorder(tmp_path / "run", task=tiny.build_task()) as recorder:
            recorder.save(0, tiny_run.model())
        status, _, line = run("verify", tmp_path / "run")
        assert (status, len(line.splitlines())) == (2, 1)
        assert "no recipe: another loop trained it" in line
        with pytest.raises(gi.InputError, match="steps=-1 is not a whole number from 0 on"):
            verify(tiny_run, steps=-1)
        with pytest.raises(gi.InputError, match=r"nothing but the start of .* at least steps=10"):
            verify(tiny_run, steps=9)

    def test_differences_of_numbers(self):
        assert verification._numbers(math.nan, math.nan) == 0
        assert verification._numbers(1.0, math.nan) == math.inf
        assert verification._numbers(2.0, 1.0) == 0.5
        assert verification._norms(torch.tensor([math.nan, 1]), torch.tensor([math.nan, 1])) == 0
        assert verification._norms(torch.tensor([math.nan, 1]), torch.tensor([math.nan, 2])) > 0
        assert verification._norms(torch.zeros(2), torch.ones(2)) == math.inf
        assert verification._norms(torch.ones(4), torch.full((4,), 1.5)) == 0.5
