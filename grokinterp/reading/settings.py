"""Which settings does somebody give for checkpoints, or a configuration say, and do they agree?

p, operation, equals_token, equals_class       the task
layout, token_ids, operand_ids, answer_ids     what it reads, such as "a op b =", and which ids
                                               its words, operands and answers have, where these are
                                               not the usual ones (`grokinterp.tasks.layout`)
n_layers, n_heads, d_model, d_head, d_mlp,     the architecture, in TransformerLens' words; what
d_vocab, d_vocab_out, n_ctx, act_fn, eps,      shapes can tell has to agree with them
normalization_type, norm_position, attn_only,  norm_first=true is norm_position=pre, as in torch
attention_dir, attention_rate, biases
split, data_seed, train_fraction, n_train      the rule that drew the training rows ("torch",
                                               "python"), or "search" to try the published ones
train_indices                                  a file of the training rows a*p + b
step                                           of a single checkpoint that has none in its name
metrics                                        a CSV of losses or accuracies against step
model                                          the function that makes the network, mymodule:build,
                                               for one that weights do not show
prefix                                         what the names of the weights begin with, such as
                                               net., where there are several networks

A configuration may say them in other words. Sizes that weights show are theirs to tell; a
configuration that says others is of another model, or wrong, and so may be all else that it says.
Words that codes use in several ways are allowed each of them: a vocabulary with or without "=", a
sequence with or without the answer.
"""

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any

from grokinterp.base.checks import number, real, whole, word
from grokinterp.base.errors import InputError, nearest, shown
from grokinterp.base.keys import key as setting
from grokinterp.base.keys import keys_of
from grokinterp.models.architecture import CHOICES, NONLINEARITIES, NORMS, BaseArchitecture
from grokinterp.models.transformer import NetworkSizes, TransformerArchitecture
from grokinterp.models.transformer_lens_adapter import SOFT_CAPS, UNUSUAL
from grokinterp.reading.file_contents import (
    MOST_KEYS,
    PLAIN,
    Configs,
    Contents,
    without_seed_of_weights,
)
from grokinterp.reading.operation_words import operation_in, operation_said
from grokinterp.tasks.layout import Layout
from grokinterp.tasks.modular import IDS
from grokinterp.tasks.operations import get_operation

