import pytest
import torch
from jaxtyping import TypeCheckError

from grokinterp.models.cross_entropy import cross_entropies


def test_shapes_are_enforced_while_tests_run():
    with pytest.raises(TypeCheckError):
        cross_entropies(torch.zeros(3, 5), torch.zeros(4, dtype=torch.long))
