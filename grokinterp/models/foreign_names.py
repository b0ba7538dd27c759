"""How do others name a transformer's weights, and which networks do other names belong to?

A layout is a table: canonical name, foreign key, and the einops pattern that takes the foreign
tensor to the canonical one (read from right to left, it takes it back). `{}` is the layer; v is the
vocabulary, m d_model, h heads, d d_head, f d_mlp, c the context.

BRIDGE   TransformerBridge of TransformerLens 4 (torch.nn.Linear keeps its matrices transposed)
PAPER    released code of Nanda et al. 2023 (arXiv 2301.05217), and of Zhong et al. 2023 (arXiv
         2306.17844): HookedTransformer's names with other shapes

The names of small GPTs (nanoGPT, minGPT, GPT-2 and most training loops of one's own) are brought to
those of the bridge: embeddings, norms, attention with one fused query-key-value matrix or three,
a two-layer MLP or none, unembedding. So are those of torch's own nn.TransformerEncoder,
nn.TransformerEncoderLayer and nn.MultiheadAttention (`torch_names`).

`other_architecture` names a network that cannot be read from its weights alone. The name is for a
message, so that nobody is told to rename weights that such a network cannot have.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

from einops import rearrange
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.registry import Registry, check_function
from grokinterp.models.architecture import Weights

Table = tuple[tuple[str, str, str], ...]
ToCanonical = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor] | None]
OWN_LAYOUTS = ("hooked", "bridge", "paper", "minimal_gpt", "torch_encoder", "perceptron")
LAYOUTS: Registry[ToCanonical] = Registry(
    "layout", reserved=dict.fromkeys(OWN_LAYOUTS, "a layout of this package")
)


def register_layout(name: str) -> Callable[[ToCanonical], ToCanonical]:
    """Register a function as a layout of weights in checkpoints of others.

        @gi.register.layout("upper-case")
        def upper_case(state):
            if "EMBED.W_E" not in state:
                return None
            return {key.replace("EMBED", "embed").replace("BLOCKS", "blocks"): weight
                    for key, weight in state.items()}

    It is given a state dict, and returns HookedTransformer's names and shapes, or None for weights
    that are not of this layout. It is asked where none of this package fits.
    """
    LAYOUTS.named(name)

    def register(function: ToCanonical) -> ToCanonical:
        check_function("layout", name, function, ("state",))
        return LAYOUTS.add(name, function, by=function)

    return register


@dataclass(frozen=True)
class Slot:
    """Where a layout keeps one canonical weight, and the way there and back."""

    key: str
    pattern: str

    def canonical(self, foreign: Tensor, n_heads: int) -> Tensor:
        """The foreign tensor in canonical shape."""
        sizes = {"h": n_heads} if "(h d)" in self.pattern else {}
        return rearrange(foreign, self.pattern, **sizes)

    def foreign(self, canonical: Tensor) -> Tensor:
        """The canonical tensor in the foreign shape."""
        left, _, right = self.pattern.partition(" -> ")
        return rearrange(canonical, f"{right} -> {left}")


_ATTN_KEY, _MLP_KEY = "blocks.{}.attn", "blocks.{}.mlp"

BRIDGE: Table = (
    ("embed.W_E", "embed.weight", "v m -> v m"),
    ("pos_embed.W_pos", "pos_embed.weight", "c m -> c m"),
    ("blocks.{}.ln1.w", "blocks.{}.ln1.weight", "m -> m"),
    ("blocks.{}.ln1.b", "blocks.{}.ln1.bias", "m -> m"),
    *((f"{_ATTN_KEY}.W_{x}", f"{_ATTN_KEY}.{x.lower()}.weight", "(h d) m -> h m d")
      for x in "QKV"),
    *((f"{_ATTN_KEY}.b_{x}", f"{_ATTN_KEY}.{x.lower()}.bias", "(h d) -> h d") for x in "QKV"),
    (f"{_ATTN_KEY}.W_O", f"{_ATTN_KEY}.o.weight", "m (h d) -> h d m"),
    (f"{_ATTN_KEY}.b_O", f"{_ATTN_KEY}.o.bias", "m -> m"),
    ("blocks.{}.ln2.w", "blocks.{}.ln2.weight", "m -> m"),
    ("blocks.{}.ln2.b", "blocks.{}.ln2.bias", "m -> m"),
    (f"{_MLP_KEY}.W_in", f"{_MLP_KEY}.in.weight", "f m -> m f"),
    (f"{_MLP_KEY}.b_in", f"{_MLP_KEY}.in.bias", "f -> f"),
    (f"{_MLP_KEY}.W_out", f"{_MLP_KEY}.out.weight", "m f -> f m"),
    (f"{_MLP_KEY}.b_out", f"{_MLP_KEY}.out.bias", "m -> m"),
    ("ln_final.w", "ln_final.weight", "m -> m"),
    ("ln_final.b", "ln_final.bias", "m -> m"),
    ("unembed.W_U", "unembed.weight", "v m -> m v"),
    ("unembed.b_U", "unembed.bias", "v -> v"),
)  # fmt: skip

PAPER: Table = (
    ("embed.W_E", "embed.W_E", "m v -> v m"),
    ("pos_embed.W_pos", "pos_embed.W_pos", "c m -> c m"),
    *((f"{_ATTN_KEY}.W_{x}", f"{_ATTN_KEY}.W_{x}", "h d m -> h m d") for x in "QKV"),
    (f"{_ATTN_KEY}.W_O", f"{_ATTN_KEY}.W_O", "m (h d) -> h d m"),
    (f"{_MLP_KEY}.W_in", f"{_MLP_KEY}.W_in", "f m -> m f"),
    (f"{_MLP_KEY}.b_in", f"{_MLP_KEY}.b_in", "f -> f"),
    (f"{_MLP_KEY}.W_out", f"{_MLP_KEY}.W_out", "m f -> f m"),
    (f"{_MLP_KEY}.b_out", f"{_MLP_KEY}.b_out", "m -> m"),
    ("unembed.W_U", "unembed.W_U", "m v -> m v"),
)


def slots(table: Table, n_layers: int) -> dict[str, Slot]:
    """Where each canonical weight of a model with so many layers is kept.

    >>> slots(PAPER, 1)["blocks.0.attn.W_O"]
    Slot(key='blocks.0.attn.W_O', pattern='m (h d) -> h d m')
    """
    return {
        name.format(layer): Slot(key.format(layer), pattern)
        for name, key, pattern in table
        for layer in (range(n_layers) if "{}" in name else (0,))
    }


def to_foreign(weights: Mapping[str, Tensor], table: Table, n_layers: int) -> Weights:
    """Canonical weights under a layout's keys and shapes; others are left out."""
    return {
        slot.key: slot.foreign(weights[name]).contiguous()
        for name, slot in slots(table, n_layers).items()
        if name in weights
    }


