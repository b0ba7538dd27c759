"""The tangent kernel against linear networks, long-hand Jacobians, and the shipped run."""

import math
from dataclasses import replace

import pytest
import torch

import grokinterp as gi
from grokinterp.sweeps import measured
from tests.made_runs import changed, made_run

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here


@pytest.fixture(scope="module")
def ising():
    return gi.IsingTask(lattice=3, n_temperatures=4, n_repeats=10, sweeps=2, n_train=10, n_test=20)


class Linear(torch.nn.Module):
    """B A x, or A x alone."""

    def __init__(self, hidden=None, looks_at_values=False):
        super().__init__()
        self.A = torch.nn.Linear(9, hidden or 2, bias=False)
        self.B = torch.nn.Linear(hidden, 2, bias=False) if hidden else torch.nn.Identity()
        self.looks_at_values = looks_at_values

    def forward(self, x):
        x = x.flatten(1)
        if self.looks_at_values and float(x.abs().max()) > 1e9:  # which vmap cannot compute
            return x
        return self.B(self.A(x))


def recorded(folder, task, nets):
    """A run of networks of one's own, at steps 0, 10, 20, ..."""
    mask = torch.arange(task.n_inputs) < 10
    with gi.Recorder(folder, task=task, train_mask=mask) as recorder:
        for i, net in enumerate(nets):
            recorder.save(10 * i, net)
    return gi.load(folder, module=nets[0])


def alignment(one, other):
    """By the centring matrix."""
    n = len(one)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    one, other = h @ one @ h, h @ other @ h
    return float((one * other).sum() / one.norm() / other.norm())


def of_labels(found, task):
    labels = task.labels[found.inputs]
    return (labels[:, None] == labels).double()


def test_a_linear_map_is_lazy_for_ever(ising, tmp_path):
    """Its gradients are its inputs: K = x . x times the probes' mean square, at any weights."""
    torch.manual_seed(0)
    run = recorded(tmp_path / "linear", ising, [Linear() for _ in range(3)])
    x = ising.model_inputs
    for options in ({"probes": None}, {"probes": 1, "sets": 2}):
        found = gi.geometry.kernel(run, **options)
        inputs = x[found.inputs].flatten(1).double()
        gram = inputs @ inputs.T
        scale = float(found.kernels[0, 0, 0] / gram[0, 0])
        if options["probes"] is None:
            assert scale == pytest.approx(1)
            assert (found.probes, found.sets) == (None, 1)
        for kernel in found.kernels:
            assert torch.allclose(kernel, scale * gram)
        assert found.distances.abs().max() < 1e-12
        expected = alignment(gram, of_labels(found, ising))
        assert found.alignments.flatten().tolist() == pytest.approx([expected] * 3 * found.sets)
    assert found.table().distance_spread.abs().max() < 1e-12


def closed_form(net, x):
    """Of B A x: (|B|^2 x . x + C Ax . Ax) / C."""
    a, b = net.A.weight.detach().double(), net.B.weight.detach().double()
    hidden = x @ a.T
    return float(b.square().sum()) / len(b) * x @ x.T + hidden @ hidden.T


@pytest.mark.parametrize("looks_at_values", [False, True])
def test_two_linear_layers_have_a_kernel_in_closed_form(ising, tmp_path, looks_at_values):
    """By vmap, and input by input where the module looks at values, which vmap refuses."""
    torch.manual_seed(1)
    nets = [Linear(4, looks_at_values) for _ in range(2)]
    found = gi.geometry.kernel(recorded(tmp_path / "deep", ising, nets), probes=None)
    x = ising.model_inputs[found.inputs].flatten(1).double()
    expected = [closed_form(net, x) for net in nets]
    for kernel, by_hand in zip(found.kernels, expected, strict=True):
        assert torch.allclose(kernel, by_hand, rtol=1e-10)
    distance = 1 - alignment(*expected)
    assert found.distances.flatten().tolist() == pytest.approx([0, distance], rel=1e-9)
    labels = of_labels(found, ising)
    assert found.alignments.flatten().tolist() == pytest.approx(
        [alignment(kernel, labels) for kernel in expected], rel=1e-9
    )
    assert found.sizes[0].item() == pytest.approx(float(expected[0].diagonal().mean()))


def long_hand(run, step, inputs):
    """The mean over classes of the kernel of one logit, from Jacobians row by row."""
    names = run.architecture.trained(run.recipe.biases)
    weights = {name: w.double() for name, w in run.weights(step).items()}
    rows = []
    for one in run.task.model_inputs[inputs]:
        jacobian = torch.autograd.functional.jacobian(
            lambda *w, one=one: run.architecture.forward(
                weights | dict(zip(names, w, strict=True)), one[None]
            )[0],
            tuple(weights[name] for name in names),
        )
        rows.append(torch.cat([part.flatten(1) for part in jacobian], dim=1))
    rows = torch.stack(rows)
    return torch.einsum("icp,jcp->ij", rows, rows) / rows.shape[1]


