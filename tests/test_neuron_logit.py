import copy
import math

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.base.errors import InputError
from grokinterp.circuits.neurons import neuron_logit_directions
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from tests import clock
from tests.test_neurons import hand_built, random_model


def dense(snapshot, frequencies):
    """Row norms, residuals, directions and variances explained, by loops over the definition."""
    task = snapshot.task
    group = task.answer_group
    n, exponent = group.order, group.of_token
    last = snapshot.n_layers - 1
    w_l = (
        snapshot.weights[f"blocks.{last}.mlp.W_out"].double()
        @ snapshot.weights["unembed.W_U"].double()
    )[:, : task.p]
    classes = [c for c in range(task.p) if exponent[c] >= 0]
    w_l, e = w_l[:, classes], exponent[classes].double()
    defined = group.of_input >= 0
    f, post = group.of_input[defined].double(), snapshot.mlp_post[defined].double()
    rest, found = w_l.clone(), {}
    for k in frequencies:
        for part, wave in (("cos", torch.cos), ("sin", torch.sin)):
            if part == "sin" and 2 * k == n:
                continue
            row = wave(2 * torch.pi * k * e / n)
            row = row / row.norm()
            coefficient = w_l @ row
            rest -= torch.outer(coefficient, row)
            y = post @ coefficient
            y = y - y.mean()
            over = wave(2 * torch.pi * k * f / n)
            fitted = (y @ over) / (over @ over) * over
            fve = 1 - (y - fitted).square().sum() / y.square().sum()
            found[k, part] = (coefficient.norm(), coefficient / coefficient.norm(), fve)
    mean = w_l.mean(1, keepdim=True)
    centred = (rest - mean).norm() / (w_l - mean).norm()
    return found, float(rest.norm() / w_l.norm()), float(centred)


@pytest.mark.parametrize(
    ("operation", "p", "frequencies"),
    [("add", 7, [1, 3]), ("add", 8, [2, 4]), ("subtract", 7, [2]), ("subtract", 6, [1, 3]),
     ("multiply", 7, [1, 3]), ("multiply", 11, [2, 4, 5]), ("add", 2, [1])],
)  # fmt: skip
@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_map_equals_its_definition(operation, p, frequencies, n_layers):
    weights, architecture, task = random_model(n_layers, p, operation, seed=3)
    weights["unembed.W_U"] += torch.rand(12, 1).double()  # a constant row that counts
    snapshot = from_weights(weights, architecture, task)
    found = neuron_logit_directions(snapshot, frequencies=frequencies)
    expected, residual, centred = dense(snapshot, frequencies)
    assert found.residual == pytest.approx(residual)
    assert found.residual_centred == pytest.approx(centred)
    assert found.residual != pytest.approx(found.residual_centred)
    assert list(found.parts) == list(expected)
    for i, (part, (norm, direction, fve)) in enumerate(expected.items()):
        torch.testing.assert_close(found.norms[i], norm)
        torch.testing.assert_close(found.direction(*part), direction)
        torch.testing.assert_close(found.variance_explained[i], fve)
    assert any("last of 2 layers" in note for note in found.notes) == (n_layers == 2)


