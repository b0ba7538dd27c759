"""The forward of all blocks, against TransformerLens' own, torch's encoder, and other sequences."""

import itertools

import pytest
import torch

import grokinterp as gi
from grokinterp import circuits
from grokinterp.circuits._attention_readout import token_scores
from grokinterp.fourier import neuron_ipr
from grokinterp.models import answer_position, blocks
from grokinterp.models.architecture import NORMS
from grokinterp.models.kinds import architecture_of, shape_from_dict
from grokinterp.models.layers import recorder
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.runs._snapshot import from_weights
from grokinterp.updates import CrossEntropy
from tests.functional import BRIDGE, exactness, functional_logits
from tests.test_architectures import example

P = 7
SIZES = {"n_heads": 2, "d_model": 12, "d_head": 4, "d_mlp": 20, "d_vocab_out": P}


def made(dtype=torch.float64, **changes):
    sizes = {"n_layers": 1, "d_vocab": P + 1, "n_ctx": 3} | SIZES | changes
    architecture = TransformerArchitecture(**sizes)
    generator = torch.Generator().manual_seed(2)
    weights = {
        name: (w + 0.3 * torch.randn(w.shape, generator=generator)).to(dtype)
        for name, w in architecture.initial(seed=1).items()
    }
    return architecture, weights


def close(found, expected, within):
    """Norm-wise; what is masked is minus infinity in both."""
    assert torch.equal(found.isinf(), expected.isinf())
    found, expected = (x.masked_fill(x.isinf(), 0) for x in (found, expected))
    return bool((found - expected).norm() <= within * expected.norm())


