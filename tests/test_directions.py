"""What decides when mod31-grokked groks: one seed each, and directions alone."""

import pytest

import grokinterp as gi

MOD31 = gi.recipes()["mod31-grokked"].replace(
    threads=1, checkpoints=[0], log_every=20, weight_decay=0.0
)


def first(metrics, column, least):
    """The first logged step at which an accuracy is at least so high; None if there is none."""
    reached = metrics.step[metrics[column] >= least]
    return None if reached.empty else int(reached.iloc[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")

    def train(name, **changes):
        return gi.train(MOD31.replace(**changes), folder / name, progress=False)

    return train


@pytest.mark.slow
def test_without_decay_it_never_groks(trained):
    run = trained("no decay", steps=2500)
    assert first(run.metrics, "train_acc", 0.99) <= 200
    assert first(run.metrics, "test_acc", 0.95) is None
    assert run.dynamics.weight_norm.iloc[-1] > 1.2 * run.dynamics.weight_norm.iloc[0]


@pytest.mark.slow
def test_perpendicular_gradients_grok_it_at_constant_norm_without_decay(trained):
    run = trained("perpendicular", steps=800, orthogonal_gradients=True)
    assert first(run.metrics, "test_acc", 0.95) <= 700
    norms = run.dynamics.weight_norm / run.dynamics.weight_norm[0]
    assert 0.95 < norms.min() <= norms.max() < 1.05


@pytest.mark.slow
def test_a_norm_that_is_held_lower_leaves_no_delay(trained):
    run = trained("held", steps=600, norm_clamp="global", clamp_to=0.8)
    fitted, generalised = (
        first(run.metrics, *x) for x in (("train_acc", 0.99), ("test_acc", 0.95))
    )
    assert generalised <= 2 * fitted
