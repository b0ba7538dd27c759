"""The command line: one screen per command, no logic of its own.

Exit status: 0 done, 2 bad input (one line on standard error), 3 what was expected did not hold
(`--expect`, `verify`), 130 interrupted (nothing lost). Everything heavy is imported inside the
commands.
"""

import signal
import sys
from collections.abc import Callable

import typer

from grokinterp.cli import checking, exchange, looking, making
from grokinterp.cli.app import BAD_INPUT, INTERRUPTED, app
from grokinterp.errors import InputError
from grokinterp.terminal import close_output, say

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

NO_MEMORY = "this needs more memory than there is; nothing was written."


def main() -> None:
    """Run the command line; every failure that is the input's becomes one line and a status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing half-written stays
    try:
        status = app(standalone_mode=False)
    except InputError as error:
        status = _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        status = 0
    except MemoryError:
        status = _fail(NO_MEMORY)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status = _fail(
            f"{where}{error.strerror or error}; what was saved before is whole (a training goes "
            "on with --resume), put this right and try again."
        )
    except SystemExit as stopped:  # typer's own answer to a reader that has seen enough (head)
        status = 0 if isinstance(stopped.__context__, BrokenPipeError) else stopped.code
    except Exception as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
            return _end(_fail(NO_MEMORY))
        # Usage errors are click's, which newer versions of typer carry under a private name.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()  # empty when the help was shown for want of a command
        status = _fail(f"{message} Try 'grokinterp --help'.") if message else BAD_INPUT
    _end(status)


def _end(status: int | None) -> None:
    close_output()
    sys.exit(status or 0)


def _fail(line: str) -> int:
    say(" ".join(line.split()))
    return BAD_INPUT
