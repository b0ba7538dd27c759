"""Checkpoints in the containers that people keep them in: the same steps, weights and metrics."""

import enum
import json
import pathlib
import pickle
import re
import shutil
import sys
import time
import uuid
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import nn

import grokinterp as gi
from grokinterp.reading.tensor_files import read_file
from tests.foreign import Net, in_parts

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time


@pytest.fixture(scope="module")
def states(tiny_run):
    return {step: tiny_run.weights(step) for step in tiny_run.steps}


def same_weights(run, states, steps=None):
    steps = tuple(states) if steps is None else steps
    assert run.steps == tuple(steps)
    for step, weights in zip(steps, states.values(), strict=True):
        found = run.weights(step)
        assert list(found) == list(weights)
        assert all(torch.equal(found[name], weights[name]) for name in weights)


def has(run, *words):
    return any(all(word in note for word in words) for note in run.notes)


def refusal(path, *words, **settings):
    with pytest.raises(gi.InputError) as refused:
        gi.load(path, **settings)
    said = str(refused.value)
    assert "\n" not in said
    assert len(said) <= 400
    assert all(word in said for word in words), said
    return said


KEYS = {
    "numbers": int, "text": str, "padded": "{:06d}".format, "step": "step_{}".format,
    "epoch": "epoch={}".format, "ckpt": "ckpt-{}".format, "float": float,
}  # fmt: skip


