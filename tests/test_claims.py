"""Verdicts on runs made up so that the answer is known."""

import math
from types import SimpleNamespace

import pytest

import grokinterp as gi
from grokinterp.base.registry import Registry
from grokinterp.claims import CLAIMS, Claim, Evidence, Finding, claim, registry
from grokinterp.comparison.lineup import RunProfile
from grokinterp.comparison.manning_coe import (
    compressive_regime,
    grokked_less_efficient,
    peak_after_plateau,
    same_features,
    straight_path,
)
from grokinterp.runs import Run

NO_RUN = Run.__new__(Run)  # claims look at what was measured, and whether there is a recipe
NO_RUN.manifest = SimpleNamespace(recipe=gi.Recipe())


def profile(name, *, start=None, seed=None, run=NO_RUN, **values):
    return RunProfile(name, run, seed or name, values=values, start=start or {})


def evidence(grokked, steady, settings=None):
    """Profiles of these values, a run each; `settings` of the steady ones."""
    sides = [
        [profile(f"{side}{i}", **values) for i, values in enumerate(runs)]
        for side, runs in (("g", grokked), ("s", steady))
    ]
    names = [p.name for p in sides[1]]
    return Evidence(*sides, dict(zip(names, settings or ["w"] * len(names), strict=True)))


def each(measure, values, **others):
    return [{measure: value, **others} for value in values]


class TestEfficiency:
    @pytest.mark.parametrize(
        ("grokked", "steady", "verdict"),
        [
            ((3, 4, 5), (6, 7, 8), "supported"),
            ((6, 7, 8), (3, 4, 5), "contradicted"),
            ((3, 4, 7), (6, 7, 8), "undetermined"),
            ((3, 4, 6.5, 3, 3), (6, 7, 8, 9, 9), "supported"),  # one overlap of 25 is no matter
            ((3, 4), (6, 7, 8), "undetermined"),
            ((), (), "undetermined"),
        ],
    )
    def test_verdict(self, grokked, steady, verdict):
        found = grokked_less_efficient(evidence(each("c", grokked), each("c", steady)))
        assert found.verdict == verdict
        assert found.seeds == {"grokked": len(grokked), "steady": len(steady)}
        assert found.would_change

    def test_too_few_seeds_still_tell_their_numbers(self):
        found = grokked_less_efficient(evidence(each("c", [3.0]), each("c", [6.0])))
        assert "c is 6 in steady and 3 in grokked" in found.reason
        assert "grokked seeds: 1, steady seeds: 1, and a verdict takes 3" in found.reason
        assert found.would_change == "more seeds: at least 2 grokked and 2 steady"
        assert found.numbers["ratio_steady_to_grokked"] == 2

    def test_other_bases_are_told_and_do_not_decide(self):
        found = grokked_less_efficient(
            evidence(
                [{"c": c, "c_fourier": 300 + c} for c in (3.0, 4.0, 5.0)],
                [{"c": c, "c_fourier": 200 + c} for c in (6.0, 7.0, 8.0)],
            )
        )
        assert found.verdict == "supported"
        assert found.numbers["c_fourier_cliffs_delta"] == -1
        assert found.numbers["c_fourier_ratio"] == pytest.approx(207 / 304)
        assert "c_singular_ratio" not in found.numbers

    def test_a_run_without_the_measure_is_no_seed(self):
        grokked = [{"c": 3.0}, {}, {"c": math.nan}]
        found = grokked_less_efficient(evidence(grokked, each("c", range(10, 40))))
        assert found.numbers["p_steady_above"] < 0.05
        assert found.seeds == {"grokked": 1, "steady": 30}
        assert found.verdict == "undetermined"

    def test_infinite_c_is_the_largest(self):
        steady = each("c", (math.inf, math.inf, 8.0))
        found = grokked_less_efficient(evidence(each("c", (3.0, 4.0, 5.0)), steady))
        assert (found.verdict, found.seeds["steady"]) == ("supported", 3)

    def test_runs_of_one_seed_are_one_seed(self):
        grokked = each("c", (3.0, 4.0, 5.0), seed="seed 0")
        found = grokked_less_efficient(evidence(grokked, each("c", (6.0, 7.0, 8.0))))
        assert found.seeds == {"grokked": 1, "steady": 3}
        assert found.verdict == "undetermined"