RULES = ("torch", "python")  # that draw training rows
_SIZES = {field.name for field in fields(TransformerArchitecture) if field.type is int}
_NORM_WORDS = tuple(kind or "none" for kind in NORMS)
_SEEDS = (  # of the split in the first place, of everything in the last
    "data_seed", "split_seed", "dataset_seed", "seed_data", "train_test_seed", "random_seed",
    "seed", "rng_seed", "random_state", "torch_seed", "manual_seed",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is known of a source; None where nothing is."""

    p: int | None = setting(None, synonyms=("C", "modulus", "prime"))
    operation: str | None = setting(None, synonyms=("fn", "fn_name", "op"))
    equals_token: bool | None = None
    equals_class: bool | None = None
    layout: str | None = None
    token_ids: Any = setting(None, read=lambda given: given)  # noqa: RUF009
    operand_ids: Any = setting(None, read=lambda given: given)  # noqa: RUF009
    answer_ids: Any = setting(None, read=lambda given: given)  # noqa: RUF009
    n_layers: int | None = setting(None, synonyms=("num_layers", "n_layer"))
    n_heads: int | None = setting(None, synonyms=("num_heads", "n_head", "heads", "nhead"))
    d_model: int | None = None
    d_head: int | None = None
    d_mlp: int | None = None
    d_vocab: int | None = None
    d_vocab_out: int | None = None
    n_ctx: int | None = None
    act_fn: str | None = setting(None, synonyms=(
        "act_type", "activation", "activation_function", "hidden_act", "act", "nonlinearity",
    ))  # fmt: skip
    normalization_type: str | None = setting(None, synonyms=("normalization",))
    eps: float | None = setting(None, synonyms=(
        "layer_norm_eps", "layer_norm_epsilon", "ln_eps",
    ))  # fmt: skip
    norm_position: str | None = None
    attn_only: bool | None = None
    attention_dir: str | None = None
    attention_rate: float | None = setting(None, synonyms=("attn_coeff", "attn_rate"))
    biases: str | None = None
    split: str | None = None
    data_seed: int | None = None
    train_fraction: float | None = setting(None, synonyms=(
        "frac", "frac_train", "train_frac", "training_fraction", "fraction", "train_ratio",
    ))  # fmt: skip
    n_train: int | None = setting(None, synonyms=("num_train",))
    train_indices: str | None = None
    step: int | None = None
    metrics: str | None = None
    prefix: str | None = None
    model: Any = setting(None, read=lambda given: given)  # noqa: RUF009

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Settings as a user gives them; unknown keys and impossible values are refused.

        >>> Settings.from_dict({"p": 59, "attn_coeff": 0}).attention_rate
        0.0
        >>> Settings.from_dict({"modolus": 59})
        Traceback (most recent call last):
        grokinterp.base.errors.InputError: setting 'modolus' is not known; did you mean 'p'?
        """
        kinds = {field.name: str(field.type).removesuffix(" | None") for field in fields(cls)}
        found: dict[str, Any] = {}
        for given, value in values.items():
            key, value = _norms_in(SYNONYMS.get(given, given), value)
            if key not in kinds:
                near = nearest(given, kinds, SYNONYMS)
                raise InputError(f"setting {given!r} is not known; {near}")
            if key in found:
                raise InputError(f"{key} is given twice, once as {given!r}; give it once.")
            found[key] = None if value is None else _typed(key, value, kinds[key])
        for key, allowed in (
            ("split", (*RULES, "search")), ("biases", ("none", "mlp", "all")),
            ("norm_position", ("pre", "post")),
            ("normalization_type", _NORM_WORDS),
        ):  # fmt: skip
            if found.get(key) is not None:
                word(key, found[key], allowed)
        for key, least in (("p", 1), ("n_train", 1), ("step", 0), ("data_seed", 0)):
            if found.get(key) is not None:
                whole(key, found[key], least=least, such_as="59")
        if found.get("train_fraction") is not None:
            number("train_fraction", found["train_fraction"], most=1, such_as="0.3")
        if layout := found.get("layout"):
            found["layout"] = Layout.of(layout, 2).text
        if operation := found.get("operation"):
            found["operation"] = operation_in(operation) or get_operation(operation).name
        return cls(**found)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """What a configuration written for other code says, as far as it is understood here.

        Nested groups are read too, the outermost value of a key counts. Everything else (learning
        rates, devices, values of another kind) is left alone.
        """
        pairs = list(flat(config))
        found: dict[str, Any] = {}
        if operation := operation_said(pairs).name:
            found["operation"] = operation
        for key, value in sorted(pairs, key=lambda pair: pair[0] == "eps"):  # it may be Adam's
            ours, value = _norms_in(_CONFIG_SYNONYMS.get(key, key), value)
            if ours in ("train_fraction", "n_train"):
                ours, value = _train_size(key, ours, value)
            if ours in found or ours not in CONFIG_KEYS:
                continue
            value = _activation(value) if ours == "act_fn" else value
            if value in _VALID.get(ours, (value,)):
                found[ours] = value
        if isinstance(found.get("layout"), str):  # ids by themselves may be of anything
            found |= {key: config[key] for key in IDS if config.get(key) is not None}
        kept = cls(data_seed=next((x for _, x in seeds_in(config)), None))
        for key, value in found.items():
            with contextlib.suppress(InputError):
                kept = kept.over(cls.from_dict({key: value}))
        return kept

    def inputs(self) -> dict[str, Any]:
        """What is known of what the network reads and answers, but for "=" and p."""
        return {key: x for key in ("layout", *IDS) if (x := getattr(self, key)) is not None}

    def said(self) -> dict[str, Any]:
        """What is known, by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def over(self, other: "Settings") -> "Settings":
        """These settings, and those of `other` where these say nothing."""
        return Settings(**{**other.said(), **self.said()})

    def check_config(self, config: Mapping[str, Any], where: str) -> None:
        """Refuse a configuration of a model that reads the same weights in another way.

        Weights do not show it: what is attended to is no weight at all.
        """
        declared: dict[str, Any] = {}
        for key, value in flat(config):
            ours = SYNONYMS.get(key, key)
            if ours != "act_fn" or isinstance(value, str):
                declared.setdefault(ours, value)
        act_fn = _activation(declared.get("act_fn", "relu"))
        scale, d_head = declared.get("attn_scale", -1), declared.get("d_head", 1)
        scaled = _positive(scale) and _positive(d_head) and abs(scale**2 - d_head) > 1e-3
        unusual = [
            *(key for key in UNUSUAL if declared.get(key)),
            *(key for key in SOFT_CAPS if _positive(declared.get(key))),
            *(key for key, values in _NO_PLACE.items() if declared.get(key) in values),
            *(["attn_scale"] if scaled else []),
            *(["act_fn"] if self.act_fn is None and act_fn not in NONLINEARITIES else []),
        ]
        if unusual:
            key = unusual[0]
            way_out = "set act_fn= or " if key == "act_fn" else ""
            raise InputError(
                f"the configuration of {where} says {key}={shown(declared[key])}, which "
                f"a run has no place for; {way_out}build the model yourself and use "
                "gi.snapshot(model, task)."
            )

    def refuse_unused(self, architecture: BaseArchitecture, where: str) -> None:
        """InputError for a setting of an architecture that this one does not have."""
        for key, value in self.of_architecture().items():
            if architecture.named and not hasattr(architecture, key):
                raise InputError(
                    f"{key}={shown(value)} means nothing for {where}, which holds a network of "
                    f"kind {architecture.kind!r}; leave it out."
                )

    def of_architecture(self) -> dict[str, Any]:
        """What is known of the architecture."""
        names = {field.name for field in fields(TransformerArchitecture)}
        return {key: x for key, x in self.said().items() if key in names}


# Words of other codes, here and in their configuration files,
SYNONYMS = {theirs: one.name for one in keys_of(Settings) for theirs in one.synonyms}
_CONFIG_SYNONYMS = {  # and only in these
    **SYNONYMS, "mod": "p", "modulo": "p",
    **dict.fromkeys((
        "fraction_train", "frac_training", "train_prop", "train_proportion", "train_split",
        "train_percentage", "train_percent", "train_pct", "pct_train", "split_ratio",
        "training_frac",
    ), "train_fraction"),
    **dict.fromkeys(("train_size", "n_train_samples", "num_train_samples"), "n_train"),
    **dict.fromkeys(("n_embd", "embed_dim", "embedding_dim", "model_dim", "dim_model"), "d_model"),
    **dict.fromkeys(("d_ff", "dim_feedforward", "ffn_dim", "mlp_dim", "n_inner"), "d_mlp"),
    "head_dim": "d_head", "intermediate_size": "d_mlp",
    "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers",
    **dict.fromkeys(("seq_len", "block_size", "context_length", "max_seq_len", "seq_length",
                     "n_positions"), "n_ctx"),
    **dict.fromkeys(("vocab_size", "n_vocab", "num_tokens", "n_tokens"), "d_vocab"),
    **dict.fromkeys(("num_classes", "n_classes"), "d_vocab_out"),
}  # fmt: skip
# Of a configuration, only what weights cannot say, besides the operation: sizes are theirs to tell.
CONFIG_KEYS = (
    "p", "layout", "n_heads", "act_fn", "eps", "attention_dir", "attention_rate",
    "normalization_type", "norm_position", "attn_only", "train_fraction", "n_train", "split",
)  # fmt: skip
_NO_PLACE: dict[str, tuple[Any, ...]] = {
    "positional_embedding_type": ("rotary", "shortformer", "alibi", "relative_positional_bias"),
    "use_attn_scale": (False,),
    "scale_attn_weights": (False,),
}
_ACTIVATIONS = {
    "gelu_pytorch_tanh": "gelu_new", "swish": "silu",
    **dict.fromkeys(("square", "squared", "quad", "x2", "x^2", "x**2"), "quadratic"),
}  # fmt: skip
MOST_GROUPS = 100  # nested in a configuration
LARGEST_NUMBER = 1e300
_VALID: dict[str, Iterable[Any]] = {
    "act_fn": NONLINEARITIES,
    "attention_dir": CHOICES["attention_dir"],
    "norm_position": CHOICES["norm_position"],
    "normalization_type": ("LNPre", "RMS", "RMSPre"),  # which weights do not show by themselves
    "split": RULES,
}


def seeds_in(config: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """The seeds of a configuration by their words, that of the split first.

    >>> seeds_in({"seed": 0, "data": {"data_seed": 5}})
    (('data_seed', 5), ('seed', 0))
    """
    found: dict[str, int] = {}
    for key, value in flat(config):
        if key in _SEEDS and type(value) is int and 0 <= value < 2**63:
            found.setdefault(key, value)
    return tuple(sorted(found.items(), key=lambda each: _SEEDS.index(each[0])))


def _norms_in(key: str, value: Any) -> tuple[str, Any]:
    """A setting about norms in our words; any other as it is.

    >>> _norms_in("norm_first", False), _norms_in("normalization_type", "None")
    (('norm_position', 'post'), ('normalization_type', 'none'))
    """
    if key == "norm_first" and isinstance(value, bool):
        return "norm_position", "pre" if value else "post"
    if key == "normalization_type" and isinstance(value, str):
        known = {each.lower(): each for each in _NORM_WORDS}
        return key, known.get(value.lower(), value)
    return key, value


def _train_size(theirs: str, ours: str, value: Any) -> tuple[str, Any]:
    """A training set's size as a fraction or a number of rows, by what the number can be.

    >>> _train_size("train_size", "n_train", 0.3), _train_size("train_pct", "train_fraction", 30)
    (('train_fraction', 0.3), ('train_fraction', 0.3))
    """
    size, percent = real(value), "pct" in theirs or "percent" in theirs
    if size is not None and ours == "n_train" and 0 < size < 1:
        return "train_fraction", value
    if size is not None and ours == "train_fraction" and percent and 1 < size <= 100:
        return ours, size / 100
    return ours, value


def flat(config: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Keys and plain values, those of the outermost group first.

    Text that stands for another value of the file (`${task.p}`) says nothing.
    """
    groups = [config]
    for group in groups:  # which grows on the way
        for key, value in islice(without_seed_of_weights(group).items(), MOST_KEYS):
            if key in IDS:  # of words, which are no settings
                continue
            if isinstance(value, Mapping) and len(groups) < MOST_GROUPS:
                groups.append(value)
            elif isinstance(value, str) and "${" in value:
                continue
            elif isinstance(key, str) and isinstance(value, PLAIN):
                yield key, value


def _activation(value: Any) -> Any:
    """The name here of an activation, whose upper case and synonyms change nothing."""
    name = value.lower() if isinstance(value, str) else value
    return _ACTIVATIONS.get(name, name) if isinstance(name, str) else name


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < LARGEST_NUMBER**0.5


def _typed(key: str, value: Any, kind: str) -> Any:
    """The value in the type of its setting, refused when it has another."""
    number = real(value)
    if kind == "int" and number is not None and abs(number) < 2**63 and number % 1 == 0:
        return int(value)
    if kind == "float" and number is not None and abs(number) < LARGEST_NUMBER:
        return number
    if kind == type(value).__name__ and kind in ("bool", "str"):
        return value
    if kind == "typing.Any":  # which whoever uses it checks
        return value
    wanted = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    raise InputError(f"{key}={shown(value)} is not {wanted[kind]}; give that, or leave it out.")


def sizes_in(config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that a configuration says, in its own words; the outermost of each."""
    found: dict[str, int] = {}
    for key, value in flat(config):
        if _CONFIG_SYNONYMS.get(key, key) in _SIZES and type(value) is int and value > 0:
            found.setdefault(key, value)
    return found


def check_sizes(
    configs: Configs, architecture: BaseArchitecture, p: int, ignored: Collection[str]
) -> None:
    """Refuse a configuration with a size that the weights do not have, but for some `ignored`."""
    sizes = NetworkSizes.of(architecture)
    also = {  # other numbers that a word of other codes may stand for
        "d_vocab": {p, p + 1, p + 2, sizes.d_vocab_out},
        "d_vocab_out": {sizes.d_vocab},
        "n_ctx": {sizes.n_ctx - 1, sizes.n_ctx + 1},
        "n_layers": set() if architecture.transformer else {architecture.n_layers + 1},  # the last
    }
    for name, config in configs:
        for key, value in sizes_in(config).items():
            ours = _CONFIG_SYNONYMS.get(key, key)
            has = getattr(architecture, ours, value)  # what it does not have is of other networks
            meant = {has, *(also.get(ours, ()) if key != ours else ())}
            if has == 0:  # without an MLP TransformerLens states a width all the same
                continue
            if ours not in ignored and value not in meant:
                raise InputError(
                    f"{name} says {key}={shown(value)}, and its weights have {ours}={has}: it is "
                    f"of another model; correct it, or set {ours}={has} if the weights are right."
                )


def is_of_use_beside(contents: Contents) -> bool:
    """Whether anything is used of what a file without weights says beside checkpoints."""
    config = contents.config
    said = Settings.from_config(config).said() or sizes_in(config)
    return bool(said or contents.lists) or contents.train_rows is not None


def check_agreement(configs: Configs) -> None:
    """Refuse configurations of one run that say different things of what is used here."""
    first: dict[str, tuple[str, Any]] = {}
    for name, config in configs:
        used = replace(Settings.from_config(config), eps=None, data_seed=None)  # eps may be Adam's
        said = {**sizes_in(config), **used.said(), **dict(seeds_in(config))}
        if (unknown := operation_said(flat(config)).unknown) is not None:
            said.setdefault("operation", unknown)
        for key, value in said.items():
            other, earlier = first.setdefault(key, (name, value))
            if earlier != value:
                raise InputError(
                    f"{other} says {key}={shown(earlier)}, and {name} says {key}={shown(value)}: "
                    "they are not of one run; keep the files of one, or correct them."
                )
