"""What is wrong with how a command was typed, in one line that names the command's own help."""

from collections.abc import Collection, Sequence

from grokinterp.errors import shown


def usage_line(
    error: Exception, *, program: str, commands: Collection[str], arguments: Sequence[str]
) -> str | None:
    """The line of a usage error; None where there is none, since the help was shown.

    Usage errors are click's, which newer versions of typer carry under a private name; not all of
    them know their command, which is then the first of the `arguments` that is one.
    """
    message = error.format_message().strip()  # type: ignore[attr-defined]
    if not message:
        return None
    given = _given(error)
    told = message.rstrip(".") if given is None else f"{message.rstrip('.')} (given: {given})"
    ends = "" if told.endswith("?") else "."
    context = getattr(error, "ctx", None)
    path = context.command_path if context else program
    if path == program:
        path = " ".join([program, *[one for one in arguments if one in commands][:1]])
    return f"{told}{ends} Try '{path} --help'."


def _given(error: Exception) -> str | None:
    """The value that is of another type, which typer's message leaves out."""
    try:
        value = error.__cause__.errors()[0]["input"]  # type: ignore[union-attr]
    except (AttributeError, LookupError, TypeError):
        return None
    return shown(value)
