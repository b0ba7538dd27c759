"""Features over training are those of each checkpoint, on rows that are said."""

from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch

import grokinterp as gi
from grokinterp.encodings import features, observable_correlations
from grokinterp.fourier.localization import neuron_ipr
from grokinterp.progress.observables import correlations

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"


@pytest.fixture(scope="module")
def ising() -> gi.Run:
    return gi.load(CHECKPOINTS / "ising-steady")


@pytest.mark.parametrize("convention", [None, "complex"])
def test_of_modular_addition_a_row_has_the_mean_iprs_of_its_step(convention):
    mlp = gi.load(CHECKPOINTS / "mlp113-steady")
    table = features(mlp, steps=[0, -1], convention=convention)
    assert table.step.tolist() == [0, mlp.steps[-1]]
    assert table.attrs["convention"] == (convention or "real")
    for row in table.to_dict("records"):
        step = row.pop("step")
        assert row == neuron_ipr(mlp, step=step, convention=convention or "real").means


def test_of_ising_models_a_row_has_every_layer_with_every_observable(ising):
    table = features(ising, steps=[100_000])
    at_the_end = observable_correlations(ising)
    assert table.shape == (1, 1 + 2 * len(at_the_end))
    for line in at_the_end.itertuples():
        assert table[f"{line.layer}.{line.observable}.median_r"].item() == line.median_r
        assert table[f"{line.layer}.{line.observable}.weighted_r"].item() == line.weighted_r


def test_correlations_are_of_pre_activations_on_the_test_lattices(ising):
    z = ising.snapshot().activation("blocks.0.mlp.hook_pre")[~ising.train_mask]
    by_hand = correlations(z, ising.task.energy[~ising.train_mask]).abs().quantile(0.5)
    table = observable_correlations(ising)
    found = table[(table.layer == "hidden") & (table.observable == "energy")]
    assert table.attrs["rows"] == "test"
    assert found.median_r.item() == pytest.approx(float(by_hand), rel=1e-12)


def test_without_test_lattices_all_are_correlated_and_it_says_so(ising):
    everything = torch.ones(ising.task.n_inputs, dtype=torch.bool)
    for mask in (None, everything):
        table = observable_correlations(ising.model(), task=ising.task, train_mask=mask)
        assert table.attrs["rows"] == "all"
        assert set(table.n_rows) == {ising.task.n_inputs}


def test_observables_of_other_names_are_correlated_too(ising):
    @dataclass(frozen=True)
    class Halves(type(ising.task)):
        def observables(self):
            return {"half": self.energy / 2}

    halves = Halves(**asdict(ising.task))
    table = observable_correlations(ising.model(), task=halves)
    assert set(table.observable) == {"half"}
    assert "r_energy_abs_magnetization" not in table.attrs


def test_conventions_are_of_modular_tasks(ising):
    with pytest.raises(gi.InputError, match="convention='real' is of IPRs"):
        features(ising, convention="real")
    with pytest.raises(gi.InputError, match="add mod 113 has no observables, such as an energy"):
        observable_correlations(gi.load(CHECKPOINTS / "mlp113-steady"))
