"""Checkpoints of others, from independent writers (tests/foreign.py) back into runs."""

import json
import sys
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch

import grokinterp as gi
from grokinterp.models.transformer import TransformerArchitecture
from tests.foreign import (
    bridge_state,
    gpt_state,
    paper_file,
    paper_state,
    python_split,
    trainer_folder,
)

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time


@pytest.fixture(scope="module")
def paper_run(tiny, tmp_path_factory):
    """A tiny run in the paper's setting, every loss logged."""
    recipe = tiny.replace(
        split="python", data_seed=3, biases="mlp", equals_class=True, warmup=10, log_every=1
    )
    return gi.train(recipe, tmp_path_factory.mktemp("paper") / "run")


def same_weights(ours, theirs):
    assert list(ours) == list(theirs)
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name


def same_task(ours, theirs):
    assert (ours.operation, ours.p) == (theirs.operation, theirs.p)
    assert torch.equal(ours.tokens, theirs.tokens)


def hooked_config(model, monkeypatch):
    """A HookedTransformerConfig, or its likeness where TransformerLens 4 has none."""
    if version("transformer-lens").startswith("3."):
        return model.cfg
    name = "transformer_lens.HookedTransformerConfig"
    config = type("HookedTransformerConfig", (), {"__module__": name})
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(HookedTransformerConfig=config))
    likeness = config()
    vars(likeness).update(n_heads=2, act_fn="relu", dtype=torch.float32, d_model=16)
    return likeness


def random_weights(**changes):
    """Weights with every parameter away from its initial value."""
    sizes = {
        "n_layers": 1, "n_heads": 2, "d_model": 12, "d_head": 8, "d_mlp": 20,
        "d_vocab": 8, "d_vocab_out": 7, "n_ctx": 3,
    }  # fmt: skip
    architecture = TransformerArchitecture(**{**sizes, **changes})
    weights = architecture.initial(seed=5)
    generator = torch.Generator().manual_seed(6)
    noise = {n: torch.randn(w.shape, generator=generator) for n, w in weights.items()}
    return architecture, {name: w + 0.3 * noise[name] for name, w in weights.items()}


