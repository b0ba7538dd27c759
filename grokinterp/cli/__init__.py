"""The command line: one screen per command, no logic of its own.

Exit status: 0 done, 2 bad input (one line on standard error), 3 what was expected did not hold
(`--expect`, `verify`), 130 interrupted (nothing lost). Everything heavy is imported inside the
commands. An exception that no input causes ends in a traceback: it is a bug, and should be seen.
"""

import os
import signal
import sys
from collections.abc import Callable

import typer

from grokinterp.base.errors import InputError
from grokinterp.base.names import room_names
from grokinterp.cli import (
    analysis_commands,
    explanation_commands,
    geometry_command,
    run_commands,
    streams,
)
from grokinterp.cli._app import BAD_INPUT, INTERRUPTED, PROGRAM, app, usage_line
from grokinterp.cli.terminal import say

__all__ = ["main"]

COMMANDS: dict[str, Callable[..., None]] = {  # in the order in which --help lists them
    "recipes": run_commands.recipes,
    "train": run_commands.train,
    "sweep": run_commands.sweep,
    "accelerate": explanation_commands.accelerate,
    "info": analysis_commands.info,
    "verify": run_commands.verify,
    "measure": analysis_commands.measure,
    "phases": analysis_commands.phases,
    "key-frequencies": analysis_commands.key_frequencies,
    "ablate": analysis_commands.ablate,
    "geometry": geometry_command.geometry,
    "compare": analysis_commands.compare,
    "explain": explanation_commands.explain,
    "controls": explanation_commands.controls,
    "plot": analysis_commands.plot,
    "report": analysis_commands.report,
    "import": run_commands.import_,
    "export": run_commands.export,
    "bench": run_commands.bench,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Run the command line; every failure that is the input's becomes one line and a status.

    >>> import subprocess, sys
    >>> command = [sys.executable, "-m", "grokinterp", "info", "no-such-folder"]
    >>> done = subprocess.run(command, capture_output=True, text=True)
    >>> done.returncode
    2
    >>> print(done.stderr, end="")
    grokinterp: no-such-folder does not exist; give the folder of a run.
    """
    try:
        status: int | str | None = _run()
    except InputError as error:
        status = _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted; files appear whole or not at all, so nothing half-written is left.")
        status = INTERRUPTED
    except BrokenPipeError:
        status = 0
    except OSError as error:
        status = _fail(_why(error))
    except SystemExit as stopped:  # typer's own answer to a reader that has seen enough (head)
        status = 0 if isinstance(stopped.__context__, BrokenPipeError) else stopped.code
    except Exception as error:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            status = _fail("this needs more memory than there is; nothing was written.")
        elif not hasattr(error, "format_message"):
            raise
        else:
            line = usage_line(error)
            status = BAD_INPUT if line is None else _fail(line)
    _end(status)


def _run() -> int | None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing half-written stays
    # Bars follow a terminal that is made narrower; too long a line would be left behind each time.
    os.environ.setdefault("TQDM_DYNAMIC_NCOLS", "1")
    if streams.open_closed():
        return _fail(streams.CLOSED)
    streams.write_any_text()
    status: int | None = app(standalone_mode=False, prog_name=PROGRAM)
    return status


def _why(error: OSError) -> str:
    if (unwritten := streams.flush()) is not None:
        return streams.cannot_write(unwritten)
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"{where}{error.strerror or error}; what was saved before is whole (a training goes "
        "on with --resume), put this right and try again."
    )


def _end(status: int | str | None) -> None:
    unwritten = streams.flush()
    if not status and unwritten is not None and not isinstance(unwritten, BrokenPipeError):
        status = _fail(streams.cannot_write(unwritten))
    sys.exit(status or 0)


def _fail(line: str) -> int:
    say(" ".join(line.split()))
    return BAD_INPUT


__getattr__, __dir__ = room_names(__name__, __all__)
