import math
import warnings
from importlib.metadata import version

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.fourier import fourier_basis
from grokinterp.progress import MEASURES, measure
from grokinterp.progress import losses as progress_losses
from grokinterp.progress.measures import measure_snapshot
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks import ModularTask
from tests import clock, dense

CONTRACT = [
    "step", "train_loss", "test_loss", "train_acc", "test_acc", "restricted_loss", "excluded_loss",
    "trig_loss", "sum_sq_weights", "gini_embedding", "gini_unembedding",
]  # fmt: skip


@pytest.mark.parametrize(
    "step", [*(pytest.param(x, marks=pytest.mark.slow) for x in (800, 5200)), -1]
)
def test_the_three_losses_equal_the_dense_float64_definitions(step, shipped):
    """Through TransformerLens in float64, explicit directions and p-cubed cubes."""
    keys = gi.key_frequencies(shipped).frequencies
    snapshot = shipped.snapshot(step)
    logits = dense.hooked_logits_float64(
        snapshot.weights, shipped.architecture, shipped.task.tokens
    )
    labels, train = shipped.task.labels, shipped.train_mask
    exponent = shipped.task.operands.sum(1)
    basis = dense.directions(113, keys, exponent)
    fit = dense.trig_fit(logits, 113, keys, exponent)
    centred = logits - logits.mean()
    found = {
        name: getattr(progress_losses, name)(snapshot, keys)
        for name in ("restricted_loss", "excluded_loss", "trig_loss", "trig_variance_explained")
    }
    expected = {
        "restricted_loss": dense.restricted_loss(logits, labels, basis),
        "excluded_loss": dense.excluded_loss(logits, labels, basis, train),
        "trig_loss": dense.cross_entropy(fit, labels),
        "trig_variance_explained": float(
            1 - (centred - fit).square().sum() / centred.square().sum()
        ),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=2e-6), name
    each = progress_losses.excluded_loss_each(snapshot, keys)
    for k in keys:
        one = dense.directions(113, (k,), exponent)
        assert each[k] == pytest.approx(dense.excluded_loss(logits, labels, one, train), rel=2e-6)


def test_the_demo_variants_equal_their_definitions(shipped):
    keys = gi.key_frequencies(shipped).frequencies
    snapshot = shipped.snapshot(5200)
    labels, train = shipped.task.labels, shipped.train_mask
    basis = dense.directions(113, keys, shipped.task.operands.sum(1))
    post = snapshot.mlp_post.double()
    weights = {name: w.double() for name, w in snapshot.weights.items()}
    w_logit = weights["blocks.0.mlp.W_out"] @ weights["unembed.W_U"]
    restricted = (dense.projected(post, basis) + post.mean(0)) @ w_logit
    restricted = restricted - restricted.mean(0) + snapshot.logits.double().mean(0)
    expected = dense.cross_entropy(restricted[~train], labels[~train])
    found = progress_losses.restricted_loss_demo(snapshot, keys)
    assert found == pytest.approx(expected, rel=1e-5)

    mid = snapshot.activation("blocks.0.hook_resid_mid").double()
    rest = post - dense.projected(post, basis)
    excluded = (mid + rest @ weights["blocks.0.mlp.W_out"]) @ weights["unembed.W_U"]
    expected = dense.cross_entropy(excluded[train], labels[train])
    found = progress_losses.excluded_loss_demo(snapshot, keys)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def hand_built():
    p, keys, amplitude = 31, (2, 5, 13), 10.0
    train = torch.rand(p * p, generator=torch.Generator().manual_seed(0)) < 0.3
    snapshot = from_weights(
        clock.clock_weights(p, keys, amplitude),
        clock.clock_architecture(p, 3),
        ModularTask("add", p),
        train_mask=train,
    )
    return snapshot, p, keys, amplitude


def test_clock_weights_have_their_closed_form_losses(hand_built):
    """Restricted and trig logits: amplitude * mean |cos| * sum of cos(w_k(a + b - c))."""
    snapshot, p, keys, amplitude = hand_built
    scale = amplitude * clock.mean_envelope(p)
    wrong = sum(
        math.exp(scale * sum(math.cos(2 * math.pi * k * d / p) - 1 for k in keys))
        for d in range(1, p)
    )
    expected = math.log1p(wrong)
    assert progress_losses.restricted_loss(snapshot, keys) == pytest.approx(expected, rel=1e-4)
    assert progress_losses.trig_loss(snapshot, keys) == pytest.approx(expected, rel=1e-4)
    alpha = progress_losses.trig_coefficients(snapshot, keys)
    assert list(alpha.values()) == pytest.approx([scale] * 3, rel=1e-4)


