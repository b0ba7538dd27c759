"""Modules as people write them, and what of them could be taken for something else."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import grokinterp as gi
from grokinterp import circuits
from grokinterp.circuits import hooks
from grokinterp.encodings import pruning_curve, sizes
from grokinterp.fourier import embedding_spectrum
from grokinterp.geometry import fisher_diagonal

P = 7
TASK = gi.ModularTask("add", p=P, equals_token=False)
MASK = torch.arange(P * P) % 2 == 0
GIVEN = {"task": TASK, "train_mask": MASK}


def two_hot(pairs):
    return nn.functional.one_hot(pairs, P).flatten(1).float()


class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.act, self.fc2 = nn.Linear(2 * P, width), nn.ReLU(), nn.Linear(width, P)

    def forward(self, pairs):
        return self.fc2(self.act(self.fc1(two_hot(pairs))))


def ablated(model, *chosen, **given):
    found = gi.ablate(model, list(chosen), frequencies=[], **{**GIVEN, "placebos": 0, **given})
    return next(iter(found)).ratio


class TestActivations:
    def test_they_are_what_a_layer_gave_before_others_worked_in_place(self):
        net, in_place = Net(), Net()
        in_place.act = nn.ReLU(inplace=True)
        ours, theirs = (gi.snapshot(x, TASK).activation("fc1") for x in (net, in_place))
        assert ours.min() < 0
        assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("name", ["enc.linear1", "pos"])
    def test_those_without_a_row_for_every_input_are_refused(self, name):
        net = SequenceFirst()
        with pytest.raises(gi.InputError, match=f"'{name}' of 49 inputs is of shape"):
            gi.snapshot(net, TASK).activation(name)
        with pytest.raises(gi.InputError, match=f"'{name}' of 49 inputs is of shape"):
            ablated(net, hooks.neurons(name, [0]))

    def test_two_heads_are_not_two_positions(self):
        seen = gi.snapshot(Heads(), TASK)
        assert seen.activation("softmax").shape == (P * P, 2, 2, 2)
        assert seen.activation("embed").shape == (P * P, 4)  # at the last position

    def test_they_are_what_the_logits_are_made_of(self):
        logits, cache = gi.snapshot(Net(), TASK).hooked().run_with_cache(TASK.model_inputs)
        (by,) = torch.autograd.grad(logits.sum(), cache["act"])
        assert by.shape == (P * P, 16)

    def test_a_sub_module_may_be_called_logits(self):
        net = nn.Sequential()
        net.add_module("logits", Net())
        seen = gi.snapshot(net, TASK)
        assert torch.equal(seen.activation("logits"), seen.logits)


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.pos = nn.Embedding(P, 8), nn.Embedding(2, 8)
        self.enc = nn.TransformerEncoderLayer(8, 2, 16)
        self.out = nn.Linear(8, P)

    def forward(self, pairs):
        x = self.embed(pairs) + self.pos(torch.arange(2))
        return self.out(self.enc(x.transpose(0, 1))[-1])


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.softmax, self.out = nn.Embedding(P, 4), nn.Softmax(-1), nn.Linear(4, P)

    def forward(self, pairs):
        x = self.embed(pairs)
        z = x.unflatten(-1, (2, 2)).transpose(1, 2)
        z = self.softmax(z @ z.transpose(-1, -2)) @ z
        return self.out(z.transpose(1, 2).flatten(2))


class TestAblation:
    def test_what_is_not_called_or_gives_a_tuple_is_refused(self):
        net = Recurrent()
        for name in ("rnn", "unused"):
            for hook in (hooks.neurons(name, [0]), [(name, lambda x, hook: 0 * x)]):
                with pytest.raises(gi.InputError, match=f"'{name}' is not called, or returns no"):
                    ablated(net, hook)

    def test_all_hidden_layers_are_those_with_neurons_of_every_input(self):
        def layers(net):
            found = gi.ablate(net, frequencies=[], placebos=0, **GIVEN)
            return [row.name.split()[2] for row in found]

        assert layers(SequenceFirst()) == ["embed"]
        net = Net()
        net.fc2 = parametrizations.weight_norm(net.fc2)
        assert layers(net) == ["fc1", "act"]
        assert layers(Heads()) == ["embed"]
        assert layers(AtTheLast()) == ["embed", "out.0"]
        found = gi.ablate(Functional(), frequencies=[1], placebos=0, **GIVEN)
        assert any("no hidden layers" in note for note in found.notes)
        with pytest.raises(gi.InputError, match="nothing of this model is known to be taken out"):
            layers(Functional())

    def test_neurons_are_replaced_without_positions_too(self):
        net = Net()
        values = torch.zeros(P * P, 2)
        given = hooks.replaced_neurons("act", [3, 5], values, name="none")
        zeroed = hooks.neurons("act", [3, 5], mode="zero")
        assert ablated(net, given) == pytest.approx(ablated(net, zeroed))

    @pytest.mark.shapes_unchecked
    def test_truth_values_are_no_neurons(self):
        with pytest.raises(gi.InputError, match="are not distinct indices"):
            hooks.neurons("act", torch.tensor([True, False]))

    def test_a_hook_keeps_the_precision(self):
        with pytest.raises(gi.InputError, match=r"shape \(49, 16\) and torch.float32"):
            ablated(Net(), [("act", lambda x, hook: x.double())])


class AtTheLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(P, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, P))
        self.size = Size()

    def forward(self, pairs):
        x = self.embed(pairs)
        self.size(x)
        return self.out(x)[:, -1]


class Size(nn.Module):
    def forward(self, x):
        return x.square().mean()


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2 * P, P))

    def forward(self, pairs):
        return two_hot(pairs) @ self.weight


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(P, 8), nn.LSTM(8, 8, batch_first=True)
        self.unused, self.out = nn.ReLU(), nn.Linear(8, P)

    def forward(self, pairs):
        return self.out(self.rnn(self.embed(pairs))[0][:, -1])


class Tripled(Net):
    def forward(self, pairs):
        logits = super().forward(pairs)
        logits *= 3
        return logits


class Cosine(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(
            nn.functional.normalize(x), nn.functional.normalize(self.weight), self.bias
        )


class ByName(Net):
    def forward(self, pairs):
        return self.fc2(input=self.act(self.fc1(two_hot(pairs))))


class TestAttribution:
    def test_what_is_done_to_the_output_of_the_last_layer_is_no_part(self):
        hooked, cosine = Net(), Net()
        hooked.fc2.register_forward_hook(lambda part, given, output: 3 * output)
        cosine.fc2 = Cosine(16, P)
        for net in (Tripled(), hooked, cosine):
            with pytest.raises(gi.InputError, match="not the output of a linear layer"):
                circuits.attribution(net, frequencies=[], **GIVEN)

    def test_parts_sum_to_the_margin(self):
        normed = Net()
        normed.fc2 = parametrizations.weight_norm(normed.fc2)
        for net in (Net(), ByName(), normed):
            found = circuits.attribution(net, frequencies=[], **GIVEN)
            assert found.most_unexplained == pytest.approx(0, abs=1e-5)


class Named(nn.Module):
    """Weights named as HookedTransformer's, and shaped as nobody says."""

    def __init__(self):
        super().__init__()
        self.embed, self.unembed = nn.Module(), nn.Module()
        self.embed.W_E = nn.Parameter(torch.randn(8, P))
        self.unembed.W_U = nn.Parameter(torch.randn(P, 8))
        self.other = nn.Module()
        self.other.W_U = nn.Parameter(torch.ones(3))

    def forward(self, pairs):
        return self.embed.W_E.T[pairs].sum(dim=1) @ self.unembed.W_U.T


