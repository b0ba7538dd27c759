import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

import grokinterp as gi
from tests.conftest import SHIPPED

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time


def test_phases_prints_one_json_object(run):
    status, out, err = run("phases", SHIPPED, "--json", "--expect", "grokked")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert found["label"] == "grokked"
    assert [phase["name"] for phase in found["phases"]] == [
        "memorization", "circuit_formation", "cleanup"
    ]  # fmt: skip
    assert set(found["phases"][0]) == {"name", "start", "end", "end_interval"}
    assert found["memorization_step"] < found["grok_step"]
    assert len(found["key_frequencies"]) >= 3
    assert isinstance(found["reasons"], list)


def test_phases_for_people(run):
    status, out, _ = run("phases", SHIPPED)
    assert status == 0
    for word in ("grokked", "circuit_formation", "restricted_loss", "excluded_loss", "12000"):
        assert word in out


def test_expect_that_does_not_hold(run):
    status, out, err = run("phases", SHIPPED, "--json", "--expect", "steady")
    assert status == 3
    assert json.loads(out)["label"] == "grokked"
    assert err == "grokinterp: the label is 'grokked', expected 'steady'\n"


def test_phases_of_a_csv(run, shipped, tmp_path):
    path = tmp_path / "curves.csv"
    shipped.metrics.to_csv(path, index=False)
    status, out, _ = run("phases", path, "--json")
    assert status == 0
    assert json.loads(out)["key_frequencies"] is None


@pytest.mark.slow
def test_measure_writes_a_csv(run, tmp_path):
    out = tmp_path / "measures.csv"
    status, _, _ = run("measure", SHIPPED, "--out", out)
    assert status == 0
    written = pd.read_csv(out)
    assert len(written) == 26
    status, printed, _ = run("measure", SHIPPED)
    assert printed == out.read_text()


def test_version(run):
    assert run("--version") == (0, "grokinterp 0.2.0\n", "")
    assert run()[0] == 2  # no command: the help, as bad input


def test_info(run):
    status, out, _ = run("info", SHIPPED, "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["recipe"]["data_seed"] == 598
    assert facts["finished"] is True
    status, out, _ = run("info", SHIPPED)
    assert "all files are whole" in out


def test_recipes(run):
    status, out, _ = run("recipes")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "mod113-grokked", "mod113-half-grokked", "mod113-steady",
        "mlp113-grokked", "mlp113-steady", "ising-grokked", "ising-steady",
        "mod97-divide", "nanda-mainline", "mod113-memorized", "mod31-grokked", "mlp31",
        "mod31-small", "mod31-steady", "mod11-quick",
    ]  # fmt: skip
    status, out, _ = run("recipes", "mod31-steady")
    assert "init_scale = 0.3" in out


def test_train_and_resume(run, tmp_path):
    command = ("train", "mod11-quick", "--out", tmp_path / "run", "--set", "steps=20")
    status, out, err = run(*command)
    assert status == 0
    assert "test accuracy" in out
    status, _, err = run(*command)
    assert (status, "already holds a run" in err) == (2, True)
    assert run(*command, "--resume")[0] == 0


SWEEP = """
recipe = "mod11-quick"
measures = ["sizes"]
[set]
d_mlp = 16
d_model = 8
n_heads = 1
steps = 20
checkpoints = [0]
[[axes]]
seed = [0, 1]
"""


def test_sweep_goes_on_where_it_is(run, tmp_path):
    (tmp_path / "sweep.toml").write_text(SWEEP)
    out = tmp_path / "out"
    command = ("sweep", tmp_path / "sweep.toml", "--out", out)
    status, printed, err = run(*command)
    assert (status, err) == (0, "")
    table = pd.read_csv(out / "results.csv")
    assert list(table.run) == ["seed=0", "seed=1"]
    assert {"label", "t_test", "test_loss", "gini_weights", "bytes"} <= set(table)
    first, second, last = printed.splitlines()
    assert first.startswith(f"{out / 'seed=0'}: {table.label[0]}, train loss ")
    assert f"test loss {table.test_loss[1]:.3g}" in second
    assert last == f"{out / 'results.csv'}: 2 runs, {len(table.columns)} columns"
    assert run(*command) == (0, f"{last}\n", "")
    (tmp_path / "sweep.toml").write_text(SWEEP.replace("[0, 1]", "[0, 1, 2]"))
    status, printed, _ = run(*command)
    assert [line.split(":")[0] for line in printed.splitlines()] == [
        str(out / "seed=2"), str(out / "results.csv")
    ]  # fmt: skip


