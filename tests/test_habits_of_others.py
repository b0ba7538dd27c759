"""What public codes do beside the usual: read all the same, told by the answers, or refused."""

import math

import pytest
import torch
from torch import nn

import grokinterp as gi

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

P, D = 7, 16
TASK = gi.ModularTask("subtract", P)  # whose operands cannot be exchanged
SAID = {"n_heads": 2, "p": P, "operation": "subtract"}


def waves(n):
    """Sines and cosines of n positions, in turn."""
    at = torch.arange(n)[:, None] * torch.exp(-math.log(1e4) * torch.arange(0, D, 2) / D)
    return torch.stack([at.sin(), at.cos()], dim=-1).flatten(1)


class Tutorial(nn.Module):
    """As torch's tutorial has it: waves for many positions, embeddings times sqrt(d)."""

    def __init__(self, *, scale=D**0.5, n=5000, batch_first=False, head=None):
        super().__init__()
        layer = nn.TransformerEncoderLayer(D, 2, 32, dropout=0.0, batch_first=batch_first)
        self.encoder = nn.Embedding(P + 1, D)
        self.pos_encoder = nn.Module()
        self.pos_encoder.register_buffer("pe", waves(n)[None] if batch_first else waves(n)[:, None])
        self.transformer_encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.decoder = nn.Linear(D, P) if head is None else None
        self.head, self.scale, self.batch_first = head, scale, batch_first

    def inside(self, tokens):
        x = self.encoder(tokens) * self.scale
        x = x + self.pos_encoder.pe.flatten(0, 1)[: tokens.shape[1]]
        if self.batch_first:
            return self.transformer_encoder(x)
        return self.transformer_encoder(x.transpose(0, 1)).transpose(0, 1)

    def forward(self, tokens):
        return (self.decoder or self.head)(self.inside(tokens)[:, -1])


class Block(nn.Module):
    """torch's attention and an MLP of one's own, with norms before or after each."""

    def __init__(self, *, after, attn="self_attn", ln1="self_attn_norm", mlp="ffn", ln2="ffn_norm"):
        super().__init__()
        self.parts, self.after = (attn, ln1, mlp, ln2), after
        inner = nn.Sequential(nn.Linear(D, 32), nn.GELU(), nn.Linear(32, D))
        for name, part in zip(
            self.parts,
            (nn.MultiheadAttention(D, 2), nn.LayerNorm(D), inner, nn.LayerNorm(D)),
            strict=True,
        ):
            setattr(self, name, part)

    def forward(self, x):
        attn, ln1, mlp, ln2 = (getattr(self, name) for name in self.parts)
        mask = torch.full((len(x), len(x)), -torch.inf).triu(1)
        if self.after:
            x = ln1(x + attn(x, x, x, attn_mask=mask)[0])
            return ln2(x + mlp(x))
        y = ln1(x)
        x = x + attn(y, y, y, attn_mask=mask)[0]
        return x + mlp(ln2(x))


class InSequence(nn.Module):
    """Blocks, a norm and the unembedding in one nn.Sequential."""

    def __init__(self, *, after=True, norm=True):
        super().__init__()
        self.token_embeddings, self.position_embeddings = nn.Embedding(P + 1, D), nn.Embedding(3, D)
        end = (nn.LayerNorm(D), nn.Linear(D, P)) if norm else (nn.Linear(D, P),)
        self.model = nn.Sequential(*(Block(after=after) for _ in "12"), *end)

    def forward(self, tokens):
        x = self.token_embeddings(tokens) + self.position_embeddings.weight
        return self.model(x.transpose(0, 1))[-1]


class Listed(nn.Module):
    """Blocks in a list under any name, their parts too."""

    def __init__(self, path, **parts):
        super().__init__()
        self.tok_emb, self.pos_emb, self.path = nn.Embedding(P + 1, D), nn.Embedding(3, D), path
        setattr(self, path, nn.ModuleList(Block(**parts) for _ in "12"))
        self.ln_f, self.head = nn.LayerNorm(D), nn.Linear(D, P, bias=False)

    def forward(self, tokens):
        x = (self.tok_emb(tokens) + self.pos_emb.weight).transpose(0, 1)
        for block in getattr(self, self.path):
            x = block(x)
        return self.head(self.ln_f(x[-1]))


