"""Which architecture is it, where it is none that can be read from its weights alone?

Names and shapes of a state dict tell the usual ones apart; the answer is for a message, so that
nobody is told to rename weights that such a network cannot have. None is the answer for a
transformer with attention and an MLP in every layer under names that are known: those can be read.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, pairwise

from torch import Tensor

MOST_NAMES = 2_000  # that are looked at, of the first layers
_ATTENTION = re.compile(
    r"(^|[._])(self_)?att(n|ention)|(^|\.)(mha|sa|multihead\w*|W_?[QKVO]|in_proj_(weight|bias)"
    r"|(to_|w_?|W_?)?(q|k|v|qkv)(_proj|_lin(ear)?|_w)?\.(weight|bias)|(query|key|value)\w*"
    r"|heads\.\d+\..*)(\.|$)"
)
_MLP = re.compile(
    r"(^|[._])(mlp|ffn?|feed_?forward|ffwd|fc_?\d|c_fc|fc_(in|out)|linear_?[12]|lin_?[12]|dense"
    r"|intermediate|up_proj|down_proj|W_in|W_out|w[123]|experts)(\.|_|$)"
)
_BLOCK = re.compile(r"(^|\.)(\w*blocks?|layers?|h|stack)\.(\d+)\.(?P<inner>.+)")
_NORM = re.compile(
    r"(^|[._])(ln|norm|layer_?norm|rms|rmsnorm|batch_?norm|bn)[\w.]*$", re.IGNORECASE
)
_POSITION = re.compile(r"(^|[._])(pos\w*|wpe|pe|position\w*)(\.|_|$)")
_TOKEN = re.compile(r"(^|\.)(\w*emb\w*|wte|tok\w*|W_E)(\.|$|_)|(^|\.)W_E$")
_HEAD = re.compile(
    r"(^|\.)(unembed\w*|lm_head|head|output\w*|out|fc(_out)?|classifier|decoder|readout|to_logits"
    r"|W_U|linear)(\.|$)"
)
Shapes = dict[str, tuple[int, ...]]


def other_architecture(state: Mapping[str, Tensor]) -> str | None:
    """A name for a network that cannot be read as a transformer's usual weights; None if it may.

    >>> import torch
    >>> lstm = torch.nn.ModuleDict({"e": torch.nn.Embedding(7, 4), "r": torch.nn.LSTM(4, 8)})
    >>> other_architecture(lstm.state_dict())
    'a recurrent network (nn.LSTM)'
    >>> perceptron = torch.nn.Sequential(torch.nn.Linear(14, 32), torch.nn.Linear(32, 7))
    >>> other_architecture(perceptron.state_dict())
    'a multilayer perceptron (MLP without attention, 14 -> 32 -> 7, operands one-hot and
    concatenated)'
    """
    shapes = {key: tuple(state[key].shape) for key in islice(state, MOST_NAMES)}
    for rule in (*_OF_ANY, *(_OF_TRANSFORMERS if has_attention(shapes) else (_perceptron,))):
        if found := rule(shapes):
            return found
    return None


def has_attention(names: Iterable[str]) -> bool:
    """Whether weights of these names are those of attention."""
    return any(_ATTENTION.search(name) for name in names)


def _recurrent(shapes: Shapes) -> str | None:
    for name, shape in shapes.items():
        if re.search(r"(^|[._])weight_hh", name) and len(shape) == 2 and shape[1]:
            kinds = {4: "nn.LSTM", 3: "nn.GRU", 1: "nn.RNN"}
            return f"a recurrent network ({kinds.get(shape[0] // shape[1], 'RNN')})"
    if any(re.search(r"(^|[._])(lstm|gru|rnn)\w*\.", name, re.IGNORECASE) for name in shapes):
        return "a recurrent network (RNN)"
    return None


def _state_space(shapes: Shapes) -> str | None:
    return "a state-space model (such as Mamba)" if _any(r"(^|\.)A_log$", shapes) else None


def _convolutional(shapes: Shapes) -> str | None:
    kernels = [
        name for name, shape in shapes.items()
        if (len(shape) in (3, 4, 5) and re.search("conv", name, re.IGNORECASE))
        or (len(shape) == 4 and re.search(r"weight$|\.W$", name))
    ]  # fmt: skip
    return "a convolutional network (CNN)" if kernels else None


def _of_torch(shapes: Shapes) -> str | None:
    """Transformers of torch.nn, whose norms stand after attention and MLP unless they are told."""
    layer = _any(r"(^|\.)self_attn\.in_proj_weight$", shapes) and _any(r"linear1\.weight$", shapes)
    if _any(r"(^|\.)multihead_attn\.in_proj_weight$", shapes):
        both = _any(r"(^|\.)encoder\.layers\.", shapes)
        return "an nn.Transformer (encoder and decoder)" if both else "an nn.TransformerDecoder"
    if not layer:
        return None
    stacked = _any(r"layers\.\d+\.self_attn", shapes)
    return "an nn.TransformerEncoder" if stacked else "an nn.TransformerEncoderLayer"


def _perceptron(shapes: Shapes) -> str | None:
    """A network without attention: how wide, and how the operands come in."""
    tables = [s for name, s in shapes.items() if _TOKEN.search(name) and not _is_other(name, s)]
    chain = [
        shape for name, shape in shapes.items()
        if len(shape) == 2 and not _TOKEN.search(name) and not _NORM.search(name)
        and not _POSITION.search(name)
        and not re.search(r"(^|[._])(basis|dft|fourier\w*)$", name)
    ]  # fmt: skip
    if not chain:
        return "an embedding alone" if tables else None
    widths = _widths(chain)
    if len(chain) == 1 and not tables:
        return f"a linear model ({widths[0]} -> {widths[-1]})"
    how = _operands(tables, widths)
    sizes = " -> ".join(
        map(str, widths[:6] if len(widths) < 7 else [*widths[:5], "...", widths[-1]])
    )
    return f"a multilayer perceptron (MLP without attention, {sizes}{how})"


def _operands(tables: list[tuple[int, ...]], widths: list[int]) -> str:
    """How the operands of a perceptron come in, as far as sizes tell."""
    first, classes = widths[0], widths[-1]
    if len(tables) >= 2:
        return ", an embedding for each operand"
    if tables:
        d_embed = tables[0][1]
        if first == 2 * d_embed:
            return ", embeddings of the operands concatenated"
        return ", embeddings of the operands summed or multiplied" if first == d_embed else ""
    if first == 2 * classes:
        return ", operands one-hot and concatenated"
    return ", operands one-hot and summed" if first == classes else ""


def _widths(matrices: Sequence[tuple[int, ...]]) -> list[int]:
    """The sizes from input to output, of matrices as torch.nn.Linear has them or transposed."""
    linear = all(one[0] == other[1] for one, other in pairwise(matrices))
    ordered = [shape[::-1] for shape in matrices] if linear else matrices
    return [ordered[0][0], *(shape[1] for shape in ordered)]


def _attention_only(shapes: Shapes) -> str | None:
    if _any(_MLP, shapes):
        return None
    inside = [(name, s) for name, s in shapes.items() if _inner(name) and len(s) >= 2]
    others = inside or [(name, s) for name, s in shapes.items() if len(s) >= 2]
    unknown = [
        name for name, _ in others
        if not any(each.search(name) for each in (_ATTENTION, _NORM, _POSITION, _TOKEN, _HEAD))
    ]  # fmt: skip
    return None if unknown else "an attention-only transformer (no MLP)"


def _unusual_mlp(shapes: Shapes) -> str | None:
    if _any(r"(^|\.)(\w*experts?)\.\d+\.|(^|\.)router\.", shapes):
        return "a transformer with a mixture of experts"
    three = all(_any(rf"(^|\.)w{x}\.weight$", shapes) for x in "123")
    if three or _any(r"(^|\.)(W_gate|b_gate|gate_proj|gate_up_proj|w_gate)(\.|$)", shapes):
        return "a transformer with gated MLPs (as LLaMA has)"
    return None


def _unusual_attention(shapes: Shapes) -> str | None:
    if _any(r"(^|\.)\w*heads?\.\d+\.", shapes):
        return "a transformer with a module for each attention head"
    if _any(r"attn\._W_K$", shapes):
        return "a transformer with grouped-query attention"
    if _any(r"(^|\.)(q|k|query|key|qk)_?(norm|ln|layernorm)(\.|$)", shapes):
        return "a transformer with norms on queries and keys"
    if _any(r"(^|\.)ln[12]_post\.", shapes):
        return "a transformer with norms after attention and MLP as well"
    if _any(r"lora_?[AB]", shapes):
        return "a transformer with LoRA adapters"
    return None


def _embeddings(shapes: Shapes) -> str | None:
    tables = [
        shape for name, shape in shapes.items()
        if not _inner(name) and _TOKEN.search(name) and not _is_other(name, shape)
    ]  # fmt: skip
    if len(tables) >= 2:
        return "a transformer with an embedding for each operand"
    return None


def _positions(shapes: Shapes) -> str | None:
    positions = [name for name in shapes if not _inner(name) and _POSITION.search(name)]
    if any(re.search(r"(^|\.)(pe|inv_freq)$", name) for name in positions):
        return "a transformer with sinusoidal positions"
    if _any(r"rotary|inv_freq|(^|\.)rope", shapes):
        return "a transformer with rotary positions"
    if positions or _any(r"(^|\.)W_pos$", shapes):
        return None
    return "a transformer without a learned position embedding (rotary, sinusoidal or none)"


def _is_other(name: str, shape: tuple[int, ...]) -> bool:
    """Whether what is named like a token embedding is something else."""
    return (
        len(shape) != 2
        or bool(_POSITION.search(name) or _NORM.search(name))
        or re.search(r"(^|\.)un_?emb", name) is not None
    )


def _inner(name: str) -> str | None:
    found = _BLOCK.search(name)
    return found["inner"] if found else None


def _any(pattern: str | re.Pattern[str], shapes: Shapes) -> bool:
    return any(re.search(pattern, name) for name in shapes)


_Rule = Callable[[Shapes], str | None]
_OF_ANY: tuple[_Rule, ...] = (_recurrent, _state_space, _convolutional, _of_torch)
_OF_TRANSFORMERS: tuple[_Rule, ...] = (
    _attention_only, _unusual_mlp, _unusual_attention, _embeddings, _positions
)  # fmt: skip