def test_a_sweep_with_failed_runs_says_how_many_and_exits_2(run, tmp_path):
    text = SWEEP.replace(
        "seed = [0, 1]", 'lr = [0.001, 1e30, 2e30]\noptimizer = ["adamw", "sgd", "sgd"]'
    )
    (tmp_path / "sweep.toml").write_text(text)
    out = tmp_path / "out"
    command = ("sweep", tmp_path / "sweep.toml", "--out", out, "--figure", tmp_path / "page.html")
    status, printed, err = run(*command)
    assert status == 2
    assert re.fullmatch(
        r"grokinterp: 2 of 3 runs failed, lr=1e\+30: .*weight '.*' is not finite.*; see the "
        rf"column note of {out}/results.csv\.\n",
        err,
    )
    assert len(err) < 400
    lines = printed.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        f"{out}/lr=0.001", f"{out}/lr=1e+30", f"{out}/lr=2e+30"
    ]  # fmt: skip
    assert lines[1].startswith(f"{out}/lr=1e+30: failed, ")
    assert lines[3].startswith(f"{out}/results.csv: 3 runs")
    assert "see the table" in (tmp_path / "page.html").read_text()
    table = pd.read_csv(out / "results.csv")
    assert table.note.isna().tolist() == [True, False, False]
    (tmp_path / "sweep.toml").write_text(
        SWEEP.replace("seed = [0, 1]", 'lr = [1e30]\noptimizer = ["sgd"]')
    )
    status, printed, err = run("sweep", tmp_path / "sweep.toml", "--out", tmp_path / "all")
    assert (status, len(err.splitlines())) == (2, 1)
    assert err.startswith("grokinterp: 1 of 1 runs failed, lr=1e+30: ")


def test_a_note_alone_is_no_failure(run, tmp_path):
    """The peak of compressibility is not defined where no checkpoint has learnt the test inputs."""
    (tmp_path / "sweep.toml").write_text(SWEEP.replace("sizes", "compressibility_peak"))
    status, _, err = run("sweep", tmp_path / "sweep.toml", "--out", tmp_path / "out")
    assert status == 0
    table = pd.read_csv(tmp_path / "out/results.csv")
    assert table.label.notna().all()
    n = table.note.notna().sum()
    assert n > 0
    has = "has" if n == 1 else "have"
    where = f"see the column note of {tmp_path}/out/results.csv."
    assert err == f"grokinterp: {n} of 2 runs {has} a note: {where}\n"


