"""The held-out twin of the restricted loss, and what it does to key frequencies."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

import grokinterp as gi
from grokinterp import circuits
from grokinterp.fourier import heldout_fit
from grokinterp.runs._snapshot import from_weights
from grokinterp.sweeps import measured
from grokinterp.tasks import ModularTask
from grokinterp.viz import plot_embedding_circles
from tests import clock, exact_clock
from tests.memorisers import Case
from tests.tables import memoriser, split, table_snapshot

NO_CIRCUIT = "no circuit that reaches inputs it was not trained on"


def heldout_rows(task, mask):
    """Rows (a, b), exponents and labels of the test pairs that nobody gives away, by hand."""
    p, mirrors = task.p, task.operation in ("add", "multiply")
    logs = {1: 0}
    if task.operation == "multiply":
        g = next(g for g in range(2, p) if len({pow(g, e, p) for e in range(p - 1)}) == p - 1)
        logs = {pow(g, e, p): e for e in range(p - 1)}
    rows, exponents, labels = [], [], []
    for a in range(p):
        for b in range(p):
            if mask[a * p + b] or (mirrors and mask[b * p + a]):
                continue
            if task.operation == "multiply" and 0 in (a, b):
                continue
            rows.append(a * p + b)
            answer = {"add": a + b, "subtract": a - b, "multiply": a * b}[task.operation] % p
            exponents.append(logs[answer] if task.operation == "multiply" else answer)
            labels.append(answer)
    return rows, np.array(exponents), np.array(labels)


def dense(task, mask, logits, frequencies):
    """Loss and accuracy of the dense least-squares fit of those rows."""
    rows, f, labels = heldout_rows(task, mask)
    n = task.p - 1 if task.operation == "multiply" else task.p
    columns = [np.ones(len(f))]
    for k in frequencies:
        columns += [np.cos(2 * np.pi * k * f / n), np.sin(2 * np.pi * k * f / n)]
    design = np.stack(columns, axis=1)
    wanted = logits[rows].double().numpy()
    # Zero columns (sin of 2k = n is 1e-15) would fit rounding: cut what is that small.
    solution = np.linalg.lstsq(design, wanted, rcond=1e-10)[0]
    fit = design @ solution
    losses = -log_softmax(fit, axis=1)[np.arange(len(f)), labels]
    return losses.mean(), (fit.argmax(axis=1) == labels).mean(), len(rows)


@pytest.mark.parametrize("fraction", [0.2, 0.6, 0.93])  # at .93 some answers have no row
@pytest.mark.parametrize(
    ("operation", "p"), [("add", 11), ("add", 12), ("subtract", 9), ("multiply", 13)]
)
def test_the_tally_is_the_dense_fit(operation, p, fraction):
    task = ModularTask(operation, p)
    mask = split(task, fraction)
    stream = torch.Generator().manual_seed(p)
    logits = 2 * torch.randn(task.n_inputs, p, generator=stream)
    snapshot = table_snapshot(task, logits, mask)
    highest = (p - 1 if operation == "multiply" else p) // 2
    for keys in ((1,), (highest,), (1, highest), (2, 3, highest), tuple(range(1, highest + 1))):
        found = heldout_fit(snapshot, keys)
        loss, acc, n_rows = dense(task, mask, logits, keys)
        assert found.frequencies == tuple(sorted(set(keys)))
        assert found.n_rows == n_rows > 0
        assert found.loss == pytest.approx(loss, rel=1e-9)
        assert found.acc == pytest.approx(acc, abs=1e-12)
        assert found.uniform_loss == math.log(p)


def test_placebos_are_other_frequencies():
    task = ModularTask("add", 13)
    mask = split(task, 0.5)
    logits = torch.randn(task.n_inputs, 13, generator=torch.Generator().manual_seed(2))

    def fit(keys):
        return heldout_fit(table_snapshot(task, logits, mask), keys)

    for keys in ((3,), (2, 5)):  # so few others that 50 draws meet every set of them
        others = combinations(sorted(set(range(1, 7)) - set(keys)), len(keys))
        losses, accs, _ = zip(*(dense(task, mask, logits, one) for one in others), strict=True)
        found = fit(keys)
        assert found.n_placebos == 50
        assert found.placebo_loss == pytest.approx(min(losses), rel=1e-9)
        assert found.placebo_acc == pytest.approx(max(accs), abs=1e-12)
    # Fewer others than key ones: all of them, once. None: none.
    found = fit((1, 2, 3, 5))
    loss, acc, _ = dense(task, mask, logits, (4, 6))
    assert (found.n_placebos, found.placebo_acc) == (1, pytest.approx(acc, abs=1e-12))
    assert found.placebo_loss == pytest.approx(loss, rel=1e-9)
    assert "one placebo" in found.notes[0]
    found = fit(range(1, 7))
    assert found.n_placebos == 0
    assert math.isnan(found.placebo_loss)
    assert math.isnan(found.placebo_acc)
    assert "no placebo is left" in found.notes[0]


def test_draws_do_not_depend_on_the_session():
    task = ModularTask("add", 31)
    mask = split(task, 0.5)
    logits = torch.randn(task.n_inputs, 31, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = heldout_fit(table_snapshot(task, logits, mask), (1, 2, 3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert heldout_fit(table_snapshot(task, logits, mask), [3, 2, 1]) == first


def test_a_clock_reaches_pairs_it_was_not_trained_on():
    for keys in ((3, 8), (5,)):
        task = ModularTask("add", 31)
        snapshot = from_weights(
            clock.clock_weights(31, keys, 20.0),
            clock.clock_architecture(31, len(keys)),
            task,
            train_mask=split(task, 0.6),
        )
        found = gi.key_frequencies(snapshot)
        assert found.frequencies == keys
        assert (found.reason, found.rejected, found.notes) == (None, (), ())
        assert found.heldout.passes
        assert found.heldout.acc == 1.0
        assert found.heldout.loss < min(found.heldout.uniform_loss, found.heldout.placebo_loss)


@pytest.mark.parametrize("subtract", [False, True])
def test_an_exact_clock_of_an_even_order(subtract):
    p, keys = 24, (1, 5, 12)
    model = exact_clock.ExactClock(p, keys, exact_clock.random_radii(p), subtract=subtract)
    task = ModularTask("subtract" if subtract else "add", p)
    mask = split(task, 0.5)
    found = gi.key_frequencies(model, task=task, train_mask=mask)
    assert found.frequencies == keys
    assert found.heldout.n_rows == len(heldout_rows(task, mask)[0])
    assert found.heldout.rows == ("test pairs" if subtract else "unmirrored test pairs")


def test_one_that_looks_answers_up_has_no_key_frequencies():
    for operation in ("add", "subtract"):
        task = ModularTask(operation, 29)
        mask = split(task, 0.75)
        snapshot = table_snapshot(task, memoriser(task, mask, (2, 7, 11)), mask)
        rows = snapshot.unmirrored_rows
        right = snapshot.logits.argmax(dim=1) == task.labels
        assert bool(right[mask].all())
        assert not bool(right[rows].any())
        found = gi.key_frequencies(snapshot)
        assert found.frequencies == ()
        assert found.rejected == (2, 7, 11)
        assert sum(found.shares[k] for k in (2, 7, 11)) > 0.5
        assert found.reason.startswith(f"{NO_CIRCUIT}: the fit of {int(rows.sum())} ")
        assert f"ln 29 = {math.log(29):.4g}" in found.reason
        assert found.heldout.loss > math.log(29)
        assert not found.heldout.passes
        # The same logits of a model whose split nobody knows, or that was trained on everything.
        for unknown, why in (
            (None, "the split is not known"),
            (torch.ones_like(mask), "all is trained on"),
        ):
            taken = gi.key_frequencies(table_snapshot(task, snapshot.logits, unknown))
            assert taken.frequencies == (2, 7, 11)
            assert taken.heldout is None
            assert taken.notes == (f"memorisation was not ruled out: {why}",)


def test_too_few_rows_prove_nothing():
    task = ModularTask("add", 31)
    weights = clock.clock_weights(31, (3, 8), 20.0)
    mask = torch.ones(task.n_inputs, dtype=torch.bool)
    for n, keys in ((19, ()), (20, (3, 8))):
        mask[torch.arange(0, 32 * n, 32)] = False  # (a, a): their own mirrors
        assert int((~mask).sum()) == n
        architecture = clock.clock_architecture(31, 2)
        snapshot = from_weights(weights, architecture, task, train_mask=mask.clone())
        found = gi.key_frequencies(snapshot)
        assert found.frequencies == keys
        assert found.heldout.n_rows == n
    task_mask = torch.arange(task.n_inputs) >= 32 * 5
    task_mask |= ~torch.eye(31, dtype=torch.bool).flatten()
    snapshot = from_weights(weights, architecture, task, train_mask=task_mask)
    found = gi.key_frequencies(snapshot)
    assert found.rejected == (3, 8)
    assert found.reason.startswith(f"{NO_CIRCUIT} can be shown: there are 5 unmirrored test pairs")
    # What cannot be told is no verdict on the algorithm either: it answers every pair.
    verdict = circuits.algorithm(snapshot)
    assert verdict.verdict == "undetermined"
    assert "can be shown" in verdict.reasons[1]


def test_what_is_not_a_number_does_not_pass():
    task = ModularTask("add", 29)
    mask = split(task, 0.5)
    logits = memoriser(task, torch.ones_like(mask), (2, 7))  # right everywhere
    assert heldout_fit(table_snapshot(task, logits, mask), (2, 7)).passes
    for bad in (math.nan, math.inf):
        broken = logits.clone()
        broken[int((~mask).nonzero()[0]), 3] = bad
        found = heldout_fit(table_snapshot(task, broken, mask), (2, 7))
        assert math.isnan(found.loss)
        assert math.isnan(found.placebo_loss)
        assert "loss nan" in found.why_not
        keys = gi.key_frequencies(table_snapshot(task, broken, mask))
        assert keys.frequencies == ()
        assert "not finite" in keys.reason


def test_the_shipped_run_shows_its_circuit_early(shipped, shipped_measures):
    table = shipped_measures.set_index("step")
    assert shipped_measures.attrs["frequencies"] == [9, 18, 53, 55]
    assert shipped_measures.attrs["note"] is None
    early = {200: 0.032, 800: 0.104, 1200: 0.165, 2000: 0.309, 3000: 0.547, 5200: 1.0}
    for step, acc in early.items():
        assert table.restricted_acc_heldout[step] == pytest.approx(acc, abs=0.005)
    assert table.restricted_loss_heldout[800] == pytest.approx(4.377, abs=0.005)
    assert table.restricted_acc_heldout_placebo[200] < 0.0095
    for step, acc in ((1200, 0.001), (3000, 0.007), (5200, 0.336)):
        assert table.test_acc_unmirrored[step] == pytest.approx(acc, abs=5e-4)
    # Below a uniform answer and its placebos from step 800 on, not before.
    below = table.restricted_loss_heldout < np.minimum(
        table.restricted_loss_heldout_placebo, math.log(113)
    )
    assert below.tolist() == (table.index >= 800).tolist()
    # The columns of earlier releases come first.
    assert table.columns[-4:].tolist() == [
        *("restricted_loss_heldout", "restricted_acc_heldout"),
        *("restricted_loss_heldout_placebo", "restricted_acc_heldout_placebo"),
    ]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """It is right on what it trains on and on the mirrors of that, and along few frequencies."""
    recipe = Case(23, "transformer", 0.75, 0.0, seed=2, wide=True).recipe()
    recipe = recipe.replace(init_scale=0.7, steps=140, checkpoints="every:70")
    return gi.train(recipe, tmp_path_factory.mktemp("mirrored") / "run", progress=False)


def test_mirrors_are_no_circuit(mirrored):
    last = gi.progress_measures(mirrored, frequencies=[1]).iloc[-1]
    assert last.train_acc == 1.0
    assert last.test_acc_mirrored > 0.99
    assert last.test_acc_unmirrored < 0.1
    found = gi.key_frequencies(mirrored)
    assert found.frequencies == ()
    assert len(found.rejected) > 1
    assert found.kept_share == 0
    assert found.threshold_interval is None
    assert sum(found.shares[k] for k in found.rejected) > 0.5
    assert found.emerged == {}
    assert NO_CIRCUIT in found._repr_html_()
    # What the averages over all pairs say of the same frequencies: nothing of the kind.
    given = gi.progress_measures(mirrored, frequencies=found.rejected).iloc[-1]
    assert given.restricted_loss < 0.2 * math.log(23)
    assert given.restricted_loss_heldout == found.heldout.loss > math.log(23)
    assert given.restricted_acc_heldout == found.heldout.acc
    assert given.restricted_loss_heldout_placebo == found.heldout.placebo_loss
    assert given.restricted_acc_heldout_placebo == found.heldout.placebo_acc


@pytest.mark.parametrize("rule", ["embedding", "embedding_demo", "neuron_logit", "neurons"])
def test_no_rule_has_a_circuit_there(mirrored, rule):
    found = gi.key_frequencies(mirrored, rule=rule)
    assert found.frequencies == ()
    assert found.reason
    # What each rule chooses by itself is told all the same.
    assert gi.key_frequencies(mirrored).other_rules[rule] == found.rejected


@pytest.mark.slow
def test_without_a_circuit_everything_says_so(mirrored, tmp_path):
    found = gi.key_frequencies(mirrored)
    reason = found.reason
    table = gi.progress_measures(mirrored)
    assert table.attrs == {"frequencies": [], "reason": reason, "note": None}
    ablation = gi.ablate(mirrored, placebos=0)
    assert ablation.frequencies == ()
    assert any(NO_CIRCUIT in note for note in ablation.notes)
    assert not any("k =" in row.name for row in ablation)
    for look in (
        circuits.faithfulness,
        circuits.circuit_graph,
        circuits.isolate_circles,
        circuits.logit_forms,
        plot_embedding_circles,
    ):
        with pytest.raises(gi.InputError, match=NO_CIRCUIT) as refused:
            look(mirrored)
        assert "frequencies=" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert look(mirrored, frequencies=[3]) is not None  # those given are taken as they are
    verdict = circuits.algorithm(mirrored)
    assert verdict.verdict == "neither"
    assert NO_CIRCUIT in verdict.reasons[1]
    paper = circuits.paper_table(mirrored)
    assert paper["key frequencies"].value == 0
    assert paper["key frequencies"].note == reason
    assert NO_CIRCUIT in circuits.neuron_clusters(mirrored).notes[0]
    assert NO_CIRCUIT in circuits.polynomial_fits(mirrored).clusters.notes[0]
    assert NO_CIRCUIT in circuits.neuron_logit_directions(mirrored).notes[0]
    row = measured(mirrored)
    assert row["key_frequencies"] == ()
    assert reason in row["note"]
    title = found.plot().layout.title.text
    assert title.endswith(f"none ({NO_CIRCUIT})")
    text = gi.report(mirrored, tmp_path / "report.html").read_text()
    assert f"{NO_CIRCUIT[1:]}: the fit of" in text
    assert "The claimed circuit alone (" not in text
    assert f"Key frequencies: {found.rejected[0]}" not in text


@pytest.mark.slow
def test_memorisers_have_no_key_frequencies(tmp_path):
    for case in (
        Case(13, "transformer", 0.4, 0.0, seed=0),
        Case(17, "mlp", 0.5, 1.0, seed=1),
        Case(19, "transformer", 0.3, 1.0, seed=2, operation="subtract"),
    ):
        recipe = case.recipe().replace(steps=200, checkpoints="every:100")
        run = gi.train(recipe, tmp_path / case.name, progress=False)
        assert run.metrics.iloc[-1].train_acc == 1.0
        assert gi.key_frequencies(run).frequencies == ()
        table = gi.progress_measures(run)
        assert table.attrs["frequencies"] == []
        assert table.attrs["reason"]
        assert table[["restricted_loss", "restricted_acc_heldout"]].isna().all(axis=None)
