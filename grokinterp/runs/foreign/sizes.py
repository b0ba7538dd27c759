"""Does a configuration contradict the weights, or another one of the same run?

Sizes that weights show are theirs to tell; a configuration that says others is of another model, or
wrong, and so may be all else that it says. Words that codes use in several ways are allowed each
of them: a vocabulary with or without "=", a sequence with or without the answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from grokinterp.errors import InputError
from grokinterp.models.architecture import Architecture
from grokinterp.runs.foreign.settings import Settings, flat, seeds_in

_WORDS = {
    "d_model": ("d_model", "n_embd", "embed_dim", "embedding_dim", "model_dim", "dim_model"),
    "d_mlp": ("d_mlp", "d_ff", "dim_feedforward", "ffn_dim", "mlp_dim", "n_inner"),
    "n_layers": ("n_layers", "num_layers", "n_layer"),
    "n_heads": ("n_heads", "num_heads", "n_head", "heads"),
    "d_head": ("d_head", "head_dim"),
    "n_ctx": ("n_ctx", "seq_len", "block_size", "context_length", "max_seq_len", "seq_length"),
    "d_vocab": ("d_vocab", "vocab_size", "n_vocab", "num_tokens", "n_tokens"),
    "d_vocab_out": ("d_vocab_out", "num_classes", "n_classes"),
}
_OURS = {theirs: ours for ours, words in _WORDS.items() for theirs in words}
SHOWN = 80  # characters of a value in a message
_MEAN_MUCH = ("eps",)  # of a LayerNorm, or of Adam


def sizes_in(config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that a configuration says, in its own words; the outermost of each."""
    found: dict[str, int] = {}
    for key, value in flat(config):
        if key in _OURS and type(value) is int and value > 0:
            found.setdefault(key, value)
    return found


def check_sizes(
    configs: Iterable[tuple[str, Mapping[str, Any]]],
    architecture: Architecture,
    p: int,
    said: Settings,
    *,
    keeps_its_vocabulary: bool,
) -> None:
    """Refuse a configuration with a size that the weights do not have; what was set is right.

    The paper's code keeps the vocabulary of p = 113 whatever p is, and says either.
    """
    settled = {key for key, value in asdict(said).items() if value is not None}
    for name, config in configs:
        for word, value in sizes_in(config).items():
            ours = _OURS[word]
            has = getattr(architecture, ours)
            vocabulary = ours in ("d_vocab", "d_vocab_out")
            if ours in settled or (vocabulary and keeps_its_vocabulary):
                continue
            if value not in {has, *_also_meant(word, ours, architecture, p)}:
                raise InputError(
                    f"{name} says {word}={_shown(value)}, and its weights have {ours}={has}: it is "
                    f"of another model; correct it, or set {ours}={has} if the weights are right."
                )


def check_agreement(configs: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Refuse configurations of one run that say different things of what is used here."""
    first: dict[str, tuple[str, Any]] = {}
    seen: list[Mapping[str, Any]] = []
    for name, config in configs:
        if any(config is other for other in seen):
            continue
        seen.append(config)
        for key, value in _used(config).items():
            other, earlier = first.setdefault(key, (name, value))
            if earlier != value:
                raise InputError(
                    f"{other} says {key}={_shown(earlier)}, and {name} says {key}={_shown(value)}: "
                    "they are not of one run; keep the files of one, or correct them."
                )


def _used(config: Mapping[str, Any]) -> dict[str, Any]:
    understood = asdict(Settings.from_config(config))
    kept = {
        key: x for key, x in understood.items()
        if x is not None and key not in _MEAN_MUCH and key != "data_seed"
    }  # fmt: skip
    sizes = {word: x for word, x in sizes_in(config).items() if word not in kept}
    return {**kept, **sizes, **dict(seeds_in(config))}


def _also_meant(word: str, ours: str, architecture: Architecture, p: int) -> set[int]:
    """Other numbers that a word may stand for."""
    if ours == "d_vocab_out" or word in ("d_vocab", "n_ctx"):
        return {architecture.d_vocab} if word == "num_classes" or word == "n_classes" else set()
    if ours == "d_vocab":
        return {p, p + 1, p + 2, architecture.d_vocab_out}
    if ours == "n_ctx":
        return {architecture.n_ctx - 1, architecture.n_ctx + 1}
    return set()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
