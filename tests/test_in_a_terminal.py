"""The commands that somebody new types, in a terminal: what its screen shows in the end."""

import os
import re

import pandas as pd
import pytest

import grokinterp as gi

if os.name != "posix":
    pytest.skip("needs pseudo-terminals", allow_module_level=True)

from tests.terminal import GROKINTERP, Terminal

pytestmark = pytest.mark.slow

SMALL = ("--set", "d_model=8", "--set", "d_mlp=16", "--set", "n_heads=1")
SWEEP = """
recipe = "mod11-quick"
seeds = {seeds}
[set]
d_model = 8
d_mlp = 16
n_heads = 1
steps = {steps}
checkpoints = "every:100"
"""


def squeezed(text):
    """Without blanks: where rows end is the terminal's."""
    return re.sub(r"\s", "", text)


def sweep(tmp_path, *options, seeds=3, steps=300, **terminal):
    (tmp_path / "s.toml").write_text(SWEEP.format(seeds=seeds, steps=steps))
    command = (*GROKINTERP, "sweep", "s.toml", "--out", "o", "--threads", "1", *options)
    return Terminal(*command, cwd=tmp_path, **terminal)


def lines_of(tmp_path):
    """What a sweep says of its runs, in their order."""
    table = pd.read_csv(tmp_path / "o/results.csv")
    return [
        f"o/{row.run}: {row.label}, train loss {row.train_loss:.3g}, "
        f"test loss {row.test_loss:.3g}, test accuracy {row.test_acc:.4f}"
        for row in table.itertuples()
    ] + [f"o/results.csv: {len(table)} runs, {len(table.columns)} columns"]


def test_train(tmp_path):
    command = (*GROKINTERP, "train", "mod11-quick", "--out", "run", "--set", "steps=500", *SMALL)
    with Terminal(*command, cwd=tmp_path, columns=110) as terminal:
        terminal.until(lambda shown: re.search(r"run: +[1-9]\d?%", shown.text))
        terminal.resize(24, 60)
        assert terminal.finish() == 0
    *bars, last = terminal.rows
    result = bars[next(i for i, row in enumerate(bars) if "checkpoints" in row) :]
    bars = bars[: -len(result)]
    # The second where the bar of before, or the blanks over it, were wider than the terminal.
    assert len(bars) <= 2
    assert [bar for bar in bars if bar][-1].startswith("run: 100%")
    last_logged = gi.load(tmp_path / "run").metrics.iloc[-1]
    told = f"run: 6 checkpoints up to step 500, train loss {last_logged.train_loss:.3g}, test loss "
    assert squeezed("".join(result)).startswith(squeezed(told))
    assert last == "See when it learned: grokinterp phases run"


def test_ctrl_c_in_a_training(tmp_path):
    command = (*GROKINTERP, "train", "mod11-quick", "--out", "run", "--set", "steps=100000", *SMALL)
    with Terminal(*command, cwd=tmp_path, columns=150) as terminal:
        terminal.until(lambda shown: "step/s" in shown.text)
        terminal.type("\x03")
        assert terminal.finish() == 130
    *bars, last = terminal.rows
    assert re.fullmatch(
        r"grokinterp: stopped at step \d+ of 100000; nothing is lost, continue run with --resume "
        r"\(resume=True\)\.",
        last,
    )
    assert all(bar.startswith("run: ") for bar in bars)
    assert len(bars) <= 2  # one more where the terminal's own ^C made the bar too wide
    assert (tmp_path / "run/resume.safetensors").exists()


def test_a_sweep_of_more_runs_than_a_narrow_screen_has_lines(tmp_path):
    with sweep(tmp_path, seeds=6, steps=100, rows=10, columns=40) as terminal:
        terminal.until(lambda shown: "runs done" in shown.text)
        assert terminal.finish() == 0
    assert len(terminal.rows) > 10
    assert squeezed(terminal.text) == squeezed("".join(lines_of(tmp_path)))


