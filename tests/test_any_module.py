"""Any torch.nn.Module: looked at, recorded, ablated by the names of its sub-modules, left alone."""

import copy

import pytest
import torch
from torch import nn

import grokinterp as gi
from grokinterp import circuits
from grokinterp.circuits import hooks
from grokinterp.geometry import fisher_diagonal
from grokinterp.models import GivenModule, ModuleArchitecture
from grokinterp.models.hooked_module import LOGITS, HookedModule

P = 23
TASK = gi.ModularTask("add", P, equals_token=False)
MASK = torch.zeros(P * P, dtype=torch.bool)
MASK[torch.randperm(P * P, generator=torch.Generator().manual_seed(0))[:400]] = True


class Net(nn.Module):
    """Two-hot, one hidden layer of ReLU neurons."""

    def __init__(self, width=96):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(2 * P, width), nn.ReLU(), nn.Linear(width, P)

    def forward(self, pairs):
        two_hot = nn.functional.one_hot(pairs, P).flatten(1).to(self.fc1.weight.dtype)
        return self.fc2(self.act(self.fc1(two_hot)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A module that groks in a loop of this test's own, and the run of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = Net()
    recorder = gi.Recorder(tmp_path_factory.mktemp("module") / "run", task=TASK, train_mask=MASK)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.5, betas=(0.9, 0.98))
    pairs, labels = TASK.model_inputs[MASK], TASK.labels[MASK]
    for step in range(3001):
        if step % 500 == 0:
            recorder.save(step, net)
        elif step % 20 == 0:
            recorder.log(step, net)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(pairs), labels).backward()
        if step < 3000:
            optimizer.step()
    torch.set_num_threads(before)
    return net, recorder.close()


def untouched(net, before, mode):
    """Whether weights, hooks and modes are what they were."""
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    assert [part.training for part in net.modules()] == mode


@pytest.fixture
def net(trained):
    module = trained[0]
    module.train()
    module.act.eval()
    before = copy.deepcopy(module.state_dict())
    mode = [part.training for part in module.modules()]
    yield module
    untouched(module, before, mode)


def test_logits_and_activations_by_name(net):
    seen = gi.snapshot(net, TASK, train_mask=MASK)
    with torch.no_grad():
        hidden = net.fc1(nn.functional.one_hot(TASK.operands, P).flatten(1).float())
        assert torch.allclose(seen.logits, net(TASK.operands), atol=1e-5)
    assert torch.allclose(seen.activation("fc1"), hidden, atol=1e-5)
    assert torch.equal(seen.activation("act"), seen.activation("fc1").relu())
    assert torch.equal(seen.activation(LOGITS), seen.all_logits)
    assert (seen.kind, seen.positions) == ("module", False)
    with pytest.raises(gi.InputError, match="no activation 'fc3'"):
        seen.activation("fc3")
    with pytest.raises(gi.InputError, match=r"have names of its own.*such as layer='fc1'"):
        seen.mlp_post  # noqa: B018


def test_phases_and_frequencies_through_a_recorder(trained):
    net, run = trained
    phases = gi.detect_phases(run)
    assert phases.label == "grokked"
    assert phases.memorization_step < phases.grok_step
    measures = gi.progress_measures(run)
    last = measures.iloc[-1]
    state = {name: x.double().square().sum().item() for name, x in net.state_dict().items()}
    assert last.sum_sq_fc1_weight == pytest.approx(state["fc1.weight"])
    assert last.sum_sq_biases == pytest.approx(state["fc1.bias"] + state["fc2.bias"])
    shares = gi.key_frequencies(net, task=TASK, train_mask=MASK).shares
    assert shares == pytest.approx(gi.key_frequencies(run).shares)
    # Of the definition: variance of the centred logits along cos and sin of w_k (a + b).
    with torch.no_grad():
        logits = net(TASK.operands).double()
    centred = logits - logits.mean(dim=0) - logits.mean(dim=1, keepdim=True) + logits.mean()
    angle = 2 * torch.pi * 5 * TASK.operands.sum(dim=1).double() / P
    waves = torch.stack([angle.cos(), angle.sin()]) * (2 / P**2) ** 0.5
    share = (waves @ centred).square().sum() / centred.square().sum()
    assert shares[5] == pytest.approx(float(share), rel=1e-4)


