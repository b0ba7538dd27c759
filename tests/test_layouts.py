"""Layouts of inputs: what a model reads, and that ids change names and no number."""

import re
from dataclasses import replace

import pytest
import torch

import grokinterp as gi
from grokinterp import circuits
from grokinterp.base.errors import InputError
from grokinterp.encodings import coordinates, pruning_curve
from grokinterp.fourier import neuron_ipr
from grokinterp.models import TransformerArchitecture
from grokinterp.progress import losses
from grokinterp.tasks import task_from_dict

P = 11
OPENAI = {"layout": "eos a / b =", "operand_ids": 22, "answer_ids": 22,
          "token_ids": {"eos": 0, "=": 1, "/": 10}}  # fmt: skip


def transformer(task, *, classes=None, n_layers=1, d_vocab=None, n_ctx=None, seed=0):
    """A model of random weights that reads a task, biases among them."""
    shape = TransformerArchitecture(
        n_layers=n_layers, n_heads=2, d_model=16, d_head=8, d_mlp=24,
        d_vocab=d_vocab or task.d_vocab, n_ctx=n_ctx or task.tokens.shape[1],
        d_vocab_out=classes or task.p,
    )  # fmt: skip
    stream = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(size, generator=stream) / size[-1] ** 0.5
        for name, size in shape.parameter_shapes().items()
    }
    return shape.hooked(weights), weights


@pytest.mark.parametrize(
    ("settings", "first_tokens"),
    [
        ({}, [3, 4, 11]),
        ({"equals_token": False}, [3, 4]),
        ({"layout": "a b ="}, [3, 4, 11]),
        ({"layout": "a op b ="}, [3, 11, 4, 12]),
        ({"layout": "b op a ="}, [4, 11, 3, 12]),
        ({"layout": "= a = b ="}, [11, 3, 11, 4, 11]),
        ({"layout": "a op b =", "token_ids": {"op": 12, "=": 11}}, [3, 12, 4, 11]),
        ({"layout": "a op b =", "token_ids": [12, 11]}, [3, 12, 4, 11]),
        ({"layout": "= a b", "operand_ids": 1, "token_ids": {"=": 0}}, [0, 4, 5]),
        ({"layout": "a b", "operand_ids": list(range(10, -1, -1))}, [7, 6]),
        (OPENAI, [0, 25, 10, 26, 1]),
    ],
)
def test_tokens_are_those_of_the_words(settings, first_tokens):
    task = gi.ModularTask("add", P, **settings)
    row = 3 * P + 4
    assert task.operands[row].tolist() == [3, 4]
    assert task.tokens[row].tolist() == first_tokens
    assert task_from_dict(task.to_dict()) == task
    assert eval(repr(task), {"ModularTask": gi.ModularTask}) == task
    assert hash(task) == hash(task_from_dict(task.to_dict()))