class TestFeatures:
    @pytest.mark.parametrize(
        ("grokked", "steady", "verdict"),
        [
            ((0.50, 0.52, 0.54), (0.45, 0.46, 0.47), "supported"),  # rise 0.4, gaps to 0.09
            ((0.50, 0.52, 0.54), (0.20, 0.21, 0.22), "contradicted"),
            ((0.50, 0.52, 0.54), (0.45, 0.46, 0.22), "undetermined"),
            ((0.50, 0.52), (0.45, 0.46, 0.47), "undetermined"),
        ],
    )
    def test_localisation(self, grokked, steady, verdict):
        start = {"ipr_input": 0.09}
        found = same_features(
            evidence(
                each("ipr_input", grokked, start=start), each("ipr_input", steady, start=start)
            )
        )
        assert found.verdict == verdict

    def test_the_gap_is_relative_to_the_larger_change_of_training(self):
        runs = each("ipr_input", (0.5, 0.5, 0.5), start={"ipr_input": 0.1})
        found = same_features(
            evidence(runs, each("ipr_input", (0.4, 0.3, 0.4), start={"ipr_input": 0.1}))
        )
        assert found.numbers["ipr_input_smallest_gap"] == pytest.approx(0.1 / 0.4)
        assert found.numbers["ipr_input_largest_gap"] == pytest.approx(0.2 / 0.4)
        assert found.verdict == "undetermined"

    def test_what_training_did_not_change_is_no_feature(self):
        start = {"ipr_input": 0.5}
        found = same_features(
            evidence(
                each("ipr_input", (0.50002, 0.50003, 0.50004), start=start),
                each("ipr_input", (0.5, 0.5, 0.5), start=start),
            )
        )
        assert (found.verdict, "training changed none" in found.reason) == ("undetermined", True)

    def test_a_feature_that_rises_in_one_regime_and_falls_in_the_other(self):
        start = {"ipr_input": 0.02, "ipr_output": 0.4}
        found = same_features(
            evidence(
                [{"ipr_input": 0.5, "ipr_output": 0.7, "start": start}] * 3,
                [{"ipr_input": 0.5, "ipr_output": 0.05, "start": start}] * 3,
            )
        )
        assert found.verdict == "contradicted"
        assert found.reason.startswith("ipr_output differs most")

    def test_the_reason_names_the_feature_that_decides(self):
        start = {"ipr_input": 0.0, "ipr_output": 0.0}
        inputs, outputs = (0.5, 0.5, 0.0), (0.65, 0.65, 0.65)
        found = same_features(
            evidence(
                [{"ipr_input": 0.5, "ipr_output": 1.0, "start": start}] * 3,
                [
                    {"ipr_input": x, "ipr_output": y, "start": start}
                    for x, y in zip(inputs, outputs, strict=True)
                ],
            )
        )
        assert found.verdict == "contradicted"
        assert found.reason.startswith("ipr_output differs most, by 35%")

    def test_the_reason_names_the_feature_with_the_largest_gap(self):
        start = {"ipr_input": 0.0, "ipr_output": 0.0}
        grokked = [{"ipr_input": 1.0, "ipr_output": 1.0, "start": start}] * 3
        steady = [{"ipr_input": 0.9, "ipr_output": y, "start": start} for y in (1.0, 1.0, 0.8)]
        found = same_features(evidence(grokked, steady))
        assert found.verdict == "supported"
        assert found.reason.startswith("ipr_output differs most, by 0% to 20%")

    def test_runs_without_the_feature_are_no_seeds(self):
        start = {"ipr_input": 0.0}
        one = [{"ipr_input": 0.5, "start": start}, {}, {}]
        found = same_features(evidence(one, one))
        assert found.verdict == "undetermined"
        assert found.seeds == {"grokked": 1, "steady": 1}

    def ising(self, observables, n=3):
        names = ("r_energy", "r_abs_magnetization", "r_magnetization")
        return [dict(zip(names, observables, strict=True)) | {"start": {"r_energy": 0.3}}] * n

    def test_the_order_of_the_observables(self):
        right, wrong = self.ising((0.99, 0.9, 0.1)), self.ising((0.99, 0.9, 0.95))
        assert same_features(evidence(right, right)).verdict == "supported"
        assert same_features(evidence(wrong, wrong)).verdict == "contradicted"
        mixed = same_features(evidence(right, wrong))
        assert mixed.verdict == "undetermined"
        assert "3 of 6 runs" in mixed.reason
        assert mixed.numbers["runs_in_order"] == 3


