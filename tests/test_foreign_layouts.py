"""Checkpoints of networks that read other sequences than a, b and "=": live and from their file."""

import re

import pytest
import torch

import grokinterp as gi
from grokinterp.base.errors import InputError
from grokinterp.circuits import hooks
from grokinterp.models import TransformerArchitecture
from grokinterp.progress import losses

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

P = 7
# What a model reads, and how many more tokens, positions and classes than that it has.
LAYOUTS = {
    "operator": ({"layout": "a op b ="}, (0, 0, 0)),
    "operator, a class a word": ({"layout": "a op b ="}, (0, 0, 2)),
    "second operand first": ({"layout": "b op a ="}, (0, 0, 0)),
    "sign first": ({"layout": "= a b"}, (0, 0, 0)),
    "nothing at the end": ({"layout": "a op b"}, (0, 0, 0)),
    "division": ({"layout": "a op b =", "operation": "divide"}, (0, 0, 0)),
    "numbers last, as in openai/grok": (
        {
            "layout": "eos a / b =", "operation": "divide", "operand_ids": 6, "answer_ids": 6,
            "token_ids": {"eos": 0, "=": 1, "/": 4},
        },
        (3, 2, 3),
    ),
}  # fmt: skip


def trained(task, more):
    """A network that answers every pair of a task, from the first seed that does it here."""
    for seed in range(5):
        shape, weights = untrained(task, more, seed)
        gradients = shape.gradients_on(task.tokens, task.targets, gi.Recipe().build("objective"))
        names = shape.trained("all")
        leaves = {name: torch.nn.Parameter(weights[name]) for name in names}
        optimizer = torch.optim.AdamW(leaves.values(), lr=5e-3, weight_decay=0.0)
        for step in range(1000):
            now = {**weights, **{name: leaf.detach() for name, leaf in leaves.items()}}
            if step % 50 == 0:
                own = shape.forward(now, task.tokens)
                sure = torch.nn.functional.cross_entropy(own, task.targets) < 0.1
                if sure and (own.argmax(1) == task.targets).all():
                    return shape.hooked(now)
            for name, gradient in gradients(now).items():
                if name in leaves:
                    leaves[name].grad = gradient
            optimizer.step()
    raise AssertionError("no seed has learned")


def untrained(task, more, seed=0):
    """The shape and initial weights of a network for a task, with more tokens than it uses."""
    tokens, positions, classes = more
    shape = TransformerArchitecture(
        n_layers=1, n_heads=2, d_model=32, d_head=16, d_mlp=64,
        d_vocab=task.d_vocab + tokens, n_ctx=task.tokens.shape[1] + positions,
        d_vocab_out=task.reads.n_answer_classes + classes,
    )  # fmt: skip
    return shape, shape.initial(seed=seed)


def as_it_starts(task):
    shape, weights = untrained(task, (0, 0, 0))
    return shape.hooked(weights)


@pytest.fixture(scope="module")
def network():
    """The trained network of each layout, made once, with its task."""
    made = {}

    def of(name):
        if name not in made:
            settings, more = LAYOUTS[name]
            task = gi.ModularTask(**{"operation": "subtract", "p": P, **settings})
            made[name] = trained(task, more), task
        return made[name]

    return of


def saved(model, folder, name="step_400.pt"):
    torch.save(model.state_dict(), folder / name)
    return folder / name


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_saved_network_is_the_live_one(name, network, tmp_path):
    (settings, _), (model, task) = LAYOUTS[name], network(name)
    own = model(task.tokens)[:, -1]
    right = task.of_answers(own).argmax(1) == task.labels
    assert right.all()
    # A bridge keeps the rows of all heads in one matrix, which do not show how many there are.
    settings = {"operation": "subtract", "p": P, "n_heads": 2, **settings}
    run = gi.load(saved(model, tmp_path), **settings)
    assert run.task == task
    seen, live = run.snapshot(), gi.snapshot(model, task)
    assert torch.equal(seen.logits.argmax(1) == task.labels, right)
    assert torch.allclose(seen.all_logits, own, atol=1e-4)
    found = [gi.key_frequencies(x) for x in (run, live)]
    assert found[0].frequencies == found[1].frequencies
    assert list(found[0].shares.values()) == pytest.approx([*found[1].shares.values()], abs=1e-5)
    highest = task.answer_group.order // 2
    one, other = (losses.restricted_loss(x, [1, highest]) for x in (seen, live))
    assert one == pytest.approx(other, abs=1e-5)
    found = [
        gi.ablate(x, [hooks.heads(0, 1), hooks.neurons(0, [0, 5])], frequencies=[1], placebos=2)
        for x in (seen, live)
    ]
    first, second = (x.table().loss_all.tolist() for x in found)
    assert first == pytest.approx(second, abs=1e-5)
    assert any("answers 100.0% of the table right" in note for note in run.notes)


