"""Which runs come with this package, and where do they lie?

`mod31-small` is part of the package as it is installed. The others are in the folder `checkpoints`
of the repository, and are found in a clone: beside the package, where it is installed from there
with `pip install -e`, or above the folder that one is in.
"""

import difflib
import re
from pathlib import Path

from grokinterp.base.errors import InputError
from grokinterp.recipe.builtin import BUILTIN

REPOSITORY = "https://github.com/grokinterp/grokinterp"
FOLDER = "checkpoints"
NAME = re.compile("[A-Za-z0-9-]{1,60}")  # of a run; what is longer may be no name of a file
INSTALLED = "mod31-small"
SHIPPED = (
    INSTALLED, "mod113-grokked", "mod113-steady", "mlp113-grokked", "mlp113-steady",
    "ising-grokked", "ising-steady",
)  # fmt: skip


def shipped_run(path: str | Path) -> str | Path:
    """The folder of a run that ships, by its name; every other path, and what lies here, as it is.

    >>> shipped_run("mod31-small").name, shipped_run("runs/mine")
    ('mod31-small', 'runs/mine')
    >>> shipped_run("mod31-smal")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: 'mod31-smal' is neither here nor a run that ships; did you...
    """
    if not isinstance(path, str | Path) or not NAME.fullmatch(name := str(path)):
        return path
    if Path(path).exists():
        return path
    if name in SHIPPED:
        return _folder_of(name)
    if name in BUILTIN:
        raise InputError(
            f"{name!r} is a recipe, and its run is not here; train it with grokinterp train {name} "
            f"--out runs/{name}, or give a run that ships, such as {INSTALLED!r}."
        )
    if close := difflib.get_close_matches(name.lower(), SHIPPED, n=1, cutoff=0.8):
        raise InputError(
            f"{name!r} is neither here nor a run that ships; did you mean {close[0]!r}?"
        )
    return path


def _folder_of(name: str) -> Path:
    package = Path(__file__).parent.parent
    here = Path.cwd()
    for above in (package, package.parent, here, *here.parents):
        if (found := above / FOLDER / name).is_dir():
            return found
    raise InputError(
        f"the run {name!r} is in {FOLDER}/ of the repository and not in the package; clone "
        f"{REPOSITORY} and give its path, or try {INSTALLED!r}, which is installed."
    )
