"""Claims that one run or its controls decide: each outcome on evidence made up for it."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.claims import CLAIMS, ControlEvidence, ControlRun, RunEvidence, Zone
from grokinterp.progress.curves import Curve
from grokinterp.training.decay_balance import Balance
from tests.made_runs import curves, recipe_run

pytestmark = pytest.mark.shapes_unchecked

FOUR = ["A1", "A2", "A3", "A4", "A5", "B1", "B2", "B3", "C1", "C2", "D1", "E1", "E2", "F1"]
STEPS = (0, 100, 200, 300, 400)


def balance(norms, decay=0.01):
    """Norms at `STEPS`, beside a rate of decay alone."""
    every = torch.tensor(norms, dtype=torch.float64)[:, None]
    gaps = len(STEPS) - 1
    return Balance(
        steps=STEPS, matrices=(), norms=every, cos_shrinking=torch.zeros(gaps, 1),
        cos_gradient=None, decays=torch.full((gaps, 1), decay).double(), steps_known=True,
        logged=None,
    )  # fmt: skip


def evidence(*, delay=(100, 300), norms=(1, 9, 8, 7, 6), decay=0.01, **analyses):
    """A run with these analyses, as rules look at it."""
    return SimpleNamespace(
        **{
            "delay": delay,
            "balance": balance(norms, decay),
            "norm": lambda step: float(np.interp(step, STEPS, norms)),
            "checkpoints": lambda first, last: [s for s in STEPS if first <= s <= last],
            "weight_decay": 1.0,
            "run": SimpleNamespace(task=SimpleNamespace(n_classes=31), steps=STEPS),
        }
        | analyses
    )


def decide(name, given):
    CLAIMS.every()
    return CLAIMS[name](given)


@pytest.mark.parametrize(
    ("norms", "verdict"),
    [
        ((1, 9, 8, 7, 6), "supported"),
        ((1, 5, 6, 7, 8), "contradicted"),
        ((1, 7, 7, 7, 7), "contradicted"),
        ((1, 7, 7, 6.8, 6), "undetermined"),  # by 3 %
        ((1, 9, 9.5, 6, 6), "undetermined"),  # it shrinks in half of the updates
    ],
)
def test_a2_the_norm_falls_between_memorising_and_grokking(norms, verdict):
    found = decide("A2", evidence(norms=norms))
    assert found.verdict == verdict
    assert found.numbers["norm_ratio"] == norms[3] / norms[1]
    assert found.needs == "run"


def test_a2_is_no_question_of_a_run_without_decay():
    found = decide("A2", evidence(weight_decay=0.0))
    assert (found.verdict, found.needs) == ("undetermined", "a run with weight decay")


@pytest.mark.parametrize(
    ("share", "verdict"),
    [(1.0, "supported"), (0.85, "supported"), (0.6, "undetermined"), (0.1, "contradicted")],
)
def test_a3_the_rate_over_that_of_decay_alone(share, verdict):
    rate = 0.01
    norms = [1, *(9 * math.exp(-rate * share * t) for t in (0, 100, 200, 300))]
    found = decide("A3", evidence(norms=norms, decay=rate))
    assert found.verdict == verdict
    assert found.numbers["k_over_decay"] == pytest.approx(share)
    assert (found.numbers["from_step"], found.numbers["to_step"]) == (100, 300)


def test_a3_needs_a_decay_that_acts_by_itself():
    found = decide("A3", evidence(decay=math.nan))
    assert (found.verdict, "decoupled" in found.needs) == ("undetermined", True)
    assert decide("A3", evidence(delay=(110, 190))).verdict == "undetermined"


def with_losses(before, after, **others):
    losses = pd.DataFrame({"step": STEPS, "train_loss": [3, 1, before, after, after]})
    rise = SimpleNamespace(t10=250)
    return evidence(
        measures=losses,
        abruptness=SimpleNamespace(rise=lambda name: rise),
        phases=SimpleNamespace(grok_step_unmirrored=None),
        **others,
    )


@pytest.mark.parametrize(
    ("norms", "losses", "verdict"),
    [
        ((1, 9, 8, 6, 6), (0.1, 0.1), "supported"),
        ((1, 9, 8, 8.5, 9), (0.1, 0.05), "contradicted"),
        ((1, 9, 8, 7.9, 7), (0.1, 0.1), "undetermined"),  # by 1 %
        ((1, 9, 8, 6, 6), (0.1, 0.2), "undetermined"),  # bought with loss
    ],
)
def test_a5_norms_at_equal_loss(norms, losses, verdict):
    found = decide("A5", with_losses(*losses, norms=norms))
    assert found.verdict == verdict
    assert found.reason


def excluded(values, uniform=True):
    circuit = SimpleNamespace(name="circuit_formation", end=300)
    return evidence(
        phases=SimpleNamespace(phases=(circuit,) if uniform else None),
        curve=lambda name: None if values is None else Curve(np.array(STEPS), np.array(values)),
        measures=SimpleNamespace(attrs={"reason": "no sparse circuit"}),
    )


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((3, 0.1, 0.2, 5, 6.0), "supported"),
        ((3, 0.1, 0.1, 0.1, 0.1), "contradicted"),
        ((3, 0.1, 0.1, 0.5, 5), "undetermined"),  # five times
        ((9, 8, 8, 9, 9.0), "undetermined"),  # it stood while memorising
        (None, "undetermined"),
    ],
)
def test_b1_excluded_loss_rises_before_cleanup(values, verdict):
    found = decide("B1", excluded(values))
    assert found.verdict == verdict
    if values is None:
        assert "no sparse circuit" in found.reason


def test_b1_needs_a_dated_cleanup():
    found = decide("B1", excluded((3, 1, 1, 1, 1), uniform=False))
    assert (found.verdict, "start of cleanup" in found.reason) == ("undetermined", True)


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ((0.0, 0.3, 0.7), "supported"),
        ((0.1, 0.6, 0.3), "contradicted"),
        ((0.5, 0.1, 0.4), "undetermined"),
        ((0.2, 0.35, 0.45), "undetermined"),
    ],
)
def test_b2_by_unmirrored_accuracy(shares, verdict):
    names = ("memorization", "circuit_formation", "cleanup")
    deciding = SimpleNamespace(
        measure="test_acc_unmirrored", **dict(zip(names, shares, strict=True))
    )
    other = SimpleNamespace(measure="test_acc", memorization=0, circuit_formation=1, cleanup=0)
    found = decide("B2", evidence(shares=SimpleNamespace(shares=(other, deciding), notes=())))
    assert found.verdict == verdict
    assert found.numbers["cleanup_share"] == shares[2]
    assert found.numbers["cleanup_share_test_acc"] == 0
    none = evidence(shares=SimpleNamespace(shares=(), notes=("no end",)))
    assert decide("B2", none).reason == "no end"


@pytest.mark.parametrize(
    ("ranks", "verdict"),
    [((10, 4), "supported"), ((10, 10), "supported"), ((10, 11), "contradicted")],
)
def test_b3_the_largest_share_of_a_rank(ranks, verdict):
    rows = [
        {"step": step, "matrix": name, "entropy_rank": rank, "full_rank": full}
        for step, own in ((0, (19, 19)), (400, ranks))
        for name, rank, full in (("W_in", own[0], 20), ("W_out", own[1], 20), ("W_U", 2, 2),
                                 ("W_out W_U", 20, 20))
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    found = decide("B3", evidence(ranks=SimpleNamespace(table=lambda: table)))
    assert found.verdict == verdict
    assert found.numbers["largest_ratio"] == max(ranks) / 20
    assert found.numbers["largest_ratio_at_grok"] == max(ranks) / 20
    narrow = evidence(ranks=SimpleNamespace(table=lambda: table[table.full_rank < 8]))
    assert decide("B3", narrow).verdict == "undetermined"


@pytest.mark.parametrize(
    ("held", "verdict"),
    [(True, "supported"), (False, "contradicted"), (None, "undetermined")],
)
def test_d1_all_five_or_not(held, verdict):
    conditions = dict.fromkeys("abcd", True) | {"e": held}
    found = decide(
        "D1",
        evidence(
            descents=SimpleNamespace(
                double_descent=held, conditions=conditions, loss=None, notes=()
            )
        ),
    )
    assert found.verdict == verdict
    assert found.numbers["conditions_met"] == 4 + (held is True)


def abrupt(acceleration, ratio, n_between=5):
    return evidence(
        abruptness=SimpleNamespace(
            acceleration=acceleration, probability_ratio=ratio, n_between=n_between,
            threshold_share=None, moment_null_rmse=0.01, one_flip=0.9, notes=("too few",),
            rises=(1,), rise=lambda name: SimpleNamespace(width=100.0),
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("acceleration", "verdict"),
    [(1.65, "supported"), (4, "undetermined"), (17.6, "contradicted"), (None, "undetermined")],
)
def test_e1_how_fast_margins_are(acceleration, verdict):
    assert decide("E1", abrupt(acceleration, 1.0)).verdict == verdict


@pytest.mark.parametrize(
    ("ratio", "n", "verdict"),
    [
        (1.64, 5, "supported"),
        (1.02, 5, "contradicted"),
        (1.2, 5, "undetermined"),
        (1.64, 3, "undetermined"),
        (None, 5, "undetermined"),
    ],
)
def test_e2_probability_beside_accuracy(ratio, n, verdict):
    found = decide("E2", abrupt(1.0, ratio, n))
    assert found.verdict == verdict
    if n == 3:
        assert found.reason.endswith("within the rise of accuracy, there are 3")


@pytest.mark.parametrize(
    ("both", "verdict"),
    [(True, "supported"), (False, "contradicted"), (None, "undetermined")],
)
def test_f1_lazy_and_then_rich(both, verdict):
    kernel = SimpleNamespace(
        lazy=both, rich=both, lazy_then_rich=both, distance_at_memorization=0.05,
        share_in_transition=0.3, growth_in_transition=2.0,
    )  # fmt: skip
    assert decide("F1", evidence(kernel=kernel)).verdict == verdict


# Controls


BASE = gi.Recipe(p=31, train_fraction=0.8)
HELD = {"norm_clamp": "global", "weight_decay": 0}


def control(t99, t95, *, seed=0, steps=2000, **keys):
    """A run of a changed recipe that memorised and generalised at these steps."""
    recipe = BASE.replace(seed=seed, data_seed=seed, **keys)
    run = SimpleNamespace(
        recipe=recipe, steps=(0, steps), metrics=pd.DataFrame({"step": range(0, steps + 1, 10)})
    )
    made = ControlRun(f"{keys}-{seed}", run, recipe.changes_from(BASE))
    made.__dict__["phases"] = SimpleNamespace(memorization_step=t99, grok_step=t95)
    return made


def seeds(t99, *t95, **keys):
    return [control(t99, at, seed=seed, **keys) for seed, at in enumerate(t95)]


def test_a_control_is_what_its_recipe_says():
    (held,) = seeds(100, 200, clamp_to=0.8, **HELD)
    assert held.same_lesson
    (other,) = seeds(100, None, operation="subtract")
    assert not other.related
    (random,) = seeds(100, None, operation="random")
    assert random.related
    assert not random.same_lesson
    (scaled,) = seeds(100, None, clamp_to=0.8, output_scale=2.0, **HELD)
    assert scaled.same_lesson


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        (seeds(100, None, None, None, weight_decay=0), "supported"),
        (seeds(100, None, None, weight_decay=0), "undetermined"),
        (seeds(None, None, None, None, weight_decay=0), "undetermined"),  # they do not even fit
        (seeds(100, None, None, 900, weight_decay=0), "contradicted"),
        (seeds(100, 900, weight_decay=0, orthogonal_gradients=True), "contradicted"),
        (seeds(100, 200, clamp_to=0.8, **HELD), "contradicted"),
        (seeds(100, 900), "undetermined"),
        (seeds(100, 900, weight_decay=0, train_fraction=0.9), "undetermined"),  # learns more
    ],
)
def test_a1_any_run_without_decay(runs, verdict):
    found = decide("A1", ControlEvidence((), runs))
    assert found.verdict == verdict
    if verdict == "undetermined":
        assert found.needs == "the control no_decay"


def decays(delays, exponent=-1.0):
    return [
        run
        for decay in (0.3, 1.0, 3.0)
        for run in seeds(100, *(100 + x * decay**exponent for x in delays), weight_decay=decay)
    ]


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        (decays((900, 1000, 1100)), "supported"),
        (decays((900, 1000, 1100), -0.3), "contradicted"),
        (decays((100, 1000, 10_000), -0.5), "undetermined"),  # no slope at all is in the interval
        (decays((900, 1000)), "undetermined"),
        (decays((900, 1000, 1100))[:6], "undetermined"),
    ],
)
def test_a4_the_exponent_of_the_delay(runs, verdict):
    assert decide("A4", ControlEvidence((), runs)).verdict == verdict


def test_a4_leaves_out_decays_at_which_a_seed_does_not_grok():
    runs = [*decays((900, 1000, 1100)), *seeds(100, 150, None, 150, weight_decay=10.0)]
    found = decide("A4", ControlEvidence((), runs))
    assert found.verdict == "supported"
    assert "at 10 not every seed groks" in found.reason


NEVER = (None, None, None)


def landscape(t99=100.0, **of):
    """Controls whose held norms come to these t95."""
    norms = []
    for name, t95 in of.items():
        reached = [x for x in t95 if x is not None]
        norms.append(
            {
                "alpha": float(name[1:]) / 10, "n_seeds": len(t95), "n_generalize": len(reached),
                "n_fit": len(t95) if t99 else 0, "t99": t99,
                "t95": sorted(reached)[len(t95) // 2] if reached else None,
            }
        )  # fmt: skip
    free = {"t95": 600, "alpha_max": 1.4, "alpha_t95": 1.0, "came_from": "above"}
    given = ControlEvidence((), [])
    given.__dict__["landscape"] = SimpleNamespace(
        norms=tuple(norms), free=(free,), budget=(2000, 2000),
        zone=Zone.of({row["alpha"]: row["n_generalize"] / row["n_seeds"] for row in norms}),
    )  # fmt: skip
    return given


@pytest.mark.parametrize(
    ("norms", "zone", "walks"),
    [
        ({"n8": (150, 120, 200), "n10": (500, 200, 200), "n13": NEVER}, "supported", "supported"),
        ({"n8": (900, 900, 900), "n10": NEVER, "n13": NEVER}, "supported", "contradicted"),
        ({"n8": (900,) * 3, "n10": (300,) * 3, "n13": (150,) * 3}, "contradicted", "supported"),
        ({"n8": NEVER, "n10": NEVER, "n13": NEVER}, "contradicted", "undetermined"),
        ({"n8": (150, 120, 200), "n13": NEVER}, "undetermined", "undetermined"),
        ({"n8": (150,), "n10": (150,), "n13": (None,)}, "undetermined", "undetermined"),
    ],
)
def test_c_held_norms(norms, zone, walks):
    given = landscape(**norms)
    assert decide("C1", given).verdict == zone
    found = decide("C2", given)
    assert found.verdict == walks
    if walks == "supported":
        assert "to the zone from above" in found.reason


def test_c2_asks_for_norms_that_fit_their_training_inputs():
    found = decide("C2", landscape(None, n8=(150, 120, 200), n10=NEVER, n13=NEVER))
    assert (found.verdict, found.needs) == ("undetermined", "held norms inside the zone")


def test_what_one_claim_lacks_names_the_control():
    nothing = ControlEvidence((), [])
    needs = {name: decide(name, nothing).needs for name in ("A1", "A4", "C1", "C2")}
    assert needs == {
        "A1": "the control no_decay",
        "A4": "the controls decay_x0.3, decay_x0.6 and decay_x3",
        "C1": "the control held_norm",
        "C2": "the control held_norm",
    }


# The whole


@pytest.fixture(scope="module")
def found():
    return gi.explain(gi.load("mod31-small"))


def test_every_claim_has_a_verdict_in_order(found):
    every = [claim.name for claim in found.claims]
    assert every[: len(FOUR)] == FOUR
    assert every == sorted(every)
    for claim in found.claims:
        for said in (claim.statement, claim.source, claim.rule, claim.reason, claim.would_change):
            assert said
        assert claim.needs
        assert claim.chance is None or 0 <= claim.chance <= 1


def test_the_shipped_run(found):
    supported = {name for name, verdict in found.verdicts.items() if verdict == "supported"}
    assert supported == {"A2", "A5", "B3", "E1", "G7"}
    contradicted = {name for name, verdict in found.verdicts.items() if verdict == "contradicted"}
    assert contradicted == {"A3", "D1", "E2", "G2", "G3", "G5"}
    assert {name for name in found.verdicts if found[name].doubt} == {"G2", "G3", "G5", "G7"}
    assert (found["F1"].needs, found["A1"].needs) == ("--slow", "the control no_decay")
    known = [x for x in found.claims if x.verdict != "undetermined" and x.chance is not None]
    assert found.by_chance == pytest.approx(sum(x.chance for x in known))
    assert f"{found.by_chance:.1f} would be by chance alone" in found.notes[0]


def test_json_has_what_scripts_read(found):
    plain = json.loads(json.dumps(found.to_dict()))
    wanted = {"id", "statement", "source", "verdict", "numbers", "rule", "needs", "would_change"}
    for claim in plain["claims"]:
        assert wanted <= claim.keys()
    assert plain["runs"] == ["mod31-small"]
    assert plain["claims"][1]["threshold"] == {"number": "norm_ratio", "at": 0.95, "side": "below"}


def test_the_figure_has_a_mark_per_claim(found):
    drawn = found.plot()
    assert sum(len(trace.x) for trace in drawn.data) == len(found.claims)
    marks = {trace.name: trace for trace in drawn.data}
    assert min(marks["supported"].x) > 0
    assert max(marks["contradicted"].x) < 0
    page = gi.viz.explain_page(found)
    for claim in found.claims:
        assert claim.name in page


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that learns nothing, its control without decay, and a run of another task."""
    folder = tmp_path_factory.mktemp("explained")
    recipe = gi.Recipe(p=7, d_model=8, d_head=4, d_mlp=16, steps=30, checkpoints=(0, 30))
    changes = {"run": {}, "no_decay": {"weight_decay": 0}, "other": {"p": 11}}
    for name, keys in changes.items():
        gi.train(recipe.replace(**keys), folder / "all" / name, progress=False)
    return folder / "all"


