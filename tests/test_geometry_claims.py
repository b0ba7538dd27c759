"""Claims of the geometry of grokking: each outcome on evidence made up for it, and shipped runs."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest

import grokinterp as gi
from grokinterp.claims import CLAIMS

pytestmark = pytest.mark.shapes_unchecked

G = ["G1", "G2", "G3", "G4a", "G4b", "G4c", "G4d", "G4e", "G5", "G6", "G7"]
STEPS = (0, 100, 200, 300, 400)
ORDER = ("answers", "unembedding", "embedding")


def decide(name, given):
    CLAIMS.every()
    return CLAIMS[name](given)


def shapes(*, symmetry=(0, 0.1, 0.3, 0.8, 1), dates=(), widths=(), ratios=(40, 20, 10, 5, 4)):
    """Representations: the same symmetry in each cloud, with these transitions and widths."""
    rows = [
        {"step": step, "cloud": cloud, "symmetry": value, "participation_ratio": ratio,
         "key_share": value, "reliability": 0.9 if cloud == "answers" else math.nan}
        for cloud in ORDER
        for step, value, ratio in zip(STEPS, symmetry, ratios, strict=True)
    ]  # fmt: skip
    found = {
        name: SimpleNamespace(
            cloud=name, step=step, interval=None if step is None else (step - 50, step),
            width=width, reason="it never rises",
        )
        for name, step, width in zip(
            (*ORDER, "test_accuracy"),
            (*dates, *[300] * (4 - len(dates))),
            (*widths, *[100] * (4 - len(widths))),
            strict=True,
        )
    }  # fmt: skip
    return SimpleNamespace(
        table=lambda: pd.DataFrame(rows), transition=found.get, key_frequencies=(3, 5), notes=(),
    )  # fmt: skip


def evidence(*, delay=(100, 300), steady=(), grok_step=300, **analyses):
    """A run with these analyses, as rules look at it."""
    logged = pd.DataFrame({"step": range(0, 401, 10)})
    about = {
        "delay": delay, "ends": (100, 400), "steady": steady,
        "run": SimpleNamespace(steps=STEPS, metrics=logged),
        "phases": SimpleNamespace(grok_step=grok_step),
    }  # fmt: skip
    return SimpleNamespace(**about | analyses)


@pytest.mark.parametrize(
    ("symmetry", "verdict"),
    [
        ((0, 0.1, 0.3, 0.8, 1), "supported"),
        ((0, 0.95, 0.95, 0.98, 1), "contradicted"),  # ordered when it memorises
        ((0, 0.1, 0.1, 0.2, 0.3), "contradicted"),  # never
        ((0, 0.6, 0.7, 0.8, 1), "undetermined"),
        ((0, 0.1, 0.3, 0.6, 0.8), "undetermined"),
    ],
)
def test_cloud_to_circle(symmetry, verdict):
    found = decide("G1", evidence(representations=shapes(symmetry=symmetry)))
    assert found.verdict == verdict
    assert found.numbers["largest_before"] == symmetry[1]
    assert found.numbers["least_after"] == symmetry[-1]


@pytest.mark.parametrize(("reliability", "verdict"), [(0.6, "contradicted"), (0.2, "undetermined")])
def test_answers_that_few_inputs_arrange_do_not_contradict(reliability, verdict):
    seen = shapes()
    table = seen.table()
    answers = (table["cloud"] == "answers") & (table["step"] == 400)
    table.loc[answers, ["symmetry", "reliability"]] = [0.1, reliability]
    seen.table = lambda: table
    assert decide("G1", evidence(representations=seen)).verdict == verdict


@pytest.mark.parametrize(
    ("dates", "verdict"),
    [
        ((100, 200, 250), "supported"),  # and grok_step 300
        ((100, 250, 200), "contradicted"),  # the embedding before the unembedding
        ((100, 200, 400), "contradicted"),  # after grok_step
        ((100, 120, 250), "undetermined"),  # between the same checkpoints
    ],
)
def test_geometry_before_accuracy(dates, verdict):
    found = decide("G2", evidence(representations=shapes(dates=dates)))
    assert found.verdict == verdict
    for name, date in zip(ORDER, dates, strict=True):
        assert found.numbers[f"{name}_leads_by"] == 300 - date
    assert found.chance == 1 / 24


def test_a_cloud_that_never_changes_leaves_its_order_open():
    found = decide("G2", evidence(representations=shapes(dates=(100, None, 250))))
    assert found.verdict == "undetermined"
    assert "the transition of unembedding is not dated: it never rises" in found.reason


@pytest.mark.parametrize(
    ("widths", "verdict"),
    [
        ((10, 20, 30, 40), "supported"),
        ((50, 60, 70, 40), "contradicted"),
        ((30, 60, 70, 40), "undetermined"),
        ((0, 60, 70, 40), "undetermined"),  # between two checkpoints: nobody knows
    ],
)
def test_sharper_than_fit(widths, verdict):
    found = decide("G3", evidence(representations=shapes(widths=widths)))
    assert found.verdict == verdict


def test_a_number_that_a_steady_run_has_not_is_not_told():
    given = evidence(representations=shapes(), noise_radius=heard(0.2, 0.4))
    given.steady = [evidence(noise_radius=heard(0.2, math.nan))]
    found = decide("G4d", given)
    assert not any(name.startswith("steady") for name in found.numbers)
    assert "steady" not in found.reason
    given.steady.append(evidence(noise_radius=heard(0.2, 0.3)))
    assert decide("G4d", given).numbers["steady_radius_ratio"] == pytest.approx(1.5)


def test_a_steady_run_is_told_beside_it_and_decides_nothing():
    steady = evidence(representations=shapes(widths=(5, 5, 5, 7)), delay=(90, 100))
    broken = evidence(representations=shapes(dates=(None,)))
    found = decide(
        "G3", evidence(representations=shapes(widths=(50, 60, 70, 40)), steady=(broken, steady))
    )
    assert found.verdict == "contradicted"
    assert found.numbers["steady_answers_width"] == 5
    assert "a steady run beside it: test_accuracy_width 7, answers_width 5" in found.reason


def curved(first, last):
    """A table of curvature at two steps: lambda_max and traces, raw and at matched loss."""
    columns = ("lambda_max", "trace", "lambda_max_scaled", "trace_per_tensor")
    rows = [
        {"step": step, "loss_is": loss_is, **dict.fromkeys(columns, x * factor)}
        for loss_is, factor in (("raw", 1e-4), ("matched", 1))
        for step, x in ((100, first), (400, last))
    ]
    return SimpleNamespace(table=lambda: pd.DataFrame(rows))


@pytest.mark.parametrize("name", ["G4a", "G4b", "G4c"])
@pytest.mark.parametrize(
    ("last", "verdict"),
    [(13, "supported"), (5, "contradicted"), (10, "undetermined"), (math.nan, "undetermined")],
)
def test_flat_then_narrow_by_the_hessian(name, last, verdict):
    found = decide(name, evidence(curvature=curved(10, last)))
    assert found.verdict == verdict
    if not math.isnan(last):
        assert found.numbers[f"{'trace' if name != 'G4c' else 'trace_per_tensor'}_ratio"] == (
            pytest.approx(last / 10)
        )


def test_both_numbers_of_a_definition_have_to_agree():
    mixed = curved(10, 20).table()
    mixed.loc[3, "trace"] = 1.0
    found = decide("G4b", evidence(curvature=SimpleNamespace(table=lambda: mixed)))
    assert found.verdict == "undetermined"


def heard(first, last):
    """A noise radius on training inputs at both ends; on test inputs it never changes."""
    table = pd.DataFrame({
        "step": [100, 100, 400, 400], "rows": ["train", "test"] * 2, "radius": [first, 9, last, 9],
    })  # fmt: skip
    return SimpleNamespace(table=lambda: table)


@pytest.mark.parametrize(
    ("last", "verdict"), [(0.1, "supported"), (0.4, "contradicted"), (0.19, "undetermined")]
)
def test_flat_then_narrow_in_noise(last, verdict):
    found = decide("G4d", evidence(noise_radius=heard(0.2, last)))
    assert found.verdict == verdict
    assert (found.threshold.number, found.threshold.side) == ("radius_ratio", "below")


@pytest.mark.parametrize(
    ("last", "verdict"),
    [(90, "supported"), (3, "contradicted"), (50, "undetermined"), (-1, "undetermined")],
)
def test_flat_then_narrow_in_sampling(last, verdict):
    assert decide("G4e", sampled(50.0, float(last))).verdict == verdict


def sampled(*values, **said):
    """Basins with these coefficients; the last of them with something to be said."""
    basins = [SimpleNamespace(value=x, warnings=(), radius=0.3, step=100) for x in values]
    vars(basins[-1]).update(said)
    return evidence(learning_coefficient=SimpleNamespace(basins=basins))


@pytest.mark.parametrize(
    "said",
    [{"warnings": ("unstable: a chain ran away",)}, {"warnings": ("left the basin: ...",)},
     {"radius": 1.2}],
)  # fmt: skip
def test_a_coefficient_that_is_none_decides_nothing(said):
    found = decide("G4e", sampled(50.0, 3.0, **said))
    assert found.verdict == "undetermined"
    assert "not to be trusted" in found.reason
    assert decide("G4e", sampled(50.0, 3.0, warnings=("saturated: ...",))).verdict == "contradicted"


def path(directedness, window=(100, 300)):
    fit = SimpleNamespace(exponent=0.5)
    return SimpleNamespace(
        directedness=directedness, exponent=0.4, uncorrelated=fit, straight=fit, window=window,
        plateau=SimpleNamespace(shares=(0.9,)), notes=("no plateau: why not",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("drift", "verdict"),
    [
        (path(0.1), "supported"),
        (path(0.8), "contradicted"),
        (path(0.4), "undetermined"),
        (path(math.nan, window=None), "undetermined"),
    ],
)
def test_wanders(drift, verdict):
    assert decide("G5", evidence(drift=drift)).verdict == verdict


@pytest.mark.parametrize(
    ("ratios", "symmetry", "verdict"),
    [
        ((40, 20, 10, 5, 4), 1, "supported"),
        ((40, 40, 40, 40, 30), 1, "contradicted"),
        ((40, 20, 10, 5, 4), 0.2, "contradicted"),
        ((40, 20, 10, 9, 8), 1, "undetermined"),  # four dimensions per key frequency
    ],
)
def test_low_dimensional(ratios, symmetry, verdict):
    found = shapes(ratios=ratios, symmetry=(0, 0, 0, 0, symmetry))
    claim = decide("G6", evidence(representations=found))
    assert claim.verdict == verdict
    assert claim.numbers["dimensions_per_frequency"] == ratios[-1] / 2


def decoded(gaps, presence=0.5, untrained=0.0):
    """Presence and gaps at two hooks, of which the last counts."""
    rows = [
        {"step": step, "hook": hook, "presence": untrained if step == 0 else presence,
         "placebo_max": 0.1, "accuracy": presence - gap, "gap": gap if hook == "last" else 0.9}
        for step, gap in zip(STEPS, gaps, strict=True)
        for hook in ("first", "last")
    ]  # fmt: skip
    split = pd.DataFrame({"step": STEPS, "interference": [0.05] * 5})
    return SimpleNamespace(
        table=lambda: pd.DataFrame(rows), split=lambda: split, hooks=("first", "last"), notes=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("routing", "verdict"),
    [
        (decoded((0, 0.2, 0.3, 0.1, 0)), "supported"),
        (decoded((0, 0, 0.3, 0, 0)), "undetermined"),  # at one checkpoint alone
        (decoded((0, 0.2, 0.3, 0.1, 0), presence=0.1), "undetermined"),  # as much as placebos
        (decoded((0, 0.04, 0.04, 0, -0.1)), "contradicted"),
        (decoded((0, 0.2, 0.3, 0.1, 0), untrained=0.42), "undetermined"),  # .08 was learned
        (decoded((0, 0.2, 0.3, 0.1, 0), untrained=0.46), "contradicted"),  # .04
    ],
)
def test_known_but_not_used(routing, verdict):
    found = decide("G7", evidence(routing=routing))
    assert found.verdict == verdict
    assert "0.05 of it interference" in found.reason


def test_a_task_that_random_features_do_decides_nothing():
    found = decide("G7", evidence(routing=decoded((0, 0.2, 0.3, 0.1, 0), 0.9, untrained=0.6)))
    assert found.verdict == "undetermined"
    assert "reads 0.6 of the untrained network" in found.reason


@pytest.mark.parametrize(("claim", "delay"), [("G1", (110, 190)), ("G6", (-10, 300)),
                                              ("G7", (110, 290)), ("G7", (100, 500))])  # fmt: skip
def test_without_the_checkpoints_that_it_is_about_a_claim_is_open(claim, delay):
    given = evidence(delay=delay, representations=shapes(), routing=decoded((0, 0.2, 0.3, 0.1, 0)))
    found = decide(claim, given)
    assert found.verdict == "undetermined"
    assert "its checkpoints" in found.reason


def test_a_firm_word_takes_three_seeds():
    one = decide("G6", evidence(representations=shapes()))
    assert (one.firm, one.agreeing) == (False, 1)
    assert one.doubt == "not firm: 1 of the 3 seeds that it takes"
    assert one.to_dict()["firm"] is False
    assert "not firm" in str(one)
    of_one_run = decide("A2", SimpleNamespace(delay=(1, 2), weight_decay=0))
    assert (of_one_run.firm, of_one_run.doubt) == (False, "")  # undetermined is no word


def test_the_word_of_three_seeds_is_firm():
    CLAIMS.every()
    for agree, firm in ((2, False), (3, True)):
        numbers = {"runs_supported": agree, "runs_contradicted": 0, "runs_undetermined": 1}
        joined = gi.claims.Finding("supported", "of several", numbers, {"runs": agree + 1})
        assert CLAIMS["G6"].found(joined).firm is firm


def test_they_are_registered_with_what_turns_them():
    CLAIMS.every()
    assert [name for name in sorted(CLAIMS) if name.startswith("G")] == G
    for name in G:
        claim = CLAIMS[name]
        assert claim.needs == "run"
        assert claim.firm_from == 3
        assert claim.falsifiers
        assert claim.slow == name.startswith("G4")


def test_a_memoriser_is_no_run_that_groks(tiny_run):
    found = gi.explain(tiny_run, claims=G, slow=True)
    assert set(found.verdicts.values()) == {"undetermined"}
    assert found["G4a"].needs == "a run that grokked"


@pytest.mark.slow
def test_the_shipped_run(shipped):
    found = gi.explain(shipped, claims=["G1", "G2", "G3", "G5", "G6", "G7"])
    assert found.verdicts == {
        "G1": "supported", "G2": "supported", "G3": "contradicted", "G5": "undetermined",
        "G6": "supported", "G7": "supported",
    }  # fmt: skip
    assert not any(claim.firm for claim in found.claims)
    assert [found["G2"].numbers[f"{name}_step"] for name in ORDER] == [1600, 4000, 5200]
    assert found["G6"].numbers["participation_ratio"] == pytest.approx(7.9, abs=0.1)
    assert found["G7"].numbers["largest_gap"] == pytest.approx(0.30, abs=0.05)
    assert found["G7"].numbers["largest_gap_step"] == 4800


@pytest.mark.slow
def test_steady_runs_among_the_controls_are_looked_at(shipped):
    steady = gi.load("mod113-steady")
    found = gi.explain(shipped, [steady], claims=["G7"])
    # What a steady run shows for a while too is no mark of grokking.
    assert found["G7"].numbers["steady_largest_gap"] == pytest.approx(0.30, abs=0.05)
    assert "a steady run beside it: largest_gap 0.3" in found["G7"].reason
