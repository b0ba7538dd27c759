"""Wrapped, pruned and unusual models: looked at as what they compute, or refused in one line."""

import copy
import importlib.util
import re
import subprocess
import sys
import warnings
from functools import partial

import pytest
import torch
from torch.nn.utils import parametrizations, prune
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import grokinterp as gi
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.models.transformer_lens_adapter import canonical_weights
from tests.models_of_users import hooks_of

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

P = 7
TASK = gi.ModularTask("add", p=P)
MASK = torch.arange(P * P) % 3 == 0
NEURONS = "blocks.0.mlp.hook_post"
IS_BRIDGE = importlib.util.find_spec("transformer_lens.HookedTransformer") is None  # 4.x
only_hooked_transformers = pytest.mark.skipif(
    IS_BRIDGE, reason="of a TransformerBridge it is refused: see the test of that"
)


def plain(**sizes):
    architecture = TransformerArchitecture(
        **{
            "n_layers": 1, "n_heads": 2, "d_model": 16, "d_head": 8, "d_mlp": 32,
            "d_vocab": P + 1, "d_vocab_out": P, "n_ctx": 3,
        } | sizes
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return architecture.hooked(architecture.initial(seed=3, scale=3.0))


def logits_of(model):
    """What the model itself answers, in evaluation, at the last position."""
    twin = model.training
    model.eval()
    with torch.no_grad():
        found = model(TASK.tokens)[:, -1]
    model.train(twin)
    return found


def state_of(model):
    """Everything that must be as it was: weights, hooks, modes, flags."""
    return (
        {name: tensor.clone() for name, tensor in torch.nn.Module.state_dict(model).items()},
        [(len(part._forward_pre_hooks), len(part._forward_hooks)) for part in model.modules()],
        [part.training for part in model.modules()],
        [(id(each), each.requires_grad, each.grad) for each in model.parameters()],
    )


def assert_same_state(before, after):
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1:] == after[1:]


def look(model, tmp_path):
    """All that takes a model of the user's, by name."""
    with gi.Recorder(tmp_path / "run", task=TASK, train_mask=MASK) as recorder:
        metrics = recorder.save(0, model)
    seen = gi.snapshot(model, TASK, train_mask=MASK)
    ablated = gi.ablate(model, task=TASK, train_mask=MASK, frequencies=[1], placebos=2)
    return {
        "logits": seen.logits,
        "neurons": seen.activation(NEURONS),
        "shares": gi.key_frequencies(model, task=TASK, train_mask=MASK).table(),
        "ablated": ablated.table(),
        "metrics": metrics,
        "recorded": gi.load(tmp_path / "run").snapshot().logits,
    }


compiled = partial(torch.compile, backend="eager")  # the usual one takes seconds to import


def wrap_ddp(model):
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        return torch.nn.parallel.DistributedDataParallel(model)
    finally:
        torch.distributed.destroy_process_group()


def averaged(model):
    """The average of the model alone, which is the model."""
    wrapped = torch.optim.swa_utils.AveragedModel(model)
    wrapped.update_parameters(model)
    return wrapped