BAD = {
    "no such folder": (("phases", "nowhere"), "nowhere does not exist"),
    "not a run": (("phases", "{tmp}"), "is not a run"),
    "damaged": (("phases", "{damaged}"), "step_00000400.safetensors"),
    "damaged info": (("info", "{damaged}"), "step_00000400.safetensors"),
    "unknown recipe": (("train", "mod31-groked", "--out", "{tmp}/x"), "'mod31-grokked'"),
    "unknown key": (
        ("train", "mod11-quick", "--out", "{tmp}/x", "--set", "trian_fraction=0.5"),
        "did you mean 'train_fraction'",
    ),
    "p of 1": (("train", "mod11-quick", "--out", "{tmp}/x", "--set", "p=1"), "p=1"),
    "fraction of 0": (
        ("train", "mod11-quick", "--out", "{tmp}/x", "--set", "train_fraction=0"),
        "train_fraction=0",
    ),
    "fraction of 1.5": (
        ("train", "mod11-quick", "--out", "{tmp}/x", "--set", "train_fraction=1.5"),
        "train_fraction=1.5 is not between 0 and 1",
    ),
    "held folder": (("train", "mod11-quick", "--out", "{damaged}"), "already holds a run"),
    "no usable column": (("phases", "{tmp}/no_column.csv"), "no column 'step'"),
    "no rows": (("phases", "{tmp}/no_rows.csv"), "no rows"),
    "empty": (("phases", "{tmp}/empty.csv"), "is empty"),
    "binary": (("phases", "{tmp}/binary.csv"), "binary.csv"),
    "no sweep": (("sweep", "{tmp}/x.toml", "--out", "{tmp}/x"), "x.toml does not exist"),
    "a sweep of nothing": (("sweep", "{tmp}/empty.csv", "--out", "{tmp}/x"), "is empty"),
    "unknown measure": (("sweep", "{tmp}/sizs.toml", "--out", "{tmp}/x"), "did you mean 'sizes'"),
    "not a table": (("sweep", "{tmp}/s.toml", "--out", "{tmp}/held"), "has other columns"),
    "wrong label": (("phases", "{damaged}", "--expect", "groked"), "did you mean 'grokked'"),
    "no command": (("phase",), "phase"),
    "no argument": (("phases",), "RUN_OR_LOG"),
    "an address": (
        ("train", "mod11-quick", "--out", "http://x.org/a/b"),
        "http://x.org/a/b is an address",
    ),
    "an address to report to": (
        ("report", "{whole}", "--out", "s3://x/b.html"),
        "s3://x/b.html is an address",
    ),
    "an address to measure to": (("measure", "{whole}", "--out", "hf://x/b"), "hf://x/b is an"),
    "an address to ablate to": (("ablate", "{whole}", "--out", "http://x/b"), "http://x/b is an"),
    "an address to import to": (("import", "{whole}", "--out", "gs://x/b"), "gs://x/b is an"),
    "an address to export to": (
        ("export", "{whole}", "--out", "file:///x/b"),
        "file:///x/b is an address",
    ),
    "an address to compare to": (
        ("compare", "{whole}", "{whole}", "--out", "https://x/b.html"),
        "https://x/b.html is an",
    ),
    "an address for a figure": (
        ("sweep", "{tmp}/s.toml", "--out", "{tmp}/y", "--figure", "https://x/b"),
        "https://x/b is",
    ),
    "a sweep into the web": (
        ("sweep", "{tmp}/s.toml", "--out", "https://x/b"),
        "https://x/b can only be read",
    ),
    "a sweep into an unknown protocol": (
        ("sweep", "{tmp}/s.toml", "--out", "nix://x/b"),
        "nix://x/b cannot be used",
    ),
    "a folder as a file": (
        ("measure", "{whole}", "--out", "{tmp}"),
        "is a folder; give the name of a file",
    ),
    "a file as a folder": (
        ("train", "mod11-quick", "--out", "{tmp}/s.toml"),
        "is a file; give a folder",
    ),
    "no folder for the csv": (("measure", "{whole}", "--out", "/proc/x/m.csv"), "/proc/x"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_2(name, run, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(SHIPPED, damaged)
    path = damaged / "weights/step_00000400.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (tmp_path / "no_column.csv").write_text("count,test_acc\n1,1\n2,1\n")
    (tmp_path / "no_rows.csv").write_text("step,test_acc\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "s.toml").write_text(SWEEP)
    (tmp_path / "sizs.toml").write_text(SWEEP.replace("sizes", "sizs"))
    (tmp_path / "held").mkdir()
    (tmp_path / "held/results.csv").write_text("mine\n")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 4)
    arguments, message = BAD[name]
    filled = [a.format(tmp=tmp_path, damaged=damaged, whole=SHIPPED) for a in arguments]
    status, out, err = run(*filled)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err


USAGE = {
    "no option": (
        ("train", "mod11-quick"), "Missing option '--out'. Try 'grokinterp train --help'.",
    ),
    "no argument": (("sweep",), "Missing argument 'SWEEP.toml'. Try 'grokinterp sweep --help'."),
    "no such option": (("info", "x", "--jsn"), "No such option: --jsn (Possible options: --json). "
        "Try 'grokinterp info --help'."),
    "no value": (("measure", "x", "--out"), "Option '--out' requires an argument. Try 'grokinterp "
        "measure --help'."),
    "not a number": (
        ("ablate", "x", "--step", "q"), "(given: 'q'). Try 'grokinterp ablate --help'.",
    ),
    "too many": (("info", "x", "y"), "(y). Try 'grokinterp info --help'."),
    "no such command": (("phase",), "Did you mean 'phases'? Try 'grokinterp --help'."),
    "no such first option": (("--verson",), "Try 'grokinterp --help'."),
}  # fmt: skip


@pytest.mark.parametrize("name", USAGE)
def test_a_usage_error_names_the_help_of_its_command(name, run):
    arguments, message = USAGE[name]
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("grokinterp: ")
    assert err.endswith(f"{message}\n")


def test_a_bug_is_seen(run, monkeypatch):
    """What is nobody's input is not made a line of."""
    from grokinterp.recipe import builtin

    def broken(name):
        raise KeyError(name)

    monkeypatch.setattr(builtin, "find_recipe", broken)
    with pytest.raises(KeyError):
        run("recipes", "mod11-quick")


def test_help_is_quick_and_imports_no_torch():
    code = (
        "import sys; sys.argv = ['grokinterp', '--help']\n"
        "from grokinterp import cli\n"
        "try: cli.main()\n"
        "finally: print('torch' in sys.modules, 'transformer_lens' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.stdout.splitlines()[-1] == "False False"


def test_what_cannot_be_analysed_is_refused_in_one_line():
    """In a process of its own: here the type checker would speak first."""
    code = (
        "import grokinterp as gi\n"
        "for function in (gi.key_frequencies, gi.detect_phases):\n"
        "    try: function(3)\n"
        "    except gi.InputError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    first, second = result.stdout.splitlines()
    assert first.startswith("3 is not something to analyse; give a run")
    assert second.startswith("3 has no phases; give a run")


@pytest.mark.slow
def test_ctrl_c_saves_says_how_to_resume_and_exits_130(tmp_path):
    command = [
        sys.executable, "-m", "grokinterp.cli", "train", "mod11-quick", "--out", tmp_path / "run",
        "--set", "checkpoints=every:10", "--set", "steps=100000",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while len(list((tmp_path / "run").glob("weights/step_*"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(err.splitlines()) == 1
    assert "nothing is lost" in err
    assert "--resume" in err
    assert (tmp_path / "run/resume.safetensors").exists()


def test_ctrl_c_before_the_command_has_begun(run, monkeypatch):
    from grokinterp.cli import streams

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(streams, "write_any_text", interrupted)
    status, out, err = run("recipes")
    assert (status, out) == (130, "")
    assert err.startswith("grokinterp: interrupted;")
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_in_a_sweep(tmp_path):
    (tmp_path / "sweep.toml").write_text(SWEEP.replace("steps = 20", "steps = 100000"))
    command = [
        sys.executable, "-m", "grokinterp.cli", "sweep", tmp_path / "sweep.toml",
        "--out", tmp_path / "out",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out/seed=0/run.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("grokinterp: stopped at seed=0, with 0 of 2 runs in the table; nothing")
    assert len(err.splitlines()) == 1
    assert (tmp_path / "out/seed=0/resume.safetensors").exists()


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error():
    code = f"{sys.executable} -m grokinterp.cli measure {SHIPPED} | head -c 10"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", code], check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "text",
    [
        "step, train_acc , test_acc\n0,0,0\n10,1,0\n",
        "\ufeffstep,train_acc,test_acc\r\n0,0,0\r\n10,1,0\r\n",
        "step,train_acc,test_acc,note\n0,0,0,a\n10,1,0,b\n",
        "test_acc,step,train_acc\n0,0.0,0\n0,1e1,1\n",
    ],
)
def test_csv_files_as_people_write_them(text, run, tmp_path):
    path = tmp_path / "curves.zip"  # the name says nothing about the content
    path.write_text(text, newline="")
    status, out, _ = run("phases", path, "--json")
    assert status == 0
    assert json.loads(out)["memorization_step"] == 10


@pytest.mark.parametrize(
    "text",
    [
        "step,train_acc\n0,0,0,0\n",
        "step,train_acc,excluded_loss\n0,0,abc\n",
        "step,train_acc\n1e30,0\n",
        "step,train_acc\n0,nan\n",
        "step;train_acc\n0;one\n",
    ],
)
def test_csv_files_that_cannot_be_used(text, run, tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text(text)
    status, out, err = run("phases", path, "--json")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_key_frequencies(run):
    status, out, err = run("key-frequencies", "mod31-small", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["frequencies"] == [1, 8, 14]
    assert found["run"] == "mod31-small"
    status, out, _ = run("key-frequencies", "mod31-small", "--step", 0)
    assert status == 0
    assert out == f"{gi.key_frequencies('mod31-small', step=0)}\n"
    status, _, err = run("key-frequencies", "mod31-small", "--rule", "logit")
    assert status == 2
    assert "did you mean 'logits'" in err


def test_plot(run, tmp_path):
    page = tmp_path / "a.html"
    status, out, err = run(
        "plot", "embedding-circles", "mod31-small", "--step", "all", "--out", page
    )
    assert (status, err) == (0, "")
    assert out.startswith(f"{page}: ")
    assert "Plotly.newPlot" in page.read_text()
    status, out, _ = run("plot", "neurons", "mod31-small", "--set", "neurons=[3]", "--out", page)
    assert status == 0
    for arguments, says in (
        (("embeding_spectrum", "mod31-small"), "did you mean 'embedding_spectrum'"),
        (("neurons", "mod31-small", "--set", "neuros=3"), "did you mean 'neurons'"),
        (("phases", "nowhere"), "nowhere does not exist"),
    ):
        status, out, err = run("plot", *arguments, "--out", page)
        assert (status, out) == (2, "")
        assert says in err
    status, _, err = run("plot", "phases", "mod31-small", "--out", tmp_path / "a.doc")
    assert status == 2
    assert ".svg" in err


def test_the_text_of_a_result_is_what_its_command_prints(run):
    _, out, _ = run("phases", "mod31-small")
    told = str(gi.detect_phases("mod31-small"))
    assert out.startswith(told.replace("Phases: ", "mod31-small: "))
    _, out, _ = run("verify", "mod31-small", "--steps", 50)
    assert out.strip() == f"mod31-small: {gi.verify('mod31-small', steps=50)}"
