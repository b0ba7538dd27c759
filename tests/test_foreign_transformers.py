"""Transformers of other kinds: trained live, saved, read again, and the same by every number."""

import pytest
import torch
from torch import nn

import grokinterp as gi
from grokinterp.circuits import hooks
from grokinterp.models.foreign_names import BRIDGE, PAPER, to_foreign, torch_names
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.progress.losses import restricted_loss

P = 7
TASK = gi.ModularTask("add", P)
SIZES = {
    "n_heads": 2, "d_model": 16, "d_head": 8, "d_mlp": 32, "d_vocab": P + 1, "d_vocab_out": P,
    "n_ctx": 3,
}  # fmt: skip


class Encoder(nn.Module):
    """As many write it: torch's encoder between an embedding with positions and a linear head."""

    def __init__(self, *, n_layers=1, first=False, norm=False, single=False):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            16, 2, 32, dropout=0.0, norm_first=first, batch_first=True
        )
        self.token_embedding = nn.Embedding(P + 1, 16)
        self.pos = nn.Parameter(torch.randn(1, 3, 16))
        if single:
            self.encoder_layer = layer
        else:
            final = nn.LayerNorm(16) if norm else None
            self.transformer = nn.TransformerEncoder(
                layer, n_layers, norm=final, enable_nested_tensor=False
            )
        self.fc = nn.Linear(16, P)

    def forward(self, tokens):
        inside = getattr(self, "encoder_layer", None) or self.transformer
        return self.fc(inside(self.token_embedding(tokens) + self.pos)[:, -1])


