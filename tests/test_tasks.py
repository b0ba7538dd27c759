import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokinterp.errors import InputError
from grokinterp.tasks import OPERATIONS, ModularTask, operation, train_indices
from grokinterp.tasks.exponents import discrete_logs, is_prime

FUNCTIONS = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "x^2+xy+y^2": lambda a, b: a * a + a * b + b * b,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("p", [2, 6, 7])
def test_labels_follow_the_definition_in_table_order(name, p):
    task = ModularTask(name, p)
    expected = [FUNCTIONS[name](a, b) % p for a in range(p) for b in range(p)]
    assert task.labels.tolist() == expected
    assert task.tokens.tolist() == [[a, b, p] for a in range(p) for b in range(p)]


def test_random_labels_are_fixed_by_the_seed():
    one, same, other = (ModularTask("random", 13, seed=seed).labels for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert set(one.tolist()) <= set(range(13))


def test_first_rows_of_the_demo_split():
    rows = train_indices(113 * 113, 0.3, rule="torch", seed=598)
    pairs = [divmod(row, 113) for row in rows.tolist()]
    assert len(pairs) == 3830
    assert pairs[:5] == [(21, 31), (30, 98), (47, 10), (86, 21), (99, 83)]
    everything = train_indices(113 * 113, 1.0, rule="torch", seed=598)
    test = [divmod(row, 113) for row in everything[3830:3835].tolist()]
    assert test == [(43, 40), (31, 42), (39, 63), (35, 61), (112, 102)]


def test_first_rows_of_the_paper_split():
    rows = train_indices(113 * 113, 0.3, rule="python", seed=0)
    pairs = [divmod(row, 113) for row in rows.tolist()]
    assert len(pairs) == 3830
    assert pairs[:5] == [(18, 34), (10, 83), (55, 28), (25, 51), (63, 65)]


@pytest.mark.parametrize("rule", ["torch", "python"])
def test_splits_leave_the_global_random_state_alone(rule):
    before = torch.get_rng_state(), random.getstate()
    train_indices(100, 0.5, rule=rule, seed=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, 0.001])
def test_impossible_train_fractions_are_refused(fraction):
    with pytest.raises(InputError, match="train_fraction="):
        train_indices(100, fraction, rule="torch", seed=0)


@given(st.sampled_from([p for p in range(2, 60) if is_prime(p)]))
def test_discrete_logs_turn_products_into_sums(p):
    logs = discrete_logs(p).tolist()
    assert logs[0] == -1
    assert sorted(logs[1:]) == list(range(p - 1))
    for x in range(1, p):
        for y in range(1, p):
            assert logs[x * y % p] == (logs[x] + logs[y]) % (p - 1)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply"])
@pytest.mark.parametrize("p", [5, 7, 11])
def test_the_answer_is_right_where_exponents_meet(name, p):
    task = ModularTask(name, p)
    group = task.answer_group
    defined = group.of_input >= 0
    assert torch.equal(group.of_token[task.labels[defined]], group.of_input[defined])
    assert group.rows.shape == (group.order, int(defined.sum()) // group.order)
    assert torch.equal(
        group.of_input[group.rows], torch.arange(group.order)[:, None].expand_as(group.rows)
    )


def test_tasks_without_a_group_say_why():
    assert "no prime" in ModularTask("multiply", 6).no_group_reason
    assert "random" in ModularTask("random", 7).no_group_reason
    assert ModularTask("x2xyy2", 7).answer_group is None
    assert ModularTask("add", 6).answer_group.order == 6


def test_mirrored_pairs():
    task = ModularTask("add", 3)
    train = torch.zeros(9, dtype=torch.bool)
    train[[1, 4]] = True  # (0, 1) and (1, 1)
    assert task.mirrored(train).nonzero().flatten().tolist() == [3]  # (1, 0)
    assert task.commutative
    assert not ModularTask("subtract", 3).commutative


@pytest.mark.parametrize("p", [1, 0, -3, True])
def test_a_modulus_below_2_is_refused(p):
    with pytest.raises(InputError, match="p="):
        ModularTask("add", p)


def test_one_more_operation_is_a_few_lines():
    @operation("double_add")
    def double_add(a, b, p):
        return (2 * a + b) % p

    try:
        assert ModularTask("double_add", 5).labels[7].item() == (2 * 1 + 2) % 5
    finally:
        del OPERATIONS["double_add"]


def test_an_unknown_operation_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'subtract'"):
        ModularTask("substract", 7)