def test_clock_weights_without_their_frequencies(hand_built):
    """What is left: amplitude * (|cos| - mean |cos|) cos(w_k(a + b - c)), dense, by the formula."""
    snapshot, p, keys, amplitude = hand_built
    a, b = snapshot.task.operands.double().unbind(1)
    c = torch.arange(p).double()
    rest = sum(
        ((math.pi * k * (a - b) / p).cos().abs() - clock.mean_envelope(p))[:, None]
        * amplitude
        * (2 * math.pi * k * ((a + b)[:, None] - c) / p).cos()
        for k in keys
    )
    train = snapshot.train_mask
    expected = dense.cross_entropy(rest[train], snapshot.task.labels[train])
    assert progress_losses.excluded_loss(snapshot, keys) == pytest.approx(expected, rel=2e-3)
    unused = progress_losses.excluded_loss(snapshot, [7])
    intact = dense.cross_entropy(snapshot.logits[train], snapshot.task.labels[train])
    assert unused == pytest.approx(intact, rel=1e-3)


@pytest.mark.parametrize(("operation", "p"), [("multiply", 7), ("add", 6), ("add", 2)])
def test_losses_of_other_groups_equal_the_dense_definitions(operation, p):
    recipe = gi.Recipe(p=p, operation=operation, train_fraction=0.5, init_scale=3.0)
    weights = recipe.architecture().initial(seed=0)
    task = recipe.build_task()
    group = task.answer_group
    keys = tuple(range(1, group.order // 2 + 1))[:2]
    train = torch.arange(task.n_inputs) % 2 == 0
    snapshot = from_weights(weights, recipe.architecture(), task, train_mask=train)
    # Pairs with a zero factor have no exponent: the definitions are over all others.
    rows = (group.of_input >= 0).nonzero().flatten()
    logits, labels = snapshot.logits.double()[rows], task.labels[rows]
    exponent = group.of_input[rows]
    basis = dense.directions(group.order, keys, exponent)
    assert progress_losses.restricted_loss(snapshot, keys) == pytest.approx(
        dense.restricted_loss(logits, labels, basis), rel=1e-9
    )
    assert progress_losses.excluded_loss(snapshot, keys) == pytest.approx(
        dense.excluded_loss(logits, labels, basis, train[rows]), rel=1e-9
    )
    distance = (exponent[:, None] - group.of_token[None, :]).double()
    known = (group.of_token >= 0)[None, :].expand_as(distance)
    cubes = torch.stack(
        [
            torch.where(known, (2 * torch.pi * k * distance / group.order).cos(), 0.0).flatten()
            for k in keys
        ],
        dim=1,
    )
    fit = cubes @ torch.linalg.lstsq(cubes, logits.flatten()[:, None]).solution
    assert progress_losses.trig_loss(snapshot, keys) == pytest.approx(
        dense.cross_entropy(fit.view_as(logits), labels), rel=1e-9
    )
    centred = logits - logits.mean()
    explained = 1 - (centred.flatten() - fit.flatten()).square().sum() / centred.square().sum()
    assert progress_losses.trig_variance_explained(snapshot, keys) == pytest.approx(
        float(explained), rel=1e-6, abs=1e-9
    )


def test_the_table_has_the_contracts_columns_first(shipped, shipped_measures):
    assert list(shipped_measures.columns[: len(CONTRACT)]) == CONTRACT
    assert shipped_measures["step"].tolist() == list(shipped.steps)
    assert shipped_measures.notna().all(axis=None)
    assert tuple(shipped_measures.attrs["frequencies"]) == gi.key_frequencies(shipped).frequencies
    logged = shipped.metrics.set_index("step").loc[list(shipped.steps)]
    assert shipped_measures["test_loss"].tolist() == pytest.approx(
        logged["test_loss"].tolist(), rel=1e-4
    )


def test_the_shipped_run_tells_the_published_story(shipped_measures):
    table = shipped_measures.set_index("step")
    last = table.iloc[-1]
    assert last["train_acc"] == last["test_acc"] == 1.0
    assert last["test_loss"] < 1e-5
    assert last["restricted_loss"] < last["test_loss"]
    assert last["excluded_loss"] > 1
    before = table[(table["test_loss"] >= 1) & (table["train_acc"] >= 0.99)]["excluded_loss"]
    assert before.iloc[-1] >= 100 * before.min()
    assert last["gini_embedding"] > 0.5 > table["gini_embedding"].iloc[0]
    assert last["sum_sq_weights"] < 0.5 * table["sum_sq_weights"].max()


def test_sums_of_squares_add_up(shipped, shipped_measures):
    row = shipped_measures.iloc[-1]
    parts = [c for c in shipped_measures.columns if c.startswith("sum_sq_") and "weights" not in c]
    assert row[parts].sum() == pytest.approx(row["sum_sq_weights"])
    weights = shipped.weights()
    assert row["sum_sq_W_E"] == pytest.approx(float(weights["embed.W_E"].double().square().sum()))
    total = sum(float(w.double().square().sum()) for w in weights.values())
    assert row["sum_sq_weights"] == pytest.approx(total)


def test_mirrored_pairs_leak_by_symmetry(shipped, shipped_measures):
    row = shipped_measures.set_index("step").loc[4000]
    test = ~shipped.train_mask
    share = shipped.task.mirrored(shipped.train_mask).sum() / test.sum()
    assert share.item() == pytest.approx(0.3, abs=0.02)
    expected = share * row["test_loss_mirrored"] + (1 - share) * row["test_loss_unmirrored"]
    assert row["test_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert row["test_acc_mirrored"] > row["test_acc_unmirrored"]


def test_without_key_frequencies_their_measures_are_null(tmp_path, tiny):
    run = gi.train(tiny.replace(operation="random", steps=2), tmp_path / "run")
    table = gi.progress_measures(run)
    assert table[["restricted_loss", "excluded_loss", "trig_loss"]].isna().all(axis=None)
    assert "random" in table.attrs["reason"]
    with pytest.raises(gi.InputError, match="frequency=9 is not a whole number from 1 to 3"):
        gi.progress_measures(gi.train(tiny.replace(steps=0), tmp_path / "b"), frequencies=[9])


def test_one_more_measure_is_one_function(tiny_run):
    @measure("norm_of_embedding")
    def norm_of_embedding(snapshot):
        return float(snapshot.weights["embed.W_E"].norm())

    try:
        row = measure_snapshot(tiny_run.snapshot(), [1])
        assert row["norm_of_embedding"] == float(tiny_run.weights()["embed.W_E"].norm())
    finally:
        del MEASURES["norm_of_embedding"]


@pytest.fixture
def mine():
    """The decorator of a measure "mine", which is forgotten afterwards."""
    yield measure("mine", prefix="mine_")
    MEASURES.pop("mine", None)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda snapshot: "much", "gives 'much' at step 60"),
        (lambda snapshot: None, "gives None"),
        (lambda snapshot: torch.ones(2), r"gives a Tensor of shape \(2,\)"),
        (lambda snapshot: {"a": [1]}, r"gives \[1\]"),
        (lambda snapshot: {}["a"], r"raised KeyError at step 60 \(\"'a'\"\)"),
    ],
)
def test_a_measure_that_fails_or_gives_no_number_is_named(tiny_run, mine, function, told):
    mine(function)
    with pytest.raises(gi.InputError, match=f"measure 'mine' {told}"):
        measure_snapshot(tiny_run.snapshot(), [1])