_KIND = r"(?P<kind>weight|bias|gamma|beta|w|b)"
_GPT_ATTENTION, _GPT_MLP = r"(self_)?att(n|ention)", r"(mlp|ffn?|feed_forward)"
_NORM_WORD = r"(ln|(layer_?)?norm|rms(_?norm)?)"
_GPT_NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (rf"(wte|encoder|(tok|token)(_?emb\w*)?|embed\w*)(?<!norm)(?<!ln)\.{_KIND}", "embed"),
        (rf"(wpe|pe|pos(ition)?s?|pos(ition)?(al)?_?(emb|enc)\w*)(\.{_KIND}|\.pe)?", "pos_embed"),
        (rf"({_NORM_WORD}_?1|{_GPT_ATTENTION}_{_NORM_WORD}|{_NORM_WORD}_attn)\.{_KIND}", "ln1"),
        (rf"({_NORM_WORD}_?2|{_GPT_MLP}_{_NORM_WORD}|{_NORM_WORD}_{_GPT_MLP})\.{_KIND}", "ln2"),
        (rf"{_GPT_ATTENTION}\.(qkv\w*|c_attn|Wqkv|in_proj)[._]{_KIND}", "attn.qkv"),
        *(
            (rf"{_GPT_ATTENTION}\.([Ww]_?)?({x}|{word})(_proj|_lin(ear)?)?\.{_KIND}", f"attn.{x}")
            for x, word in (("q", "query"), ("k", "key"), ("v", "value"))
        ),
        (rf"{_GPT_ATTENTION}\.(proj|c_proj|out_proj|o_proj|o|out)\.{_KIND}", "attn.o"),
        (rf"{_GPT_MLP}\.(net\.)?(up|c_fc|fc1|fc|fc_in|in|0)\.{_KIND}", "mlp.in"),
        (rf"{_GPT_MLP}\.(net\.)?(down|c_proj|fc2|proj|fc_out|out|2)\.{_KIND}", "mlp.out"),
        (rf"(ln_?f|ln_final|final_(rms)?_?norm|(rms_?)?norm_?f?)\.{_KIND}", "ln_final"),
        (rf"(unembed|lm_head|head|output|out)\.{_KIND}", "unembed"),
    )
)  # fmt: skip