class TestOneFile:
    @pytest.mark.parametrize(
        ("key", "name"),
        [
            *((key, None) for key in KEYS),
            *(("text", x) for x in ("checkpoints", "weights", "history")),
        ],
    )
    def test_a_dictionary_by_step(self, key, name, states, tmp_path):
        content = {KEYS[key](step): x for step, x in states.items()}
        torch.save(content if name is None else {name: content}, tmp_path / "m.pt")
        same_weights(gi.load(tmp_path / "m.pt"), states)

    @pytest.mark.parametrize(
        "beside",
        [{"steps": [0, 20, 40, 60]}, {"saved_epochs": (0, 20, 40, 60), "epochs": 60},
         {"checkpoint_steps": np.array([0, 20, 40, 60]), "epochs": [1, 2, 3, 4]}],
    )  # fmt: skip
    @pytest.mark.parametrize("name", ["snapshots", "state_dicts", "weightHistory"])
    def test_a_list_with_its_steps(self, name, beside, states, tmp_path):
        torch.save({name: [*states.values()], **beside}, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        same_weights(run, states)
        assert run.steps_known

    def test_its_steps_in_a_group_beside(self, states, tmp_path):
        groups = {"metrics": {"epoch": [0, 20, 40, 60], "lr": [1e-3] * 4}, "config": {"p": 7}}
        torch.save({"model": [*states.values()], **groups}, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        same_weights(run, states)
        assert run.steps_known

    def test_a_state_with_its_loss(self, states, tmp_path):
        torch.save({step: (state, 0.5) for step, state in states.items()}, tmp_path / "m.pt")
        same_weights(gi.load(tmp_path / "m.pt"), states)

    @pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module"])
    def test_wrappers_of_parts(self, wrapper, states, tmp_path):
        """As compiling or sharding block by block names them."""
        renamed = {
            key.replace("blocks.0.", f"blocks.0.{wrapper}."): x for key, x in states[60].items()
        }
        torch.save({"model": renamed, "step": 60}, tmp_path / "m.pt")
        same_weights(gi.load(tmp_path / "m.pt"), {60: states[60]})

    def test_a_list_whose_entries_say_their_steps(self, states, tmp_path):
        entries = [{"step": s, "model": x, "train_loss": s + 0.5} for s, x in states.items()]
        for content in (entries, {"history": entries}, [*states.items()]):
            torch.save(content, tmp_path / "m.pt")
            run = gi.load(tmp_path / "m.pt")
            same_weights(run, states)
            assert run.steps_known
        torch.save(entries, tmp_path / "m.pt")
        curve = gi.load(tmp_path / "m.pt").metrics.set_index("step")["train_loss"]
        assert curve.to_dict() == {step: step + 0.5 for step in states}

    def test_what_stands_beside_is_used(self, tiny_run, states, tmp_path):
        logged = tiny_run.metrics.set_index("step").loc[list(states)]
        content = {
            "checkpoints": states, "config": {"p": 7, "fn_name": "add"}, "steps": list(states),
            "train_losses": logged["train_loss"].tolist(), "test_acc": logged["test_acc"].tolist(),
            "train_indices": tiny_run.train_indices, "model": states[60],
        }  # fmt: skip
        torch.save(content, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        assert torch.equal(run.train_indices, tiny_run.train_indices)
        for column in ("train_loss", "test_acc"):
            assert run.metrics[column].tolist() == logged[column].tolist()
        assert has(run, "have no step", "'model'")
        assert has(run, "its configuration says", "p=7")
        back = gi.import_run(tmp_path / "m.pt", tmp_path / "run")
        same_weights(back, states)
        assert json.loads((back.path / "run.json").read_text())["format"] == 1
        (tmp_path / "config.json").write_text('{"p": 11}')
        refusal(tmp_path / "m.pt", "p=7", "p=11")

    def test_one_that_is_no_checkpoint_is_named(self, states, tmp_path):
        torch.save({**states, 80: {"lr": 1.0}}, tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "its 80", "holds no weights")
        torch.save({**states, "20": states[20]}, tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "both of step 20")

    def test_one_alone_in_its_folder(self, states, tmp_path):
        torch.save(states, tmp_path / "all.pt")
        (tmp_path / "config.yml").write_text("p: 7")
        run = gi.load(tmp_path)
        same_weights(run, states)
        assert has(run, "p=7")

    def test_an_optimizers_state_is_no_container(self, states, tmp_path):
        model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(3)))
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        torch.save({"model": states[20], "optimizer": optimizer.state_dict()}, tmp_path / "m_20.pt")
        same_weights(gi.load(tmp_path / "m_20.pt"), {20: states[20]})
        torch.save(optimizer.state_dict(), tmp_path / "m_20.pt")
        refusal(tmp_path / "m_20.pt", "holds no weights")

    def test_all_of_one_state_are_refused(self, states, tmp_path):
        torch.save(dict.fromkeys(range(100), states[0]), tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "one another's")


def losses_of(run):
    return run.metrics.set_index("step").loc[list(run.steps), "train_loss"].tolist()


@pytest.fixture(scope="module")
def positions(tiny_run, states, tmp_path_factory):
    path = tmp_path_factory.mktemp("positions") / "m.pt"
    content = {
        "snapshots": [*states.values()], "train_indices": tiny_run.train_indices,
        "train_losses": losses_of(tiny_run), "test_losses": [2.0] * 60,
        "val_acc": {0: 0.1, 500: 0.2},
    }  # fmt: skip
    torch.save(content, path)
    return gi.load(path)


class TestStepsThatNobodyKnows:
    def test_are_positions(self, positions, tiny_run, states):
        run = positions
        same_weights(run, states, steps=range(4))
        assert not run.steps_known
        assert has(run, "nobody says the steps", "positions")
        assert "positions 0 to 3" in repr(run)
        assert run.metrics["train_loss"].tolist() == losses_of(tiny_run)
        assert has(run, "left out, as nobody says the steps", "test_acc, test_loss")

    def test_are_kept_by_import_and_0_2_0_refuses_them(self, positions, tmp_path):
        run = positions
        back = gi.import_run(run.path, tmp_path / "run")
        assert not back.steps_known
        stored = json.loads((tmp_path / "run" / "run.json").read_text())
        assert stored["steps_known"] is False
        assert stored["format"] == 2
        assert not gi.load(tmp_path / "run").steps_known
        assert gi.detect_phases(back).phases is None

    def test_date_nothing(self, positions):
        run = positions
        for found in (gi.detect_phases(run), gi.detect_phases(run.metrics)):
            told = found.to_dict()
            for name in ("memorization_step", "grok_step", "phases", "t_train", "t_test"):
                assert told[name] is None
            assert "nobody knows the steps" in found.reasons[0]
            assert found.table().empty
            str(found)

    def test_a_label_stays_where_no_date_decides_it(self, positions):
        run = positions
        table = run.metrics.assign(train_acc=0.1, test_acc=0.1)
        assert gi.detect_phases(table).label == "not_learned"
        table = table.drop(columns=[x for x in table if "unmirrored" in x])
        table = table.assign(train_acc=[0.1, 1, 1, 1], test_acc=[0.1, 0.1, 1, 1])
        assert gi.detect_phases(table).label == "undetermined"

    def test_a_report_says_so(self, positions, tmp_path):
        run = positions
        assert "nobody knows the steps" in gi.report(run, tmp_path / "r.html").read_text()

    def test_runs_of_ours_know_them(self, tiny_run):
        assert tiny_run.steps_known
        assert "steps_known" not in (tiny_run.path / "run.json").read_text()

    def test_a_list_of_modules_and_one_by_itself(self, states, tmp_path):
        torch.save([*states.values()], tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        same_weights(run, states, steps=range(4))
        assert not run.steps_known


FILES = {
    "model.safetensors": lambda x, f: safetensors.torch.save_file(x, f / "model.safetensors"),
    "pytorch_model.bin": lambda x, f: torch.save(x, f / "pytorch_model.bin"),
    "weights.pt": lambda x, f: torch.save(x, f / "weights.pt"),
    "parts": lambda x, f: in_parts(x, f, "safetensors"),
    "parts of torch": lambda x, f: in_parts(x, f, "bin", 3),
}


def sub_folders(states, folder, file="model.safetensors", name="checkpoint-{}"):
    for step, weights in states.items():
        sub = folder / name.format(step)
        sub.mkdir(parents=True)
        FILES[file](weights, sub)
    return folder


class TestFolders:
    @pytest.mark.parametrize(
        ("file", "name"),
        [
            ("model.safetensors", "checkpoint-{}"), ("pytorch_model.bin", "step_{}"),
            ("weights.pt", "{:05d}"), ("parts", "checkpoint-{}"),
            ("parts of torch", "epoch=1-step={}"),
        ],
    )  # fmt: skip
    def test_sub_folders(self, name, file, states, tmp_path):
        sub_folders(states, tmp_path / "run", file, name)
        same_weights(gi.load(tmp_path / "run"), states)
        last = tmp_path / "run" / name.format(60)
        same_weights(gi.load(last), {60: states[60]})

    def test_what_a_trainer_keeps_besides(self, tiny_run, states, tmp_path):
        folder = sub_folders(states, tmp_path / "run")
        last = folder / "checkpoint-60"
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"):
            torch.save({"x": torch.ones(3, 3)}, last / name)
        torch.save(SimpleNamespace(seed=5), last / "training_args.bin")
        torch.save(states[60], folder / "final.pt")
        logged = tiny_run.metrics.set_index("step").loc[list(states)]
        history = [
            *({"step": s, "loss": x, "epoch": s / 10} for s, x in logged["train_loss"].items()),
            *({"step": s, "eval_loss": x} for s, x in logged["test_loss"].items()),
            {"step": 60, "train_runtime": 9.0, "train_loss": 0.123},  # the mean of all
        ]
        state = {"global_step": 60, "epoch": 6.0, "log_history": history}
        (last / "trainer_state.json").write_text(json.dumps(state))
        run = gi.load(folder, train_indices=str(tiny_run.path / "split.safetensors"))
        same_weights(run, states)
        for column in ("train_loss", "test_loss"):
            assert run.metrics[column].tolist() == logged[column].tolist()
        assert has(run, "lie beside the folder of the checkpoints", "final.pt")
        alone = gi.load(last)
        assert alone.steps == (60,)
        assert has(alone, "hold no weights", "optimizer.pt", "training_args.bin")
        last.rename(tmp_path / "best")
        assert gi.load(tmp_path / "best").steps == (60,)  # as its trainer_state.json says

    @pytest.mark.parametrize(
        ("inner", "config"),
        [
            ("checkpoints", "config.json"), ("ckpts", "args.json"), ("weights", "hparams.yaml"),
            ("version_0/checkpoints", "hparams.yaml"),
        ],
    )  # fmt: skip
    def test_one_level_up(self, inner, config, tiny_run, states, tmp_path):
        run = tmp_path / "run"
        (run / inner).mkdir(parents=True)
        for step, weights in states.items():
            torch.save(weights, run / inner / f"epoch=1-step={step}.ckpt")
        text = "p: 7\nn_heads: 2\nlr: 0.001\n" if config.endswith("yaml") else '{"p": 7}'
        (run / config).write_text(text)
        where = run / inner.rpartition("/")[0]  # of Lightning, beside the folder of checkpoints
        tiny_run.metrics.to_csv(where / "metrics.csv", index=False)
        found = gi.load(run, train_indices=str(tiny_run.path / "split.safetensors"))
        same_weights(found, states)
        assert has(found, "its configuration says", "p=7")
        assert found.metrics["train_loss"].tolist() == tiny_run.metrics["train_loss"].tolist()
        (run / config).write_text(text.replace("7", "11"))
        refusal(run, "p=11")

    def test_several_runs_are_told_apart(self, states, tmp_path):
        for version in (0, 1):
            sub_folders(states, tmp_path / f"version_{version}" / "checkpoints")
        refusal(tmp_path, "'version_0', 'version_1'", "give one of these")
        assert gi.load(tmp_path / "version_1").steps == tuple(states)

    def test_folders_of_runs_of_ours_are_none(self, tiny_run, tmp_path):
        shutil.copytree(tiny_run.path, tmp_path / "runs" / "step_1")
        refusal(tmp_path / "runs", "is not a run", "in 'step_1'; give one of these folders")

    def test_parts_that_are_missing_or_elsewhere(self, states, tmp_path):
        folder = tmp_path / "checkpoint-20"
        folder.mkdir()
        index = in_parts(states[20], folder, "safetensors")
        same_weights(gi.load(index, step=20), {20: states[20]})
        good = index.read_text()
        for evil in ("../x.safetensors", "/etc/passwd", "a/b.bin", "..", "", ".x", "a\\b"):
            index.write_text(
                good.replace("model-00001-of-00002.safetensors", json.dumps(evil)[1:-1])
            )
            refusal(folder, "is no file beside it")
        for odd in ("{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', "[" * 9999):
            index.write_text(odd)
            refusal(folder, "no index")
        index.write_text(good.replace('"embed.W_E"', '"other"'))
        refusal(folder, "has no weight 'other'")
        index.write_text(good)
        part = folder / "model-00002-of-00002.safetensors"
        part.rename(tmp_path / part.name)
        refusal(folder, "model-00002-of-00002.safetensors is missing", "of the 2 parts")
        part.symlink_to(tmp_path / part.name)
        refusal(folder, "symbolic link")
        index.unlink()
        refusal(folder, "model.safetensors.index.json is missing")

    def test_links_are_not_followed(self, states, tmp_path):
        sub_folders(states, tmp_path / "there")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "there")
        refusal(tmp_path / "run", "symbolic link")

    def test_several_files_in_one_sub_folder(self, states, tmp_path):
        sub_folders(states, tmp_path / "run", "weights.pt")
        torch.save(states[0], tmp_path / "run" / "checkpoint-20" / "model.pt")
        refusal(tmp_path / "run", "several files", "'model.pt', 'weights.pt'")


class TestYaml:
    BOMB = "a: &a [1, 1]\n" + "\n".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]" for i in range(20)
    )

    @pytest.mark.parametrize(
        "text",
        [
            "p: !!python/object/apply:os.system ['touch witness']", "x: !!python/name:os.system",
            "!!python/object:argparse.Namespace {p: 11}", BOMB, "[" * 10_000, "p: 11\n" * 40_000,
            "\n".join(f"k{i}: {i}" for i in range(30_000)), "a: b: c", "\t", "p: \xff",
            "x: " + "9" * 9000, "x: 1" + ":1" * 9000, "? {a: 1}\n: 2", "d: 2026-99-99",
        ],
    )  # fmt: skip
    def test_what_is_no_plain_configuration_is_left_alone(self, text, states, tmp_path):
        torch.save(states[20], tmp_path / "m_step_20.pt")
        (tmp_path / "hparams.yaml").write_text(text, encoding="latin-1")
        run = gi.load(tmp_path / "m_step_20.pt", p=7)
        assert has(run, "hparams.yaml next to it is left alone")
        assert not (tmp_path / "witness").exists()


PREFIXES = ["net.", "model.", "module.", "_orig_mod.", "student.backbone.", "a.b.c.d.e.f.g."]


def under(prefix, weights):
    return {f"{prefix}{name}": x for name, x in weights.items()}


BESIDE = {
    "train_acc.tm": torch.tensor(3.0), "criterion.weight": torch.ones(7),
    "optimizer.exp_avg": torch.ones(4, 4),
}  # fmt: skip


class TestPrefixes:
    @pytest.mark.parametrize("prefix", PREFIXES)
    def test_any_is_found(self, prefix, states, tmp_path):
        content = {"global_step": 20, "state_dict": under(prefix, states[20])}
        torch.save(content, tmp_path / "a.ckpt")
        same_weights(gi.load(tmp_path / "a.ckpt"), {20: states[20]})
        content["state_dict"] |= BESIDE
        torch.save(content, tmp_path / "a.ckpt")
        run = gi.load(tmp_path / "a.ckpt")
        same_weights(run, {20: states[20]})
        assert has(run, "read without", *BESIDE)

    @pytest.mark.parametrize(
        "copy", ["ema.", "ema_model.module.", "target_net.", "swa.", "teacher."]
    )
    @pytest.mark.parametrize("plain", ["", "net.", "student."])
    def test_a_copy_loses_by_its_name(self, copy, plain, states, tmp_path):
        torch.save({**under(copy, states[0]), **under(plain, states[20])}, tmp_path / "m_20.pt")
        run = gi.load(tmp_path / "m_20.pt")
        same_weights(run, {20: states[20]})
        assert has(run, copy, "copies by their names")
        same_weights(gi.load(tmp_path / "m_20.pt", prefix=copy), {20: states[0]})

    def test_two_of_one_rank_are_refused_until_one_is_set(self, states, tmp_path):
        torch.save({**under("net.", states[0]), **under("other.", states[20])}, tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "'net.'", "'other.'", "prefix=net.")
        for prefix, step in (("net.", 0), ("net", 0), ("other.", 20)):
            run = gi.load(tmp_path / "m.pt", prefix=prefix)
            same_weights(run, {0: states[step]})
            assert has(run, "read without")
        refusal(tmp_path / "m.pt", "no weights under prefix=third.", prefix="third")

    def test_an_unembedding_outside_of_the_layers_wrapper_is_not_lost(self, states, tmp_path):
        """As GPT-2's code has it: `transformer.h.0...` and `lm_head` beside `transformer`."""
        layer = {"attn.c_attn": (48, 16), "attn.c_proj": (16, 16), "mlp.c_fc": (32, 16),
                 "mlp.c_proj": (16, 32)}  # fmt: skip
        weights = {
            "transformer.wte.weight": (8, 16), "transformer.wpe.weight": (3, 16),
            **{f"transformer.h.0.{name}.weight": shape for name, shape in layer.items()},
            "lm_head.weight": (7, 16),
        }  # fmt: skip
        state = {name: torch.randn(shape) for name, shape in weights.items()}
        for prefix in ("", "net.", "_orig_mod.model."):
            torch.save(under(prefix, state), tmp_path / "m.pt")
            found = gi.load(tmp_path / "m.pt", n_heads=2).weights()
            assert torch.equal(found["unembed.W_U"].T, state["lm_head.weight"])
        del state["lm_head.weight"]
        state["readout.matrix"] = torch.randn(7, 16)  # or it would be taken to be tied
        torch.save(under("net.", state), tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "readout.matrix", n_heads=2)


class Kind(enum.Enum):
    ADD = "add"


@dataclass
class TrainConfig:
    n_heads: int = 2
    out: pathlib.Path = pathlib.Path("/tmp/x")
    kind: Kind = Kind.ADD


class Plain:
    """A pickle of an object that is nothing but attributes."""


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class TestObjects:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("name", [None, "model", "net", "by step"])
    def test_a_whole_model_is_its_tensors(self, name, zipped, states, tmp_path):
        content = {
            None: lambda net: net, "model": lambda net: {"model": net, "step": 20},
            "net": lambda net: {"net": nn.DataParallel(net), "lr": 1e-3},
            "by step": lambda net: {20: net},
        }[name](Net(states[20]))  # fmt: skip
        path = tmp_path / "m_step_20.pt"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        run = gi.load(path)
        same_weights(run, {20: states[20]})
        assert has(run, "objects are read as plain data", "nothing of them was run")

    def test_it_is_named_as_torch_names_it(self, states, tmp_path):
        net = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 1))
        torch.save(net, tmp_path / "m.pt")
        found = read_file(tmp_path / "m.pt")["state_dict"]
        assert list(found) == list(net.state_dict())
        assert all(torch.equal(found[key], x) for key, x in net.state_dict().items())

    def test_one_of_no_known_layout_is_refused_by_what_it_is(self, tmp_path):
        torch.save(nn.Linear(14, 7), tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "a linear model")
        torch.save(nn.ReLU(), tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "ReLU", "without tensors")

    def test_its_configuration_counts(self, states, tmp_path):
        net = Net(states[20])
        for content in (net, {20: net, 40: net}):
            net.cfg = SimpleNamespace(p=7, use_attn_scale=False)
            torch.save(content, tmp_path / "m.pt")
            refusal(tmp_path / "m.pt", "use_attn_scale=False")
            net.cfg = SimpleNamespace(p=7, normalization_type="LNPre")
            torch.save(content, tmp_path / "m.pt")
            assert gi.load(tmp_path / "m.pt").architecture.normalization_type == "LNPre"

    def test_objects_beside_weights_are_named(self, states, tmp_path):
        content = {
            "model": states[20], "step": 20, "config": TrainConfig(), "path": pathlib.Path("a/b"),
            "kind": Kind.ADD, "rng": np.random.default_rng(0), "by": {Kind.ADD: 1, "x": [Plain()]},
        }  # fmt: skip
        torch.save(content, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        same_weights(run, {20: states[20]})
        assert has(run, "TrainConfig ('config')", "nothing of them was run")
        assert run.architecture.n_heads == 2

    def test_an_object_alone_is_refused_by_its_name(self, tmp_path):
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(TrainConfig(), 4))
        refusal(tmp_path / "m.pkl", "TrainConfig", "Nothing in it was run")
        torch.save({"model": Plain()}, tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "Plain", "Nothing in it was run")

    @pytest.mark.parametrize(
        "name",
        ["os.PathLike", "posix.Evil", "subprocess.CalledProcessError", "builtins.RuntimeError",
         "importlib.Loader", "ctypes.CDLL", "code.InteractiveConsole", "sys.Evil", "shutil.Error",
         "webbrowser.Mozilla", "pty.Spawn", "torch.hub.load", "numpy.load", "__main__.evil"],
    )  # fmt: skip
    def test_what_reaches_the_system_stays_refused(self, name, tmp_path):
        module, _, last = name.rpartition(".")
        kind = f"c{module}\n{last}\n".encode()
        begin = b"\x80\x04}\x8c\x05model"
        calls = {
            "reduce": kind + b"\x8c\x01x\x85R", "new": kind + b")\x81",
            "new_ex": kind + b")}\x92",
            "reconstructor": b"ccopyreg\n_reconstructor\n" + kind + b"cbuiltins\nobject\nN\x87R",
        }  # fmt: skip
        path = tmp_path / "x.pkl"
        for how, call in calls.items():
            path.write_bytes(begin + call + b"s.")
            # In lower case it may be a class where the pickle asks for an object of it, not a call.
            is_object = (
                name in ("torch.hub.load", "numpy.load", "__main__.evil") and how != "reduce"
            )
            said = f"is an object of {name}" if is_object else f"asks to call {name}"
            refusal(path, said, "Nothing in it was run")

    def test_models_without_end_are_refused(self, tmp_path):
        inside_itself = nn.Module()
        inside_itself._modules["a"] = inside_itself
        deep = nn.Module()
        for _ in range(150):
            outer = nn.Module()
            outer.inner = deep
            deep = outer
        many = nn.Linear(1, 1)
        for _ in range(40):
            outer = nn.Module()
            outer.a = outer.b = many
            many = outer
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(10_000)
        for model in (inside_itself, deep, many):
            torch.save({"model": model}, tmp_path / "m.pt")
            refusal(tmp_path / "m.pt", "inside of one another")
        sys.setrecursionlimit(limit)

    def test_odd_modules(self, tmp_path):
        """What only looks like a model, or holds itself."""
        odd = Plain()
        vars(odd).update(_parameters={"w": 3, 5: torch.ones(2)}, _buffers={}, _modules={"m": odd})
        torch.save({"model": odd}, tmp_path / "m.pt")
        refusal(tmp_path / "m.pt")
        loop = Plain()
        loop.self = loop
        loop.list = [loop]
        torch.save({"model": loop, "list": loop.list}, tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "Plain")


