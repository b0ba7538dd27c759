"""Several layers, two tokens: does the first see the second? Weights alone do not say.

The code of Zhong et al. 2023 blends attention with a constant and masks nothing; the forward here
is written after it in plain torch, and so are the weights, so nothing is taken from the package.
"""

import json

import pandas as pd
import pytest
import torch

import grokinterp as gi
from tests.foreign import paper_state

P, RATE = 13, 0.8
TOKENS = torch.cartesian_prod(torch.arange(P), torch.arange(P))
LABELS = TOKENS.sum(dim=1) % P
TRAIN = torch.randperm(P * P, generator=torch.Generator().manual_seed(1))[:120]
TEST = torch.tensor(sorted(set(range(P * P)) - set(TRAIN.tolist())))
CONFIG = {"C": P, "n_heads": 2, "n_layers": 2, "attention_dir": "casual", "act_fn": "ReLU",
          "attn_coeff": RATE, "frac": 120 / 169}  # fmt: skip


def random_weights(*, layers=2, n_ctx=2, vocabulary=P):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return noise / shape[-1] ** 0.5

    weights = {"embed.W_E": draw(vocabulary, 16), "pos_embed.W_pos": draw(n_ctx, 16)}
    for layer in range(layers):
        block = f"blocks.{layer}."
        weights |= {f"{block}attn.W_{x}": draw(2, 16, 8) for x in "QKV"}
        weights |= {
            f"{block}attn.W_O": draw(2, 8, 16),
            f"{block}mlp.W_in": draw(16, 32),
            f"{block}mlp.b_in": draw(1, 32)[0],
            f"{block}mlp.W_out": draw(32, 16),
            f"{block}mlp.b_out": draw(1, 16)[0],
        }
    return weights | {"unembed.W_U": draw(16, P)}


def their_logits(w, *, masked, rate=RATE):
    x = w["embed.W_E"][TOKENS] + w["pos_embed.W_pos"]
    for layer in range(sum(name.endswith("W_O") for name in w)):
        attn, mlp = f"blocks.{layer}.attn.W_", f"blocks.{layer}.mlp."
        q, k, v = (torch.einsum("npd,hde->nhpe", x, w[attn + each]) for each in "QKV")
        scores = q @ k.mT / 8**0.5
        if masked:
            scores = scores.masked_fill(torch.ones(2, 2).triu(1).bool(), -torch.inf)
        pattern = scores.softmax(dim=-1) * rate + (1 - rate)
        x = x + torch.einsum("nhpe,hed->npd", pattern @ v, w[f"{attn}O"])
        hidden = torch.relu(x @ w[f"{mlp}W_in"] + w[f"{mlp}b_in"])
        x = x + hidden @ w[f"{mlp}W_out"] + w[f"{mlp}b_out"]
    return (x @ w["unembed.W_U"])[:, -1]


def mean_loss(w, rows=slice(None), **kind):
    logits = their_logits(w, **kind)
    return float(torch.nn.functional.cross_entropy(logits[rows].double(), LABELS[rows]))


@pytest.fixture(scope="module")
def trained():
    """By whether a mask was used, weights that answer everything right."""
    found = {}
    for masked in (False, True):
        weights = {name: w.requires_grad_() for name, w in random_weights().items()}
        optimizer = torch.optim.Adam(weights.values(), lr=3e-3)
        for _ in range(300):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(their_logits(weights, masked=masked), LABELS)
            loss.backward()
            optimizer.step()
        found[masked] = {name: w.detach() for name, w in weights.items()}
        assert loss < 0.01
    return found


def save(folder, weights, *, config=CONFIG, log=None, **inside):
    """As they keep them: model_x.pt and config_x.json; a log beside where there is one."""
    state = paper_state(weights)
    torch.save({"model": state, **inside} if inside else state, folder / "model_x.pt")
    if config is not None:
        (folder / "config_x.json").write_text(json.dumps(config))
    if log is not None:
        pd.DataFrame(log).to_csv(folder / "model_x.csv", index=False)
    return folder / "model_x.pt"


def note_of(run):
    (note,) = [note for note in run.notes if note.startswith("attention_dir=")]
    return note


def losses(weights, **kind):
    return {"train_loss": mean_loss(weights, TRAIN, **kind),
            "test_loss": mean_loss(weights, TEST, **kind)}  # fmt: skip