def test_controls_are_read_from_a_folder(trained):
    found = gi.explain(trained / "run", trained)
    assert found.runs == ("run",)
    assert found["A1"].seeds == {"no_decay": 1, "other decay-free": 0}
    assert found.left_out == (
        "other: it differs in what is learned or by what (p)",
    )  # and the run itself is no control of itself
    assert any("1 of 3 runs beside are controls of these" in note for note in found.notes)
    for name in ("A2", "D1", "E1"):
        assert found[name].verdict == "undetermined"
        assert "labelled not_learned" in found[name].reason


def test_a_control_is_one_of_the_explained_recipe_alone(trained):
    run = gi.load("mod31-small")
    # A folder of the same name elsewhere is another run, not the explained one.
    found = gi.explain({"run": run}, trained, claims=["A1"])
    assert len(found.left_out) == 3
    assert found.left_out[-1].startswith("run (control): it differs in what is learned")
    assert " and 2 more)" in found.left_out[-1]  # not every key of another experiment
    # Nothing is a control of what has no recipe.
    found = gi.explain(gi.snapshot(run.model(), run.task), trained, claims=["A1"])
    assert found["A1"].seeds == {"no_decay": 0, "other decay-free": 0}
    assert "no_decay: what is explained has no recipe" in found.left_out[0]
    # And one run under two names is one control.
    decay_free = gi.load(trained / "no_decay")
    found = gi.explain(trained / "run", {"a": decay_free, "b": decay_free}, claims=["A1"])
    assert found["A1"].numbers["no_decay_runs"] == 1