class Holder(nn.Module):
    """A module that holds a network, as Lightning's do; its class is of no importance."""

    def __init__(self, model, **attributes):
        super().__init__()
        self.model = model
        for name, value in attributes.items():
            setattr(self, name, value)


def hooked(weights, **config):
    """A network with a configuration of its own, as TransformerLens keeps it."""
    net = Net(weights)
    net.cfg = SimpleNamespace(**config)
    return net


class TestRepeatedModels:
    def test_many_references_to_one_model_are_refused_at_once(self, tmp_path):
        big, leaf = nn.Module(), nn.Module()
        leaf.w = nn.Parameter(torch.ones(1))
        for i in range(4000):
            big.add_module(f"m{i}", leaf)
        torch.save([big] * 1000, tmp_path / "m.pt")
        begin = time.process_time()
        refusal(tmp_path / "m.pt", "more than is read", "300000 modules")
        assert time.process_time() - begin < 5

    def test_many_references_to_one_state_dict_too(self, tmp_path):
        torch.save([dict.fromkeys(map(str, range(4000)), torch.ones(1))] * 1000, tmp_path / "m.pt")
        begin = time.process_time()
        refusal(tmp_path / "m.pt", "more than is read", "100000 weights")
        assert time.process_time() - begin < 5


class TestConfigurationOfAWrappedModel:
    @pytest.mark.parametrize("wrap", [nn.DataParallel, Holder, lambda x: Holder(Holder(x))])
    def test_what_a_run_has_no_place_for_is_refused(self, wrap, states, tmp_path):
        torch.save(wrap(hooked(states[60], output_logits_soft_cap=5.0)), tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "output_logits_soft_cap=5.0")

    def test_the_innermost_counts_and_that_around_it_is_kept(self, states, tmp_path):
        inner = hooked(states[60], act_fn="gelu")
        torch.save({"model": Holder(inner, config={"act_fn": "relu", "p": 7})}, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        assert run.architecture.act_fn == "gelu"
        assert has(run, "its configuration says", "p=7", "act_fn=gelu")

    def test_that_of_a_copy_does_not_count(self, states, tmp_path):
        copy = hooked(states[20], act_fn="relu")
        torch.save(Holder(hooked(states[60], act_fn="gelu"), ema=copy), tmp_path / "m.pt")
        assert gi.load(tmp_path / "m.pt").architecture.act_fn == "gelu"


class TestWhatLiesBesideAFolder:
    @pytest.fixture
    def folder(self, states, tmp_path):
        inner = tmp_path / "run" / "checkpoints"
        inner.mkdir(parents=True)
        for step, weights in states.items():
            torch.save(weights, inner / f"step_{step}.pt")
        return tmp_path / "run"

    @pytest.mark.parametrize("name", ["best_acc_99.pt", "final.pt", "model.safetensors"])
    def test_one_file_of_weights_is_named_in_a_note(self, name, folder, states):
        save = safetensors.torch.save_file if name.endswith("rs") else torch.save
        save(dict(states[0]), folder / name)
        run = gi.load(folder)
        same_weights(run, states)
        assert has(run, "lie beside the folder of the checkpoints", name)

    def test_numbered_files_without_weights_are_no_checkpoints(self, folder, states):
        for seed in (42, 43):
            torch.save({"train_loss": [4.0, 3.0, 2.0, 1.0]}, folder / f"results_{seed}.pt")
        (folder / "state_7.pt").write_bytes(b"PK half a file")
        run = gi.load(folder)
        same_weights(run, states)
        assert has(run, "hold no weights", "results_42.pt", "results_43.pt")
        assert has(run, "cannot be read", "state_7.pt")

    def test_of_two_series_one_has_to_be_given(self, folder, states):
        for step in (80, 100):
            torch.save(states[60], folder / f"model_{step}.pt")
        refusal(folder, "model_80.pt", "step_0.pt", "in checkpoints")

    def test_the_copy_above_those_of_a_trainer(self, states, tmp_path):
        folder = sub_folders(states, tmp_path / "run")
        safetensors.torch.save_file(dict(states[60]), folder / "model.safetensors")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": 60}))
        run = gi.load(folder)
        same_weights(run, states)
        assert has(run, "lie beside the folder of the checkpoints", "model.safetensors")

    def test_links_are_left_out_unless_all_are(self, folder, states):
        inner = folder / "checkpoints"
        (inner / "latest.pt").symlink_to("step_60.pt")
        (folder / "weights").symlink_to("checkpoints")
        run = gi.load(folder)
        same_weights(run, states)
        assert has(run, "are symbolic links", "latest.pt", "weights")
        real = inner.rename(folder / "real")
        (folder / "weights").unlink()
        (folder / "weights").symlink_to("real")
        refusal(folder, "weights is a symbolic link")
        (folder / "weights").unlink()
        inner.mkdir()
        for file in real.glob("step*"):
            (inner / file.name).symlink_to(file)
        refusal(folder, "is a symbolic link")

    def test_a_snapshot_of_the_hub_is_all_links(self, states, tmp_path):
        blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "rev"
        blobs.mkdir()
        for step, weights in states.items():
            torch.save(weights, blobs / f"hash{step}")
            (snapshot / f"checkpoint-{step}").mkdir(parents=True)
            link = snapshot / f"checkpoint-{step}" / "pytorch_model.bin"
            link.symlink_to(f"../../../blobs/hash{step}")
        same_weights(gi.load(snapshot), states)
        (blobs / "hash0").rename(tmp_path / "elsewhere")
        (snapshot / "checkpoint-0" / "pytorch_model.bin").unlink()
        (snapshot / "checkpoint-0" / "pytorch_model.bin").symlink_to(tmp_path / "elsewhere")
        refusal(snapshot, "is a symbolic link")

    def test_one_file_without_a_step_is_read_as_it_is_by_itself(self, states, tmp_path):
        safetensors.torch.save_file(dict(states[60]), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"p": 7}))
        run = gi.load(tmp_path)
        assert run.steps == (0,)
        assert has(run, "it stands at step 0 (give step=)")
        same_weights(gi.load(tmp_path, step=60), {60: states[60]})

    def test_why_the_only_file_cannot_be_read(self, states, tmp_path):
        torch.save(states[60], tmp_path / "model.pt")
        whole = (tmp_path / "model.pt").read_bytes()
        (tmp_path / "model.pt").write_bytes(whole[:-200])
        refusal(tmp_path, "damaged or cut off")
        (tmp_path / "other.pt").write_bytes(whole[:-300])
        refusal(tmp_path, "damaged or cut off")

    def test_a_weight_that_an_index_does_not_list(self, states, tmp_path):
        index = in_parts(states[20], tmp_path, "safetensors")
        listed = json.loads(index.read_text())
        del listed["weight_map"]["unembed.b_U"]
        index.write_text(json.dumps(listed))
        refusal(tmp_path, "'unembed.b_U'", "does not list")


