"""Discrete logarithms: the coordinates in which multiplication mod a prime is an addition."""

import torch
from jaxtyping import Int
from torch import Tensor

from grokinterp.errors import InputError, shown

UNDEFINED = -1


def is_prime(n: int) -> bool:
    """Whether n is a prime, by trial division (n is a modulus of a table, so it is small)."""
    return n >= 2 and all(n % d for d in range(2, int(n**0.5) + 1))


def discrete_logs(p: int) -> Int[Tensor, " p"]:
    """`logs[x]` with g**logs[x] = x mod p for the smallest primitive root g; -1 at x = 0.

    >>> discrete_logs(7).tolist()  # g = 3: 1, 3, 2, 6, 4, 5
    [-1, 0, 2, 1, 4, 5, 3]
    """
    if not is_prime(p):
        raise InputError(f"p={shown(p)} is not a prime; discrete logarithms need one.")
    for g in range(1, p):
        powers = [1]
        while (following := powers[-1] * g % p) != 1:
            powers.append(following)
        if len(powers) == p - 1:
            logs = torch.full((p,), UNDEFINED)
            logs[torch.tensor(powers)] = torch.arange(p - 1)
            return logs
    raise AssertionError("every prime has a primitive root")
