"""What cannot be read is refused within seconds, and what would be waited for is never opened."""

import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib

import pytest
import torch

import grokinterp as gi
from grokinterp.reading.tensor_files import LEGACY_MAGIC, read_file
from grokinterp.recipe import find_recipe
from grokinterp.sweeps import Sweep

pytestmark = pytest.mark.slow

SECONDS = 3.0
DEEP = 2_000_000


def refusal(call, *, seconds=SECONDS):
    """The message of an InputError that comes within so much time of the processor."""
    begin = time.process_time()
    with pytest.raises(gi.InputError) as refused:
        call()
    assert time.process_time() - begin < seconds
    said = str(refused.value)
    assert "\n" not in said
    assert len(said) <= 400
    return said


def tensors(n):
    return {f"w{i}": torch.empty(0) for i in range(n)}


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


TENSOR = (  # an empty one, as torch.save pickles it
    b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
    + text("0") + text("cpu") + b"K\x00tQK\x00K\x00\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
)  # fmt: skip


def pickled_dict(n, value):
    """A pickle of so many names and one value; as text, which is written faster than by torch."""
    return b"\x80\x02}(" + b"".join(text(f"w{i}") + value for i in range(n)) + b"u."


def legacy(content):
    """What torch.save wrote before version 1.6, up to the storages."""
    return b"".join(pickle.dumps(x, 2) for x in (LEGACY_MAGIC, 1001, {})) + content


def archive(n):
    """A zip archive of a pickle and so many storages, all of them empty."""
    members = [("x/data.pkl", pickled_dict(1, TENSOR))] + [(f"x/data/{i}", b"") for i in range(n)]
    begins, listed, at = [], [], 0
    for name, data in members:
        common = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data),
                             len(name), 0)  # fmt: skip
        begins.append(b"PK\x03\x04" + common + name.encode() + data)
        listed.append(b"PK\x01\x02" + struct.pack("<H", 20) + common
                      + struct.pack("<HHHII", 0, 0, 0, 0, at) + name.encode())  # fmt: skip
        at += len(begins[-1])
    central = b"".join(listed)
    long = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, n + 1, n + 1, len(central), at)
    locator = struct.pack("<IIQI", 0x07064B50, 0, at + len(central), 1)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    return b"".join(begins) + central + long + locator + end


def header(n):
    """A safetensors file of so many empty tensors."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    content = json.dumps({f"w{i}": entry for i in range(n)}).encode()
    return struct.pack("<Q", len(content)) + content


def deep(steps):
    return lambda: b"\x80\x02" + steps + b"."


SLOW = {  # which took ten seconds and more
    "archive.pt": lambda: archive(300_000),
    "legacy.pt": lambda: legacy(pickled_dict(300_000, TENSOR)),
    "names.pkl": lambda: pickled_dict(500_000, b"]"),
    "many.safetensors": lambda: header(300_000),
    "fewer.safetensors": lambda: header(50_000),
    "lists.pkl": deep(b"]" * DEEP + b"a" * (DEEP - 1)),
    "marks.pkl": deep(b"(" * DEEP + b"l" * DEEP),
    "tuples.pkl": deep(b")" + b"\x85" * DEEP),
    "dictionaries.pkl": deep(b"}" + b"K\x01}" * DEEP + b"s" * DEEP),
}
TIMED = """
import json, sys, time
import grokinterp as gi
gi.load
for path in sys.argv[1:]:
    begin = time.process_time()
    try:
        said = f"read: {gi.load(path)}"
    except gi.InputError as error:
        said = str(error)
    print(json.dumps([path, time.process_time() - begin, said]))
