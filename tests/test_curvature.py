"""Curvature against dense Hessians, closed forms and curvlinops, and the traps of reading it."""

import importlib
import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import grokinterp as gi
from grokinterp.geometry import loss_surface as surfaces
from grokinterp.geometry.inputs import logits_on_batches
from grokinterp.geometry.loss_surface import loss_surface
from grokinterp.geometry.spectrum_by_products import (
    block_traces,
    lanczos,
    mean_and_error,
    quadrature,
    rademacher,
)
from grokinterp.runs._snapshot import from_weights
from tests.small_runs import each_trained_once
from tests.test_metric import MODELS, example

T = 1.7
OF_TORCH = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


@pytest.fixture(scope="module")
def curvlinops():
    """Another hand's Hessian products, which differentiate a module by themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what it imports
        return importlib.import_module("curvlinops")


def own_module():
    """A network with names of its own, and a split."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Tanh(), nn.Linear(8, 5)).double()
    task = gi.ModularTask("add", 5, equals_token=False)
    return gi.snapshot(net, task, train_mask=torch.arange(25) % 3 > 0), net


@pytest.fixture(scope="module", params=[*MODELS, "module"])
def snapshot(request):
    return own_module()[0] if request.param == "module" else example(request.param)


def dense(snapshot, temperature):
    """The Hessian and its Gauss-Newton part, entry by entry, of all weights but zero biases."""
    surface = loss_surface(snapshot, rows="train")
    rows = snapshot.train_mask.nonzero().flatten()
    inputs, labels = snapshot.task.model_inputs[rows], snapshot.task.labels[rows]
    fixed = {n: w.double() for n, w in snapshot.weights.items() if n not in surface.shapes}

    def logits(theta):
        each = zip(
            surface.shapes,
            theta.split([math.prod(s) for s in surface.shapes.values()]),
            strict=True,
        )
        weights = {name: part.view(surface.shapes[name]) for name, part in each}
        return logits_on_batches(snapshot)(fixed | weights, inputs) / temperature

    theta = surface.theta
    gradient = torch.func.jacrev(lambda x: cross_entropy(logits(x), labels))
    hessian = torch.func.jacrev(gradient)(theta)
    jacobian = torch.func.jacrev(logits)(theta)
    p = logits(theta).softmax(dim=1)
    of_outputs = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    part = torch.einsum("nca,ncd,ndb->ab", jacobian, of_outputs, jacobian) / len(rows)
    return surface, hessian, part


