"""0.3 of 169 rows are 50.7: `int` trains on 50 of them, `round` on 51. Both are somebody's code."""

import pandas as pd
import pytest
import torch

import grokinterp as gi
from tests.foreign import paper_file, python_split

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

CUT, ROUNDED = 50, 51
SIZES = pytest.mark.parametrize("n", [CUT, ROUNDED])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same run by each convention, in which the row between is or is not trained on."""
    folder = tmp_path_factory.mktemp("sizes")
    recipe = gi.Recipe(
        p=13, d_model=16, n_heads=2, d_head=8, d_mlp=32, lr=1e-2, weight_decay=0.1, steps=200,
        checkpoints=(0, 50, 100, 150), log_every=50, data_seed=7,
    )  # fmt: skip
    return {
        n: gi.train(recipe.replace(train_fraction=(n + 1e-6) / 169), folder / str(n))
        for n in (CUT, ROUNDED)
    }


def read(run, folder, *, steps=None, loss=None, **settings):
    """The weights of these steps, and a log whose losses went through a function, as others do."""
    folder.mkdir()
    for step in steps or run.steps:
        torch.save(dict(run.weights(step)), folder / f"step_{step}.pt")
    if loss is not None:
        log = run.metrics[["step", "train_loss"]].copy()
        log["train_loss"] = [loss(x) for x in log.train_loss]
        log.to_csv(folder / "metrics.csv", index=False)
    asked = {"split": "torch", "data_seed": 7, "train_fraction": 0.3, **settings}
    return gi.load(folder, **asked)


def note_of(run):
    (note,) = [note for note in run.notes if " training rows" in note and "not 5" in note]
    return note


def has_rows_of(run, other):
    assert run.train_indices.tolist() == other.train_indices.tolist()
    assert run.manifest.split["n_train"] == len(other.train_indices)


@pytest.mark.slow
@SIZES
def test_exact_losses_tell(n, trained, tmp_path):
    run = read(trained[n], tmp_path / "run", loss=float)
    has_rows_of(run, trained[n])
    assert note_of(run).startswith(f"{n} training rows, not {101 - n}: at step ")
    assert "and the files say" in note_of(run)


@pytest.mark.slow
@SIZES
def test_losses_of_untrained_weights_tell_as_well(n, trained, tmp_path):
    """Where no row looks different from another."""
    run = read(trained[n], tmp_path / "run", steps=(0,), loss=float, operation="add")
    has_rows_of(run, trained[n])
    assert "at step 0 these have loss" in note_of(run)


@SIZES
@pytest.mark.parametrize("digits", [4, 1])
def test_rounded_losses_tell_or_the_row_does(n, digits, trained, tmp_path):
    """A row that is not trained on shows in the mean by any digit, one among the others by none."""
    learned = (100, 150, 200)
    run = read(trained[n], tmp_path / "run", steps=learned, loss=lambda x: round(x, digits))
    has_rows_of(run, trained[n])
    if n == CUT:
        assert "and the files say" in note_of(run)
    else:
        assert note_of(run) == (
            "51 training rows, not 50: the stored losses cannot tell, and the row between has "
            "losses as if it were trained on"
        )
    assert any("verified at step" in note for note in run.notes)


@SIZES
def test_losses_that_are_rounded_away_still_refuse_a_wrong_split(n, trained, tmp_path):
    with pytest.raises(gi.InputError, match="is not the split of this run"):
        read(trained[n], tmp_path / "run", loss=lambda x: round(x, 1), data_seed=8)


@SIZES
def test_losses_of_another_machine_mislead_nobody(n, trained, tmp_path):
    """A thousandth off, either way: more than the row between makes of the mean."""
    generator = torch.Generator().manual_seed(n)

    def off(x):
        return x * (1 + 0.01 * float(torch.randn((), generator=generator)))

    has_rows_of(read(trained[n], tmp_path / "run", loss=off), trained[n])


@SIZES
@pytest.mark.parametrize("step", [100, 200])
def test_without_losses_the_row_between_tells(n, step, trained, tmp_path):
    run = read(trained[n], tmp_path / "run", steps=(step,))
    has_rows_of(run, trained[n])
    assert "no losses are stored, and the row between has losses as if it were" in note_of(run)


@SIZES
def test_what_nothing_tells_is_cut_off(n, trained, tmp_path):
    run = read(trained[n], tmp_path / "run", steps=(0,), operation="add")
    assert run.train_indices.tolist() == trained[n].train_indices.tolist()[:CUT]
    assert note_of(run) == (
        "50 training rows, not 51: no losses are stored, nor can the row between, so it is cut off "
        "as published code does (or set n_train=)"
    )
    run = read(trained[n], tmp_path / "said", steps=(0,), train_fraction=None, n_train=51)
    assert len(run.train_indices) == 51
    assert not [note for note in run.notes if "not 50" in note]


@SIZES
def test_a_configuration_of_the_papers_code_is_held_against_the_losses(n, tmp_path):
    """Which cuts off; whoever changed that left it in the losses."""
    recipe = gi.Recipe(
        p=13, d_model=16, n_heads=2, d_head=8, d_mlp=32, lr=3e-3, steps=100, checkpoints="every:20",
        log_every=1, split="python", data_seed=3, biases="mlp", equals_class=True,
        train_fraction=(n + 1e-6) / 169,
    )  # fmt: skip
    run = gi.train(recipe, tmp_path / "run")
    path = paper_file(run, tmp_path / "full_run_data.pth", split_seed=3)
    content = torch.load(path, weights_only=True)
    content["config"]["frac_train"] = 0.3
    torch.save(content, path)
    found = gi.load(path)
    assert found.train_indices.tolist() == python_split(169, n, 3)
    assert "and the files say" in note_of(found)
    del content["train_losses"], content["test_losses"]
    torch.save(content, path)
    found = gi.load(path)
    assert found.train_indices.tolist() == python_split(169, CUT, 3)
    assert "no losses are stored, so it is cut off as published code does" in note_of(found)


@pytest.mark.parametrize(("fraction", "n"), [(0.5, 84), (0.29, 49)])
def test_a_fraction_that_is_a_number_of_rows_either_way_is_no_question(
    fraction, n, trained, tmp_path
):
    """Half of 169 is rounded to even, and 0.29 of it is 49.01."""
    run = read(trained[CUT], tmp_path / "run", train_fraction=fraction)
    assert len(run.train_indices) == n
    assert not [note for note in run.notes if "training rows, not" in note]


def test_the_log_says_so_whatever_is_beside_it(trained, tmp_path):
    """A column of accuracies alone is no loss."""
    run = trained[CUT]
    torch.save(dict(run.weights(0)), tmp_path / "step_0.pt")
    pd.DataFrame({"step": [0], "train_acc": [0.1]}).to_csv(tmp_path / "metrics.csv", index=False)
    found = gi.load(tmp_path, split="torch", data_seed=7, train_fraction=0.3, operation="add")
    assert "no losses are stored" in note_of(found)
