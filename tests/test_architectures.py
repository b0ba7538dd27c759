"""Models beyond the canonical one, against a transformer spelt out from its definition."""

import copy

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.models.kinds import architecture_of
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.models.transformer_lens_adapter import canonical_weights
from grokinterp.progress.measures import measure_snapshot
from grokinterp.runs._snapshot import from_weights
from tests.functional import exactness
from tests.reference import reference_logits

P = 7
VARIANTS = {
    "canonical": {},
    "two layers": {"n_layers": 2},
    "layer norm": {"normalization_type": "LN", "act_fn": "gelu"},
    "deep layer norm": {
        "n_layers": 3, "normalization_type": "LN", "act_fn": "gelu_new", "eps": 1e-3,
    },
    "one head": {"n_heads": 1, "act_fn": "silu"},
    "wide heads": {"n_heads": 3, "d_head": 10},
    "no equals": {"n_ctx": 2, "d_vocab": P},
    "equals class": {"d_vocab_out": P + 1},
    "bidirectional": {"attention_dir": "bidirectional", "n_layers": 2},
    "bidirectional without equals": {
        "attention_dir": "bidirectional", "n_ctx": 2, "d_vocab": P, "n_layers": 2,
    },
    "constant attention": {"attention_rate": 0.0, "n_ctx": 2, "d_vocab": P},
    "blended attention": {"attention_rate": 0.39, "attention_dir": "bidirectional"},
    "blended and deep": {"attention_rate": 0.5, "n_layers": 2, "normalization_type": "LN"},
    "longer context": {"n_ctx": 5},
}  # fmt: skip
BLOCKS = {  # of other kinds
    "rms": {"normalization_type": "RMS", "n_layers": 2},
    "folded layer norm": {"normalization_type": "LNPre", "eps": 1e-2},
    "folded rms": {"normalization_type": "RMSPre", "attention_dir": "bidirectional", "n_layers": 2},
    "attention alone": {"attn_only": True},
    "attention alone without equals": {"attn_only": True, "n_ctx": 2, "d_vocab": P},
    "attention alone, deep": {"attn_only": True, "n_layers": 2, "normalization_type": "LN"},
    "norms after": {"normalization_type": "LN", "norm_position": "post", "n_layers": 2},
    "norms after, none at the end": {
        "normalization_type": "LN", "norm_position": "post", "final_norm": False, "n_layers": 2,
        "attention_dir": "bidirectional",
    },
    "norms before, none at the end": {
        "normalization_type": "RMS", "final_norm": False, "attention_rate": 0.5,
    },
    "attention alone, norms after": {
        "normalization_type": "LN", "norm_position": "post", "attn_only": True, "n_layers": 2,
    },
}  # fmt: skip


def example(variant: str) -> tuple[TransformerArchitecture, dict, gi.ModularTask]:
    sizes = {
        "n_layers": 1, "n_heads": 2, "d_model": 12, "d_head": 6, "d_mlp": 20,
        "d_vocab": P + 1, "d_vocab_out": P, "n_ctx": 3,
    }  # fmt: skip
    architecture = TransformerArchitecture(**{**sizes, **(VARIANTS | BLOCKS)[variant]})
    weights = architecture.initial(seed=1)
    generator = torch.Generator().manual_seed(2)
    weights = {
        name: (w + 0.5 * torch.randn(w.shape, generator=generator)).double()
        for name, w in weights.items()
    }
    return architecture, weights, gi.ModularTask("add", P, equals_token=architecture.n_ctx > 2)


@pytest.mark.parametrize("variant", VARIANTS | BLOCKS)
def test_models_compute_what_the_definition_says(variant):
    architecture, weights, task = example(variant)
    expected = reference_logits(weights, architecture, task.tokens)
    model = architecture.hooked(weights)
    model.reset_hooks()
    within = exactness(architecture)
    assert torch.allclose(model(task.tokens), expected, rtol=within, atol=within)
    ours = from_weights(weights, architecture, task)
    assert torch.allclose(ours.all_logits, expected[:, -1], rtol=1e-9, atol=1e-9)
    back = canonical_weights(model)
    assert set(back) == set(weights)
    for name, weight in weights.items():
        assert torch.equal(back[name], weight)


