"""What a file holds that is no transformer's weights is named, and never told to be renamed."""

import re
import warnings
from importlib.metadata import version

import pytest
import torch
from torch import nn

import grokinterp as gi

P, D, HIDDEN = 7, 16, 32


def modules(**parts):
    return nn.ModuleDict(parts)


def block(**parts):
    return nn.ModuleList([modules(**parts)])


def embedding(tokens=P + 1):
    return nn.Embedding(tokens, D)


def mlp():
    return nn.Sequential(nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, D))


def attention(q="q", k="k", v="v", out="o"):
    return modules(**{name: nn.Linear(D, D) for name in (q, k, v, out)})


def gpt(**changes):
    """The usual small GPT, with other parts or (None) without them."""
    parts = {
        "embed": embedding(), "pos_embed": embedding(3),
        "blocks": block(
            attn=modules(qkv=nn.Linear(D, 3 * D), proj=nn.Linear(D, D)),
            mlp=modules(fc1=nn.Linear(D, HIDDEN), fc2=nn.Linear(HIDDEN, D)),
        ),
        "head": nn.Linear(D, P),
    } | changes  # fmt: skip
    return modules(**{name: part for name, part in parts.items() if part is not None})


def encoder(layers=1):
    with warnings.catch_warnings(action="ignore"):
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(D, 2, HIDDEN), layers)


def hooked(**changes):
    tl = pytest.importorskip("transformer_lens")
    if int(version("transformer-lens").partition(".")[0]) >= 4:
        pytest.skip("TransformerLens 4 has no HookedTransformer")
    config = {
        "n_layers": 1, "n_heads": 2, "d_model": D, "d_head": 8, "d_mlp": HIDDEN, "act_fn": "relu",
        "d_vocab": P + 1, "d_vocab_out": P, "n_ctx": 3, "seed": 0, "device": "cpu",
        "normalization_type": None,
    }  # fmt: skip
    with warnings.catch_warnings(action="ignore"):
        return tl.HookedTransformer(tl.HookedTransformerConfig(**(config | changes)))


OTHERS = {
    "LSTM": (lambda: modules(e=embedding(), r=nn.LSTM(D, 8), o=nn.Linear(8, P)), "nn.LSTM"),
    "GRU": (lambda: modules(e=embedding(), r=nn.GRU(D, 8, 2), o=nn.Linear(8, P)), "nn.GRU"),
    "RNN": (lambda: modules(e=embedding(), r=nn.RNN(D, 8), o=nn.Linear(8, P)), "nn.RNN"),
    "LSTM cell": (lambda: modules(e=embedding(), r=nn.LSTMCell(D, 8)), "nn.LSTM"),
    "perceptron with a norm": (
        lambda: modules(
            embed=embedding(P), fc1=nn.Linear(2 * D, HIDDEN), norm=nn.LayerNorm(HIDDEN),
            fc2=nn.Linear(HIDDEN, P),
        ),
        "a multilayer perceptron with normalisation layers ('norm.weight', 'norm.bias')",
    ),
    "perceptron with a norm without a name": (
        lambda: nn.Sequential(
            nn.Linear(2 * P, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Linear(HIDDEN, P)
        ),
        "a multilayer perceptron with normalisation layers ('1.weight'",
    ),
    "perceptron with positions": (
        lambda: modules(embed=embedding(P), pos_embed=embedding(2), fc=mlp(), out=nn.Linear(D, P)),
        "a multilayer perceptron with 'pos_embed.weight', which is not understood",
    ),
    "perceptron of three operands": (
        lambda: nn.Sequential(nn.Linear(3 * P, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, P)),
        "does not read two operands of as many tokens as it has classes",
    ),
    "embedding alone": (lambda: modules(embed=embedding()), "an embedding alone"),
    "linear": (lambda: modules(fc=nn.Linear(2 * P, P)), "a linear model"),
    "images": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
        "convolutional network",
    ),
    "encoder": (
        lambda: modules(
            token_embedding=embedding(), position_embedding=embedding(3),
            transformer=encoder(), fc=nn.Linear(D, P),
        ),
        "do not show how many heads there are; give n_heads= (1, 2, 4, 8, 16 divide",
    ),
    "encoder of two layers": (
        lambda: modules(embedding=embedding(), encoder=encoder(2), decoder=nn.Linear(D, P)),
        "without a position embedding",
    ),
    "decoder": (
        lambda: modules(
            embedding=embedding(), out=nn.Linear(D, P),
            decoder=nn.TransformerDecoder(nn.TransformerDecoderLayer(D, 2, HIDDEN), 1),
        ),
        "nn.TransformerDecoder",
    ),
    "attention alone, of torch": (
        lambda: gpt(blocks=None, attn=nn.MultiheadAttention(D, 2)), "give n_heads=",
    ),
    "gated, hooked": (lambda: hooked(gated_mlp=True), "gated MLPs"),
    "rotary, hooked": (
        lambda: hooked(positional_embedding_type="rotary", rotary_dim=8), "position embedding",
    ),
    "queries in groups, hooked": (lambda: hooked(n_key_value_heads=1), "grouped-query"),
    "gated": (
        lambda: gpt(
            pos_embed=None,
            blocks=block(attention=attention("wq", "wk", "wv", "wo"), feed_forward=modules(
                w1=nn.Linear(D, HIDDEN), w2=nn.Linear(HIDDEN, D), w3=nn.Linear(D, HIDDEN)
            )),
        ),
        "gated MLPs",
    ),
    "a module a head": (
        lambda: gpt(blocks=block(
            sa=modules(heads=nn.ModuleList([attention() for _ in range(2)])), ffwd=mlp()
        )),
        "a module for each attention head",
    ),
    "no positions": (lambda: gpt(pos_embed=None), "without a position embedding"),
    "two embeddings": (
        lambda: gpt(embed=None, embed_a=embedding(P), embed_b=embedding(P)),
        "an embedding for each operand",
    ),
}  # fmt: skip