class TestFormats:
    def test_the_papers_file(self, paper_run, tmp_path):
        run = gi.load(paper_file(paper_run, tmp_path / "full_run_data.pth", split_seed=3))
        assert run.steps == paper_run.steps[1:]  # epoch e is step e + 1; there is no step 0
        for step in run.steps:
            same_weights(run.weights(step), paper_run.weights(step))
        assert torch.equal(run.train_indices, paper_run.train_indices)
        assert any("verified" in note for note in run.notes)
        assert run.architecture == paper_run.architecture
        same_task(run.task, paper_run.task)
        logged = paper_run.metrics.set_index("step")
        found = run.metrics.set_index("step")
        every = found["train_loss"].dropna()
        assert every.index.tolist() == list(range(61))
        assert np.allclose(every, logged.loc[every.index, "train_loss"], rtol=1e-6)
        tenth = found["test_loss"].dropna()
        assert {0, 10, 20, 30, 40, 50} <= set(tenth.index)
        assert np.allclose(tenth, logged.loc[tenth.index, "test_loss"], rtol=1e-6)
        assert found["test_acc"].dropna().index.tolist() == list(run.steps)

    def test_a_configuration_that_does_not_give_its_losses_is_not_believed(
        self, paper_run, tmp_path
    ):
        run = gi.load(paper_file(paper_run, tmp_path / "full_run_data.pth", split_seed=4))
        assert run.train_mask is None
        assert any("not the split of this run" in note for note in run.notes)
        with pytest.raises(gi.InputError, match="not the split of this run"):
            gi.load(tmp_path / "full_run_data.pth", split="python", data_seed=4)
        right = gi.load(tmp_path / "full_run_data.pth", split="python", data_seed=3)
        assert torch.equal(right.train_mask, paper_run.train_mask)

    def test_the_papers_code_keeps_its_vocabulary(self, tiny, tmp_path):
        """Trained with another p, it has the tokens and classes of p = 113: here of 7."""
        recipe = tiny.replace(
            p=5, equals_class=True, biases="mlp", steps=200, checkpoints=[200], train_fraction=0.9
        )
        weights = gi.train(recipe, tmp_path / "run").weights()
        more = {"embed.W_E": torch.ones(2, 16), "unembed.W_U": torch.zeros(16, 2)}
        weights["embed.W_E"] = torch.cat([weights["embed.W_E"], more["embed.W_E"]])
        weights["unembed.W_U"] = torch.cat([weights["unembed.W_U"], more["unembed.W_U"]], dim=1)
        weights["unembed.b_U"] = torch.zeros(8)

        def load(p):
            content = {
                "state_dicts": [paper_state(weights)], "epochs": [199],
                "config": {"p": p, "fn_name": "add", "seed": 0},
            }  # fmt: skip
            torch.save(content, tmp_path / "full_run_data.pth")
            return gi.load(tmp_path / "full_run_data.pth")

        assert load(5).task.p == 5
        assert any("more than it needs" in note for note in load(5).notes)
        with pytest.raises(gi.InputError, match="contradict"):
            load(3)
        with pytest.raises(gi.InputError, match="says p=8"):
            load(8)

    def test_its_trainer_folder(self, paper_run, tmp_path):
        run = gi.load(trainer_folder(paper_run, tmp_path / "run"))
        assert run.manifest.source["format"] == "trainer"
        assert run.steps == paper_run.steps
        for step in run.steps:
            same_weights(run.weights(step), paper_run.weights(step))
        assert set(run.train_indices.tolist()) == set(paper_run.train_indices.tolist())
        logged = paper_run.metrics.set_index("step")["train_loss"]
        found = run.metrics.set_index("step")["train_loss"]
        assert np.allclose(found, logged.loc[found.index], rtol=1e-6)

    def test_the_demos_file_with_its_pickled_config(self, tiny_run, tmp_path, monkeypatch):
        steps = tiny_run.steps[1:]
        models = [tiny_run.model(step) for step in steps]
        metrics = tiny_run.metrics.set_index("step").reindex(range(61)).interpolate()
        content = {
            "model": models[-1].state_dict(),
            "config": hooked_config(models[-1], monkeypatch),
            "checkpoints": [model.state_dict() for model in models],
            "checkpoint_epochs": [step - 1 for step in steps],
            "train_losses": metrics["train_loss"].tolist()[:60],
            "test_losses": metrics["test_loss"].tolist()[1:],
            "train_indices": tiny_run.train_indices,
            "test_indices": (~tiny_run.train_mask).nonzero().flatten(),
        }
        torch.save(content, tmp_path / "grokking_demo.pth")
        run = gi.load(tmp_path / "grokking_demo.pth")
        assert run.manifest.source["format"] == "demo"
        assert run.steps == steps
        for step in steps:
            same_weights(run.weights(step), tiny_run.weights(step))
        logged = tiny_run.metrics.set_index("step")
        found = run.metrics.set_index("step")
        for column in ("train_loss", "test_loss"):
            assert np.allclose(found.loc[list(steps), column], logged.loc[list(steps), column])

    @pytest.mark.parametrize("offset", [0, 1])
    def test_the_demos_test_losses_go_where_the_weights_agree(self, offset, tiny_run, tmp_path):
        metrics = tiny_run.metrics.set_index("step").reindex(range(62)).interpolate()
        content = {
            "checkpoints": [tiny_run.weights(step) for step in tiny_run.steps[1:]],
            "checkpoint_epochs": [step - 1 for step in tiny_run.steps[1:]],
            "train_losses": metrics["train_loss"].tolist()[:60],
            "test_losses": metrics["test_loss"].tolist()[offset : offset + 60],
            "train_indices": tiny_run.train_indices,
        }
        torch.save(content, tmp_path / "demo.pth")
        found = gi.load(tmp_path / "demo.pth").metrics.set_index("step")["test_loss"]
        assert np.allclose(found.loc[20], metrics.loc[20, "test_loss"])
        assert np.allclose(found.loc[25], metrics.loc[25, "test_loss"])

    def test_a_single_state_dict(self, tiny_run, tmp_path):
        weights = tiny_run.weights()
        for content, name, step in (
            (weights, "model.pt", 0),
            (weights, "step_60.pt", 60),
            ({"state_dict": weights, "step": 40, "optimizer": {"lr": 1}}, "best.ckpt", 40),
        ):
            torch.save(content, tmp_path / name)
            run = gi.load(tmp_path / name)
            assert run.steps == (step,)
            same_weights(run.weights(), weights)
        assert any("step 0" in note for note in gi.load(tmp_path / "model.pt").notes)
        assert gi.load(tmp_path / "model.pt", step=7).steps == (7,)

    @pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
    def test_a_folder_of_state_dicts(self, suffix, tiny_run, tmp_path):
        for step in tiny_run.steps:
            path = tmp_path / f"ckpt-{step}.{suffix}"
            if suffix == "safetensors":
                safetensors.torch.save_file(tiny_run.weights(step), path)
            else:
                torch.save(tiny_run.weights(step), path)
        (tmp_path / "notes.txt").write_text("not a checkpoint")
        run = gi.load(tmp_path, train_indices=str(tiny_run.path / "split.safetensors"))
        assert run.steps == tiny_run.steps
        assert torch.equal(run.train_indices, tiny_run.train_indices)
        ours = gi.progress_measures(tiny_run)
        np.testing.assert_array_equal(gi.progress_measures(run), ours)

    def test_what_a_single_file_keeps_besides_is_used(self, tiny_run, tmp_path):
        rows, loss = tiny_run.train_indices, float(tiny_run.metrics["train_loss"].iloc[-1])
        kept = {"model": tiny_run.weights(), "step": 60, "train_loss": loss}
        torch.save({**kept, "train_indices": rows}, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        assert torch.equal(run.train_indices, rows)
        assert any("verified at step 60" in note for note in run.notes)
        torch.save({**kept, "train_indices": (rows + 1) % 49}, tmp_path / "wrong.pt")
        with pytest.raises(gi.InputError, match="is not the split of this run"):
            gi.load(tmp_path / "wrong.pt")

    def test_one_file_of_the_papers_trainer_has_the_step_it_has_in_its_folder(
        self, paper_run, tmp_path
    ):
        folder = trainer_folder(paper_run, tmp_path / "run")
        torch.save({"note": "not a checkpoint"}, folder / "extra.pt")
        run = gi.load(folder)
        assert run.steps == paper_run.steps
        assert any("extra.pt" in note for note in run.notes)
        for file in folder.glob("*.pth"):
            alone = gi.load(file)
            same_weights(alone.weights(), run.weights(alone.steps[0]))

    def test_files_beside_numbered_ones(self, tiny_run, tmp_path):
        for name in ("best", "last", "step_20", "step_40"):
            torch.save(tiny_run.weights(), tmp_path / f"{name}.pt")
        run = gi.load(tmp_path)
        assert run.steps == (20, 40)
        assert any("best.pt, last.pt" in note for note in run.notes)

    def test_epochs_of_another_loop_keep_their_number(self, tiny_run, tmp_path):
        for epoch in (20, 40):
            content = {"model": tiny_run.weights(), "epoch": epoch, "train_loss": 1.0}
            torch.save(content, tmp_path / f"{epoch}.pt")
        assert gi.load(tmp_path, format="folder").steps == (20, 40)
        assert gi.load(tmp_path).steps == (21, 41)  # by the paper's convention, which a note says
        for epoch in (20, 40):
            (tmp_path / f"{epoch}.pt").rename(tmp_path / f"net_{epoch}.pt")
        assert gi.load(tmp_path).steps == (20, 40)

    def test_torch_saves_of_every_age(self, tiny_run, tmp_path):
        weights = tiny_run.weights()
        torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        same_weights(gi.load(tmp_path / "old.pt").weights(), weights)

    def test_half_precision_is_widened(self, tiny_run, tmp_path):
        halves = {name: weight.half() for name, weight in tiny_run.weights().items()}
        torch.save(halves, tmp_path / "half.pt")
        found = gi.load(tmp_path / "half.pt").weights()
        same_weights(found, {name: weight.float() for name, weight in halves.items()})


class TestLayouts:
    VARIANTS = (
        {},
        {"n_layers": 2},
        {"normalization_type": "LN", "act_fn": "gelu"},
        {"n_ctx": 2, "d_vocab": 7},
        {"d_vocab_out": 8},
    )

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("layout", ["hooked", "bridge", "gpt", "compiled"])
    def test_every_layout_gives_back_the_weights(self, layout, variant, tmp_path):
        architecture, weights = random_weights(**variant)
        gpt = {
            "pos_embed.weight": "pos_emb", "unembed.weight": "head.weight",
            "embed.weight": "tok_emb.weight",
            ".in.": ".up.", ".out.": ".down.", ".o.": ".proj.", "ln_final": "ln_f",
        }  # fmt: skip
        state = {
            "hooked": lambda: weights,
            "bridge": lambda: bridge_state(weights),
            "gpt": lambda: gpt_state(weights, gpt),
            "compiled": lambda: {f"_orig_mod.module.{n}": w for n, w in weights.items()},
        }[layout]()
        torch.save(state, tmp_path / "model.pt")
        run = gi.load(tmp_path / "model.pt", n_heads=2, act_fn=architecture.act_fn, operation="add")
        assert run.architecture == architecture
        same_weights(run.weights(), weights)
        assert run.task == gi.ModularTask("add", 7, equals_token=architecture.n_ctx == 3)

    @pytest.mark.parametrize("names", ["q_proj", "query", "W_q"])
    def test_a_gpt_with_three_matrices(self, names, tmp_path):
        architecture, weights = random_weights(n_layers=2)
        state = {}
        for key, weight in bridge_state(weights).items():
            for x, word in (("q", "query"), ("k", "key"), ("v", "value")):
                theirs = {"q_proj": f"{x}_proj", "query": word, "W_q": f"W_{x}"}[names]
                key = key.replace(f".attn.{x}.", f".self_attn.{theirs}.")
            state[key.replace("blocks.", "layers.")] = weight
        torch.save(state, tmp_path / "model.pt")
        run = gi.load(tmp_path / "model.pt", n_heads=2, act_fn="relu", operation="add")
        assert run.architecture == architecture
        same_weights(run.weights(), weights)

    def test_the_papers_layout(self, tmp_path):
        architecture, weights = random_weights(d_vocab_out=8)
        for name, weight in weights.items():
            if ".b_" in name and ".mlp." not in name:
                weight.zero_()  # the paper's code has no others
        torch.save(paper_state(weights), tmp_path / "model.pt")
        run = gi.load(tmp_path / "model.pt", operation="add")
        assert run.architecture == architecture
        same_weights(run.weights(), weights)

    def test_gpt2s_own_names_and_transposed_matrices(self, tmp_path):
        _, weights = random_weights(normalization_type="LN", act_fn="gelu_new")
        names = {
            "pos_embed.weight": "wpe.weight", "unembed.weight": "lm_head.weight",
            "embed.weight": "wte.weight", "blocks": "h",
            "ln1": "ln_1", "ln2": "ln_2", ".qkv.": ".c_attn.", ".attn.o.": ".attn.c_proj.",
            ".mlp.in.": ".mlp.c_fc.", ".mlp.out.": ".mlp.c_proj.", "ln_final": "ln_f",
            "unembed.bias": "lm_head.bias",
        }  # fmt: skip
        state = {f"transformer.{k}": v for k, v in gpt_state(weights, names).items()}
        for key in state:
            if key.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
                state[key] = state[key].T.clone()
        state["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
        state["transformer.h.0.attn.bias"] = torch.ones(3, 3).tril()[None, None]  # nanoGPT's mask
        torch.save(state, tmp_path / "model.pt")
        run = gi.load(tmp_path / "model.pt", n_heads=2, act_fn="gelu_new")
        same_weights(run.weights(), weights)

    def test_how_well_it_answers_is_said(self, shipped, tmp_path):
        weights = shipped.weights()
        torch.save(weights, tmp_path / "right.pt")
        notes = gi.load(tmp_path / "right.pt").notes
        assert any("answers 100.0% of the table right" in note for note in notes)
        scaled = weights["embed.W_E"] * 128**0.5  # as some codes do on the way
        torch.save({**weights, "embed.W_E": scaled.flip(0)}, tmp_path / "wrong.pt")
        assert any("no more than chance" in note for note in gi.load(tmp_path / "wrong.pt").notes)

    @pytest.mark.parametrize("n_heads", [3, 6])
    def test_the_head_count_of_a_fused_matrix_is_found(self, n_heads, tiny, tmp_path):
        recipe = tiny.replace(
            p=23, d_model=48, n_heads=n_heads, d_head=48 // n_heads, d_mlp=64, steps=200,
            train_fraction=0.8, lr=3e-3, checkpoints="every:200",
        )  # fmt: skip
        run = gi.train(recipe, tmp_path / "run")
        torch.save(gpt_state(run.weights(), {}), tmp_path / "gpt.pt")
        assert gi.load(tmp_path / "gpt.pt", act_fn="relu").architecture == run.architecture

    def test_the_width_of_a_head_says_how_many_there_are(self, tmp_path):
        _, weights = random_weights()  # 2 heads of 8
        torch.save(gpt_state(weights, {}), tmp_path / "gpt.pt")
        run = gi.load(tmp_path / "gpt.pt", d_head=8)
        assert (run.architecture.n_heads, run.architecture.d_head) == (2, 8)
        assert not any("n_heads" in note for note in run.notes)
        for wrong in (0, 7, 100):
            with pytest.raises(gi.InputError):
                gi.load(tmp_path / "gpt.pt", d_head=wrong)

    def test_norms_without_biases_may_be_other_norms(self, tmp_path):
        _, weights = random_weights(normalization_type="LN")
        gains = {name: w for name, w in weights.items() if not name.endswith(".b")}
        torch.save(gains, tmp_path / "rms.pt")
        rms = gi.load(tmp_path / "rms.pt")  # whose LayerNorms have biases
        assert rms.architecture.normalization_type == "RMS"
        same_weights(rms.weights(), gains)
        with pytest.raises(gi.InputError, match="normalization_type=LN contradicts"):
            gi.load(tmp_path / "rms.pt", normalization_type="LN")
        torch.save(gpt_state(gains, {}), tmp_path / "gpt.pt")
        assert any("RMSNorm" in note for note in gi.load(tmp_path / "gpt.pt").notes)
        said = gi.load(tmp_path / "gpt.pt", normalization_type="rms")
        assert said.architecture.normalization_type == "RMS"
        assert not any("RMSNorm" in note for note in said.notes)

    def test_a_causal_mask_does_not_say_that_it_is_used(self, tmp_path):
        for n_layers in (1, 2):
            _, weights = random_weights(n_layers=n_layers)
            for layer in range(n_layers):  # HookedTransformer has it whatever its attention_dir is
                weights[f"blocks.{layer}.attn.mask"] = torch.ones(3, 3).tril().bool()
            torch.save(weights, tmp_path / "model.pt")
            notes = gi.load(tmp_path / "model.pt").notes
            # With one layer the answer position sees everything anyway.
            assert any("attention_dir" in note for note in notes) == (n_layers == 2)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w.pop("unembed.W_U"), "no weight 'unembed.W_U'"),
            (lambda w: w.update({"unembed.W_U": torch.ones(3, 7)}), "unembed.W_U"),
            (lambda w: w["embed.W_E"].fill_(torch.nan), "not finite"),
            (lambda w: w["blocks.0.mlp.W_in"].fill_(torch.inf), "not finite"),
            (lambda w: w.update({"blocks.2.mlp.W_in": torch.ones(12, 20)}), "layers"),
            (
                lambda w: w.update({f"blocks.0.ln1.{x}": torch.ones(12) for x in "wb"}),
                "ln2",
            ),
        ],
    )
    def test_weights_that_do_not_fit_are_refused(self, change, message, tmp_path):
        _, weights = random_weights()
        change(weights)
        torch.save(weights, tmp_path / "model.pt")
        with pytest.raises(gi.InputError, match=message) as error:
            gi.load(tmp_path / "model.pt")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"p": 5}, r"p=5 contradicts .* 3 positions and 7 classes; add mod 5 .* p=7"),
            ({"d_model": 16}, "d_model=16 contradicts"),
            ({"n_layers": 2}, "n_layers=2 contradicts"),
            ({"n_heads": 3}, "n_heads=3 contradicts"),
            ({"equals_class": True}, "equals_class=True contradicts"),
            ({"biases": "none"}, "biases=none contradicts"),
            ({"equals_token": False}, r"read as \[a, b\] has 7 tokens, 2 positions"),
            ({"modolus": 5}, "did you mean 'p'"),
            ({"p": "seven"}, "p='seven' is not a whole number"),
            ({"attention_rate": 2}, "from 0 to 1"),
            ({"act_fn": "tanh"}, "act_fn='tanh'"),
            ({"split": "torch"}, "needs data_seed"),
            ({"train_fraction": 0.5}, "need split="),
            ({"train_fraction": 30}, "not a number above 0, at most 1"),
            ({"data_seed": 1}, "data_seed needs split"),
            ({"split": "search", "train_indices": "x.pt"}, "both set"),
            ({"train_indices": "nowhere.pt"}, "nowhere.pt does not exist"),
            ({"metrics": "nowhere.csv"}, "nowhere.csv"),
        ],
    )
    def test_settings_that_contradict_or_lack_something(self, setting, message, tmp_path):
        _, weights = random_weights()
        torch.save(weights, tmp_path / "model.pt")
        with pytest.raises((gi.InputError, OSError), match=message):
            gi.load(tmp_path / "model.pt", **setting)

    @pytest.mark.parametrize(
        "config",
        [
            {"model": {"positional_embedding_type": "shortformer"}},
            {"use_attn_scale": False},
            {"attn_scale": 8.0, "d_head": 8},
            {"parallel_attn_mlp": True},
            {"output_logits_soft_cap": 30.0},
            {"act_fn": "solu"},
            {"activation": "Tanh"},
        ],
    )
    def test_a_configuration_of_another_kind_of_model_is_refused(self, config, tmp_path):
        _, weights = random_weights()
        torch.save({"model": weights, "config": config}, tmp_path / "model.pt")
        with pytest.raises(gi.InputError, match="no place"):
            gi.load(tmp_path / "model.pt")
        common = {"attn_scale": 8**0.5, "d_head": 8, "act_fn": "ReLU", "use_attn_scale": True}
        torch.save({"model": weights, "config": common}, tmp_path / "model.pt")
        assert gi.load(tmp_path / "model.pt").architecture.act_fn == "relu"

    @pytest.mark.parametrize("layout", ["hooked", "paper"])
    def test_norms_that_are_kept_and_not_used(self, layout, tmp_path):
        """The paper's class has LayerNorms whose calls are commented out."""
        architecture, weights = random_weights(normalization_type="LN")
        plain = {name: w for name, w in weights.items() if "ln" not in name}
        state = dict(weights)
        if layout == "paper":
            for name, weight in plain.items():
                if ".b_" in name and ".mlp." not in name:
                    weight.zero_()
            norms = {name: w for name, w in weights.items() if "ln" in name}
            state = {**paper_state(plain), **norms}
        torch.save(state, tmp_path / "model.pt")
        if layout == "paper":
            with pytest.raises(gi.InputError, match="ln"):
                gi.load(tmp_path / "model.pt")
        run = gi.load(tmp_path / "model.pt", normalization_type="none")
        assert run.architecture.normalization_type is None
        same_weights(run.weights(), plain)
        assert architecture.normalization_type == "LN"

    def test_settings_that_agree_change_nothing(self, tmp_path):
        architecture, weights = random_weights()
        torch.save(weights, tmp_path / "model.pt")
        run = gi.load(
            tmp_path / "model.pt", p=7, d_model=12, n_heads=2, biases="all", equals_token=True,
            equals_class=False, operation="subtract", normalization_type=None,
        )  # fmt: skip
        assert run.architecture == architecture
        assert run.task.operation == "subtract"