def test_the_usual_layouts_are_the_tasks_of_ever():
    assert gi.ModularTask("add", P, layout="a b =") == gi.ModularTask("add", P)
    assert gi.ModularTask("add", P, layout="a b") == gi.ModularTask("add", P, False)
    assert gi.ModularTask("add", P, False).layout == "a b"
    assert "layout" not in gi.ModularTask("add", P).to_dict()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"layout": "a op ="}, '"a" and "b" once each'),
        ({"layout": "a b a"}, "no layout of two operands"),
        ({"layout": 3}, "no layout"),
        ({"layout": "a b " + "c " * 100}, "at most 64"),
        ({"layout": "a b", "equals_token": True}, "contradicts layout='a b'"),
        ({"layout": "a op b =", "token_ids": {"op": 11}}, 'give token_ids={"op": 11, "=": 12}'),
        ({"layout": "a op b =", "token_ids": {"op": 11, "=": 11}}, "have 11 twice"),
        ({"layout": "a op b =", "token_ids": {"op": 3, "=": 11}}, "have 3 twice"),
        ({"layout": "a op b =", "token_ids": 5}, "token_ids=5"),
        ({"layout": "a b", "token_ids": {"=": 11}}, "leave token_ids out"),
        ({"operand_ids": -1}, "operand_ids=-1"),
        ({"operand_ids": [1, 2]}, "no ids of 11 numbers"),
        ({"operand_ids": [0] * 11}, "twice"),
        ({"answer_ids": "x"}, "answer_ids='x'"),
        ({"answer_ids": [*range(10), 1e9]}, "answer_ids="),
    ],
)
def test_what_is_no_layout_or_no_ids_is_refused(settings, told):
    with pytest.raises(InputError, match=re.escape(told)) as refused:
        gi.ModularTask("add", P, **settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize(
    "layout", ["a op b =", "b op a =", "= a b", "a b =", "a = b", "bos a op b =", "a b"]
)
def test_a_snapshot_has_the_models_own_answers(layout, n_layers):
    task = gi.ModularTask("subtract", P, layout=layout)
    model, _ = transformer(task, n_layers=n_layers)
    own = model(task.tokens)[:, -1]
    seen = gi.snapshot(model, task)
    assert torch.allclose(seen.logits, own, atol=1e-4)
    _, cache = model.run_with_cache(task.tokens)
    name = f"blocks.{n_layers - 1}.attn.hook_pattern"
    assert torch.allclose(seen.activation(name), cache[name][:, :, -1], atol=1e-5)
    found = circuits.attention(seen, layer=n_layers - 1, frequencies=[1])
    words = layout.replace("=", "equals").split()
    assert list(found.positions) == words
    place = words.index("b")
    at_a_3_b_4 = cache[name][3 * P + 4, :, -1, place]
    assert torch.allclose(found.pattern[:, place, 3, 4], at_a_3_b_4, atol=1e-5)


def renamed(weights, task, other):
    """Weights with the rows and columns of a task's tokens and answers where another has them."""
    found = dict(weights)
    of, to = task.reads, other.reads
    embedding = torch.randn(other.d_vocab + 3, weights["embed.W_E"].shape[1])
    embedding[to.operand_rows] = weights["embed.W_E"][of.operand_rows]
    embedding[list(to.token_ids)] = weights["embed.W_E"][list(of.token_ids)]
    found["embed.W_E"] = embedding
    columns = to.n_answer_classes + 2
    for name in ("unembed.W_U", "unembed.b_U"):
        spread = torch.full((*weights[name].shape[:-1], columns), -3.0)
        spread[..., to.answer_columns] = weights[name][..., of.answer_columns]
        found[name] = spread
    return found


LOOKS = {
    "key frequencies": lambda x: gi.key_frequencies(x).table(),
    "restricted loss": lambda x: losses.restricted_loss(x, [1, 3]),
    "restricted loss of the demo": lambda x: losses.restricted_loss_demo(x, [1, 3]),
    "excluded loss": lambda x: losses.excluded_loss(x, [1, 3]),
    "excluded loss of the demo": lambda x: losses.excluded_loss_demo(x, [1, 3]),
    "trig loss": lambda x: losses.trig_loss(x, [1, 3]),
    "ablations": lambda x: gi.ablate(x, frequencies=[1, 3], placebos=2).table(),
    "attribution": lambda x: circuits.attribution(x, frequencies=[1, 3]).table(),
    "clusters": lambda x: circuits.neuron_clusters(x, frequencies=[1, 3]).table(),
    "readout": lambda x: circuits.attention_readout(x, frequencies=[1, 3]).table(),
    "fits": lambda x: circuits.attention_fits(x, frequencies=[1, 3]).table(),
    "circles": lambda x: circuits.isolate_circles(x, frequencies=[1, 3]).table(),
    "circularity": lambda x: circuits.circularity(x, frequencies=[1, 3]).table(),
    "algorithm": lambda x: circuits.algorithm(x, frequencies=[1, 3], n_samples=20).table(),
    "map": lambda x: circuits.neuron_logit_directions(x, frequencies=[1, 3]).table(),
    "localization": lambda x: neuron_ipr(x).table(),
}


@pytest.fixture(scope="module")
def twins():
    """The same network under two numberings, as snapshots with a split."""
    plain = gi.ModularTask("add", P, layout="a op b =")
    other = gi.ModularTask(
        "add", P, layout="a op b =", operand_ids=list(range(14, 3, -1)),
        token_ids={"op": 1, "=": 20}, answer_ids=list(range(5, 5 + P))[::-1],
    )  # fmt: skip
    model, weights = transformer(plain)
    moved = renamed(weights, plain, other)
    shape = gi.snapshot(model, plain).architecture
    sizes = {"d_vocab": len(moved["embed.W_E"]), "d_vocab_out": len(moved["unembed.b_U"])}
    twin = TransformerArchitecture(**{**shape.fields_given(), **sizes}).hooked(moved)
    mask = torch.arange(P * P) % 3 > 0
    return gi.snapshot(model, plain, train_mask=mask), gi.snapshot(twin, other, train_mask=mask)


def test_ids_do_not_change_the_answers(twins):
    one, other = twins
    assert torch.allclose(one.logits, other.logits, atol=1e-4)
    assert other.all_logits.shape[1] == 18
    assert torch.equal(
        torch.cat([block for _, block in other.logit_blocks(torch.arange(9))]), other.logits[:9]
    )


@pytest.mark.parametrize("look", LOOKS)
def test_ids_do_not_change_a_number(twins, look):
    one, other = (LOOKS[look](each) for each in twins)
    if not hasattr(one, "columns"):
        assert one == pytest.approx(other, abs=1e-5)
        return
    assert list(one.columns) == list(other.columns)
    for column in one.columns:
        mine, theirs = one[column].tolist(), other[column].tolist()
        if all(isinstance(x, float) for x in mine):
            assert mine == pytest.approx(theirs, abs=2e-4, rel=2e-4, nan_ok=True), column


def test_pruning_in_the_fourier_basis_finds_tokens_and_answers(twins):
    first = [pruning_curve(x, basis="fourier", fractions=[0, 0.5, 1], scope="layer") for x in twins]
    assert first[0].unpruned.acc_all == pytest.approx(first[1].unpruned.acc_all)
    for seen in twins:  # of a pure wave of the embedding and of the answers little is left out
        order = seen.task.answer_group.tokens
        k = torch.arange(P) * (2 * torch.pi / P)
        wave = torch.stack([k.cos(), k.sin()], dim=1).float()
        embedding = torch.zeros_like(seen.weights["embed.W_E"])
        embedding[seen.task.reads.operand_rows[order], :2] = wave
        unembedding = torch.zeros_like(seen.weights["unembed.W_U"])
        unembedding[:2, seen.task.reads.answer_columns[order]] = wave.T
        weights = {"embed.W_E": embedding, "unembed.W_U": unembedding}
        places = {
            "tokens": seen.task.reads.operand_rows[order],
            "answers": seen.task.reads.answer_columns[order],
        }
        found = coordinates(weights, "fourier", **places)
        for name, weight in weights.items():
            assert (found.values[name].abs() > 1e-6).sum() == 2
            assert torch.allclose(found.restore(name, found.values[name]).float(), weight)


@pytest.mark.parametrize("kind", [list, tuple, iter, torch.tensor])
def test_ids_of_any_kind_are_kept(kind):
    ids = [*range(P - 1, -1, -1)]
    task = gi.ModularTask("add", P, answer_ids=kind(ids), operand_ids=kind(ids))
    assert task.answer_ids == task.operand_ids == tuple(ids)
    assert task.targets.tolist() == [P - 1 - c for c in task.labels.tolist()]
    one_by_one = gi.ModularTask("add", P, operand_ids=kind([*range(2, P + 2)]), token_ids=[0])
    assert one_by_one == gi.ModularTask("add", P, operand_ids=2, token_ids=[0])


def test_a_task_changes_its_layout_where_the_other_word_for_it_is_taken_back():
    task = gi.ModularTask("add", P)
    for changes in ({"layout": "a op b"}, {"equals_token": False}):
        with pytest.raises(InputError, match="give one of them, and None for the other"):
            replace(task, **changes)
    assert replace(task, layout="a op b", equals_token=None).layout == "a op b"
    assert replace(task, layout=None, equals_token=False) == gi.ModularTask("add", P, False)


def test_a_recipe_says_what_it_reads_once():
    layout = gi.Recipe(p=P, layout="a op b =")
    with pytest.raises(InputError, match="equals_token=False is given beside layout='a op b ='"):
        layout.replace(equals_token=False)
    assert gi.Recipe(p=P, equals_token=False).replace(layout="a op b =").build_task() == (
        layout.build_task()
    )


def test_ids_are_learnt_and_kept(tmp_path):
    recipe = gi.Recipe(
        p=P, operation="divide", layout="eos a / b =", operand_ids=4, answer_ids=4,
        token_ids={"eos": 0, "=": 1, "/": 3}, d_model=16, n_heads=2, d_head=8, d_mlp=16,
        steps=30, train_fraction=0.7, checkpoints="every:15", lr=1e-2,
    )  # fmt: skip
    assert gi.Recipe.from_dict(recipe.to_dict()) == recipe
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.to_toml())
    assert gi.Recipe.from_toml(file) == recipe
    run = gi.train(recipe, tmp_path / "run")
    again = gi.load(tmp_path / "run")
    assert again.task == run.task == recipe.build_task()
    assert again.task.n_inputs == P * (P - 1)
    last = again.snapshot()
    assert last.all_logits.shape == (110, 15)
    targets = last.task.labels + 4
    losses_of = torch.nn.functional.cross_entropy(last.all_logits, targets, reduction="none")
    assert again.metrics.train_loss.iloc[-1] == pytest.approx(
        float(losses_of[again.train_mask].mean()), rel=1e-4
    )
    assert again.metrics.train_loss.iloc[-1] < again.metrics.train_loss.iloc[0]