def trained(tmp_path_factory, **settings):
    recipe = gi.Recipe(steps=20, checkpoints="every:20", log_every=10, lr=1e-2, **settings)
    return gi.train(recipe, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory):
    small = {"p": 7, "train_fraction": 0.5}
    return {
        "transformer": tiny_run,
        "LayerNorm": trained(
            tmp_path_factory, **small, d_model=8, n_heads=2, d_head=4, d_mlp=8, n_layers=2,
            normalization_type="LN", biases="all",
        ),
        "mlp": trained(tmp_path_factory, **small, model="mlp", d_mlp=12),
        "cnn": trained(
            tmp_path_factory, task="ising", lattice=4, n_train=20, n_test=20, sweeps=5,
            model="cnn", channels=(2,), d_mlp=4,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["transformer", "LayerNorm", "mlp", "cnn"])
def test_every_kind_has_the_kernel_of_its_jacobians(kind, runs):
    run = runs[kind]
    found = gi.geometry.kernel(run, steps=[0, -1], classes=3, per_class=2, probes=None)
    assert found.steps == (0, run.steps[-1])
    for step, kernel in zip(found.steps, found.kernels, strict=True):
        by_hand = long_hand(run, step, found.inputs)
        assert torch.allclose(kernel, by_hand, rtol=1e-8, atol=1e-10 * float(by_hand.max()))
    trained = run.architecture.trained(run.recipe.biases)
    shapes = run.architecture.parameter_shapes()
    assert found.n_weights == sum(math.prod(shapes[name]) for name in trained)


def test_probes_are_unbiased_and_the_same_at_every_step(runs):
    run, options = runs["mlp"], {"steps": [20], "classes": 2, "per_class": 2}
    exact = gi.geometry.kernel(run, probes=None, **options).kernels[0]
    many = gi.geometry.kernel(run, probes=6, sets=100, **options).kernels[0]
    assert float((many - exact).norm() / exact.norm()) < 0.05
    tiny_run = runs["transformer"]
    still = changed(tiny_run, lambda _: tiny_run.weights(60))
    found = gi.geometry.kernel(still, steps=[20, 60], rows="all", probes=1, sets=2)
    assert found.distances.abs().max() < 1e-12
    assert float((found.sizes - found.sizes[0]).abs().max()) == 0


def test_parts_of_the_weights_add_up(tiny_run, monkeypatch):
    whole = gi.geometry.kernel(tiny_run, steps=[0, 60], per_class=2)
    for name, some in (("HELD", 150_000), ("AT_ONCE", 60_000)):
        monkeypatch.setattr(f"grokinterp.geometry.logit_gradients.{name}", some)
    parts = gi.geometry.kernel(tiny_run, steps=[0, 60], per_class=2)
    assert torch.allclose(parts.kernels, whole.kernels, rtol=1e-12)


def test_which_inputs_are_drawn(shipped, tiny_run):
    options = {"steps": [0], "probes": 1, "sets": 1}
    found = gi.geometry.kernel(shipped, **options)
    assert (found.rows, found.n_classes, len(found.inputs)) == ("unmirrored", 12, 96)
    assert shipped.snapshot(0).unmirrored_rows[found.inputs].all()
    assert shipped.task.labels[found.inputs].unique(return_counts=True)[1].tolist() == [8] * 12
    assert torch.equal(found.inputs, gi.geometry.kernel(shipped, **options).inputs)
    other = gi.geometry.kernel(tiny_run, seed=1, rows="train", **options)
    assert tiny_run.train_mask[other.inputs].all()
    assert len(other.inputs) == int(tiny_run.train_mask.sum())  # 7 classes of at most 7


def test_the_shipped_run(shipped):
    """Neither lazy while it memorises, nor still when it generalises."""
    found = gi.geometry.kernel(shipped, steps=[0, 100, 3000, 6400, 7600], sets=2)
    table = found.table().set_index("step")
    assert table.distance[100] >= 0.3
    assert table.distance[3000] < 0.45
    assert table.distance[6400] > 0.6
    assert table.alignment[0] == pytest.approx(0.2, abs=0.03)
    assert table.alignment[7600] > 1.5 * table.alignment[0]
    assert found.lazy is False
    assert found.lazy_then_rich is False
    assert found.distance_at_memorization > 0.3


def made(distances, alignments, **options):
    """A result with these rows, of one checkpoint every 100 steps."""
    distances = torch.tensor(distances, dtype=torch.float64)
    k, sets = distances.shape
    return gi.geometry.TangentKernel(
        **{
            "steps": tuple(range(0, 100 * k, 100)),
            "distances": distances,
            "alignments": torch.tensor(alignments, dtype=torch.float64),
            "sizes": torch.ones(k, sets),
            "kernels": torch.ones(k, 2, 2),
            "rows": "all",
            "inputs": torch.arange(2),
            "n_classes": 2,
            "n_weights": 1,
            "probes": 1,
            "sets": sets,
            "seed": 0,
            "memorization_step": 50,
            "transition": (100, 250),
            **options,
        }
    )


def test_the_rule():
    distances = [[0.0, 0.0], [0.1, 0.1], [0.5, 0.5], [0.7, 0.7]]
    alignments = [[0.2, 0.2], [0.2, 0.2], [0.3, 0.3], [0.5, 0.5]]
    found = made(distances, alignments)
    assert found.distance_at_memorization == pytest.approx(0.05)
    assert found.share_in_transition == pytest.approx((0.6 - 0.1) / 0.7)
    assert found.growth_in_transition == pytest.approx(0.4 / 0.2)
    assert (found.lazy, found.rich, found.lazy_then_rich) == (True, True, True)
    assert made(distances, alignments, memorization_step=150).lazy is False
    assert made(distances, alignments, memorization_step=150).lazy_then_rich is False
    assert made(distances, alignments, transition=(0, 60)).rich is False
    flat = [[0.2, 0.2]] * 4
    assert made(distances, flat).rich is False
    # One of two sets of probes says so, the other not.
    parted = made(distances, [[0.2, 0.2], [0.2, 0.2], [0.3, 0.2], [0.5, 0.3]])
    assert parted.rich is None
    assert parted.lazy_then_rich is None
    assert "rich at the transition: undetermined" in str(parted)
    unknown = made(distances, alignments, memorization_step=None, transition=None)
    assert (unknown.lazy, unknown.rich, unknown.lazy_then_rich) == (None, None, None)
    assert math.isnan(unknown.share_in_transition)
    assert replace(found, transition=(100, 301)).rich is None  # beyond what was looked at


def test_what_cannot_be_said_has_a_reason(tiny_run, ising):
    options = {"per_class": 2, "probes": 1, "sets": 1}
    alone = gi.geometry.kernel(tiny_run.snapshot(), **options)
    assert math.isnan(alone.table().distance.item())
    assert math.isnan(alone.table().distance_spread.item())
    assert 0 < alone.table().alignment.item() < 1
    assert alone.notes[-1] == "no distance: one checkpoint has nothing to be distant from"
    later = gi.geometry.kernel(tiny_run, steps=[20, 60], **options)
    assert later.notes[-1] == "not judged: distances are from step 20, not from the start"
    assert (later.memorization_step, later.transition) == (None, None)
    unsplit = gi.geometry.kernel(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2)), task=ising, **options
    )
    assert unsplit.rows == "all"
    assert unsplit.notes[0].startswith("the split is not known, so inputs are drawn from all")
    one_class = gi.geometry.kernel(tiny_run, steps=[0, 60], classes=1, **options)
    assert one_class.alignments.isnan().all()
    assert one_class.distances.isfinite().all()
    assert "no alignment: the inputs are of one class" in one_class.notes
    assert [line.name for line in one_class.plot().data] == ["distance from step 0"]
    nothing = changed(tiny_run, lambda w: {name: 0 * x for name, x in w.items()})
    found = gi.geometry.kernel(nothing, steps=[60], rows="all", **options)
    assert "nan" not in str(found.to_dict()).lower()
    assert "kernels" not in found.to_dict()


