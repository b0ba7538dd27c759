"""Plug-ins as people write them at first: what is wrong is said in one line, before training."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
import torch
from torch import nn

import grokinterp as gi
from grokinterp.base import plugins
from grokinterp.base.keys import key
from grokinterp.models.architecture import MODELS
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.progress import MEASURES
from grokinterp.tasks import has_mirrors
from grokinterp.tasks.task import unmirrored_rows
from grokinterp.training.learner import Learner

pytestmark = pytest.mark.usefixtures("passing")
SMALL = {"p": 5, "d_model": 8, "n_heads": 1, "d_head": 4, "d_mlp": 4}
frozen = dataclass(frozen=True, kw_only=True)


class Parity(gi.tasks.TableTask):
    n_classes = 2

    def inputs(self):
        return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * self.bits)

    def answers(self):
        return self.inputs().sum(dim=1).long() % 2


def task(kind=None, name="parity", **fields):
    """A registered task with these methods and attributes."""
    made = type("Mine", (kind or Parity,), {"__annotations__": {"bits": int}, "bits": 4, **fields})
    return gi.register.task(name)(frozen(made))


def net(module=None):
    @gi.register.model("net")
    @frozen
    class Net(gi.models.ModuleArchitecture):
        width: int = 4

        def module(self, task):
            if module is not None:
                return module(task)
            shape = task.model_inputs.shape[1]
            return nn.Sequential(nn.Linear(shape, self.width), nn.ReLU(), nn.Linear(self.width, 2))

    return Net


def raising(*given, **named):
    raise ZeroDivisionError("mine")


RAISED = r"raised ZeroDivisionError \(mine\); mend its code\."


class TestUpdates:
    def learner(self, **kinds):
        return Learner([gi.Recipe(**SMALL, **kinds)], "cpu")

    def test_a_filter_has_the_gradients_of_trained_weights_alone_in_an_ensemble_too(self):
        seen = []

        @gi.register.gradient_filter("clip")
        @frozen
        class Clip(gi.updates.GradientFilter):
            def start(self, weights):
                seen.append(set(weights))
                return {}

            def filtered(self, gradients, state):
                seen.append(set(gradients))
                norm = sum(x.square().sum() for x in gradients.values()).sqrt()
                return {name: x * min(1.0, 0.01 / float(norm)) for name, x in gradients.items()}

        recipe = gi.Recipe(**SMALL, gradient_filter="clip", optimizer="sgd", lr=1.0)
        one, two = Learner([recipe], "cpu"), Learner([recipe] * 2, "cpu")
        for step in range(20):
            one.update(step)
            two.update(step)
        assert all(names == seen[0] for names in seen)
        for name, weight in one.member(0).items():
            assert torch.allclose(weight, two.member(1)[name], atol=1e-5)

    @pytest.mark.parametrize(
        ("gives", "says"),
        [
            (lambda logits: logits.mean(dim=1), "a Tensor of shape"),
            (lambda logits: 0.5, "gives 0.5; give one number"),
            (lambda logits: logits.mean().detach(), "computed from the logits"),
            (raising, RAISED),
        ],
    )
    def test_an_objective_gives_a_number_of_the_logits(self, gives, says):
        @gi.register.objective("odd")
        @frozen
        class Odd(gi.updates.Objective):
            def loss(self, logits, labels):
                return gives(logits)

        with pytest.raises(gi.InputError, match=f"^objective='odd' .*{says}"):
            self.learner(objective="odd").update(0)

    @pytest.mark.parametrize(
        ("build", "says"),
        [
            (lambda parameters: None, "builds None; build a torch.optim.Optimizer"),
            (
                lambda parameters: torch.optim.SGD([x.clone() for x in parameters]),
                "has other parameters",
            ),
            (lambda parameters: torch.optim.SGD(parameters, lr=-1), "raised ValueError"),
        ],
    )
    def test_an_optimizer_is_one_of_the_weights(self, build, says):
        @gi.register.optimizer("odd")
        @frozen
        class Odd(gi.updates.Optimizer):
            def build(self, parameters):
                return build(parameters)

        with pytest.raises(gi.InputError, match=f"^optimizer='odd' {says}"):
            self.learner(optimizer="odd")

    def test_its_own_rate_counts_after_the_warm_up_and_goes_on_with_the_run(self):
        class Halving(torch.optim.SGD):
            def step(self):
                super().step()
                self.param_groups[0]["lr"] /= 2

        @gi.register.optimizer("halving")
        @frozen
        class Halves(gi.updates.Optimizer):
            def build(self, parameters):
                return Halving(parameters, lr=1.0)

        one, other = (self.learner(optimizer="halving", warmup=2) for _ in range(2))
        rates = []
        for step in range(5):
            one.update(step)
            rates.append(float(one._updates[0]._optimizer.param_groups[0]["lr"]))
        assert rates == [0, 0.25, 0.5, 0.25, 0.125]
        other.load_states([one.state(0)])
        one.update(5)
        other.update(5)
        for name, weight in one.member(0).items():
            assert torch.equal(weight, other.member(0)[name])

    def test_what_it_remembers_of_no_weight_is_refused(self):
        class Global(torch.optim.SGD):
            def step(self):
                self.state["global"]["n"] = 1
                super().step()

        @gi.register.optimizer("global")
        @frozen
        class Globals(gi.updates.Optimizer):
            def build(self, parameters):
                return Global(parameters, lr=1.0)

        learner = self.learner(optimizer="global")
        learner.update(0)
        with pytest.raises(gi.InputError, match="remembers something of no weight"):
            learner.state(0)

    def test_a_state_is_of_tensors_of_its_own(self):
        @gi.register.constraint("stay")
        @frozen
        class Stay(gi.updates.Constraint):
            def start(self, weights):
                return dict(weights)

            def constrained(self, weights, state):
                return state

        learner = self.learner(constraint="stay")
        before = {name: x.clone() for name, x in learner.trained.items()}
        learner.update(0)
        assert all(torch.equal(x, before[name]) for name, x in learner.trained.items())

        @gi.register.gradient_filter("count")
        @frozen
        class Count(gi.updates.GradientFilter):
            def start(self, weights):
                return {"n": 0}

            def filtered(self, gradients, state):
                return gradients

        with pytest.raises(gi.InputError, match=r"^gradient_filter='count' starts with \{'n': 0\}"):
            self.learner(gradient_filter="count")


class TestTasks:
    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"inputs": raising}, RAISED),
            (
                {"inputs": lambda self: torch.randn(16, 3)},
                "are others when they are asked for again",
            ),
            ({"__post_init__": raising}, RAISED),
            ({"own_split": "mine"}, "has one of train_indices and own_split; give both, or none"),
            ({"train_indices": property(lambda self: torch.arange(3))}, "has one of train_indices"),
        ],
    )
    def test_what_is_wrong_with_one_is_said_before_training(self, fields, says):
        task(**fields)
        net()
        with pytest.raises(gi.InputError, match=says):
            gi.Recipe(task="parity", model="net")

    @pytest.mark.parametrize(
        ("rows", "says"),
        [
            ([0, 0], "names a row twice"), ([], "are no rows|names no row"),
            ([99], "names row 99, which the table does not have"), ([0.5], "which are no rows"),
        ],
    )  # fmt: skip
    def test_the_rows_of_its_own_split_are_rows(self, rows, says, tmp_path):
        task(own_split="mine", train_indices=property(lambda self: torch.tensor(rows)))
        net()
        with pytest.raises(gi.InputError, match=says):
            gi.train(gi.Recipe(task="parity", model="net", steps=1), tmp_path / "run")

    def test_a_field_that_is_no_argument_is_not_stored(self, tmp_path):
        @gi.register.task("halved")
        @frozen
        class Halved(Parity):
            bits: int = 4
            half: int = field(init=False, default=0)

            def __post_init__(self):
                object.__setattr__(self, "half", self.bits // 2)

        net()
        run = gi.train(gi.Recipe(task="halved", model="net", steps=1), tmp_path / "run")
        assert gi.load(run.path).task == Halved()

    def test_mirrors_are_rows_of_the_table(self):
        class Sum(gi.tasks.TableTask):
            n_classes = 3
            mirrors = torch.arange(9).view(3, 3).T.flatten()

            def inputs(self):
                return torch.cartesian_prod(torch.arange(3), torch.arange(3))

            def answers(self):
                return self.inputs().sum(dim=1) % 3

        mask = torch.zeros(9, dtype=torch.bool)
        mask[1] = True
        for wrong in (torch.arange(3), torch.arange(9) + 1, torch.arange(9.0), [1]):
            odd = frozen(type("Odd", (Sum,), {"mirrors": wrong}))()
            with pytest.raises(gi.InputError, match="give the row of"):
                unmirrored_rows(odd, mask)
        ours, mine = gi.ModularTask("add", p=3), frozen(Sum)()
        assert has_mirrors(mine)
        assert torch.equal(unmirrored_rows(mine, mask), unmirrored_rows(ours, mask))


class TestModels:
    @pytest.mark.parametrize(
        ("module", "says"),
        [
            (raising, RAISED),
            (lambda task: nn.Flatten(), "has 0 parameters|logits of shape"),
            (lambda task: Chance(), "when it is run again: something acts by chance"),
        ],
    )
    def test_what_is_wrong_with_one_is_said_before_training(self, module, says):
        task()
        net(module)
        with pytest.raises(gi.InputError, match=says):
            gi.Recipe(task="parity", model="net")

    def test_a_transformer_of_ones_own_is_read_back_as_itself(self, tmp_path):
        @gi.register.model("doubled")
        @dataclass(frozen=True)
        class Doubled(TransformerArchitecture):
            def forward(self, weights, inputs, cache=None):
                return 2 * super().forward(weights, inputs, cache)

        recipe = gi.Recipe(**SMALL, model="doubled", steps=1, checkpoints="every:1")
        run = gi.train(recipe, tmp_path / "run")
        assert isinstance(gi.load(run.path).architecture, Doubled)

    def test_one_class_has_one_name(self):
        made = net()
        with pytest.raises(gi.InputError, match="model 'other': Net is 'net' already"):
            gi.register.model("other")(made)
        assert (made.kind, "other" in MODELS) == ("net", False)
        named = type("Named", (Parity,), {"__annotations__": {"kind": str}, "kind": "x"})
        with pytest.raises(gi.InputError, match="task 'parity': Named is 'x' already"):
            gi.register.task("parity")(frozen(named))


class Chance(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x) + torch.rand(2)  # a dropout of so few may be the same twice


class TestKeys:
    @pytest.mark.parametrize(
        ("kind", "default", "says"),
        [
            (int, "eight", "default of Mine.x is refused: x='eight' is not a whole number"),
            (int, lambda: key(8, most=4), "default of Mine.x is refused: x=8 is too large"),
            (int, lambda: key(8, maximum=4), "part of a key 'maximum'|maximum"),
            ("Foo", 1, "a field of Mine is of no known type|type without meaning"),
        ],
    )
    def test_a_declaration_is_checked_where_it_is_made(self, kind, default, says):
        def declare():
            task(__annotations__={"x": kind}, x=default() if callable(default) else default)

        with pytest.raises(gi.InputError, match=says):
            declare()

    def test_words_that_may_be_none_are_words(self):
        task(__annotations__={"bits": int, "u": Literal["a", "b"] | None}, bits=4, u=None)
        net()
        given = {"task": "parity", "model": "net"}
        assert gi.Recipe(**given, u="a").u == "a"
        with pytest.raises(gi.InputError, match="u='zzz'"):
            gi.Recipe(**given, u="zzz")

    def test_what_is_told_to_give_can_be_given(self):
        task(__annotations__={"bits": int, "pair": tuple[float, float]}, bits=4, pair=(0.1, 0.2))
        net()
        with pytest.raises(gi.InputError, match=r"2 numbers; give such as \[0.1, 0.2\]"):
            gi.Recipe(task="parity", model="net", pair=1)
        with pytest.raises(gi.InputError, match=r"reshuffle='yes' is not true or false\.$"):
            gi.Recipe(reshuffle="yes")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = gi.Recipe(model="mlp", p=5, d_mlp=4, steps=2, checkpoints="every:1")
    return gi.train(recipe, tmp_path_factory.mktemp("run") / "run")


class TestReading:
    @pytest.mark.parametrize("gives", [raising, lambda *given: "text", lambda *given: (1, 2)])
    def test_a_panel_that_fails_is_empty_and_says_why(self, gives, run, tmp_path):
        @gi.register.panel("odd", section="training", when="once")
        def odd(about):
            """Odd."""
            return gives(about)

        page = gi.report(run, tmp_path / "report.html").read_text()
        assert "ZeroDivisionError (mine)" in page or "return a figure, (figure, table)" in page

    def test_a_panel_of_figures_and_tables_moves(self, run):
        from grokinterp.figures._figure import figure
        from grokinterp.reporting.about import about_run
        from grokinterp.reporting.panels import draw_panels

        @gi.register.panel("pair", section="training")
        def pair(about, snapshot):
            """Both."""
            drawn = figure("t", "x", "y").add_scatter(x=[0], y=[snapshot.step])
            return drawn, pd.DataFrame({"y": [snapshot.step]})

        drawn = next(x for x in draw_panels(about_run(run, "run")) if x.panel.name == "pair")
        assert drawn.table.to_dict("list") == {"step": [0, 1, 2], "y": [0, 1, 2]}
        assert len(drawn.figure.frames or drawn.figure.layout.sliders[0].steps) == 3

    @pytest.mark.parametrize(
        ("gives", "says"),
        [(raising, RAISED), (lambda evidence: "yes", "finds 'yes'; return a gi.claims.Finding")],
    )
    def test_a_claim_finds_a_finding(self, gives, says):
        @gi.register.claim("odd", statement="s", source="s", rule="r")
        def odd(evidence):
            return gives(evidence)

        with pytest.raises(gi.InputError, match=f"^claim='odd' {says}"):
            odd(None)

    def test_formats_layouts_and_measures_of_runs(self, run, tmp_path):
        gi.register.log_format("odd", suffixes=(".odd",))(lambda path: raising())
        (tmp_path / "log.odd").write_text("x")
        with pytest.raises(gi.InputError, match=f"the log_format of .*{RAISED}"):
            gi.detect_phases(tmp_path / "log.odd")
        gi.register.layout("odd")(lambda state: dict.fromkeys(state, 1.0))
        weights = gi.Recipe(**SMALL).architecture().initial(seed=0)
        state = {name.upper(): weight for name, weight in weights.items()}
        torch.save(state, tmp_path / "model.pt")
        with pytest.raises(gi.InputError, match="what layout='odd' returns"):
            gi.load(tmp_path / "model.pt", p=5)
        made = gi.register.measure("odd", scope="run")(lambda run: raising())
        with pytest.raises(gi.InputError, match=f"measure 'odd' {RAISED}"):
            MEASURES["odd"].columns_of_run(run)
        assert made is not None


class TestImports:
    @pytest.fixture
    def here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(plugins, "_IMPORTED", set())
        return tmp_path

    def ask(self, module, monkeypatch):
        monkeypatch.setenv(plugins.VARIABLE, module)
        plugins.import_plugins()

    def test_another_module_of_its_name_is_told(self, here, monkeypatch):
        (here / "json.py").write_text("raise SystemExit(3)")
        with pytest.raises(gi.InputError, match=r"'json' is json\.py here, but another module of"):
            self.ask("json", monkeypatch)
        plugins._import("json", "the entry point 'json'")  # which says whose it is

    @pytest.mark.parametrize(
        ("code", "says"),
        [
            ("raise SystemExit(3)", r"SystemExit: 3\); mend its code"),
            ("import not_there_at_all", r"No module named 'not_there_at_all'\); mend its code"),
            ("1 +", "SyntaxError"),
        ],
    )
    def test_what_it_raises_is_told(self, code, says, here, monkeypatch):
        name = f"wrong_plugin_{abs(hash(code))}"
        (here / f"{name}.py").write_text(code)
        with pytest.raises(gi.InputError, match=says):
            self.ask(name, monkeypatch)
        with pytest.raises(gi.InputError, match="give modules as Python imports them"):
            self.ask("no_such_plugin", monkeypatch)

    def test_a_package_is_found_from_its_folder(self, here, monkeypatch):
        (here / "packed_plugin").mkdir()
        (here / "packed_plugin" / "__init__.py").write_text("from . import inner")
        (here / "packed_plugin" / "inner.py").write_text("")
        self.ask("packed_plugin", monkeypatch)
        assert plugins.found_at("packed_plugin") == str(here.resolve())
        assert plugins.found_at("packed_plugin.inner") == str(here.resolve())

    def test_what_it_prints_is_not_what_a_command_prints(self, here):
        (here / "loud_plugin.py").write_text("print('loud')")
        done = subprocess.run(
            [sys.executable, "-m", "grokinterp", "--plugin", "loud_plugin", "recipes", "--keys"],
            cwd=here,
            env=os.environ | {"PYTHONPATH": str(Path(gi.__file__).parents[1])},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "loud" not in done.stdout
        assert "loud" in done.stderr