KINDS = [
    {"normalization_type": norm, "attn_only": alone, "n_layers": n, "attention_dir": direction}
    for norm in NORMS
    for alone, n, direction in (
        (False, 1, "causal"), (False, 1, "bidirectional"), (False, 2, "causal"),
        (False, 3, "bidirectional"), (True, 1, "bidirectional"), (True, 2, "causal"),
    )
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
def test_every_activation_is_that_of_transformer_lens(kind):
    tokens = gi.ModularTask("add", P).tokens[::3]
    for dtype in (torch.float64, torch.float32):
        architecture, weights = made(dtype, eps=1e-3, **kind)
        model = architecture.hooked(weights)
        within = 1e-12 if dtype == torch.float64 else 2e-6
        if exactness(architecture) > 1e-9:  # the bridge norms in float32
            within = 1e-5
        with torch.no_grad():
            theirs, cache = model.run_with_cache(tokens)
        ours: dict[str, torch.Tensor] = {}
        logits = blocks.logits(weights, architecture, tokens, recorder(ours))
        assert close(logits, theirs, within)
        assert tuple(ours) == architecture.hook_names()
        for name, found in ours.items():
            assert name in model.hook_dict, name
            if BRIDGE and name.endswith("hook_attn_scores"):
                continue  # TransformerLens 4 keeps the pattern there
            assert close(found, cache[name], within), name
        assert close(architecture.forward(weights, tokens), theirs[:, -1], within)
    back = architecture_of(model)
    assert back == architecture
    assert shape_from_dict(architecture.to_dict(), gi.ModularTask("add", P)) == architecture


@pytest.mark.parametrize("kind", KINDS[1::5], ids=str)
def test_gradients_are_those_of_transformer_lens(kind):
    architecture, weights = made(eps=1e-3, **kind)
    task = gi.ModularTask("add", P)
    tokens, labels = task.tokens[::3], task.labels[::3]
    found = architecture.gradients_on(tokens, labels, CrossEntropy())(weights)
    hooked = functional_logits(architecture.hooked(weights))
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    CrossEntropy().checked_loss(hooked(leaves, tokens), labels).backward()
    within = 1e-4 if exactness(architecture) > 1e-9 else 1e-10
    for name, leaf in leaves.items():
        expected = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        torch.testing.assert_close(found[name], expected, rtol=within, atol=within, msg=name)


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_torchs_encoder_is_one(final, first, n_layers):
    layer = torch.nn.TransformerEncoderLayer(
        12, 2, 20, dropout=0, norm_first=first, batch_first=True, dtype=torch.float64
    )
    norm = torch.nn.LayerNorm(12, dtype=torch.float64) if final else None
    encoder = torch.nn.TransformerEncoder(
        layer, n_layers, norm=norm, enable_nested_tensor=False
    ).train()  # evaluation takes a fused path
    architecture, weights = made(
        n_layers=n_layers, d_head=6, normalization_type="LN", attention_dir="bidirectional",
        norm_position="pre" if first else "post", final_norm=final,
    )  # fmt: skip
    with torch.no_grad():
        for i, each in enumerate(encoder.layers):
            w = {x.removeprefix(f"blocks.{i}."): weight for x, weight in weights.items()}
            rows = [w[f"attn.W_{x}"].transpose(1, 2).flatten(0, 1) for x in "QKV"]
            each.self_attn.in_proj_weight.copy_(torch.cat(rows))
            each.self_attn.in_proj_bias.copy_(
                torch.cat([w[f"attn.b_{x}"].flatten() for x in "QKV"])
            )
            each.self_attn.out_proj.weight.copy_(w["attn.W_O"].flatten(0, 1).T)
            each.self_attn.out_proj.bias.copy_(w["attn.b_O"])
            for linear, which in ((each.linear1, "in"), (each.linear2, "out")):
                linear.weight.copy_(w[f"mlp.W_{which}"].T)
                linear.bias.copy_(w[f"mlp.b_{which}"])
            for normed, which in ((each.norm1, "ln1"), (each.norm2, "ln2")):
                normed.weight.copy_(w[f"{which}.w"])
                normed.bias.copy_(w[f"{which}.b"])
        if final:
            norm.weight.copy_(weights["ln_final.w"])
            norm.bias.copy_(weights["ln_final.b"])
            encoder.norm.load_state_dict(norm.state_dict())
    tokens = gi.ModularTask("add", P).tokens
    ours: dict[str, torch.Tensor] = {}
    logits = blocks.logits(weights, architecture, tokens, recorder(ours))
    stream = encoder(ours["blocks.0.hook_resid_pre"])
    expected = stream @ weights["unembed.W_U"] + weights["unembed.b_U"]
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    assert architecture.in_transformer_lens == (first and final)
    model = architecture.hooked(weights)
    torch.testing.assert_close(model(tokens), logits)
    _, cache = model.run_with_cache(tokens)
    for name, activation in ours.items():
        if not (BRIDGE and name.endswith("hook_attn_scores")):
            assert close(cache[name], activation, 1e-12), name
    assert architecture_of(model) == architecture


SEQUENCES = {  # constants and operands at every kind of place, some shorter than the context
    "a op b =": lambda a, b: (a, P, b, P + 1),
    "= a b": lambda a, b: (P, a, b),
    "b op a": lambda a, b: (b, P, a),
    "op a = b": lambda a, b: (P, a, P + 1, b),
    "a b a": lambda a, b: (a, b, a),
    "a": lambda a, b: (a,),
    "op": lambda a, b: (P, P + 1),
}


@pytest.mark.parametrize(("rate", "alone"), [(1.0, False), (0.3, True)])
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_one_layer_reads_any_sequence_by_tables(sequence, rate, alone, monkeypatch):
    """Its numbers and gradients are those of all blocks, a few rows at a time or all at once."""
    architecture, weights = made(
        d_vocab=P + 2, n_ctx=4, attention_rate=rate, attn_only=alone, act_fn="gelu"
    )
    pairs = itertools.product(range(P), repeat=2)
    tokens = torch.tensor([SEQUENCES[sequence](a, b) for a, b in pairs])
    labels = torch.arange(len(tokens)) % P
    for rows in (slice(None), slice(0, 3), slice(8, 9)):
        x, y, cache, expected = tokens[rows], labels[rows], {}, {}
        found = architecture.forward(weights, x, cache)
        logits = blocks.logits(weights, architecture, x, recorder(expected))
        torch.testing.assert_close(found, logits[:, -1], rtol=1e-12, atol=1e-12)
        assert set(cache) == answer_position.seen(attn_only=alone)
        for name, activation in cache.items():
            last = blocks.at_last(expected[name], name)
            torch.testing.assert_close(activation, last, rtol=1e-12, atol=1e-12, msg=name)
        quick = architecture.gradients_on(x, y, CrossEntropy())(weights)
        with monkeypatch.context() as patch:
            patch.setattr(TransformerArchitecture, "at_answer_alone", False)
            slow = architecture.gradients_on(x, y, CrossEntropy())(weights)
        for name, gradient in slow.items():
            torch.testing.assert_close(quick[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_tables_of_one_block_of_inputs_serve_the_next():
    """A column that is constant in one block and not in all is read by its tokens."""
    architecture, weights = made()
    tokens = gi.ModularTask("add", P).tokens
    answers = architecture.answers(weights)
    expected = blocks.logits(weights, architecture, tokens, recorder(None), n_queries=1)[:, -1]
    found = torch.cat([answers(x) for x in tokens.split(P)])  # in each, a is one token
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    other = tokens.clone()
    other[:, 2] = 0
    torch.testing.assert_close(answers(other), architecture.forward(weights, other))
    assert not torch.allclose(answers(other), expected)


def test_what_0_2_0_knew_is_written_as_it_was():
    architecture, _ = made(normalization_type="LN")
    assert [*architecture.to_dict()] == [
        "n_layers", "n_heads", "d_model", "d_head", "d_mlp", "d_vocab", "d_vocab_out", "n_ctx",
        "act_fn", "normalization_type", "eps", "attention_dir", "attention_rate",
    ]  # fmt: skip
    alone, _ = made(attn_only=True, act_fn="gelu")
    assert alone.to_dict()["attn_only"]
    assert (alone.d_mlp, alone.act_fn) == (0, "relu")
    assert alone == made(attn_only=True)[0]


def of(name):
    architecture, weights, task = example(name)
    return from_weights(weights, architecture, task)


@pytest.mark.parametrize(
    "name",
    [
        "rms", "folded layer norm", "folded rms", "attention alone", "attention alone, deep",
        "norms before, none at the end",
    ],
)  # fmt: skip
def test_margins_are_sums_of_what_parts_write(name):
    found = circuits.attribution(of(name), frequencies=[1, 2])
    assert found.most_unexplained < 1e-9
    assert any("MLP" in part for part in found.parts) != ("attention alone" in name)


@pytest.mark.parametrize("name", ["rms", "folded layer norm", "norms after"])
def test_scores_of_tokens_are_those_of_attention(name):
    """exp(C(a) - C(b) + offset) is the ratio of attention to a and b, where nothing is averaged."""
    snapshot = of(name)
    scores, offset, note = token_scores(snapshot, 0)
    assert ("Norm: mean over" in note) == (name != "norms after")
    if name == "norms after":
        cache = {}
        blocks.logits(snapshot.weights, snapshot.transformer, snapshot.task.tokens, recorder(cache))
        ratio = cache["blocks.0.attn.hook_pattern"][:, :, -1].log()
        a, b = snapshot.task.operands.unbind(1)
        expected = (scores[:, a] - scores[:, b] + offset[:, None]).T
        torch.testing.assert_close(ratio[:, :, 0] - ratio[:, :, 1], expected)


def test_what_has_no_meaning_for_them_says_so():
    alone, after = of("attention alone"), of("norms after")
    for refused in (
        lambda: alone.mlp_post,
        lambda: circuits.neuron_clusters(alone, frequencies=[1]),
        lambda: circuits.neuron_logit_directions(alone, frequencies=[1]),
        lambda: circuits.faithfulness(alone, frequencies=[1]),
        lambda: circuits.circuit_graph(alone, frequencies=[1]),
        lambda: gi.viz.plot_neurons(alone),
        lambda: neuron_ipr(alone),
    ):
        with pytest.raises(gi.InputError, match=r"no MLP.*no neurons"):
            refused()
    with pytest.raises(gi.InputError, match="no sum of what its parts write"):
        circuits.attribution(after, frequencies=[1])
    with pytest.raises(gi.InputError, match="no graph of paths"):
        circuits.circuit_graph(after, frequencies=[1])
    for one in (alone, after):
        table = gi.paper_table(one, frequencies=[1, 3]).table()
        assert (table[table["value"].isna()]["note"] != "").all()
        assert circuits.attention(one, frequencies=[1]) is not None
        assert circuits.algorithm(one).verdict is not None


@pytest.mark.parametrize(
    "changes",
    [{"attn_only": True}, {"attn_only": True, "equals_token": False, "biases": "all"},
     {"normalization_type": "RMS", "n_layers": 2}],
)  # fmt: skip
def test_recipes_train_them(changes, tmp_path):
    recipe = gi.Recipe(p=P, d_model=12, n_heads=2, d_head=6, d_mlp=8, steps=3, **changes)
    run = gi.train(recipe, tmp_path / "run")
    again = gi.load(tmp_path / "run")
    assert again.recipe == recipe
    assert again.architecture == run.architecture == recipe.architecture()
    measured = gi.progress_measures(again)
    assert measured["train_loss"].notna().all()
    assert len(gi.ablate(again, placebos=1).rows) > 3
    if not recipe.equals_token:  # one report is enough here: test_what_works makes the others
        assert gi.report(again, tmp_path / "run.html").stat().st_size > 10_000
