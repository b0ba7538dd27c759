"""Odd calls give a result or an InputError of one line that says what was given: nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.odd_calls import CALLS, calls

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
WORDS = re.compile(r"[A-Za-z]{3,}|\d+|'[^']*'|\[\]")
TYPES = re.compile(r"\b(?:str|list|ndarray|an int of \d+ bits|no|nothing)\b|'\w*'")


@pytest.fixture(scope="module")
def outcomes():
    """What came of every call: whether a result is promised, the exception, its text, seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.odd_calls"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [call for call, _ in calls()]
    return rows


def test_the_table_is_long_and_holds_every_call_once():
    every = [call for call, _ in calls()]
    assert len(every) >= 800
    assert len(set(every)) == len(every)
    assert CALLS.count("\n## ") == 28


def test_what_is_promised_comes_and_nothing_else(outcomes):
    wrong = [
        (call, kind, text)
        for call, gives_result, kind, text, _ in outcomes
        if kind != ("" if gives_result else "InputError")
    ]
    assert wrong == []


def test_refusals_are_one_line_each(outcomes):
    long = [text for *_, text, _ in outcomes if len(text) > 400 or len(text.splitlines()) > 1]
    assert long == []


def test_refusals_say_what_was_given_and_what_to_give(outcomes):
    """A word, number or text of the call, its type, or that nothing was given."""
    silent = []
    for call, _, kind, text, _ in outcomes:
        said = any(word.lower() in text.lower() for word in WORDS.findall(call))
        if kind and not (said or TYPES.search(text)):
            silent.append((call, text))
    assert silent == []
    assert all(len(text.split()) > 3 for _, _, kind, text, _ in outcomes if kind)


def test_nothing_odd_is_tried_for_long(outcomes):
    assert [call for call, *_, seconds in outcomes if seconds > 4] == []
