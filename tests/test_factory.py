"""Networks that weights do not show: a function that the user names makes them."""

import json
import re
import subprocess
import sys
import textwrap

import pytest
import torch

import grokinterp as gi
from grokinterp.base import plugins
from grokinterp.base.errors import InputError
from grokinterp.circuits import hooks
from grokinterp.progress import losses

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

P = 7
CODE = '''
import torch
from torch.nn import Embedding, Linear, Module

print("imported")


class Product(Module):
    """Multiplies the two embeddings: of no kind that names and shapes show."""

    def __init__(self, p, width):
        super().__init__()
        self.table, self.hidden = Embedding(p, width), Linear(width, 4 * width)
        self.last = Linear(4 * width, p)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, pairs):
        a, b = self.table(pairs).unbind(1)
        return self.last(torch.relu(self.hidden(self.scale * a * b)))


def build(p=7, width=16):
    return Product(p, width)


def anything(**config):
    return Product(config["p"], config["width"])


def needs(p, depth):
    return Product(p, depth)


def wrong():
    return "a module"


def broken():
    raise RuntimeError("no such luck")


from os import system
'''


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A module of the user's in the current folder, forgotten afterwards."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(CODE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)
    plugins._IMPORTED.discard(name)


@pytest.fixture
def trained(named):
    """Its network, trained to answer a + b mod 7, in three checkpoints with their configuration."""
    torch.manual_seed(0)
    made = __import__(named).build(P)
    task = gi.ModularTask("add", P, False)
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.02)
    for step in range(301):
        if step in (0, 150, 300):
            torch.save({"model": made.state_dict(), "step": step}, f"step_{step}.pt")
        if step == 300:
            break
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(made(task.tokens), task.labels).backward()
        optimizer.step()
    assert (made(task.tokens).argmax(1) == task.labels).all()
    with open("config.json", "w") as file:
        json.dump({"p": P, "width": 16, "lr": 0.02}, file)
    return made


def test_the_saved_network_is_the_live_one(named, trained, tmp_path):
    task = gi.ModularTask("add", P, False)
    run = gi.load(tmp_path, model=f"{named}:build")
    assert list(run.steps) == [0, 150, 300]
    assert run.task == task
    seen, live = run.snapshot(), gi.snapshot(trained, task)
    assert torch.equal(seen.logits, live.logits)
    assert gi.key_frequencies(run).frequencies == gi.key_frequencies(live).frequencies
    one, other = (losses.restricted_loss(x, [1, 2]) for x in (seen, live))
    assert one == pytest.approx(other, abs=1e-5)
    found = [
        gi.ablate(x, [hooks.neurons("hidden", [0, 1, 2])], frequencies=[1], placebos=2).table()
        for x in (seen, live)
    ]
    assert found[0].loss_all.tolist() == pytest.approx(found[1].loss_all.tolist(), abs=1e-5)
    assert any(f"loaded into what {named}:build returns" in note for note in run.notes)


@pytest.mark.parametrize("function", ["build", "anything"])
def test_it_is_called_with_what_the_configuration_says(named, trained, tmp_path, function):
    run = gi.load(tmp_path, model=f"{named}:{function}")
    taken = run.architecture.factory.arguments
    assert taken["p"] == P
    assert taken["width"] == 16
    assert ("lr" in taken) == (function == "anything")


def test_a_module_may_be_given_itself(trained, tmp_path):
    run = gi.load(tmp_path, module=type(trained)(P, 16))
    assert torch.equal(run.snapshot().logits, gi.snapshot(trained, run.task).logits)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("{}", "give module:function"),
        ("{}:", "give module:function"),
        ("{}:build()", "give module:function"),
        ("no_such_module_of_mine:build", "cannot be imported"),
        ("{}:bild", "defines no function 'bild'; it defines Product, build, anything"),
        ("{}:system", "defines no function 'system'"),
        ("{}:needs", "needs 'depth', which no configuration"),
        ("{}:wrong", "returns 'a module'; return the torch.nn.Module"),
        ("{}:broken", "raised RuntimeError (no such luck); mend its code"),
        ("os:system", "os"),
    ],
)
def test_what_makes_no_module_is_refused_in_one_line(named, trained, tmp_path, model, told):
    with pytest.raises(InputError, match=re.escape(told)) as refused:
        gi.load(tmp_path, model=model.format(named))
    assert "\n" not in str(refused.value)