WRAPPERS = {
    "torch.compile": compiled,
    "DataParallel": torch.nn.DataParallel,
    "DistributedDataParallel": wrap_ddp,
    "AveragedModel": averaged,
    "two of them": lambda model: compiled(torch.nn.DataParallel(model)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_model_gives_what_the_inner_one_gives(name, tmp_path):
    inner = plain()
    expected = look(inner, tmp_path / "inner")
    wrapped = WRAPPERS[name](inner)
    before = state_of(wrapped)
    found = look(wrapped, tmp_path / "wrapped")
    assert_same_state(before, state_of(wrapped))
    for key in ("logits", "neurons", "recorded"):
        assert torch.equal(found[key], expected[key]), key
    for key in ("shares", "ablated"):
        assert found[key].equals(expected[key]), key
    assert found["metrics"] == expected["metrics"]


def test_an_average_is_looked_at_as_the_average():
    one, other = plain(), plain()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    average = torch.optim.swa_utils.AveragedModel(one)
    for model in (one, other):
        average.update_parameters(model)
    found = gi.snapshot(average, TASK)
    weights = canonical_weights(one)
    assert all(
        torch.allclose(found.weights[name], 0.75 * weights[name], atol=1e-7) for name in weights
    )
    torch.testing.assert_close(found.logits, logits_of(average.module), rtol=1e-5, atol=1e-5)


def test_a_model_compiled_in_place_is_looked_at_as_it_was_written():
    model = plain()
    expected = logits_of(model)
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    model.compile(backend=backend)
    found = gi.snapshot(model, TASK)
    hook = "blocks.0.attn.hook_q"  # only the hooked forward has it
    assert found.activation(hook).shape == (P * P, 2, 8)
    torch.testing.assert_close(found.logits, expected, rtol=1e-5, atol=1e-5)
    assert not calls
    if not IS_BRIDGE:  # which does not compile without warnings
        model(TASK.tokens[:2])
        assert calls  # and it goes on being compiled for its user


@only_hooked_transformers
def test_a_part_that_is_compiled_does_not_rename_weights(tmp_path):
    model = plain()
    expected = look(model, tmp_path / "plain")
    model.blocks[0].mlp = torch.compile(model.blocks[0].mlp, backend="eager")
    found = look(model, tmp_path / "compiled")
    assert torch.equal(found["logits"], expected["logits"])
    assert found["metrics"] == expected["metrics"]


def pruned(model):
    mlp = model.blocks[0].mlp
    prune.l1_unstructured(mlp, "W_in", amount=0.4)
    prune.random_unstructured(mlp, "W_in", amount=100)
    prune.l1_unstructured(model.embed, "W_E", amount=0.3)
    with torch.no_grad():  # an update since: what lies under the old name is out of date
        mlp.W_in_orig.mul_(1.5)


def weight_norm(model):
    mlp = model.blocks[0].mlp
    parametrizations.weight_norm(mlp, "W_in")
    with torch.no_grad():
        mlp.parametrizations.W_in.original0.mul_(1.5)


def old_weight_norm(model):
    mlp = model.blocks[0].mlp
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.utils.weight_norm(mlp, "W_in")
    with torch.no_grad():
        mlp.W_in_g.mul_(1.5)


def spectral_norm(model):
    parametrizations.spectral_norm(model.blocks[0].mlp, "W_in")


def old_spectral_norm(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.utils.spectral_norm(model.blocks[0].mlp, "W_in")
    with torch.no_grad():
        model.blocks[0].mlp.W_in_orig.mul_(3)


class Symmetric(torch.nn.Module):
    def forward(self, matrix):
        return matrix.triu() + matrix.triu(1).transpose(-1, -2)


def parametrized(model):
    torch.nn.utils.parametrize.register_parametrization(
        model.blocks[0].attn, "W_O", Symmetric(), unsafe=True
    )


MADE = {
    "pruned": pruned,
    "weight norm": weight_norm,
    "weight norm of before": old_weight_norm,
    "spectral norm": spectral_norm,
    "spectral norm of before": old_spectral_norm,
    "parametrized": parametrized,
}


@only_hooked_transformers
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", MADE)
def test_weights_made_of_others_are_those_the_model_computes_with(name, mode, tmp_path):
    model = plain(d_model=16, d_head=16, n_heads=1)
    untouched = gi.snapshot(model, TASK).logits
    MADE[name](model)
    model.train(mode == "train")
    expected = logits_of(model)
    assert not torch.allclose(untouched, expected, rtol=1e-2)
    before = state_of(model)
    found = look(model, tmp_path)
    assert_same_state(before, state_of(model))
    for key in ("logits", "recorded"):
        torch.testing.assert_close(found[key], expected, rtol=1e-4, atol=1e-4)
    assert set(gi.snapshot(model, TASK).weights) == set(canonical_weights(plain()))


@only_hooked_transformers
def test_pruned_weights_are_zero_in_a_recorded_run(tmp_path):
    model = plain()
    prune.custom_from_mask(model.blocks[0].mlp, "W_in", torch.arange(32).expand(16, 32) % 2)
    with gi.Recorder(tmp_path / "run", task=TASK) as recorder:
        recorder.save(0, model)
    weight = gi.load(tmp_path / "run").weights()["blocks.0.mlp.W_in"]
    assert (weight[:, ::2] == 0).all()
    assert torch.equal(weight[:, 1::2], model.blocks[0].mlp.W_in_orig.detach()[:, 1::2])


def test_a_pruned_mlp_of_this_package_trains_and_is_seen():
    recipe = gi.Recipe(model="mlp", p=P, widths=(24,))
    weights = recipe.architecture().initial(seed=1, rule=recipe.init)
    model = recipe.architecture().hooked(weights)
    task = recipe.build_task()
    hidden = model.get_submodule("blocks.0.mlp")
    prune.l1_unstructured(hidden, "W_in", amount=0.5)
    for _ in range(2):  # a second backward needs weights made anew
        model(task.model_inputs).square().sum().backward()
        with torch.no_grad():
            hidden.W_in_orig -= 1e-3 * hidden.W_in_orig.grad
    seen = gi.snapshot(model, task)
    assert torch.equal(seen.weights["blocks.0.mlp.W_in"] == 0, hidden.W_in_mask == 0)
    torch.testing.assert_close(seen.logits, model(task.model_inputs).detach())


@pytest.mark.skipif(not IS_BRIDGE, reason="a TransformerBridge has other parts")
def test_a_pruned_bridge_is_refused_with_what_to_do():
    model = plain()
    linear = next(part for part in model.modules() if isinstance(part, torch.nn.Linear))
    prune.l1_unstructured(linear, "weight", amount=0.5)
    with pytest.raises(gi.InputError, match=r"pruned or parametrized.*prune\.remove"):
        gi.snapshot(model, TASK)


class Holder(torch.nn.Module):
    """As a LightningModule holds the model that it trains."""

    def __init__(self, **models):
        super().__init__()
        for name, model in models.items():
            setattr(self, name, model)

    def forward(self, tokens):
        return self.model(tokens)


class Trainer:
    def __init__(self, model):
        self.network = model


REFUSED = {
    "holder": (lambda: Holder(model=plain()), "Holder is not .* holds one; give model.model:"),
    "compiled holder": (
        lambda: compiled(Holder(model=plain())), "give model._orig_mod.model:",
    ),
    "holder in a holder": (lambda: Holder(net=Holder(model=plain())), "give model.net.model:"),
    "two": (
        lambda: Holder(student=plain(), teacher=plain()), "give model.student or model.teacher:",
    ),
    "module": (lambda: torch.nn.Linear(2, 2), "the Linear cannot read the inputs of add mod 7"),
    "scripted": (lambda: torch.jit.script(torch.nn.Linear(2, 2)), "scripted or traced from"),
    "meta": (lambda: torch.nn.Module.to(plain(), "meta"), "on the meta device"),
    "not set up": (lambda: Users(setup=False), "call self.setup"),
    "integers": (lambda: with_integers(), "is torch.int8.*model.float"),
    "quantized": (
        lambda: torch.ao.quantization.quantize_dynamic(Users(), {torch.nn.Linear}),
        "is quantized",
    ),
}  # fmt: skip


class Users(HookedRootModule):
    """Of a user, with hook points and without a configuration; answers at the last position."""

    def __init__(self, *, tokens=P + 1, classes=P, dropout=0.0, gives="logits", setup=True):
        super().__init__()
        self.embed = torch.nn.Embedding(tokens, 8)
        self.hook_embed = HookPoint()
        self.dropout = torch.nn.Dropout(dropout)
        self.out = torch.nn.Linear(16, classes)
        self.gives = gives
        if setup:
            self.setup()

    def forward(self, tokens):
        embedded = self.hook_embed(self.embed(tokens))
        logits = self.out(self.dropout(embedded[:, :2].flatten(1)))
        if self.gives == "two axes":
            return logits
        every = logits[:, None].expand(-1, tokens.shape[1], -1)
        return {"logits": every, "tuple": (every, embedded), "labels": every.argmax(-1)}[self.gives]


def with_integers():
    model = Users()
    model.out.weight = torch.nn.Parameter(torch.ones(P, 16, dtype=torch.int8), requires_grad=False)
    return model


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_looked_into_is_refused_in_one_line(name, tmp_path):
    make, message = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make()
    calls = (
        lambda: gi.snapshot(model, TASK),
        lambda: gi.key_frequencies(model, task=TASK),
        lambda: gi.ablate(model, task=TASK),
        lambda: gi.Recorder(tmp_path / "run", task=TASK).save(0, model),
    )
    for call in calls:
        with pytest.raises(gi.InputError, match=message) as refused:
            call()
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) <= 400
    assert not (tmp_path / "run").exists()


class Plain(torch.nn.Module):
    """A module like any other: no hook points, no configuration, no positions."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(P + 1, 8)
        self.hidden = torch.nn.Linear(16, 24)
        self.out = torch.nn.Linear(24, P)

    def forward(self, tokens):
        return self.out(self.hidden(self.embed(tokens[:, :2]).flatten(1)).relu())


def test_a_plain_module_is_taken_as_it_is(tmp_path):
    model = Plain().train()
    before, expected = state_of(model), model(TASK.tokens).detach()
    seen = gi.snapshot(model, TASK)
    torch.testing.assert_close(seen.logits, expected)
    hidden = model.hidden(model.embed(TASK.tokens[:, :2]).flatten(1)).detach()
    torch.testing.assert_close(seen.activation("hidden"), hidden)
    assert gi.key_frequencies(model, task=TASK).shares
    table = gi.ablate(model, task=TASK, placebos=1).table()
    assert "hidden layer hidden (mean)" in set(table.ablation)
    with gi.Recorder(tmp_path / "run", task=TASK) as recorder:
        recorder.save(0, model)
    assert gi.load(tmp_path / "run").metrics.step.tolist() == [0]
    torch.testing.assert_close(
        gi.load(tmp_path / "run", module=Plain()).snapshot().logits, seen.logits
    )
    assert_same_state(before, state_of(model))
    assert not any(part._forward_hooks for part in model.modules())


def test_what_a_refused_holder_holds_is_taken():
    holder = Holder(model=plain())
    assert torch.equal(gi.snapshot(holder.model, TASK).logits, gi.snapshot(plain(), TASK).logits)


SCRIPT = """
import types, torch
import grokinterp as gi
task = gi.ModularTask("add", p=7)
weights = {"embed.W_E": torch.zeros(8, 4)}
class Sharded(torch.nn.Module):
    pass
Sharded.__name__ = "FullyShardedDataParallel"
given = (None, 3, "runs/mine", weights, {"lr": 1}, [weights], torch.nn.Linear, lambda x: x,
         torch.zeros(3), types.SimpleNamespace(network=Sharded()), Sharded())
for x in given:
    for call in (lambda: gi.snapshot(x, task), lambda: gi.key_frequencies(x, task=task),
                 lambda: gi.ablate(x, task=task),
                 lambda: gi.Recorder("never-written", task=task).save(0, x)):
        try:
            call()
        except gi.InputError as refused:
            print(refused)
"""
SAYS = (
    "None is not", "3 is not", "does not exist|is a path", "a state dict is weights alone",
    "dict is not", "list is not", "Linear is a class", "function is not", "Tensor is not",
    "SimpleNamespace is", "in pieces",
)  # fmt: skip


def test_what_is_no_model_is_refused_in_one_line():
    """In a process of its own: here the type checker would speak first."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4 * len(SAYS), done.stdout
    for place, line in enumerate(lines):
        assert re.search(SAYS[place // 4], line)


class TestModes:
    """The numbers are those of evaluation; the model's own mode is left alone."""

    def test_dropout_in_training_is_not_in_the_numbers(self):
        model = Users(dropout=0.5)
        model.train()
        model.out.eval()
        before = state_of(model)
        first, second = (gi.snapshot(model, TASK) for _ in range(2))
        assert torch.equal(first.logits, second.logits)
        assert torch.equal(first.activation("hook_embed"), second.activation("hook_embed"))
        assert_same_state(before, state_of(model))
        assert not torch.equal(model(TASK.tokens), model(TASK.tokens))
        model.eval()
        torch.testing.assert_close(first.logits, model(TASK.tokens)[:, -1].detach())

    def test_frozen_and_half_models_are_taken(self, tmp_path):
        for change in (
            lambda model: [each.requires_grad_(False) for each in model.parameters()],
            lambda model: torch.nn.Module.to(model, torch.bfloat16),
            lambda model: torch.nn.Module.to(model, torch.float64),
        ):
            model = plain()
            change(model)
            expected = logits_of(model)  # before: the first run of a bridge gives it hooks
            before = state_of(model)
            found = look(model, tmp_path / str(id(change)))
            assert_same_state(before, state_of(model))
            torch.testing.assert_close(found["logits"], expected, rtol=1e-2, atol=5e-2)

    def test_a_hook_that_stays_is_part_of_the_model(self, tmp_path):
        model = plain()
        alone = gi.snapshot(model, TASK).logits
        model.add_perma_hook("blocks.0.hook_mlp_out", lambda value, hook: 2 * value)
        n_hooks = hooks_of(model)
        found = gi.snapshot(compiled(model), TASK).logits
        torch.testing.assert_close(found, logits_of(model))
        assert not torch.allclose(found, alone, rtol=1e-2)
        assert hooks_of(model) == n_hooks
        with pytest.raises(gi.InputError, match="hooks"):
            gi.Recorder(tmp_path / "run", task=TASK).save(0, model)

    def test_copies_of_the_weights_outlive_what_training_does(self):
        model = plain()
        found = gi.snapshot(compiled(model), TASK)
        weights = copy.deepcopy(found.weights)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        assert all(torch.equal(found.weights[name], weights[name]) for name in weights)