def refusal(content, path, **settings):
    torch.save(content, path)
    with pytest.raises(gi.InputError) as refused:
        gi.load(path, **settings)
    said = str(refused.value)
    assert "\n" not in said
    assert len(said) <= 400
    return said


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("key", [None, "model", "model_state_dict"])
def test_another_architecture_is_named(name, key, tmp_path):
    make, words = OTHERS[name]
    state = make().state_dict()
    said = refusal({key: state, "epoch": 5} if key else state, tmp_path / "m.pt", p=P)
    assert words in said
    assert "ename" not in said
    assert "as 'model'" not in said


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "net."])
def test_it_is_named_inside_a_wrapper(wrapper, tmp_path):
    state = gpt(pos_embed=None).state_dict()
    said = refusal({f"{wrapper}{key}": x for key, x in state.items()}, tmp_path / "m.pt")
    assert "without a position embedding" in said


def test_unusual_names_of_a_whole_transformer_can_be_renamed(tmp_path):
    state = gpt(blocks=block(attn=attention("to_q", "to_k", "to_v", "to_out"), mlp=mlp()))
    said = refusal(state.state_dict(), tmp_path / "m.pt")
    assert "a transformer under names that are not known here" in said
    assert "to_q" in said
    assert "rename its weights as HookedTransformer does" in said


def test_a_weight_that_is_missing_is_named_and_what_was_not_understood(tmp_path):
    wide = gpt(blocks=block(
        attn=attention(), thinking=modules(w1=nn.Linear(D, HIDDEN), w2=nn.Linear(HIDDEN, D))
    ))  # fmt: skip
    said = refusal(wide.state_dict(), tmp_path / "m.pt")
    assert "no weight 'blocks.0.mlp.W_in'" in said
    assert "thinking" in said


def test_a_network_of_three_tensors_is_one(tmp_path):
    """Operands one-hot and summed, in a basis: two matrices and that."""
    state = {"mlp.W_in": torch.ones(32, P), "mlp.W_out": torch.ones(P, 32), "b": torch.eye(P)}
    said = refusal({"model": state, "epoch": 100}, tmp_path / "m.pth")
    assert "multilayer perceptron" in said