class TestCompressiveRegime:
    losses = (0.010, 0.011, 0.012, 0.013, 0.014, 0.015, 0.016, 0.017, 0.018)
    settings = ("u", "u", "u", "v", "v", "v", "w", "w", "w")

    def steady(self, compressibilities):
        pairs = zip(self.losses, compressibilities, strict=False)
        return [{"train_loss": loss, "c": c} for loss, c in pairs]

    @pytest.mark.parametrize(
        ("c", "verdict"),
        [
            ((4.0, 4.1, 4.2, 4.3, 4.4, 4.6, 4.6, 4.7, 4.9), "supported"),
            ((4.9, 4.6, 4.4, 4.3, 4.2, 4.1, 4.0, 3.9, 3.8), "contradicted"),
            ((4.0, 4.6, 4.1, 4.5, 4.2, 4.7, 4.3, 4.4, 4.5), "undetermined"),
            # A line within settings, and none over them.
            ((4.0, 5.0, 6.0, 4.0, 5.0, 6.0, 4.0, 5.0, 6.0), "undetermined"),
        ],
    )
    def test_verdict(self, c, verdict):
        found = compressive_regime(evidence([], self.steady(c), self.settings))
        assert found.verdict == verdict
        assert found.seeds == {"steady": 9}

    def test_a_line_takes_three_settings(self):
        rising = self.steady((4.0, 4.1, 4.2, 5.3, 5.4, 5.6))
        for few in (evidence([], rising), evidence([], rising, self.settings[:6])):
            found = compressive_regime(few)
            assert found.verdict == "undetermined"
            assert "a line takes 3 of each" in found.reason

    def test_runs_without_a_recipe_are_of_no_known_setting(self):
        stranger = Run.__new__(Run)
        stranger.manifest = SimpleNamespace(recipe=None)
        rising = self.steady((4.0, 4.1, 4.2, 4.3, 4.4, 4.6, 4.6, 4.7, 4.9))
        runs = [run | {"run": stranger} for run in rising]
        found = compressive_regime(evidence([], runs, [str(i) for i in range(9)]))
        assert found.verdict == "undetermined"
        assert found.numbers["steady_settings"] == 0

    def test_what_does_not_vary_has_no_line(self):
        found = compressive_regime(evidence([], self.steady([4.0] * 9), self.settings))
        assert found.verdict == "undetermined"
        assert "does not vary" in found.reason


class TestPeak:
    def runs(self, *pairs):
        return [{"c_peak_over_end": over, "c_peak_over_t_test": when} for over, when in pairs]

    @pytest.mark.parametrize(
        ("grokked", "steady", "verdict"),
        [
            ([(1.5, 2)] * 3, [(1.6, 1)] * 3, "supported"),
            ([(1.0, 9)] * 3, [(1.6, 1)] * 3, "contradicted"),  # grokked runs do not
            ([(1.5, 9)] * 3, [(1.6, 1)] * 3, "contradicted"),  # too late
            ([(1.05, 2)] * 3, [(1.6, 1)] * 3, "contradicted"),  # too low
            ([(1.5, 2), (1.0, 9), (1.5, 2)], [(1.6, 1)] * 3, "undetermined"),
            ([(1.5, 2)] * 2, [(1.6, 1)] * 3, "undetermined"),
        ],
    )
    def test_verdict(self, grokked, steady, verdict):
        found = peak_after_plateau(evidence(self.runs(*grokked), self.runs(*steady)))
        assert found.verdict == verdict

    def test_runs_that_were_not_measured_do_not_count_as_without_a_peak(self):
        found = peak_after_plateau(evidence([*self.runs((1.5, 2), (1.5, 2)), {}], [{}, {}, {}]))
        assert found.verdict == "undetermined"
        assert "2 of 2 grokked" in found.reason


