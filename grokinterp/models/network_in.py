"""Where in a state dict does a network stand, and what is each weight called in it?

Wrappers put a prefix before every name (`module.`, `_orig_mod.`, `net.`, `student.backbone.`), and
other things stand beside it (an optimizer, buffers of a loss, metrics). The network is where its
first layer's attention is; its prefix is the longest under which it has its embedding and, where
there is any, its unembedding. A copy beside it (an average, a teacher) is known by its name; of two
networks that neither is a copy, somebody has to say which is meant.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from grokinterp.base.errors import InputError, names
from grokinterp.models.foreign_names import gpt_name

WRAPPERS = re.compile(
    r"^((module|_orig_mod|model|transformer)\.(?!\d))+"
)  # before every key of others
_WITHIN = re.compile(  # what torch.compile, FSDP and checkpointing put before the names of parts
    r"(?:(?<=^)|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
COPIES = {  # words of modules that hold another network's weights, averaged or of an earlier step
    "ema", "swa", "target", "teacher", "averaged", "average", "avg", "shadow", "momentum",
}  # fmt: skip
_TOKENS, _OUTPUT = {"embed.W_E", "embed.weight"}, {"unembed.W_U", "unembed.weight"}
_ATTENTION = {"blocks.0.attn.W_O", "blocks.0.attn.qkv.weight", "blocks.0.attn.q.weight"}
_HOOKED = re.compile(r"(?:^|\.)(embed\.W_E|blocks\.0\.attn\.W_O)$")
_LAYER = re.compile(r"(?:^|(?<=\.))\w+\.0\.")
_NO_PREFIX = "no prefix"


@dataclass(frozen=True)
class Network:
    """The weights of a network by their keys in the state dict, each with its name."""

    names: dict[str, str]
    complete: bool = True  # with an embedding and an unembedding
    beside: tuple[str, ...] = ()  # keys of other things
    notes: tuple[str, ...] = ()
    given: bool = False  # somebody said where it is


def network_in(keys: Iterable[str], where: str, *, prefix: str | None = None) -> Network:
    """The network among the keys of a state dict; `prefix` is where somebody says that it is.

    >>> found = network_in(["net.embed.W_E", "net.blocks.0.attn.W_O", "train_acc.tm"], "x.pt")
    >>> found.names, found.beside
    ({'net.embed.W_E': 'embed.W_E', 'net.blocks.0.attn.W_O': 'blocks.0.attn.W_O'},
     ('train_acc.tm',))
    """
    keys = list(keys)
    bare = {_WITHIN.sub("", key): key for key in keys}
    if len(bare) == len(keys) and [*bare] != keys and not prefix:
        found = network_in(bare, where)
        return replace(
            found,
            names={bare[key]: name for key, name in found.names.items()},
            beside=tuple(bare[key] for key in found.beside),
        )
    if prefix:
        return _under(keys, where, f"{prefix.removesuffix('.')}.")
    around = list(dict.fromkeys(found for key in keys for found in _before_a_network(key)))
    roots: dict[str, list[str]] = {}
    for each in around:
        roots.setdefault(_root(keys, each, around), []).append(each)
    if not roots:
        return Network(_bare(keys, _common(keys)), complete=False)
    root, notes = _chosen(list(roots), where)
    others = [x for x in roots if x != root and x.startswith(root)]
    inside = [
        key for key in keys if key.startswith(root) and not any(key.startswith(x) for x in others)
    ]
    known = _bare(inside, root, roots[root])
    complete = _has(known.values(), _TOKENS) and _has(known.values(), _OUTPUT)
    return Network(known, complete, tuple(key for key in keys if key not in known), notes)


def path_to_layers(keys: Iterable[str]) -> str:
    """What stands before the layers of the network; InputError where there are two of them.

    >>> path_to_layers(["net.embed.W_E", "net.blocks.0.attn.W_O", "ema.blocks.0.attn.W_O"])
    'net.'
    """
    inside = network_in(keys, "the model").names
    return next((found for key in inside for found in _before_a_network(key) if found), "")


def has_layers(keys: Iterable[object]) -> bool:
    """Whether any of the names is one that only a network's layers have."""
    plain = (_WITHIN.sub("", key) for key in keys if isinstance(key, str))
    return any(True for key in plain for _ in _before_a_network(key))


