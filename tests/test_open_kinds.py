"""Open kinds: the examples of CONTRIBUTING as a module outside of the package, in every use."""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.base import plugins
from grokinterp.base.keys import derived, key, keys_of
from grokinterp.base.registry import Registry
from grokinterp.claims import CLAIMS
from grokinterp.comparison.lineup import check_lineup, outcome
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.recipe.keys import REGISTRIES
from grokinterp.training.learner import Learner
from tests.conftest import kinds_forgotten

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
PACKAGE = Path(gi.__file__).parent
NET = 'task="bit-parity", bits=8, model="my-net", width=32, train_fraction=0.5, threads=1'
MIXED = (
    'task="bit-parity", bits=6, relevant=2, model="my-net", objective="mean-square", target=2.0, '
    'optimizer="adagrad", gradient_filter="low-pass", memory=0.9, constraint="fixed-norm", '
    "batch_size=20, threads=1"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder outside of the package with the examples as the module `plugin`."""
    made = tmp_path_factory.mktemp("outside")
    (code,) = re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text(), flags=re.DOTALL)
    (made / "plugin.py").write_text(code)
    return made


@pytest.fixture(scope="module")
def plugin(folder):
    """The examples, known to this process for as long as this module's tests run."""
    sys.path.insert(0, str(folder))
    with kinds_forgotten():
        import plugin as module

        yield module
    sys.path.remove(str(folder))
    plugins._IMPORTED.discard("plugin")
    del sys.modules["plugin"]


def python(code, folder, *, named=True, **options):
    """What a fresh process in that folder prints; the plug-in is named by the variable."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}
    environment |= {"GROKINTERP_PLUGINS": "plugin"} if named else {}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import grokinterp as gi\n{code}"],
        cwd=folder, env=environment, capture_output=True, text=True, **options,
    )  # fmt: skip


def command(folder, *arguments):
    """What a command answers in that folder, whose plug-in no variable names."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "grokinterp.cli", *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def same_bits(one, other):
    assert one.steps == other.steps
    for step in one.steps:
        ours, theirs = one.weights(step), other.weights(step)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)
    assert one.metrics.equals(other.metrics)


def test_every_kind_has_an_example(folder):
    code = (folder / "plugin.py").read_text()
    assert set(re.findall(r"@gi\.register\.(\w+)", code)) == set(dir(gi.register))
    assert dir(gi.register) == gi.register.__all__
    with pytest.raises(AttributeError, match="no attribute 'tusk'; did you mean 'task'"):
        gi.register.tusk  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize("keys", [NET, MIXED], ids=["net", "mixed"])
def test_a_killed_run_goes_on_to_the_same_bits(keys, folder, plugin, tmp_path):
    recipe = f"gi.Recipe({keys}, steps=1200, checkpoints='every:100', log_every=100)"
    whole = gi.train(eval(recipe), tmp_path / "whole")
    train = f"gi.train({recipe}, {str(tmp_path / 'killed')!r}, resume=True, progress=False)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import grokinterp as gi\n{train}"], cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "GROKINTERP_PLUGINS": "plugin"},
    )  # fmt: skip
    saved, until = tmp_path / "killed" / "resume.safetensors", time.monotonic() + 120
    while not saved.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert saved.exists(), "it had ended before it could be killed"
    assert python(train, folder).returncode == 0
    same_bits(gi.load(tmp_path / "killed"), whole)


@pytest.mark.slow
def test_a_fresh_process_knows_a_run_by_the_variable_alone(folder, plugin, tmp_path):
    recipe = eval(f"gi.Recipe({NET}, steps=60, checkpoints='every:20')")
    run = gi.train(recipe, tmp_path / "run")
    assert run.manifest.task == plugin.BitParity(bits=8)
    seen = f"run = gi.load({str(run.path)!r})\nprint(float(run.snapshot().logits.sum()))"
    assert float(python(seen, folder).stdout) == float(run.snapshot().logits.sum())
    lost = python(seen, folder, named=False)
    assert lost.returncode == 1
    assert "task='bit-parity' is not known" in lost.stderr
    assert "name its module: GROKINTERP_PLUGINS=MODULE or --plugin MODULE" in lost.stderr


