"""The command line: one screen per command, no logic of its own.

Exit status: 0 done, 2 bad input (one line on standard error), 3 what was expected did not hold
(`--expect`, `verify`), 130 interrupted (nothing lost). Everything heavy is imported inside the
commands. An exception that is nobody's input ends in a traceback: it is a bug, and should be seen.
"""

import os
import signal
import sys
from collections.abc import Callable

import typer

from grokinterp.cli import checking, exchange, looking, making, streams
from grokinterp.cli.app import BAD_INPUT, INTERRUPTED, app
from grokinterp.cli.usage import usage_line
from grokinterp.errors import InputError
from grokinterp.terminal import say

COMMANDS: dict[str, Callable[..., None]] = {  # in the order in which --help lists them
    "recipes": making.recipes,
    "train": making.train,
    "sweep": making.sweep,
    "info": looking.info,
    "verify": checking.verify,
    "measure": looking.measure,
    "phases": looking.phases,
    "ablate": looking.ablate,
    "compare": looking.compare,
    "report": looking.report,
    "import": exchange.import_,
    "export": exchange.export,
    "bench": checking.bench,
}
for name, command in COMMANDS.items():
    app.command(name)(command)

PROGRAM = "grokinterp"
NO_MEMORY = "this needs more memory than there is; nothing was written."
STOPPED = "interrupted; files appear whole or not at all, so nothing half-written is left."


def main() -> None:
    """Run the command line; every failure that is the input's becomes one line and a status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing half-written stays
    # Bars follow a terminal that is made narrower; too long a line would be left behind each time.
    os.environ.setdefault("TQDM_DYNAMIC_NCOLS", "1")
    if streams.open_closed():
        _end(_fail(streams.CLOSED))
    streams.write_any_text()
    try:
        status = app(standalone_mode=False, prog_name=PROGRAM)
    except InputError as error:
        status = _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        say(STOPPED)
        status = INTERRUPTED
    except BrokenPipeError:
        status = 0
    except MemoryError:
        status = _fail(NO_MEMORY)
    except OSError as error:
        status = _fail(_why(error))
    except SystemExit as stopped:  # typer's own answer to a reader that has seen enough (head)
        status = 0 if isinstance(stopped.__context__, BrokenPipeError) else stopped.code
    except Exception as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
            return _end(_fail(NO_MEMORY))
        if not hasattr(error, "format_message"):
            raise
        line = usage_line(error, program=PROGRAM, commands=COMMANDS, arguments=sys.argv[1:])
        status = BAD_INPUT if line is None else _fail(line)
    _end(status)


def _why(error: OSError) -> str:
    if (unwritten := streams.flush()) is not None:
        return streams.cannot_write(unwritten)
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"{where}{error.strerror or error}; what was saved before is whole (a training goes "
        "on with --resume), put this right and try again."
    )


def _end(status: int | None) -> None:
    unwritten = streams.flush()
    if not status and unwritten is not None and not isinstance(unwritten, BrokenPipeError):
        status = _fail(streams.cannot_write(unwritten))
    sys.exit(status or 0)


def _fail(line: str) -> int:
    say(" ".join(line.split()))
    return BAD_INPUT