def test_runs_without_a_split_or_a_recipe_have_reasons(trained):
    run = gi.load("mod31-small")
    model = gi.snapshot(run.model(), run.task)
    found = gi.explain(model)
    assert set(found.verdicts.values()) == {"undetermined"}
    assert all(claim.reason for claim in found.claims)


@pytest.mark.parametrize(
    ("label", "logged"),
    [
        ("memorized", curves(2000, fits=100)),
        ("steady", curves(2000, fits=100, generalizes=110)),
        ("not_learned", curves(2000)),
    ],
)
def test_a_run_that_did_not_grok_has_reasons(label, logged):
    recipe = gi.Recipe(model="mlp", p=7, d_mlp=8, operation="subtract", steps=2000)
    found = gi.explain(recipe_run(recipe, logged))
    assert set(found.verdicts.values()) == {"undetermined"}
    for name in ("A2", "A3", "A5", "B1", "B2", "B3", "D1", "E1", "E2"):
        assert f"labelled {label}" in found[name].reason
        assert found[name].needs == "a run that grokked"
    assert found.plot().data


def test_several_runs_are_decided_each_and_joined(trained):
    run = gi.load("mod31-small")
    found = gi.explain({"one": run, "two": gi.load(trained / "run")}, claims=["A2", "A3"])
    assert found["A2"].verdict == "supported"  # of the one that decides
    assert found["A2"].numbers["runs_undetermined"] == 1
    assert found.of_each_run()["A2"].tolist() == ["supported", "undetermined"]
    assert found["A3"].seeds == {"runs": 2}
    assert any(note.startswith("the runs are of several settings: they") for note in found.notes)