@pytest.mark.slow
def test_commands_know_it_by_their_option(folder, plugin, tmp_path):
    (folder / "net.toml").write_text(
        'task = "bit-parity"\nbits = 6\nmodel = "my-net"\nsteps = 40\n'
    )
    run = tmp_path / "run"
    named = ("--plugin", "plugin")
    done = command(folder, *named, "train", "net.toml", "--set", "width=16", "--out", run)
    assert done.returncode == 0, done.stderr
    assert gi.load(run).recipe.width == 16
    measured = command(folder, *named, "measure", run, "--out", tmp_path / "table.csv")
    assert measured.returncode == 0
    table = pd.read_csv(tmp_path / "table.csv")
    norm = sum(w.square().sum() for w in gi.load(run).weights().values()).sqrt()
    assert table.norm_of_all.iloc[-1] == pytest.approx(float(norm))
    assert '"label"' in command(folder, *named, "phases", run, "--json").stdout
    page = tmp_path / "page.html"
    assert command(folder, *named, "report", run, "--out", page).returncode == 0
    assert "Accuracy on training and test inputs." in page.read_text()
    refused = command(folder, "info", run)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "If a plug-in has it" in refused.stderr
    keys = command(folder, *named, "recipes", "--keys").stdout
    assert re.search(r"task=bit-parity\n  bits +8", keys)
    assert re.search(r"  normalization_type +none +norms before", keys)
    wrong = command(
        folder, *named, "train", "net.toml", "--set", "widht=3", "--out", tmp_path / "x"
    )
    assert "recipe key 'widht' is not known; did you mean 'width'?" in wrong.stderr
    missing = command(folder, "--plugin", "nowhere", "info", run)
    assert missing.returncode == 2
    assert (
        "the plug-in 'nowhere', which GROKINTERP_PLUGINS names, cannot be imported"
        in missing.stderr
    )
    assert command(folder, "--plugin", "nowhere", "--help").returncode == 0


@pytest.mark.slow
def test_an_installed_plug_in_is_found_by_its_entry_point(folder, tmp_path):
    installed = tmp_path / "plugin-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[grokinterp.plugins]\nmine = plugin\n")
    code = f"import sys; sys.path += [{str(tmp_path)!r}, {str(folder)!r}]\n"
    code += "print(gi.Recipe(task='bit-parity', model='my-net', bits=5).build_task().n_inputs)\n"
    code += "print('plugin' in sys.modules)"
    assert python(code, tmp_path, named=False).stdout.split() == ["32", "True"]
    unasked = f"import sys; sys.path += [{str(tmp_path)!r}, {str(folder)!r}]\n"
    unasked += "gi.Recipe(p=5)\nprint('plugin' in sys.modules)"
    assert python(unasked, tmp_path, named=False).stdout.split() == ["False"]


