import math

import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.circuits.neurons import neuron_clusters
from grokinterp.fourier import fourier_basis
from grokinterp.fourier.localization import POWERS, fourier_heat_map, ipr, neuron_ipr
from grokinterp.fourier.spectra import input_weights, output_weights
from grokinterp.runs._snapshot import Snapshot, from_weights
from grokinterp.tasks import ModularTask
from grokinterp.tasks.ising import IsingTask
from tests.test_maps import draw, embedded, two_hot
from tests.test_neurons import hand_built, random_model


def waves(n, k, phases):
    """A column per phase."""
    x = torch.arange(n, dtype=torch.float64)[:, None]
    return torch.cos(2 * torch.pi * k * x / n - torch.tensor(phases, dtype=torch.float64))


def dense_ipr(x, convention):
    """One coefficient at a time, from the formula."""
    n = len(x)
    found = []
    for column in x.double().T.tolist():
        power = []
        for nu in range(n):
            angle = [2 * math.pi * nu * t / n for t in range(n)]
            cos = sum(v * math.cos(a) for v, a in zip(column, angle, strict=True))
            sin = sum(v * math.sin(a) for v, a in zip(column, angle, strict=True))
            if convention == "complex":
                power.append(cos**2 + sin**2)
            elif nu <= n // 2:
                edge = nu == 0 or 2 * nu == n
                parts = [cos**2 / n] if edge else [2 * cos**2 / n, 2 * sin**2 / n]
                power += parts if convention == "real" else [sum(parts)]
        found.append(sum(p**2 for p in power) / sum(power) ** 2)
    return found


@pytest.mark.parametrize("convention", POWERS)
@pytest.mark.parametrize("n", [1, 2, 6, 7, 12, 13])
def test_ipr_equals_its_definition(convention, n):
    x = draw(n, 4) + 0.5
    assert ipr(x, convention=convention).tolist() == pytest.approx(dense_ipr(x, convention))
    assert ipr(x.float(), convention=convention).dtype == torch.float64


@pytest.mark.parametrize("n", [5, 31, 113])
def test_a_wave_of_any_phase_has_the_published_values(n):
    """cos^4 + sin^4 averages 3/4; both conjugates have half of a full DFT's power each."""
    phases = [2 * math.pi * (j + 0.3) / 24 for j in range(24)]
    x = waves(n, 2, phases)
    real = ipr(x)
    assert real.mean().item() == pytest.approx(0.75)
    expected = [math.cos(phi) ** 4 + math.sin(phi) ** 4 for phi in phases]
    assert real.tolist() == pytest.approx(expected)
    assert ipr(x, convention="complex").tolist() == pytest.approx([0.5] * 24)
    assert ipr(x, convention="one_sided").tolist() == pytest.approx([1] * 24)


def test_the_constant_counts_and_so_does_the_alternating_row():
    n, c = 7, 0.5
    wave = waves(n, 3, [0.0])
    power, constant = n / 2, n * c**2
    expected = (power**2 + constant**2) / (power + constant) ** 2
    assert ipr(wave + c).item() == pytest.approx(expected)
    for convention in POWERS:
        assert ipr(torch.ones(n, 1), convention=convention).item() == pytest.approx(1)
        assert ipr(waves(8, 4, [0.0]), convention=convention).item() == pytest.approx(1)


@pytest.mark.parametrize("n", [7, 8])
def test_bounds_are_reached(n):
    """Equal power in all coefficients: 1/n; a single token: flat in the full DFT."""
    even = fourier_basis(n).sum(0)[:, None]
    assert ipr(even).item() == pytest.approx(1 / n)
    token = torch.eye(n)[:, :1]
    assert ipr(token, convention="complex").item() == pytest.approx(1 / n)
    assert ipr(fourier_basis(n).T).tolist() == pytest.approx([1] * n)
    many = ipr(draw(n, 500))
    assert (many >= 1 / n).all()
    assert (many <= 1).all()


def test_scale_does_not_matter_and_zero_is_undefined():
    x = draw(7, 3)
    for scale in (1e-30, -1e30):
        torch.testing.assert_close(ipr(x * scale), ipr(x))
    x[:, 1] = 0
    for convention in POWERS:
        assert ipr(x, convention=convention).isnan().tolist() == [False, True, False]
    with pytest.raises(InputError, match="did you mean 'complex'"):
        ipr(x, convention="complx")