def test_numbers_of_a_measure_are_floats(tiny_run, mine):
    mine(lambda snapshot: {"a": np.float32(0.5), "b": torch.tensor(2), "c": True})
    row = measure_snapshot(tiny_run.snapshot(), [1])
    assert [row[f"mine_{x}"] for x in "abc"] == [0.5, 2.0, 1.0]
    assert {type(x) for x in row.values()} == {float}


def test_names_and_columns_of_measures_are_taken_once(tiny_run, mine):
    mine(lambda snapshot: {"a": 0})
    measure("mine", prefix="mine_")(lambda snapshot: {"a": 1})  # the cell again: its own
    with pytest.raises(gi.InputError, match="'train_loss' is taken"):
        measure("train_loss")(lambda snapshot: 0.0)
    for name in ("step", "test_acc_unmirrored"):
        with pytest.raises(gi.InputError, match=f"'{name}' is a column of every table"):
            measure(name)
    measure("mine", prefix="")(lambda snapshot: {"test_loss_mirrored": 0.0})
    with pytest.raises(gi.InputError, match="'test_loss_mirrored', which measure 'mirrored_pairs'"):
        measure_snapshot(tiny_run.snapshot(), [1])


def test_a_measure_that_is_not_default_is_taken_where_it_is_asked_for(tiny_run):
    measure("mine", default=False)(lambda snapshot: 2.0)
    try:
        usual = measure_snapshot(tiny_run.snapshot(), [1])
        assert "mine" not in usual
        row = measure_snapshot(tiny_run.snapshot(), [1], measures=["mine"])
        assert (list(row), row["mine"]) == ([*usual, "mine"], 2.0)
        assert (gi.progress_measures(tiny_run, measures=["mine"])["mine"] == 2.0).all()
        with pytest.raises(gi.InputError, match="did you mean 'mine'"):
            gi.progress_measures(tiny_run, measures=["mien"])
        with pytest.raises(gi.InputError, match="asked for twice"):
            gi.progress_measures(tiny_run, measures=["mine", "mine"])
    finally:
        del MEASURES["mine"]


