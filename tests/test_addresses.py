"""What lies at an address of fsspec is copied, and read as the same files on disk are."""

import http.server
import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import fsspec
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.reading.addresses import local_copy
from tests import clock
from tests.conftest import SHIPPED
from tests.foreign import in_parts

P, KEYS = 31, (2, 5, 13)
TASK = gi.ModularTask("add", P)
MASK = torch.rand(P * P, generator=torch.Generator().manual_seed(0)) < 0.4
WEIGHTS = clock.clock_weights(P, KEYS, 10.0)


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def folder(tmp_path):
    """Files of three checkpoints, and what lies beside them."""
    for step in (100, 200, 300):
        torch.save({"model": WEIGHTS, "step": step}, tmp_path / f"step_{step}.pt")
    (tmp_path / "config.json").write_text(json.dumps({"p": P, "operation": "add"}))
    rows = MASK.nonzero().flatten().tolist()
    (tmp_path / "step_200.json").write_text(json.dumps({"train_indices": rows}))
    table = pd.DataFrame({"step": [0, 100, 200, 300], "test_acc": [0.1, 0.5, 0.75, 1.0]})
    table.to_csv(tmp_path / "metrics.csv", index=False)
    (tmp_path / "optimizer.pt").write_bytes(b"no pickle")
    (tmp_path / "README.md").write_text("# mine")
    (tmp_path / ".hidden.pt").write_bytes(b"no pickle")
    return tmp_path


@pytest.fixture
def recorded(tmp_path):
    architecture = clock.clock_architecture(P, 3)
    with gi.Watch(tmp_path / "run", task=TASK, train_mask=MASK, every=1) as watch:
        for step in range(3):
            watch(step, architecture.hooked(WEIGHTS))
    return tmp_path / "run"


def put(system, folder, where):
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{where}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def test_the_configuration_of_hydra_is_copied(memory, folder):
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("p: 1009")
    put(memory, folder, "/mine")
    with pytest.raises(gi.InputError, match="p=1009"):
        gi.load("memory://mine")


class TestRuns:
    @pytest.mark.parametrize("address", ["memory://runs/mine", Path("memory://runs/mine")])
    def test_a_run_folder(self, address, memory, recorded):
        put(memory, recorded, "/runs/mine")
        found, there = gi.load(address), gi.load(recorded)
        found.verify()
        assert found.path.name == "mine"
        assert found.path.is_absolute()
        assert found.steps == there.steps
        pd.testing.assert_frame_equal(found.metrics, there.metrics)
        pd.testing.assert_frame_equal(found.measures, there.measures)
        assert torch.equal(found.snapshot().logits, there.snapshot().logits)
        assert gi.key_frequencies(address).frequencies == KEYS
        assert gi.detect_phases(address).label == gi.detect_phases(recorded).label

    def test_an_unfinished_run_without_what_resumes_it(self, memory, recorded):
        put(memory, recorded, "/runs/mine")
        memory.pipe_file("/runs/mine/resume.safetensors", b"x" * 1000)
        memory.pipe_file("/runs/mine/.lock", b"{}")
        path = gi.load("memory://runs/mine").path
        assert sorted(x.name for x in path.iterdir()) == sorted(
            x.name for x in recorded.iterdir() if x.name != ".lock"
        )

    def test_damage_is_told_by_the_address(self, memory, recorded):
        put(memory, recorded, "/runs/mine")
        memory.pipe_file("/runs/mine/run.json", b"{}")
        with pytest.raises(gi.InputError, match=r"^memory://runs/mine/run\.json is damaged"):
            gi.load("memory://runs/mine")

    def test_what_is_put_there_later_is_seen(self, memory, recorded):
        put(memory, recorded, "/runs/mine")
        first = gi.load("memory://runs/mine")
        assert gi.load("memory://runs/mine").path == first.path  # nothing has changed
        with gi.Recorder(recorded, task=TASK, train_mask=MASK, resume=True) as recorder:
            recorder.save(7, clock.clock_architecture(P, 3).hooked(WEIGHTS))
        put(memory, recorded, "/runs/mine")
        assert gi.load("memory://runs/mine").steps == (0, 1, 2, 7)
        assert first.steps == (0, 1, 2)
        first.verify()


