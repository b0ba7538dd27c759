"""What are the logits when activations of the last block are changed?

An ablation changes one activation and asks for the logits. Everything before that activation is as
it was, and after the last attention only the answer position is read: so the stages up to the
change are computed once, kept, and shared by every ablation that starts after them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.architecture import ACTIVATIONS, attention_softmax
from grokinterp.models.hooked_module import LOGITS
from grokinterp.models.layers import affine
from grokinterp.models.transformer import TransformerArchitecture


@dataclass(frozen=True)
class Edit:
    """A function of an activation, callable as a TransformerLens hook: `edit(tensor, hook)`.

    It treats every position by itself, so that it means the same on all positions and on the answer
    position alone. One that `reads_only` returns what it is given: nothing changes after it.
    A `late` one writes to the stream that follows a hook point: it comes after the others there.
    """

    change: Callable[[Tensor], Tensor]
    reads_only: bool = False
    late: int = 0

    def __call__(self, tensor: Tensor, hook: object = None) -> Tensor:
        """The changed activation; the one given is left as it is."""
        return self.change(tensor)


_Compute = Callable[[Mapping[str, Tensor]], Tensor]  # how an activation follows from earlier ones


class LastBlock:
    """The stages of one model on fixed inputs, with the activations of its own forward kept.

    Activations have TransformerLens' shapes with the answer as the only query position: [n, 1, ...]
    or, for attention patterns, [n, n_heads, 1, n_ctx]; what attention reads from (embeddings, keys,
    values) has all positions. For a model of several layers the stages start at the input of its
    last block, `resid_pre`; with one layer they start at the embedding.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        architecture: TransformerArchitecture,
        tokens: Int[Tensor, "n n_ctx"],
        *,
        resid_pre: Float[Tensor, "n n_ctx d_model"] | None = None,
    ) -> None:
        block = f"blocks.{architecture.n_layers - 1}."
        w = {name.removeprefix(block): weight for name, weight in weights.items()}
        self._stages = _stages(w, architecture, tokens, resid_pre)
        outside = ("hook_embed", "hook_pos_embed", LOGITS)
        self._names = [name if name in outside else block + name for name in self._stages]
        self._own: dict[str, Tensor] = {}
        for name, compute in self._stages.items():
            self._own[name] = compute(self._own)

    def has(self, name: str) -> bool:
        """Whether a hook name is one of the stages."""
        return name in self._names

    def logits(self, hooks: Sequence[tuple[str, Edit]] = ()) -> Float[Tensor, "n d_vocab_out"]:
        """Logits at the answer position with these edits made, in the order of the forward.

        Only what lies after the first edit is computed again.
        """
        changing = [self._names.index(name) for name, edit in hooks if not edit.reads_only]
        first = min(changing, default=len(self._names))
        found = dict(self._own)
        for place, (name, compute) in enumerate(self._stages.items()):
            if place > first:
                found[name] = compute(found)
            for hooked, edit in hooks:
                if hooked == self._names[place]:
                    found[name] = edit(found[name])
        return found[LOGITS][:, -1]


def _stages(
    w: Mapping[str, Tensor],
    architecture: TransformerArchitecture,
    tokens: Int[Tensor, "n n_ctx"],
    resid_pre: Float[Tensor, "n n_ctx d_model"] | None,
) -> dict[str, _Compute]:
    """Every stage by its name within the block, in the order of the forward."""
    activation = ACTIVATIONS[architecture.act_fn]

    def normed(x: Tensor, which: str) -> Tensor:
        if architecture.normalization_type is None:
            return x
        scale, shift = w[f"{which}.w"], w[f"{which}.b"]
        return torch.nn.functional.layer_norm(x, scale.shape, scale, shift, architecture.eps)

    def linear(x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        return affine(x.flatten(0, 1), matrix, bias).unflatten(0, x.shape[:2])

    def heads(x: Tensor, which: str) -> Tensor:
        matrix = w[f"attn.W_{which}"].transpose(0, 1).flatten(1)
        flat = linear(normed(x, "ln1"), matrix, w[f"attn.b_{which}"].flatten())
        return flat.unflatten(2, (architecture.n_heads, architecture.d_head))

    def pattern(q: Tensor, k: Tensor) -> Tensor:
        # With one query a head, a product and a sum are faster than a batch of tiny matrices.
        scores = (q * k).sum(dim=-1).transpose(1, 2)[:, :, None] / architecture.d_head**0.5
        rate = architecture.attention_rate
        return rate * attention_softmax(scores, dim=-1) + (1 - rate)

    start: dict[str, _Compute]
    if resid_pre is not None:
        start = {"hook_resid_pre": lambda _: resid_pre}
    else:
        position = w["pos_embed.W_pos"][: tokens.shape[1]]
        start = {
            "hook_embed": lambda _: w["embed.W_E"][tokens],
            "hook_pos_embed": lambda _: position.expand(len(tokens), -1, -1),
            "hook_resid_pre": lambda f: f["hook_embed"] + f["hook_pos_embed"],
        }
    return {
        **start,
        "attn.hook_q": lambda f: heads(f["hook_resid_pre"][:, -1:], "Q"),
        "attn.hook_k": lambda f: heads(f["hook_resid_pre"], "K"),
        "attn.hook_v": lambda f: heads(f["hook_resid_pre"], "V"),
        "attn.hook_pattern": lambda f: pattern(f["attn.hook_q"], f["attn.hook_k"]),
        "attn.hook_z": lambda f: torch.einsum(
            "nhqk,nkhd->nqhd", f["attn.hook_pattern"], f["attn.hook_v"]
        ),
        "hook_attn_out": lambda f: linear(
            f["attn.hook_z"].flatten(2), w["attn.W_O"].flatten(0, 1), w["attn.b_O"]
        ),
        "hook_resid_mid": lambda f: f["hook_resid_pre"][:, -1:] + f["hook_attn_out"],
        "mlp.hook_pre": lambda f: linear(
            normed(f["hook_resid_mid"], "ln2"), w["mlp.W_in"], w["mlp.b_in"]
        ),
        "mlp.hook_post": lambda f: activation(f["mlp.hook_pre"]),
        "hook_mlp_out": lambda f: linear(f["mlp.hook_post"], w["mlp.W_out"], w["mlp.b_out"]),
        "hook_resid_post": lambda f: f["hook_resid_mid"] + f["hook_mlp_out"],
        LOGITS: lambda f: linear(
            normed(f["hook_resid_post"], "ln_final"), w["unembed.W_U"], w["unembed.b_U"]
        ),
    }