@pytest.mark.parametrize("classes", [P, P + 2])
def test_a_model_has_the_answers_or_a_class_for_every_word_more(classes):
    task = gi.ModularTask("add", P, layout="a op b =")
    model, _ = transformer(task, classes=classes)
    assert gi.snapshot(model, task).logits.shape == (P * P, P)


@pytest.mark.parametrize("sizes", [{"classes": P + 1}, {"d_vocab": P + 3}, {"n_ctx": 5}])
def test_a_larger_model_is_taken_only_with_layout_and_ids(sizes):
    task = gi.ModularTask("add", P, layout="a op b =")
    model, _ = transformer(task, **sizes)
    with pytest.raises(InputError, match=r"give the ids too, such as token_ids=\{'op': 11"):
        gi.snapshot(model, task)
    told = gi.ModularTask("add", P, layout="a op b =", token_ids={"op": P, "=": P + 1})
    seen = gi.snapshot(model, told)
    assert torch.allclose(seen.logits, model(told.tokens)[:, -1, :P], atol=1e-4)


def test_a_smaller_model_is_refused_whatever_is_given():
    model, _ = transformer(gi.ModularTask("add", P))
    task = gi.ModularTask("add", P, layout="a op b =", token_ids={"op": P, "=": P + 1})
    with pytest.raises(InputError, match="at least 13 tokens, 4 positions"):
        gi.snapshot(model, task)


def test_a_recorder_writes_a_run_of_a_layout(tmp_path):
    task = gi.ModularTask("divide", P, layout="a op b =")
    model, _ = transformer(task)
    mask = torch.arange(task.n_inputs) % 2 == 0
    recorder = gi.Recorder(tmp_path / "run", task=task, train_mask=mask)
    recorder.save(0, model)
    recorder.close()
    run = gi.load(tmp_path / "run")
    assert run.task == task
    assert torch.equal(run.snapshot().logits, gi.snapshot(model, task).logits)
    assert '"format": 2' in (tmp_path / "run" / "run.json").read_text()