@pytest.mark.parametrize("p", [31, 61])
def test_clock_weights_have_their_closed_form(p):
    """u_k = cos 2 phi_j, v_k = sin 2 phi_j over the neurons of k; read, they are

    |cos(w_k(a - b)/2)| cos(w_k(a + b)), of which cos(w_k(a + b)) explains mean|cos|^2 / mean cos^2.
    """
    amplitude, frequencies = 20.0, (3, 8, 13)
    weights = clock.clock_weights(p, frequencies, amplitude)
    weights = {name: weight.double() for name, weight in weights.items()}
    angle = 2 * torch.pi * torch.outer(torch.tensor(frequencies), torch.arange(p)).double() / p
    waves = torch.cat([angle.cos(), angle.sin()])  # without the rounding to float32
    weights["unembed.W_U"][6:] = waves * (amplitude * 3 * math.pi / (2 * clock.PHASES))
    found = neuron_logit_directions(hand_built(p, frequencies, weights))
    assert found.frequencies == frequencies
    assert found.residual < 1e-12
    assert found.residual_centred < 1e-12
    norm = amplitude * 3 * math.pi / 128 * math.sqrt(p / 2) * math.sqrt(32)
    assert found.norms.numpy() == pytest.approx([norm] * 6, rel=1e-5)
    assert found.variance_explained.numpy() == pytest.approx(
        [2 * clock.mean_envelope(p) ** 2] * 6, rel=1e-3
    )
    assert found.variance_explained.mean() == pytest.approx(8 / math.pi**2, abs=2e-3)
    phi = 2 * torch.pi * torch.arange(64).double() / 64
    for i, k in enumerate(frequencies):
        for part, wave in (("cos", torch.cos), ("sin", torch.sin)):
            expected = torch.zeros(192).double()
            expected[64 * i : 64 * (i + 1)] = wave(2 * phi) / math.sqrt(32)
            torch.testing.assert_close(found.direction(k, part), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.cosines, torch.eye(6).double(), atol=1e-6, rtol=0)
    assert found.table()["largest_cosine"].max() < 1e-6
    assert found.table()["share"].sum() == pytest.approx(1)


def test_reading_on_the_directions_has_the_sign_of_the_wave():
    """u_k . MLP grows with +cos(w_k(a + b)) and v_k . MLP with +sin, not with the mirrored sine."""
    snapshot = hand_built()
    found = neuron_logit_directions(snapshot)
    f = snapshot.task.operands.sum(1).double()
    for k in found.frequencies:
        for part, wave in (("cos", torch.cos), ("sin", torch.sin)):
            read = snapshot.mlp_post.double() @ found.direction(k, part)
            over = wave(2 * torch.pi * k * f / 61)
            assert torch.corrcoef(torch.stack([read, over]))[0, 1] > 0.85


def test_leaving_a_frequency_out_leaves_its_share():
    found = neuron_logit_directions(hand_built(), frequencies=[3, 21])
    assert found.residual == pytest.approx(math.sqrt(1 / 3), rel=1e-4)
    assert found.row_norms.square().sum().item() == pytest.approx(
        float(neuron_logit_directions(hand_built()).norms.square().sum()), rel=1e-6
    )


def test_the_basis_spans_the_directions(shipped):
    found = neuron_logit_directions(shipped)
    basis = found.basis
    assert basis.shape == (512, 8)
    torch.testing.assert_close(basis.T @ basis, torch.eye(8).double(), atol=1e-12, rtol=0)
    kept = found.directions @ basis @ basis.T
    torch.testing.assert_close(kept, found.directions, atol=1e-12, rtol=0)
    cosines = found.directions @ found.directions.T
    torch.testing.assert_close(found.cosines, cosines)
    largest = (cosines - torch.eye(8)).abs().max(1).values
    assert found.table()["largest_cosine"].tolist() == pytest.approx(largest.tolist())


def test_directions_that_coincide_count_once():
    weights, architecture, task = random_model(1, 7)
    weights["blocks.0.mlp.W_out"][:] = weights["blocks.0.mlp.W_out"][:, :1]  # W_L of rank 1
    found = neuron_logit_directions(from_weights(weights, architecture, task), frequencies=[1, 2])
    assert found.basis.shape == (20, 1)
    assert found.table()["largest_cosine"].tolist() == pytest.approx([1.0] * 4)


def test_the_alternating_row_has_no_sine():
    weights, architecture, task = random_model(1, 8)
    weights["unembed.W_U"] = torch.zeros(12, 8).double()
    weights["unembed.W_U"][0] = torch.tensor([1.0, -1.0] * 4)  # frequency 4 of 8 alone
    found = neuron_logit_directions(from_weights(weights, architecture, task), frequencies=[4])
    assert found.parts == ((4, "cos"),)
    assert found.residual < 1e-12


