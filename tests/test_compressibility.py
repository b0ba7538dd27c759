import pytest

import grokinterp as gi
from grokinterp.encodings import compressibility, pruning_curve, sizes
from grokinterp.encodings.pruning import magnitudes


def test_a_row_a_checkpoint_has_the_curve_and_the_sizes_of_that_step(tiny_run):
    grid = [0, 0.3, 0.6, 1]
    table = compressibility(tiny_run, fractions=grid, scope="global", basis="fourier", keep=0.8)
    assert table["step"].tolist() == list(tiny_run.steps)
    for _, row in table.iterrows():
        step = int(row["step"])
        curve = pruning_curve(
            tiny_run, step=step, fractions=grid, scope="global", basis="fourier", keep=0.8
        )
        assert (row["c"], row["area"], row["prunable"]) == (curve.c, curve.area, curve.prunable)
        assert (row["c_low"], row["c_high"]) == curve.c_interval
        found = sizes(tiny_run, step=step)
        assert row["gini_weights"] == found.gini
        assert row["effective_rank"] == found.mean_effective_rank
    logged = tiny_run.metrics.set_index("step").loc[list(tiny_run.steps)]
    for column in ("train_loss", "test_loss", "train_acc", "test_acc"):
        assert table[column].tolist() == pytest.approx(logged[column].tolist(), rel=1e-5)
    assert table.attrs == {
        "rows": "test", "scope": "global", "score": "magnitude", "basis": "fourier",
        "biases": False, "keep": 0.8, "n_weights": curve.n_weights,
        "score_rows": None, "score_samples": None,
    }  # fmt: skip


def test_chosen_steps_and_scores(tiny_run):
    def score(snapshot):
        return magnitudes(snapshot.weights)

    table = compressibility(tiny_run, steps=[60, 20], scores=score, fractions=[0, 0.5, 1])
    assert table["step"].tolist() == [60, 20]
    assert table.attrs["score"] == "score"
    plain = compressibility(tiny_run, steps=[60, 20], fractions=[0, 0.5, 1])
    assert table.equals(plain)
    fisher = compressibility(tiny_run, steps=[60], scores="fisher_logits", fractions=[0, 0.5, 1])
    assert fisher.attrs["score"] == "fisher_logits"
    assert fisher.attrs["score_samples"] == int((~tiny_run.train_mask).sum())
    last = compressibility(tiny_run, steps=[-1], fractions=[0, 0.5, 1])
    assert last["step"].tolist() == [60]
    with pytest.raises(gi.InputError, match="has no step"):
        compressibility(tiny_run, steps=[])


def test_there_is_a_bar_only_when_asked_and_on_a_terminal(tiny_run, monkeypatch, capfd):
    disabled = []

    def bar(steps, *, disable, **_):
        disabled.append(disable)
        return steps

    compressibility(tiny_run, steps=[0], fractions=[0, 1])
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr("grokinterp.reading._load.tqdm", bar)
    for progress in (False, True):
        compressibility(tiny_run, steps=[0], fractions=[0, 1], progress=progress)
    assert disabled == [True, None]  # None: shown on a terminal


def test_the_shipped_run_becomes_compressible(shipped):
    table = compressibility(shipped, steps=[0, 5200, 9000], fractions=[0, 0.2, 0.4, 0.6, 0.8, 1])
    c = table["c"].tolist()
    assert 1 < c[0] < 1.02  # chance
    assert 1.3 < c[1] < 1.6
    assert 2.8 < c[2] < 3.6
    assert table["gini_weights"].is_monotonic_increasing
    assert table["effective_rank"].is_monotonic_decreasing