def random_vector(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(one, other, rel=1e-9):
    return float((one - other).abs().max()) <= rel * float(other.abs().max())


class TestAgainstDenseMatrices:
    def test_every_number_of_the_table(self, snapshot):
        surface, hessian, part = dense(snapshot, 1.0)
        n_probes = 3
        found = gi.geometry.curvature(
            snapshot, match_loss=None, n_lanczos=60, n_probes=n_probes, seed=4
        )
        row = found.table().iloc[0]
        norms = {n: float(w.square().sum()) for n, w in surface.tensors(surface.theta).items()}
        assert row.norm_squared == pytest.approx(sum(norms.values()))
        assert row.loss == pytest.approx(surface.loss())
        assert found.n_weights == len(hessian)
        generator = torch.Generator().manual_seed(4)
        probes = [rademacher(len(hessian), generator) for _ in range(n_probes)]
        for prefix, matrix in (("", hessian), ("ggn_", part)):
            values = torch.linalg.eigvalsh(matrix)
            size = float(values.abs().max())
            assert row[prefix + "lambda_max"] == pytest.approx(float(values[-1]), rel=1e-6)
            assert row[prefix + "lambda_min"] == pytest.approx(float(values[0]), abs=1e-4 * size)
            each = torch.stack([v * (matrix @ v) for v in probes])
            assert row[prefix + "trace"] == pytest.approx(float(each.sum(dim=1).mean()))
            assert row[prefix + "lambda_max_scaled"] == pytest.approx(
                float(values[-1]) * sum(norms.values()), rel=1e-6
            )
            blocks = sum(norms[n] * each[:, at].sum(dim=1) for n, at in surface.parts.items())
            assert row[prefix + "trace_per_tensor"] == pytest.approx(float(blocks.mean()))
            error = float(blocks.std()) / n_probes**0.5
            assert row[prefix + "trace_per_tensor_se"] == pytest.approx(error)
        table = found.by_tensor().set_index("tensor")
        assert list(table.index) == list(norms)
        assert table.trace.sum() == pytest.approx(row.trace)

    def test_products_at_a_temperature(self, snapshot):
        surface, hessian, part = dense(snapshot, T)
        products = replace(surface, temperature=T).products()
        for seed in (0, 1):  # the second goes through what the first has kept
            v = random_vector(len(hessian), seed)
            assert near(products.hessian(v), hessian @ v)
            assert near(products.gauss_newton(v), part @ v)

    def test_batches_are_added_whether_kept_or_not(self, snapshot, monkeypatch):
        surface = loss_surface(snapshot, rows="all")
        v = random_vector(surface.n_weights)
        whole = surface.products()
        monkeypatch.setattr(surfaces, "INPUTS_AT_ONCE", 3)
        monkeypatch.setattr(surfaces, "KEPT_BATCHES", 1)
        parts = surface.products()
        for _ in range(2):
            assert near(parts.hessian(v), whole.hessian(v))
            assert near(parts.gauss_newton(v), whole.gauss_newton(v))


@OF_TORCH
def test_products_of_another_hand(curvlinops):
    snapshot, net = own_module()
    rows = snapshot.train_mask.nonzero().flatten()
    data = [(snapshot.task.tokens[rows], snapshot.task.labels[rows])]
    products = loss_surface(snapshot).products()
    v = random_vector(sum(x.numel() for x in net.parameters()))
    for theirs, ours in (
        (curvlinops.HessianLinearOperator, products.hessian),
        (curvlinops.GGNLinearOperator, products.gauss_newton),
    ):
        operator = theirs(net, nn.CrossEntropyLoss(), list(net.parameters()), data)
        assert near(ours(v), operator @ v)


@OF_TORCH
def test_products_of_another_hand_of_a_hooked_transformer(curvlinops):
    snapshot = example("deeper")
    model = snapshot.architecture.hooked(snapshot.weights).double()
    surface = loss_surface(snapshot)
    parameters = [dict(model.named_parameters())[name] for name in surface.shapes]
    rows = snapshot.train_mask.nonzero().flatten()
    data = [(snapshot.task.tokens[rows], snapshot.task.labels[rows])]

    class LastPosition(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, tokens):
            return self.model(tokens)[:, -1]

    v = random_vector(surface.n_weights)
    operator = curvlinops.HessianLinearOperator(
        LastPosition(), nn.CrossEntropyLoss(), parameters, data
    )
    assert near(surface.products().hessian(v), operator @ v)


def test_linear_softmax_in_closed_form():
    """z = W x: H = mean of (diag p - p p^T) kron x x^T, all of it Gauss-Newton."""
    torch.manual_seed(0)
    task = gi.ModularTask("add", 4, equals_token=False)
    table = torch.randn(4, 3).double()

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.read_out = nn.Linear(6, 4, bias=False).double()

        def forward(self, pairs):
            return self.read_out(table[pairs].flatten(1))

    net = Linear()
    x = table[task.tokens].flatten(1)
    p = (x @ net.read_out.weight.T).detach().softmax(dim=1)
    of_outputs = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    exact = sum(torch.kron(a, torch.outer(y, y)) for a, y in zip(of_outputs, x, strict=True)) / len(
        x
    )
    row = gi.geometry.curvature(
        net, task=task, rows="all", match_loss=None, n_lanczos=24, n_probes=1
    ).table().iloc[0]  # fmt: skip
    values = torch.linalg.eigvalsh(exact)
    for prefix in ("", "ggn_"):
        assert row[prefix + "lambda_max"] == pytest.approx(float(values[-1]))
        assert row[prefix + "lambda_min"] == pytest.approx(0, abs=1e-12)


class TestKnownMatrices:
    def known(self, n=40):
        basis = torch.linalg.qr(random_vector(n * n).view(n, n)).Q
        values = torch.cat([torch.tensor([-2.0, 9.0]), torch.linspace(0, 1, n - 2)]).double()
        return basis @ values.diag() @ basis.T, values.sort().values

    def test_errors_of_eigenvalues_hold(self):
        matrix, values = self.known()
        for steps in (3, 6, 12):
            ritz = lanczos(lambda v: matrix @ v, random_vector(40), steps)
            away = (ritz.values[:, None] - values).abs().amin(dim=1)
            assert bool((away <= ritz.errors + 1e-12).all())
            assert ritz.values[-1] <= values[-1] + 1e-12
        assert float(ritz.values[-1]) == pytest.approx(9)
        assert float(ritz.values[0]) == pytest.approx(-2)

    def test_a_span_that_is_closed(self):
        matrix = torch.eye(5).double() * 2
        ritz = lanczos(lambda v: matrix @ v, torch.ones(5).double(), 5)
        assert ritz.values.tolist() == pytest.approx([2])
        assert ritz.errors.tolist() == [0]
        ritz = lanczos(lambda v: 0 * v, torch.ones(5).double(), 5)
        assert ritz.values.tolist() == [0]

    def test_the_standard_error_of_the_trace_is_honest(self):
        """The variance of v^T A v over vectors of signs is 2 (|A|^2 - sum of A_ii^2)."""
        matrix, values = self.known()
        blocks = [slice(0, 25), slice(25, 40)]
        found = torch.stack(
            [
                block_traces(lambda v: matrix @ v, 40, blocks, n_probes=12, seed=seed)
                for seed in range(300)
            ]
        )
        exact = 2 * float(matrix.square().sum() - matrix.diagonal().square().sum()) / 12
        pairs = [mean_and_error(each) for each in found.sum(dim=2)]
        means, errors = torch.tensor(pairs, dtype=torch.float64).T
        assert float(errors.square().mean()) == pytest.approx(exact, rel=0.1)
        assert float(means.var()) == pytest.approx(exact, rel=0.25)
        assert float(means.mean()) == pytest.approx(
            float(values.sum()), abs=4 * (exact / 300) ** 0.5
        )
        of_blocks = [float(part.sum()) for part in matrix.diagonal().split([25, 15])]
        assert found.mean(dim=(0, 1)).tolist() == pytest.approx(of_blocks, abs=0.5)

    def test_moments_of_the_quadrature(self):
        matrix, values = self.known()
        nodes, weights = quadrature(lambda v: matrix @ v, 40, n_steps=12, starts=range(200), seed=0)
        assert float(weights.sum()) == pytest.approx(1)
        for k in (1, 2, 3):
            exact = float((values**k).mean())
            assert float(weights @ nodes**k) == pytest.approx(exact, rel=0.05)


class TestTraps:
    def test_frozen_biases_are_left_out(self):
        surface = loss_surface(gi.load("mod113-grokked"), step=1200)
        assert surface.n_weights == 226_048
        assert not [name for name in surface.shapes if ".b_" in name]

    def test_confidence_is_not_flatness(self):
        """Longer unembedding, same answers: raw curvature is gone, matched is that of before."""
        run = gi.load("mod31-small")
        last = run.snapshot()
        longer = dict(last.weights) | {"unembed.W_U": 3 * last.weights["unembed.W_U"]}
        options = {"n_samples": 100, "n_lanczos": 12, "n_probes": 4}
        rows = [
            gi.geometry.curvature(
                from_weights(weights, last.architecture, run.task, train_mask=run.train_mask),
                **options,
            ).table().set_index("loss_is")
            for weights in (last.weights, longer)
        ]  # fmt: skip
        (raw, longer_raw), (matched, longer_matched) = (
            [table.loc[loss_is] for table in rows] for loss_is in ("raw", "matched")
        )
        assert longer_raw.lambda_max < 1e-6 * raw.lambda_max
        assert longer_matched.temperature == pytest.approx(3 * matched.temperature)
        assert longer_matched.loss == pytest.approx(0.1) == matched.loss
        assert 0.5 < longer_matched.lambda_max / matched.lambda_max < 1.01
        # Of each tensor's own block, scaled by its norm, nothing changes but the probes' noise.
        error = math.hypot(longer_matched.trace_per_tensor_se, matched.trace_per_tensor_se)
        assert abs(longer_matched.trace_per_tensor - matched.trace_per_tensor) < 4 * error

    def test_no_temperature_gives_the_loss(self):
        found = gi.geometry.curvature("mod31-small", 0, n_samples=32, n_lanczos=2, n_probes=1)
        matched = found.table().iloc[1]
        assert matched.loss_is == "matched"
        assert matched[["temperature", "loss", "lambda_max", "trace"]].isna().all()
        assert any("no matched loss, step 0: no temperature" in note for note in found.notes)
        assert found.plot().data

    def test_decay_is_a_term_of_the_loss_of_some(self, tmp_path):
        trained = each_trained_once(tmp_path)
        options = {"match_loss": None, "n_lanczos": 3, "n_probes": 1}
        for optimizer, decay in (("adam", 0.01), ("sgd", 0.02), ("adam", 0.0)):
            run = trained(optimizer=optimizer, weight_decay=decay)
            row = gi.geometry.curvature(run, **options).table().iloc[0]
            for name in ("lambda_max", "lambda_min"):
                assert row[f"{name}_penalised"] == pytest.approx(row[name] + decay)
        for changes, why in (
            ({"weight_decay": 0.1}, "the decay of optimizer='adamw' is no term of a loss"),
            (
                {"optimizer": "adam", "weight_decay": 0.1, "decay_on": "matrices", "biases": "all"},
                "not all weights decay alike",
            ),
        ):
            found = gi.geometry.curvature(trained(**changes), **options)
            assert math.isnan(found.table().iloc[0].lambda_max_penalised)
            assert any(why in note for note in found.notes)
        found = gi.geometry.curvature(trained(output_scale=0.5), **options)
        assert any("not what the run minimised" in note for note in found.notes)
        columns = gi.progress.MEASURES["curvature"].columns_of_run(trained(weight_decay=0.1))
        assert columns["curvature_lambda_max_raw"] > 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"step": [300, 200]}, "do not rise"),
            ({"step": 7}, "7"),
            ({"match_loss": 0}, "match_loss=0 is not"),
            ({"n_probes": 0}, "n_probes=0 is not a whole number from 1 on"),
            ({"n_lanczos": 1}, "n_lanczos=1 is not a whole number from 2 to 1000"),
            ({"rows": "unmirrored"}, "rows='unmirrored' is not known"),
        ],
    )
    def test_bad_input(self, options, message):
        with pytest.raises(gi.InputError, match=message):
            gi.geometry.curvature("mod31-small", **options)

    def test_no_split(self):
        run = gi.load("mod31-small")
        with pytest.raises(gi.InputError, match="needs the split; give train_mask"):
            gi.geometry.curvature(run.model(), task=run.task)