class Attention(nn.Module):
    """A stack of torch's attention with the stream around it, and a table of waves as positions."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(P + 1, 16)
        at = torch.arange(3)[:, None] * 0.3 ** torch.arange(8)
        self.register_buffer("pe", torch.cat([at.sin(), at.cos()], dim=1)[:, None])
        self.attns = nn.ModuleList(nn.MultiheadAttention(16, 2, batch_first=True) for _ in "12")
        self.head = nn.Linear(16, P, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens) + self.pe[:, 0]
        for attn in self.attns:
            x = x + attn(x, x, x, need_weights=False)[0]
        return self.head(x[:, -1])


def hooked(**changes):
    def make():
        architecture = TransformerArchitecture(**{"n_layers": 1} | SIZES | changes)
        return architecture.hooked(architecture.initial(seed=torch.initial_seed())).train()

    return make


KINDS = {  # how a live model is made, and what has to be said of its file
    "attention alone": (hooked(attn_only=True, n_layers=2), {"attention_dir": "causal"}),
    "attention alone, one layer": (hooked(attn_only=True), {}),
    "RMS": (hooked(normalization_type="RMS", n_layers=2), {"attention_dir": "causal"}),
    "LNPre": (hooked(normalization_type="LNPre"), {"normalization_type": "LNPre"}),
    "RMSPre": (hooked(normalization_type="RMSPre"), {"normalization_type": "RMSPre"}),
    "encoder": (lambda: Encoder(), {"n_heads": 2}),
    "encoder of two layers": (lambda: Encoder(n_layers=2, norm=True), {"n_heads": 2}),
    "encoder, norms first": (
        lambda: Encoder(n_layers=2, first=True, norm=True), {"n_heads": 2, "norm_first": True},
    ),
    "encoder, norms first, none at the end": (
        lambda: Encoder(first=True), {"n_heads": 2, "norm_position": "pre"},
    ),
    "one encoder layer": (lambda: Encoder(single=True), {"nhead": 2}),
    "torch's attention": (Attention, {"n_heads": 2}),
}  # fmt: skip


def answers(model, tokens):
    found = model(tokens)
    return found[:, -1] if found.ndim == 3 else found


def trained(make):
    """Until every pair is answered right, from the first seed that does it on this processor."""
    tokens, labels = TASK.tokens, TASK.labels
    for seed in range(5):
        torch.manual_seed(seed)
        model = make()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-3)
        for _ in range(1000):
            optimizer.zero_grad()
            logits = answers(model, tokens)
            loss = nn.functional.cross_entropy(logits, labels)
            loss.backward()
            if loss < 0.02 and (logits.argmax(dim=1) == labels).all():
                return model.eval()
            optimizer.step()
    raise AssertionError("no seed has learned")


@pytest.mark.parametrize("name", KINDS)
def test_what_is_read_is_what_was_trained(name, tmp_path):
    make, said = KINDS[name]
    model = trained(make)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    heads = {} if "nhead" in said else {"n_heads": 2}  # a bridge does not show them either
    said = {"p": P, "operation": "add", "act_fn": "relu"} | heads | said
    run = gi.load(tmp_path / "m.pt", **said)
    read, live = run.snapshot(), gi.snapshot(model, TASK)
    with torch.no_grad():
        own = answers(model, TASK.tokens)
    torch.testing.assert_close(read.logits, own, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(live.logits, own, rtol=1e-4, atol=1e-4)
    right = own.argmax(dim=1) == TASK.labels
    assert bool(right.all())
    assert torch.equal(read.logits.argmax(dim=1) == TASK.labels, right)
    assert any("100.0% of the table right" in note for note in run.notes)
    every = (1, 2, 3)
    theirs = gi.key_frequencies(live)
    assert gi.key_frequencies(read).frequencies == theirs.frequencies
    for keys in ((1,), (2, 3)):
        expected = restricted_loss(live, keys)
        assert restricted_loss(read, keys) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    # The answers without each frequency, and neurons where both have them.
    pairs = [(hooks.fourier("unembed.hook_out", TASK, [k]),) * 2 for k in every]
    if "coder" in name:
        path = "encoder_layer" if name.startswith("one") else "transformer.layers.0"
        zeros = [hooks.neurons(f"{path}.linear1", [3, 7, 20], mode="zero")]
        pairs += [(zeros[0], hooks.neurons(0, [3, 7, 20], mode="zero"))]
    elif "torch" not in name:
        pairs += [(one, one) for one in (hooks.heads(0, 1), hooks.attention(0), hooks.patterns(0))]
    for ours, other in ((b, a) for a, b in pairs):
        whole = gi.ablate(live, [other], frequencies=every, placebos=0, task=TASK).rows[0]
        found = gi.ablate(read, [ours], frequencies=every, placebos=0).rows[0]
        assert found.score.loss_all == pytest.approx(whole.score.loss_all, rel=1e-4, abs=1e-6)
        assert found.score.acc_all == whole.score.acc_all


def test_what_is_assumed_of_torchs_encoder_is_said(tmp_path):
    torch.manual_seed(1)
    torch.save(Encoder(n_layers=2).state_dict(), tmp_path / "m.pt")
    with pytest.raises(gi.InputError, match=r"give n_heads= \(1, 2, 4, 8, 16 divide"):
        gi.load(tmp_path / "m.pt")
    with pytest.raises(gi.InputError, match="n_heads=3 does not divide"):
        gi.load(tmp_path / "m.pt", n_heads=3)
    run = gi.load(tmp_path / "m.pt", n_heads=2)
    shape = run.architecture
    assert (shape.norm_position, shape.final_norm, shape.eps) == ("post", False, 1e-5)
    assert (shape.attention_dir, shape.act_fn) == ("bidirectional", "relu")
    for said in (
        "norm_position=post is assumed", "attention_dir=bidirectional is assumed",
        "act_fn=relu is assumed", "eps=1e-05 is assumed", "read at the last position",
    ):  # fmt: skip
        assert any(said in note for note in run.notes), said
    config = {"nhead": 4, "norm_first": True, "activation": "gelu", "dim_feedforward": 32}
    torch.save(
        {"model": Encoder(n_layers=2, first=True).state_dict(), "config": config},
        tmp_path / "n.pt",
    )
    shape = gi.load(tmp_path / "n.pt").architecture
    assert (shape.norm_position, shape.n_heads, shape.act_fn) == ("pre", 4, "gelu")


def alone(n_layers=2, **changes):
    architecture = TransformerArchitecture(
        **{"n_layers": n_layers, "attn_only": True} | SIZES | changes
    )
    weights = architecture.initial(seed=0)
    return architecture, {
        name: torch.zeros_like(w) if ".b_" in name and "unembed" not in name else w
        for name, w in weights.items()
    }


def as_gpt(weights, n_layers):
    state = to_foreign(weights, BRIDGE, n_layers)
    for layer in range(n_layers):
        rows = [state.pop(f"blocks.{layer}.attn.{x}.weight") for x in "qkv"]
        state[f"blocks.{layer}.attn.c_attn.weight"] = torch.cat(rows)
        state = {x: w for x, w in state.items() if not x.endswith(("q.bias", "k.bias", "v.bias"))}
    return state


@pytest.mark.parametrize("layout", ["hooked", "bridge", "paper", "minimal_gpt"])
def test_attention_alone_is_read_in_every_layout(layout, tmp_path):
    architecture, weights = alone()
    state = {
        "hooked": weights,
        "bridge": to_foreign(weights, BRIDGE, 2),
        "paper": to_foreign(weights, PAPER, 2),
        "minimal_gpt": as_gpt(weights, 2),
    }[layout]
    torch.save(state, tmp_path / "m.pt")
    run = gi.load(
        tmp_path / "m.pt", **({"n_heads": 2} if layout in ("minimal_gpt", "bridge") else {})
    )
    assert run._store.recognised.layout == layout
    assert run.architecture == architecture
    assert all(torch.equal(x, weights[name]) for name, x in run.weights().items())
    assert any("no layer has an MLP" in note for note in run.notes)
    assert not any("act_fn" in note for note in run.notes)
    with pytest.raises(gi.InputError, match="attn_only=False contradicts"):
        gi.load(tmp_path / "m.pt", n_heads=2, attn_only=False)


def test_it_goes_through_a_run_and_back(tmp_path):
    torch.manual_seed(2)
    torch.save(Encoder(n_layers=2).state_dict(), tmp_path / "m.pt")
    loaded = gi.load(tmp_path / "m.pt", n_heads=2)
    run = gi.import_run(tmp_path / "m.pt", tmp_path / "run", n_heads=2)
    assert run.architecture == loaded.architecture
    torch.testing.assert_close(run.snapshot().logits, loaded.snapshot().logits)
    assert '"format": 2' in (tmp_path / "run" / "run.json").read_text()
    torch.testing.assert_close(run.model()(TASK.tokens)[:, -1], run.snapshot().logits)
    for format in ("demo", "paper"):
        with pytest.raises(gi.InputError, match="TransformerLens has no class for"):
            gi.export(run, tmp_path / "x.pt", format=format)


def test_what_is_told_must_agree_with_what_weights_tell(tmp_path):
    _, weights = alone(normalization_type="LN")
    torch.save(weights, tmp_path / "m.pt")
    for said in ("RMS", "LNPre"):
        with pytest.raises(gi.InputError, match=f"normalization_type={said} contradicts"):
            gi.load(tmp_path / "m.pt", normalization_type=said)
    with pytest.raises(gi.InputError, match="normalization_type='Batch'"):
        gi.load(tmp_path / "m.pt", normalization_type="Batch")
    with pytest.raises(gi.InputError, match="norm_position='middle'"):
        gi.load(tmp_path / "m.pt", norm_position="middle")


def test_names_of_torchs_parts():
    decoder = ["layers.0.self_attn.in_proj_weight", "layers.0.multihead_attn.in_proj_weight"]
    assert torch_names(decoder) is None
    assert torch_names(["blocks.0.attn.in_proj_weight", "blocks.0.mlp.fc1.weight"]) is None
    many = torch_names([f"attns.{i}.in_proj_bias" for i in (10, 9)]
                       + [f"attns.{i}.in_proj_weight" for i in (10, 9)])  # fmt: skip
    assert many is not None
    assert many["attns.9.in_proj_bias"] == "blocks.0.attn.qkv.bias"
    assert many["attns.10.in_proj_weight"] == "blocks.1.attn.qkv.weight"