@pytest.mark.parametrize("convention", POWERS)
def test_stacked_blocks_share_their_coefficients(convention):
    x = draw(2, 7, 5)
    first, second = (ipr(block, convention=convention) for block in x)
    a, b = x.square().sum(1)  # the power of a block is its sum of squares, however it is split up
    expected = (first * a**2 + second * b**2) / (a + b) ** 2
    torch.testing.assert_close(ipr(x, convention=convention), expected)
    same = ipr(torch.stack([x[0], -3 * x[0] / 3]), convention=convention)
    torch.testing.assert_close(same, first / 2)
    alone = ipr(torch.stack([x[0], 0 * x[0]]), convention=convention)
    torch.testing.assert_close(alone, first)
    torch.testing.assert_close(ipr(x[:1], convention=convention), first)


def of_weights(weights, task, n_layers=1):
    """A snapshot of weights that no transformer has."""
    return Snapshot(task, weights=weights, n_layers=n_layers, forward=lambda tokens, names: None)


def wave_mlp(n=13):
    """Neuron j reads frequency k_j of a and b with phases of its own, and writes another."""
    reads, writes = (3, 1, 5, 3), (2, 2, 6, 4)
    a = torch.cat([waves(n, k, [0.1 * j]) for j, k in enumerate(reads)], dim=1)
    b = torch.cat([2 * waves(n, k, [0.7 + j]) for j, k in enumerate(reads)], dim=1)
    out = torch.cat([waves(n, k, [0.2 + j]) for j, k in enumerate(writes)], dim=1)
    weights = {
        "blocks.0.mlp.W_in": torch.cat([a, b]), "blocks.0.mlp.b_in": torch.ones(4),
        "unembed.W_U": out.T, "unembed.b_U": torch.ones(n),
    }  # fmt: skip
    return weights, a, b, out, reads, writes


def test_a_hand_built_mlp_has_the_iprs_of_its_waves():
    weights, a, b, out, reads, writes = wave_mlp()
    found = neuron_ipr(of_weights(weights, ModularTask("add", 13, False)))
    torch.testing.assert_close(found.input_blocks, torch.stack([ipr(a), ipr(b)]))
    torch.testing.assert_close(found.input, (ipr(a) + ipr(b)) / 2)
    torch.testing.assert_close(found.input_stacked, ipr(torch.stack([a, b])))
    torch.testing.assert_close(found.output, ipr(out))
    assert found.dominant_input.tolist() == list(reads)
    assert found.dominant_output.tolist() == list(writes)
    table = found.table()
    assert table["ipr_input_a"].tolist() == pytest.approx(ipr(a).tolist())
    assert table["ipr_input_b"].tolist() == pytest.approx(ipr(b).tolist())
    assert table["ipr_input"].tolist() == pytest.approx(found.input.tolist())
    assert table["ipr_input_stacked"].tolist() == pytest.approx(found.input_stacked.tolist())
    assert table["ipr_output"].tolist() == pytest.approx(ipr(out).tolist())
    assert table["dominant_input"].tolist() == list(reads)
    assert table["dominant_output"].tolist() == list(writes)
    assert table.attrs["means"] == found.means
    assert found.means["ipr_input"] == pytest.approx(float(found.input.mean()))
    assert found.means["ipr_input_stacked"] == pytest.approx(float(found.input_stacked.mean()))
    assert found.means["ipr_output"] == pytest.approx(float(ipr(out).mean()))
    assert table.attrs["n_undefined"] == {"ipr_input": 0, "ipr_output": 0}
    assert table.attrs["convention"] == "real"
    other = neuron_ipr(of_weights(weights, ModularTask("add", 13, False)), convention="complex")
    assert other.means == pytest.approx(
        {"ipr_input": 0.5, "ipr_input_stacked": 0.34, "ipr_output": 0.5}  # powers 1 and 4
    )


def test_neurons_without_weights_are_counted_and_left_out_of_the_means():
    weights = two_hot()
    weights["blocks.0.mlp.W_in"][5:, 2] = 0  # reads a alone
    weights["unembed.W_U"][4] = 0
    found = neuron_ipr(of_weights(weights, ModularTask("add", 5, False)))
    assert found.n_undefined == {"ipr_input": 1, "ipr_output": 1}
    assert found.input.isnan().nonzero().flatten().tolist() == [2]
    assert found.input_stacked[2] == found.input_blocks[0, 2]
    kept = [k for k in range(8) if k != 2]
    assert found.means["ipr_input"] == pytest.approx(float(found.input[kept].mean()))
    assert math.isfinite(found.means["ipr_output"])
    heat = fourier_heat_map(of_weights(weights, ModularTask("add", 5, False)), side="output")
    assert heat.columns[-1] == 4
    assert heat[4].isna().all()
    assert heat.attrs["n_undefined"] == 1


