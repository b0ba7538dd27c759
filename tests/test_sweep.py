"""Sweeps: how a file expands, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import grokinterp as gi
from grokinterp.sweeps import Sweep, run_sweep
from grokinterp.sweeps.sweep import range_values

EXAMPLES = Path(__file__).parent.parent / "examples" / "encodings"
AXES = "[[axes]]\nlr = [0.1, 0.01]\n[[axes]]\nseed = [0, 1]\ndata_seed = [7, 8]\n"


def from_text(folder, text):
    path = folder / "sweep-file.toml"
    path.write_text(text)
    return Sweep.from_toml(path)


def test_axes_are_crossed_and_the_last_varies_fastest(tmp_path):
    text = f'recipe = "mod11-quick"\nmeasures = ["a", "b"]\n[set]\nsteps = 30\n{AXES}'
    sweep = from_text(tmp_path, text)
    base = gi.recipes()["mod11-quick"].replace(steps=30)
    expected = {
        f"lr={lr:g},seed={seed}": base.replace(lr=lr, seed=seed, data_seed=data_seed)
        for lr in (0.1, 0.01)
        for seed, data_seed in ((0, 7), (1, 8))
    }
    assert list(sweep.recipes().items()) == list(expected.items())
    assert sweep.measures == ("a", "b")
    assert sweep.base == base
    assert sweep.keys == ("lr", "seed", "data_seed")


def test_ranges_and_seeds_are_axes(tmp_path):
    text = (
        "seeds = 2\n[[axes]]\nweight_decay = {log = [0.1, 10], n = 5}\n"
        "train_fraction = {linear = [0.1, 0.9], n = 5}\n[[axes]]\nd_mlp = {log = [8, 512], n = 3}\n"
    )
    sweep = from_text(tmp_path, text)
    assert sweep.axes == (
        {
            "weight_decay": (0.1, 0.316228, 1.0, 3.16228, 10.0),
            "train_fraction": (0.1, 0.3, 0.5, 0.7, 0.9),
        },
        {"d_mlp": (8, 64, 512)},
        {"seed": (0, 1)},
    )
    names = list(sweep.recipes())
    assert names[:3] == [
        "weight_decay=0.1,d_mlp=8,seed=0", "weight_decay=0.1,d_mlp=8,seed=1",
        "weight_decay=0.1,d_mlp=64,seed=0",
    ]  # fmt: skip
    assert from_text(tmp_path, sweep.to_toml()) == sweep
    listed = from_text(tmp_path, "seeds = [4, 0]\n[[axes]]\nlr = {linear = [0.3, 0.1], n = 3}\n")
    assert listed.axes == ({"lr": (0.3, 0.2, 0.1)}, {"seed": (4, 0)})
    assert list(from_text(tmp_path, "seeds = 3\n").recipes()) == ["seed=0", "seed=1", "seed=2"]


@given(
    first=st.floats(1e-5, 1e5), last=st.floats(1e-5, 1e5), n=st.integers(2, 40),
    kind=st.sampled_from(["log", "linear"]),
)  # fmt: skip
def test_values_of_a_range_are_what_names_say_and_evenly_spaced(first, last, n, kind):
    try:
        values = range_values("lr", {kind: [first, last], "n": n}, base=gi.Recipe())
    except gi.InputError as error:
        assert "different values" in str(error)  # noqa: PT017
        return
    assert (values[0], values[-1], len(values)) == (first, last, n)
    spaced = np.geomspace if kind == "log" else np.linspace
    np.testing.assert_allclose(values, spaced(first, last, n), rtol=6e-6)
    assert all(float(f"{value:g}") == value for value in values[1:-1])


def test_without_recipe_the_defaults(tmp_path):
    (one,) = from_text(tmp_path, "[[axes]]\np = [7]\n").recipes().values()
    assert one == gi.Recipe(p=7)


def test_a_recipe_is_a_file_beside_the_sweep_or_a_table(tmp_path, monkeypatch):
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "mine.toml").write_text("p = 7\nsteps = 5\n")
    (folder / "mod11-quick").write_text("p = 13\n")  # built-in names come first
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("p = 31\n")  # not what is meant
    axis = "[[axes]]\nseed = [3]\n"
    assert from_text(folder, f'recipe = "mine.toml"\n{axis}').base == gi.Recipe(p=7, steps=5)
    assert from_text(folder, f'recipe = "mod11-quick"\n{axis}').base.p == 11
    table = from_text(folder, f"{axis}[recipe]\np = 7\n[set]\nsteps = 6\n")
    assert table.recipes() == {"seed=3": gi.Recipe(p=7, steps=6, seed=3)}


@pytest.mark.parametrize(
    ("axis", "names"),
    [
        ("init_scale = [10, 0.1, 1e-7]", ["init_scale=10", "init_scale=0.1", "init_scale=1e-07"]),
        ("steps = [1e6, 2]", ["steps=1000000", "steps=2"]),  # whole numbers, as the recipe has it
        ("betas = [[0.9, 0.98], [0.9, 0.999]]", ["betas=0.9-0.98", "betas=0.9-0.999"]),
        ('task = ["modular", "ising"]', ["task=modular", "task=ising"]),
        ('checkpoints = ["every:5", "log:5"]', ["checkpoints=every_5", "checkpoints=log_5"]),
        ('operation = ["x^2+xy+y^2", "add"]', ["operation=x2xyy2", "operation=add"]),
        ("reshuffle = [true, false]", ["reshuffle=True", "reshuffle=False"]),
        ("p = [7, 7]\nsteps = [5, 6]", ["p=7,steps=5", "p=7,steps=6"]),
        ("p = [7, 11]\nsteps = [5, 6]", ["p=7", "p=11"]),
    ],
)
def test_names(axis, names, tmp_path):
    assert list(from_text(tmp_path, f"[[axes]]\n{axis}\n").recipes()) == names


BAD = {
    "not TOML": ("steps 5", "is not TOML"),
    "top level": (f"measure = ['c']\n{AXES}", "did you mean 'measures'"),
    "a recipe key at the top": (f"p = 7\n{AXES}", "below [set] or [[axes]]"),
    "unknown recipe": (f'recipe = "mod11-quik"\n{AXES}', "'mod11-quick'"),
    "recipe of another type": (f"recipe = 5\n{AXES}", "recipe=5 is not a recipe"),
    "unknown key in the recipe": (f"{AXES}[recipe]\nlearning_rate = 1\n", "did you mean 'lr'"),
    "unknown key in set": (f"[set]\nwd = 1\n{AXES}", "did you mean 'weight_decay'"),
    "unknown key in an axis": ("[[axes]]\nsead = [1]\n", "did you mean 'seed'"),
    "key named self": (f"[set]\nself = 1\n{AXES}", "'self' is not known"),
    "unequal length": ("[[axes]]\nseed = [0, 1]\ndata_seed = [0]\n", "seed 2, data_seed 1"),
    "empty axis": ("[[axes]]\n", "an axis has no values"),
    "empty list": ("[[axes]]\nseed = []\n", "an axis has no values"),
    "no axis": ("[set]\np = 7\n", "nothing varies"),
    "key in two axes": ("[[axes]]\nseed = [0]\n[[axes]]\nseed = [1]\n", "stands in two axes"),
    "key in set and axis": (f"[set]\nseed = 1\n{AXES}", "'seed' stands in [set] and in an axis"),
    "no list": ("[[axes]]\nseed = 3\n", "seed=3 is no list"),
    "wrong type of a value": ('[[axes]]\nseed = ["a"]\n', "seed='a' is not a whole number"),
    "impossible value": ("[[axes]]\nlr = [0.1, -1]\n", "lr=-1.0 is not a number above 0"),
    "set is no table": (f"set = 3\n{AXES}", "set=3 is no table"),
    "axes are no tables": ("axes = [1]\n", "axes=[1] are no tables"),
    "one table": ("[axes]\nseed = [0]\n", "write [[axes]]"),
    "measures": (f'measures = "c"\n{AXES}', "measures='c' is no list"),
    "measures of another type": (f"measures = [1]\n{AXES}", "measures=[1] is no list"),
    "the same twice": ("[[axes]]\nseed = [0, 0]\n", "two runs are both seed=0"),
    "the same name": ("[[axes]]\nlr = [0.1, 0.10]\n", "two runs are both lr=0.1"),
    "a long name": (f"[[axes]]\ncheckpoints = [{list(range(99))}]\n", "shorter values first"),
    "a range of nothing": ("[[axes]]\nlr = {n = 5}\n", "lr={'n': 5} is not a range; give such as"),
    "two ranges": ("[[axes]]\nlr = {log = [1, 2], linear = [1, 2], n = 5}\n", "is not a range"),
    "no number of values": ("[[axes]]\nlr = {log = [1, 2]}\n", "is not a range"),
    "a word of a range": ("[[axes]]\nlr = {log = [1, 2], n = 5, m = 1}\n", "is not a range"),
    "one value": ("[[axes]]\nlr = {log = [1, 2], n = 1}\n", "n=1 is not a whole number from 2"),
    "half a value": ("[[axes]]\nlr = {log = [1, 2], n = 2.5}\n", "n=2.5 is not a whole number"),
    "one end": ("[[axes]]\nlr = {log = [1], n = 5}\n", "[1] are not the two ends"),
    "an end of text": ("[[axes]]\nlr = {log = [1, '2'], n = 5}\n", "are not the two ends"),
    "no end": ("[[axes]]\nlr = {linear = [1, inf], n = 5}\n", "are not the two ends"),
    "log of 0": ("[[axes]]\nlr = {log = [0, 1], n = 5}\n", "is not above 0; give linear"),
    "the same ends": ("[[axes]]\nlr = {log = [1, 1], n = 5}\n", "fewer than 5 different"),
    "rounded to the same": ("[[axes]]\np = {log = [5, 7], n = 4}\n", "fewer than 4 different"),
    "a range of words": ("[[axes]]\nmodel = {log = [1, 2], n = 5}\n", "model=1 is not known"),
    "a range of truths": ("[[axes]]\nequals_class = {log = [1, 2], n = 5}\n", "true or false"),
    "a range of sizes": (
        "recipe = 'mlp113-grokked'\n[[axes]]\nwidths = {log = [8, 32], n = 3}\n",
        "widths is no number",
    ),
    "a range of an unknown key": ("[[axes]]\nwd = {log = [1, 2], n = 5}\n", "'weight_decay'"),
    "a range of another length": (
        "[[axes]]\nlr = {log = [1, 2], n = 3}\nseed = [0, 1]\n",
        "lr 3, seed 2",
    ),
    "no seeds": ("seeds = 0\n", "seeds=0 is not a number of seeds"),
    "seeds of text": ("seeds = 'three'\n", "give 3 or [0, 4]"),
    "an empty list of seeds": ("seeds = []\n", "seeds=[] is not a number"),
    "seeds and an axis of them": (f"seeds = 2\n{AXES}", "'seed' stands in two axes"),
    "seeds and one that is set": ("seeds = 2\n[set]\nseed = 1\n", "in [set] and in an axis"),
    "too many": (
        f"[[axes]]\nseed = {list(range(101))}\n[[axes]]\ndata_seed = {list(range(100))}\n",
        "10100 runs",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line_with_their_name(name, tmp_path):
    text, message = BAD[name]
    with pytest.raises(gi.InputError) as refused:
        from_text(tmp_path, text)
    line = str(refused.value)
    assert line.startswith(f"{tmp_path / 'sweep-file.toml'}")
    assert message in line
    assert "\n" not in line


def test_a_missing_file_and_bytes_are_refused(tmp_path):
    with pytest.raises(gi.InputError, match=r"nowhere\.toml does not exist"):
        Sweep.from_toml(tmp_path / "nowhere.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(gi.InputError, match=r"x\.toml is not TOML"):
        Sweep.from_toml(tmp_path / "x.toml")


def test_written_and_read_back_a_sweep_is_the_same(tmp_path):
    sweep = from_text(tmp_path, f'recipe = "mlp113-grokked"\nmeasures = ["a"]\n{AXES}')
    assert from_text(tmp_path, sweep.to_toml()) == sweep
    of_models = Sweep(gi.Recipe(p=7, d_mlp=20), ({"model": ("mlp", "transformer")},))
    assert from_text(tmp_path, of_models.to_toml()) == of_models


@pytest.mark.parametrize(
    ("name", "n", "first"),
    [
        ("mlp", 12, "init_scale=10,seed=0"),
        ("mlp-start", 9, "init_scale=1,seed=0"),
        ("mlp-decay", 6, "init_scale=2,seed=0"),
        ("mlp-batch200", 9, "init_scale=10,seed=0"),
        ("ising", 9, "init_scale=10,seed=0"),
        ("transformer-map", 36, "train_fraction=0.7,init_scale=1,steps=500,seed=0"),
        ("paths-mlp", 12, "init_scale=10,seed=0"),
        ("paths-ising", 9, "init_scale=10,seed=0"),
        ("paths-transformer", 8, "init_scale=1,seed=1"),
    ],
)
def test_the_examples_expand(name, n, first):
    recipes = Sweep.from_toml(EXAMPLES / f"{name}.toml").recipes()
    assert len(recipes) == n
    assert next(iter(recipes)) == first
    table = EXAMPLES / f"{name}.csv"
    if table.exists():
        assert list(pd.read_csv(table).run) == list(recipes)


def test_every_example_is_tested():
    assert len(list(EXAMPLES.glob("*.toml"))) == 9


def test_values_that_differ_little_have_different_names():
    sweep = Sweep(gi.Recipe(p=7), ({"lr": (0.12345671, 0.12345672, 0.1, 1e-5)},))
    assert list(sweep.recipes()) == ["lr=0.12345671", "lr=0.12345672", "lr=0.1", "lr=1e-05"]


def test_formulas_and_layouts_have_names_of_their_own():
    base = gi.Recipe(p=7)
    formulas = {"operation": ("a*b + a", "a/b + a", "a**2 + b", "divide")}
    assert list(Sweep(base, (formulas,)).recipes()) == [
        "operation=axb_+_a", "operation=aoverb_+_a", "operation=axx2_+_b", "operation=divide",
    ]  # fmt: skip
    layouts = {"layout": ("a b =", "a b /", "a / b"), "seed": (0, 1, 2)}
    assert len(Sweep(base, (layouts,)).recipes()) == 3
    with pytest.raises(gi.InputError, match="two runs are both"):
        Sweep(base, ({"layout": ("a b =", "a  b =")},))


def test_an_axis_may_leave_a_key_out():
    axis = {"layout": (None, "a op b ="), "token_ids": (None, {"op": 9, "=": 8})}
    sweep = Sweep(gi.Recipe(p=7), (axis,))
    again = Sweep.from_text(sweep.to_toml().encode(), file="sweep.toml")
    assert again.recipes() == sweep.recipes()
    assert [x.build_task().d_vocab for x in again.recipes().values()] == [8, 10]


VARIANTS = """
recipe = "mod11-quick"
seeds = 2
[variants.baseline]
[variants.held]
weight_decay = 0
norm_clamp = "global"
betas = [0.9, 0.99]
"""


def test_variants_are_named_changes_that_cross_the_axes(tmp_path):
    sweep = from_text(tmp_path, VARIANTS)
    recipes = sweep.recipes()
    assert list(recipes) == ["baseline,seed=0", "baseline,seed=1", "held,seed=0", "held,seed=1"]
    base = gi.recipes()["mod11-quick"]
    changes = {"weight_decay": 0, "norm_clamp": "global", "betas": (0.9, 0.99)}
    assert recipes["baseline,seed=1"] == base.replace(seed=1)
    assert recipes["held,seed=1"] == base.replace(seed=1, **changes)
    assert [variant for variant, _ in sweep.members().values()] == ["baseline"] * 2 + ["held"] * 2
    assert from_text(tmp_path, sweep.to_toml()) == sweep
    alone = Sweep(base, (), variants={"one": {}, "no_decay": {"weight_decay": 0}})
    assert list(alone.recipes()) == ["one", "no_decay"]
    assert from_text(tmp_path, alone.to_toml()) == alone


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "[variants.a]\nweight_dacay = 1",
            "variant a: .*weight_dacay.*did you mean 'weight_decay'",
        ),
        ("[variants.a]\nseed = 1", "'seed' stands in the variant a and in an axis"),
        ('[variants."../x"]\nlr = 1', "variant '../x' cannot name a folder"),
        ("variants = 3", "variants=3 are no tables"),
    ],
)
def test_bad_variants_are_refused_in_one_line(text, why, tmp_path):
    above = 'recipe = "mod11-quick"\nseeds = 2\n'
    with pytest.raises(gi.InputError, match=why) as caught:
        from_text(tmp_path, above + text)
    assert "\n" not in str(caught.value)


def test_a_variant_changes_keys_that_are_names():
    with pytest.raises(gi.InputError, match="variants=1 is not a key of the recipe"):
        Sweep(gi.Recipe(p=7), (), variants={"one": {1: 2}})


def test_measures_that_nobody_knows_are_refused_before_they_travel(tmp_path):
    base = gi.Recipe(p=5, d_model=8, n_heads=1, d_head=8, d_mlp=8, steps=1)
    sweep = Sweep(base, ({"seed": (0, 1)},), ("compresibility",))
    with pytest.raises(gi.InputError, match="did you mean 'compressibility'"):
        run_sweep(sweep, tmp_path, workers=2)


def test_what_is_no_sweep_is_refused():
    for axes in ({"seed": (0, 1)}, ({"seed": 3},), ({"seed": "01"},)):
        with pytest.raises(Exception, match=r"axes|seed"):
            Sweep(gi.Recipe(p=7), axes)