def test_every_checkpoint_is_loaded_strictly(named, trained, tmp_path):
    def refusal(change):
        state = trained.state_dict()
        change(state)
        torch.save(state, tmp_path / "one.pt")
        with pytest.raises(InputError) as refused:
            gi.load(tmp_path / "one.pt", model=f"{named}:build", p=P)
        return str(refused.value)

    assert "lacks 'scale'" in refusal(lambda state: state.pop("scale"))
    assert "has besides the module's 'more'" in refusal(
        lambda state: state.update(more=torch.ones(1))
    )
    assert "size mismatch for scale" in refusal(lambda state: state.update(scale=torch.ones(3)))
    assert "not finite" in refusal(lambda state: state.update(scale=torch.tensor([torch.nan])))
    wrapped = {f"_orig_mod.{key}": x for key, x in trained.state_dict().items()}
    torch.save(wrapped, tmp_path / "one.pt")
    run = gi.load(tmp_path / "one.pt", model=f"{named}:build", p=P)
    assert torch.equal(run.snapshot().logits, gi.snapshot(trained, run.task).logits)


def test_p_is_asked_for_and_the_layout_is_the_one_that_it_reads(named, trained, tmp_path):
    alone = tmp_path / "alone" / "model.pt"
    alone.parent.mkdir()
    torch.save(trained.state_dict(), alone)
    with pytest.raises(InputError, match="does not say p"):
        gi.load(alone, model=f"{named}:build")
    run = gi.load(alone, model=f"{named}:build", p=P)
    assert run.task.layout == "a b"  # with "=" there are three vectors to unpack
    with pytest.raises(InputError, match="set layout= to what it reads"):
        gi.load(alone, model=f"{named}:build", p=P, layout="a op b =")


def run_command(*arguments, folder):
    command = [sys.executable, "-m", "grokinterp", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_code_runs_only_for_whom_names_it(named, trained, tmp_path):
    done = run_command("import", ".", "--out", "run", "--set", f"model={named}:build",
                       "--set", "split=torch", "--set", "data_seed=0", "--set",
                       "train_fraction=0.5", folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "imported" in done.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["architecture"]["factory"] == f"{named}:build"
    sys.modules.pop(named)
    opened = gi.load(tmp_path / "run")
    assert opened.metrics.test_acc.iloc[-1] == 1.0
    with pytest.raises(InputError, match=f"grokinterp --plugin {named}"):
        opened.snapshot().logits  # noqa: B018
    assert named not in sys.modules
    phases = run_command("phases", "run", "--json", folder=tmp_path)
    assert "imported" not in phases.stderr
    assert json.loads(phases.stdout)["key_frequencies"] is None
    measured = run_command("--plugin", named, "measure", "run", "--json", folder=tmp_path)
    assert measured.returncode == 0, measured.stderr
    last = json.loads(measured.stdout)
    assert "imported" in measured.stderr
    assert "restricted_loss" in json.dumps(last)


def test_a_function_that_ends_the_process_is_refused(tmp_path, monkeypatch, trained):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "ending_net.py").write_text("def build():\n    raise SystemExit(3)\n")
    with pytest.raises(InputError, match=r"ending_net:build raised SystemExit \(3\)"):
        gi.load(tmp_path, model="ending_net:build", p=P)
    with pytest.raises(InputError, match="defines no function 'system'") as refused:
        gi.load(tmp_path, model="os:system", p=P)
    assert len(str(refused.value)) <= 400
