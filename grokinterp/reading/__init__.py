"""What others wrote: their logs and checkpoints, read without running anything in them."""

from grokinterp.base.names import room_names
from grokinterp.reading._load import load
from grokinterp.reading._read_log import read_log
from grokinterp.reading.import_and_export import export, import_run

__all__ = ["export", "import_run", "load", "read_log"]
__getattr__, __dir__ = room_names(__name__, __all__)