class TestStepsOfPublishedCodes:
    @pytest.mark.parametrize(
        ("names", "code"),
        [(("state_dicts", "epochs"), "Nanda"), (("checkpoints", "checkpoint_epochs"), "Demo")],
    )
    def test_one_later_is_a_note_and_can_be_told_otherwise(self, names, code, states, tmp_path):
        torch.save(
            dict(zip(names, ([*states.values()], [*states]), strict=True)), tmp_path / "m.pt"
        )
        run = gi.load(tmp_path / "m.pt")
        assert run.steps == tuple(step + 1 for step in states)
        assert has(run, "weights of epoch e are taken to be step e + 1", code, "format=steps")
        same_weights(gi.load(tmp_path / "m.pt", format="steps"), states)

    def test_a_tensor_that_is_stored_negated_is_refused(self, states, tmp_path):
        negated = torch.complex(torch.zeros(8, 16), -states[60]["embed.W_E"]).conj().imag
        assert negated.is_neg()
        torch.save({**states[60], "embed.W_E": negated}, tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "stored negated")

    def test_positions_are_not_exported_as_epochs(self, states, tmp_path):
        torch.save([*states.values()], tmp_path / "m.pt")
        with pytest.raises(gi.InputError, match="nobody knows the steps"):
            gi.export(gi.load(tmp_path / "m.pt"), tmp_path / "out.pth")
        assert not (tmp_path / "out.pth").exists()


