"""Standard streams as a shell may hand them over: closed, full, in an encoding of few letters."""

import contextlib
import os
import sys

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # by their descriptors: 0, 1, 2
CLOSED = (
    "standard output is closed, so there is nowhere to print to; send it somewhere, such as "
    ">/dev/null."
)


def open_closed() -> bool:
    """Put the null device where a stream is closed (`>&-`); returns whether standard output was.

    Otherwise the next file that is opened would become the stream, and get what is printed.
    """
    closed = sys.stdout is None
    for descriptor, (name, mode) in enumerate(STREAMS):
        if getattr(sys, name) is None:
            try:
                os.fstat(descriptor)
            except OSError:
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, descriptor)  # which child processes inherit
                if null != descriptor:
                    os.close(null)
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    return closed


def write_any_text() -> None:
    """Spell out letters that the encoding of an output does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # not a file: a test's, a notebook's
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def flush() -> OSError | None:
    """Write what is left; returns why standard output cannot be written to, or None.

    What cannot be written is dropped, or the interpreter would complain of it as it ends.
    """
    failure = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            if stream is sys.stdout:
                failure = error
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
    return failure


def cannot_write(error: OSError) -> str:
    """The line about a standard output that cannot be written to."""
    return (
        f"standard output cannot be written to ({error.strerror or error}); what --out names is "
        "whole. Send it somewhere else."
    )