def _under(keys: Collection[str], where: str, prefix: str) -> Network:
    """The network under a prefix that was given."""
    inner = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
    if not inner:
        there = dict.fromkeys(key.rpartition(".")[0] + "." for key in keys if "." in key)
        raise InputError(
            f"{where} has no weights under prefix={prefix}; its names begin with {names(there)}."
        )
    found = network_in(inner, where)
    return replace(
        found,
        given=True,
        names={prefix + key: name for key, name in found.names.items()},
        beside=(
            *(prefix + key for key in found.beside),
            *(key for key in keys if not key.startswith(prefix)),
        ),
    )


def _before_a_network(key: str) -> Iterator[str]:
    """What stands before a weight that no other thing than a network has, if the key is of one."""
    if found := _HOOKED.search(key):
        yield key[: found.start(1)]
    for layer in _LAYER.finditer(key):
        if gpt_name(key[layer.start() :]) in _ATTENTION:
            yield key[: layer.start()]


def _root(keys: Collection[str], prefix: str, around: Collection[str]) -> str:
    """The longest prefix, up to that of the layers, under which the network has its other parts."""
    parts = prefix.split(".")[:-1]
    ancestors = ["".join(f"{part}." for part in parts[:n]) for n in range(len(parts), -1, -1)]
    apart = [x for x in around if not (x.startswith(prefix) or prefix.startswith(x))]
    own = [key for key in keys if not any(key.startswith(x) for x in apart)]
    with_tokens = []
    for root in ancestors:
        known = _bare([key for key in own if key.startswith(root)], root, [prefix]).values()
        if _has(known, _TOKENS):
            with_tokens.append(root)
            if _has(known, _OUTPUT):
                return root
    common = _common(keys)
    alone = bool(apart) or common.startswith(prefix)  # beside another network, nothing else is its
    return next(iter(with_tokens), prefix if alone else common)


def _has(known: Iterable[str], wanted: Collection[str]) -> bool:
    return any(name in wanted or gpt_name(name) in wanted for name in known)


def _bare(keys: Iterable[str], root: str, around: Collection[str] = ()) -> dict[str, str]:
    """Every key, and its name without the root and what is between it and the layers."""
    within = sorted((x.removeprefix(root) for x in around), key=len, reverse=True)
    found = {}
    for key in keys:
        name = key.removeprefix(root)
        between = next((x for x in within if x and name.startswith(x)), "")
        found[key] = WRAPPERS.sub("", name.removeprefix(between))
    return found


def _common(keys: Collection[str]) -> str:
    """What all names begin with, up to a dot; nothing of a single one."""
    split = [key.split(".")[:-1] for key in keys] if len(keys) > 1 else []
    first, last = (min(split), max(split)) if split else ([], [])
    common = ""
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        common += f"{one}."
    return common


def _chosen(roots: list[str], where: str) -> tuple[str, tuple[str, ...]]:
    """The network that is meant, and a note about the others."""
    plain = [root for root in roots if not _is_copy(root)] or roots
    chosen = "" if "" in plain else plain[0]
    if len(plain) > 1 and chosen:
        one, other = plain[:2]
        raise InputError(
            f"{where} has a network under {one!r} and another under {other!r}; say which is meant, "
            f"prefix={one} or prefix={other}"
        )
    if len(roots) == 1:
        return chosen, ()
    others = [root for root in roots if root != chosen]
    why = "copies by their names" if len(plain) == 1 else "inside of it"
    at = repr(chosen) if chosen else _NO_PREFIX
    return chosen, (
        f"the network under {at} is read; left out are others, {why}: {names(others)} (set prefix= "
        "to read another)",
    )


def _is_copy(root: str) -> bool:
    return any(word in COPIES for word in re.split(r"[._]", root.lower()))
