import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokinterp.base.errors import InputError
from grokinterp.tasks import OPERATIONS, ModularTask, operation, train_indices
from grokinterp.tasks.answer_group import discrete_logs, is_prime

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


@pytest.fixture
def registered():
    """Register an operation under "mine" with these labels; it is forgotten afterwards."""

    def register(labels, **declared):
        operation("mine", **declared)(labels)

    yield register
    OPERATIONS.pop("mine", None)


def test_one_more_operation_is_a_few_lines(registered):
    registered(lambda a, b, p: (2 * a + b) % p)
    assert ModularTask("mine", 5).labels[7].item() == (2 * 1 + 2) % 5


@pytest.mark.parametrize("group", ["add", "subtract", "multiply"])
def test_a_group_that_the_labels_bear_out_is_taken(registered, group):
    def labels(a, b, p):  # the same in Python's numbers, one by one
        of = {"add": lambda x, y: x + y, "subtract": lambda x, y: x - y}
        pairs = zip(a.tolist(), b.tolist(), strict=True)
        return torch.tensor([of.get(group, lambda x, y: x * y)(x, y) % p for x, y in pairs])

    registered(labels, group=group)
    mine, ours = ModularTask("mine", 7), ModularTask(group, 7)
    assert torch.equal(mine.labels, ours.labels)
    assert torch.equal(mine.answer_group.of_input, ours.answer_group.of_input)
    assert torch.equal(
        mine.answer_group.of_token[mine.labels], mine.answer_group.of_input
    )  # e(label) = f(a, b), which is what a group says


@pytest.mark.parametrize(
    ("group", "labels", "told"),
    [
        ("add", lambda a, b, p: (2 * a + b) % p, r"\(1, 0\) is 2, not 1 = \(a \+ b\) % p"),
        ("add", lambda a, b, p: (a + b + (a * p + b == 48)) % p, r"\(6, 6\) is 6, not 5"),
        ("subtract", lambda a, b, p: (b - a) % p, r"\(0, 1\) is 1, not 6 = \(a - b\) % p"),
        ("multiply", lambda a, b, p: (a * b + 1) % p, r"\(0, 0\) is 1, not 0 = \(a \* b\) % p"),
    ],
)
def test_a_group_that_the_labels_contradict_is_refused(registered, group, labels, told):
    registered(labels, group=group)
    with pytest.raises(InputError, match=rf"'mine' declares group='{group}', but at p=7 .*{told}"):
        ModularTask("mine", 7)
    registered(labels)  # without the group it is an operation like any other
    found = ModularTask("mine", 7)
    if found.answer_group is not None:  # what they are a sum in is seen from the labels
        assert torch.equal(found.answer_group.of_token[found.labels], found.answer_group.of_input)


def test_beyond_the_size_that_is_checked_at_once_a_group_is_checked_when_it_is_used(registered):
    registered(lambda a, b, p: a, group="add")
    task = ModularTask("mine", 1511)
    with pytest.raises(InputError, match="declares group='add'"):
        task.answer_group  # noqa: B018


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (lambda a, b, p: a + b, r"label 7 for \(1, 6\)"),
        (lambda a, b, p: -b, r"label -1 for \(0, 1\)"),
        (lambda a, b, p: (a + b) / p, r"torch.float32 at p=7, 0.0 for \(0, 0\)"),
        (lambda a, b, p: torch.full((p * p,), torch.nan), r"nan for \(0, 0\)"),
        (lambda a, b, p: a * 1j, "torch.complex64"),
        (lambda a, b, p: a == b, r"torch.bool at p=7, True for \(0, 0\)"),
        (lambda a, b, p: a[:-1], r"labels of shape \(48,\)"),
        (lambda a, b, p: (a + b)[:, None] % p, r"labels of shape \(49, 1\)"),
        (lambda a, b, p: 0, "gives 0 at p=7"),
        (lambda a, b, p: None, "gives None at p=7"),
        (lambda a, b, p: a.mean(), "raised RuntimeError at p=7"),
        (lambda a, b, p: {}[p], r"raised KeyError at p=7 \('7'\)"),
        (lambda a, b, p: torch.randint(p, a.shape), "when it is asked again"),
    ],
)
def test_labels_that_are_none_are_refused_when_a_task_is_made(registered, labels, told):
    registered(labels)
    with pytest.raises(InputError, match=rf"operation 'mine' .*{told}") as refused:
        ModularTask("mine", 7)
    assert len(str(refused.value)) < 400


def test_whole_numbers_in_other_containers_are_labels(registered):
    expected = torch.arange(7).repeat_interleave(7)
    for labels in (
        lambda a, b, p: a.to(torch.uint8),
        lambda a, b, p: a.numpy().astype("int16"),
        lambda a, b, p: a.tolist(),
    ):
        registered(labels)
        assert torch.equal(ModularTask("mine", 7).labels, expected)


def test_an_operation_can_neither_change_its_operands_nor_labels_it_gave(registered):
    kept = torch.zeros(49, dtype=torch.int64)

    def labels(a, b, p):
        a.add_(b).remainder_(p)
        return kept.copy_(a)

    registered(labels)
    task = ModularTask("mine", 7)
    assert torch.equal(task.labels, ModularTask("add", 7).labels)
    kept.zero_()
    assert torch.equal(task.labels, ModularTask("add", 7).labels)
    assert task.operands[8].tolist() == [1, 1]


def test_the_former_name_of_the_operands_works_with_a_warning():
    task = ModularTask("divide", 7)
    with pytest.warns(DeprecationWarning, match=r"write task\.operands\."):
        assert torch.equal(task.inputs, task.operands)


def test_a_cell_run_twice_replaces_its_own_operation_and_no_other(registered):
    def cell(number):
        @operation("mine")
        def labels(a, b, p):
            return a * 0 + number

    cell(1)
    cell(2)
    assert ModularTask("mine", 7).labels.unique().tolist() == [2]
    with pytest.raises(InputError, match=r"'mine' is taken by tests.test_tasks.*cell.*labels"):
        operation("mine")(lambda a, b, p: a)
    for name in ("add", "sub", "x^2+xy+y^2"):
        with pytest.raises(InputError, match=r"is taken by grokinterp.tasks.operations._"):
            operation(name)(lambda a, b, p: a)
    assert torch.equal(ModularTask("sub", 7).labels, ModularTask("subtract", 7).labels)


def test_an_unknown_operation_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'subtract'"):
        ModularTask("substract", 7)
