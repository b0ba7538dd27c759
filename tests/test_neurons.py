import copy
import math

import pytest
import torch

from grokinterp.base.errors import InputError
from grokinterp.circuits.neurons import neuron_clusters
from grokinterp.fourier import fourier_basis, neuron_frequency_fractions
from grokinterp.fourier.spectra import neuron_powers
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.runs._snapshot import Snapshot, from_weights
from grokinterp.tasks import ModularTask
from tests import clock

# Of ReLU(cos x + cos y) over the torus: variance 1/2 - 16/pi^4, of which the linear terms hold 1/4,
# cos x cos y and sin x sin y together 64/(9 pi^4), cos 2x and cos 2y together 64/(81 pi^4).
VARIANCE = 1 / 2 - 16 / math.pi**4
LINEAR = 1 / 4 / VARIANCE
PRODUCTS = 64 / (9 * math.pi**4) / VARIANCE
SQUARES = 64 / (81 * math.pi**4) / VARIANCE


def hand_built(p=61, frequencies=(3, 8, 21), weights=None):
    weights = weights or clock.clock_weights(p, frequencies, amplitude=20.0)
    architecture = clock.clock_architecture(p, len(frequencies))
    return from_weights(weights, architecture, ModularTask("add", p))


def of_activations(post, task, n_layers=1):
    """A snapshot whose neurons, in every layer given, are these; its logits are the answer's."""
    one_hot = torch.nn.functional.one_hot(task.labels, task.p).double()

    def forward(tokens, names):
        rows = tokens[:, 0] * task.p + tokens[:, 1]
        return 10 * one_hot[rows], {name: post[int(name.split(".")[1])][rows] for name in names}

    return Snapshot(task, weights={}, n_layers=n_layers, forward=forward, hooked=forward)


def random_model(n_layers=2, p=7, operation="add", seed=0, **sizes):
    sizes = {"n_heads": 2, "d_model": 12, "d_head": 6, "d_mlp": 20} | sizes
    architecture = TransformerArchitecture(
        n_layers=n_layers, d_vocab=p + 1, d_vocab_out=p, n_ctx=3, **sizes
    )  # fmt: skip
    weights = architecture.initial(seed=seed, scale=3.0)
    weights = {name: weight.double() for name, weight in weights.items()}
    return weights, architecture, ModularTask(operation, p)


