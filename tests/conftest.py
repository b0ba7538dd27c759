import sys
import warnings
from pathlib import Path

import pytest

import grokinterp as gi

with warnings.catch_warnings():  # third-party imports, before warnings become errors
    warnings.simplefilter("ignore")
    import transformer_lens  # noqa: F401

SHIPPED = Path(__file__).parent.parent / "checkpoints" / "mod113-grokked"


@pytest.fixture(scope="session")
def shipped() -> gi.Run:
    return gi.load(SHIPPED)


@pytest.fixture(scope="session")
def shipped_measures(shipped):
    return gi.progress_measures(shipped)


@pytest.fixture(scope="session")
def shipped_report(shipped, tmp_path_factory):
    return gi.report(shipped, tmp_path_factory.mktemp("report") / "shipped.html")


@pytest.fixture(scope="session")
def tiny() -> gi.Recipe:
    """A run of a second: p = 7, mechanics only."""
    return gi.Recipe(
        p=7, d_model=16, n_heads=2, d_head=8, d_mlp=32, steps=60, checkpoints="every:20",
        train_fraction=0.5, lr=1e-2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_run(tiny, tmp_path_factory) -> gi.Run:
    return gi.train(tiny, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def mod31(tmp_path_factory) -> dict[str, gi.Run]:
    """The two small built-in runs, trained here."""
    folder = tmp_path_factory.mktemp("mod31")
    return {name: gi.train(name, folder / name) for name in ("mod31-grokked", "mod31-steady")}


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in this process: exit status, standard output, standard error."""

    from grokinterp import cli

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["grokinterp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return command