class TestOfOthers:
    def test_a_file_with_what_belongs_to_it(self, memory, folder):
        put(memory, folder, "/theirs")
        found, there = gi.load("memory://theirs/step_200.pt"), gi.load(folder / "step_200.pt")
        assert found.notes == ("copied from memory://theirs/step_200.pt", *there.notes)
        assert found.steps == (200,)
        assert torch.equal(found.train_mask, MASK)
        pd.testing.assert_frame_equal(found.metrics, there.metrics)
        assert sorted(x.name for x in found.path.parent.iterdir()) == [
            "config.json", "metrics.csv", "step_200.json", "step_200.pt"
        ]  # fmt: skip

    def test_a_folder_of_checkpoints(self, memory, folder, tmp_path):
        put(memory, folder, "/theirs")
        found = gi.load("memory://theirs")
        assert found.steps == (100, 200, 300)
        assert found.notes[0] == "copied from memory://theirs"
        assert not [note for note in found.notes if "optimizer" in note]
        assert not [x for x in found.path.iterdir() if x.name in ("optimizer.pt", "README.md")]
        run = gi.import_run("memory://theirs", tmp_path / "imported")
        assert run.notes[0] == "copied from memory://theirs"
        assert gi.load(tmp_path / "imported").steps == (100, 200, 300)

    def test_a_log(self, memory, folder):
        put(memory, folder, "/theirs")
        found = gi.detect_phases("memory://theirs/metrics.csv")
        assert found.to_dict() == gi.detect_phases(folder / "metrics.csv").to_dict()

    def test_the_command_line(self, memory, folder, run, tmp_path):
        """Which is in this process here, as the place is."""
        put(memory, folder, "/theirs")
        put(memory, SHIPPED, "/runs/mine")
        status, out, err = run("info", "memory://theirs/step_300.pt")
        assert (status, err) == (0, "")
        assert "- copied from memory://theirs/step_300.pt" in out
        status, out, _ = run("phases", "memory://theirs/metrics.csv", "--json")
        assert status == 0
        assert json.loads(out)["key_frequencies"] is None
        status, out, _ = run("measure", "memory://theirs", "--json")
        assert json.loads(out)["run"] == "memory://theirs"
        status, out, _ = run("import", "memory://theirs", "--out", tmp_path / "imported")
        assert status == 0
        status, out, err = run("info", "memory://nowhere")
        assert (status, out) == (2, "")
        assert err.startswith("grokinterp: memory://nowhere does not exist")
        assert err.count("\n") == 1
        status, _, err = run("report", "memory://runs/mine", "--out", "memory://x.html")
        assert status == 2
        assert "writes to folders of this machine alone" in err