SWEEP = """
from grokinterp.sweeps import Sweep, run_sweep
if __name__ == "__main__":
    base = gi.Recipe(task="bit-parity", bits=6, model="my-net", width=8, steps=30)
    sweep = Sweep(base, ({{"relevant": (1, 2, 3)}},))
    table = run_sweep(sweep, {out!r}, progress=False, {how})
    assert list(table.note.fillna("")) == ["", "", ""], list(table.note)
    print(len(table))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["workers=2", 'executor="ray", workers=2'])
def test_a_sweep_over_a_key_of_its_own(how, folder, plugin, tmp_path):
    script = folder / "sweep.py"
    script.write_text("import plugin, grokinterp as gi" + SWEEP.format(out=str(tmp_path), how=how))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert done.stdout.strip() == "3", done.stderr
    assert gi.load(tmp_path / "relevant=2").task == plugin.BitParity(bits=6, relevant=2)


@pytest.mark.slow
def test_a_kind_of_main_is_refused_where_others_have_to_import_it(folder, tmp_path):
    script = folder / "main.py"
    script.write_text(
        "import grokinterp as gi\n"
        "@gi.register.operation('of-main')\n"
        "def of_main(a, b, p):\n    return (a + 3 * b) % p\n"
        "from grokinterp.sweeps import Sweep, run_sweep\n"
        "if __name__ == '__main__':\n"
        "    sweep = Sweep(gi.Recipe(operation='of-main', p=5, steps=2), ({'seed': (0, 1)},))\n"
        f"    run_sweep(sweep, {str(tmp_path)!r}, workers=2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "is defined in __main__, which other processes cannot import" in done.stderr


def test_operation_measure_claim_log_and_layout(folder, plugin, tmp_path):
    recipe = gi.Recipe(
        operation="double-add", p=7, d_model=16, n_heads=2, d_head=8, d_mlp=8, steps=4
    )
    run = gi.train(recipe, tmp_path / "run")
    assert run.task.labels.view(7, 7)[2, 3] == 0
    assert "norm_of_all" in gi.progress_measures(run)
    assert CLAIMS["grokked-are-smaller"].falsifiers == ("a steady run with a smaller norm",)
    run.metrics.to_csv(tmp_path / "log.tsv", sep="\t", index=False)
    assert gi.detect_phases(tmp_path / "log.tsv").curves.equals(
        gi.detect_phases(run.metrics).curves
    )
    upper = {
        name.replace("embed", "EMBED").replace("blocks", "BLOCKS"): weight
        for name, weight in run.weights().items()
    }
    torch.save(upper, tmp_path / "upper.pt")
    read = gi.load(tmp_path / "upper.pt")
    assert read.manifest.source["layout"] == "upper-case"
    assert torch.equal(read.snapshot().logits, run.snapshot().logits)


@pytest.mark.slow
def test_an_operation_that_a_configuration_names_is_looked_for_in_plug_ins(folder):
    code = "from grokinterp.reading.settings import Settings\n"
    code += "print(Settings.from_config({'op': 'no-such', 'task': {'fn_name': 'double-add'}}))"
    assert "operation='double-add'" in python(code, folder).stdout


def test_runs_of_modules_are_compared_after_their_weights_were_asked_for(plugin, tmp_path):
    runs = [
        gi.train(eval(f"gi.Recipe({NET}, seed={seed}, steps=2)"), tmp_path / str(seed))
        for seed in (0, 1)
    ]
    assert runs[0].snapshot().logits.shape == (256, 2)
    check_lineup(runs)


@pytest.mark.slow
def test_a_claim_of_a_plug_in_is_judged_where_nobody_imported_it(folder, tmp_path):
    recipe = "gi.Recipe(p=5, d_model=8, n_heads=1, d_head=8, d_mlp=8, steps=2"
    code = f"runs = [gi.train({recipe}, seed=i), {str(tmp_path)!r} + f'/{{i}}') for i in (0, 1)]\n"
    code += "print(*[claim.name for claim in gi.compare(runs).claims])"
    assert "grokked-are-smaller" in python(code, folder).stdout.split()


def test_runs_that_0_2_0_can_read_stay_format_1(plugin, tmp_path):
    sizes = {"p": 7, "d_model": 8, "n_heads": 1, "d_head": 8, "d_mlp": 8, "steps": 1}
    recipes = {
        "plain": gi.Recipe(**sizes),
        "mlp": gi.Recipe(model="mlp", p=7, d_mlp=8, steps=1),
        "operation": gi.Recipe(**sizes, operation="double-add"),
        "objective": gi.Recipe(**sizes, objective="mean-square"),
        "optimizer": gi.Recipe(**sizes, optimizer="adagrad"),
    }
    found = {}
    for name, recipe in recipes.items():
        content = (gi.train(recipe, tmp_path / name).path / "run.json").read_text()
        found[name] = int(re.search(r'"format": (\d)', content)[1])
        assert ("objective" in content) == (name == "objective")
    assert found == {"plain": 1, "mlp": 1, "operation": 1, "objective": 2, "optimizer": 2}


SMALL = {"p": 5, "d_model": 8, "n_heads": 1, "d_head": 8, "d_mlp": 8}


def test_what_a_parameter_group_counts_in_place_is_saved(passing):
    class Counting(torch.optim.SGD):
        def __init__(self, parameters):
            super().__init__(parameters, lr=0.1)
            self.param_groups[0] |= {"n": torch.zeros(2), "same": [torch.ones(2), {}], "f": len}

        def step(self):
            self.param_groups[0]["n"].add_(1)
            super().step()

    @gi.register.optimizer("counting")
    @dataclass(frozen=True)
    class Counts(gi.updates.Optimizer):
        def build(self, parameters):
            return Counting(parameters)

    recipe = gi.Recipe(**SMALL, optimizer="counting")
    one, other = Learner([recipe], "cpu"), Learner([recipe], "cpu")
    one.update(0)
    kept = {name: x for name, x in one.state(0).items() if name.startswith("group/")}
    assert {name: x.tolist() for name, x in kept.items()} == {"group/0/n": [1, 1]}
    other.load_states([one.state(0)])
    other.update(1)
    assert other.state(0)["group/0/n"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("kind", "wrong", "says"),
    [
        ("gradient_filter", lambda given: dict(list(given.items())[1:]), "None for 'embed.W_E'"),
        (
            "gradient_filter",
            lambda given: {x: given[x][0] for x in given},
            "a Tensor of shape (8,)",
        ),
        ("gradient_filter", lambda given: None, "returns None; return a dict with a tensor"),
        ("constraint", lambda given: {"W": torch.ones(3)}, "a Tensor of shape (3,) for 'W'"),
        ("constraint", lambda given: None, "returns None; return a dict with a tensor"),
    ],
)
def test_updates_that_return_something_else_are_refused_in_one_line(kind, wrong, says, passing):
    base = {"gradient_filter": gi.updates.GradientFilter, "constraint": gi.updates.Constraint}[kind]

    @getattr(gi.register, kind)("wrong")
    @dataclass(frozen=True)
    class Wrong(base):
        def filtered(self, given, state):
            return wrong(given)

        constrained = filtered

    with pytest.raises(gi.InputError, match=f"^{kind}='wrong' returns ") as error:
        Learner([gi.Recipe(**SMALL, **{kind: "wrong"})], "cpu").update(0)
    assert says in str(error.value)


def test_a_task_with_a_split_of_its_own_has_no_data_seed(passing, plugin, tmp_path):
    @gi.register.task("split-parity")
    @dataclass(frozen=True, kw_only=True)
    class SplitParity(plugin.BitParity):
        own_split = "every other"

        @property
        def train_indices(self):
            return torch.arange(0, 2**self.bits, 2)

    recipe = gi.Recipe(task="split-parity", bits=3, model="my-net", seed=4, steps=2)
    assert outcome(gi.train(recipe, tmp_path / "run"), "run").seed == "seed 4"


def test_a_kind_is_registered_itself_and_not_by_a_base_of_it():
    @dataclass(frozen=True)
    class Mine(gi.ModularTask):
        @property
        def labels(self):
            return super().labels.flip(0)

    class Wide(MLPArchitecture):
        pass

    class Deep(TransformerArchitecture):
        pass

    assert (Mine.kind, gi.ModularTask.kind, Wide.kind) == ("", "modular", "")
    sizes = {"d_vocab": 6, "d_vocab_out": 5, "n_ctx": 3, "n_layers": 1} | SMALL
    del sizes["p"]
    for one, what in (
        (Mine("add", p=5), "task"), (Wide(p=5, widths=(2,), n_classes=5), "model"),
        (Deep(**sizes), "model"),
    ):  # fmt: skip
        with pytest.raises(gi.InputError, match=rf"not registered.*@gi\.register\.{what}\("):
            one.to_dict()


NAMES = {
    kind.__name__: Path(sys.modules[kind.__module__].__file__)
    for registry in REGISTRIES.values()
    for kind in registry.values()
}
ASKED = {"kind", *REGISTRIES}  # attributes that hold the name of a kind


WORDS = {name for registry in REGISTRIES.values() for name in registry}


def questions(path):
    """Where a file asks which registered kind an object is, instead of the object itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            parts = {ast.unparse(part).split(".")[-1] for part in ast.walk(node.args[1])}
            if any(name in parts and home != path for name, home in NAMES.items()):
                yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            said = {x.value for x in ast.walk(node) if isinstance(x, ast.Constant)} & WORDS
            if said and any(ast.unparse(side).split(".")[-1] in ASKED for side in sides):
                yield node.lineno, ast.unparse(node)


