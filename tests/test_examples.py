"""The notebooks as files, and the script; CI runs the notebooks themselves, top to bottom."""

import ast
import importlib.util
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest

import grokinterp as gi

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
MACHINE = re.compile(r"/(tmp|work|home|root|Users|mnt)/|[A-Z]:\\")
REPOSITORY = "github.com/grokinterp/grokinterp"
COLAB = "https://colab.research.google.com"
OF_RUNS = (
    "01_quick_start", "02_reverse_engineer", "05_grokked_versus_steady", "06_why_so_late",
    "07_geometry",
)  # fmt: skip


def python(source):
    """A cell with its %magics as calls, much as IPython reads it."""
    return re.sub(r"^( *)(%.*)$", r"\1get_ipython().run('\2')", source, flags=re.MULTILINE)


def sources(book, kind):
    return [cell.source for cell in book.cells if cell.cell_type == kind]


def test_the_index_names_every_example():
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    here = [path for path in EXAMPLES.iterdir() if path.name not in ("README.md", "__pycache__")]
    assert len(NOTEBOOKS) == 7
    for path in here:
        if not path.name.startswith("."):
            assert f"]({path.name}" in index, path.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebooks:
    def test_it_is_valid_and_stripped(self, path):
        text = path.read_text(encoding="utf-8")
        book = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
        nbformat.validate(book)
        assert (book.nbformat, book.nbformat_minor) >= (4, 5)
        assert book.metadata.kernelspec.name == "python3"
        assert set(book.metadata) == {"kernelspec", "language_info"}
        assert not MACHINE.search(text)
        for cell in book.cells:
            assert cell.metadata == {}
            if cell.cell_type == "code":
                assert cell.outputs == []
                assert cell.execution_count is None

    def test_cells_are_named_and_say_something(self, path):
        book = nbformat.read(path, as_version=4)
        ids = [cell.id for cell in book.cells]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(rf"{path.stem[:2]}-\d\d", name) for name in ids)
        assert all(cell.source.strip() for cell in book.cells)
        assert [cell.cell_type for cell in book.cells[:2]] == ["markdown", "code"]
        first = book.cells[0].source
        assert first.startswith(
            f"[![Open In Colab]({COLAB}/assets/colab-badge.svg)]"
            f"({COLAB}/{REPOSITORY.replace('.com', '')}/blob/main/examples/{path.name})\n\n# "
        )
        assert "pip install" in first
        assert "`checkpoints`" in first

    def test_each_section_has_a_control_and_the_reader_has_exercises(self, path):
        *_, last = texts = sources(nbformat.read(path, as_version=4), "markdown")
        every = "\n".join(texts).lower()
        for word in ("**claim.**", "**what to look for.**", "control"):
            assert every.count(word) >= 4, word
        exercises, found = (
            re.findall(rf"^{start}", last.split("## Exercises")[1], re.MULTILINE)
            for start in (r"\d\. ", r"   \*[^*]")
        )
        assert len(exercises) == len(found) in (3, 4)

    def test_it_sets_up_on_colab_and_nowhere_else(self, path, monkeypatch):
        cell = sources(nbformat.read(path, as_version=4), "code")[0]
        asked = []
        there = {"google", "google.colab", "grokinterp"}
        found = {"get_ipython": lambda: SimpleNamespace(run=asked.append)}
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: name if name in there else None
        )
        for gone in (
            "google.colab",
            "google",
        ):  # a machine of one's own, first with Google's others
            there.discard(gone)
            exec(python(cell), dict(found))
        there |= {"google", "google.colab"}
        exec(python(cell), dict(found))  # Colab, when the cell is run again
        assert asked == []
        there.discard("grokinterp")
        exec(python(cell), dict(found))
        install, *runs = asked
        assert install == f"%pip install -q git+https://{REPOSITORY}"
        if path.stem in OF_RUNS:
            assert runs == [
                f"%system git clone -q --depth 1 https://{REPOSITORY}", "%cd grokinterp/examples",
            ]  # fmt: skip
        else:
            assert runs == []

    def test_a_run_is_loaded_by_its_name(self, path):
        for code in sources(nbformat.read(path, as_version=4), "code"):
            assert "checkpoints/" not in code
            assert "../" not in code

    def test_it_compiles_and_uses_all_it_imports(self, path):
        code = "\n".join(map(python, sources(nbformat.read(path, as_version=4), "code")))
        tree = ast.parse(code)
        imported = {
            (alias.asname or alias.name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert imported <= used

    def test_its_links_lead_somewhere(self, path):
        for text in sources(nbformat.read(path, as_version=4), "markdown"):
            for target in re.findall(r"\]\(([^)]+)\)", text):
                if not target.startswith("https://"):
                    assert (EXAMPLES / target).exists(), target


@pytest.fixture(scope="module")
def script():
    path = EXAMPLES / "phases_of_a_folder.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(path.read_text().splitlines()) < 90
    return module


@pytest.fixture
def folder(tiny_run, shipped, tmp_path):
    """A run, the same as somebody else's file, curves that grok, and what nobody can read."""
    found = tmp_path / "runs"
    found.mkdir()
    shutil.copytree(tiny_run.path, found / "b run")
    gi.export(tiny_run, found / "c_demo.pth")
    shipped.metrics.to_csv(found / "a curves.csv", index=False)
    (found / "notes.txt").write_text("nothing")
    (found / "other.csv").write_text("count,loss\n1,2\n2,1\n")
    (found / ".hidden.csv").write_text("")
    damaged = shutil.copytree(tiny_run.path, found / "damaged")
    next(damaged.glob("weights/*")).write_bytes(b"damaged")
    return found


def command(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["phases_of_a_folder.py", *map(str, arguments)])
    return script.main()


def test_every_run_of_a_folder_is_dated(script, folder, tiny_run, shipped, monkeypatch, capsys):
    assert command(script, monkeypatch, folder, "--out", folder.parent / "table.csv") == 0
    said = capsys.readouterr()
    assert said.out == f"{folder.parent / 'table.csv'}: 3 runs\n"
    left_out = said.err.splitlines()
    assert len(left_out) == 3
    for line, name in zip(left_out, ("damaged", "notes.txt", "other.csv"), strict=True):
        assert line.startswith(f"left out: {name}: ")
    table = pd.read_csv(folder.parent / "table.csv").set_index("name")
    assert list(table.index) == ["a curves.csv", "b run", "c_demo.pth"]
    curves = gi.detect_phases(shipped.metrics)
    row = table.loc["a curves.csv"]
    assert (row.label, row.memorization_step, row.grok_step) == ("grokked", 170, 6070)
    assert [row.memorization_end, row.circuit_formation_end, row.cleanup_end] == [
        phase.end for phase in curves.phases
    ]
    assert pd.isna(row.key_frequencies)
    assert row.reason == curves.reasons[0]
    own = gi.detect_phases(tiny_run)
    assert own.key_frequencies == ()
    for name in ("b run", "c_demo.pth"):
        assert table.loc[name, "label"] == own.label
        assert table.loc[name, "key_frequencies"] == "none"
    assert pd.isna(table.loc["b run", "grok_step"])


def test_without_out_it_prints_the_table(script, shipped, tmp_path, monkeypatch, capsys):
    shipped.metrics.to_csv(tmp_path / "curves.csv", index=False)
    assert command(script, monkeypatch, tmp_path) == 0
    header, row, *rest = capsys.readouterr().out.splitlines()
    assert header == ",".join(script.COLUMNS)
    assert row.startswith("curves.csv,grokked,170,6070,1350,5160,8270,,")
    assert not rest


def test_key_frequencies_are_one_cell(script, shipped, monkeypatch):
    found = replace(gi.detect_phases(shipped.metrics), key_frequencies=(9, 18))
    monkeypatch.setattr(script.gi, "detect_phases", lambda run: found)
    row = script.row(shipped.path)
    assert row["key_frequencies"] == "9 18"
    assert row["name"] == "mod113-grokked"


def test_what_holds_nothing_is_bad_input(script, tmp_path, monkeypatch, capsys):
    for path, why in ((tmp_path, "no run that can be read"), (tmp_path / "none", "not a folder")):
        assert command(script, monkeypatch, path) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert why in said.err
        assert said.err.count("\n") == 1


def test_names_that_are_not_utf8_and_pipes_cost_no_other_row(
    script, shipped, tmp_path, monkeypatch, capsys
):
    for name in (b"a\xff.csv", b"b  c.csv"):
        shipped.metrics.to_csv(os.fsdecode(os.fsencode(tmp_path) + b"/" + name), index=False)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff.csv")).write_text("epoch\n")
    os.mkfifo(tmp_path / "pipe.csv")
    assert command(script, monkeypatch, tmp_path) == 0
    said = capsys.readouterr()
    _, *rows = said.out.splitlines()
    assert [row.split(",")[0] for row in rows] == ["a\\xff.csv", "b  c.csv"]
    damaged, pipe = said.err.splitlines()
    assert damaged.startswith("left out: d\\xff.csv: ")
    assert "\\xff.csv" in damaged.removeprefix("left out: d\\xff.csv: ") or "step" in damaged
    assert pipe == "left out: pipe.csv: neither a file nor a folder."


def test_a_run_given_itself_is_dated(script, tiny_run, monkeypatch, capsys):
    monkeypatch.chdir(tiny_run.path)
    assert command(script, monkeypatch, ".") == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.split(",")[:2] == [tiny_run.path.name, gi.detect_phases(tiny_run).label]


def test_it_can_be_interrupted(script, tmp_path, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "table", stop)
    assert command(script, monkeypatch, tmp_path) == 130