def trained(model):
    """Until every pair is answered right, or as long as it takes to answer most."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-3)
    for _ in range(600):
        loss = nn.functional.cross_entropy(model(TASK.tokens), TASK.labels)
        if loss < 0.03:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def opened(model, path, **said):
    torch.save(model.state_dict(), path)
    return gi.load(path, **said)


def same_logits(run, model):
    with torch.no_grad():
        own = model.eval()(TASK.tokens)
    torch.testing.assert_close(run.snapshot().logits, own, rtol=1e-4, atol=1e-4)


GELU = {"act_fn": "gelu", "attention_dir": "causal"}
AS_WRITTEN = {
    "waves of 5000 positions": (lambda: Tutorial(scale=1.0), {}),
    "waves, [1, n, d]": (lambda: Tutorial(scale=1.0, n=64, batch_first=True), {}),
    "a norm in the head": (
        lambda: Tutorial(
            scale=1.0, n=3, head=nn.Sequential(nn.LayerNorm(D), nn.Dropout(0.1), nn.Linear(D, P))
        ),
        {},
    ),
    "in sequence": (InSequence, GELU | {"norm_position": "post"}),
    "in sequence, norms before": (lambda: InSequence(after=False), GELU),
    "in sequence, no last norm": (lambda: InSequence(norm=False), GELU | {"norm_position": "post"}),
    "transformer_blocks": (
        lambda: Listed(
            "transformer_blocks", after=False, attn="attn", ln1="attn_norm", mlp="mlp",
            ln2="mlp_norm",
        ),
        GELU,
    ),
    "encoder_layers": (
        lambda: Listed(
            "encoder_layers", after=True, attn="attention", ln1="layer_norm1", mlp="feed_forward",
            ln2="layer_norm2",
        ),
        GELU | {"norm_position": "post"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_names_and_shapes_as_people_write_them(name, tmp_path):
    make, said = AS_WRITTEN[name]
    torch.manual_seed(0)
    model = make()
    for weight in model.parameters():  # none is a usual start
        weight.data += 0.1 * torch.randn_like(weight)
    run = opened(model, tmp_path / "m.pt", **SAID, **said)
    same_logits(run, model)
    assert gi.load(tmp_path / "m.pt", **SAID, **said, prefix="").architecture == run.architecture


@pytest.mark.parametrize("n", [3, 5000])
def test_a_scaled_embedding_is_told_by_the_answers(n, tmp_path):
    torch.manual_seed(0)
    model = trained(Tutorial(n=n))
    run = opened(model, tmp_path / "m.pt", n_heads=2)
    same_logits(run, model)
    assert run.task.operation == "subtract"
    assert any("embedding multiplied by sqrt(16)" in note for note in run.notes)
    again = gi.import_run(tmp_path / "m.pt", tmp_path / "run", n_heads=2)
    same_logits(again, model)


def test_norms_after_in_blocks_of_ones_own_are_told_by_the_answers(tmp_path):
    torch.manual_seed(0)
    model = trained(InSequence())
    run = opened(model, tmp_path / "m.pt", n_heads=2, act_fn="gelu")
    same_logits(run, model)
    assert any("norm_position=post is assumed: it answers best so" in note for note in run.notes)
    assert run.task.operation == "subtract"


def test_a_network_read_at_another_place_says_that_its_code_may_do_more(tmp_path):
    class Pooled(Tutorial):
        def forward(self, tokens):
            return self.decoder(self.inside(tokens).mean(dim=1))

    torch.manual_seed(0)
    model = trained(Pooled(scale=1.0, n=3))
    notes = " ".join(opened(model, tmp_path / "m.pt", n_heads=2).notes)
    assert "read at the last position" in notes
    assert "its code uses the weights in another way" in notes


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"cls_token": torch.ones(1, 1, D)}, "'cls_token'"),
        ({"embedding_norm.weight": torch.ones(D)}, "'embedding_norm.weight'"),
        ({"transformer_encoder.layers.0.self_attn.bias_k": torch.ones(1, 1, D)}, "bias_k"),
        ({"head.0.weight": torch.ones(D, D), "head.2.weight": torch.ones(P, D)}, "'head.0.weight'"),
        ({"heads.0.key.weight": torch.ones(D, D)}, "a module for each attention head"),
    ],
)
def test_what_has_no_place_is_refused_by_name_with_a_way_out(extra, words, tmp_path):
    state = {**Tutorial(n=3).state_dict(), **extra}
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(gi.InputError, match=r"gi\.snapshot") as refused:
        gi.load(tmp_path / "m.pt", n_heads=2)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_sum_of_embeddings_says_that_it_is_no_mean(tmp_path):
    model = nn.ModuleDict(
        {"emb": nn.EmbeddingBag(P, 6), "fc1": nn.Linear(6, 24), "fc2": nn.Linear(24, P)}
    )
    run = opened(model, tmp_path / "m.pt")
    halve = "taken to be added up; if the code takes their mean"
    assert any(halve in note for note in run.notes)
    state = model.state_dict()
    state["emb.weight"] = state["emb.weight"] / 2  # as the note says
    torch.save(state, tmp_path / "m.pt")
    pairs = gi.ModularTask("add", P, equals_token=False).tokens
    with torch.no_grad():
        own = model.fc2(model.fc1(model.emb(pairs)).relu())
    torch.testing.assert_close(gi.load(tmp_path / "m.pt").snapshot().logits, own)
