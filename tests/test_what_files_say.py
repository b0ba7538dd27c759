"""Everything that files say besides weights is used: in them, in each of a folder, beside them."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from tests.foreign import python_split

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

STEPS = (0, 25, 50, 75, 100)


@pytest.fixture(scope="module")
def memorizer(tmp_path_factory):
    """By each published rule, a run of a second that memorises half of 11 * 11 pairs."""
    recipe = gi.Recipe(
        p=11, d_model=32, n_heads=2, d_head=16, d_mlp=64, lr=5e-3, weight_decay=0.1, steps=100,
        checkpoints=STEPS, log_every=1, data_seed=5, train_fraction=60 / 121 + 1e-9,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("memorizer")
    return {
        rule: gi.train(recipe.replace(split=rule), folder / rule) for rule in ("torch", "python")
    }


@pytest.fixture(scope="module")
def ours(memorizer):
    return memorizer["torch"]


def loss_at(run, step, column="train_loss"):
    return float(run.metrics.set_index("step").loc[step, column])


def kept(run, step, **more):
    """A dictionary as training loops save it."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    return {
        "model_state_dict": run.weights(step), "optimizer_state_dict": optimizer.state_dict(),
        "epoch": step, "train_loss": loss_at(run, step),
        "test_loss": loss_at(run, step, "test_loss"),
        "config": {"p": 11, "frac_train": 60 / 121, "data_seed": 5, "model_config": {"n_heads": 2}},
        **more,
    }  # fmt: skip


def folder_of(run, folder, *, name="checkpoint_epoch_{}.pt", change=None):
    folder.mkdir(exist_ok=True)
    for step in run.steps:
        content = kept(run, step)
        torch.save(content if change is None else change(content, step), folder / name.format(step))
    return folder


def has(run, part):
    return any(part in note for note in run.notes)


def refusal(call):
    with pytest.raises(gi.InputError) as error:
        call()
    told = str(error.value)
    assert "\n" not in told
    assert len(told) <= 400
    return told