def test_nobody_asks_which_kind_something_is():
    found = {str(path): list(questions(path)) for path in PACKAGE.rglob("*.py")}
    assert {path: asked for path, asked in found.items() if asked} == {}


def test_the_count_sees_what_it_counts(tmp_path):
    path = tmp_path / "asking.py"
    path.write_text(
        "isinstance(x, ModularTask | int)\nissubclass(y, tasks.IsingTask)\nrun.kind == 'mlp'\n"
        "recipe.optimizer in ('sgd', 'adam')\nisinstance(x, BaseArchitecture)\nx.kind == 'file'\n"
    )
    assert [line for line, _ in questions(path)] == [1, 2, 3, 4]


class TestRegistry:
    def test_a_name_that_is_taken_is_refused_and_a_cell_replaces_its_own(self):
        registry = Registry("colour")
        registry.add("red", 1, by=TestRegistry)
        registry.add("red", 2, by=TestRegistry)
        assert registry["red"] == 2
        with pytest.raises(gi.InputError, match=r"'red' is taken by tests.test_open_kinds.TestReg"):
            registry.add("red", 3, by=test_every_kind_has_an_example)

    def test_our_names_are_taken_before_their_room_is_imported(self):
        code = "@gi.register.measure('sizes')\ndef mine(snapshot):\n    return 0.0"
        done = python(code, ".", named=False)
        assert "measure 'sizes' is taken by grokinterp.encodings.run_measures" in done.stderr

    @pytest.mark.parametrize(
        ("code", "says"),
        [
            ("gi.register.task('t')(int)", "task 't' is <class 'int'>; give a frozen dataclass"),
            ("class T(gi.tasks.TableTask): pass\ngi.register.task('t')(T)", "no frozen dataclass"),
            (
                "@dataclass(frozen=True)\nclass T(gi.tasks.TableTask):\n    n_classes = 2\n"
                "gi.register.task('t')(T)",
                "task 't' has no answers; give a frozen dataclass that extends Task and defines it",
            ),
            (
                "@dataclass(frozen=True)\nclass M(gi.models.ModuleArchitecture):\n"
                "    x: list = None\n"
                "    def module(self, task): ...\ngi.register.model('m')(M)",
                "M.x is of type list, which no recipe can hold",
            ),
            ("gi.register.optimizer('adamw')(object)", "give a frozen dataclass that extends"),
            ("gi.register.operation('a b')(lambda a, b, p: a)", "operation name 'a b' cannot be"),
            (
                "gi.register.measure('step')(lambda snapshot: 0)",
                "'step' is a column of every table",
            ),
            ("gi.register.panel('x', section='nowhere')", "section='nowhere' is not known"),
            ("gi.register.log_format('x', suffixes='tsv')", "suffixes='tsv' is not a list"),
            ("gi.register.layout('paper')(lambda state: None)", "is a layout of this package"),
        ],
    )
    def test_what_is_no_kind_is_refused_in_one_line(self, code, says):
        with pytest.raises(gi.InputError) as error:
            exec(code, {"gi": gi, "dataclass": dataclass})
        assert says in str(error.value)
        assert "\n" not in str(error.value)

    def test_tables_that_are_none_are_refused_when_they_are_used(self):
        @dataclass(frozen=True)
        class Wrong(gi.tasks.TableTask):
            rows: int = 4
            label: int = 0
            n_classes = 2

            def inputs(self):
                return torch.zeros(self.rows, 1)

            def answers(self):
                return torch.full((4,), self.label)

        assert Wrong().labels.tolist() == [0, 0, 0, 0]
        with pytest.raises(gi.InputError, match="give a tensor of whole numbers from 0 to 1"):
            Wrong(label=2).labels  # noqa: B018
        with pytest.raises(gi.InputError, match="with a row for each of the 4 answers"):
            Wrong(rows=3).model_inputs  # noqa: B018
        with pytest.raises(gi.InputError, match="Wrong is not registered"):
            Wrong().to_dict()