def test_what_is_refused(tiny_run):
    kernel = gi.geometry.kernel
    with pytest.raises(gi.InputError, match="rows='tset' is not known; did you mean 'test'"):
        kernel(tiny_run, rows="tset")
    for name in ("classes", "per_class", "probes", "sets"):
        with pytest.raises(gi.InputError, match=f"{name}=0 is not a whole number from 1 on"):
            kernel(tiny_run, **{name: 0})
    full = made_run(
        tiny_run.task, tiny_run.architecture, {0: tiny_run.weights(0)}, train=torch.arange(49)
    )
    with pytest.raises(gi.InputError, match="rows='unmirrored' are none in this split; give rows="):
        kernel(full)
    bad = changed(tiny_run, lambda weights: {n: w * math.nan for n, w in weights.items()})
    with pytest.raises(gi.InputError, match="the weights at step 0 are not finite"):
        kernel(bad)
    with pytest.raises(gi.InputError, match=r"kernels of shapes \(2, 2\) and \(3, 3\) do not"):
        gi.geometry.centred_alignment(torch.eye(2), torch.eye(3))


def test_a_row_of_a_table_of_runs(tiny_run):
    row, found = measured(tiny_run, ["kernel"]), gi.geometry.kernel(tiny_run)
    last = found.table().iloc[-1]
    assert row["note"] == ""
    assert row["kernel_distance"] == last.distance
    assert row["kernel_distance_spread"] == last.distance_spread
    assert row["kernel_alignment"] == last.alignment
    assert row["kernel_distance_at_memorization"] == pytest.approx(
        found.distance_at_memorization, nan_ok=True
    )
    alone = made_run(tiny_run.task, tiny_run.architecture, {0: tiny_run.weights(0)})
    with pytest.raises(gi.InputError, match="one checkpoint has no distance; save more steps"):
        gi.progress.MEASURES["kernel"].columns_of_run(alone)