class TestTheSplit:
    def save(self, run, path, **extra):
        torch.save(run.weights(), path)
        return gi.load(path, **extra)

    def test_a_published_rule(self, tiny, tiny_run, tmp_path):
        run = self.save(
            tiny_run, tmp_path / "m.pt", split="torch", data_seed=tiny.data_seed, train_fraction=0.5
        )
        assert torch.equal(run.train_indices, tiny_run.train_indices)
        assert run.manifest.split["n_train"] == 24

    @pytest.mark.parametrize("suffix", ["pt", "npy", "safetensors"])
    def test_rows_from_a_file(self, suffix, tiny_run, tmp_path):
        rows = tiny_run.train_indices
        path = tmp_path / f"rows.{suffix}"
        if suffix == "pt":
            torch.save(rows, path)
        elif suffix == "npy":
            np.save(path, rows.numpy())
        else:
            safetensors.torch.save_file({"train_indices": rows}, path)
        run = self.save(tiny_run, tmp_path / "m.pt", train_indices=str(path))
        assert torch.equal(run.train_indices, rows)

    def test_a_mask_in_a_file(self, tiny_run, tmp_path):
        torch.save(tiny_run.train_mask, tmp_path / "mask.pt")
        run = self.save(tiny_run, tmp_path / "m.pt", train_indices=str(tmp_path / "mask.pt"))
        assert torch.equal(run.train_mask, tiny_run.train_mask)

    @pytest.mark.parametrize("rows", [[-1, 2], [0, 49], [3, 3], [], [0.5, 1.0]])
    def test_rows_that_are_none_are_refused(self, rows, tiny_run, tmp_path):
        torch.save(torch.tensor(rows), tmp_path / "rows.pt")
        with pytest.raises(gi.InputError, match="train_indices"):
            self.save(tiny_run, tmp_path / "m.pt", train_indices=str(tmp_path / "rows.pt"))

    def test_a_wrong_split_is_refused_with_the_loss_it_gives(self, shipped, tmp_path):
        path = gi.export(shipped, tmp_path / "demo.pth")
        content = torch.load(path, weights_only=True)
        del content["train_indices"], content["test_indices"]
        torch.save(content, path)
        right = {"split": "torch", "train_fraction": 0.3}
        seed = shipped.recipe.data_seed
        run = gi.load(path, **right, data_seed=seed)
        assert torch.equal(run.train_indices, shipped.train_indices)
        assert any("verified" in note for note in run.notes)
        with pytest.raises(gi.InputError, match=r"is not the split of this run.*have loss \d"):
            gi.load(path, **right, data_seed=seed + 1)
        swapped = shipped.train_indices.clone()
        swapped[0] = int((~shipped.train_mask).nonzero()[0])
        torch.save(swapped, tmp_path / "rows.pt")
        with pytest.raises(gi.InputError, match="is not the split"):  # one row of 3830
            gi.load(path, train_indices=str(tmp_path / "rows.pt"))

    @pytest.mark.parametrize("step", [800, 4000, 12000])
    def test_a_fraction_that_is_too_small_is_noted(self, step, shipped, tmp_path):
        torch.save(shipped.weights(step), tmp_path / "m.pt")
        for fraction in (0.1, 0.29, 0.3):
            run = gi.load(tmp_path / "m.pt", split="torch", data_seed=598, train_fraction=fraction)
            noted = any("look trained on too" in note for note in run.notes)
            if step < 12000:  # after which all rows are alike
                assert noted == (fraction < 0.3)
            assert not (noted and fraction == 0.3)

    def test_a_split_that_contradicts_the_one_in_the_file(self, tiny_run, tmp_path):
        gi.export(tiny_run, tmp_path / "demo.pth")
        with pytest.raises(gi.InputError, match=r"not the (one|split)"):
            gi.load(tmp_path / "demo.pth", split="torch", data_seed=99, train_fraction=0.5)

    @pytest.mark.parametrize("step", [800, 12000])
    def test_search_finds_rule_seed_and_fraction(self, step, shipped, tmp_path):
        """Also when every answer is right, and the two sides differ by a factor of two in loss."""
        torch.save(shipped.weights(step), tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt", split="search")
        assert torch.equal(run.train_indices, shipped.train_indices)
        assert run.manifest.split["data_seed"] == shipped.recipe.data_seed
        assert run.manifest.split["rule"] == "torch"

    def test_search_finds_the_papers_rule(self, tiny, tmp_path):
        recipe = tiny.replace(
            p=13, split="python", data_seed=42, train_fraction=0.4, steps=300, checkpoints=[300]
        )
        trained = gi.train(recipe, tmp_path / "run")
        torch.save(trained.weights(), tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt", split="search")
        assert torch.equal(run.train_indices, trained.train_indices)
        assert run.train_indices.tolist() == python_split(169, 67, 42)

    @pytest.mark.slow
    def test_search_finds_nothing_where_nothing_is(self, shipped, tmp_path):
        torch.save(shipped.weights(0), tmp_path / "untrained.pt")
        run = gi.load(tmp_path / "untrained.pt", split="search", operation="add")
        assert run.train_indices is None
        assert any("no split was found" in note for note in run.notes)
        trained = gi.train(  # by a seed that the search does not try
            gi.Recipe(p=13, data_seed=4321, train_fraction=0.4, steps=300, checkpoints=[300]),
            tmp_path / "run",
        )
        torch.save(trained.weights(), tmp_path / "m.pt")
        assert gi.load(tmp_path / "m.pt", split="search").train_indices is None

    @pytest.mark.slow
    def test_rounding_is_told_by_the_row_between(self, tmp_path):
        task = gi.ModularTask("add", 13)  # 0.3 * 169 = 50.7
        trained = gi.train(
            gi.Recipe(p=13, train_fraction=51 / 169 + 1e-9, steps=300, checkpoints=[300]),
            tmp_path / "run",
        )
        torch.save(trained.weights(), tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt", split="torch", data_seed=0, train_fraction=0.3)
        assert len(run.train_indices) == 51
        assert task.n_inputs == 169

    def test_without_a_split_what_needs_it_is_null_and_the_rest_works(self, tiny_run, tmp_path):
        run = self.save(tiny_run, tmp_path / "m.pt")
        assert run.train_mask is None
        assert any("training rows are not known" in note for note in run.notes)
        row = gi.progress_measures(run).iloc[0]
        assert np.isnan(row["train_loss"])
        assert np.isfinite(row["sum_sq_weights"])
        assert gi.detect_phases(run).label == "undetermined"


class TestBeside:
    def test_a_configuration_and_a_log_beside_are_read(self, tiny_run, tmp_path):
        weights = bridge_state(tiny_run.weights())
        torch.save(weights, tmp_path / "model_a1.pt")
        config = {"C": 7, "model": {"n_heads": 2, "act_fn": "ReLU"}}
        (tmp_path / "config_a1.json").write_text(json.dumps(config))
        tiny_run.metrics.to_csv(tmp_path / "model_a1.csv", index=False)
        run = gi.load(tmp_path / "model_a1.pt", split="torch", data_seed=0, train_fraction=0.5)
        assert run.architecture == tiny_run.architecture
        assert run.steps == (60,)  # the last of the log
        assert any("verified at step 60" in note for note in run.notes)
        assert run.metrics["step"].tolist() == tiny_run.metrics["step"].tolist()

    def test_an_attention_rate_is_a_permanent_hook(self, tiny_run, tmp_path):
        torch.save(tiny_run.weights(), tmp_path / "m.pt")
        (tmp_path / "m.json").write_text('{"attn_coeff": 0.25}')
        run = gi.load(tmp_path / "m.pt")
        assert run.architecture.attention_rate == 0.25
        model = run.model()
        model.reset_hooks()
        _, cache = model.run_with_cache(run.task.tokens)
        assert (cache["blocks.0.attn.hook_pattern"] >= 0.75 - 1e-6).all()
        logits = model(run.task.tokens)[:, -1]
        assert torch.allclose(run.snapshot().all_logits, logits, atol=1e-5)
        plain = gi.load(tmp_path / "m.pt", attn_coeff=1)  # what is set goes first
        assert torch.equal(plain.snapshot().logits, tiny_run.snapshot().logits)
        seen = gi.snapshot(model, run.task)  # and a model with a hook of its own is seen as it is
        assert torch.allclose(seen.all_logits, logits, atol=1e-5)

    def test_a_configuration_of_another_p_is_refused(self, tiny_run, tmp_path):
        torch.save(tiny_run.weights(), tmp_path / "m.pt")
        (tmp_path / "m.json").write_text('{"p": 11}')
        with pytest.raises(gi.InputError, match="says p=11"):
            gi.load(tmp_path / "m.pt")


class TestImport:
    @pytest.mark.slow
    @pytest.mark.parametrize("format", ["demo", "paper"])
    def test_the_shipped_run_goes_out_and_comes_back(
        self, format, shipped, shipped_measures, tmp_path
    ):
        path = gi.export(shipped, tmp_path / "run.pth", format=format)
        assert set(torch.load(path, weights_only=True)) >= {"train_losses", "test_losses", "model"}
        run = gi.import_run(path, tmp_path / "back")
        assert run.steps == shipped.steps
        assert torch.equal(run.train_indices, shipped.train_indices)
        same_task(run.task, shipped.task)
        for step in run.steps:
            same_weights(run.weights(step), shipped.weights(step))
        np.testing.assert_array_equal(gi.progress_measures(run), shipped_measures)
        assert run.metrics["step"].tolist() == shipped.metrics["step"].tolist()
        for column in ("train_loss", "test_loss"):
            np.testing.assert_allclose(run.metrics[column], shipped.metrics[column], rtol=1e-6)
        run.verify()

    def test_a_demo_file_loads_strictly_into_its_model(self, tiny_run, tmp_path):
        content = torch.load(gi.export(tiny_run, tmp_path / "d.pth"), weights_only=True)
        model = tiny_run.model(0)
        if "embed.W_E" not in model.state_dict():
            pytest.skip("TransformerLens 4 has no HookedTransformer")
        model.load_state_dict(content["model"], strict=True)
        assert torch.equal(model(tiny_run.task.tokens), tiny_run.model()(tiny_run.task.tokens))

    def test_a_paper_file_has_every_key_of_the_papers_model(self, tiny, tmp_path):
        run = gi.train(tiny.replace(biases="mlp", steps=20), tmp_path / "run")
        content = torch.load(gi.export(run, tmp_path / "p.pth", format="paper"), weights_only=True)
        expected = paper_state(run.weights())  # with the mask, which is a buffer there
        assert set(content["model"]) == set(expected)
        assert all(torch.equal(content["model"][key], expected[key]) for key in expected)

    def test_the_papers_layout_has_no_attention_both_ways(self, tmp_path):
        _, weights = random_weights(n_layers=2)
        weights = {n: w * 0 if ".b_" in n and ".mlp." not in n else w for n, w in weights.items()}
        torch.save(weights, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt", attention_dir="bidirectional")
        with pytest.raises(gi.InputError, match="no place for attention_dir"):
            gi.export(run, tmp_path / "p.pth", format="paper")

    def test_the_papers_layout_refuses_what_it_cannot_hold(self, tmp_path):
        _, weights = random_weights(normalization_type="LN")
        torch.save(weights, tmp_path / "m.pt")
        run = gi.load(tmp_path / "m.pt")
        with pytest.raises(gi.InputError, match="no place for"):
            gi.export(run, tmp_path / "p.pth", format="paper")
        assert not (tmp_path / "p.pth").exists()
        again = gi.load(gi.export(run, tmp_path / "d.pth"))
        same_weights(again.weights(), run.weights())

    def test_it_appears_whole_or_not_at_all(self, tiny_run, tmp_path, monkeypatch):
        torch.save(tiny_run.weights(), tmp_path / "step_1.pt")
        bad = {**tiny_run.weights(), "embed.W_E": torch.full((8, 16), torch.nan)}
        (tmp_path / "folder").mkdir()
        torch.save(tiny_run.weights(), tmp_path / "folder" / "step_1.pt")
        torch.save(bad, tmp_path / "folder" / "step_2.pt")
        with pytest.raises(gi.InputError, match=r"step 2.*not finite"):
            gi.import_run(tmp_path / "folder", tmp_path / "out")
        assert sorted(x.name for x in tmp_path.iterdir()) == ["folder", "step_1.pt"]

        def full_disk(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("grokinterp.runs.writer.write_whole", full_disk)
        with pytest.raises(OSError, match="No space"):
            gi.import_run(tmp_path / "step_1.pt", tmp_path / "out")
        assert sorted(x.name for x in tmp_path.iterdir()) == ["folder", "step_1.pt"]

    def test_what_is_there_is_kept(self, tiny_run, tmp_path):
        torch.save(tiny_run.weights(), tmp_path / "m.pt")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("mine")
        with pytest.raises(gi.InputError, match="not an empty folder"):
            gi.import_run(tmp_path / "m.pt", tmp_path / "out")
        assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"
        with pytest.raises(gi.InputError, match="nothing to import"):
            gi.import_run(tiny_run.path, tmp_path / "other")
        with pytest.raises(gi.InputError, match="does not exist"):
            gi.import_run(tmp_path / "nowhere.pt", tmp_path / "other")
        with pytest.raises(gi.InputError, match="settings are for checkpoints of others"):
            gi.load(tiny_run.path, p=7)
        with pytest.raises(gi.InputError, match="has the format 'state_dict'"):
            gi.load(tmp_path / "m.pt", format="demo")
        with pytest.raises(gi.InputError, match="did you mean 'demo'"):
            gi.load(tmp_path / "m.pt", format="demos")

    def test_two_files_of_one_step_are_refused(self, tiny_run, tmp_path):
        for name in ("a_step_5.pt", "b_step_5.pt"):
            torch.save(tiny_run.weights(), tmp_path / name)
        with pytest.raises(gi.InputError, match="both of step 5"):
            gi.load(tmp_path)
        (tmp_path / "b_step_5.pt").rename(tmp_path / "best.pt")
        (tmp_path / "a_step_5.pt").unlink()
        assert gi.load(tmp_path).steps == (0,)  # as the file by itself


@pytest.mark.parametrize(
    ("keys", "papers"),
    [
        ({"operation": "divide"}, True),
        ({"operation": "a*b + a", "layout": "b a"}, False),
        ({"layout": "eos a / b =", "operand_ids": 5, "answer_ids": 2, "operation": "divide",
          "token_ids": {"eos": 0, "=": 1, "/": 3}}, False),
        ({"operand_ids": 1, "token_ids": {"=": 0}}, False),
    ],
)  # fmt: skip
def test_what_is_exported_says_its_task_and_its_rows(keys, papers, tmp_path):
    """Of a network that has learned nothing, which no import could tell."""
    recipe = gi.Recipe(
        p=7, d_model=8, n_heads=2, d_head=4, d_mlp=8, steps=4, log_every=1, train_fraction=0.5,
        checkpoints="every:2", threads=1, **keys,
    )  # fmt: skip
    run = gi.train(recipe, tmp_path / "run")
    for format in ("demo", "paper") if papers else ("demo",):
        there = gi.load(gi.export(run, tmp_path / f"{format}.pth", format=format))
        assert there.task == run.task
        assert torch.equal(there.train_indices, run.train_indices)
        assert torch.equal(there.snapshot(4).logits, run.snapshot(4).logits)
    if not papers:
        with pytest.raises(gi.InputError, match="no place for inputs such as"):
            gi.export(run, tmp_path / "paper.pth", format="paper")


def test_ids_of_a_configuration_are_no_settings(tmp_path):
    recipe = gi.Recipe(
        p=7, d_model=8, n_heads=2, d_head=4, d_mlp=8, steps=0, threads=1, operation="subtract",
        layout="a op b =", token_ids={"op": 9, "=": 8},
    )  # fmt: skip
    run = gi.train(recipe, tmp_path / "run")
    torch.save(run.weights(0), tmp_path / "model.pt")
    said = {"layout": "a op b =", "token_ids": {"op": 9, "=": 8}, "p": 7, "operation": "subtract"}
    (tmp_path / "config_model.json").write_text(json.dumps(said))
    assert gi.load(tmp_path / "model.pt").task == run.task
