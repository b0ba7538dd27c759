"""The columns test_loss_unmirrored and test_acc_unmirrored of metrics.csv, and runs without."""

import hashlib
import json
import math
import shutil
import signal

import pandas as pd
import pytest
import safetensors.torch
import torch

import grokinterp as gi
from grokinterp.training import train_ensemble, verify
from tests.foreign import trainer_folder

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

FOUR = ["train_loss", "test_loss", "train_acc", "test_acc"]
TWO = ["test_loss_unmirrored", "test_acc_unmirrored"]

SMALL = gi.Recipe(
    p=7, d_model=16, n_heads=2, d_head=8, d_mlp=32, steps=60, checkpoints="every:20",
    train_fraction=0.5, lr=1e-2, threads=1,
)  # fmt: skip
MLP = gi.Recipe(
    model="mlp", p=7, d_mlp=24, steps=60, checkpoints="every:20", train_fraction=0.5, lr=1e-2,
    threads=1,
)  # fmt: skip
OTHERS = {
    "subtract": SMALL.replace(operation="subtract"),
    "ising": gi.Recipe(
        task="ising", lattice=4, n_temperatures=3, n_repeats=20, n_train=12, n_test=9, sweeps=3,
        d_mlp=8, steps=20, checkpoints="every:20", threads=1,
    ),
}  # fmt: skip


def by_hand(model, task, trained):
    """All six, pair by pair, from the definition: `trained` are the pairs (a, b) trained on."""
    with torch.no_grad():
        logits = model(task.tokens)
    logits = (logits[:, -1] if logits.ndim == 3 else logits).double()
    losses, rights = {}, {}
    for row, (a, b) in enumerate(task.operands.tolist()):
        answer = int(task.labels[row])
        losses[a, b] = float(-torch.log_softmax(logits[row], 0)[answer])
        rights[a, b] = float(logits[row].argmax() == answer)
    test = [pair for pair in losses if pair not in trained]
    unmirrored = [(a, b) for a, b in test if (b, a) not in trained]
    assert 0 < len(unmirrored) < len(test)

    def mean(values, pairs):
        return sum(values[pair] for pair in pairs) / len(pairs)

    return {
        "train_loss": mean(losses, trained), "train_acc": mean(rights, trained),
        "test_loss": mean(losses, test), "test_acc": mean(rights, test),
        "test_loss_unmirrored": mean(losses, unmirrored),
        "test_acc_unmirrored": mean(rights, unmirrored),
    }  # fmt: skip


