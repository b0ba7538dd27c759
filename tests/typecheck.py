"""What enforces the shapes of tensors while tests run: beartype, with an int accepted for a float.

Signatures that name no shape are left to the static type checker, and so are whole modules that
name none, and functions within functions: these would be compiled anew at every call of what holds
them, which took a quarter of the suite.
"""

import sys
from pathlib import Path

import jaxtyping
from beartype import BeartypeConf, beartype

PACKAGE = Path(__file__).parent.parent / "grokinterp"
checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped


def install() -> None:
    """Check the modules of the package that name shapes, none of which may be imported yet."""
    files = [x for x in PACKAGE.rglob("*.py") if "from jaxtyping import" in x.read_text()]
    names = [".".join(x.relative_to(PACKAGE.parent).with_suffix("").parts) for x in files]
    assert not set(names) & set(sys.modules), "imported before their shapes are checked"
    jaxtyping.jaxtyped = _where_shapes_are_named  # what the hook decorates everything with
    jaxtyping.install_import_hook(names, "tests.typecheck.checker")


def _where_shapes_are_named(*, typechecker):
    """Pictures are left out: what they say to a wrong argument is theirs to say, and is tested."""

    def decorated(given):
        function = given.__init__ if isinstance(given, type) else given
        if "<locals>" in function.__qualname__ or "_figures" in given.__module__:
            return given
        annotations = getattr(function, "__annotations__", {})
        names_a_shape = "jaxtyping." in str(list(annotations.values()))
        return _jaxtyped(given, typechecker=typechecker) if names_a_shape else given

    return decorated