@pytest.mark.parametrize("name", ["operator", "division", "sign first", "nothing at the end"])
def test_a_layout_that_answers_far_better_is_found(name, network, tmp_path):
    model, task = network(name)
    run = gi.load(saved(model, tmp_path), operation=task.operation)
    assert torch.equal(run.task.tokens, task.tokens)  # words may have other names
    note = next(note for note in run.notes if note.startswith("layout="))
    assert "answers 100.0% of a sample right, in any other layout at most" in note
    rival = float(re.search(r"at most ([\d.]+)%", note)[1])
    assert rival < 75


def test_layout_and_operation_are_found_together(network, tmp_path):
    model, _ = network("operator")
    run = gi.load(saved(model, tmp_path))
    assert run.task == gi.ModularTask("subtract", P, layout="a op b =", token_ids={"op": 7, "=": 8})
    assert any(note.startswith("operation=subtract") for note in run.notes)


def test_of_a_network_that_answers_nothing_no_layout_is_guessed(tmp_path):
    task = gi.ModularTask("add", P, layout="a op b =")
    path = saved(as_it_starts(task), tmp_path)
    with pytest.raises(InputError, match='such as layout="a op b ="'):
        gi.load(path)
    usual = saved(as_it_starts(gi.ModularTask("add", P)), tmp_path, "usual.pt")
    run = gi.load(usual)
    assert run.task.layout == "a b ="
    assert not any(note.startswith("layout=") for note in run.notes)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"p": P, "layout": "a b ="}, "9 tokens, 4 positions and 7 classes"),
        ({"p": P, "layout": "a op b"}, "has 8 tokens, 3 positions"),
        ({"p": 5, "layout": "a op b ="}, "has 7 tokens, 4 positions"),
        ({"p": P, "layout": "a +"}, '"a" and "b" once each'),
        ({"layout": "a op b =", "p": P, "token_ids": {"op": 7}}, "token_ids="),
        ({"layout": "a op b =", "p": P, "token_ids": {"op": 7, "=": 9}}, "at least 10 tokens"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(settings, told, network, tmp_path):
    model, _ = network("operator")
    with pytest.raises(InputError, match=re.escape(told)) as refused:
        gi.load(saved(model, tmp_path), **settings)
    assert "\n" not in str(refused.value)


def test_training_rows_are_rows_pairs_or_what_the_network_reads(network, tmp_path):
    model, task = network("numbers last, as in openai/grok")
    rows = torch.randperm(task.n_inputs, generator=torch.Generator().manual_seed(1))[:20]
    settings = {"p": P, **LAYOUTS["numbers last, as in openai/grok"][0]}
    for given in (rows, task.operands[rows], task.tokens[rows]):
        content = {"model": model.state_dict(), "step": 3, "train_indices": given}
        torch.save(content, tmp_path / "model.pt")
        run = gi.load(tmp_path / "model.pt", **settings)
        assert torch.equal(run.train_indices.sort().values, rows.sort().values)


def test_the_command_line_takes_layout_and_ids(run, network, tmp_path):
    model, task = network("numbers last, as in openai/grok")
    path = saved(model, tmp_path)
    status, _, errors = run(
        "import", path, "--out", tmp_path / "run", "--set", f"p={P}", "--set", "operation=/",
        "--set", "layout=eos a / b =", "--set", "operand_ids=6", "--set", "answer_ids=6",
        "--set", 'token_ids={eos = 0, "=" = 1, "/" = 4}',
    )  # fmt: skip
    assert status == 0, errors
    imported = gi.load(tmp_path / "run")
    assert imported.task == task
    assert (imported.snapshot().logits.argmax(1) == task.labels).all()
    out = gi.export(imported, tmp_path / "demo.pth", format="demo")
    with pytest.raises(InputError, match="has no place for inputs"):
        gi.export(imported, tmp_path / "paper.pth", format="paper")
    again = gi.load(out, p=P, **LAYOUTS["numbers last, as in openai/grok"][0])
    assert torch.equal(again.snapshot().logits, imported.snapshot().logits)