def dense_fractions(post, task):
    """By explicit orthonormal functions of (a, b), one pair of basis rows at a time."""
    order = task.answer_group.tokens if task.answer_group else torch.arange(task.p)
    n = len(order)
    rows = [int(a * task.p + b) for a in order for b in order]
    values = post.double()[rows]
    values = values - values.mean(0)
    basis, frequency = fourier_basis(n), [(i + 1) // 2 for i in range(n)]
    own = torch.zeros(post.shape[1], n // 2 + 1).double()
    both = torch.zeros(post.shape[1], n // 2 + 1).double()
    for i in range(n):
        for j in range(n):
            square = (torch.outer(basis[i], basis[j]).flatten() @ values).square()
            ks = {frequency[i], frequency[j]} - {0}
            if len(ks) == 1:
                own[:, ks.pop()] += square
                if i and j:
                    both[:, frequency[i]] += square
    total = values.square().sum(0)
    return own[:, 1:] / total[:, None], both[:, 1:] / total[:, None], total


@pytest.mark.parametrize(
    ("operation", "p"),
    [("add", 7), ("add", 8), ("add", 2), ("subtract", 6), ("multiply", 7), ("multiply", 11),
     ("multiply", 6), ("x2xyy2", 5)],
)  # fmt: skip
def test_fractions_equal_the_dense_definition(operation, p):
    task = ModularTask(operation, p)
    post = torch.randn(p * p, 40, generator=torch.Generator().manual_seed(p)).double().relu()
    own, both, total = dense_fractions(post, task)
    found = neuron_clusters(of_activations([post], task), threshold=0.3)
    live = total > 0
    best = own.argmax(1)
    assert torch.equal(found.leading[live], best[live] + 1)
    torch.testing.assert_close(found.fraction[live], own.max(1).values[live])
    quadratic = both.gather(1, best[:, None]).flatten()
    torch.testing.assert_close(found.quadratic_fraction[live], quadratic[live])
    torch.testing.assert_close(found.variance_shares, total / total.sum())
    clustered = own.max(1).values >= 0.3
    assert torch.equal(found.cluster != -1, clustered)
    expected = float(total[clustered].sum() / total.sum())
    assert found.variance_share == pytest.approx(expected)


def test_clock_weights_have_their_clusters_and_closed_form_fractions():
    found = neuron_clusters(hand_built())
    assert found.sizes == {3: 64, 8: 64, 21: 64, -1: 0}
    assert found.frequencies == found.key_frequencies == (3, 8, 21)
    assert found.members(8).tolist() == list(range(64, 128))
    assert found.members(4).tolist() == []
    assert found.fraction.numpy() == pytest.approx(LINEAR + PRODUCTS, abs=2e-3)
    assert float(found.fraction.mean()) == pytest.approx(LINEAR + PRODUCTS, abs=2e-4)
    assert float(found.quadratic_fraction.mean()) == pytest.approx(PRODUCTS, abs=2e-4)
    assert found.variance_share == pytest.approx(1.0)
    assert found.dead == ()
    assert found.notes == ()


def test_a_neuron_at_the_threshold_is_in_its_cluster():
    snapshot = hand_built()
    fraction = neuron_clusters(snapshot).fraction
    lowest = float(fraction.min())
    at_it = int((fraction <= lowest).sum())
    assert neuron_clusters(snapshot, threshold=lowest).sizes[-1] == 0
    above = neuron_clusters(snapshot, threshold=math.nextafter(lowest, 1))
    assert above.sizes[-1] == at_it
    assert neuron_clusters(snapshot, threshold=1).frequencies == ()


def test_dead_and_constant_neurons_are_named_and_belong_nowhere():
    weights = clock.clock_weights(61, (3, 8, 21), amplitude=20.0)
    weights["blocks.0.mlp.W_in"][:, :2] = 0
    weights["blocks.0.mlp.b_in"][0] = 0.1  # always on, never varying
    weights["blocks.0.mlp.b_in"][1] = -1.0
    found = neuron_clusters(hand_built(weights=weights))
    assert found.dead == (0, 1)
    assert found.sizes == {3: 62, 8: 64, 21: 64, -1: 2}
    assert found.leading[:2].tolist() == [0, 0]
    assert found.fraction[:2].isnan().all()
    assert found.variance_shares[:2].tolist() == [0, 0]
    table = found.table()
    assert table["dead"].tolist() == [True] * 2 + [False] * 190
    leftover = found.summary().iloc[-1]
    assert (leftover["cluster"], leftover["neurons"]) == (-1, 2)
    assert math.isnan(leftover["fraction"])


def test_a_network_of_dead_neurons_says_so():
    weights = clock.clock_weights(61, (3, 8, 21), amplitude=20.0)
    weights["blocks.0.mlp.b_in"] -= 10
    found = neuron_clusters(hand_built(weights=weights))
    assert found.sizes == {-1: 192}
    assert found.variance_share == 0
    assert any("every neuron is dead" in note for note in found.notes)
    assert any("no frequency is key" in note for note in found.notes)


def test_clusters_of_other_frequencies_are_not_key():
    found = neuron_clusters(hand_built(), frequencies=[21, 5])
    assert found.key_frequencies == (5, 21)
    assert found.frequencies == (3, 8, 21)
    summary = found.summary()
    assert dict(zip(summary["cluster"], summary["key"], strict=True)) == {
        3: False, 8: False, 21: True, -1: False,
    }  # fmt: skip
    assert found.table()["key"].sum() == 64
    assert "none were given" in neuron_clusters(hand_built(), frequencies=[]).notes[0]


def test_tables_carry_what_they_rest_on():
    found = neuron_clusters(hand_built(), threshold=0.9)
    for frame in (found.table(), found.summary()):
        assert frame.attrs["threshold"] == 0.9
        assert frame.attrs["key_frequencies"] == [3, 8, 21]
        assert frame.attrs["layer"] == 0
        assert frame.attrs["step"] is None
    summary = found.summary()
    assert summary["neurons"].sum() == len(found.table()) == 192
    assert summary["variance_share"].sum() == pytest.approx(1)
    assert summary.attrs["variance_share"] == found.variance_share
    by_cluster = found.table().groupby("cluster")["fraction"].mean()
    assert summary.set_index("cluster")["fraction"][8] == pytest.approx(by_cluster[8])


def test_every_layer_of_a_deep_model():
    weights, architecture, task = random_model(n_layers=2, p=7)
    model = architecture.hooked(weights)
    _, cache = model.run_with_cache(task.tokens)
    snapshot = from_weights(weights, architecture, task)
    seen = [neuron_clusters(model, task=task, layer=layer) for layer in (0, 1)]
    for layer, found in enumerate(seen):
        own, _, _ = dense_fractions(cache[f"blocks.{layer}.mlp.hook_post"][:, -1], task)
        live = found.leading > 0
        torch.testing.assert_close(found.fraction[live], own.max(1).values[live])
        fractions = neuron_frequency_fractions(snapshot, layer=layer)
        torch.testing.assert_close(fractions[live], own[live])
    last = neuron_clusters(model, task=task)
    assert last.layer == 1
    assert torch.equal(last.fraction, seen[1].fraction)
    assert not torch.equal(last.fraction, seen[0].fraction)
    with pytest.raises(InputError, match=r"blocks\.2\.mlp\.hook_post"):
        neuron_clusters(model, task=task, layer=2)


def test_powers_are_computed_once_a_snapshot():
    snapshot = hand_built()
    assert neuron_powers(snapshot) is neuron_powers(snapshot, layer=0)


def test_multiplication_leaves_zero_factors_out():
    task = ModularTask("multiply", 13)
    log = task.answer_group.of_token
    a, b = log[task.operands].unbind(1)
    wave = (2 * torch.pi * 5 * a / 12).cos() * (2 * torch.pi * 5 * b / 12).sin()
    wave[(task.operands == 0).any(1)] = 1000.0  # would swamp everything
    found = neuron_clusters(of_activations([wave[:, None]], task))
    assert found.leading.tolist() == [5]
    assert found.quadratic_fraction.item() == pytest.approx(1)
    assert "zero factor" in " ".join(found.notes)


def test_a_task_without_directions_has_clusters_but_no_key_ones():
    task = ModularTask("x2xyy2", 7)
    wave = (2 * torch.pi * 2 * task.operands[:, 0] / 7).cos()[:, None]
    found = neuron_clusters(of_activations([wave], task))
    assert found.sizes == {2: 1, -1: 0}
    assert found.key_frequencies == ()
    assert "x2xyy2" in found.notes[0]


def test_what_is_undefined_is_refused():
    snapshot = hand_built()
    with pytest.raises(InputError, match=r"threshold=85"):
        neuron_clusters(snapshot, threshold=85)
    with pytest.raises(InputError, match="step=3"):
        neuron_clusters(snapshot, step=3)
    task = ModularTask("multiply", 2)
    with pytest.raises(InputError, match="no frequency above 0"):
        neuron_clusters(of_activations([torch.zeros(4, 3)], task))
    task = ModularTask("add", 5)
    with pytest.raises(InputError, match="not finite"):
        neuron_clusters(of_activations([torch.full((25, 3), torch.inf)], task))


def test_the_users_model_is_left_alone():
    weights, architecture, task = random_model(n_layers=2)
    model = architecture.hooked(weights).train()
    before = copy.deepcopy(model.state_dict())
    hooks = {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    neuron_clusters(model, task=task)
    with pytest.raises(InputError):
        neuron_clusters(model, task=task, layer=9)
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()} == hooks
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_the_shipped_run_is_made_of_its_key_frequencies(shipped):
    found = neuron_clusters(shipped)
    assert set(found.frequencies) == set(found.key_frequencies) == {9, 18, 53, 55}
    assert found.variance_share >= 0.90
    assert sum(found.sizes.values()) == 512
    assert found.step == shipped.steps[-1]
    assert found.summary()["key"].tolist() == [True] * 4 + [False]
    untrained = neuron_clusters(shipped, step=0)
    assert untrained.sizes == {-1: 512}
    assert untrained.key_frequencies == (9, 18, 53, 55)  # of the last step
    assert len(untrained.dead) > 0  # below zero on every input, before training
    table = untrained.table()
    assert (table["fraction"].isna() == table["dead"]).all()