def trained_pairs(run):
    return {(row // run.task.p, row % run.task.p) for row in run.train_indices.tolist()}


def header(run):
    return (run.path / "metrics.csv").read_text().splitlines()[0]


def assert_by_hand(run):
    assert header(run) == ",".join(["step", *FOUR, *TWO])
    logged = run.metrics.set_index("step")
    for step in run.steps:
        expected = by_hand(run.model(step), run.task, trained_pairs(run))
        assert logged.loc[step].to_dict() == pytest.approx(expected, rel=1e-5)
    assert not logged.isna().any(axis=None)  # at every logged step, not at checkpoints alone
    assert len(logged) > len(run.steps)


@pytest.mark.parametrize("recipe", [SMALL, SMALL.replace(operation="multiply"), MLP], ids=str)
def test_they_are_what_the_definition_says(recipe, tmp_path):
    run = gi.train(recipe, tmp_path / "run")
    assert_by_hand(run)
    assert (run.metrics.test_acc_unmirrored != run.metrics.test_acc).any()


@pytest.mark.parametrize("recipe", [SMALL, MLP], ids=["transformer", "mlp"])
def test_members_of_an_ensemble_have_their_own(recipe, tmp_path):
    recipes = [recipe.replace(seed=seed, data_seed=seed) for seed in range(3)]
    runs = train_ensemble(recipes, tmp_path / "all")
    for run in runs:
        assert_by_hand(run)
    counts = set()
    for run in runs:
        trained = trained_pairs(run)
        counts.add(sum(not {(a, b), (b, a)} & trained for a, b in run.task.operands.tolist()))
    assert len(counts) > 1  # of unmirrored pairs


@pytest.mark.parametrize("name", OTHERS)
def test_tasks_without_mirrors_have_none(name, tmp_path):
    run = gi.train(OTHERS[name], tmp_path / "run")
    assert header(run) == ",".join(["step", *FOUR])
    assert run.metrics.columns.tolist() == ["step", *FOUR]


@pytest.mark.parametrize("recipe", [SMALL, MLP], ids=["transformer", "mlp"])
def test_where_there_are_no_such_pairs_the_cells_are_empty(recipe, tmp_path):
    """All trained on; and then one pair left out, of which the mirror is trained on."""
    recipe = recipe.replace(steps=20)
    whole = gi.train(recipe.replace(train_fraction=1.0), tmp_path / "whole")
    (both,) = train_ensemble([whole.recipe], [tmp_path / "ensemble"])
    for run in (whole, both):
        assert run.metrics[["test_loss", "test_acc", *TWO]].isna().all(axis=None)
        assert run.metrics[["train_loss", "train_acc"]].notna().all(axis=None)
        assert (run.path / "metrics.csv").read_text().splitlines()[1].endswith(",,")
    rows = [row for row in range(49) if row != 1]
    with gi.Recorder(
        tmp_path / "one", task=whole.task, train_indices=torch.tensor(rows)
    ) as recorder:
        recorder.save(0, whole.model())
    one = gi.load(tmp_path / "one").metrics
    assert one[TWO].isna().all(axis=None)
    assert one.test_loss.notna().all()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return gi.train(SMALL.replace(steps=20), tmp_path_factory.mktemp("run") / "run").model()


class TestRecorder:
    mask = torch.arange(49) % 5 == 0

    def recorder(self, path, **changes):
        return gi.Recorder(path, **{"task": SMALL.build_task(), "train_mask": self.mask} | changes)

    def test_they_are_evaluated(self, model, tmp_path):
        with self.recorder(tmp_path / "mine") as recorder:
            saved = recorder.save(0, model)
            logged = recorder.log(5, model)
        run = gi.load(tmp_path / "mine")
        trained = {(row // 7, row % 7) for row in range(0, 49, 5)}
        assert saved == logged == pytest.approx(by_hand(model, run.task, trained), rel=1e-5)
        assert run.metrics.drop(columns="step").to_dict("records") == [saved, logged]

    def test_what_is_given_is_kept_and_the_rest_is_empty(self, model, tmp_path):
        with self.recorder(tmp_path / "mine") as recorder:
            recorder.save(0, model, metrics={"test_loss": 2.0, TWO[0]: torch.tensor(3.0)})
            recorder.log(1, model, metrics={TWO[1]: 0.25})
        metrics = gi.load(tmp_path / "mine").metrics
        assert metrics[TWO[0]].tolist()[:1] == [3.0]
        assert math.isnan(metrics[TWO[0]][1])
        assert math.isnan(metrics[TWO[1]][0])
        assert metrics[TWO[1]][1] == 0.25
        with pytest.raises(
            gi.InputError, match=r"test_acc_unmirrored=a Tensor of shape .* is not a number"
        ):
            self.recorder(tmp_path / "other").log(0, model, metrics={TWO[1]: torch.zeros(2)})

    @pytest.mark.parametrize(
        "changes",
        [{"train_mask": None}, {"task": SMALL.replace(operation="subtract").build_task()}],
        ids=["no split", "no mirrors"],
    )
    def test_without_a_split_or_mirrors_there_are_none(self, changes, model, tmp_path):
        given = dict.fromkeys([*FOUR, *TWO], 0.5)
        with self.recorder(tmp_path / "mine", **changes) as recorder:
            assert list(recorder.save(0, model)) == FOUR
            assert list(recorder.log(1, model, metrics=given)) == FOUR
        run = gi.load(tmp_path / "mine")
        assert header(run) == ",".join(["step", *FOUR])
        assert run.metrics.iloc[1].to_dict() == {"step": 1, **dict.fromkeys(FOUR, 0.5)}


class TestForeign:
    """Checkpoints of others, at which the columns are computed."""

    def test_with_a_split_they_are_at_the_checkpoints(self, tiny_run, tmp_path):
        source = trainer_folder(tiny_run, tmp_path / "theirs")
        seen = gi.load(source)
        assert torch.equal(seen.train_mask, tiny_run.train_mask)
        imported = gi.import_run(source, tmp_path / "imported")
        assert header(imported) == ",".join(["step", *FOUR, *TWO])
        pd.testing.assert_frame_equal(imported.metrics, seen.metrics)
        found = imported.metrics.set_index("step")[TWO]
        assert found.dropna().index.tolist() == list(tiny_run.steps)
        assert len(found) > len(tiny_run.steps)
        ours = tiny_run.metrics.set_index("step").loc[list(tiny_run.steps), TWO]
        pd.testing.assert_frame_equal(found.dropna(), ours, rtol=1e-5)
        imported.verify()

    def test_without_one_there_are_none(self, tiny_run, tmp_path):
        safetensors.torch.save_file(tiny_run.weights(), tmp_path / "weights.safetensors")
        imported = gi.import_run(tmp_path / "weights.safetensors", tmp_path / "imported")
        assert imported.train_mask is None
        assert header(imported) == ",".join(["step", *FOUR])
        assert gi.load(tmp_path / "weights.safetensors").metrics.columns.tolist() == ["step", *FOUR]

    def test_of_an_operation_without_mirrors_there_are_none(self, tmp_path):
        run = gi.train(OTHERS["subtract"], tmp_path / "run")
        torch.save(run.train_indices, tmp_path / "rows.pt")
        safetensors.torch.save_file(run.weights(), tmp_path / "weights.safetensors")
        seen = gi.load(
            tmp_path / "weights.safetensors", operation="subtract", step=60,
            train_indices=str(tmp_path / "rows.pt"),
        )  # fmt: skip
        assert seen.train_mask is not None
        assert seen.metrics.columns.tolist() == ["step", *FOUR]
        assert seen.metrics.notna().all(axis=None)


def rewritten(folder, lines):
    """The folder with other lines of metrics.csv, and a run.json that goes with them."""
    text = "".join(line + "\n" for line in lines).encode()
    (folder / "metrics.csv").write_bytes(text)
    content = json.loads((folder / "run.json").read_text())
    del content["checksum"]
    content["metrics"] = {"rows": len(lines) - 1, "bytes": len(text)}
    content["sha256"]["metrics.csv"] = hashlib.sha256(text).hexdigest()
    plain = json.dumps(content, sort_keys=True).encode()
    content["checksum"] = hashlib.sha256(plain).hexdigest()
    (folder / "run.json").write_text(json.dumps(content, indent=1) + "\n")
    return folder


def of_020(folder):
    """The same folder as 0.2.0 would have written it: without the two columns."""
    lines = (folder / "metrics.csv").read_text().splitlines()
    return rewritten(folder, [",".join(line.split(",")[:5]) for line in lines])


class TestFoldersOf020:
    @pytest.fixture
    def old(self, tiny_run, tmp_path):
        return gi.load(of_020(shutil.copytree(tiny_run.path, tmp_path / "old")))

    def test_they_are_read_as_they_are(self, old, tiny_run, run):
        old.verify()
        assert old.metrics.columns.tolist() == ["step", *FOUR]
        pd.testing.assert_frame_equal(old.metrics, tiny_run.metrics[["step", *FOUR]])
        assert json.loads((old.path / "run.json").read_text())["format"] == 1
        assert json.loads((tiny_run.path / "run.json").read_text())["format"] == 1
        assert run("info", old.path)[0] == 0
        assert gi.detect_phases(old).label

    def test_verify_compares_the_columns_of_both(self, old, tiny_run, tmp_path):
        found = verify(old)
        assert (found.same_bits, list(found.metrics)) == (True, list(range(0, 61, 10)))
        lines = (tiny_run.path / "metrics.csv").read_text().splitlines()
        *cells, last = lines[2].split(",")
        lines[2] = ",".join([*cells, repr(float(last) / 2 + 0.1)])
        other = rewritten(shutil.copytree(tiny_run.path, tmp_path / "other"), lines)
        found = verify(gi.load(other), steps=20)
        assert [step for step, off in found.metrics.items() if off] == [10]

    @pytest.mark.parametrize("recipe", [SMALL, MLP], ids=["transformer", "mlp"])
    @pytest.mark.parametrize("together", [False, True], ids=["single", "ensemble"])
    def test_an_unfinished_one_goes_on_with_four(self, together, recipe, tmp_path, monkeypatch):
        """And ends with the bits of an unbroken run, as one that was begun with six does."""
        recipes = [recipe.replace(seed=seed, data_seed=seed) for seed in range(1 + together)]

        def train(place, **options):
            outs = [tmp_path / f"{place}{each.seed}" for each in recipes]
            if together:
                return train_ensemble(recipes, outs, **options)
            return [gi.train(recipes[0], outs[0], **options)]

        unbroken = train("unbroken")
        with monkeypatch.context() as patch:
            stop_at(patch, 45)
            with pytest.raises(gi.Interrupted):
                train("broken")
        for each in recipes:
            broken = tmp_path / f"broken{each.seed}"
            of_020(shutil.copytree(broken, tmp_path / f"old{each.seed}"))
        resumed, old = (train(place, resume=True) for place in ("broken", "old"))
        for one, six, four in zip(unbroken, resumed, old, strict=True):
            whole = (one.path / "metrics.csv").read_text()
            assert (six.path / "metrics.csv").read_text() == whole
            expected = "".join(",".join(x.split(",")[:5]) + "\n" for x in whole.splitlines())
            assert (four.path / "metrics.csv").read_text() == expected
            for run in (six, four):
                run.verify()
                assert run.finished
                assert run.steps == one.steps
                for step in one.steps:
                    for name, weight in one.weights(step).items():
                        assert torch.equal(run.weights(step)[name], weight)


class TestFurtherColumns:
    """A later version may write more of them."""

    @pytest.fixture
    def lines(self, tiny_run):
        first, *rows = (tiny_run.path / "metrics.csv").read_text().splitlines()
        return [f"{first},test_loss_far", *(f"{row},{i / 7!r}" for i, row in enumerate(rows))]

    def test_they_are_read_and_kept(self, lines, tiny_run, tmp_path, run):
        folder = rewritten(shutil.copytree(tiny_run.path, tmp_path / "later"), lines)
        later = gi.load(folder)
        later.verify()
        assert later.metrics.test_loss_far.tolist() == [i / 7 for i in range(7)]
        pd.testing.assert_frame_equal(later.metrics.drop(columns="test_loss_far"), tiny_run.metrics)
        assert verify(later).same_bits
        assert gi.detect_phases(later) == gi.detect_phases(tiny_run)
        assert json.loads(run("info", folder, "--json")[1])["last"]["test_loss_far"] == 6 / 7

    def test_text_in_one_is_damage(self, lines, tiny_run, tmp_path):
        lines[2] = lines[2].rpartition(",")[0] + ",much"
        folder = rewritten(shutil.copytree(tiny_run.path, tmp_path / "later"), lines)
        with pytest.raises(gi.InputError, match=r"metrics\.csv is damaged"):
            gi.load(folder).verify()

    def test_one_that_is_not_known_stays_empty_from_there_on(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            stop_at(patch, 45)
            with pytest.raises(gi.Interrupted):
                gi.train(SMALL, tmp_path / "run")
        first, *rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
        lines = [f"{first},test_loss_far", *(f"{row},1.5" for row in rows)]
        rewritten(tmp_path / "run", lines)
        metrics = gi.train(SMALL, tmp_path / "run", resume=True).metrics
        assert metrics.test_loss_far.fillna(-1).tolist() == [1.5] * 5 + [-1] * 2
        assert metrics[TWO].notna().all(axis=None)


def stop_at(patch, step):
    """Ctrl-C in every training once it has come to a step."""
    from grokinterp.training import loop

    update = loop.Session.update

    def stopping(self):
        update(self)
        if self.step == step:
            signal.raise_signal(signal.SIGINT)

    patch.setattr(loop.Session, "update", stopping)


def test_what_people_see(run, tmp_path):
    settings = ["--set", "steps=20"]
    status, out, _ = run("train", "mod11-quick", "--out", tmp_path / "run", *settings)
    last = gi.load(tmp_path / "run").metrics.iloc[-1]
    assert status == 0
    told = f"test accuracy {last.test_acc:.4f} ({last.test_acc_unmirrored:.4f} on unmirrored pairs)"
    assert told in out
    settings += ["--set", "operation=subtract"]
    _, out, _ = run("train", "mod11-quick", "--out", tmp_path / "other", *settings)
    assert "unmirrored" not in out
    _, out, _ = run("info", tmp_path / "run")
    shown = [line.split() for line in out.splitlines()]
    assert ["test_acc_unmirrored", str(last.test_acc_unmirrored)] in shown
    facts = json.loads(run("info", tmp_path / "run", "--json")[1])
    assert facts["last"] == last.to_dict()