"""


def test_large_and_deep_files_are_refused_in_seconds(tmp_path):
    """In a process of its own, where no types are checked on the way: that takes most of it."""
    for name, content in SLOW.items():
        (tmp_path / name).write_bytes(content())
    done = subprocess.run(
        [sys.executable, "-c", TIMED, *(tmp_path / name for name in SLOW)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [path for path, _, _ in found] == [str(tmp_path / name) for name in SLOW]
    for path, seconds, said in found:
        assert seconds < SECONDS, (path, seconds)
        assert said.startswith(path), (path, said)  # and not "read: ..."
        assert "\n" not in said
        assert len(said) <= 400


def test_long_lists_of_losses_are_still_read(tmp_path):
    """As many as long runs keep in one file."""
    content = {"losses": [0.5 + i for i in range(100_000)], "states": [tensors(30)] * 100}
    torch.save(content, tmp_path / "x.pt")
    found = read_file(tmp_path / "x.pt")
    assert found["losses"] == content["losses"]
    assert [len(state) for state in found["states"]] == [30] * 100


def test_looking_for_cycles_goes_on_after_a_file_was_read(tmp_path):
    import gc

    (tmp_path / "x.pkl").write_bytes(pickle.dumps([1, 2]))
    was_on = gc.isenabled()
    refusal(lambda: gi.load(tmp_path / "x.pkl"))
    assert gc.isenabled() == was_on


posix = pytest.mark.skipif(os.name != "posix", reason="named pipes and devices")


@pytest.fixture
def in_time():
    """Ends a test that waits."""

    def fail(*_):
        raise AssertionError("waited")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    recipe = gi.Recipe(p=5, d_model=8, n_heads=2, d_head=4, d_mlp=8, steps=2)
    run = gi.train(recipe, folder / "run")
    torch.save(run.weights(), folder / "model_step_2.pt")
    return folder / "model_step_2.pt"


def odd_paths(folder):
    """A pipe under every name that something could expect, a socket, and devices."""
    for name in ("pipe", "pipe.pt", "pipe.toml", "pipe.csv"):
        os.mkfifo(folder / name)
    (folder / "link.pt").symlink_to(folder / "pipe")
    (folder / "loop.pt").symlink_to(folder / "loop.pt")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(folder / "socket"))  # an absolute path may be too long for one
    names = ("pipe", "pipe.pt", "pipe.toml", "pipe.csv", "link.pt", "loop.pt", "socket")
    return [*(folder / name for name in names), "/dev/zero", "/dev/urandom", "/dev/tty"]


@posix
def test_pipes_and_devices_are_refused_wherever_a_path_is_taken(
    tmp_path, monkeypatch, checkpoint, in_time
):
    monkeypatch.chdir(tmp_path)
    for path in odd_paths(tmp_path):
        for call in (
            lambda path: gi.load(path),
            lambda path: gi.load(path, format="paper"),
            lambda path: gi.import_run(path, tmp_path / "out"),
            lambda path: gi.Run(path),
            find_recipe,
            gi.Recipe.from_toml,
            Sweep.from_toml,
            lambda path: gi.load(checkpoint, train_indices=str(path)),
            lambda path: gi.load(checkpoint, metrics=str(path)),
        ):
            assert str(path) in refusal(lambda call=call, path=path: call(path))
    assert not (tmp_path / "out").exists()


@posix
@pytest.mark.skipif(not os.path.exists("/proc/kmsg"), reason="Linux has it")
def test_files_that_wait_for_the_kernel_are_not_opened(checkpoint, in_time):
    for call in (
        gi.load, gi.Recipe.from_toml, Sweep.from_toml, find_recipe,
        lambda path: gi.load(checkpoint, train_indices=path),
        lambda path: gi.load(checkpoint, metrics=path),
    ):  # fmt: skip
        assert "/proc/kmsg is empty" in refusal(lambda call=call: call("/proc/kmsg"))


@posix
def test_a_pipe_inside_a_folder_is_not_waited_for(checkpoint, tmp_path, in_time):
    os.mkfifo(tmp_path / "step_1.pt")
    assert "named pipe" in refusal(lambda: gi.load(tmp_path))
    run = tmp_path / "run"
    gi.import_run(checkpoint, run)
    for name in ("metrics.csv", "weights/step_00000002.safetensors", "run.json"):
        (run / name).unlink()
        os.mkfifo(run / name)
        said = refusal(lambda: gi.load(run).verify())
        assert "missing" in said or "not a run" in said


@posix
@pytest.mark.parametrize(
    "command",
    [
        ["info"], ["measure"], ["phases"], ["ablate"], ["report"], ["compare", "pipe.csv"],
        ["import", "--out", "out"], ["export", "--out", "out.pth"], ["verify"],
        ["train", "--out", "out"], ["sweep", "--out", "out"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_every_command_refuses_a_pipe_at_once(command, run, tmp_path, monkeypatch, in_time):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.csv")
    name, *options = command
    status, out, errors = run(name, "pipe.csv", *options)
    assert (status, out) == (2, "")
    assert "pipe.csv is a named pipe" in errors
    assert len(errors.splitlines()) == 1


@posix
def test_nothing_is_put_in_the_place_of_a_pipe(checkpoint, tmp_path, in_time):
    os.mkfifo(tmp_path / "pipe")
    run = gi.load(checkpoint)
    assert "named pipe" in refusal(lambda: gi.export(run, tmp_path / "pipe"), seconds=20)
    assert (tmp_path / "pipe").is_fifo()


@posix
def test_refusals_do_not_wait_for_who_writes_into_a_pipe(tmp_path, in_time):
    """One that is written into is refused as well: what it holds can be read only once."""
    os.mkfifo(tmp_path / "pipe.csv")
    writer = threading.Thread(
        target=lambda: os.close(os.open(tmp_path / "pipe.csv", os.O_RDWR)), daemon=True
    )
    writer.start()
    assert "named pipe" in refusal(lambda: gi.load(tmp_path / "pipe.csv"))
    writer.join(timeout=5)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "y/" * 3000])
def test_what_is_no_path_is_refused(path):
    for call in (gi.load, gi.Recipe.from_toml, Sweep.from_toml, find_recipe):
        refusal(lambda call=call: call(path))