def test_a_layer_and_a_cluster_are_ablated_as_a_mask_by_hand(net):
    clusters = circuits.neuron_clusters(net, task=TASK, layer="act", threshold=0.7)
    assert clusters.layer == "act"
    cluster = max(clusters.frequencies, key=lambda k: clusters.sizes[k])
    members = clusters.members(cluster)
    assert 1 < len(members) < 90
    chosen = [
        hooks.neurons("act", range(96), name="the layer"),
        hooks.neurons("act", members.tolist(), name="the cluster"),
        hooks.neurons("act", members.tolist(), mode="zero", name="zeroed"),
    ]
    found = gi.ablate(net, chosen, task=TASK, train_mask=MASK, placebos=5)
    with torch.no_grad():
        hidden = net.act(net.fc1(nn.functional.one_hot(TASK.operands, P).flatten(1).float()))
        for name, rows, fill in (
            ("the layer (mean)", torch.arange(96), hidden.mean(dim=0)),
            ("the cluster (mean)", members, hidden.mean(dim=0)),
            ("zeroed (zero)", members, torch.zeros(96)),
        ):
            masked = hidden.clone()
            masked[:, rows] = fill[rows]
            loss = nn.functional.cross_entropy(net.fc2(masked).double(), TASK.labels)
            assert found[name].score.loss_all == pytest.approx(float(loss), rel=1e-6)
    assert len(found["the cluster (mean)"].placebos) == 5
    assert found["the layer (mean)"].no_placebo == "there is no other part of its size"
    standard = gi.ablate(net, task=TASK, train_mask=MASK, placebos=1)
    assert {"hidden layer fc1 (mean)", "hidden layer act (mean)"} <= {r.name for r in standard}


def test_hooks_of_ones_own_at_named_sub_modules(net):
    found = gi.ablate(net, [[("act", lambda x, hook: 0 * x)]], task=TASK, frequencies=[])
    bias = net.fc2.bias.detach().double().expand(P * P, -1)
    loss = nn.functional.cross_entropy(bias, TASK.labels)
    assert found["custom"].score.loss_all == pytest.approx(float(loss), rel=1e-6)
    with pytest.raises(gi.InputError, match="no hook point 'fc9'"):
        gi.ablate(net, [[("fc9", lambda x, hook: x)]], task=TASK, frequencies=[])
    with pytest.raises(RuntimeError, match="mine"):
        gi.ablate(net, [[("act", fail)]], task=TASK, frequencies=[])


def fail(x, hook):
    raise RuntimeError("mine")


def test_attribution_of_a_last_linear_layer(net):
    clusters = circuits.neuron_clusters(net, task=TASK, layer="act", threshold=0.7)
    chosen = {k: clusters.members(k) for k in clusters.frequencies}
    found = circuits.attribution(net, task=TASK, clusters=chosen, frequencies=[])
    assert found.parts[-1] == "unembedding bias"
    assert found.most_unexplained == pytest.approx(0, abs=1e-4)
    k = clusters.frequencies[0]
    with torch.no_grad():
        hidden = net.act(
            net.fc1(nn.functional.one_hot(TASK.operands, P).flatten(1).float())
        ).double()
    written = hidden[:, chosen[k]] @ net.fc2.weight.detach().double()[:, chosen[k]].T
    right = written.gather(1, TASK.labels[:, None])[:, 0]
    margin = right - (written.sum(dim=1) - right) / (P - 1)
    part = found.parts.index(f"neurons cluster {k}")
    assert torch.allclose(found.per_input[:, part], margin, atol=1e-5)


class Curved(Net):
    def forward(self, pairs):
        return super().forward(pairs).tanh()


class Tupled(Net):
    def forward(self, pairs):
        return super().forward(pairs), None


class Again(Net):
    def forward(self, pairs):
        return super().forward(pairs) + 0 * self.act(super().forward(pairs)).sum()


class Positions(Net):
    def forward(self, pairs):
        return torch.stack([0 * super().forward(pairs), super().forward(pairs)], dim=1)


class Wrong(Net):
    def forward(self, pairs):
        return super().forward(pairs)[:, :-1]


def test_what_it_cannot_do_is_said_in_one_line():
    with pytest.raises(gi.InputError, match="not the output of a linear layer"):
        circuits.attribution(Curved(), task=TASK, frequencies=[])
    with pytest.raises(gi.InputError, match="returns a tuple, expected logits"):
        gi.snapshot(Tupled(), TASK)
    with pytest.raises(gi.InputError, match="gives 22 classes, and add mod 23 has 23"):
        gi.snapshot(Wrong(), TASK)
    with pytest.raises(gi.InputError, match="cannot read the inputs of add mod 23"):
        gi.snapshot(nn.Linear(5, P), TASK)
    with pytest.raises(gi.InputError, match="called several times in one forward"):
        gi.snapshot(Again(), TASK).activation("act")
    with pytest.raises(gi.InputError, match=r"cannot be computed by torch\.func\.vmap"):
        fisher_diagonal(gi.snapshot(Net(), TASK), rows="all", n_samples=3)