class TestNumbers:
    @pytest.mark.parametrize(("step", "temperature"), [(1200, 3.52), (4800, 4.18), (12000, 3.96)])
    def test_matched_temperature(self, step, temperature):
        surface = loss_surface(gi.load("mod113-grokked"), step=step).matched(0.1)
        assert surface.temperature == pytest.approx(temperature, abs=0.006)
        assert surface.loss() == pytest.approx(0.1)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("step", "largest", "trace"), [(1200, 10.2, 626), (4800, 9.96, 301), (12000, 5.02, 123)]
    )
    def test_curvature_of_a_grokked_run(self, step, largest, trace):
        row = gi.geometry.curvature("mod113-grokked", step).table().iloc[1]
        assert row.lambda_max == pytest.approx(largest, rel=0.02)
        assert row.trace == pytest.approx(trace, rel=0.1)

    @pytest.mark.slow
    def test_curvature_of_a_grokked_mlp(self):
        found = gi.geometry.curvature("mlp113-grokked", [2800, 140_000], n_samples=2000)
        table = found.table()
        traces = table[table.loss_is == "matched"].trace.tolist()
        assert traces == pytest.approx([47.1, 8.84], rel=0.2)


def test_the_density_has_the_moments_of_the_matrix():
    snapshot = example("mlp")
    _, hessian, _ = dense(snapshot, 1.0)
    found = gi.geometry.spectral_density(snapshot, match_loss=None, n_steps=40, n_starts=5, seed=3)
    n = len(hessian)
    assert (found.n_weights, found.loss_is, found.temperature) == (n, "raw", 1.0)
    assert found.moment(0) == pytest.approx(1)
    generator = torch.Generator().manual_seed(3)
    starts = [rademacher(n, generator) for _ in range(5)]
    for k in (1, 2, 3):  # of the same starts: exact
        power = torch.linalg.matrix_power(hessian, k)
        exact = sum(float(v @ power @ v) for v in starts) / 5 / n
        assert found.moment(k) == pytest.approx(exact)
    values = torch.linalg.eigvalsh(hessian)
    assert float(found.nodes.max()) == pytest.approx(float(values[-1]))
    assert found.number_above(float(values[-1] + values[-2]) / 2) == pytest.approx(1, rel=0.9)
    for broadening in (0.01, 0.1):
        where, density = map(torch.tensor, found.curve(broadening=broadening, points=4000))
        assert float(torch.trapezoid(density, where)) == pytest.approx(1, rel=1e-3)
    assert found.table()["count"].sum() == pytest.approx(n)


def test_curvature_with_its_density(tmp_path):
    run = each_trained_once(tmp_path)(weight_decay=0.1)
    found = gi.geometry.curvature(run, n_lanczos=3, n_probes=1, density=True)
    (density,) = found.densities
    assert density.loss == pytest.approx(0.1)
    assert density.loss_is == "matched"
    assert density.plot().data
