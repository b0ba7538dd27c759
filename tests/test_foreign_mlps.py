"""MLPs that others wrote, each trained here as a live module: a file of it is the same network."""

import json

import pytest
import safetensors.torch
import torch
from torch import nn

import grokinterp as gi
from grokinterp.circuits import hooks
from grokinterp.progress.losses import restricted_loss

P, D, H = 7, 6, 24


class Net(nn.Module):
    """Parts under names of somebody's choice, and what they compute of operands a and b."""

    def __init__(self, compute, act=None, **parts):
        super().__init__()
        for name, part in parts.items():
            if name.startswith("basis"):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.act, self.act2, self.compute = act or nn.ReLU(), nn.ReLU(), compute

    def forward(self, pairs):
        return self.compute(self, *pairs.T)


class Square(nn.Module):
    def forward(self, x):
        return x * x


def parameter(*shape):
    return nn.Parameter(torch.randn(shape) / 2)


def hot(x):
    return nn.functional.one_hot(x, P).float()


def both(a, b):
    return torch.cat([a, b], dim=-1)


def embedding(d=D):
    return nn.Embedding(P, d)


LEARNED = {"d_embed": D}
SUM, SEPARATE = {"combine": "sum"}, {"separate": True}
KINDS = {
    "one-hot, Sequential": (
        lambda: Net(
            lambda m, a, b: m.net[1](m.act(m.net[0](both(hot(a), hot(b))))),
            net=nn.Sequential(nn.Linear(2 * P, H), nn.Linear(H, P)),
        ),
        {},
    ),
    "one-hot, quadratic, summed": (
        lambda: Net(
            lambda m, a, b: m.lin2(m.act(m.lin1(hot(a) + hot(b)))),
            act=Square(), lin1=nn.Linear(P, H), lin2=nn.Linear(H, P, bias=False),
        ),
        {"act_fn": "quadratic", **SUM},
    ),
    "one embedding, concatenated": (
        lambda: Net(
            lambda m, a, b: m.fc2(m.act(m.fc1(both(m.embed(a), m.embed(b))))),
            embed=embedding(), fc1=nn.Linear(2 * D, H), fc2=nn.Linear(H, P),
        ),
        LEARNED,
    ),
    "one embedding, summed, two layers": (
        lambda: Net(
            lambda m, a, b: m.out(
                m.act2(m.layers[1](m.act(m.layers[0](m.tok_emb(a) + m.tok_emb(b)))))
            ),
            tok_emb=embedding(), out=nn.Linear(H, P),
            layers=nn.ModuleList([nn.Linear(D, H), nn.Linear(H, H)]),
        ),
        {"widths": (H, H), **LEARNED, **SUM},
    ),
    "two embeddings, concatenated": (
        lambda: Net(
            lambda m, a, b: m.output(m.act(m.hidden(both(m.embed_a(a), m.embed_b(b))))),
            embed_b=embedding(), embed_a=embedding(), hidden=nn.Linear(2 * D, H),
            output=nn.Linear(H, P),
        ),
        {**LEARNED, **SEPARATE},
    ),
    "two embeddings, summed": (
        lambda: Net(
            lambda m, a, b: m.fc2(m.act(m.fc1(m.embedding1(a) + m.embedding2(b)))),
            embedding1=embedding(), embedding2=embedding(), fc1=nn.Linear(D, H),
            fc2=nn.Linear(H, P),
        ),
        {**LEARNED, **SEPARATE, **SUM},
    ),
    "matrices [out, in], summed": (
        lambda: Net(
            lambda m, a, b: m.act((hot(a) + hot(b)) @ m.W_in.T) @ m.W_out.T,
            W_in=parameter(H, P), W_out=parameter(P, H), basis=torch.eye(P),
        ),
        SUM,
    ),
    "matrices [in, out]": (
        lambda: Net(
            lambda m, a, b: m.act(both(hot(a), hot(b)) @ m.w1 + m.b1) @ m.w2 + m.b2,
            w1=parameter(2 * P, H), b1=parameter(H), w2=parameter(H, P), b2=parameter(P),
        ),
        {},
    ),
    "tables straight into the last layer": (
        lambda: Net(
            lambda m, a, b: m.W_U(m.act(m.W_x[a] + m.W_y[b] + m.b_h)),
            W_y=parameter(P, H), W_x=parameter(P, H), b_h=parameter(H),
            W_U=nn.Linear(H, P, bias=False),
        ),
        {},
    ),
    "linear layers of each operand": (
        lambda: Net(
            lambda m, a, b: m.out(m.act(m.fc_a(hot(a)) + m.fc_b(hot(b)))),
            fc_a=nn.Linear(P, H), fc_b=nn.Linear(P, H), out=nn.Linear(H, P),
        ),
        {},
    ),
    "one embedding, straight and summed": (
        lambda: Net(
            lambda m, a, b: m.head(m.act(m.embed(a) + m.embed(b))),
            embed=embedding(H), head=nn.Linear(H, P),
        ),
        SUM,
    ),
    "an embedding in nn.Sequential": (
        lambda: nn.Sequential(
            nn.Embedding(P, D), nn.Flatten(), nn.Linear(2 * D, H), nn.ReLU(), nn.Linear(H, P)
        ),
        LEARNED,
    ),
    "a tied unembedding": (
        lambda: Net(
            lambda m, a, b: m.act(m.fc(both(m.embed(a), m.embed(b)))) @ m.embed.weight.T,
            embed=embedding(H), fc=nn.Linear(2 * H, H),
        ),
        {"d_embed": H},
    ),
}  # fmt: skip
each = pytest.mark.parametrize("name", KINDS)
NETS = {}


