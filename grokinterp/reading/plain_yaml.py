"""YAML as data: a small configuration, and nothing that stands for more than is written.

Aliases (with which a few lines stand for gigabytes) and tags of other types than YAML's own are
refused, and so is what is larger, deeper or of more values than a configuration is.
"""

from typing import Any

import yaml

LARGEST_YAML = 200_000  # bytes
MOST_VALUES = 20_000
DEEPEST = 50
LONGEST_WORD = 10_000  # characters of a value: of a number, seconds of work

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where there is one


def read_yaml(content: bytes) -> Any:
    r"""The value that a text in YAML stands for; ValueError with the reason where it is refused.

    >>> read_yaml(b"p: 59\nlr: 0.001")
    {'p': 59, 'lr': 0.001}
    >>> read_yaml(b"a: &x [1]\nb: *x")
    Traceback (most recent call last):
    ValueError: it has an alias, which a configuration does not need
    """
    if len(content) > LARGEST_YAML:
        raise ValueError(f"larger than {LARGEST_YAML / 1e3:.0f} kB")
    try:
        _check(content)
        return yaml.load(content, Loader=_LOADER)  # a safe one: it makes plain values alone
    except yaml.YAMLError as error:
        raise ValueError(f"no plain YAML: {getattr(error, 'problem', None) or error}") from None
    except (TypeError, OverflowError, AttributeError, LookupError) as error:  # such as of a date
        raise ValueError(f"no plain YAML: {error}") from None


def _check(content: bytes) -> None:
    """Refuse what is too much, by the text's own parts: before a value is made of any."""
    depth = 0
    for n, event in enumerate(yaml.parse(content, Loader=_LOADER)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has an alias, which a configuration does not need")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST_WORD:
            raise ValueError(f"it has a value of more than {LONGEST_WORD} characters")
        if n > MOST_VALUES or depth > DEEPEST:
            raise ValueError("it is larger or deeper than a configuration is")