def gpt_name(name: str) -> str | None:
    """The bridge's name of a weight in a small GPT (its fused matrix as `attn.qkv`).

    >>> gpt_name("transformer.h.0.attn.c_attn.weight".removeprefix("transformer."))
    'blocks.0.attn.qkv.weight'
    >>> gpt_name("layers.1.self_attn.q_proj.bias")
    'blocks.1.attn.q.bias'
    """
    block = re.fullmatch(r"(\w+)\.(\d+)\.(.+)", name)
    prefix, inner = (f"blocks.{int(block[2])}.", block[3]) if block else ("", name)
    for pattern, ours in _GPT_NAMES:
        if found := pattern.fullmatch(inner):
            kind = found["kind"] or "weight"
            return f"{prefix}{ours}.{'bias' if kind in ('bias', 'beta', 'b') else 'weight'}"
    return None


_ENCODER_LAYER = re.compile(r"(linear[12]|norm[12])\.(weight|bias)")
_OF_LAYER = {"linear1": "mlp.in", "linear2": "mlp.out", "norm1": "ln1", "norm2": "ln2"}
_OF_ATTENTION = {
    "in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias",
    "out_proj.weight": "o.weight", "out_proj.bias": "o.bias",
}  # fmt: skip
_LINEAR_HEAD = re.compile(r"(fc(_out)?|decoder|classifier|linear|readout|to_logits)\.(weight|bias)")
_CROSS = r"(^|\.)multihead_attn\.in_proj_weight$"


def torch_names(names: Iterable[str]) -> dict[str, str] | None:
    """The bridge's names of what torch's encoder, a layer of it, or its attention alone holds.

    None for any other network; torch's attention beside an MLP of one's own is a small GPT's.

    >>> torch_names(["layers.0.self_attn.in_proj_weight", "layers.0.linear1.weight", "fc.bias"])
    {'layers.0.self_attn.in_proj_weight': 'blocks.0.attn.qkv.weight',
     'layers.0.linear1.weight': 'blocks.0.mlp.in.weight', 'fc.bias': 'unembed.bias'}
    """
    names = list(names)
    paths = {
        name.removesuffix("in_proj_weight") for name in names if name.endswith("in_proj_weight")
    }
    own_mlp = _any(_MLP, names) and not _any(r"(^|\.)linear1\.weight$", names)
    if not paths or own_mlp or _any(_CROSS, names):
        return None
    found = {name: gpt_name(name) or name for name in names}
    for layer, path in enumerate(sorted(paths, key=lambda x: [*map(int, re.findall(r"\d+", x))])):
        around = path[: path.rstrip(".").rfind(".") + 1]
        for name in names:
            if (part := _OF_ATTENTION.get(name.removeprefix(path))) and name.startswith(path):
                found[name] = f"blocks.{layer}.attn.{part}"
            elif name.startswith(around) and _ENCODER_LAYER.fullmatch(name.removeprefix(around)):
                part, _, kind = name.removeprefix(around).partition(".")
                found[name] = f"blocks.{layer}.{_OF_LAYER[part]}.{kind}"
    heads = {name for name in names if found[name] == name and _LINEAR_HEAD.fullmatch(name)}
    return found | {name: f"unembed.{name.rpartition('.')[2]}" for name in heads}