def test_words_that_are_wrong_are_refused_in_one_line(trained):
    run = gi.load("mod31-small")
    with pytest.raises(gi.InputError, match="claim='A9' is not known"):
        gi.explain(run, claims=["A9"])
    with pytest.raises(gi.InputError, match=r"claims='A1' is not a list"):
        gi.explain(run, claims="A1")
    with pytest.raises(gi.InputError, match=r"did you mean 'A2'|valid are"):
        gi.explain(run, claims=["A2"])["A3"]
    with pytest.raises(gi.InputError, match="does not exist"):
        gi.explain(run, trained / "nowhere", claims=["A1"])
    with pytest.raises(gi.InputError, match="a and b are one run"):
        gi.explain({"a": run, "b": run}, claims=["A2"])


def test_a_rule_of_somebody_else_that_breaks_leaves_the_others(monkeypatch):
    @gi.register.claim("broken", statement="s", source="s", rule="r", needs="run")
    def broken(run):
        return run.nothing

    broken.decide.__module__ = "somewhere"
    try:
        found = gi.explain(gi.load("mod31-small"), claims=["broken", "A2"])
        assert found["broken"].verdict == "undetermined"
        assert "AttributeError" in found["broken"].reason
        assert found["A2"].verdict == "supported"
    finally:
        del CLAIMS["broken"]


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({"reason": None}, "reason=None; give a text"),
        ({"numbers": None}, "numbers=None; give a dict"),
        ({"numbers": {"a": "high"}}, "give a dict of names and numbers"),
        ({"seeds": {"run": None}}, "give a dict of names and numbers"),
        ({"threshold": "a"}, "threshold='a'; give a gi.claims.Threshold"),
        ({"chance": "a lot"}, "chance='a lot'; give a probability"),
        ({"chance": 7}, "chance=7; give a probability"),
    ],
)
def test_findings_of_another_kind_are_refused_where_they_are_made(keys, wrong):
    given = {"verdict": "supported", "reason": "r", "numbers": {}, "seeds": {}} | keys
    CLAIMS.every()
    with pytest.raises(gi.InputError, match=f"claim='A2' finds .*{wrong}"):
        CLAIMS["A2"].found(gi.claims.Finding(**given))


