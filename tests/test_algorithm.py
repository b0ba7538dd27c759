import pytest
import torch

import grokinterp as gi
from grokinterp.circuits._algorithm import Cutoffs, algorithm
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from tests import clock, models_of_users
from tests.exact_clock import ExactClock, random_radii

P = 31


@pytest.fixture(scope="module")
def pizza():
    weights = clock.clock_weights(P, (2, 5, 13), 10.0)
    return from_weights(weights, clock.clock_architecture(P, 3), ModularTask("add", P))


def exact_clock(operation="add"):
    return gi.snapshot(ExactClock(P, (3, 7, 11), random_radii(P)), ModularTask(operation, P))


def spoken(found):
    return {reading.measure: reading.speaks_for for reading in found.readings}


def test_the_hand_built_pizza(pizza):
    found = algorithm(pizza)
    assert found.verdict == "pizza"
    assert found.frequencies == (2, 5, 13)
    assert spoken(found)["gradient symmetricity"] == "pizza"
    assert spoken(found)["distance irrelevance"] == "pizza"
    assert found.circles.accuracy == 1.0
    assert any("circle of 13 alone, the pizza's form explains 100.0%" in r for r in found.reasons)


def test_the_exact_clock():
    found = algorithm(exact_clock())
    assert found.verdict == "clock"
    assert found.gradient_symmetricity.value < 0.5
    assert found.distance_irrelevance.value > 0.9


@pytest.mark.slow
def test_the_shipped_run_is_a_clock_whose_components_mix(shipped):
    """Frequencies 18 and 53 have circles of nearly one size: 0.9886, below the published 0.995."""
    found = algorithm(shipped)
    assert found.verdict == "clock"
    assert found.circularity.value < 0.995 < found.circularity.key_share
    assert "circular with mixed or fewer components: circularity 0.9886" in found.reasons[2]
    early = algorithm(shipped, step=2500)
    assert early.verdict == "neither"
    assert early.step == 2500
    assert "less than 99%" in early.reasons[0]
    assert "is not circular" in early.reasons[2]


def test_the_untrained_are_neither(tiny_run):
    found = algorithm(tiny_run, step=0)
    assert found.verdict == "neither"
    assert "less than 99%" in found.reasons[0]
    untrained = from_weights(
        clock.clock_architecture(P, 8).initial(seed=0),
        clock.clock_architecture(P, 8),
        ModularTask("add", P),
    )
    found = algorithm(untrained)
    assert found.verdict == "neither"
    assert found.frequencies == ()
    assert found.circles is None
    assert found.reasons[1].startswith("its logits have no key frequencies: no sparse circuit: ")
    assert [r.speaks_for for r in found.readings[:3]] == ["neither"] * 3


def test_without_an_answer_group_there_is_nothing_to_add_on():
    found = algorithm(exact_clock("random"))
    assert found.verdict == "neither"
    assert found.reasons == (
        "the operation 'random' is not a function of one group exponent: its labels are drawn: "
        "there is no circle to add on",
    )
    assert found.circularity is None


def test_each_gate_alone_is_enough(pizza):
    assert algorithm(pizza, thresholds=Cutoffs(answers=1.1)).verdict == "neither"
    assert algorithm(pizza, frequencies=()).verdict == "neither"
    assert algorithm(pizza, thresholds=Cutoffs(circular=1.1)).verdict == "pizza"
    other = Cutoffs(circular=1.1, key_share=1.1)
    assert algorithm(pizza, thresholds=other).verdict == "neither"


def test_measures_that_disagree_or_abstain_leave_it_open(pizza):
    conflict = algorithm(pizza, thresholds=Cutoffs(irrelevant=0.0))
    assert conflict.verdict == "undetermined"
    assert spoken(conflict)["distance irrelevance"] == "clock"
    assert spoken(conflict)["gradient symmetricity"] == "pizza"
    near = exact_clock()
    found = algorithm(near)
    value = found.gradient_symmetricity.value
    error = found.gradient_symmetricity.standard_error
    for bound, verdict in (
        (value + 1.9 * error, None),
        (value - 1.9 * error, None),
        (value + 2.1 * error, "clock"),
        (value - 2.1 * error, "pizza"),
    ):
        read = algorithm(near, thresholds=Cutoffs(symmetric=bound))
        assert spoken(read)["gradient symmetricity"] == verdict
        assert read.verdict == ("clock" if verdict == "clock" else "undetermined")


def test_a_right_answer_that_never_varies_abstains():
    model = ExactClock(P, (3, 7, 11), torch.ones(P, dtype=torch.float64))
    found = algorithm(model, task=ModularTask("add", P))
    assert found.verdict == "undetermined"
    assert found.table()["value"].isna().sum() == 1
    assert any("distance irrelevance is not defined" in reason for reason in found.reasons)


def test_gradients_say_nothing_about_subtraction():
    model = ExactClock(P, (3, 7, 11), random_radii(P), subtract=True)
    found = algorithm(model, task=ModularTask("subtract", P))
    assert found.verdict == "undetermined"
    assert spoken(found)["accuracy"] is None
    assert spoken(found)["gradient symmetricity"] is None
    assert spoken(found)["distance irrelevance"] == "clock"
    assert [subset.form for subset in found.circles.subsets[:3]] == ["clock"] * 3
    assert any("subtract is not symmetric in a and b" in reason for reason in found.reasons)


def test_a_users_model_of_two_layers_gets_an_answer_and_is_left_alone():
    model = models_of_users.layer_norm_model(layers=2)
    hooks = models_of_users.hooks_of(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = algorithm(model, task=ModularTask("add", 7))
    assert found.verdict == "neither"
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert models_of_users.hooks_of(model) == hooks


def test_the_table_has_a_row_per_reason(pizza):
    found = algorithm(pizza)
    table = found.table()
    assert table["reason"].tolist() == list(found.reasons)
    assert table.attrs["verdict"] == "pizza"
    assert table.attrs["thresholds"]["symmetric"] == 0.98
    assert len(repr(found)) < 200