class TestTheFamily:
    def test_what_nothing_tells_is_as_its_authors_have_it(self, tmp_path):
        weights = random_weights()
        run = gi.load(save(tmp_path, weights))
        assert run.architecture.attention_dir == "bidirectional"
        assert "is assumed, as the code for such blended attention of two tokens" in note_of(run)
        torch.testing.assert_close(run.snapshot().logits, their_logits(weights, masked=False))
        assert abs(mean_loss(weights, masked=True) / mean_loss(weights, masked=False) - 1) > 0.01

    @pytest.mark.parametrize("rate", [0.4, 0.0, 1.0])
    def test_the_rate_may_be_set_as_well(self, rate, tmp_path):
        path = save(tmp_path, random_weights(), config=None)
        run = gi.load(path, attention_rate=rate)
        assert run.architecture.attention_dir == "bidirectional"
        expected = their_logits(random_weights(), masked=False, rate=rate)
        torch.testing.assert_close(run.snapshot().logits, expected)

    def test_without_a_rate_it_is_not_known_to_be_one(self, tmp_path):
        run = gi.load(save(tmp_path, random_weights(), config=None))
        assert run.architecture.attention_dir == "causal"
        assert (
            note_of(run) == "attention_dir=causal is assumed (set attention_dir= if it is another)"
        )

    def test_nor_with_an_equals_token(self, tmp_path):
        weights = random_weights(n_ctx=3, vocabulary=P + 1)
        run = gi.load(save(tmp_path, weights, config={**CONFIG, "frac": 0.5}))
        assert run.architecture.attention_dir == "causal"
        assert "attention_dir=causal is assumed" in note_of(run)

    def test_one_layer_is_read_at_its_last_position_either_way(self, tmp_path):
        weights = random_weights(layers=1)
        run = gi.load(save(tmp_path, weights, config={**CONFIG, "n_layers": 1}))
        assert run.architecture.attention_dir == "causal"
        assert not [note for note in run.notes if "attention_dir" in note]
        for masked in (False, True):
            expected = their_logits(weights, masked=masked)
            torch.testing.assert_close(run.snapshot().logits, expected)


class TestEvidence:
    @pytest.mark.parametrize("masked", [False, True])
    def test_what_answers_far_better_is_right(self, masked, trained, tmp_path):
        run = gi.load(save(tmp_path, trained[masked]))
        assert run.architecture.attention_dir == ("causal" if masked else "bidirectional")
        torch.testing.assert_close(
            run.snapshot().logits,
            their_logits(trained[masked], masked=masked),
            rtol=1e-4,
            atol=1e-4,
        )
        assert "answers 100.0% of the table right" in " ".join(run.notes)
        if masked:  # against the family
            assert note_of(run) == "attention_dir=causal: it answers far better so than otherwise"

    @pytest.mark.parametrize("masked", [False, True])
    @pytest.mark.parametrize("where", ["log", "file", "config", "whole table", "accuracy"])
    def test_stored_losses_decide_what_answers_do_not(self, where, masked, tmp_path):
        weights = random_weights()
        found = losses(weights, masked=masked)
        kept = {"train_indices": TRAIN}
        if where == "log":
            log = {"step": [0, 5], **{key: [9.0, x] for key, x in found.items()}}
            path = save(tmp_path, weights, log=log, step=5, **kept)
        elif where == "file":
            path = save(tmp_path, weights, **found, **kept)
        elif where == "config":
            config = CONFIG | {f"final_{key}": x for key, x in found.items()}
            path = save(tmp_path, weights, config=config, **kept)
        elif where == "whole table":
            path = save(tmp_path, weights, config=CONFIG | found)
        else:
            right = their_logits(weights, masked=masked).argmax(dim=1) == LABELS
            sides = {"train_accuracy": TRAIN, "final_test_acc": TEST}
            accuracy = {key: float(right[rows].double().mean()) for key, rows in sides.items()}
            path = save(tmp_path, weights, config=CONFIG | accuracy, **kept)
        run = gi.load(path)
        assert run.architecture.attention_dir == ("causal" if masked else "bidirectional")
        assert "so read, " in note_of(run)
        assert "and the files say" in note_of(run)
        torch.testing.assert_close(run.snapshot().logits, their_logits(weights, masked=masked))

    def test_losses_of_other_weights_tell_nothing(self, tmp_path):
        weights = random_weights()
        found = {key: x / 2 for key, x in losses(weights, masked=True).items()}
        run = gi.load(save(tmp_path, weights, config=CONFIG | found))
        assert "is assumed, as the code" in note_of(run)

    def test_rounded_losses_tell_as_far_as_their_digits_go(self, tmp_path):
        weights = random_weights()
        for digits, direction in ((3, "causal"), (0, "bidirectional")):
            found = {key: round(x, digits) for key, x in losses(weights, masked=True).items()}
            run = gi.load(save(tmp_path, weights, config=CONFIG | found))
            assert run.architecture.attention_dir == direction


class TestWhatIsSaid:
    @pytest.mark.parametrize("direction", ["causal", "bidirectional"])
    def test_a_setting_is_right_whatever_speaks_against_it(self, direction, trained, tmp_path):
        weights = trained[direction == "bidirectional"]
        found = losses(weights, masked=direction == "bidirectional")
        run = gi.load(save(tmp_path, weights, config=CONFIG | found), attention_dir=direction)
        assert run.architecture.attention_dir == direction
        assert not [note for note in run.notes if note.startswith("attention_dir")]
        expected = their_logits(weights, masked=direction == "causal")
        torch.testing.assert_close(run.snapshot().logits, expected)

    def test_so_is_a_configuration(self, tmp_path):
        config = {**CONFIG, "attention_dir": "causal"}
        run = gi.load(save(tmp_path, random_weights(), config=config))
        assert run.architecture.attention_dir == "causal"

    def test_an_imported_run_keeps_it(self, tmp_path):
        run = gi.import_run(save(tmp_path, random_weights()), tmp_path / "run")
        again = gi.load(tmp_path / "run")
        assert again.architecture.attention_dir == "bidirectional"
        assert note_of(again) == note_of(run)
        expected = their_logits(random_weights(), masked=False)
        torch.testing.assert_close(again.snapshot().logits, expected)