HOOKED = {
    "a probe": {"probe.weight": torch.ones(2, D), "probe.bias": torch.ones(2)},
    "running statistics": {"stats.running_mean": torch.ones(D), "stats.seen": torch.tensor(3)},
    "more in the embedding": {"embed.extra": torch.full((2,), torch.nan)},
    "more in a layer": {"blocks.0.attn.running_max": torch.ones(2)},
}


def transformer(tmp_path):
    recipe = gi.Recipe(p=P, d_model=D, n_heads=2, d_head=8, d_mlp=HIDDEN, steps=2)
    return gi.train(recipe, tmp_path / "run").weights()


@pytest.mark.parametrize("name", HOOKED)
@pytest.mark.parametrize("wrapper", ["", "net."])
def test_a_whole_dict_is_read_without_what_it_has_besides(name, wrapper, tmp_path):
    weights = transformer(tmp_path)
    extra = HOOKED[name]
    state = {**{f"{wrapper}{key}": x for key, x in weights.items()}, **extra}
    torch.save(state, tmp_path / "m.pt")
    run = gi.load(tmp_path / "m.pt")
    assert set(run.weights()) == set(weights)
    assert all(torch.equal(run.weights()[key], weights[key]) for key in weights)
    said = next(note for note in run.notes if note.startswith("read without"))
    assert next(iter(extra)) in said


@pytest.mark.parametrize(
    "key",
    [
        "blocks.0.mlp.W_gate", "blocks.0.attn.q_norm.w", "blocks.0.ln2.w", "ln_final.w",
        "blocks.0.attn.lora_A", "blocks.0.mlp.W_third", "embed.ln.w",
    ],
)  # fmt: skip
def test_what_changes_the_forward_is_not_left_out(key, tmp_path):
    said = refusal({**transformer(tmp_path), key: torch.ones(D)}, tmp_path / "m.pt")
    assert key in said or "a transformer with" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": "resnet18", "epoch": 3}, "its 'model' is text, 'resnet18'"),
        ({"model": {}, "epoch": 3}, "its 'model' is a dictionary of nothing"),
        ({"model": {"layers": {"a": 1}}}, "its 'model' is a dictionary of 'layers'"),
        ({"train_loss": [1.0], "test_loss": [1.0]}, "a dictionary of 'train_loss', 'test_loss'"),
        ([torch.ones(2, 2)], "it is a list of 1"),
        (torch.ones(2, 3), "one tensor of shape (2, 3)"),
        ({}, "an empty dictionary"),
        ({f"loss_{i}": torch.ones(3) for i in range(5)}, "tensors of no network"),
        ({"model": "x" * 5000}, "xxx"),
    ],
)
def test_what_is_there_instead_of_weights_is_said(content, words, tmp_path):
    said = refusal(content, tmp_path / "m.pt")
    assert words in said
    assert "'model' or" not in said
    assert max(map(len, re.findall(r"'[^']*'", said)), default=0) <= 82


def test_state_dicts_by_words_are_told_from_those_by_step(tmp_path):
    weights = transformer(tmp_path)
    torch.save({0: weights, 100: weights}, tmp_path / "m.pt")
    assert gi.load(tmp_path / "m.pt").steps == (0, 100)
    assert "under 'ema', 'main'" in refusal(
        {"ema": weights, "main": weights, "model": "x"}, tmp_path / "m.pt"
    )


@pytest.mark.parametrize("change", [-1, 1])
def test_a_hooked_dict_with_other_sizes_is_refused_with_both(change, tmp_path):
    weights = transformer(tmp_path)
    rows = torch.cat([weights["embed.W_E"]] * 2)[: P + 1 + change]
    said = refusal({**weights, "embed.W_E": rows}, tmp_path / "m.pt", p=P)
    assert f"{P + 1 + change} tokens, 3 positions and {P} classes" in said
    assert f"{P + 1} tokens, 3 positions and {P} or {P + 1} classes" in said


def test_operands_with_tokens_of_their_own_are_unsupported_and_not_damaged(tmp_path):
    weights = transformer(tmp_path)
    rows = torch.cat([weights["embed.W_E"]] * 2)[: 2 * P + 1]
    said = refusal({**weights, "embed.W_E": rows}, tmp_path / "m.pt")
    assert "operands with tokens of their own (b from 7 on) are not supported" in said
    assert "damaged" not in said
