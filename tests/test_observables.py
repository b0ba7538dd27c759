import math

import numpy as np
import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.progress.observables import correlation_table, correlations, layer_correlation


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_correlations_are_numpys():
    z, o = draw(40, 5), draw(40, seed=1)
    z[:, 0] += 2 * o
    z[:, 1] -= 5 * o
    found = correlations(z, o)
    expected = [np.corrcoef(z[:, k], o)[0, 1] for k in range(5)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    assert found[0] > 0.8
    assert found[1] < -0.9
    assert correlations(z.float(), o.float()).dtype == torch.float64


def test_correlations_of_three_points_by_hand():
    """Deviations (-1, 0, 1) and (-1, 2, -1), (-1, -1, 2): r = 0 and 3 / sqrt(2 * 6)."""
    z = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    found = correlations(z, torch.tensor([7.0, 8.0, 9.0]))
    assert found.tolist() == pytest.approx([0, 3 / math.sqrt(12)], abs=1e-15)


def test_affine_changes_move_only_the_sign():
    z, o = draw(30, 3), draw(30, seed=1)
    torch.testing.assert_close(correlations(-3 * z + 100, 0.5 * o - 7), -correlations(z, o))
    assert correlations(o[:, None], o).item() == pytest.approx(1)
    assert correlations(-1e-9 * o[:, None], o).item() == pytest.approx(-1)


def test_constant_units_are_undefined_whatever_rounding_leaves():
    z = draw(23, 4)
    z[:, 1], z[:, 3] = 0.1, 0.0
    assert (z - z.mean(0))[:, 1].norm() > 0  # centring leaves rounding
    found = correlations(z, draw(23, seed=1))
    assert found.isnan().tolist() == [False, True, False, True]
    assert correlations(z, torch.full((23,), 0.1).double()).isnan().all()
    z[0, 0] = torch.inf
    assert correlations(z, draw(23, seed=1)).isnan().tolist() == [True, True, False, True]
    with pytest.raises(InputError, match="at least 2"):
        correlations(z[:1], torch.zeros(1))


def test_the_summary_equals_its_definition():
    z, o = draw(50, 4), draw(50, seed=1)
    z[:, 0] = 10 * o + z[:, 0]
    z[:, 2] = -z[:, 2].abs()
    found = layer_correlation(z, o, layer="fc", name="E")
    size = [sum(abs(float(x)) for x in z[:, k]) for k in range(4)]
    r = [abs(np.corrcoef(z[:, k], o)[0, 1]) for k in range(4)]
    weighted = sum(s * x for s, x in zip(size, r, strict=True)) / sum(size)
    assert found.weighted == pytest.approx(weighted, rel=1e-12)
    assert found.weighted_over_units == pytest.approx(weighted / 4, rel=1e-12)
    assert found.median == pytest.approx(sorted(r)[1] / 2 + sorted(r)[2] / 2, rel=1e-12)
    assert found.shares.tolist() == pytest.approx([s / sum(size) for s in size])
    assert (found.n_units, found.n_undefined, found.n_rows) == (4, 0, 50)
    table = found.table()
    assert table["unit"].tolist() == [0, 1, 2, 3]
    assert table["correlation"].abs().tolist() == pytest.approx(r)
    assert table.attrs == {"layer": "fc", "observable": "E", "n_rows": 50, "n_undefined": 0}


def test_perfect_units_have_all_measures_at_their_bounds():
    o = draw(20)
    found = layer_correlation(torch.stack([o, -2 * o, o + 3], dim=1), o)
    assert found.weighted == pytest.approx(1)
    assert found.median == pytest.approx(1)
    assert found.weighted_over_units == pytest.approx(1 / 3)


def test_undefined_units_are_counted_and_take_no_part():
    o = draw(20)
    z = torch.stack([o, torch.full((20,), 50.0).double(), draw(20, seed=1)], dim=1)
    found, without = layer_correlation(z, o), layer_correlation(z[:, [0, 2]], o)
    assert (found.n_units, found.n_undefined) == (3, 1)
    assert found.weighted == pytest.approx(without.weighted)
    assert found.median == pytest.approx(without.median)
    assert found.weighted_over_units == pytest.approx(found.weighted / 3)
    assert found.shares[1] > 0.8
    dead = layer_correlation(torch.zeros(20, 3), o)
    assert dead.n_undefined == 3
    assert math.isnan(dead.weighted)
    assert math.isnan(dead.median)
    assert dead.shares.tolist() == [0, 0, 0]


def test_units_of_a_convolution_are_channels_and_places():
    z, o = draw(30, 2, 3, 4), draw(30, seed=1)
    found = layer_correlation(z, o)
    assert found.n_units == 24
    assert found.correlations[13] == pytest.approx(np.corrcoef(z[:, 1, 0, 1], o)[0, 1])


def test_the_table_has_a_row_for_each_layer_and_observable():
    layers = {"conv": draw(30, 2, 2, 2), "fc": draw(30, 5, seed=1)}
    e, m = draw(30, seed=2), draw(30, seed=3)
    table = correlation_table(layers, {"E": e, "|M|": m.abs(), "M": m})
    assert list(zip(table["layer"], table["observable"], strict=True)) == [
        (layer, name) for layer in ("conv", "fc") for name in ("E", "|M|", "M")
    ]
    one = layer_correlation(layers["fc"], m.abs())
    row = table.iloc[4]
    assert row["weighted_r"] == one.weighted
    assert row["weighted_r_over_units"] == one.weighted_over_units
    assert row["median_r"] == one.median
    assert table["n_units"].tolist() == [8] * 3 + [5] * 3
    assert set(table["n_rows"]) == {30}
    assert set(table["n_undefined"]) == {0}
    empty = correlation_table({}, {"E": e})
    assert len(empty) == 0
    assert list(empty.columns) == list(table.columns)


def test_energy_separates_from_magnetisation():
    """Units that read the energy of two-domain and uniform lattices, which |M| cannot tell."""
    energy = torch.tensor([-1.0, -0.75, -1.0, -0.75, 0.0, 0.1]).double()
    size = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.1, 0.0]).double()
    table = correlation_table({"fc": energy[:, None] * 3 - 1}, {"E": energy, "|M|": size})
    assert table["weighted_r"].tolist() == pytest.approx(
        [1, abs(np.corrcoef(energy, size)[0, 1])], rel=1e-12
    )
    assert table["weighted_r"][0] > table["weighted_r"][1] + 0.3