def test_a_threshold_is_that_of_the_number_that_decides():
    lazy = SimpleNamespace(
        lazy=True, rich=False, lazy_then_rich=False, distance_at_memorization=0.015,
        share_in_transition=0.1, growth_in_transition=1.0,
    )  # fmt: skip
    found = decide("F1", evidence(kernel=lazy))  # by another number than that distance
    assert (found.verdict, found.threshold) == ("contradicted", None)
    steep = decide("A4", ControlEvidence((), decays((900, 1000, 1100), -2.0)))
    assert (steep.verdict, steep.threshold) == ("contradicted", None)
    assert decide("A4", ControlEvidence((), decays((900, 1000, 1100)))).threshold is not None


def test_every_expectation_is_checked(run):
    asked = ["explain", "mod31-small", "--claims", "A2", "--json"]
    status, out, err = run(*asked, "--expect", "A2=contradicted", "--expect", "A2=supported")
    assert (status, len(json.loads(out)["claims"])) == (3, 1)
    assert 'A2 is "supported", expected "contradicted"' in err.replace("'", '"')
    assert "did you mean 'A2'" in run(*asked[:3], "a2")[2]


def test_evidence_is_computed_once(monkeypatch):
    one = RunEvidence(gi.load("mod31-small"), "one")
    assert one.balance is one.balance
    assert one.measures is one.measures