def test_logits_with_positions_are_read_at_the_last():
    net = Positions()
    seen = gi.snapshot(net, TASK)
    with torch.no_grad():
        assert torch.allclose(seen.logits, net(TASK.operands)[:, -1], atol=1e-6)


def test_double_precision_dropout_and_tied_weights():
    net = Net().double()
    net.act = nn.Sequential(nn.ReLU(), nn.Dropout(0.5))
    seen = gi.snapshot(net, TASK)
    assert seen.logits.dtype == torch.float64
    assert torch.equal(seen.logits, gi.snapshot(net, TASK).logits)
    tied = Net()
    tied.twin = nn.Linear(2 * P, 96)
    tied.twin.weight = tied.fc1.weight
    names = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "twin.bias"]
    assert list(gi.snapshot(tied, TASK).weights) == names


class TestRecorder:
    def test_another_process_needs_the_module(self, trained):
        _, run = trained
        there = gi.load(run.path)
        assert isinstance(there.architecture, GivenModule)
        assert there.manifest.architecture.to_dict()["name"] == "Net"
        assert gi.detect_phases(there).label == "grokked"
        assert gi.detect_phases(there).key_frequencies is None
        assert there.weights()["fc1.weight"].shape == (96, 2 * P)
        for ask in (gi.key_frequencies, gi.ablate, lambda x: x.model(), gi.report):
            with pytest.raises(gi.InputError, match=r"give the module: gi\.load\(path, module=Net"):
                ask(there, run.path / "x.html") if ask is gi.report else ask(there)
        whole = gi.load(run.path, module=Net())
        assert torch.equal(whole.snapshot().logits, run.snapshot().logits)
        with pytest.raises(gi.InputError, match="has shape"):
            gi.load(run.path, module=Net(width=7))
        with pytest.raises(gi.InputError, match=r"no torch\.nn\.Module"):
            gi.load(run.path, module="Net")
        with pytest.raises(
            gi.InputError, match=r"format='demo' is of checkpoints of others, and .* is a run"
        ):
            gi.load(run.path, module=Net(), format="demo")

    def test_a_run_of_another_kind_takes_no_module(self, tmp_path):
        gi.train(gi.Recipe(model="mlp", p=5, d_mlp=4, steps=1), tmp_path / "run")
        with pytest.raises(gi.InputError, match="builds its models itself"):
            gi.load(tmp_path / "run", module=Net())

    def test_a_module_with_hooks_of_its_own_cannot_be_recorded(self, tmp_path):
        model = HookedModule(Net())
        model.add_perma_hook("act", lambda x, hook: 2 * x)
        doubled = gi.snapshot(model, TASK)
        plain = gi.snapshot(model.module, TASK)
        bias = model.module.fc2.bias.detach()
        assert torch.allclose(doubled.logits - bias, 2 * (plain.logits - bias), atol=1e-5)
        with pytest.raises(gi.InputError, match="only plain ones are recorded"):
            gi.Recorder(tmp_path, task=TASK).save(0, model)

    def test_it_goes_on_where_it_was(self, tmp_path):
        with gi.Recorder(tmp_path / "run", task=TASK, train_mask=MASK) as recorder:
            recorder.save(0, Net())
        recorder = gi.Recorder(tmp_path / "run", task=TASK, train_mask=MASK, resume=True)
        recorder.save(1, Net())
        assert recorder.close().steps == (0, 1)
        with pytest.raises(gi.InputError, match="another architecture"):
            gi.Recorder(tmp_path / "run", task=TASK, train_mask=MASK, resume=True).save(2, Net(5))


def test_the_report_of_a_module(trained, tmp_path):
    text = gi.report(trained[1], tmp_path / "report.html").read_text()
    assert "grokked: it fitted its training data first" in text


class TestArchitecture:
    def test_what_acts_only_in_training_is_refused(self):
        from dataclasses import dataclass

        @gi.register.model("dropping")
        @dataclass(frozen=True, kw_only=True)
        class Dropping(ModuleArchitecture):
            rate: float = 0.5

            def module(self, task):
                return nn.Sequential(Net(8), nn.Dropout(self.rate))

        try:
            with pytest.raises(gi.InputError, match="is a Dropout, which acts only in training"):
                gi.Recipe(p=P, equals_token=False, model="dropping")
        finally:
            from grokinterp.models import MODELS

            del MODELS["dropping"]

    def test_its_forward_is_that_of_the_module_and_leaves_no_trace(self, net):
        architecture = GivenModule.of_module(net)
        weights = {name: x.detach() for name, x in net.named_parameters()}
        cache = {}
        logits = architecture.forward(weights, TASK.model_inputs, cache)
        assert torch.allclose(logits, net(TASK.operands), atol=1e-6)
        assert {"fc1", "act", "fc2", LOGITS} <= set(cache)