class TestStraightPath:
    def runs(self, *pairs):
        names = ("delay_straightness_coarse", "delay_straightness_limit")
        return [dict(zip(names, pair, strict=True)) for pair in pairs]

    @pytest.mark.parametrize(
        ("grokked", "verdict"),
        [
            ([(0.97, 0.95)] * 3, "supported"),
            ([(0.97, math.nan)] * 3, "undetermined"),  # a bound from above shows nothing straight
            ([(0.5, math.nan)] * 3, "contradicted"),  # but bent it does
            ([(0.8, 0.7)] * 3, "undetermined"),
            ([(0.5, 0.4), (0.97, 0.95), (0.5, 0.4)], "undetermined"),
            ([(0.5, 0.4)] * 2, "undetermined"),
            ([{}] * 3, "undetermined"),
        ],
    )
    def test_verdict(self, grokked, verdict):
        runs = grokked if grokked[0] == {} else self.runs(*grokked)
        found = straight_path(evidence(runs, []))
        assert found.verdict == verdict
        assert found.numbers["runs_bent"] + found.numbers["runs_straight"] <= len(runs)


def test_every_claim_says_everything_even_of_no_runs():
    about_regimes = [each for each in CLAIMS.every() if each.needs == "runs"]
    assert len(about_regimes) == 5
    for decide in about_regimes:
        name, found = decide.name, decide(evidence([], []))
        assert found.verdict == "undetermined"
        assert found.name == decide.name == name
        assert found.needs == "runs"
        assert found.falsifiers
        for said in (found.statement, found.source, found.reason, found.rule, found.would_change):
            assert said


WORDS = {"statement": "c is large", "source": "nowhere", "rule": "supported if c is above 1"}


@pytest.fixture
def registered(monkeypatch):
    CLAIMS.every()  # ours register themselves here, and not in the empty one
    monkeypatch.setattr(registry, "CLAIMS", Registry("claim"))
    return registry.CLAIMS


def large(evidence):
    (c,), _ = evidence.values("c")
    verdict = "supported" if c > 1 else "contradicted"
    return Finding(verdict, f"c is {c:g}", {"c": c}, evidence.seeds("c"), "a larger c" * (c <= 1))


def test_a_function_registers_itself_as_a_claim(registered):
    claim("large", **WORDS, needs="run", falsifiers=["a run with a small c"])(large)
    assert list(registered) == ["large"]
    found = registered["large"](evidence([{"c": 2.0}], []))
    assert isinstance(found, Claim)
    assert (found.verdict, found.would_change) == ("supported", "a run with a small c")
    assert (found.needs, found.falsifiers) == ("run", ("a run with a small c",))
    assert {key: getattr(found, key) for key in WORDS} == WORDS
    assert found.table().to_dict("records") == [{"number": "c", "value": 2.0}]
    assert found.to_dict()["seeds"] == {"grokked": 1, "steady": 0}
    assert "c is 2" in str(found)
    assert registered["large"](evidence([{"c": 1.0}], [])).would_change == "a larger c"


def test_a_name_is_registered_once_and_again_from_the_same_place(registered):
    claim("large", **WORDS)(large)
    claim("large", **WORDS, needs="controls")(large)
    assert registered["large"].needs == "controls"
    with pytest.raises(gi.InputError, match=r"claim 'large' is taken by tests\.test_claims\.large"):
        claim("large", **WORDS)(lambda evidence: None)
    with pytest.raises(gi.InputError, match="needs='rnus' is not known; did you mean 'run"):
        claim("other", **WORDS, needs="rnus")
    for wrong in (3, "two words"):
        with pytest.raises(gi.InputError, match="claim name"):
            claim(wrong, **WORDS)
    with pytest.raises(gi.InputError, match="does not take its arguments"):
        claim("other", **WORDS)(lambda: None)
    with pytest.raises(gi.InputError, match="falsifiers='one' is not a list"):
        claim("other", **WORDS, falsifiers="one")