def test_measures_of_runs_are_no_columns_of_checkpoints(tiny_run):
    with pytest.raises(gi.InputError, match="'sizes' is no measure of a snapshot"):
        gi.progress_measures(tiny_run, measures=["sizes"])
    with pytest.raises(gi.InputError, match=r"'sizes' is taken by grokinterp\.encodings"):
        measure("sizes")(lambda snapshot: 1.0)
    for wrong in ({"default": True}, {"needs_frequencies": True}):
        with pytest.raises(gi.InputError, match="leave it out for a run"):
            measure("mine", scope="run", **wrong)


def test_margins(tiny_run):
    snapshot = tiny_run.snapshot()
    row = measure_snapshot(snapshot, [1])
    right = snapshot.logits[torch.arange(49), snapshot.task.labels]
    others = torch.tensor(
        [
            max(x for c, x in enumerate(line) if c != label)
            for line, label in zip(
                snapshot.logits.tolist(), snapshot.task.labels.tolist(), strict=True
            )
        ]
    )
    assert row["logit_margin_mean"] == pytest.approx(float((right - others).mean()), rel=1e-5)
    expected = np.quantile((right - others).double().numpy(), 0.01)
    assert row["logit_margin_q01"] == pytest.approx(expected, rel=1e-5)


def test_gini_is_of_the_norms_of_each_frequency(tiny_run):
    weights = {name: w.double() for name, w in tiny_run.weights().items()}
    basis = fourier_basis(7)
    row = measure_snapshot(tiny_run.snapshot(), [1])
    for name, matrix in (
        ("gini_embedding", weights["embed.W_E"][:7]),
        ("gini_unembedding", weights["unembed.W_U"].T),
        ("gini_neuron_logit", (weights["blocks.0.mlp.W_out"] @ weights["unembed.W_U"]).T),
    ):
        rows = basis @ matrix
        norms = [float(rows[2 * k - 1 : 2 * k + 1].norm()) for k in (1, 2, 3)]
        differences = sum(abs(x - y) for x in norms for y in norms)
        assert row[name] == pytest.approx(differences / (2 * 3 * sum(norms)), rel=1e-6)


@pytest.mark.skipif(version("transformer-lens") >= "4", reason="builds the class of 3.x")
def test_what_a_model_lacks_is_null(tiny_run):
    """A LayerNorm makes the demo's linear read-out untrue; without an MLP there is none."""
    from transformer_lens import HookedTransformer

    config = {
        "n_layers": 1, "n_heads": 2, "d_model": 16, "d_head": 8, "d_mlp": 32, "act_fn": "relu",
        "d_vocab": 8, "d_vocab_out": 7, "n_ctx": 3, "device": "cpu", "seed": 0,
    }  # fmt: skip
    for extra, null in (
        ({"normalization_type": "LN"}, ["restricted_loss_demo", "excluded_loss_demo"]),
        (
            {"normalization_type": None, "attn_only": True},
            [
                "gini_neuron_logit",
                "restricted_loss_demo",
                "excluded_loss_demo",
                "ipr_input",
                "ipr_output",
            ],
        ),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = HookedTransformer({**config, **extra})
        seen = gi.snapshot(model, tiny_run.task, train_mask=tiny_run.train_mask)
        with torch.no_grad():
            torch.testing.assert_close(seen.logits, model(tiny_run.task.tokens)[:, -1])
        row = measure_snapshot(seen, [1])
        assert [name for name, value in row.items() if math.isnan(value)] == null
