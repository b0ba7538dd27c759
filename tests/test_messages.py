"""What a refusal looks like, whatever was given: one line, values shortened, quick."""

import time

import pytest

import grokinterp as gi
from grokinterp.base.errors import nearest, shown
from grokinterp.recipe.recipe import parse_setting
from grokinterp.sweeps import Sweep

LONG = "x" * 5000
HUGE = "0x" + "f" * 5000  # which Python reads, and does not write


@pytest.mark.parametrize(
    "value",
    [LONG, [LONG] * 50, {LONG: LONG}, int(HUGE, 16), [int(HUGE, 16)], b"x" * 5000, "a\nb", "\ud800",
     list(range(10**6)), type("Odd", (), {"__repr__": lambda self: 1 / 0})()],
    ids=range(10),
)  # fmt: skip
def test_values_are_shown_short(value):
    text = shown(value)
    assert 0 < len(text) <= 80
    assert "\n" not in text
    text.encode()


def test_what_is_short_is_shown_as_it_is():
    assert [shown(x) for x in ("add", 1.5, [1, "a"], None)] == ["'add'", "1.5", "[1, 'a']", "None"]


def test_a_message_is_one_line():
    line = str(gi.InputError("a\nb  " + "y" * 1000 + " give c."))
    assert len(line) <= 400
    assert line.startswith("a b")
    assert line.endswith("give c.")


def test_advice_lists_only_what_fits():
    assert len(nearest("zzz", [f"name_{i}" for i in range(1000)])) < 300


RECIPES = {
    "dotted": "a." * 30_000 + "a = 1",
    "nested": "lr = " + "[" * 5000,
    "digits": "seed = " + "9" * 5000,
    "hexadecimal": f"seed = {HUGE}",
    "float key, huge": f"lr = {HUGE}",
    "betas": f"betas = [0.9, {HUGE}]",
    "long word": f'optimizer = "{LONG}"',
    "long key": f"{LONG} = 1",
    "no text": "\0",
    "large": "#" * 1_100_000,
}


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("read", [gi.Recipe.from_toml, Sweep.from_toml])
def test_odd_documents_are_refused_at_once(tmp_path, text, read):
    path = tmp_path / "x.toml"
    path.write_text(text)
    begin = time.process_time()
    with pytest.raises(gi.InputError) as refused:
        read(path)
    assert len(str(refused.value)) <= 400
    assert time.process_time() - begin < 3


@pytest.mark.parametrize(
    "text",
    [f"[[axes]]\nlr = {{log = [1, {HUGE}], n = 3}}", f'recipe = "{LONG}"', f"seeds = {HUGE}",
     f"[[axes]]\nseed = [{HUGE}]", f"[set]\nlr = {HUGE}"],
)  # fmt: skip
def test_odd_sweeps_are_refused(tmp_path, text):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(gi.InputError) as refused:
        Sweep.from_toml(path)
    assert len(str(refused.value)) <= 400


def test_an_odd_setting_is_text():
    assert parse_setting("operation=" + "[" * 5000) == ("operation", "[" * 5000)
