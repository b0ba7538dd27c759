from __future__ import annotations  # nothing of the package is imported before its checks

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from filelock import FileLock

if "PYTEST_XDIST_WORKER" in os.environ:  # one core for every worker, and for what it starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import jaxtyping
import torch

import grokinterp as gi
from tests import typecheck

NO_SHAPES = jaxtyping.config.jaxtyping_disable  # JAXTYPING_DISABLE=1, for all tests


def pytest_configure(config):
    typecheck.install()
    if config.getoption("dist", "no") == "no":  # not in the process that only hands out tests
        with warnings.catch_warnings():  # third-party imports, before warnings become errors
            warnings.simplefilter("ignore")
            import transformer_lens  # noqa: F401


@pytest.hookimpl(tryfirst=True)  # before fixtures of any scope
def pytest_runtest_setup(item):
    """Checks of shapes are off where a test, or its module, is marked so: as for users."""
    unchecked = item.get_closest_marker("shapes_unchecked") is not None
    jaxtyping.config.update("jaxtyping_disable", unchecked or NO_SHAPES)


def grokinterp(*arguments):
    """A command in a process of its own: without the type checks of this one, in half the time."""
    subprocess.run(
        [sys.executable, "-m", "grokinterp.cli", *map(str, arguments)],
        check=True,
        capture_output=True,
    )


@functools.cache
def _package() -> str:
    """A digest of this package's files: what they made is made again after every change to them."""
    found = hashlib.sha256(torch.__version__.encode())
    for file in sorted(Path(gi.__file__).parent.rglob("*")):
        if file.is_file() and file.suffix != ".pyc":
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


def made_once(config, name, make):
    """A folder that `make` fills, for all workers and for later suites with the same package."""
    root = Path(config.cache.mkdir(f"made-{_package()}"))
    folder, begun = root / name, root / f"{name}.begun"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            for old in root.parent.glob("made-*"):
                if old != root:
                    shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(begun, ignore_errors=True)  # of a worker that failed
            begun.mkdir()
            make(begun)
            begun.rename(folder)
    return folder


SHIPPED = Path(__file__).parent.parent / "checkpoints" / "mod113-grokked"


@pytest.fixture(scope="session")
def shipped() -> gi.Run:
    return gi.load(SHIPPED)


@pytest.fixture(scope="session")
def shipped_measures(shipped):
    return gi.progress_measures(shipped)


@pytest.fixture(scope="session")
def shipped_report(pytestconfig):
    def make(folder):
        grokinterp("report", SHIPPED, "--out", folder / "shipped.html")

    return made_once(pytestconfig, "shipped-report", make) / "shipped.html"


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
def mod31(pytestconfig) -> dict[str, gi.Run]:
    """The two small built-in runs, trained here to where all their phases are over."""
    names = ("mod31-grokked", "mod31-steady")

    def make(folder):
        for name in names:
            grokinterp("train", name, "--set", "steps=1000", "--out", folder / name)

    folder = made_once(pytestconfig, "mod31", make)
    return {name: gi.load(folder / name) for name in names}


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


@contextlib.contextmanager
def kinds_forgotten():
    """Kinds that are registered within are forgotten after it."""
    from grokinterp.claims import CLAIMS
    from grokinterp.models.foreign_names import LAYOUTS
    from grokinterp.progress import MEASURES
    from grokinterp.reading.logs.formats import LOG_FORMATS
    from grokinterp.recipe.keys import REGISTRIES
    from grokinterp.reporting.panels import PANELS
    from grokinterp.tasks import OPERATIONS

    registries = (*REGISTRIES.values(), OPERATIONS, MEASURES, CLAIMS, PANELS, LOG_FORMATS, LAYOUTS)
    before = [set(registry) for registry in registries]
    yield
    for registry, known in zip(registries, before, strict=True):
        for name in set(registry) - known:
            del registry[name]


@pytest.fixture
def passing():
    """Kinds that a test registers are forgotten after it."""
    with kinds_forgotten():
        yield
