import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokinterp.models.cross_entropy import cross_entropies


def float64_reference(logits, labels):
    """Value and gradient of the mean loss in extended precision where float64 itself is short."""
    import mpmath

    values, gradients = [], []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        exponentials = [mpmath.exp(mpmath.mpf(x) - mpmath.mpf(row[label])) for x in row]
        wrong = sum(e for j, e in enumerate(exponentials) if j != label)
        values.append(float(mpmath.log(1 + wrong)))
        gradients.append(
            [float(e / (1 + wrong)) for e in exponentials[:label]]
            + [float(-wrong / (1 + wrong))]
            + [float(e / (1 + wrong)) for e in exponentials[label + 1 :]]
        )
    return torch.tensor(values).double(), torch.tensor(gradients, dtype=torch.float64)


@pytest.mark.parametrize("lead", [23.0, 18.0, 10.0, 3.0, 0.0, -5.0, -30.0])
def test_values_and_gradients_from_1e_9_to_30(lead):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 113, generator=generator) * 0.5
    labels = torch.randint(113, (20,), generator=generator)
    logits[torch.arange(20), labels] += lead
    logits.requires_grad_()
    losses = cross_entropies(logits, labels)
    losses.sum().backward()
    values, gradients = float64_reference(logits.detach().double(), labels)
    assert ((losses.detach() - values).abs() <= 1e-6 * values).all()
    assert (logits.grad.double() - gradients).norm() <= 1e-6 * gradients.norm()


def test_the_range_of_the_test_above_is_1e_9_to_30():
    logits = torch.zeros(1, 113)
    logits[0, 0] = 25.5
    assert cross_entropies(logits, torch.tensor([0])).item() < 1e-9
    logits[0, 0] = -30.0
    assert cross_entropies(logits, torch.tensor([0])).item() > 30


def test_differences_of_1e4_do_not_overflow():
    logits = torch.tensor([[0.0, 1e4, -1e4], [1e4, 0.0, -1e4]], requires_grad=True)
    losses = cross_entropies(logits, torch.tensor([0, 0]))
    losses.sum().backward()
    assert losses.tolist() == [1e4, 0.0]
    assert logits.grad.tolist() == [[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_many_rows_are_taken_in_blocks_with_the_same_values():
    logits = torch.randn(9000, 5)
    labels = torch.randint(5, (9000,))
    expected = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
    torch.testing.assert_close(cross_entropies(logits, labels), expected)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6), st.integers(0, 5))
def test_it_agrees_with_torch_where_torch_is_exact(row, label):
    logits = torch.tensor([row], dtype=torch.float64)
    labels = torch.tensor([label % len(row)])
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert cross_entropies(logits, labels)[0].item() == pytest.approx(expected.item(), abs=1e-13)