class Normed(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(16)
        self.norm.running_var.fill_(4.0)
        self.register_buffer("mask", torch.zeros(2, 2).fill_(-torch.inf).triu(1))

    def forward(self, pairs):
        return self.fc2(self.act(self.norm(self.fc1(two_hot(pairs)))))


def recorded(folder, *models):
    recorder = gi.Recorder(folder, **GIVEN)
    for step, model in enumerate(models):
        recorder.save(step, model)
    return recorder.close()


class TestWeights:
    def test_a_module_s_own_names_say_nothing(self, tmp_path):
        run = recorded(tmp_path / "run", Named())
        last = gi.progress_measures(run).iloc[-1]
        assert last[["gini_embedding", "gini_unembedding", "gini_neuron_logit"]].isna().all()
        squares = {n: float(x.square().sum()) for n, x in run.weights().items()}
        assert last.sum_sq_embed_W_E == pytest.approx(squares["embed.W_E"])
        assert last.sum_sq_other_W_U == pytest.approx(3)
        with pytest.raises(gi.InputError, match=r"has no weight 'embed\.W_E'"):
            embedding_spectrum(run.snapshot())

    def test_buffers_are_kept_and_are_no_parameters(self, tmp_path):
        net = Normed()
        run = recorded(tmp_path / "run", net)
        assert torch.equal(run.weights()["norm.running_var"], net.norm.running_var)
        with torch.no_grad():
            assert torch.allclose(run.snapshot().logits, net.eval()(TASK.operands), atol=1e-6)
        whole = sum(float(x.detach().square().sum()) for x in net.parameters())
        measured = gi.progress_measures(run)
        assert measured.sum_sq_weights.iloc[-1] == pytest.approx(whole)
        assert pruning_curve(run).n_weights == 2 * P * 16 + 16 * P
        again = gi.load(tmp_path / "run", module=Normed())
        assert list(again.architecture.buffers) == ["mask", "norm.running_mean", "norm.running_var"]
        assert torch.equal(again.snapshot().logits, run.snapshot().logits)
        seen = gi.snapshot(net, TASK)
        assert torch.equal(seen.logits_with(seen.weights), seen.logits)

    def test_a_pruned_module_is_what_it_computes_and_can_be_given_again(self, tmp_path):
        def pruned():
            net = Net()
            prune.l1_unstructured(net.fc1, "weight", amount=0.5)
            return net

        net = pruned()
        run = recorded(tmp_path / "run", net)
        with torch.no_grad():
            assert torch.allclose(run.snapshot().logits, net(TASK.operands), atol=1e-6)
        again = gi.load(tmp_path / "run", module=pruned())
        assert torch.equal(again.snapshot().logits, run.snapshot().logits)
        parameters = float(net.fc1.weight_orig.detach().square().sum())
        assert gi.progress_measures(run).sum_sq_fc1_weight_orig.iloc[-1] == pytest.approx(
            parameters
        )

    def test_what_a_forward_leaves_behind_is_no_hindrance(self, tmp_path):
        net = Net()
        run = recorded(tmp_path / "run", net)
        net.last_loss = net(TASK.operands).sum()  # as autograd made it
        assert torch.equal(
            gi.load(tmp_path / "run", module=net).snapshot().logits, run.snapshot().logits
        )
        net.lock = threading.Lock()
        with pytest.raises(gi.InputError, match=r"the Net cannot be copied .*lock"):
            gi.load(tmp_path / "run", module=net)

    def test_the_object_that_was_recorded_is_taken_in_its_wrapper(self, tmp_path):
        net = nn.DataParallel(Net())
        run = recorded(tmp_path / "run", net)
        again = gi.load(tmp_path / "run", module=net)
        assert torch.equal(again.snapshot().logits, run.snapshot().logits)
        with pytest.raises(gi.InputError, match=r"is a class; give Net\(\.\.\.\)"):
            gi.load(tmp_path / "run", module=Net)

    def test_two_precisions(self):
        net = Mixed()
        net.fc1.bfloat16()
        seen = gi.snapshot(net, TASK)
        with torch.no_grad():
            assert torch.allclose(seen.logits, net(TASK.operands), atol=1e-6)
        assert seen.activation("fc1").dtype == torch.bfloat16
        assert ablated(net, hooks.neurons("fc1", [0])) != 1


class Mixed(Net):
    def forward(self, pairs):
        return self.fc2(self.act(self.fc1(two_hot(pairs).to(self.fc1.weight.dtype))).float())


class Warmed(Net):
    warmth = 1.0

    def forward(self, pairs):
        return super().forward(pairs) * self.warmth


class Chance(Net):
    def forward(self, pairs):
        return super().forward(pairs) + torch.rand(P)


class OfTheBatch(Net):
    def forward(self, pairs):
        logits = super().forward(pairs)
        return logits - logits.mean(dim=0)


class TestRefusals:
    def test_what_a_run_cannot_hold_may_not_change(self, tmp_path):
        net = Warmed()
        recorder = gi.Recorder(tmp_path / "run", **GIVEN)
        recorder.save(0, net)
        net.warmth = 5.0
        with pytest.raises(
            gi.InputError, match="computes otherwise than when it was first recorded"
        ):
            recorder.save(1, net)

    def test_one_axis_more_or_less_is_the_module_s_own_affair(self):
        class Squeezed(Net):
            def forward(self, pairs):
                return super().forward(pairs)[:, None].squeeze()

        assert torch.equal(gi.snapshot(Squeezed(), TASK).logits, gi.snapshot(Net(), TASK).logits)

    def test_without_parameters_there_is_nothing_to_record(self, tmp_path):
        class Still(nn.Module):
            def forward(self, pairs):
                return two_hot(pairs)[:, :P]

        assert gi.snapshot(Still(), TASK).logits.shape == (P * P, P)
        with pytest.raises(gi.InputError, match="has no parameters; there is nothing to look at"):
            fisher_diagonal(Still(), task=TASK, rows="all")
        with pytest.raises(gi.InputError, match="has no matrices"):
            sizes(Still(), task=TASK)
        assert ablated(Still(), [("unembed.hook_out", lambda x, hook: x)]) == 1
        with pytest.raises(gi.InputError, match="has no parameters; there is nothing to record"):
            gi.Recorder(tmp_path / "run", **GIVEN).save(0, Still())

    def test_an_answer_is_a_function_of_its_input(self):
        chance, of_the_batch, state = Chance(), OfTheBatch(), torch.get_rng_state()
        with pytest.raises(gi.InputError, match="Chance gives other logits when it is run again"):
            gi.snapshot(chance, TASK)
        assert torch.equal(torch.get_rng_state(), state)
        with pytest.raises(gi.InputError, match="OfTheBatch gives other logits with another input"):
            gi.snapshot(of_the_batch, TASK)

    def test_a_class_of_equals_is_one_more(self):
        task = gi.ModularTask("add", p=P)

        class More(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.out = nn.Embedding(P + 1, 4), nn.Linear(4, P + 1)

            def forward(self, tokens):
                return self.out(self.embed(tokens).sum(dim=1))

        net = More()
        seen = gi.snapshot(net, task)
        assert (seen.logits.shape[1], seen.all_logits.shape[1]) == (P, P + 1)
        net.out = nn.Linear(4, P + 2)
        with pytest.raises(gi.InputError, match="gives 9 classes, and add mod 7 has 7"):
            gi.snapshot(net, task)
