"""Where a command may write: checked when the command is read, before anything is measured."""

from pathlib import Path

from grokinterp.errors import InputError
from grokinterp.paths import refuse_address


def a_file(path: Path | None) -> Path | None:
    """A callback of options: a file to write, not a folder and not an address."""
    if path is not None:
        refuse_address(path)
        if path.is_dir():
            raise InputError(
                f"{path} is a folder; give the name of a file, such as {path / 'out'}."
            )
    return path


def a_folder(path: Path) -> Path:
    """A callback of options: a folder to make or to go on in, not a file and not an address."""
    refuse_address(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give a folder, which is made where it is missing.")
    return path
