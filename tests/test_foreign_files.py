"""Files of others are data: nothing in them runs, and what is wrong with them is one line."""

import collections
import contextlib
import io
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import grokinterp as gi
from grokinterp.reading.pickles import read_pickle
from grokinterp.reading.tensor_files import read_file


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def archive(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def same(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            same(ours[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) is type(theirs)
        for x, y in zip(ours, theirs, strict=True):
            same(x, y)
    else:
        assert ours == theirs


EVERYTHING = {
    "numbers": [0, 1, -1, 255, 256, 65536, -(2**40), 2**62, 0.1, -1e300, True, False, None],
    "text": ["", "a", "ä" * 300, b"", b"\x00\xff"],
    "nested": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, {"a": {"b": [{}]}}),
    "sets": {1, 2, 3},
    "arrays": [np.arange(6.0).reshape(2, 3).T, np.float32(0.5).item(), np.array([], np.int64)],
    "ordered": dict(collections.OrderedDict(a=1)),
    3: "an integer key",
}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol_is_read(protocol):
    same(read_pickle(pickle.dumps(EVERYTHING, protocol)), EVERYTHING)


def test_numpy_scalars_become_numbers_and_shared_arrays_stay_shared():
    array = np.arange(3.0)
    found = read_pickle(pickle.dumps([np.float64(1.5), array, array]))
    assert found[0] == 1.5
    assert found[1] is found[2]
    np.testing.assert_array_equal(found[2], array)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_every_kind_are_read(zipped, tmp_path):
    base = torch.arange(24.0).reshape(2, 3, 4)
    content = {
        "whole": base, "view": base[:, 1:, ::2], "transposed": base.transpose(0, 2),
        "scalar": torch.tensor(3.0), "empty": torch.empty(0, 3),
        "bool": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)).data,
        **{str(kind): torch.ones(3, dtype=kind) for kind in (
            torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.uint8
        )},
    }  # fmt: skip
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    same(read_file(tmp_path / "x.pt"), content)


def test_a_configuration_object_is_read_as_its_attributes(tmp_path):
    torch.save({"config": SimpleNamespace(p=59, act_fn="relu")}, tmp_path / "x.pt")
    assert read_file(tmp_path / "x.pt")["config"] == {"p": 59, "act_fn": "relu"}


@pytest.mark.parametrize(
    "function", [os.system, eval, print, __import__, subprocess.Popen, open, torch.load, getattr]
)
@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
def test_a_pickle_that_calls_a_function_is_refused_and_not_run(function, container, tmp_path):
    witness = tmp_path / "witness"
    attack = {"model": Calls(function, f"touch {witness}")}
    path = tmp_path / "x.pt"
    if container == "pickle":
        path.write_bytes(pickle.dumps(attack, 2))
    else:
        torch.save(attack, path, _use_new_zipfile_serialization=container == "zip")
    with pytest.raises(gi.InputError, match=r"asks to call|holds an object") as error:
        gi.load(path)
    assert "Nothing in it was run" in str(error.value)
    assert "\n" not in str(error.value)
    assert not witness.exists()