def end_names(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The bridge's names of a norm and an unembedding in an nn.Sequential.

    They follow the blocks in theirs, or are a head of their own; one matrix, and at most one norm
    before it.

    >>> shapes = {"model.0.attn.c_attn.weight": (9, 3), "model.1.weight": (3,),
    ...     "model.2.weight": (7, 3)}
    >>> end_names(shapes)
    {'model.1.weight': 'ln_final.weight', 'model.2.weight': 'unembed.weight'}
    """
    lists: dict[str, dict[int, str]] = {}
    for name, shape in shapes.items():
        if (found := re.fullmatch(r"(\w+)\.(\d+)\.weight", name)) and len(shape) in (1, 2):
            kind = "unembed" if len(shape) == 2 else "ln_final"
            lists.setdefault(found[1], {})[int(found[2])] = kind
    places: dict[str, str] = {}
    for path, parts in lists.items():
        holds_blocks = any(x.startswith(f"{path}.") and has_attention([x]) for x in shapes)
        in_order = [parts[place] for place in sorted(parts)]
        is_end = in_order in (["unembed"], ["ln_final", "unembed"])
        if is_end and (holds_blocks or _HEAD.search(path)):
            places |= {f"{path}.{place}": kind for place, kind in parts.items()}
    split = {name: name.rpartition(".") for name in shapes}
    return {x: f"{places[at]}.{kind}" for x, (at, _, kind) in split.items() if at in places}


WAVES = 1e-3  # how far a table of sines and cosines may be from one


def is_waves(table: Tensor) -> bool:
    """Whether positions [c, m] are sines and cosines in pairs, of which rows may be unused.

    >>> import torch
    >>> at = torch.arange(9)[:, None] * torch.tensor([1.0, 0.1])
    >>> is_waves(torch.cat([at.sin(), at.cos()], dim=1)), is_waves(torch.randn(9, 4))
    (True, False)
    """
    if table.ndim != 2 or not table.numel() or table.shape[1] % 2:
        return False
    table = table.double()
    lengths = table.square().sum(dim=1) - table.shape[1] / 2
    first = (table[0] * (table[0] - 1)).abs()  # 0 and 1
    return bool(lengths.abs().max() < WAVES * table.shape[1] and first.max() < WAVES)


def as_bridge(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value matrices apart; every matrix [out, in] as torch.nn.Linear has it.

    `found` are weights under the names of `gpt_name`. An unembedding that is missing is tied.
    """
    split: dict[str, Tensor] = {}
    embedding, fused = found.get("embed.weight"), found.get("blocks.0.attn.qkv.weight")
    if embedding is None or embedding.ndim != 2 or (fused is not None and fused.ndim != 2):
        raise InputError("a token embedding or a query-key-value matrix is missing, or no matrix.")
    # GPT-2's Conv1D keeps [in, out]; every other code [out, in].
    transposed = fused is not None and fused.shape[1] != embedding.shape[1]
    for name, tensor in found.items():
        inner = re.fullmatch(r"blocks\.\d+\.(attn|mlp)\.\w+\.weight", name)
        if transposed and inner and tensor.ndim == 2:
            tensor = tensor.T
        if name == "pos_embed.weight" and tensor.ndim == 3 and 1 in tensor.shape[:2]:
            tensor = tensor.squeeze(tensor.shape[:2].index(1))
        if ".attn.qkv." in name and tensor.ndim and len(tensor) % 3 == 0:
            for side, part in zip("qkv", tensor.chunk(3), strict=True):
                split[name.replace("qkv", side)] = part
        else:
            split[name] = tensor
    if "unembed.weight" not in split:
        split["unembed.weight"] = embedding
    return split


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
_BLOCK = re.compile(r"(^|\.)(\w*blocks?|layers?|h|stack)\.(\d+)\..")
NORM = re.compile(r"(^|[._])(ln|norm|layer_?norm|rms|rmsnorm|batch_?norm|bn)[\w.]*$", re.IGNORECASE)
POSITION = re.compile(r"(^|[._])(pos\w*|wpe|pe|position\w*)(\.|_|$)")
_TOKEN = re.compile(r"(^|\.)(\w*emb\w*|wte|tok\w*|W_E)(\.|$|_)")
_HEAD = re.compile(
    r"(^|\.)(unembed\w*|lm_head|head|output\w*|out|fc(_out)?|classifier|decoder|readout|to_logits"
    r"|W_U|linear)(\.|$)"
)
# What the names of weights tell of a network: all of these patterns, and what it is then.
Telling = tuple[tuple[tuple[str, ...], str], ...]
_RECURRENT: Telling = (
    ((r"(?i)(^|[._])(lstm|gru|rnn)\w*\.",), "a recurrent network (RNN)"),
    ((r"(^|\.)A_log$",), "a state-space model (such as Mamba)"),
)
_OF_TORCH: Telling = (
    ((_CROSS, r"(^|\.)encoder\.layers\."), "an nn.Transformer (encoder and decoder)"),
    ((_CROSS,), "an nn.TransformerDecoder"),
)
_UNUSUAL: Telling = (  # parts that usual transformers do not have
    ((r"(^|\.)(\w*experts?)\.\d+\.|(^|\.)router\.",), "a mixture of experts"),
    (tuple(rf"(^|\.)w{x}\.weight$" for x in "123"), "gated MLPs (as LLaMA has)"),
    ((r"(^|\.)(W_gate|b_gate|gate_proj|gate_up_proj|w_gate)(\.|$)",), "gated MLPs (as LLaMA has)"),
    ((r"(^|\.)\w*heads?\.\d+\.\w+\.",), "a module for each attention head"),
    ((r"attn\._W_K$",), "grouped-query attention"),
    ((r"(^|\.)(q|k|query|key|qk)_?(norm|ln|layernorm)(\.|$)",), "norms on queries and keys"),
    ((r"(^|\.)ln[12]_post\.",), "norms after attention and MLP as well"),
    ((r"lora_?[AB]",), "LoRA adapters"),
)
Shapes = dict[str, tuple[int, ...]]


def other_architecture(state: Mapping[str, Tensor]) -> str | None:
    """A name for a network that cannot be read as a transformer's usual weights, or an MLP's.

    None for a transformer of usual parts under names that are known, and for what has no attention,
    no recurrence and no convolutions.

    >>> import torch
    >>> lstm = torch.nn.ModuleDict({"e": torch.nn.Embedding(7, 4), "r": torch.nn.LSTM(4, 8)})
    >>> other_architecture(lstm.state_dict())
    'a recurrent network (nn.LSTM)'
    """
    shapes = {key: tuple(state[key].shape) for key in islice(state, MOST_NAMES)}
    transformers = (_unusual, _embeddings, _positions)
    others = transformers if has_attention(shapes) else ()
    rules = (_recurrent, _convolutional, partial(_named_by, _OF_TORCH), *others)
    return next(filter(None, (rule(shapes) for rule in rules)), None)


def has_attention(names: Iterable[str]) -> bool:
    """Whether weights of these names are those of attention."""
    return _any(_ATTENTION, names)


def _recurrent(shapes: Shapes) -> str | None:
    for name, shape in shapes.items():
        if re.search(r"(^|[._])weight_hh", name) and len(shape) == 2 and shape[1]:
            kinds = {4: "nn.LSTM", 3: "nn.GRU", 1: "nn.RNN"}
            return f"a recurrent network ({kinds.get(shape[0] // shape[1], 'RNN')})"
    return _named_by(_RECURRENT, shapes)


def _convolutional(shapes: Shapes) -> str | None:
    kernels = any(
        (len(shape) in (3, 4, 5) and re.search("conv", name, re.IGNORECASE))
        or (len(shape) == 4 and re.search(r"weight$|\.W$", name))
        for name, shape in shapes.items()
    )
    return "a convolutional network (CNN)" if kernels else None


def _unusual(shapes: Shapes) -> str | None:
    part = _named_by(_UNUSUAL, shapes)
    return part and f"a transformer with {part}"


def _embeddings(shapes: Shapes) -> str | None:
    tables = [name for name, s in shapes.items() if is_table(name, s) and not _BLOCK.search(name)]
    return "a transformer with an embedding for each operand" if len(tables) >= 2 else None


def _positions(shapes: Shapes) -> str | None:
    positions = [name for name in shapes if not _BLOCK.search(name) and POSITION.search(name)]
    if _any(r"rotary|inv_freq|(^|\.)rope", shapes):
        return "a transformer with rotary positions"
    if positions or _any(r"(^|\.)W_pos$", shapes):
        return None
    return (
        "a transformer without a position embedding among its weights (rotary, sinusoidal or none)"
    )


def is_table(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a weight is a table of token embeddings, and nothing else that is named so."""
    others = (POSITION, NORM, r"(^|\.)un_?emb")
    return len(shape) == 2 and _any(_TOKEN, [name]) and not any(_any(x, [name]) for x in others)


def _named_by(table: Telling, shapes: Shapes) -> str | None:
    return next((x for patterns, x in table if all(_any(each, shapes) for each in patterns)), None)


def _any(pattern: str | re.Pattern[str], names: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for name in names)