def test_a_sweep_in_a_window_that_is_resized(tmp_path):
    with sweep(tmp_path, rows=12, columns=100) as terminal:
        for seed, columns in ((0, 80), (1, 120)):
            terminal.until(lambda shown, seed=seed: f"o/seed={seed}: " in shown.text)
            terminal.until(lambda shown: re.search(r"\d+ of 300", shown.text))
            terminal.resize(12, columns)
        assert terminal.finish() == 0
    assert terminal.rows == lines_of(tmp_path)  # each once, and nothing of the table


def test_the_table_shows_what_is_in_training(tmp_path):
    with sweep(tmp_path, seeds=2, steps=100_000) as terminal:
        terminal.until(lambda shown: re.search(r"train \S+ \d+%, test \S+ \d+%", shown.text))
        name, logged, counts, *more = terminal.rows
        assert re.fullmatch(r"seed=0 +\d+ of 100000", name)
        assert logged.startswith("  train ")
        assert " ".join([counts, *more]) == "0 of 2 runs done, 1 in training, 1 waiting"
        terminal.type("\x03")
        assert terminal.finish() == 130
    line = "grokinterp: stopped at seed=0, with 0 of 2 runs in the table; nothing is lost, sweep "
    assert squeezed(terminal.text) == squeezed(f"{line} into o again to go on.")


def test_a_terminal_that_takes_nothing_back_gets_the_lines_alone(tmp_path):
    with sweep(tmp_path, seeds=2, steps=20, columns=120, term="dumb") as terminal:
        assert terminal.finish() == 0
    assert terminal.rows == lines_of(tmp_path)


def test_results_that_go_into_a_file_are_not_in_the_table(tmp_path):
    (tmp_path / "s.toml").write_text(SWEEP.format(seeds=2, steps=100))
    line = f"{GROKINTERP[0]} -m grokinterp.cli sweep s.toml --out o --threads 1 >lines"
    with Terminal("bash", "-c", line, cwd=tmp_path) as terminal:
        terminal.until(lambda shown: "runs done" in shown.text)
        assert terminal.finish() == 0
    assert terminal.rows == []
    assert (tmp_path / "lines").read_text().splitlines() == lines_of(tmp_path)


def test_a_sweep_with_a_failed_run(tmp_path):
    text = SWEEP.format(seeds=1, steps=20).replace("seeds = 1\n", "")
    (tmp_path / "s.toml").write_text(
        f'{text}[[axes]]\nlr = [1e30, 0.001]\noptimizer = ["sgd", "adamw"]'
    )
    command = (*GROKINTERP, "sweep", "s.toml", "--out", "o", "--threads", "1")
    with Terminal(*command, cwd=tmp_path, columns=400) as terminal:
        assert terminal.finish() == 2
    failed, made, table, last = terminal.rows
    assert failed.startswith("o/lr=1e+30: failed, ")
    assert made.startswith("o/lr=0.001: ")
    assert table.startswith("o/results.csv: 2 runs, ")
    assert last.startswith("grokinterp: 1 of 2 runs failed, lr=1e+30: ")


def test_report(tiny_run, tmp_path):
    command = (*GROKINTERP, "report", tiny_run.path, "--out", "r.html")
    with Terminal(*command, cwd=tmp_path, columns=60) as terminal:
        assert terminal.finish() == 0
    *bars, last = terminal.rows
    assert re.fullmatch(r"r\.html: \d+\.\d MB; open it in a browser", last)
    assert all("100%" in bar for bar in bars)
    assert (tmp_path / "r.html").stat().st_size > 1e6


def test_a_mistake_is_one_line(tmp_path):
    with Terminal(*GROKINTERP, "train", "mod11-quick", cwd=tmp_path) as terminal:
        assert terminal.finish() == 2
    assert terminal.rows == ["grokinterp: Missing option '--out'. Try 'grokinterp train --help'."]