class TestTheSplitOfAConfiguration:
    @pytest.mark.parametrize("rule", ["torch", "python"])
    @pytest.mark.parametrize(
        ("seed", "size", "value"),
        [
            ("seed", "frac_train", 60 / 121), ("data_seed", "train_fraction", 0.4959),
            ("random_seed", "n_train", 60), ("seed", "train_pct", 49.59),
        ],
    )  # fmt: skip
    def test_is_found_by_the_losses_beside_the_weights(
        self, rule, seed, size, value, memorizer, tmp_path
    ):
        def change(content, step):
            return {**content, "config": {"p": 11, size: value, "training": {seed: 5}}}

        run = gi.load(folder_of(memorizer[rule], tmp_path / "run", change=change))
        assert torch.equal(run.train_indices, memorizer[rule].train_indices)
        assert run.manifest.split["rule"] == rule
        assert has(run, f"split={rule} data_seed=5: verified at step")
        logged = run.metrics.set_index("step")["train_loss"]
        assert logged.index.tolist() == list(STEPS)
        for step in STEPS:
            assert logged[step] == loss_at(memorizer[rule], step)

    def test_the_seed_of_the_split_is_tried_before_the_other_one(self, ours, tmp_path):
        for seeds in ({"seed": 1, "data_seed": 5}, {"seed": 5, "data_seed": 1}):
            torch.save(kept(ours, 100, config={"frac": 60 / 121, **seeds}), tmp_path / "m.pt")
            run = gi.load(tmp_path / "m.pt")
            assert run.manifest.split["data_seed"] == 5

    @pytest.mark.parametrize("data_seed", [0, 6])
    def test_another_seed_is_refused_with_both_losses(self, data_seed, ours, tmp_path):
        folder = folder_of(ours, tmp_path / "run")
        told = refusal(lambda: gi.load(folder, data_seed=data_seed))
        assert f"data_seed={data_seed} is not the split of this run" in told
        stored = {f"{loss_at(ours, step):.6g}" for step in STEPS}
        assert any(f"the files say {loss}" in told for loss in stored)
        task = gi.ModularTask("add", 11)
        order = torch.randperm(121, generator=torch.Generator().manual_seed(data_seed))
        found = {
            f"{cross_entropy(ours, step, task)[rows].mean().item():.4g}"[:5]
            for step in STEPS
            for rows in (order[:60], python_split(121, 60, data_seed))
        }
        assert any(loss in told for loss in found)

    def test_another_seed_is_refused_by_the_command(self, run, ours, tmp_path):
        folder = folder_of(ours, tmp_path / "run")
        out = tmp_path / "out"
        status, _, err = run("import", folder, "--out", out, "--set", "data_seed=0")
        assert (status, err.count("\n"), out.exists()) == (2, 1, False)
        assert "have loss" in err
        assert "the files say" in err
        status, shown, err = run("import", folder, "--out", out)
        assert (status, err) == (0, "")
        assert torch.equal(gi.load(out).train_indices, ours.train_indices)
        status, shown, _ = run("phases", folder, "--json")
        assert status == 0
        assert json.loads(shown)["label"] == "memorized"

    def test_a_configuration_that_the_losses_contradict_is_not_believed(self, ours, tmp_path):
        torch.save(kept(ours, 100, config={"frac": 0.5, "seed": 3}), tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        assert run.train_mask is None
        (note,) = [note for note in run.notes if "is not the split of this run" in note]
        assert f"the files say {loss_at(ours, 100):.6g}" in note

    def test_where_no_losses_are_kept_nothing_is_assumed_silently(self, ours, tmp_path):
        config = {"frac": 60 / 121, "seed": 5}
        for step in (0, 100):
            torch.save({"model": ours.weights(step), "config": config}, tmp_path / f"{step}.pt")
        untrained = gi.load(tmp_path / "0.pt", operation="add")
        assert untrained.train_mask is None
        assert has(untrained, "the seed 5 and train_fraction=0.495868, not the rule")
        trained = gi.load(tmp_path / "100.pt")  # whose losses set the two sides apart
        assert torch.equal(trained.train_indices.sort().values, ours.train_indices.sort().values)
        assert has(trained, "sets its two sides")
        assert "needs split=" in refusal(lambda: gi.load(tmp_path / "100.pt", data_seed=5))

    def test_a_loss_of_the_update_before_is_no_contradiction(self, ours, tmp_path):
        """Many loops keep the loss of the batch that they just made their update with."""

        def change(content, step):
            return {**content, "train_loss": loss_at(ours, max(step - 1, 0))}

        run = gi.load(folder_of(ours, tmp_path / "run", change=change))
        assert torch.equal(run.train_indices, ours.train_indices)

    def test_a_size_that_is_set_is_taken_with_the_seed_that_is_kept(self, ours, tmp_path):
        torch.save(kept(ours, 100, config={"n_train": 30, "seed": 5}), tmp_path / "m.pt")
        assert len(gi.load(tmp_path / "m.pt", n_train=60).train_indices) == 60
        assert len(gi.load(tmp_path / "m.pt", split="torch", n_train=60).train_indices) == 60


def cross_entropy(run, step, task):
    logits = run.snapshot(step).all_logits.double()
    return torch.nn.functional.cross_entropy(logits, task.labels, reduction="none")


class TestSteps:
    @pytest.mark.parametrize(
        ("word", "kind"),
        [
            ("step", int), ("global_step", float), ("iteration", torch.tensor), ("it", np.int64),
            ("iter_num", int), ("globalStep", int), ("epoch", int),
        ],
    )  # fmt: skip
    def test_are_read_from_inside(self, word, kind, ours, tmp_path):
        for name, step in (("init", 0), ("final", 500)):
            torch.save(
                {"model": ours.weights(0), word: kind(step)}, tmp_path / f"checkpoint_{name}.pt"
            )
        assert gi.load(tmp_path).steps == (0, 500)
        assert gi.load(tmp_path / "checkpoint_final.pt").steps == (500,)

    def test_in_a_group_beside_the_weights(self, ours, tmp_path):
        for step in (3, 7):
            content = {"state_dict": ours.weights(0), "meta": {"step": step}, "lr": 1e-3}
            torch.save(content, tmp_path / f"{'ab'[step > 5]}.pt")
        assert gi.load(tmp_path).steps == (3, 7)

    def test_updates_count_before_epochs(self, ours, tmp_path):
        content = {"state_dict": ours.weights(0), "epoch": 3, "global_step": 50}
        torch.save(content, tmp_path / "last.ckpt")
        assert gi.load(tmp_path / "last.ckpt").steps == (50,)
        torch.save({"state_dict": ours.weights(0), "epoch": 3}, tmp_path / "step_1200.pt")
        assert gi.load(tmp_path / "step_1200.pt").steps == (1200,)

    def test_what_is_inside_counts_before_the_name_and_is_said(self, ours, tmp_path):
        for name, step in (("step_1", 10), ("step_2", 20)):
            torch.save({"model": ours.weights(0), "step": step}, tmp_path / f"{name}.pt")
        run = gi.load(tmp_path)
        assert run.steps == (10, 20)
        assert has(run, "step_1.pt is of step 10, its 'step', although it has 1 in the name")
        assert has(run, "1 more files so")
        assert gi.load(tmp_path / "step_2.pt").steps == (20,)

    def test_two_files_of_a_step_are_refused_by_name(self, ours, tmp_path):
        for name in ("a", "b"):
            torch.save({"model": ours.weights(0), "step": 5}, tmp_path / f"{name}.pt")
        told = refusal(lambda: gi.load(tmp_path))
        assert "a.pt" in told
        assert "b.pt are both of step 5" in told

    def test_the_copy_of_the_best_one_is_left_out(self, ours, tmp_path):
        folder = folder_of(ours, tmp_path / "run")
        torch.save(kept(ours, 75), folder / "best.pt")
        torch.save({"step": "text", "model": ours.weights(0)}, folder / "notes.pt")
        run = gi.load(folder)
        assert run.steps == STEPS
        assert has(run, "of the step of another file: best.pt")
        assert has(run, "have no step: notes.pt")

    def test_epochs_are_said_to_be_taken_as_steps(self, ours, tmp_path):
        run = gi.load(folder_of(ours, tmp_path / "run"))
        assert has(run, "steps are 'epoch' as the files count them")

    def test_a_number_in_a_json_of_the_same_name(self, ours, tmp_path):
        for name, step in (("a", 3), ("b", 9)):
            torch.save(ours.weights(0), tmp_path / f"{name}.pt")
            (tmp_path / f"{name}.json").write_text(json.dumps({"step": step, "train_loss": 2.0}))
        run = gi.load(tmp_path)
        assert run.steps == (3, 9)
        assert run.metrics["train_loss"].tolist() == [2.0, 2.0]

    def test_an_epoch_in_a_configuration_is_a_planned_number(self, ours, tmp_path):
        torch.save(ours.weights(), tmp_path / "m.pt")
        (tmp_path / "m.json").write_text('{"epoch": 20000, "lr": 0.001}')
        assert gi.load(tmp_path / "m.pt").steps == (0,)


def curves(run, first=0, last=None, every=1):
    table = run.metrics.set_index("step")
    rows = range(first, 101 if last is None else last, every)
    return {
        "train_losses": table.loc[rows, "train_loss"].tolist(),
        "test_losses": table.loc[rows, "test_loss"].tolist(),
        "train_accs": table.loc[rows, "train_acc"].tolist(),
        "test_accuracies": table.loc[rows, "test_acc"].tolist(),
    }


def same_curve(found, run, steps):
    table = found.metrics.set_index("step")
    for column in ("train_loss", "test_loss", "train_acc", "test_acc"):
        expected = run.metrics.set_index("step").loc[list(steps), column]
        np.testing.assert_allclose(table.loc[list(steps), column], expected, rtol=1e-6)


class TestListsOfLosses:
    @pytest.mark.parametrize(
        ("kind", "n"), [(list, 100), (torch.tensor, 101), (np.array, 101), (tuple, 101)]
    )
    def test_of_every_epoch(self, kind, n, ours, tmp_path):
        lists = {key: kind(x) for key, x in curves(ours, last=n).items()}
        torch.save({"model": ours.weights(100), "epoch": 100, **lists}, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        assert run.steps == (100,)
        same_curve(run, ours, range(n))
        assert has(run, f"train_loss: a list of {n}, taken to be one a step from 0 on")

    @pytest.mark.parametrize("every", [5, 10, 20])
    @pytest.mark.parametrize("end", [101, 100])
    def test_of_every_so_many(self, every, end, ours, tmp_path):
        lists = curves(ours, last=end, every=every)
        config = {"log_every": every} if every == 20 else {}
        content = {"model": ours.weights(100), "step": 100, "config": config, **lists}
        torch.save(content, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        same_curve(run, ours, range(0, end, every))
        assert has(run, f"one every {every} steps")

    def test_with_their_own_steps(self, ours, tmp_path):
        steps = [0, 1, 2, 5, 10, 20, 50, 100]
        table = ours.metrics.set_index("step").loc[steps]
        lists = {"val_loss": table["test_loss"].tolist(), "trainLoss": table["train_loss"].tolist()}
        for axis in ("epochs", "steps", "logged_epochs", "its"):
            content = {"model": ours.weights(100), "history": {**lists, axis: steps}}
            torch.save(content, tmp_path / "m.pt")
            run = gi.load(tmp_path / "m.pt")
            assert run.steps == (100,)
            found = run.metrics.set_index("step")
            assert found.index.tolist() == steps
            assert found["test_loss"].tolist() == table["test_loss"].tolist()

    def test_as_records_or_by_step(self, ours, tmp_path):
        table = ours.metrics[["step", "train_loss", "test_loss", "train_acc", "test_acc"]]
        rows = table.iloc[::10].to_dict("records")
        nested = [
            {"step": int(x["step"]), "train": {"loss": x["train_loss"], "acc": x["train_acc"]},
             "test": {"loss": x["test_loss"], "acc": x["test_acc"]}}
            for x in rows
        ]  # fmt: skip
        by_step = {
            column: {int(x["step"]): x[column] for x in rows} for column in table.columns[1:]
        }
        for history in (rows, nested, by_step):
            torch.save({"model": ours.weights(100), "history": history}, tmp_path / "m.pt")
            run = gi.load(tmp_path / "m.pt")
            assert run.steps == (100,)
            same_curve(run, ours, range(0, 101, 10))

    def test_in_the_words_of_keras(self, ours, tmp_path):
        table = ours.metrics
        history = {
            "loss": table["train_loss"].tolist(), "val_loss": table["test_loss"].tolist(),
            "acc": table["train_acc"].tolist(), "val_acc": table["test_acc"].tolist(),
            "lr": [1e-3] * 101,
        }  # fmt: skip
        torch.save(
            {"model": ours.weights(100), "epoch": 100, "history": history}, tmp_path / "m.pt"
        )
        run = gi.load(tmp_path / "m.pt")
        same_curve(run, ours, range(101))
        assert has(run, "its loss without a side is taken to be that of training")

    def test_without_a_step_there_is_one_a_loss_as_in_the_papers_code(self, ours, tmp_path):
        long = 107_791
        lists = {
            "train_losses": torch.linspace(4, 1e-3, long).clamp_max(3),
            "test_losses": torch.linspace(5, 1e-3, long),
        }
        lists["test_losses"] = lists["test_losses"][::10]
        for more, word in (({}, "no step"), ({"epoch": 50_000}, "50000"), ({"epoch": 200_000}, "")):
            torch.save({"model": ours.weights(100), **lists, **more}, tmp_path / "grokked.pth")
            run = gi.load(tmp_path / "grokked.pth")
            assert run.steps == (long,)
            assert has(run, word)
            found = run.metrics.set_index("step")["test_loss"].dropna()
            assert found.index.tolist()[:3] == [0, 10, 20]
            assert len(found) == 10_780
            assert not any("only nothing" in reason for reason in gi.detect_phases(run).reasons)

    def test_date_a_run_of_which_one_checkpoint_is_there(self, shipped, tmp_path):
        """Its accuracies are those of one step: they do not say when anything was learned."""
        table = shipped.metrics
        content = {
            "model": shipped.weights(), "steps": torch.tensor(table["step"].to_numpy()),
            "train_losses": torch.tensor(table["train_loss"].to_numpy()),
            "test_losses": torch.tensor(table["test_loss"].to_numpy()),
            "config": {"seed": 598, "frac_train": 0.3},
        }  # fmt: skip
        torch.save(content, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        assert torch.equal(run.train_mask, shipped.train_mask)
        alone = gi.detect_phases(table[["step", "train_loss", "test_loss"]])
        found = gi.detect_phases(run)
        assert (found.label, found.memorization_step) == ("grokked", alone.memorization_step)
        assert found.grok_step == alone.grok_step
        assert any("at 1 of 1201 logged steps only" in reason for reason in found.reasons)

    def test_that_do_not_say_of_which_steps_they_are_get_none(self, ours, tmp_path):
        lists = {key: values[:37] for key, values in curves(ours).items()}
        torch.save({"model": ours.weights(100), "step": 100, **lists}, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        assert run.metrics["step"].tolist() == [100]
        assert has(run, "train_loss: a list of 37 does not say of which steps up to 100 it is")

    def test_in_each_file_of_a_folder_the_last_one_holds_all(self, ours, tmp_path):
        def change(content, step):
            return {**content, **curves(ours, last=step + 1)}

        run = gi.load(folder_of(ours, tmp_path / "run", change=change))
        assert run.steps == STEPS
        same_curve(run, ours, range(101))
        assert torch.equal(run.train_indices, ours.train_indices)

    def test_in_pieces_are_left_out_and_said_so(self, ours, tmp_path):
        def change(content, step):
            return {**content, **curves(ours, first=max(step - 24, 0), last=step + 1)}

        run = gi.load(folder_of(ours, tmp_path / "run", change=change))
        assert run.metrics["step"].tolist() == list(STEPS)
        assert has(run, "do not hold those of the files before")

    def test_in_pieces_with_their_steps_are_put_together(self, ours, tmp_path):
        def change(content, step):
            first = max(step - 24, 0)
            lists = curves(ours, first=first, last=step + 1)
            return {**content, "steps": list(range(first, step + 1)), **lists}

        run = gi.load(folder_of(ours, tmp_path / "run", change=change))
        same_curve(run, ours, range(101))

    @pytest.mark.parametrize("value", ["text", [], ["a"], {"a": 1}, torch.ones(2, 3), None, [None]])
    def test_that_are_none_are_left_alone(self, value, ours, tmp_path):
        torch.save({**kept(ours, 100), "train_losses": value}, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        assert run.metrics["step"].tolist() == [100]

    def test_of_other_weights_are_not_taken(self, ours, tmp_path):
        more = {"best_val_loss": 0.1, "log_train_acc": -3.0, "loss_scale": 2.0, "acc_threshold": 1}
        content = {"model": ours.weights(100), "step": 100, **more}
        torch.save(content, tmp_path / "m.pt")
        found = gi.load(tmp_path / "m.pt").metrics.drop(columns="step")
        assert found.isna().all().all()

    def test_accuracies_in_percent_are_left_out(self, ours, tmp_path):
        lists = {"train_accs": [9.0, 100.0], "test_accs": [0.1, 1.0000001], "epochs": [0, 100]}
        content = {"model": ours.weights(100), "epoch": 100, "val_acc": 12.0, **lists}
        torch.save(content, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        assert has(run, "its train_acc goes up to 100, no share of 1")
        assert run.metrics["test_acc"].tolist() == [0.1, 1.0]
        assert run.metrics["train_acc"].isna().all()


class TestTrainingRows:
    @pytest.mark.parametrize(
        "place",
        [
            lambda rows, mask: {"train_indices": rows},
            lambda rows, mask: {"train_idx": rows.tolist()},
            lambda rows, mask: {"trainIndices": rows.numpy()},
            lambda rows, mask: {"train_mask": mask},
            lambda rows, mask: {"split": {"train": rows, "test": rows[:3]}},
            lambda rows, mask: {"indices": {"train": rows}},
            lambda rows, mask: {"train_pairs": torch.stack([rows // 11, rows % 11], 1)},
            lambda rows, mask: {"data": {"train_inputs": torch.stack(
                [rows // 11, rows % 11, torch.full_like(rows, 11)], 1)}},
        ],
    )  # fmt: skip
    def test_in_a_file_and_in_each_of_a_folder(self, place, ours, tmp_path):
        words = place(ours.train_indices, ours.train_mask)
        torch.save({"model": ours.weights(100), **words}, tmp_path / "m.pt")
        assert torch.equal(gi.load(tmp_path / "m.pt").train_mask, ours.train_mask)

        def change(content, step):
            return {"model": content["model_state_dict"], "step": step, **words}

        folder = folder_of(ours, tmp_path / "run", change=change)
        assert torch.equal(gi.load(folder).train_mask, ours.train_mask)

    @pytest.mark.parametrize("name", ["train_indices", "split"])
    def test_in_a_json_or_a_file_of_tensors_beside(self, name, ours, tmp_path):
        rows = ours.train_indices.tolist()
        folder = folder_of(ours, tmp_path / "run", change=lambda x, step: x["model_state_dict"])
        file = folder / f"{name}.json"
        file.write_text(json.dumps(rows if name == "train_indices" else {"train": rows}))
        assert torch.equal(gi.load(folder).train_indices, ours.train_indices)
        file.unlink()
        torch.save({"train_indices": ours.train_indices}, folder / f"{name}.pt")
        run = gi.load(folder)
        assert torch.equal(run.train_indices, ours.train_indices)
        assert has(run, f"hold no weights: {name}.pt")

    @pytest.mark.parametrize("rows", [[0.5, 1], [1, 500], "all", [[1, 2, 3, 4]], list(range(60))])
    def test_that_are_none_or_wrong_are_refused(self, rows, ours, tmp_path):
        torch.save(kept(ours, 100, train_indices=rows), tmp_path / "m.pt")
        refusal(lambda: gi.load(tmp_path / "m.pt"))

    def test_that_differ_between_files_are_refused(self, ours, tmp_path):
        def change(content, step):
            return {**content, "train_indices": ours.train_indices + (step == 50)}

        folder = folder_of(ours, tmp_path / "run", change=change)
        assert "keep other training rows" in refusal(lambda: gi.load(folder))


def _loaded(path):
    """The run, or why it is refused."""
    try:
        return gi.load(path), ""
    except gi.InputError as error:
        return None, str(error)


class TestBeside:
    def test_a_log_and_a_configuration_of_a_folder(self, ours, tmp_path):
        folder = folder_of(ours, tmp_path / "run", change=lambda x, step: x["model_state_dict"])
        (folder / "config.json").write_text(json.dumps(kept(ours, 0)["config"]))
        table = ours.metrics[["step", "train_loss", "test_loss", "train_acc", "test_acc"]]
        records = table.to_dict("records")
        renamed = table.rename(columns={"step": "epoch", "test_loss": "val/loss"})
        logs = {
            "metrics.csv": table.to_csv(index=False),
            "log.csv": renamed.to_csv(index=False),
            "metrics.json": json.dumps(records),
            "history.json": json.dumps({"history": table.to_dict("list")}),
            "metrics.jsonl": "\n".join(map(json.dumps, records)),
        }
        for name, text in logs.items():
            (folder / name).write_text(text)
            run = gi.load(folder)
            same_curve(run, ours, range(101))
            assert torch.equal(run.train_indices, ours.train_indices), name
            (folder / name).unlink()

    @pytest.mark.parametrize("name", ["m.json", "config_m.json", "m_metrics.json", "history.json"])
    def test_lists_of_one_file(self, name, ours, tmp_path):
        torch.save(ours.weights(100), tmp_path / "model_m.pt")
        content = {"config": kept(ours, 0)["config"], **curves(ours)}
        (tmp_path / name).write_text(json.dumps({**content, "epochs": list(range(101))}))
        run = gi.load(tmp_path / "model_m.pt")
        assert run.steps == (100,)
        same_curve(run, ours, range(101))
        assert torch.equal(run.train_indices, ours.train_indices)

    @pytest.mark.parametrize("text", ["{", "[1, 2", '{"a": ' * 3000, "\0", "nan,", '"text"'])
    @pytest.mark.parametrize(
        "name", ["metrics.json", "config.json", "metrics.jsonl", "metrics.csv"]
    )
    def test_what_cannot_be_read_is_left_alone(self, name, text, ours, tmp_path):
        torch.save(ours.weights(100), tmp_path / "step_100.pt")
        (tmp_path / name).write_text(text)
        run = gi.load(tmp_path)
        assert run.steps == (100,)
        assert all(len(note) <= 400 and note.isprintable() for note in run.notes)

    @pytest.mark.parametrize(
        "value", ["NaN", "1e999", "9" * 400, '"x"', "null", "[[1]]", '{"0": NaN}', "-1", "1e308"]
    )
    def test_odd_values_are_left_alone_or_refused(self, value, ours, tmp_path):
        torch.save(ours.weights(100), tmp_path / "step_100.pt")
        keys = ("train_losses", "val_acc", "epochs", "train_idx", "d_head", "attn_scale", "eps",
                "log_every", "num_epochs", "seed", "frac", "step", "history")  # fmt: skip
        for i, key in enumerate(keys):
            text = f'{{"{key}": {value}}}' if i % 2 else f'{{"{key}": [0, {value}]}}'
            (tmp_path / "config.json").write_text(text)
            (tmp_path / "log.csv").write_text(f"epoch,{key}\n0,1\n100,{value}\n")
            found, told = _loaded(tmp_path)
            assert found is None or found.steps == (100,)
            assert len(told) <= 400
            assert "\n" not in told

    def test_an_optimizer_beside_is_no_checkpoint(self, ours, tmp_path):
        folder = folder_of(ours, tmp_path / "run")
        torch.save(kept(ours, 50)["optimizer_state_dict"], folder / "optimizer_step_50.pt")
        run = gi.load(folder)
        assert run.steps == STEPS
        assert has(run, "hold no weights: optimizer_step_50.pt")

    def test_a_log_in_other_units_is_left_out(self, ours, tmp_path):
        for step in (100, 12_000):
            torch.save({"model": ours.weights(0), "step": step}, tmp_path / f"{step}_.pt")
        rows = {"epoch": range(10), "train_loss": np.linspace(2, 1, 10)}
        pd.DataFrame(rows).to_csv(tmp_path / "log.csv", index=False)
        run = gi.load(tmp_path)
        assert run.metrics["step"].tolist() == [100, 12_000]
        assert has(run, "it counts 'epoch' up to 9, the checkpoints 'step' up to 12000")


SIZES = {
    "d_model": 32, "n_ctx": 3, "n_layers": 1, "n_heads": 2, "d_mlp": 64, "d_vocab": 12, "p": 11,
    "d_head": 16, "d_vocab_out": 11, "modulus": 11, "num_layers": 1, "n_embd": 32, "d_ff": 64,
}  # fmt: skip


class TestAConfigurationThatContradicts:
    @pytest.mark.parametrize(
        ("key", "place"),
        [
            *((key, "inside") for key in SIZES),
            *((k, place) for k in ("d_model", "p") for place in ("nested", "folder", "of folder")),
            *((key, "beside") for key in ("d_model", "n_ctx", "n_heads", "d_vocab")),
        ],
    )
    def test_the_weights_is_refused_with_both_numbers(self, key, place, ours, tmp_path):
        def load(value):
            config = {key: value, "lr": 1e-3}
            if place in ("folder", "of folder"):
                folder = tmp_path / "run"
                in_each = place == "folder"

                def change(content, step):
                    content["config"] = config if in_each else {}
                    return content

                folder_of(ours, folder, change=change)
                (folder / "config.json").write_text(json.dumps({} if in_each else config))
                return gi.load(folder)
            content = {"model": ours.weights(100)}
            if place == "beside":
                (tmp_path / "config.json").write_text(json.dumps(config))
            else:
                content["config"] = config if place == "inside" else {"net": config}
            torch.save(content, tmp_path / "m.pt")
            return gi.load(tmp_path / "m.pt")

        assert load(SIZES[key]).task.p == 11
        told = refusal(lambda: load(SIZES[key] + 5))
        assert f"{key}={SIZES[key] + 5}" in told or f"={SIZES[key] + 5} " in told
        assert f"={SIZES[key]}" in told or f"{SIZES[key]} " in told

    def test_unless_the_right_one_is_set(self, ours, tmp_path):
        torch.save({"model": ours.weights(100), "config": {"d_model": 64}}, tmp_path / "m.pt")
        assert "d_model=64" in refusal(lambda: gi.load(tmp_path / "m.pt"))
        assert gi.load(tmp_path / "m.pt", d_model=32).architecture.d_model == 32

    @pytest.mark.parametrize(
        "config",
        [
            {"vocab_size": 11}, {"vocab_size": 12}, {"vocab_size": 13}, {"seq_len": 4},
            {"seq_len": 2}, {"block_size": 3}, {"num_classes": 11}, {"num_classes": 12},
            {"d_model": None}, {"d_model": "big"}, {"d_mlp": -1}, {"dropout": {"p": 0.1}},
            {"p": 0.1}, {"encoder": {"d_model": 32}},
        ],
    )  # fmt: skip
    def test_words_that_others_use_otherwise_are_allowed(self, config, ours, tmp_path):
        torch.save({"model": ours.weights(100), "config": config}, tmp_path / "m.pt")
        assert gi.load(tmp_path / "m.pt").task.p == 11

    def test_a_configuration_of_transformer_lens_agrees_with_its_model(self, ours, tmp_path):
        config = asdict(ours.architecture)
        torch.save({"model": ours.weights(100), "config": config}, tmp_path / "m.pt")
        assert gi.load(tmp_path / "m.pt").architecture == ours.architecture

    @pytest.mark.parametrize(
        ("key", "one", "two"), [("data_seed", 5, 6), ("p", 11, 13), ("act_fn", "relu", "gelu")]
    )
    def test_another_file_of_the_folder_is_refused(self, key, one, two, ours, tmp_path):
        def change(content, step):
            content["config"][key] = two if step == 75 else one
            content["config"]["lr"] = step  # nobody's business
            return content

        folder = folder_of(ours, tmp_path / "run", change=change)
        told = refusal(lambda: gi.load(folder))
        assert f"{key}={one!r}" in told
        assert f"{key}={two!r}" in told
        assert "checkpoint_epoch_75.pt" in told
