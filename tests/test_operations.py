"""Operations of Power et al. 2022 and formulas: their answers one by one, their groups."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import grokinterp as gi
from grokinterp.base.errors import InputError
from grokinterp.circuits.direction_hooks import table_directions
from grokinterp.tasks.answer_group import find_group
from grokinterp.tasks.expressions import parse_expression
from grokinterp.tasks.operations import get_operation


def over(x, y, p):
    """x / y in the field of p, one number at a time."""
    return next(c for c in range(p) if c * y % p == x)


# Power et al. 2022, appendix A.1.1 and grok/data.py: their keys, and the answer of one pair.
POWER = {
    "+": lambda x, y, p: (x + y) % p,
    "-": lambda x, y, p: (x - y) % p,
    "*": lambda x, y, p: x * y % p,
    "**2+": lambda x, y, p: (x**2 + y) % p,
    "**3+": lambda x, y, p: (x**3 + y) % p,
    "x**2+y**2": lambda x, y, p: (x**2 + y**2) % p,
    "x**2+y**2+x*y": lambda x, y, p: (x**2 + y**2 + x * y) % p,
    "x**2+y**2+x*y+x": lambda x, y, p: (x**2 + y**2 + x * y + x) % p,
    "x**3+x*y": lambda x, y, p: (x**3 + x * y) % p,
    "x**3+x*y**2+y": lambda x, y, p: (x**3 + x * y**2 + y) % p,
    "mix1": lambda x, y, p: over(x, y, p) if y % 2 else (x - y) % p,
    "+*": lambda x, y, p: x * y % p if x % 2 else (x + y) % p,
    "+-": lambda x, y, p: (x - y) % p if x % 2 else (x + y) % p,
}


@pytest.mark.parametrize("p", [5, 13])
@pytest.mark.parametrize("name", POWER)
def test_an_operation_of_power_et_al_is_what_they_say(name, p):
    task = gi.ModularTask(name, p)
    expected = [POWER[name](a, b, p) for a in range(p) for b in range(p)]
    assert task.labels.tolist() == expected
    assert task.operands.tolist() == [[a, b] for a in range(p) for b in range(p)]


def test_division_is_a_list_of_the_pairs_that_can_be_divided():
    task = gi.ModularTask("divide", 97)
    assert task.n_inputs == 9312  # as many as their loop over c and b writes
    theirs = {(b * c % 97, b, c) for c in range(97) for b in range(1, 97)}
    mine = {
        (*pair, c) for pair, c in zip(task.operands.tolist(), task.labels.tolist(), strict=True)
    }
    assert mine == theirs
    assert task.operands.tolist() == sorted(task.operands.tolist())  # a outer, b inner
    assert task.tokens[0].tolist() == [0, 1, 97]
    assert gi.ModularTask("/", 97) == gi.ModularTask("a / b", 97) == task


def test_what_has_no_inverse_is_left_out():
    task = gi.ModularTask("divide", 6)
    assert task.operands[:4].tolist() == [[0, 1], [0, 5], [1, 1], [1, 5]]
    assert task.labels[:4].tolist() == [0, 0, 1, 5]
    assert task.mirrors is None
    assert gi.ModularTask("1/(a*b)", 5).mirrors is not None  # a list of pairs with all mirrors


def test_rows_and_pairs_lead_to_each_other():
    task = gi.ModularTask("divide", 5)
    a, b = task.operands.T
    assert torch.equal(task.row_of[a, b], torch.arange(20))
    assert (task.row_of[:, 0] == -1).all()
    grid = task.on_grid(task.labels)
    assert grid.isnan().sum() == 5
    assert torch.equal(grid[a, b].long(), task.labels)
    full = gi.ModularTask("add", 5)
    assert torch.equal(full.on_grid(full.labels).flatten(), full.labels)


FORMULAS = {
    "a*b + a": lambda a, b, p: (a * b + a) % p,
    "(x - 2) * (y + p + 3)": lambda a, b, p: (a - 2) * (b + 3) % p,
    "-a**4 + 7 - +b": lambda a, b, p: (-(a**4) + 7 - b) % p,
    "(a + b) % p": lambda a, b, p: (a + b) % p,
    "a % 3 * b": lambda a, b, p: a % 3 * b % p,
    "a if a < b else b": lambda a, b, p: a if a < b else b,
    "a - b if a >= b else 0": lambda a, b, p: (a - b) % p if a >= b else 0,
    "1 if a != b else 2": lambda a, b, p: 1 if a != b else 2,
    "b**0 + a": lambda a, b, p: (1 + a) % p,
    "x^2 + y": lambda a, b, p: (a * a + b) % p,
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_is_computed_as_python_would(formula):
    task = gi.ModularTask(formula, 11)
    expected = [FORMULAS[formula](a, b, 11) for a in range(11) for b in range(11)]
    assert task.labels.tolist() == expected


def test_ways_to_write_a_formula_have_one_name():
    names = {gi.ModularTask(x, 5).operation for x in ("a*b+a", "(x * y + x)%p", " a * b + a ")}
    assert names == {"a*b + a"}
    assert gi.ModularTask("a + b", 5) == gi.ModularTask("add", 5)
    assert gi.ModularTask("x**2 + x*y + y**2", 5) == gi.ModularTask("x2xyy2", 5)
    task = gi.ModularTask("a*b+a", 5)
    assert gi.tasks.task_from_dict(task.to_dict()) == task


@pytest.mark.parametrize(
    ("formula", "told"),
    [
        ("a*b + c", "c is no part of a formula"),
        ("a + open(b)", "open(b) is no part"),
        ("a.real + b", "a.real is no part"),
        ("__import__('os').system(a, b)", "is no part"),
        ("a ** b", "has a power that is no whole number"),
        ("a ** 5000 + b", "power above 1000"),
        ("a + b * 99999999999", "is too large"),
        ("a + 0.5*b", "0.5 is no part"),
        ("a + True*b", "True is no part"),
        ("[a, b]", "is no part"),
        ("a and b", "is no part"),
        ("a < b < 3", "is no part"),
        ("lambda a: b", "is no part"),
        ("a**2", "has no b: it is no function of both"),
        ("a + ", "cannot be read"),
        ("a + b" + " + a" * 100, "at most 200"),
        ("-" * 150 + "a + b(", "cannot be read"),
        ("(" * 99 + "a+b", "cannot be read"),
    ],
)
def test_anything_else_is_refused_in_one_line(formula, told):
    with pytest.raises(InputError, match=re.escape(told)) as refused:
        gi.ModularTask(formula, 7)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("name", ["adn", "double-add", "", "multiplyy", "no operation"])
def test_a_name_that_is_no_formula_is_refused_with_the_nearest(name):
    with pytest.raises(InputError, match="is not known"):
        gi.ModularTask(name, 7)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abxyp0123456789+-*/%^() <>=!if else", max_size=40))
def test_any_text_is_a_formula_or_refused(text):
    try:
        operation = get_operation(text)
    except InputError:
        return
    table = operation.table(7, seed=0)
    assert table.shape == (49,)
    assert table.min() >= -1
    assert table.max() < 7


def sums_of_maps(labels, p, exponent, order):
    """Whether e(label) = u(a) + v(b) for some u and v, by all differences of rows (brute force)."""
    e = [[exponent(labels[a * p + b]) for b in range(p)] for a in range(p)]
    rows = [row for row in e if any(x is not None for x in row)]
    if any((x is None) != (y is None) for row in rows for x, y in zip(row, rows[0], strict=True)):
        return False
    differences = (
        {(x - y) % order for x, y in zip(row, rows[0], strict=True) if x is not None}
        for row in rows
    )
    there = {x for row in rows for x in row if x is not None}
    return all(len(each) == 1 for each in differences) and len(there) == order


@pytest.mark.parametrize("p", [5, 7])
@pytest.mark.parametrize("name", [*POWER, *FORMULAS, "2*a + 3*b", "a*(b + 1)*(a + 1)", "a**2 * b"])
def test_a_group_is_found_where_there_is_one(name, p):
    task = gi.ModularTask(name, p)
    labels = task.labels.tolist()
    logs = gi.tasks.answer_group.discrete_logs(p).tolist()
    exists = sums_of_maps(labels, p, lambda c: c, p) or sums_of_maps(
        labels, p, lambda c: logs[c] if c else None, p - 1
    )
    group = task.answer_group
    assert (group is not None) == exists
    assert (task.no_group_reason is None) == exists
    if group is None:
        return
    defined = group.of_input >= 0
    assert torch.equal(group.of_token[task.labels[defined]], group.of_input[defined])
    a, b = (u[side] for u, side in zip(group.of_operands, task.operands.T, strict=True))
    assert torch.equal(((a + b) % group.order)[defined], group.of_input[defined])
    assert torch.equal(defined, (a >= 0) & (b >= 0))


@pytest.mark.parametrize(("p", "order"), [(97, 96), (13, 12)])
def test_division_lives_on_the_discrete_logarithms(p, order):
    group = gi.ModularTask("divide", p).answer_group
    assert group.order == order
    assert torch.equal(group.counts, torch.full((order,), order))
    a, b = group.operand_orders
    assert torch.equal(a, group.tokens)  # b counts the other way round: the same frequencies
    assert torch.equal(b, group.tokens)


def test_two_groups_by_parity_are_none_and_the_reason_says_so():
    for name, told in (("mix1", "parity of b"), ("+*", "parity of a"), ("+-", "sign")):
        task = gi.ModularTask(name, 97)
        assert task.answer_group is None
        assert told in task.no_group_reason
    reason = gi.ModularTask("x**3+x*y**2+y", 97).no_group_reason
    assert "no sum u(a) + v(b) and no product u(a) v(b)" in reason


def test_exponents_of_unequal_size_count_alike():
    group = gi.ModularTask("a**2 + b**2", 13).answer_group
    assert sorted(set(group.counts.tolist())) == [12, 25]  # 25 pairs of answer 0: p = 1 mod 4
    assert group.rows is None
    weights = group.weights[group.of_input]
    of_exponent = torch.zeros(13, dtype=torch.float64).index_add_(0, group.of_input, weights)
    assert torch.allclose(of_exponent, torch.full((13,), 13.0, dtype=torch.float64))
    assert find_group(torch.zeros(5, 5, dtype=torch.int64)) is None  # one answer is no group


def test_left_out_pairs_hide_no_group():
    for formula, order in (("a + b if a != b else 1/0", 7), ("2*a*b if a != b else 1/0", 6)):
        group = gi.ModularTask(formula, 7).answer_group
        assert group.order == order
        task = gi.ModularTask(formula, 7)
        defined = group.of_input >= 0
        assert torch.equal(group.of_token[task.labels[defined]], group.of_input[defined])
    for formula in ("2*a + 2*b", "a + b if a % 2 == b % 2 else 1/0"):
        task = gi.ModularTask(formula, 6)  # half of the values, and two parts without a pair
        assert task.answer_group is None
        assert "that takes every value" in task.no_group_reason


@pytest.mark.parametrize("formula", ["a/0 + b", "a/p + b", "(a + b) % 0", "a/(b - b)"])
def test_a_formula_that_leaves_out_every_pair_is_refused(formula):
    with pytest.raises(InputError, match="leaves out all pairs of p=7"):
        gi.ModularTask(formula, 7)


@pytest.mark.parametrize("p", [7, 8])
def test_waves_of_operands_are_a_basis_where_pairs_are_left_out_of_the_whole_table(p):
    task = gi.ModularTask("a + b if a != b else 1/0", p)
    basis, defined = table_directions(task, (1, 2), "operands")
    assert defined.all()
    unit = torch.eye(basis.shape[1], dtype=torch.float64)
    assert torch.allclose(basis.T @ basis, unit, atol=1e-9)
    a, b = task.operands.T.double()
    waves = [
        x * y
        for w in (2 * torch.pi / p, 4 * torch.pi / p)
        for x in (torch.ones(len(a)), (w * a).cos(), (w * a).sin())
        for y in (torch.ones(len(b)), (w * b).cos(), (w * b).sin())
    ]
    dense = torch.stack([wave - wave.mean() for wave in waves], dim=1)
    assert torch.allclose(basis @ (basis.T @ dense), dense, atol=1e-9)


def test_parsing_does_not_depend_on_what_is_computed():
    formula = parse_expression("a/b")
    a, b = torch.tensor([1, 2, 3]), torch.tensor([1, 0, 2])
    assert formula(a, b, 7).tolist() == [1, -1, 5]
    assert a.tolist() == [1, 2, 3]
