"""A transformer spelt out from its definition, for comparing with TransformerLens and our own."""

import torch
from torch import Tensor

ACTIVATIONS = {
    "relu": torch.relu,
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "gelu_new": lambda x: x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x / (1 + torch.exp(-x)),
}


def reference_logits(weights, architecture, tokens) -> Tensor:
    """Logits at every position, one head and one query at a time."""
    a = architecture
    x = weights["embed.W_E"][tokens] + weights["pos_embed.W_pos"][: tokens.shape[1]]
    for layer in range(a.n_layers):
        w = {
            name.removeprefix(f"blocks.{layer}."): weight
            for name, weight in weights.items()
            if name.startswith(f"blocks.{layer}.")
        }
        post = a.norm_position == "post"
        normed = x if post else layer_norm(x, w, "ln1", a)
        added = w["attn.b_O"].expand(x.shape).clone()
        for h in range(a.n_heads):
            q, k, v = (normed @ w[f"attn.W_{side}"][h] + w[f"attn.b_{side}"][h] for side in "QKV")
            for query in range(tokens.shape[1]):
                seen = query + 1 if a.attention_dir == "causal" else tokens.shape[1]
                scores = (k[:, :seen] @ q[:, query, :, None])[..., 0] / a.d_head**0.5
                pattern = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
                pattern = pattern / pattern.sum(dim=1, keepdim=True)
                whole = torch.zeros(tokens.shape, dtype=x.dtype)
                whole[:, :seen] = pattern
                whole = a.attention_rate * whole + (1 - a.attention_rate)
                mixed = (whole[:, :, None] * v).sum(dim=1)
                added[:, query] += mixed @ w["attn.W_O"][h]
        x = layer_norm(x + added, w, "ln1", a) if post else x + added
        if a.attn_only:
            continue
        pre = (x if post else layer_norm(x, w, "ln2", a)) @ w["mlp.W_in"] + w["mlp.b_in"]
        x = x + ACTIVATIONS[a.act_fn](pre) @ w["mlp.W_out"] + w["mlp.b_out"]
        x = layer_norm(x, w, "ln2", a) if post else x
    x = layer_norm(x, weights, "ln_final", a) if a.final_norm else x
    return x @ weights["unembed.W_U"] + weights["unembed.b_U"]


def layer_norm(x, weights, name, architecture):
    if architecture.normalization_type is None:
        return x
    kind = architecture.normalization_type
    centred = x - x.mean(dim=-1, keepdim=True) if kind.startswith("LN") else x
    variance = centred.square().mean(dim=-1, keepdim=True)
    scaled = centred / (variance + architecture.eps).sqrt()
    scaled = scaled if kind.endswith("Pre") else scaled * weights[f"{name}.w"]
    return scaled + weights[f"{name}.b"] if kind == "LN" else scaled
