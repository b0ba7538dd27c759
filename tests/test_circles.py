import math

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.circuits.circles import (
    centred_embedding,
    circularity,
    frequency_plane,
    principal_components,
    principal_plane,
)
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from tests import clock
from tests.exact_clock import ExactClock, random_radii


def with_table(table, p, operation="add"):
    """A model with this table of embeddings, [p, d_model], and a row for "="."""
    architecture = TransformerArchitecture(
        n_layers=1, n_heads=1, d_model=table.shape[1], d_head=4, d_mlp=4, d_vocab=p + 1,
        d_vocab_out=p, n_ctx=3,
    )  # fmt: skip
    weights = architecture.initial(seed=0)
    weights["embed.W_E"][:p] = table
    return from_weights(weights, architecture, ModularTask(operation, p))


def wave_table(p, parts, d_model=10):
    """Circles of given frequency, radius and pair of directions, and a mean of 5."""
    x = torch.arange(p)
    table = torch.full((p, d_model), 5.0)
    for i, (k, radius) in enumerate(parts):
        table[:, 2 * i] += radius * (2 * torch.pi * k * x / p).cos()
        table[:, 2 * i + 1] += radius * (2 * torch.pi * k * x / p).sin()
    return table


def test_circularity_by_its_formula(shipped):
    for snapshot in (shipped.snapshot(), shipped.snapshot(2500)):
        table = snapshot.weights["embed.W_E"][:113].double().numpy()
        table = table - table.mean(axis=0)
        values, vectors = np.linalg.eigh(table @ table.T)
        expected = []
        for v in vectors[:, ::-1].T[:6]:
            by_frequency = [
                2 / (113 * np.sum(v**2))
                * abs(np.sum(v * np.exp(2j * np.pi * k * np.arange(113) / 113))) ** 2
                for k in range(1, 57)
            ]  # fmt: skip
            expected.append((int(np.argmax(by_frequency)) + 1, max(by_frequency)))
        found = circularity(snapshot, n_components=6)
        assert [part.frequency for part in found.components] == [k for k, _ in expected]
        shares = [part.circularity for part in found.components]
        assert shares == pytest.approx([share for _, share in expected], rel=1e-6)
        assert found.value == pytest.approx(np.mean(shares))
        singular = [part.singular_value for part in found.components]
        assert singular == pytest.approx(np.sqrt(values[::-1][:6]), rel=1e-9)
        assert circularity(snapshot).value == pytest.approx(np.mean(shares[:4]))
        assert len(circularity(snapshot).table()) == 4


def test_perfect_circles_of_different_size_are_circular():
    snapshot = with_table(wave_table(11, [(2, 3.0), (4, 2.0), (5, 1.0)]), 11)
    found = circularity(snapshot, frequencies=[2, 4])
    assert found.value == pytest.approx(1)
    assert found.key_share == pytest.approx(1)
    assert [part.frequency for part in found.components] == [2, 2, 4, 4]
    less = circularity(snapshot, frequencies=[2, 5])
    assert less.key_share == pytest.approx((9 + 1) / (9 + 4))
    assert circularity(snapshot, frequencies=[5]).key_share == pytest.approx(1 / 9)