def test_a_row_that_is_not_there_is_named():
    weights, architecture, task = random_model(1, 8)
    weights["unembed.W_U"] = torch.zeros(12, 8).double()
    weights["unembed.W_U"][0] = torch.tensor([1.0, 0.0, -1.0, 0.0] * 2)  # cos w_2, no sin
    found = neuron_logit_directions(from_weights(weights, architecture, task), frequencies=[2])
    assert found.norms[0] > 0
    assert found.norms[1] == 0
    assert found.direction(2, "sin").tolist() == [0] * 20
    assert found.variance_explained.isnan().tolist() == [False, True]
    assert "no row sin 2" in found.notes[0]
    assert found.basis.shape == (20, 1)
    assert found.table()["largest_cosine"].tolist() == [0, 0]


def test_no_key_frequencies_mean_no_directions(shipped):
    found = neuron_logit_directions(shipped, frequencies=[])
    assert found.residual == found.residual_centred == 1
    assert len(found.table()) == 0
    assert found.basis.shape == (512, 0)
    assert "no directions" in found.notes[0]
    with pytest.raises(InputError, match="known: none"):
        found.direction(9, "cos")


def test_a_layer_norm_is_noted():
    weights, architecture, task = random_model(1, normalization_type="LN")
    found = neuron_logit_directions(
        architecture.hooked(weights), task=task, frequencies=[1]
    )  # fmt: skip
    assert any("LayerNorm" in note for note in found.notes)
    assert found.table().attrs["notes"] == list(found.notes)


def test_what_is_undefined_is_refused():
    weights, architecture, _ = random_model(1, 7)
    with pytest.raises(InputError, match="x2xyy2"):
        neuron_logit_directions(from_weights(weights, architecture, ModularTask("x2xyy2", 7)))
    task = ModularTask("add", 7)
    dead = weights | {"blocks.0.mlp.b_in": torch.full((20,), -100.0).double()}
    with pytest.raises(InputError, match="dead"):
        neuron_logit_directions(from_weights(dead, architecture, task), frequencies=[1])
    zero = weights | {"unembed.W_U": torch.zeros(12, 7).double()}
    with pytest.raises(InputError, match="same for all classes"):
        neuron_logit_directions(from_weights(zero, architecture, task), frequencies=[1])
    without = {name: w for name, w in weights.items() if not name.endswith("W_out")}
    snapshot = from_weights(weights, architecture, task)
    snapshot.weights = without
    with pytest.raises(InputError, match="W_out"):
        neuron_logit_directions(snapshot, frequencies=[1])
    with pytest.raises(InputError, match=r"known: \(1, 'cos'\), \(1, 'sin'\)"):
        neuron_logit_directions(
            from_weights(weights, architecture, task), frequencies=[1]
        ).direction(2, "cos")


def test_the_users_model_is_left_alone():
    weights, architecture, task = random_model(2)
    model = architecture.hooked(weights).train()
    before = copy.deepcopy(model.state_dict())
    hooks = {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    neuron_logit_directions(model, task=task, frequencies=[1])
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()} == hooks
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_shipped_run_reads_its_key_frequencies(shipped):
    found = neuron_logit_directions(shipped)
    assert found.frequencies == gi.key_frequencies(shipped).frequencies == (9, 18, 53, 55)
    assert found.residual < 0.10
    table = found.table()
    assert table["variance_explained"].min() > 0.85
    assert (table.loc[table["k"] != 9, "variance_explained"] > 0.97).all()
    expected, residual, centred = dense(shipped.snapshot(), found.frequencies)
    assert found.residual == pytest.approx(residual)
    assert found.residual_centred == pytest.approx(centred)
    fve = [float(numbers[2]) for numbers in expected.values()]
    assert table["variance_explained"].tolist() == pytest.approx(fve)
    early = neuron_logit_directions(shipped, step=0)
    assert early.residual > 0.9
    assert np.isfinite(early.table()["variance_explained"]).all()
