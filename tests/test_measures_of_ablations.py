"""`ablate(measures=...)` against TransformerLens' own hooks and torch's own loss."""

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits import hooks
from grokinterp.circuits.edited import Edited

ASKED = ["train_loss", "test_acc", "logit_margin", "restricted_loss", "sum_sq_weights"]


@pytest.fixture(scope="module")
def run():
    return gi.load("mod31-small")


def of_hooks(run):
    return [
        hooks.heads(0, 1),
        hooks.mlp(0, mode="resample"),
        hooks.fourier("unembed.hook_out", run.task, [8]),
        hooks.neurons(0, range(40)) + hooks.heads(0, 0),
    ]


def test_each_is_that_of_the_model_with_these_hooks(run):
    found = gi.ablate(run, of_hooks(run), measures=ASKED, placebos=0)
    labels, train = run.task.labels, run.train_mask
    for row, one in zip(found, of_hooks(run), strict=True):
        model = run.model()
        with torch.no_grad():
            given = model.run_with_hooks(run.task.tokens, fwd_hooks=list(one))[:, -1].double()
        loss = torch.nn.functional.cross_entropy(given[train], labels[train])
        assert row.measures["train_loss"] == pytest.approx(float(loss), rel=1e-4)
        right = (given.argmax(dim=1) == labels)[~train].double().mean()
        assert row.measures["test_acc"] == pytest.approx(float(right), abs=1e-9)
        others = given.clone().scatter_(1, labels[:, None], -torch.inf)
        margin = (given.gather(1, labels[:, None])[:, 0] - others.amax(dim=1)).mean()
        assert row.measures["logit_margin_mean"] == pytest.approx(float(margin), rel=1e-4)
        assert row.measures["train_loss"] == pytest.approx(row.score.loss_train, rel=1e-4)


def test_with_a_frequency_dropped_the_restricted_loss_is_that_of_the_others(run):
    keys = gi.key_frequencies(run).frequencies
    [dropped] = gi.ablate(
        run, hooks.fourier("unembed.hook_out", run.task, [8]), measures=["restricted_loss"],
        placebos=0,
    )  # fmt: skip
    others = gi.progress.restricted_loss(run, [k for k in keys if k != 8])
    assert dropped.measures["restricted_loss"] == pytest.approx(others, rel=1e-4)
    assert dropped.whole_measures["restricted_loss"] == gi.progress.restricted_loss(run)


def test_activations_are_those_below_the_hook(run):
    snapshot = run.snapshot()
    name = "blocks.0.mlp.hook_post"
    edited = Edited(snapshot, hooks.neurons(0, 3, mode="zero"))
    assert torch.equal(edited.activation(name)[:, 3], torch.zeros(run.task.n_inputs))
    kept = [i for i in range(160) if i != 3]
    torch.testing.assert_close(edited.activation(name)[:, kept], snapshot.activation(name)[:, kept])
    assert snapshot.activation(name)[:, 3].any()  # the whole is what it was


def test_what_reads_weights_alone_does_not_move_and_columns_say_which_is_which(run):
    table = gi.ablate(run, hooks.mlp(0), measures=ASKED, placebos=0).table()
    assert table.sum_sq_weights.item() == table.whole_sum_sq_weights.item()
    assert table.train_loss.item() > table.whole_train_loss.item()
    plain = gi.ablate(run, hooks.mlp(0), placebos=0).table()
    assert list(plain) == [x for x in table if x in plain]


def test_names_are_checked(run):
    with pytest.raises(gi.InputError, match="did you mean 'restricted_loss'"):
        gi.ablate(run, hooks.mlp(0), measures=["restricted_los"])
    with pytest.raises(gi.InputError, match="measure"):
        gi.ablate(run, hooks.mlp(0), measures=["step"])