def test_a_whole_model_without_a_known_layout_is_refused_by_what_it_is(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
    with pytest.raises(gi.InputError, match="holds a linear model"):
        gi.load(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02]r\xff\xff\xff\xff.", ""),  # a memo index that a C unpickler allocates for
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "expected"),  # 2**63 bytes of text
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "expected"),
        (b"\x80\x02(((((.", "one object"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02}(" + b"]" * 3 + b"K\x01u.", "has no value|list where"),
        (b"\x80\x02" + b"]" * 300_000 + b".", "steps"),
        (b"\x80\x02}" + b"(" * 100_000 + b"t" * 100_000 + b"K\x01s.", "tuple where"),
    ],
)  # fmt: skip
def test_hostile_pickles_end_at_once(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr("grokinterp.reading.pickles.MOST_OPCODES", 250_000)
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    if not message:
        assert read_file(path) == []
        return
    with pytest.raises(gi.InputError, match=message):
        read_file(path)


def tensor_pickle(size, stride, offset=0, n=4):
    """A torch pickle of one tensor with a geometry of the attacker's choice."""
    storage = ("storage", torch.FloatStorage, "0", "cpu", n)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return storage if value == "the storage" else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(
        Calls(torch._utils._rebuild_tensor_v2, "the storage", offset, size, stride, False, None)
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size", "stride", "offset", "n"),
    [
        ((5,), (1,), 0, 4), ((4,), (1,), 1, 4), ((2, 2), (3, 1), 0, 4), ((1 << 40,), (0,), 0, 4),
        ((100, 100), (0, 0), 0, 4), ((-1,), (1,), 0, 4), ((4,), (-1,), 3, 4),
        ((4,), (1,), 0, 1 << 50),
        ((2, 2), (1,), 0, 4), ((1,) * 64, (1,) * 64, 0, 4), ((True,), (1,), 0, 4),
    ],
)  # fmt: skip
def test_tensors_that_leave_their_storage_are_refused(size, stride, offset, n, tmp_path):
    content = tensor_pickle(size, stride, offset, n)
    path = archive(tmp_path / "x.pt", {"x/data.pkl": content, "x/data/0": bytes(16)})
    with pytest.raises(gi.InputError, match=r"x\.pt is"):
        read_file(path)


def test_a_sound_geometry_is_read(tmp_path):
    floats = struct.pack("<4f", 1, 2, 3, 4)
    content = {"x/data.pkl": tensor_pickle((2, 2), (1, 2)), "x/data/0": floats}
    found = read_file(archive(tmp_path / "x.pt", content))
    assert found.tolist() == [[1, 3], [2, 4]]


def test_tensors_that_repeat_a_file_many_times_are_refused(tmp_path):
    weight = torch.zeros(10_000)
    torch.save([weight] * 10, tmp_path / "shared.pt")  # one object ten times: nothing is repeated
    assert len(read_file(tmp_path / "shared.pt")) == 10
    torch.save([weight[i:] for i in range(100)], tmp_path / "bomb.pt")
    with pytest.raises(gi.InputError, match="times its size"):
        read_file(tmp_path / "bomb.pt")


class TestArchives:
    def good(self):
        return {"x/data.pkl": pickle.dumps({"p": 7}, 2), "x/byteorder": "little"}

    @pytest.mark.parametrize("name", ["../evil", "x/../../evil", "/etc/evil", "x\\..\\evil"])
    def test_members_that_lead_out(self, name, tmp_path):
        path = archive(tmp_path / "x.pt", {**self.good(), name: b"mine"})
        with pytest.raises(gi.InputError, match="leads out of the archive"):
            gi.load(path)
        assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]

    def test_a_symbolic_link_inside(self, tmp_path):
        path = archive(tmp_path / "x.pt", self.good())
        with zipfile.ZipFile(path, "a") as file:
            link = zipfile.ZipInfo("x/data/0")
            link.external_attr = 0o120777 << 16
            file.writestr(link, "/etc/passwd")
        with pytest.raises(gi.InputError, match="symbolic link"):
            gi.load(path)

    def test_a_zip_bomb(self, tmp_path):
        bomb = {**self.good(), "x/data/0": bytes(100_000_000)}
        path = archive(tmp_path / "x.pt", bomb, compression=zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 200_000
        with pytest.raises(gi.InputError, match="compressed"):
            gi.load(path)

    def test_other_archives(self, tmp_path):
        with pytest.raises(gi.InputError, match="unpack it and give the folder"):
            gi.load(archive(tmp_path / "x.zip", {"a.pt": b"1", "b.pt": b"2"}))

    def test_big_endian_numbers(self, tmp_path):
        with pytest.raises(gi.InputError, match="big-endian"):
            gi.load(archive(tmp_path / "x.pt", {**self.good(), "x/byteorder": "big"}))

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
    def test_half_written_files(self, share, tiny_run, tmp_path):
        for zipped in (True, False):
            torch.save(tiny_run.weights(), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
            content = (tmp_path / "x.pt").read_bytes()
            (tmp_path / "x.pt").write_bytes(content[: int(share * len(content))])
            with pytest.raises(gi.InputError, match=r"damaged or cut off|not plain data"):
                gi.load(tmp_path / "x.pt")

    def test_a_flipped_bit_in_a_weight(self, tiny_run, tmp_path):
        torch.save(tiny_run.weights(), tmp_path / "x.pt")
        content = bytearray((tmp_path / "x.pt").read_bytes())
        at = content.find(tiny_run.weights()["embed.W_E"].numpy().tobytes())
        content[at + 5] ^= 1
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(gi.InputError, match="checksum"):
            gi.load(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80", b"hello", bytes(100), b"\x93NUMPY\x01"])
def test_what_is_no_checkpoint(content, tmp_path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(gi.InputError, match=re.escape(str(tmp_path / "x.pt"))):
        read_file(tmp_path / "x.pt")
    with pytest.raises(gi.InputError):
        gi.load(tmp_path / "x.pt")


STAND_INS = {
    "a Git-LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
    "an HTML page": b"\n<!DOCTYPE html>\n<html lang='en'><body>404",
    "empty": b"",
}


@pytest.mark.parametrize("what", STAND_INS)
def test_what_a_clone_or_a_download_leaves_is_named(what, tiny_run, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    good, bad = folder / "step_1.pt", folder / "step_2.pt"
    torch.save(tiny_run.weights(), good)
    bad.write_bytes(STAND_INS[what])
    for call in (
        lambda: gi.load(folder),
        lambda: gi.load(bad),
        lambda: gi.load(bad, format="paper"),
        lambda: gi.import_run(bad, tmp_path / "run"),
        lambda: gi.load(good, train_indices=str(bad)),
        lambda: gi.load(good, metrics=str(bad)),
    ):
        with pytest.raises(gi.InputError, match=f"step_2.pt is {what}"):
            call()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", STAND_INS)
@pytest.mark.parametrize("name", ["run.json", "metrics.csv", "split.safetensors"])
def test_so_it_is_in_a_run(what, name, tiny_run, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(STAND_INS[what])
    with pytest.raises(
        gi.InputError, match=f"{name} is {what}(, not the file of the run|: damaged)"
    ):
        gi.load(tmp_path / "run").verify()


def test_text_and_other_formats_are_no_checkpoints(tmp_path):
    for content, what in ((b"step,test_acc\n0,0.1\n", "is text"), (b'{"a": 1}', "is JSON"),
                          (bytes(range(1, 255)), "no format that is known")):  # fmt: skip
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(gi.InputError, match=what):
            gi.load(tmp_path / "x")


def test_symbolic_links_in_a_folder_are_refused(tiny_run, tmp_path):
    torch.save(tiny_run.weights(), tmp_path / "elsewhere.pt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "step_1.pt").symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(gi.InputError, match="symbolic link"):
        gi.load(tmp_path / "folder")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"", b"\x80\x02", b"\x80\x04\x95"]), st.binary(max_size=200))
def test_any_bytes_are_data_or_refused(head, tail):
    with contextlib.suppress(ValueError, OverflowError, IndexError, struct.error):
        read_pickle(head + tail)  # read_file makes one line of these


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
    | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(PLAIN, st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_any_plain_data_is_read_as_pickle_reads_it(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.slow
@pytest.mark.parametrize(("n", "kind"), [("600", "files"), ("300", "texts")])
def test_mutated_files_are_read_or_refused(n, kind):
    """tests/fuzz.py in short: in a process of its own, as its audit hook cannot be taken out."""
    done = subprocess.run(
        [sys.executable, "tests/fuzz.py", n, "7", kind],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith(f"{n} {kind}")


class TestSmallFilesThatWantMuch:
    """Bombs: a small file that would take gigabytes or minutes."""

    def test_one_object_copied_again_and_again(self, tmp_path):
        text = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6
        copy = b"h\x03h\x02Ra"
        path = tmp_path / "x.pkl"
        path.write_bytes(
            b"\x80\x02]q\x00" + text + b"q\x01X\x06\x00\x00\x00latin1\x86q\x020"
            b"c_codecs\nencode\nq\x030" + copy * 4000 + b"."
        )  # fmt: skip
        with pytest.raises(gi.InputError, match="cop"):
            read_file(path)

    def test_keys_of_one_hash(self, tmp_path):
        keys = {k * (2**61 - 1): 0 for k in range(3)}
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(keys, 2))
        with pytest.raises(gi.InputError, match="53 bits"):
            read_file(tmp_path / "x.pkl")

    def test_members_that_overlap(self, tmp_path):
        path = archive(tmp_path / "x.pt", {"x/data.pkl": b"\x80\x02].", "x/data/0": bytes(10_000)})
        content = path.read_bytes()
        entry = content.find(b"PK\x01\x02", content.find(b"PK\x01\x02") + 1)
        end = content.find(b"PK\x05\x06")
        record = content[entry:end]
        many = b"".join(
            record[:46] + f"x/data/{n}".encode() + record[46 + 8 :] for n in range(1, 10)
        )
        directory = content[: content.find(b"PK\x01\x02")]
        first = content[len(directory) : entry]
        tail = bytearray(content[end:])
        tail[8:12] = struct.pack("<HH", 11, 11)
        tail[12:16] = struct.pack("<I", len(first) + len(record) + len(many))
        path.write_bytes(directory + first + record + many + bytes(tail))
        with pytest.raises(gi.InputError, match="overlap"):
            read_file(path)

    def test_checkpoints_that_are_all_one_state(self, tiny_run, tmp_path):
        weights = {name: w.clone() for name, w in tiny_run.weights().items()}
        content = {"checkpoints": [weights] * 500, "checkpoint_epochs": list(range(500))}
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(gi.InputError, match="one another's"):
            gi.load(tmp_path / "x.pt")

    def test_sizes_that_nothing_can_compute(self, tmp_path):
        p = 9999
        state = {
            "embed.W_E": torch.zeros(p + 1, 1), "pos_embed.W_pos": torch.zeros(3, 1),
            **{f"blocks.0.attn.W_{x}": torch.zeros(1, 1, 1) for x in "QKVO"},
            "blocks.0.mlp.W_in": torch.zeros(1, 1), "blocks.0.mlp.W_out": torch.zeros(1, 1),
            "unembed.W_U": torch.zeros(1, p),
        }  # fmt: skip
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(gi.InputError, match="GiB"):
            gi.load(tmp_path / "x.pt")


class TestOddWordsInFiles:
    @pytest.mark.parametrize("key", [7, None, b"embed", "a" * 10_000, "model." * 50_000, "\x1b[2J"])
    def test_weights_of_odd_names(self, key, tiny_run, tmp_path):
        torch.save({**tiny_run.weights(), key: torch.zeros(2)}, tmp_path / "x.pt")
        with pytest.raises(gi.InputError) as error:
            gi.load(tmp_path / "x.pt")
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 1000

    @pytest.mark.parametrize("kind", [torch.complex64, torch.float8_e4m3fn, torch.int32])
    def test_weights_of_odd_precision(self, kind, tiny_run, tmp_path):
        weights = tiny_run.weights()
        odd = {**weights, "embed.W_E": weights["embed.W_E"].to(kind)}
        torch.save(odd, tmp_path / "x.pt")
        with pytest.raises(gi.InputError):
            gi.load(tmp_path / "x.pt")
        mixed = {**weights, "embed.W_E": weights["embed.W_E"].double()}
        torch.save(mixed, tmp_path / "x.pt")
        found = gi.load(tmp_path / "x.pt").weights()
        assert {weight.dtype for weight in found.values()} == {torch.float64}

    @pytest.mark.parametrize(
        "text",
        ['{"p": 1e999}', '{"p": 9' + "9" * 4000 + "}", "[1]", "{" * 9999, '{"eps": NaN}', "\0"],
    )
    def test_odd_configurations_beside(self, text, tiny_run, tmp_path):
        torch.save(tiny_run.weights(), tmp_path / "x.pt")
        (tmp_path / "x.json").write_text(text)
        assert gi.load(tmp_path / "x.pt").task.p == 7

    @pytest.mark.parametrize("step", ["x", "nan", "inf", "-5", "1e300", "0.5", "9" * 30, ""])
    def test_odd_logs(self, step, tiny_run, tmp_path):
        torch.save(tiny_run.weights(), tmp_path / "x.pt")
        log = tmp_path / "x.csv"
        log.write_text(f"step,train_loss\n0,4.0\n{step},1.0\n")
        assert gi.load(tmp_path / "x.pt").steps == (0,)  # beside it: left alone, or its step 0
        if step not in ("nan", ""):
            with pytest.raises(gi.InputError):
                gi.load(tmp_path / "x.pt", metrics=str(log))

    @pytest.mark.parametrize("name", ["²", "step_" + "9" * 30, "9" * 30])
    def test_odd_file_names(self, name, tiny_run, tmp_path):
        path = tmp_path / f"{name}.pt"
        torch.save({"model": tiny_run.weights(), "train_loss": 1.0, "epoch": 3}, path)
        for source in (path, tmp_path):
            with contextlib.suppress(gi.InputError):
                assert 0 <= gi.load(source).steps[0] < 2**53

    def test_nothing_of_them_reaches_a_terminal_raw(self, tiny_run, tmp_path):
        folder = tmp_path / "a\x1b[31mb"
        folder.mkdir()
        torch.save(tiny_run.weights(), folder / "x.pt")
        done = subprocess.run(
            [sys.executable, "-m", "grokinterp.cli", "info", folder / "x.pt"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "\x1b" not in done.stdout + done.stderr


def test_a_run_folder_of_pipes_and_devices_is_refused(tiny_run, tmp_path):
    for name in ("metrics.csv", "split.safetensors", "weights/step_00000060.safetensors"):
        for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
            folder = tmp_path / "run"
            shutil.copytree(tiny_run.path, folder)
            (folder / name).unlink()
            make(folder / name)
            with pytest.raises(gi.InputError, match=re.escape(str(folder / name))):
                gi.load(folder).verify()
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    "setting", [{"step": 2**53}, {"p": 10**400}, {"data_seed": 2**70, "split": "torch"},
                {"split": "search", "n_train": 10**6}, {"split": "search", "train_fraction": 1e-5},
                {"metrics": "http://localhost/x.csv"}],
)  # fmt: skip
def test_odd_settings_write_nothing(setting, tiny_run, tmp_path):
    torch.save(tiny_run.weights(), tmp_path / "x.pt")
    with pytest.raises((gi.InputError, FileNotFoundError)):
        gi.import_run(tmp_path / "x.pt", tmp_path / "deep" / "out", **setting)
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]
