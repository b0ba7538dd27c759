"""A command in a terminal of its own: a pseudo-terminal, and what its screen would show."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pyte

GROKINTERP = (sys.executable, "-m", "grokinterp.cli")


class Terminal:
    """A command that runs in it, and the rows it has shown so far, those scrolled off included."""

    def __init__(self, *command, cwd, rows=24, columns=80, term="xterm-256color"):
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        self._set_size(rows, columns)
        source = os.path.dirname(os.path.dirname(__file__))
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=slave, stdout=slave, stderr=slave, cwd=cwd, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that it gets ^C
            env={
                **os.environ, "TERM": term, "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]),
            },
        )  # fmt: skip
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    @property
    def rows(self):
        """Of text, without the blank ones at the end."""
        off = ["".join(line[x].data for x in sorted(line)) for line in self._screen.history.top]
        found = [row.rstrip() for row in [*off, *self._screen.display]]
        while found and not found[-1]:
            found.pop()
        return found

    @property
    def text(self):
        """All rows as one line: text that goes over the end of a row is whole in it."""
        return " ".join(self.rows)

    def until(self, found, seconds=60):
        """Read until this is true of the terminal."""
        end = time.monotonic() + seconds
        while not found(self):
            assert time.monotonic() < end, f"not within {seconds} s; rows: {self.rows}"
            assert self._read(), f"it ended early; rows: {self.rows}"

    def finish(self, seconds=120):
        """Read to the end; the exit status."""
        end = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < end, f"not within {seconds} s; rows: {self.rows}"
        return self._process.wait()

    def type(self, text):
        """As from the keyboard."""
        os.write(self._master, text.encode())

    def resize(self, rows, columns):
        """As somebody drags a corner of the window, without lines wrapped anew."""
        self._screen.resize(rows, columns)
        self._set_size(rows, columns)
        os.killpg(self._process.pid, signal.SIGWINCH)

    def _set_size(self, rows, columns):
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _read(self):
        """What comes within a moment; whether more can come."""
        if not select.select([self._master], [], [], 0.05)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # as Linux says that the other end is closed
            return False
        self._stream.feed(data)
        return bool(data)