def task(p=P):
    return gi.ModularTask("add", p, equals_token=False)


def trained(model, task):
    """The module, trained on its whole table until every answer is right."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(2000):
        logits = model(task.tokens)
        if step % 20 == 0 and bool((logits.argmax(1) == task.labels).all()):
            return model
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, task.labels).backward()
        optimizer.step()
    raise AssertionError("it did not learn its table")


def live(name):
    """A trained module of a kind, and the fields of the architecture that its file has."""
    make, fields = KINDS[name]
    if name not in NETS:
        torch.manual_seed(0)
        NETS[name] = trained(make(), task())
    return NETS[name], {"widths": (H,), "act_fn": "relu", "d_embed": 0} | fields


def opened(model, path, **settings):
    torch.save(model.state_dict() if isinstance(model, nn.Module) else model, path)
    return gi.load(path, **settings)


def settings_of(fields):
    return {} if fields["act_fn"] == "relu" else {"act_fn": fields["act_fn"]}


@each
def test_a_file_is_the_live_module(name, tmp_path):
    model, fields = live(name)
    run = opened(model, tmp_path / "mlp.pt", **settings_of(fields))
    shape = run.architecture
    assert {key: getattr(shape, key) for key in fields} == fields
    assert (shape.combine == "sum") == (fields.get("combine") == "sum")
    assert shape.separate == fields.get("separate", False)
    assert (run.task.p, run.task.operation) == (P, "add")
    snapshot, theirs = run.snapshot(), gi.snapshot(model, task())
    torch.testing.assert_close(snapshot.logits, theirs.logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(snapshot.logits.argmax(1), theirs.logits.argmax(1))
    assert "answers 100.0% of the table right" in " ".join(run.notes)
    assumed = "act_fn=relu is assumed (set act_fn= if it is another)"
    assert (assumed in run.notes) == (fields["act_fn"] == "relu")
    keys, expected = gi.key_frequencies(run), gi.key_frequencies(model, task=task())
    assert keys.frequencies == expected.frequencies
    torch.testing.assert_close(keys.shares, expected.shares, rtol=1e-5, atol=1e-5)
    for ks in ([1], [1, 2], [1, 2, 3]):
        found, wanted = (restricted_loss(x, ks) for x in (snapshot, theirs))
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-5)


@each
def test_an_ablation_agrees_with_the_live_module(name, tmp_path):
    model, fields = live(name)
    run = opened(model, tmp_path / "mlp.pt", **settings_of(fields))
    last = len(fields["widths"]) - 1
    layer = "act2" if last else "act"
    layer = layer if hasattr(model, layer) else "3"
    ours = gi.ablate(run, [hooks.neurons(last, [0, 1, 5])], placebos=0).table()
    theirs = gi.ablate(model, [hooks.neurons(layer, [0, 1, 5])], placebos=0, task=task()).table()
    for column in ("loss_all", "acc_all", "change_all"):
        assert ours[column].iloc[0] == pytest.approx(theirs[column].iloc[0], rel=1e-4, abs=1e-5)


@each
def test_names_in_another_order_and_under_wrappers(name, tmp_path):
    model, fields = live(name)
    state = model.state_dict()
    plain = opened(state, tmp_path / "plain.pt", **settings_of(fields)).weights()
    made = {key: x.clone() for key, x in sorted(state.items(), reverse=True)}
    safetensors.torch.save_file(made, tmp_path / "m.safetensors")
    found = [gi.load(tmp_path / "m.safetensors").weights()]
    for wrapper in ("module.", "_orig_mod.", "model.module.", "net."):
        wrapped = {f"{wrapper}{key}": x for key, x in made.items()}
        file = tmp_path / f"{wrapper}pt"  # one each: weights are views into their file
        found.append(opened({"model": wrapped, "epoch": 3}, file).weights())
    for weights in found:
        assert all(torch.equal(weights[key], plain[key]) for key in plain)


@each
def test_an_import_is_a_run(name, tmp_path):
    model, fields = live(name)
    torch.save(model.state_dict(), tmp_path / "mlp_100.pt")
    run = gi.import_run(tmp_path / "mlp_100.pt", tmp_path / "run", **settings_of(fields))
    again = gi.load(tmp_path / "run")
    assert again.architecture == run.architecture
    assert again.steps == (100,)
    theirs = gi.snapshot(model, task()).logits
    torch.testing.assert_close(again.snapshot().logits, theirs, rtol=1e-5, atol=1e-5)
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    shape = stored["architecture"]
    known = not {"combine", "separate"} & shape.keys() and shape["act_fn"] != "quadratic"
    assert stored["format"] == 2 - known  # version 0.2.0 has no such networks
    assert gi.detect_phases(again).label == "undetermined"


def test_a_module_of_ours_is_read_from_its_state_dict(tmp_path):
    for keys in ({}, SUM, {"embedding": "learned", "d_model": 5, **SEPARATE}):
        recipe = gi.Recipe(model="mlp", p=11, d_mlp=8, steps=1, **keys)
        run = gi.train(recipe, tmp_path / f"run {len(list(tmp_path.iterdir()))}")
        read = opened(run.model(), tmp_path / "m.pt")
        assert read.architecture == run.architecture  # of 8 neurons for 11 classes
        assert torch.equal(read.snapshot().logits, run.snapshot().logits)


def narrow(p, width, turned):
    """Two matrices without names that say which axis is which, right on every pair.

    Four neurons are a + b, the two ends of a step from 0 to 1 at p, and 1; so logits can be 2 c m -
    c^2 with m = a + b mod p, which is largest where c = m.
    """
    x, c = torch.arange(p) / 1.0, torch.arange(p) / 1.0
    first, last = torch.zeros(p, width), torch.zeros(width, p)
    first[:, :4] = torch.stack([x, x - (p - 1) / 2, x - p / 2, 0 * x + 0.5], dim=1)
    last[:4] = torch.stack([2 * c, -2 * p * c, 2 * p * c, -c * c])

    def compute(m, a, b):
        W_1, W_2 = (m.W_1.T, m.W_2.T) if turned else (m.W_1, m.W_2)
        return m.act(W_1[a] + W_1[b]) @ W_2

    stored = [x.T.clone() if turned else x for x in (first, last)]
    return Net(compute, W_1=nn.Parameter(stored[0]), W_2=nn.Parameter(stored[1]))


@pytest.mark.parametrize(("p", "width", "turned"), [(8, 7, True), (8, 7, False), (7, 7, False)])
def test_shapes_of_two_readings_are_told_apart_by_the_answers(p, width, turned, tmp_path):
    model = narrow(p, width, turned)
    run = opened(model, tmp_path / "m.pt")
    assert (run.task.p, run.architecture.widths) == (p, (width,))
    torch.testing.assert_close(
        run.snapshot().logits, gi.snapshot(model, task(p)).logits, rtol=1e-5, atol=1e-5
    )
    assert "it answers far better" in " ".join(run.notes)


def test_shapes_of_two_readings_of_which_neither_answers_are_assumed_and_said(tmp_path):
    state = {"W_1": torch.randn(9, 7), "W_2": torch.randn(7, 9)}
    run = opened(state, tmp_path / "m.pt")
    assert run.task.p == 7  # of hidden layers wider than p
    assert any("this is assumed" in note and "p=9 reads it so" in note for note in run.notes)
    other = opened(state, tmp_path / "m.pt", p=9)
    assert other.task.p == 9
    assert not any("this is assumed" in note for note in other.notes)


def test_tables_under_a_nonlinearity_of_their_own_are_told_by_the_answers(tmp_path):
    """[p, h] of each operand before two more layers: an embedding as a rule, but not here."""
    torch.manual_seed(2)
    model = trained(
        Net(
            lambda m, a, b: m.fc2(m.act2(m.fc1(m.act(m.emb_a(a) + m.emb_b(b))))),
            emb_a=embedding(H), emb_b=embedding(H), fc1=nn.Linear(H, H), fc2=nn.Linear(H, P),
        ),
        task(),
    )  # fmt: skip
    run = opened(model, tmp_path / "m.pt")
    assert run.architecture.widths == (H, H)
    assert run.architecture.d_embed == 0
    assert "it answers far better" in " ".join(run.notes)


def test_what_somebody_says_has_to_agree(tmp_path):
    state = live("one embedding, concatenated")[0].state_dict()
    for settings, words in (
        ({"p": 8}, "p=8 contradicts"),
        ({"n_heads": 4}, "n_heads=4 means nothing for"),
        ({"n_layers": 3}, "n_layers=3 contradicts the weights"),
        ({"equals_token": True}, "equals_token=False"),
        ({"act_fn": "tanh"}, "act_fn='tanh' is not known"),
    ):
        with pytest.raises(gi.InputError, match=words) as refused:
            opened(state, tmp_path / "m.pt", **settings)
        assert "\n" not in str(refused.value)
    said = {"model": state, "config": {"p": P, "activation": "square", "n_heads": 4}}
    assert opened(said, tmp_path / "m.pt").architecture.act_fn == "quadratic"


def test_copies_and_buffers_are_left_out_and_named(tmp_path):
    state = live("one embedding, concatenated")[0].state_dict()
    ema = {f"ema.{key}": 2 * x for key, x in state.items()}
    both = {f"net.{key}": x for key, x in state.items()} | ema | {"seen": torch.tensor(5)}
    run = opened(both, tmp_path / "m.pt")
    plain = opened(state, tmp_path / "plain.pt")
    assert all(torch.equal(run.weights()[key], x) for key, x in plain.weights().items())
    assert any("copies by their names" in note and "ema." in note for note in run.notes)
    assert any("read without 'seen'" in note for note in run.notes)
    copy = opened(both, tmp_path / "m.pt", prefix="ema")
    assert torch.equal(copy.weights()["unembed.W_U"], 2 * plain.weights()["unembed.W_U"])


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"scale": torch.tensor(2.0)}, "with 'scale', which is not understood"),
        ({"ln.weight": torch.ones(H)}, "with normalisation layers ('ln.weight')"),
        ({"gate_bias": torch.ones(5)}, "with 'gate_bias', which is not understood"),
        (
            {"fc1.weight_mask": torch.ones(H, 2 * D), "fc1.weight_orig": torch.ones(H, 2 * D)},
            "with 'fc1.weight_orig', which is not understood",
        ),
        ({"fc3.weight": torch.ones(5, 5)}, "does not read two operands of as many tokens"),
        ({"conv.weight": torch.ones(2, 2, 3)}, "holds a convolutional network"),
    ],
)
def test_what_is_not_understood_is_refused_and_named(extra, words, tmp_path):
    state = live("one embedding, concatenated")[0].state_dict()
    with pytest.raises(gi.InputError) as refused:
        opened({**state, **extra}, tmp_path / "m.pt")
    said = str(refused.value)
    assert words in said
    assert "\n" not in said
    assert len(said) <= 400


def test_checkpoints_of_one_run_have_to_be_of_one_network(tmp_path):
    state = live("one-hot, Sequential")[0].state_dict()
    torch.save(state, tmp_path / "step_100.pt")
    torch.save({key: 0 * x for key, x in state.items()}, tmp_path / "step_0.pt")
    assert gi.load(tmp_path).steps == (0, 100)
    assert not gi.load(tmp_path).weights(0)["unembed.W_U"].any()
    for changed, words in (
        (
            {"net.0.weight": torch.ones(H, 2 * P + 1)},
            "'0.weight' is (24, 15), and (24, 14) in the last",
        ),
        ({"net.2.weight": torch.ones(P, P)}, "'2.weight' is (7, 7), and missing in the last"),
        ({"net.1.weight": torch.ones(H, P)}, "'1.weight' is (24, 7), and (7, 24) in the last"),
        ({"net.0.bias": torch.ones(3)}, "'0.bias' is (3,), and (24,) in the last"),
        ({"net.0.bias": torch.full((H,), torch.nan)}, "is not finite"),
    ):
        torch.save({**state, **changed}, tmp_path / "step_0.pt")
        with pytest.raises(gi.InputError) as refused:
            gi.load(tmp_path)
        assert words in str(refused.value)


def test_half_precision_is_read_exactly(tmp_path):
    state = live("one-hot, Sequential")[0].state_dict()
    halves = {key: x.half() for key, x in state.items()}
    weights = opened(halves, tmp_path / "m.pt").weights()
    assert torch.equal(weights["unembed.W_U"], halves["net.1.weight"].float().T)


def test_commands_take_a_file_with_losses_and_a_buffer(run, tmp_path):
    file, out = tmp_path / "summed_100.pth", tmp_path / "run"
    model, _ = live("matrices [out, in], summed")
    state = {f"mlp.{key}": x for key, x in model.state_dict().items()}
    torch.save({"model": state, "train_loss": 1.9, "test_loss": 1.9, "epoch": 100}, file)
    for command in (("info", file), ("import", file, "--out", out, "--set", f"p={P}")):
        status, said, _ = run(*command)
        assert status == 0
        assert "read without 'basis'" in said
        assert "one-hot and summed, 7 -> 24 -> 7" in said
        assert "act_fn=relu is assumed" in said
    assert gi.load(out).steps == (100,)
    status, said, _ = run("phases", out, "--json")
    assert (status, json.loads(said)["label"]) == (0, "not_learned")  # as its losses have it
    status, _, said = run("import", file, "--out", tmp_path / "other", "--set", "p=9")
    assert status == 2
    assert "p=9 contradicts" in said