class TestKeys:
    def test_types_limits_and_synonyms(self):
        @dataclass(frozen=True)
        class Kind:
            plain: float = 1.0
            sizes: tuple[int, ...] = key((1, 2), help="of it", least=1)
            pair: tuple[float, float] = (0.0, 1.0)
            maybe: int | None = None
            hidden: object = derived(None)

        found = {one.name: one for one in keys_of(Kind)}
        assert list(found) == ["plain", "sizes", "pair", "maybe"]
        assert found["plain"].checked(2) == 2.0
        assert found["sizes"].checked([3, 4.0]) == (3, 4)
        assert found["maybe"].checked(None) is None
        for name, given, says in (
            ("plain", "x", "plain='x' is not a number; give such as 1.0"),
            ("sizes", [0], "sizes=\\(0,\\) is less than 1; give at least 1"),
            ("pair", [1], "pair=\\[1\\] is not 2 numbers"),
            ("maybe", 2**70, "is too large; whole numbers are below 2\\^63"),
        ):
            with pytest.raises(gi.InputError, match=says):
                found[name].checked(given)

    def test_a_limit_that_is_not_reached_is_of_every_part(self):
        @dataclass(frozen=True)
        class Kind:
            rates: tuple[float, ...] = key((0.1, 0.2), above=0)

        (rates,) = keys_of(Kind)
        assert rates.checked([1, 2]) == (1.0, 2.0)
        with pytest.raises(gi.InputError, match=r"rates=0\.0 is not a number above 0"):
            rates.checked([1, 0])

    def test_none_is_the_default_or_no_value(self):
        @dataclass(frozen=True)
        class Kind:
            x: int | None = 5

        with pytest.raises(gi.InputError, match=r"Kind\.x may be None, .* the default None"):
            keys_of(Kind)

    def test_every_key_of_ours_has_help(self):
        from grokinterp.recipe.keys import every_key

        ours = {
            f"{role}={name}"
            for role, registry in REGISTRIES.items()
            for name in registry
            if registry.home(name).startswith("grokinterp.")
        }
        for kind, those in every_key().items():
            for one in those.values():
                assert one.help or (kind not in ours and "=" in kind), (kind, one.name)

    def test_two_kinds_with_one_key_are_refused(self, plugin):
        @gi.register.objective("odd")
        @dataclass(frozen=True)
        class Odd(gi.updates.Objective):
            lr: float = 7.0

            def loss(self, logits, labels):
                return logits.mean()

        try:
            with pytest.raises(gi.InputError, match="two kinds of this recipe have a key 'lr'"):
                gi.Recipe(objective="odd")
        finally:
            del REGISTRIES["objective"]["odd"]