class TestOtherProtocols:
    def test_a_file_of_this_machine_is_not_copied(self, recorded):
        run = gi.load(f"file://{recorded}")
        assert run.path == recorded
        assert gi.load(Path(f"file://{recorded}")).path == recorded
        with pytest.raises(gi.InputError, match="does not exist"):
            gi.load(f"file://{recorded}/nothing")

    @pytest.fixture
    def served(self, folder):
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                if self.path.startswith("/private"):
                    self.send_error(403)
                else:
                    super().do_GET()

        handler = partial(Quiet, directory=folder)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    def test_a_file_in_the_web_comes_alone(self, served):
        run = gi.load(f"{served}/step_300.pt?download=true&sig=secret")
        assert run.steps == (300,)
        assert run.notes[0] == f"copied from {served}/step_300.pt"
        assert [x.name for x in run.path.parent.iterdir()] == ["step_300.pt"]
        assert gi.load(f"{served}/step_300.pt?download=true&sig=secret").path == run.path
        assert gi.detect_phases(f"{served}/metrics.csv").label
        for where, message in (
            ("nothing.pt?sig=secret", "nothing.pt does not exist, or is not shown"),
            ("private.pt?sig=secret", "private.pt may not be read"),
            ("", "is an HTML page"),
        ):
            with pytest.raises(gi.InputError, match=message) as error:
                gi.load(f"{served}/{where}")
            assert "secret" not in str(error.value)

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("nowhere://a/b", "fsspec knows no protocol 'nowhere'"),
            ("memory://a/b.pt", "memory://a/b.pt does not exist"),
            ("http://127.0.0.1:9/x.pt", "check the address, your access and the network"),
            ("memory://" + "a" * 3000, "does not exist"),
            ("memory://a\x00b", "has a character that no path has"),
        ],
    )
    def test_what_cannot_be_read_is_one_line(self, address, message, memory):
        for look in (gi.load, gi.detect_phases, gi.key_frequencies):
            with pytest.raises(gi.InputError, match=message) as error:
                look(address)
            assert len(str(error.value)) <= 400
            assert str(error.value).isprintable()

    def test_too_much_is_refused_before_it_is_copied(self, memory, folder, monkeypatch):
        put(memory, folder, "/theirs")
        monkeypatch.setattr("grokinterp.reading.addresses.MOST_BYTES", 1000)
        with pytest.raises(gi.InputError, match="at most 20000 of 0 GB are copied; give one run"):
            gi.load("memory://theirs")

    def test_a_name_on_disk_is_no_address(self, tmp_path, monkeypatch, recorded):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "runs:").mkdir()
        recorded.rename(tmp_path / "runs:/mine")
        assert gi.load("runs:/mine").steps == (0, 1, 2)
        assert local_copy("plain/path") == "plain/path"


def test_nothing_is_imported_or_left_behind_for_a_path():
    """Another process: a plain load without fsspec, a missing package, its end."""
    code = f"""
import sys, grokinterp as gi
gi.load({str(SHIPPED)!r}).metrics
assert "fsspec" not in sys.modules
sys.modules["huggingface_hub"] = None
try:
    gi.load("hf://user/repo")
except gi.InputError as error:
    assert "pip install 'grokinterp[hub]'" in str(error) and len(str(error)) <= 400, error
import fsspec
fsspec.filesystem("memory").put({str(SHIPPED)!r} + "/", "/run", recursive=True)
print(gi.load("memory://run").path)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    copy = Path(done.stdout.strip())
    assert done.stderr == ""
    assert copy.parent.parent.name.startswith("grokinterp-copies-")
    assert not copy.parent.parent.exists()


class TestDeeperAndInParts:
    def test_the_root_of_a_project_of_lightning(self, memory, tmp_path):
        file = tmp_path / "m.ckpt"
        torch.save({"state_dict": WEIGHTS, "global_step": 100, "hyper_parameters": {"p": P}}, file)
        where = "/project/lightning_logs/version_0/checkpoints/epoch=0-step=100.ckpt"
        memory.pipe(where, file.read_bytes())
        assert gi.load("memory://project").steps == (100,)

    def test_an_index_has_its_parts_copied(self, memory, tmp_path):
        index = in_parts(WEIGHTS, tmp_path, "safetensors")
        for file in tmp_path.iterdir():
            memory.pipe(f"/parts/{file.name}", file.read_bytes())
        memory.pipe("/parts/other-00001-of-00002.safetensors", b"of another")
        run = gi.load(f"memory://parts/{index.name}")
        assert torch.equal(run.weights()["embed.W_E"], WEIGHTS["embed.W_E"])
        assert not (run.path.parent / "other-00001-of-00002.safetensors").exists()

    def test_sizes_that_are_text(self, memory, tmp_path, monkeypatch):
        torch.save({"model": WEIGHTS, "step": 100}, tmp_path / "m.pt")
        memory.pipe("/text/m.pt", (tmp_path / "m.pt").read_bytes())
        plain = type(memory).info

        def info(self, path, **given):
            about = plain(self, path, **given)
            return about | {"size": str(about["size"])} if about["type"] == "file" else about

        monkeypatch.setattr(type(memory), "info", info)
        assert gi.load("memory://text/m.pt").steps == (100,)