class TestContainersInContainers:
    @pytest.mark.parametrize(
        ("wrap", "key"),
        [
            (lambda x: {"model": {"state_dict": x}, "step": 60}, "model"),
            (lambda x: {"checkpoint": {"model": x, "step": 60}}, "checkpoint"),
            (lambda x: {"best_state_dict": x, "step": 60}, "best_state_dict"),
            (lambda x: {"run": {"it": {"net": x, "global_step": 60}}}, "run"),
        ],
    )
    def test_one_state_dict(self, wrap, key, states, tmp_path):
        torch.save(wrap(states[60]), tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        same_weights(run, {60: states[60]})
        assert has(run, f"read is its '{key}'")
        folder = tmp_path / "folder"
        folder.mkdir()
        for step in (20, 60):
            torch.save(wrap(states[step]), folder / f"at_step_{step}.pt")
        (folder / "at_step_20.pt").unlink()
        same_weights(gi.load(folder, format="folder"), {60: states[60]})

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda x: {"results": {"checkpoints": x}}, lambda x: {"my_cool_thing": x},
            lambda x: {"run": {"x": {"weights": x}}},
            lambda x: {"mine": [*x.values()], "steps": [*x]},
            lambda x: [[step, state] for step, state in x.items()],
            lambda x: [(state, step) for step, state in x.items()],
            lambda x: [(step, state, 0.5) for step, state in x.items()],
            lambda x: {f"weights_{step}": state for step, state in x.items()},
            lambda x: {f"{step}.pt": state for step, state in x.items()},
            lambda x: {f"epoch_0_step_{step}": state for step, state in x.items()},
        ],
    )  # fmt: skip
    def test_several(self, wrap, states, tmp_path):
        torch.save(wrap(states), tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        same_weights(run, states)
        assert run.steps_known

    def test_numbers_that_are_taken_for_steps_are_a_note(self, states, tmp_path):
        torch.save(states, tmp_path / "m.pt")
        assert has(gi.load(tmp_path / "m.pt"), "the numbers by which", "0 to 60", "to be steps")

    def test_a_list_of_other_length_is_named(self, states, tmp_path):
        torch.save({"snapshots": [*states.values()], "steps": [0, 20, 40]}, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        assert not run.steps_known
        assert has(run, "nobody says the steps", "'steps' has 3")

    def test_a_tuple_is_a_list(self, states, tmp_path):
        torch.save(tuple(states.values()), tmp_path / "m.pt")
        assert not gi.load(tmp_path / "m.pt").steps_known

    def test_of_two_places_neither_is_chosen(self, states, tmp_path):
        torch.save({"runs": {"one": states[20], "two": states[60]}}, tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "'one', 'two'")

    def test_what_is_left_out_beside_is_named(self, states, tmp_path):
        content = {"ema": states[20], "model": states[60], "best_state_dict": states[0], "step": 60}
        torch.save(content, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        same_weights(run, {60: states[60]})
        assert has(run, "left out are other weights", "'ema'", "'best_state_dict'")
        torch.save(
            {"checkpoints": states, "snapshots": {0: states[0]}, "best": states[0]},
            tmp_path / "m.pt",
        )
        run = gi.load(tmp_path / "m.pt")
        same_weights(run, states)
        assert has(run, "another series", "'snapshots'")
        assert has(run, "have no step", "'best'")

    def test_what_is_left_out_of_a_folder_is_named(self, states, tmp_path):
        folder = sub_folders(states, tmp_path / "run")
        torch.save(states[0], folder / "checkpoint-60" / "pytorch_model.bin")
        (folder / "best").mkdir()
        FILES["model.safetensors"](states[0], folder / "best")
        run = gi.load(folder)
        same_weights(run, states)
        assert has(run, "beside the file of the step", "checkpoint-60/pytorch_model.bin")
        assert has(run, "in a folder that says no step", "best")

    @pytest.mark.parametrize("name", ["step_20,{:03d}", "step_20_{:03d}", "ep6-ba20{:03d}-rank0"])
    def test_grouped_digits_of_a_step(self, name, states, tmp_path):
        for step, weights in states.items():
            torch.save(weights, tmp_path / f"{name.format(step)}.pt")
        same_weights(gi.load(tmp_path), {20_000 + step: x for step, x in states.items()})

    @pytest.mark.parametrize("name", ["run_{}", "rank_{}", "seed{}", "trial-{}"])
    def test_numbers_of_runs_are_no_steps(self, name, states, tmp_path):
        for step, weights in states.items():
            torch.save(weights, tmp_path / f"{name.format(step)}.pt")
        refusal(tmp_path, "has no step in it or in its name")

    def test_checkpoints_of_several_runs_are_refused(self, states, tmp_path):
        for i, (step, weights) in enumerate(states.items()):
            torch.save(weights, tmp_path / f"seed{i // 2}_step{step}.pt")
        refusal(tmp_path, "several runs by their names (seed0, seed1)", "those of one run")

    def test_what_is_taken_by_names_alone_is_said(self, states, tmp_path):
        for step, weights in states.items():
            torch.save(weights, tmp_path / f"model_{step}.pt")
        said = "the numbers in the names of its checkpoints, 0 to 60, are taken to be steps"
        assert has(gi.load(tmp_path), said)
        torch.save(states[20], tmp_path / "teacher_80.pt")
        assert has(gi.load(tmp_path), "several names", "'model', 'teacher'")

    @pytest.mark.parametrize("suffix", [".pth.tar", ".pickle"])
    def test_other_endings(self, suffix, states, tmp_path):
        for step, weights in states.items():
            torch.save({"state_dict": weights}, tmp_path / f"checkpoint-{step}{suffix}")
        torch.save(states[60], tmp_path / f"model_best{suffix}")
        same_weights(gi.load(tmp_path), states)

    def test_the_run_json_of_another_tool_is_none(self, states, tmp_path):
        folder = sub_folders(states, tmp_path / "run")
        (folder / "run.json").write_text('{"status": "COMPLETED", "format": "MongoObserver-0.7.0"}')
        same_weights(gi.load(folder), states)
        (folder / "run.json").write_text("{")
        refusal(folder, "damaged")

    def test_linked_folders_are_named(self, states, tmp_path):
        folder = sub_folders(states, tmp_path / "run")
        (folder / "best").symlink_to("checkpoint-20")
        assert has(gi.load(folder), "symbolic links: best")

    def test_what_is_within_is_named(self, states, tmp_path):
        folder = sub_folders(states, tmp_path / "2026" / "run" / "mine")
        refusal(folder.parents[1], "no checkpoints to import but in 'run/mine/checkpoint-0'")
        for name, what in ((".metadata", "distributed checkpoint"), ("_METADATA", "Orbax")):
            (tmp_path / what).mkdir()
            (tmp_path / what / name).touch()
            refusal(tmp_path / what, what, "which is not read")

    @pytest.mark.parametrize("name", ["model_{}", "it{}", "run_step_{}", "checkpoint-{}-best"])
    def test_names_of_folders(self, name, states, tmp_path):
        for step, weights in states.items():
            (tmp_path / name.format(step)).mkdir()
            torch.save(weights, tmp_path / name.format(step) / "weights.pt")
        same_weights(gi.load(tmp_path), states)


class lower_case:  # noqa: N801
    def __init__(self):
        self.p = 7


ODD = {
    "tuple keys": {(0, 1): 0.5, ((0, 1), 2): 1}, "set of tuples": {(0, 1), (2, 3)},
    "frozenset": frozenset([1, frozenset([2])]), "range": range(3), "slice": slice(1, 2),
    "complex": 1j, "uuid": uuid.UUID(int=5), "pattern": re.compile("a"), "large": 2**200,
    "text": np.array(["add"]), "objects": np.array([None, {}], dtype=object),
    "complexes": np.array([1j]), "date": np.datetime64("2020-01-01"), "scalar": np.complex128(1j),
    "np.str_": np.str_("a"), "structured": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
    "time": pd.Timestamp("2020-01-01"), "series": pd.Series([1.0, 2.0]),
    "table": pd.DataFrame({"step": [0, 1], "x": ["a", "b"]}), "lower case": lower_case(),
    "bytearray": bytearray(b"abc"),
}  # fmt: skip


class TestOddValues:
    @pytest.mark.parametrize("name", ODD)
    @pytest.mark.parametrize("protocol", [2, 4, 5])
    def test_beside_good_weights(self, name, protocol, states, tmp_path):
        content = {"model": states[60], "step": 60, "odd": ODD[name]}
        torch.save(content, tmp_path / "m.pt", pickle_protocol=protocol)
        same_weights(gi.load(tmp_path / "m.pt"), {60: states[60]})

    @pytest.mark.parametrize(
        "call",
        ["builtins\neval", "builtins\nexec", "builtins\nopen", "builtins\n__import__", "os\nsystem",
         "builtins\ngetattr", "subprocess\nrun", "torch\nload", "mine\nlower", "re\ncompile"],
    )  # fmt: skip
    def test_calls_are_refused_as_ever(self, call, tmp_path):
        (tmp_path / "m.pkl").write_bytes(b"\x80\x02c" + call.encode() + b"\nX\x01\0\0\0a\x85R.")
        refusal(tmp_path / "m.pkl", "it asks to call", call.replace("\n", "."))

    @pytest.mark.parametrize("protocol", [2, 4, 5])
    def test_pickle_dump(self, protocol, states, tmp_path):
        with open(tmp_path / "m.pkl", "wb") as file:
            pickle.dump(states, file, protocol=protocol)
        same_weights(gi.load(tmp_path / "m.pkl"), states)

    def test_weights_that_are_arrays(self, states, tmp_path):
        arrays = {name: weight.numpy() for name, weight in states[60].items()}
        with open(tmp_path / "m.pkl", "wb") as file:
            pickle.dump({"step": 60, "params": arrays}, file)
        same_weights(gi.load(tmp_path / "m.pkl"), {60: states[60]})

    def test_a_storage_inside_a_storage_is_refused(self, tmp_path):
        inner = pickle.dumps(pickle.dumps([1], protocol=2), protocol=2)
        content = b"\x80\x02ctorch.storage\n_load_from_bytes\n" + inner[2:-1] + b"\x85R."
        (tmp_path / "m.pkl").write_bytes(content)
        refusal(tmp_path / "m.pkl")


SIZES = {
    "n_layers": 1, "n_heads": 2, "d_model": 16, "d_head": 8, "d_mlp": 32, "d_vocab": 8,
    "d_vocab_out": 7, "n_ctx": 3, "act_fn": "relu",
}  # fmt: skip


class HookedTransformerConfig:
    def __init__(self):
        self.__dict__.update(SIZES, seed=999)


class TestWordsOfConfigurations:
    """What is said of the operation, the activation and the seed, in the words of others."""

    def saved(self, states, folder, config):
        torch.save({"model": states[60], "step": 60, "config": config}, folder / "m.pt")
        return folder / "m.pt"

    @pytest.mark.parametrize(
        ("operation", "words"),
        [
            ("add", ["x+y", "+", "plus", "addition", "modular_addition", "(a + b) % p", "Add"]),
            ("subtract", ["x-y", "-", "sub", "minus", "modular_subtraction", "x_minus_y",
                          "(x - y) mod 97"]),
            ("multiply", ["x*y", "*", "mul", "mult", "times", "product", "modular multiplication"]),
            ("x2xyy2", ["x^2+xy+y^2", "x**2 + x*y + y**2", "(a^2+ab+b^2) % p"]),
        ],
    )  # fmt: skip
    def test_an_operation_in_usual_words(self, operation, words, states, tmp_path):
        for word in words:
            for key in ("operation", "operator", "task_name"):
                run = gi.load(self.saved(states, tmp_path, {"p": 7, "data": {key: word}}))
                assert run.task.operation == operation
                assert has(run, "its configuration says", f"operation={operation}")
                assert not has(run, "is assumed", "operation")

    @pytest.mark.parametrize(
        ("key", "word"),
        [
            ("operation", "gcd(x, y)"), ("op", "max"), ("operator", "//"), ("fn_name", "x&y"),
            ("operation", "nonsense"), ("task", "modular_arithmetic"), ("fn", "x+y+z"),
            ("math_operator", "x+x"), ("task_name", "a"), ("operation", "x" * 5000),
        ],
    )  # fmt: skip
    def test_of_an_operation_that_is_not_known_nothing_is_guessed(
        self, key, word, states, tmp_path
    ):
        run = gi.load(self.saved(states, tmp_path, {"p": 7, key: word}))
        assert has(run, f"its configuration says {key}='{word[:20]}", "is not known here")
        assert has(run, "operation=add is assumed", "set operation=")

    def test_words_that_contradict_one_another(self, states, tmp_path):
        config = {"p": 7, "operation": "add", "task_name": "sub", "task": "grokking"}
        path = self.saved(states, tmp_path, config)
        run = gi.load(path)
        assert run.task.operation == "add"
        assert has(run, "task_name='sub', not add")
        assert not has(run, "grokking")
        (tmp_path / "config.json").write_text('{"operation": "max(x, y)"}')
        refusal(path, "operation='add'", "operation='max(x, y)'")
        (tmp_path / "config.json").write_text('{"operation": "${task.name}"}')
        assert gi.load(path).task.operation == "add"

    @pytest.mark.parametrize(
        "config",
        [
            {"activation_function": "gelu_new", "layer_norm_epsilon": 0.1, "n_head": 2},
            {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 0.1, "num_attention_heads": 2},
            {"act": "GELU_new", "eps": 1e-8, "layer_norm_epsilon": 0.1, "n_head": 2},
            {"nonlinearity": "gelu_new", "layer_norm_epsilon": 0.1, "n_heads": 2},
        ],
    )
    def test_the_activation_and_eps_of_hugging_face(self, config, tmp_path):
        folder = gpt2(tmp_path / "checkpoint-20")
        (folder / "config.json").write_text(json.dumps(config))
        run = gi.load(tmp_path)
        shape = run.architecture
        assert (shape.act_fn, shape.eps, shape.n_heads) == ("gelu_new", 0.1, 2)
        assert not has(run, "act_fn", "assumed")
        assert not has(run, "eps", "assumed")

    @pytest.mark.parametrize("key", ["activation_function", "hidden_act", "act", "nonlinearity"])
    def test_an_activation_that_is_not_known_is_refused(self, key, tmp_path):
        folder = gpt2(tmp_path / "checkpoint-20")
        (folder / "config.json").write_text(json.dumps({key: "tanh"}))
        refusal(tmp_path, "tanh", "set act_fn=")
        assert gi.load(tmp_path, act_fn="relu").architecture.act_fn == "relu"

    def test_the_sizes_of_hugging_face(self, tmp_path):
        folder = gpt2(tmp_path / "checkpoint-20")
        (folder / "config.json").write_text('{"n_positions": 64}')
        refusal(tmp_path, "n_positions=64", "n_ctx=3")
        (folder / "config.json").write_text('{"n_positions": 3, "scale_attn_weights": false}')
        refusal(tmp_path, "scale_attn_weights=False")

    @pytest.mark.parametrize("config", [HookedTransformerConfig(), {**SIZES, "seed": 999}])
    @pytest.mark.parametrize("name", ["config", "model_cfg", "cfg"])
    def test_the_seed_of_weights_is_not_that_of_the_split(self, name, config, states, tmp_path):
        content = {"model": states[60], "step": 60, name: config, "p": 7, "train_fraction": 0.5}
        for more in ({}, {"train_config": {"seed": 5}}):
            torch.save({**content, **more}, tmp_path / "m.pt")
            run = gi.load(tmp_path / "m.pt")
            assert not has(run, "999")
            assert has(run, "data_seed=5") == bool(more)

    def test_a_seed_beside_sizes_and_data_is_that_of_all(self, states, tmp_path):
        run = gi.load(self.saved(states, tmp_path, {**SIZES, "p": 7, "lr": 1e-3, "seed": 5}))
        assert has(run, "data_seed=5")


def gpt2(folder):
    """A checkpoint with the names of `GPT2LMHeadModel`, as its `save_pretrained` writes it."""
    layer = {"attn.c_attn": (16, 48), "attn.c_proj": (16, 16), "mlp.c_fc": (16, 32),
             "mlp.c_proj": (32, 16)}  # fmt: skip
    norms = ("transformer.h.0.ln_1", "transformer.h.0.ln_2", "transformer.ln_f")
    shapes = {
        "transformer.wte.weight": (8, 16), "transformer.wpe.weight": (3, 16),
        **{f"transformer.h.0.{name}.weight": shape for name, shape in layer.items()},
        **{f"transformer.h.0.{name}.bias": shape[1:] for name, shape in layer.items()},
        **{f"{name}.{part}": (16,) for name in norms for part in ("weight", "bias")},
    }  # fmt: skip
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    safetensors.torch.save_file(state, folder / "model.safetensors")
    return folder


def wandb(config):
    return {"wandb_version": 1, "_wandb": {"desc": None, "value": {"t": {"1": [1, 5]}}},
            **{key: {"desc": None, "value": value} for key, value in config.items()}}  # fmt: skip


class TestFilesOfTrackers:
    """What Weights & Biases and Hydra write beside checkpoints, and logs of killed runs."""

    @pytest.mark.parametrize("name", ["config.yaml", "config.json"])
    def test_values_of_wandb(self, name, states, tmp_path):
        torch.save(states[60], tmp_path / "m_60.pt")
        for config, words in (
            ({"p": 7, "fn_name": "x-y", "data": {"seed": 5}}, ["p=7", "subtract", "data_seed=5"]),
            ({"value": 3, "data": {"value": 1}}, []),
        ):
            (tmp_path / name).write_text(json.dumps(wandb(config)))  # which is YAML too
            run = gi.load(tmp_path / "m_60.pt")
            assert has(run, "its configuration says", *words) == bool(words)
        (tmp_path / name).write_text(json.dumps(wandb({"p": 11})))
        refusal(tmp_path / "m_60.pt", "p=11")

    @pytest.mark.parametrize("inner", ["", "checkpoints"])
    def test_the_configuration_of_hydra(self, inner, states, tmp_path):
        (tmp_path / inner).mkdir(exist_ok=True)
        for step in (20, 60):
            torch.save(states[step], tmp_path / inner / f"step_{step}.pt")
        hydra = tmp_path / ".hydra"
        hydra.mkdir()
        (hydra / "overrides.yaml").write_text("- task.p=11\n- lr=0.1\n")
        (hydra / "config.yaml").write_text("task:\n  p: 7\n  operation: x-y\nn: ${task.p}\n")
        run = gi.load(tmp_path)
        assert run.steps == (20, 60)
        assert has(run, "its configuration says", "p=7", "operation=subtract")
        (hydra / "config.yaml").write_text("p: 11\n")
        refusal(tmp_path, "p=11")
        (hydra / "config.yaml").write_text("p: [\n")
        assert has(gi.load(tmp_path), "config.yaml next to it is left alone")

    @pytest.mark.parametrize("tail", ['{"step": 60, "train_l', '{"step": 60, "train_loss": 1e', ""])
    @pytest.mark.parametrize("between", ["", "Epoch 3 done\n"])
    def test_a_log_whose_last_line_is_cut(self, tail, between, states, tmp_path):
        torch.save(states[60], tmp_path / "m_step_60.pt")
        lines = [json.dumps({"step": step, "train_loss": 2.0 - step / 100}) for step in (0, 20, 40)]
        text = "\n".join(lines[:2]) + f"\n{between}{lines[2]}\n{tail}"
        (tmp_path / "metrics.jsonl").write_text(text)
        run = gi.load(tmp_path / "m_step_60.pt")
        read = gi.read_log(tmp_path / "metrics.jsonl")
        found = run.metrics.dropna(subset="train_loss")
        assert found["train_loss"].tolist() == read["train_loss"].tolist() == [2.0, 1.8, 1.6]
        assert has(run, "metrics.jsonl is read without", "cut off") == bool(tail)
        assert has(run, "metrics.jsonl is read without", "1 lines that are no JSON") == bool(
            between
        )


class TestRowsInFiles:
    @pytest.fixture
    def path(self, states, tmp_path):
        torch.save(states[60], tmp_path / "m_60.pt")
        return tmp_path / "m_60.pt"

    @pytest.mark.parametrize("kind", ["rows", "pairs", "named"])
    def test_a_list_in_json(self, kind, tiny_run, path, tmp_path):
        rows = tiny_run.train_indices.tolist()
        content = {"rows": rows, "pairs": [[row // 7, row % 7] for row in rows],
                   "named": {"train_indices": rows}}[kind]  # fmt: skip
        (tmp_path / "rows.json").write_text(json.dumps(content))
        run = gi.load(path, train_indices=str(tmp_path / "rows.json"))
        assert torch.equal(run.train_indices, tiny_run.train_indices)

    @pytest.mark.parametrize(
        "text", ["[1, 2", "", "{}", "[0.5, 1]", '["a"]', "[" * 99_999, "[[1], 2]"]
    )
    def test_what_is_no_list_of_rows_is_refused_as_that(self, text, path, tmp_path):
        (tmp_path / "rows.json").write_text(text)
        said = refusal(path, "rows.json", "rows a*p + b", train_indices=str(tmp_path / "rows.json"))
        assert "checkpoint" not in said
        refusal(path, "none.json", "rows a*p + b", train_indices=str(tmp_path / "none.json"))

    def test_an_array_beside_the_checkpoints(self, tiny_run, path, tmp_path):
        np.save(tmp_path / "train_indices.npy", tiny_run.train_indices.numpy())
        for where in (path, tmp_path):
            assert torch.equal(gi.load(where).train_indices, tiny_run.train_indices)
        (tmp_path / "train_indices.npy").write_bytes(b"\x93NUMPY half")
        assert has(gi.load(path), "train_indices.npy next to it is left alone")

    def test_files_of_which_something_is_used_are_not_left_out(self, tiny_run, path, tmp_path):
        torch.save({"train_indices": tiny_run.train_indices}, tmp_path / "train_indices.pt")
        torch.save({"test_losses": [2.0] * 61}, tmp_path / "metrics.pt")
        torch.save({"anything": 3}, tmp_path / "other.pt")
        run = gi.load(tmp_path)
        assert torch.equal(run.train_indices, tiny_run.train_indices)
        assert has(run, "left out, as they hold no weights: other.pt")
        assert has(run, "read for what else they say", "metrics.pt, train_indices.pt")
        assert not has(run, "left out", "metrics.pt")
