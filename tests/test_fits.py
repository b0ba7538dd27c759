"""A model fits a task when it has its tokens, positions and classes; else both are named."""

import pytest

import grokinterp as gi
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.models.transformer import NetworkSizes, refuse_misfit
from grokinterp.tasks.ising import IsingTask

ADD = gi.ModularTask("add", 7)
PLAIN = gi.ModularTask("add", 7, equals_token=False)


@pytest.mark.parametrize(
    ("task", "d_vocab", "n_ctx", "d_vocab_out"),
    [(ADD, 8, 3, 7), (ADD, 8, 3, 8), (PLAIN, 7, 2, 7), (gi.ModularTask("add", 113), 114, 3, 114)],
)
def test_sizes_of_the_layout_fit(task, d_vocab, n_ctx, d_vocab_out):
    refuse_misfit(task, NetworkSizes(d_vocab, n_ctx, d_vocab_out), what="model.pt")


@pytest.mark.parametrize(
    ("task", "d_vocab", "n_ctx", "d_vocab_out", "advice"),
    [
        (ADD, 9, 4, 7, 'such as layout="a op b ="'),  # [a, op, b, =]
        (ADD, 9, 3, 7, 'such as layout="a op b ="'),
        (ADD, 8, 4, 7, 'such as layout="a op b ="'),
        (ADD, 8, 3, 9, 'such as layout="a op b ="'),
        (ADD, 8, 3, 6, 'such as layout="a op b ="'),
        (ADD, 8, 2, 7, 'such as layout="a op b ="'),
        (ADD, 15, 3, 7, "b from 7 on"),  # [a, 7 + b, =]
        (PLAIN, 14, 2, 7, "b from 7 on"),
        (PLAIN, 7, 2, 8, 'such as layout="a op b ="'),  # no further token, no further class
        (PLAIN, 8, 2, 7, 'such as layout="a op b ="'),
        (ADD, 7, 2, 7, "equals_token=False"),
        (PLAIN, 8, 3, 7, "equals_token=True"),
        (ADD, 12, 3, 11, "p=11"),
        (PLAIN, 12, 3, 11, "p=11, equals_token=True"),
        (ADD, 7, 3, 6, "p=6"),
        (gi.ModularTask("add", 101), 114, 3, 113, "p=113"),
    ],
)
def test_other_sizes_are_refused_with_both(task, d_vocab, n_ctx, d_vocab_out, advice):
    with pytest.raises(gi.InputError) as refused:
        refuse_misfit(task, NetworkSizes(d_vocab, n_ctx, d_vocab_out), what="m.pt")
    said = str(refused.value)
    assert f"m.pt has {d_vocab} tokens, {n_ctx} positions and {d_vocab_out} classes" in said
    needed = f"{task.d_vocab} tokens, {2 + task.equals_token} positions and {task.p}"
    assert needed in said
    assert advice in said
    assert len(said) < 400
    assert "\n" not in said


@pytest.mark.parametrize(
    ("architecture", "task", "words"),
    [
        (MLPArchitecture(p=11, widths=(4,), n_classes=11), PLAIN, ["of 11 tokens", "2 of 7"]),
        (MLPArchitecture(p=7, widths=(4,), n_classes=8), PLAIN, ["8 classes", "and 7 classes"]),
        (MLPArchitecture(p=7, widths=(4,), n_classes=7), ADD, ["equals_token=False"]),
        (CNNArchitecture(lattice=8), ADD, ["lattices of side 8", "add mod 7"]),
        (CNNArchitecture(lattice=8), IsingTask(lattice=4, n_train=2, n_test=2, sweeps=1),
         ["side 8", "side 4"]),
        (CNNArchitecture(lattice=4, n_classes=3), IsingTask(lattice=4, n_train=2, n_test=2,
         sweeps=1), ["3 classes", "2 classes"]),
        (gi.Recipe(p=7, d_model=8, d_mlp=8).architecture(),
         IsingTask(lattice=4, n_train=2, n_test=2, sweeps=1), ["operand tokens", "Ising"]),
    ],
)  # fmt: skip
def test_other_kinds_are_refused_in_the_same_way(architecture, task, words):
    with pytest.raises(gi.InputError) as refused:
        architecture.refuse_unfit(task)
    said = str(refused.value)
    assert all(word in said for word in words), said
    assert len(said) < 400
    assert "\n" not in said


def test_models_of_recipes_fit_their_tasks():
    for recipe in [
        *gi.recipes().values(), gi.Recipe(equals_token=False), gi.Recipe(equals_class=True),
    ]:  # fmt: skip
        if recipe.task == "ising":
            recipe = recipe.replace(n_train=2, n_test=2, sweeps=1)
        recipe.architecture().refuse_unfit(recipe.build_task())
