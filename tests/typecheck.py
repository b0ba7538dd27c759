"""What enforces the shapes of tensors while tests run: beartype, with an int accepted for a float.

Signatures that name no shape are left to the static type checker, and so are whole modules that
name none: jaxtyping binds the arguments of every function that it looks at, which takes longer than
many of them do.
"""

import sys
from pathlib import Path

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parent.parent / "grokinterp"
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def install() -> None:
    """Check the modules of the package that name shapes, none of which may be imported yet."""
    files = [x for x in PACKAGE.rglob("*.py") if "from jaxtyping import" in x.read_text()]
    names = [".".join(x.relative_to(PACKAGE.parent).with_suffix("").parts) for x in files]
    assert not set(names) & set(sys.modules), "imported before their shapes are checked"
    install_import_hook(names, "tests.typecheck.checker")


def checker(function):
    """Pictures are left out: what they say to a wrong argument is theirs to say, and is tested."""
    if "_figures" in function.__module__:
        return function
    names_a_shape = "jaxtyping." in str(list(function.__annotations__.values()))
    return _checked(function) if names_a_shape else function