def test_equal_circles_mix_and_the_key_share_does_not_mind():
    p = 11
    turn = torch.tensor([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    table = wave_table(p, [(2, 1.0), (4, 1.0)], d_model=4)
    centre = table.mean(0)
    rotated = table - centre
    rotated[:, [0, 2]] = (rotated[:, [0, 2]] @ turn) * torch.tensor([1.01, 1.0])
    snapshot = with_table(rotated + centre, p)
    found = circularity(snapshot, frequencies=[2, 4])
    assert found.value < 0.9
    assert found.key_share == pytest.approx(1)


def test_a_random_embedding_is_not_circular(tiny_run):
    snapshot = with_table(torch.randn(31, 20, generator=torch.Generator().manual_seed(0)), 31)
    found = circularity(snapshot, frequencies=[1, 2])
    assert found.value < 0.6
    assert found.key_share < 0.6
    assert circularity(snapshot).frequencies == ()
    assert circularity(snapshot).key_share is None


def test_even_p_has_an_alternating_wave():
    x = torch.arange(6)
    table = torch.zeros(6, 8)
    table[:, 0] = 3 * (-1.0) ** x
    table[:, 1:3] = wave_table(6, [(1, 1.0)], d_model=2)
    snapshot = with_table(table, 6)
    found = circularity(snapshot, frequencies=[1, 3])
    assert [part.frequency for part in found.components] == [3, 1, 1]
    assert [part.circularity for part in found.components] == pytest.approx([1, 1, 1])
    assert found.key_share == pytest.approx(1)


def test_multiplication_counts_tokens_by_logarithm():
    task = ModularTask("multiply", 7)
    table = torch.full((7, 8), 9.0)
    table[task.answer_group.tokens] = wave_table(6, [(1, 2.0), (2, 1.0)], d_model=8)
    found = circularity(with_table(table, 7, "multiply"), frequencies=[1, 2])
    assert found.value == pytest.approx(1)
    assert found.key_share == pytest.approx(1)


def test_planes():
    snapshot = with_table(wave_table(11, [(2, 3.0), (4, 2.0)], d_model=4), 11)
    x = torch.arange(11)
    expected = torch.zeros(11, 4, dtype=torch.float64)
    expected[:, 2] = 2 * (2 * torch.pi * 4 * x / 11).cos()
    expected[:, 3] = 2 * (2 * torch.pi * 4 * x / 11).sin()
    for plane in (frequency_plane, principal_plane):
        torch.testing.assert_close(plane(snapshot, 4), expected, rtol=0, atol=1e-5)
    everything = sum(frequency_plane(snapshot, k) for k in range(1, 6))
    torch.testing.assert_close(everything, centred_embedding(snapshot))
    with pytest.raises(gi.InputError, match="leading frequency 3"):
        principal_plane(snapshot, 3)


def test_the_principal_plane_holds_the_two_strongest_components_only():
    table = wave_table(11, [(2, 3.0), (4, 2.0)], d_model=7)
    noise = torch.randn(11, 7, generator=torch.Generator().manual_seed(1))
    snapshot = with_table(table + 0.3 * noise, 11)
    embedding = centred_embedding(snapshot)
    waves, singular, directions = np.linalg.svd(embedding.numpy(), full_matrices=False)
    expected = (waves[:, :2] * singular[:2]) @ directions[:2]
    np.testing.assert_allclose(principal_plane(snapshot, 2).numpy(), expected, atol=1e-9)


def test_what_has_no_circles_says_so():
    constant = with_table(torch.ones(7, 5), 7)
    with pytest.raises(gi.InputError, match="embeddings of all operands are equal"):
        circularity(constant)
    assert principal_components(constant) == ()
    fine = with_table(wave_table(7, [(1, 1.0)]), 7)
    with pytest.raises(gi.InputError, match="n_components=0 is not"):
        circularity(fine, n_components=0)
    with pytest.raises(gi.InputError, match="no discrete logarithm"):
        circularity(with_table(wave_table(6, [(1, 1.0)]), 6, "multiply"))
    model = ExactClock(7, (1,), random_radii(7))
    snapshot = gi.snapshot(model, ModularTask("add", 7))
    del snapshot.weights["embed.W_E"]
    with pytest.raises(gi.InputError, match=r"no weight 'embed\.W_E'"):
        circularity(snapshot)


def test_the_hand_built_circles_are_equal_and_so_have_a_key_share():
    weights = clock.clock_weights(31, (2, 5, 13), 10.0)
    snapshot = from_weights(weights, clock.clock_architecture(31, 3), ModularTask("add", 31))
    assert circularity(snapshot).key_share == pytest.approx(1)
