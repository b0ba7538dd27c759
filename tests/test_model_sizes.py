"""A model in memory fits its task by its tokens, positions and classes, or is refused by name."""

from types import SimpleNamespace

import pytest
import torch

import grokinterp as gi
from grokinterp.models.transformer import TransformerArchitecture
from tests.test_wrapped_models import Users

P = 7
TASK = gi.ModularTask("add", p=P)
PAIRS = gi.ModularTask("add", p=P, equals_token=False)


def transformer(d_vocab, n_ctx, d_vocab_out):
    architecture = TransformerArchitecture(
        n_layers=1, n_heads=2, d_model=16, d_head=8, d_mlp=32, d_vocab=d_vocab, n_ctx=n_ctx,
        d_vocab_out=d_vocab_out,
    )  # fmt: skip
    return architecture.hooked(architecture.initial(seed=3))


def looks(model, task, folder):
    return (
        lambda: gi.snapshot(model, task),
        lambda: gi.key_frequencies(model, task=task),
        lambda: gi.ablate(model, task=task),
        lambda: gi.Recorder(folder, task=task).save(0, model),
    )


@pytest.mark.parametrize(
    ("sizes", "task"),
    [((P + 1, 3, P), TASK), ((P + 1, 3, P + 1), TASK), ((P, 2, P), PAIRS)],
    ids=["[a, b, =]", "with the class of =", "[a, b]"],
)
def test_models_of_the_layout_fit(sizes, task, tmp_path):
    model = transformer(*sizes)
    for look in looks(model, task, tmp_path / "run"):
        look()
    assert gi.snapshot(model, task).logits.shape == (P * P, P)
    assert gi.load(tmp_path / "run").snapshot().all_logits.shape == (P * P, sizes[2])


@pytest.mark.parametrize(
    ("sizes", "task", "advice"),
    [
        ((P + 2, 4, P), TASK, 'layout="a op b ="'),  # [a, op, b, =]
        ((P + 2, 3, P), TASK, 'layout="a op b ="'),
        ((P + 1, 4, P), TASK, 'layout="a op b ="'),
        ((P + 1, 3, P + 2), TASK, 'layout="a op b ="'),
        ((12, 3, 11), TASK, "p=11"),
        ((12, 3, 12), TASK, "p=11"),
        ((6, 3, 5), TASK, "p=5"),
        ((P, 2, P), TASK, "equals_token=False"),
        ((P + 1, 3, P), PAIRS, "equals_token=True"),
        ((114, 3, 113), gi.ModularTask("add", p=101), "p=113"),
    ],
)
def test_others_are_refused_with_both_sizes(sizes, task, advice, tmp_path):
    d_vocab, n_ctx, classes = sizes
    model = transformer(*sizes)
    for look in looks(model, task, tmp_path / "run"):
        with pytest.raises(gi.InputError, match=advice) as refused:
            look()
        said = str(refused.value)
        assert f"{d_vocab} tokens, {n_ctx} positions and {classes} classes" in said
        assert f"{task.d_vocab} tokens, {2 + task.equals_token} positions" in said
        assert "\n" not in said
        assert len(said) <= 400
    assert not (tmp_path / "run").exists()


def test_a_solver_of_a_longer_layout_is_not_misread():
    """One that is right on every [a, op, b, =] would look like one that has learned nothing."""
    model = transformer(P + 2, 4, P)
    a, b = torch.cartesian_prod(torch.arange(P), torch.arange(P)).T
    inputs = torch.stack([a, torch.full_like(a, P), b, torch.full_like(a, P + 1)], dim=1)
    assert model(inputs).shape == (P * P, 4, P)
    with pytest.raises(gi.InputError, match="9 tokens, 4 positions and 7 classes"):
        gi.snapshot(model, TASK)


class TestModelsOfUsers:
    """Without a configuration that says sizes: what the forward takes and gives is looked at."""

    @pytest.mark.parametrize("classes", [P, P + 1])
    def test_what_fits_is_seen(self, classes):
        model = Users(classes=classes)
        seen = gi.snapshot(model, TASK)
        assert seen.all_logits.shape == (P * P, classes)
        torch.testing.assert_close(seen.all_logits, model(TASK.tokens)[:, -1].detach())
        assert seen.activation("hook_embed").shape == (P * P, 8)
        assert gi.key_frequencies(model, task=TASK).frequencies is not None

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"tokens": P},
                r"Users cannot read the inputs of add mod 7, 3 tokens from 0 to 7: Inde",
            ),
            ({"classes": P + 2}, "9 classes; add mod 7 read as"),
            ({"classes": P - 1}, "6 classes; add mod 7 read as"),
            ({"gives": "tuple"}, "Users returns a tuple, expected logits"),
            ({"gives": "two axes"}, r"returns torch.float32 of shape \(2, 7\) for 2 inputs"),
            ({"gives": "labels"}, r"returns torch.int64 of shape \(2, 3\)"),
        ],
    )
    def test_what_does_not_is_refused(self, changes, message, tmp_path):
        for look in looks(Users(**changes), TASK, tmp_path / "run"):
            with pytest.raises(gi.InputError, match=message) as refused:
                look()
            assert "\n" not in str(refused.value)

    @pytest.mark.parametrize("key", ["d_vocab", "d_vocab_out", "n_ctx"])
    def test_a_configuration_that_says_some_sizes_is_compared(self, key):
        model = Users()
        model.cfg = SimpleNamespace(n_layers=1)
        assert gi.snapshot(model, TASK).n_layers == 1
        setattr(model.cfg, key, 20)
        with pytest.raises(gi.InputError, match="20"):
            gi.snapshot(model, TASK)

    def test_a_task_without_tokens_is_refused(self):
        ising = gi.IsingTask(lattice=4, n_train=2, n_test=2, sweeps=1)
        with pytest.raises(gi.InputError, match="reads operand tokens"):
            gi.snapshot(Users(), ising)


def test_a_network_of_another_number_of_classes_is_refused():
    for recipe, message in (
        (gi.Recipe(model="mlp", p=11, widths=(8,)), "of 11 tokens and has 11 classes"),
        (gi.Recipe(task="ising", lattice=8, d_mlp=4), "lattices of side 8"),
    ):
        architecture = recipe.architecture()
        model = architecture.hooked(architecture.initial(seed=0, rule=recipe.init))
        with pytest.raises(gi.InputError, match=message):
            gi.snapshot(model, PAIRS)