@pytest.mark.parametrize("variant", VARIANTS | BLOCKS)
def test_activations_are_those_of_the_hooked_model(variant):
    architecture, weights, task = example(variant)
    snapshot = from_weights(weights, architecture, task)
    model = architecture.hooked(weights)
    _, cache = model.run_with_cache(task.tokens)
    last = architecture.n_layers - 1
    within = exactness(architecture)
    names = ("mlp.hook_post", "hook_resid_post", "attn.hook_z", "attn.hook_pattern")
    for name in names[architecture.attn_only :]:
        name = f"blocks.{last}.{name}"
        expected = cache[name][:, :, -1] if name.endswith("pattern") else cache[name][:, -1]
        found = snapshot.activation(name)
        assert torch.allclose(found, expected, rtol=within, atol=within), name
    rate = architecture.attention_rate
    sums = snapshot.activation(f"blocks.{last}.attn.hook_pattern").sum(-1)
    assert torch.allclose(sums, torch.full_like(sums, rate + (1 - rate) * task.tokens.shape[1]))


@pytest.mark.parametrize(
    "variant", [name for name in VARIANTS | BLOCKS if name != "longer context"]
)
def test_a_users_model_is_seen_as_it_is_and_left_alone(variant):
    architecture, weights, task = example(variant)
    model = architecture.hooked(weights)
    found = architecture_of(model)
    blended = architecture.attention_rate != 1 and architecture.in_transformer_lens
    assert found == (None if blended else architecture)  # a hook could be anything
    before = copy.deepcopy(dict(model.state_dict()))
    hooks = {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    mask = torch.arange(task.n_inputs) % 3 == 0
    snapshot = gi.snapshot(model, task, train_mask=mask)
    expected = reference_logits(weights, architecture, task.tokens)[:, -1]
    assert torch.allclose(snapshot.all_logits, expected, rtol=1e-9, atol=1e-9)
    gi.key_frequencies(model, task=task)
    row = measure_snapshot(snapshot, (1, 2))
    assert np.isfinite(row["excluded_loss"])
    neurons_reach_logits = architecture.linear_readout and not architecture.attn_only
    assert np.isnan(row["excluded_loss_demo"]) == (not neurons_reach_logits)
    assert {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()} == hooks
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    "variant",
    [
        "layer norm", "two layers", "bidirectional", "no equals", "rms", "folded rms",
        "attention alone", "norms after, none at the end",
    ],
)  # fmt: skip
def test_a_recorder_takes_them_and_gives_them_back(variant, tmp_path):
    architecture, weights, task = example(variant)
    model = architecture.hooked(weights)
    recorder = gi.Recorder(tmp_path / "run", task=task)
    recorder.save(0, model)
    run = recorder.close()
    assert run.architecture == architecture
    assert all(torch.equal(weight, weights[name]) for name, weight in run.weights().items())
    assert torch.allclose(run.model()(task.tokens), model(task.tokens))


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_a_recorder_keeps_the_values_of_every_precision(precision, tmp_path):
    architecture, weights, task = example("canonical")
    weights = {name: weight.to(precision) for name, weight in weights.items()}
    recorder = gi.Recorder(tmp_path / "run", task=task)
    recorder.save(0, architecture.hooked(weights))
    found = recorder.close().weights()
    assert all((found[name].double() == weight.double()).all() for name, weight in weights.items())


def test_a_blended_model_is_refused_by_the_recorder(tmp_path):
    architecture, weights, task = example("blended attention")
    recorder = gi.Recorder(tmp_path / "run", task=task)
    with pytest.raises(gi.InputError, match="hooks"):
        recorder.save(0, architecture.hooked(weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layers": 0}, "n_layers=0"),
        ({"d_model": 10**9}, "d_model=1000000000"),
        ({"act_fn": "tanh"}, "act_fn='tanh'"),
        ({"normalization_type": "BN"}, "normalization_type='BN'"),
        ({"norm_position": "both"}, "norm_position='both'"),
        ({"d_mlp": 0}, "d_mlp=0"),
        ({"attention_rate": 1.5}, "attention_rate=1.5"),
        ({"eps": 0.0}, r"eps=0\.0"),
        ({"attention_dir": "casual"}, "attention_dir='casual'"),
    ],
)
def test_impossible_architectures_are_refused(change, message):
    architecture, _, _ = example("canonical")
    with pytest.raises(gi.InputError, match=message):
        TransformerArchitecture(**{**vars(architecture), **change})


def test_gains_of_layer_norms_begin_at_one():
    architecture, _, _ = example("layer norm")
    weights = architecture.initial(seed=0)
    assert all((weights[name] == 1).all() for name in weights if name.endswith(".w"))
    assert all((weights[name] == 0).all() for name in weights if name.endswith(".b"))