def test_several_layers_have_rows_of_their_own():
    weights = embedded(widths=(8, 6))
    found = neuron_ipr(of_weights(weights, ModularTask("add", 5, False), n_layers=2))
    table = found.table()
    assert list(zip(table["layer"], table["neuron"], strict=True)) == [
        *((0, k) for k in range(8)), *((1, k) for k in range(6)),
    ]  # fmt: skip
    assert table["ipr_output"].isna().tolist() == [True] * 8 + [False] * 6
    assert table["ipr_input"].isna().tolist() == [False] * 8 + [True] * 6
    assert table["dominant_output"].iloc[8:].tolist() == found.dominant_output.tolist()


@pytest.mark.parametrize("path", ["direct", "attention"])
def test_multiplication_is_seen_in_discrete_logarithms(path):
    """Tokens in the order 3^0, 3^1, ... mod 7; 0 is left out."""
    weights, architecture, task = random_model(1, 7, "multiply")
    found = neuron_ipr(from_weights(weights, architecture, task), path=path)
    powers = [1, 3, 2, 6, 4, 5]
    read = input_weights(weights, 7, path=path)[0, powers]
    torch.testing.assert_close(found.input, ipr(read))
    torch.testing.assert_close(found.input_stacked, ipr(read) / 2)
    torch.testing.assert_close(found.output, ipr(output_weights(weights, 7)[powers]))
    assert found.table().attrs["path"] == path


def test_the_heat_map_sorts_neurons_by_frequency():
    weights, _, _, _, reads, writes = wave_mlp()
    weights["blocks.0.mlp.W_in"][0, 0] += 0.5  # less pure than the other neuron of frequency 3
    snapshot = of_weights(weights, ModularTask("add", 13, False))
    heat = fourier_heat_map(snapshot)
    assert heat.shape == (7, 4)
    assert list(heat.index) == list(range(7))
    assert list(heat.columns) == [1, 3, 0, 2]
    assert (heat.index.name, heat.columns.name) == ("frequency", "neuron")
    assert heat.sum().tolist() == pytest.approx([1] * 4)
    for neuron, k in enumerate(reads):
        assert heat[neuron].idxmax() == k
    assert heat.loc[5, 2] == pytest.approx(1)
    assert heat.loc[3, 0] < 0.999
    column = weights["blocks.0.mlp.W_in"][:, 0].view(2, 13)
    power = (fourier_basis(13) @ column.T).square().sum(1)
    expected = [power[0], *(power[2 * k - 1] + power[2 * k] for k in range(1, 7))]
    assert heat[0].tolist() == pytest.approx([float(x / power.sum()) for x in expected])
    out = fourier_heat_map(snapshot, side="output")
    assert [out[neuron].idxmax() for neuron in range(4)] == list(writes)
    assert [writes[neuron] for neuron in out.columns] == [2, 2, 4, 6]
    assert out.attrs["side"] == "output"


def test_clock_weights_are_localised_where_attention_reads():
    snapshot = hand_built()
    found = neuron_ipr(snapshot, convention="one_sided", path="attention")
    assert found.input.tolist() == pytest.approx([1] * 192)
    assert found.output.tolist() == pytest.approx([1] * 192)
    clusters = neuron_clusters(snapshot)
    assert torch.equal(found.dominant_input, clusters.leading)
    assert torch.equal(found.dominant_output, clusters.leading)


def test_the_shipped_run_localises(shipped):
    """The path through attention has the frequencies of the neurons; the direct one has not."""
    last, first = (shipped.snapshot(step) for step in (-1, 0))
    clusters = neuron_clusters(last)
    agree = {}
    for path in ("direct", "attention"):
        found = neuron_ipr(last, path=path)
        agree[path] = float((found.dominant_input == clusters.leading).double().mean())
    assert agree["attention"] > 0.9
    assert agree["direct"] < 0.5
    assert found.means["ipr_input"] == pytest.approx(0.69, abs=0.02)
    assert found.means["ipr_output"] == pytest.approx(0.68, abs=0.02)
    early = neuron_ipr(first, path="attention").means
    assert early["ipr_input"] == pytest.approx(3 / 113, rel=0.1)  # of Gaussian coefficients
    assert early["ipr_output"] == pytest.approx(3 / 113, rel=0.1)


def test_what_has_no_tokens_is_refused():
    weights, architecture, task = random_model(1)
    snapshot = from_weights(weights, architecture, task)
    with pytest.raises(InputError, match="did you mean 'real'"):
        neuron_ipr(snapshot, convention="reel")
    with pytest.raises(InputError, match="valid are: input, output"):
        fourier_heat_map(snapshot, side="left")
    snapshot.task = IsingTask(lattice=4, n_train=2, n_test=2, sweeps=1)
    for function in (neuron_ipr, fourier_heat_map):
        with pytest.raises(InputError, match="Ising phases on 4 x 4 has no operand tokens"):
            function(snapshot)
