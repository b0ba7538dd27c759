import bz2
import lzma
import math
import sys
import zlib

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits.ablation import score
from grokinterp.encodings import compressed_bytes, effective_rank, quantize, quantized_size, sizes
from grokinterp.encodings.bases import as_matrix
from grokinterp.encodings.pruning_curves import pruning_curve
from grokinterp.fourier import gini
from grokinterp.runs._snapshot import from_weights


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(n, seed):
    return torch.linalg.qr(drawn(n, n, seed=seed)).Q


@pytest.mark.parametrize("values", [[1.0] * 4, [3.0, 1.0, 0.0, 0.0], [8.0, 4.0, 2.0, 1.0]])
def test_effective_rank_of_known_singular_values(values):
    share = [value / sum(values) for value in values]
    expected = math.exp(-sum(p * math.log(p) for p in share if p > 0))
    diagonal = torch.zeros(4, 6, dtype=torch.float64)
    diagonal[:, :4] = torch.diag(torch.tensor(values))
    matrix = rotation(4, 1) @ diagonal @ rotation(6, 2)
    assert effective_rank(matrix) == pytest.approx(expected, rel=1e-10)
    assert effective_rank(1e-9 * matrix.T) == pytest.approx(expected, rel=1e-10)
    with pytest.raises(gi.InputError, match="matrix of zeros"):
        effective_rank(torch.zeros(2, 2))


def test_quantized_weights_are_the_nearest_levels():
    weights = {"W": drawn(30, 20).float(), "zero": torch.zeros(3), "one": torch.tensor([-4.0])}
    for bits in (2, 3, 8, 9, 16):
        codes, steps = quantize(weights, bits=bits)
        largest = 2 ** (bits - 1) - 1
        assert codes["W"].dtype == (torch.int8 if bits <= 8 else torch.int16)
        assert codes["W"].abs().max() == largest
        assert steps["W"] == float(weights["W"].abs().max()) / largest
        error = (codes["W"].double() * steps["W"] - weights["W"].double()).abs()
        assert error.max() <= steps["W"] / 2 * (1 + 1e-12)
        assert len(codes["W"].unique()) <= 2 * largest + 1
        assert not codes["zero"].any()
        assert codes["one"].tolist() == [-largest]
        assert steps["one"] * -largest == -4.0


def test_compressed_bytes_are_those_of_the_standard_library():
    weights = {"W": drawn(40, 25), "b": torch.zeros(500)}
    codes, _ = quantize(weights, bits=5)
    content = bytes(value % 256 for code in codes.values() for value in code.flatten().tolist())
    for method, size in (
        ("zlib", len(zlib.compress(content, 9))),
        ("bz2", len(bz2.compress(content))),
        ("lzma", len(lzma.compress(content))),
    ):
        assert compressed_bytes(weights, bits=5, method=method) == size + 2 * 4
    wide = compressed_bytes({"W": drawn(40, 25)}, bits=12)
    assert 1000 * 12 / 8 * 0.8 < wide < 2100  # incompressible: about 12 bits of entropy at most
    transposed = {"W": drawn(40, 25).T}
    assert compressed_bytes(transposed, bits=4) == compressed_bytes(
        {"W": transposed["W"].contiguous()}, bits=4
    )


def test_gaussian_weights_compress_to_about_their_entropy():
    """The entropy of the codes is a lower bound; the program comes near it."""
    weights = {"W": drawn(200, 500)}
    codes, _ = quantize(weights, bits=6)
    share = codes["W"].flatten().long().sub(-31).bincount().double() / 100_000
    entropy = float(torch.special.entr(share).sum()) / math.log(2) * 100_000 / 8
    assert entropy <= compressed_bytes(weights, bits=6) <= 1.1 * entropy


def test_a_sparser_model_is_smaller():
    weights = drawn(200, 100)
    sparse = torch.where(weights.abs() > 1.5, weights, 0.0)
    assert compressed_bytes({"W": sparse}, bits=6) < 0.5 * compressed_bytes({"W": weights}, bits=6)
    assert gini(sparse.abs().flatten()) > gini(weights.abs().flatten())


def test_the_quantized_model_is_evaluated(tiny_run):
    snapshot = tiny_run.snapshot()
    found = quantized_size(tiny_run, bits=4, method="zlib")
    codes, steps = quantize(snapshot.weights, bits=4)
    rounded = {name: (code * steps[name]).float() for name, code in codes.items()}
    expected = score(snapshot, snapshot.logits_with(rounded))
    assert found.quantized.loss_all == pytest.approx(expected.loss_all, rel=1e-5)
    assert found.quantized.acc_test == expected.acc_test
    assert found.whole == score(snapshot, snapshot.logits)
    assert found.accuracy_loss == found.whole.acc_test - expected.acc_test
    assert (found.bits, found.searched, found.step) == (4, False, 60)
    assert found.raw_bytes == 4 * sum(w.numel() for w in snapshot.weights.values())
    assert found.compressed_bytes == compressed_bytes(snapshot.weights, bits=4, method="zlib")
    assert found.ratio == found.raw_bytes / found.compressed_bytes
    table = found.table()
    assert table["bytes"].tolist() == [found.raw_bytes, found.compressed_bytes]
    assert table["loss_all"].tolist() == [found.whole.loss_all, found.quantized.loss_all]
    assert table.attrs == {"rows": "test", "keep": 0.95, "step": 60}


def test_the_search_finds_the_fewest_bits_that_keep_the_accuracy(shipped, monkeypatch):
    snapshot = shipped.snapshot()
    found = quantized_size(snapshot)
    enough = {
        bits: quantized_size(snapshot, bits=bits).quantized.acc_test >= 0.95
        for bits in range(2, found.bits + 1)
    }
    assert found.searched
    assert [bits for bits, kept in enough.items() if kept] == [found.bits]
    assert found.bits == 3
    assert 15 < found.ratio < 25
    monkeypatch.setattr(sys.modules["grokinterp.encodings._sizes"], "MOST_BITS", 2)
    with pytest.raises(gi.InputError, match=r"2 bits do not keep 0\.95"):
        quantized_size(snapshot)


def test_sizes_are_those_of_every_tensor(tiny_run):
    found = sizes(tiny_run, step=20)
    weights = {name: w for name, w in tiny_run.weights(20).items() if ".b_" not in name}
    table = found.table().set_index("name")
    assert list(table.index) == list(weights)
    for name, weight in weights.items():
        row = table.loc[name]
        matrix = as_matrix(name, weight)
        assert (row["n_weights"], row["rows"], row["columns"]) == (weight.numel(), *matrix.shape)
        assert row["effective_rank"] == effective_rank(matrix)
        assert row["gini"] == gini(weight.double().abs().flatten())
        assert row["note"] == ""
    assert found.n_weights == sum(w.numel() for w in weights.values())
    assert found.mean_effective_rank == pytest.approx(table["effective_rank"].mean(), rel=1e-12)
    every = sorted(float(x) for w in weights.values() for x in w.abs().double().flatten())
    n = len(every)  # mean absolute difference over twice the mean, from sorted values
    expected = sum((2 * i - n - 1) * x for i, x in enumerate(every, 1)) / (n * sum(every))
    assert found.gini == pytest.approx(expected, rel=1e-9)
    assert found.table().attrs["step"] == 20


def test_all_zero_tensors_have_no_size_and_say_so(tiny_run):
    weights = tiny_run.weights() | {"embed.W_E": torch.zeros(8, 16)}
    snapshot = from_weights(weights, tiny_run.architecture, tiny_run.task)
    found = sizes(snapshot)
    row = found.table().set_index("name").loc["embed.W_E"]
    assert math.isnan(row["gini"])
    assert math.isnan(row["effective_rank"])
    assert row["note"] == "all zero"
    ranks = found.table()["effective_rank"].fillna(0.0)
    assert found.mean_effective_rank == pytest.approx(ranks.mean())
    nothing = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with pytest.raises(gi.InputError, match="all zero"):
        sizes(from_weights(nothing, tiny_run.architecture, tiny_run.task))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: quantize({"W": torch.ones(2)}, bits=1), "bits=1 is not"),
        (lambda: quantize({"W": torch.ones(2)}, bits=17), "from 2 to 16"),
        (lambda: quantize({"W": torch.tensor([1.0, math.inf])}, bits=4), "not finite"),
        (lambda: quantize({"W": torch.tensor([math.nan])}, bits=4), "not finite"),
        (lambda: compressed_bytes({"W": torch.ones(2)}, bits=4, method="bzip"), "did you mean"),
    ],
)
def test_refusals_are_one_line(call, says):
    with pytest.raises(gi.InputError, match=says) as refused:
        call()
    assert "\n" not in str(refused.value)


def test_a_diverged_model_and_an_impossible_share_are_refused(tiny_run):
    """Of NaN the singular values would be a LinAlgError with its traceback."""
    weights = tiny_run.weights() | {"embed.W_E": torch.full((8, 16), math.nan)}
    diverged = from_weights(weights, tiny_run.architecture, tiny_run.task)
    with pytest.raises(gi.InputError, match="not finite"):
        sizes(diverged)
    with pytest.raises(gi.InputError, match="logits are not finite; look at an earlier step"):
        pruning_curve(diverged, basis="singular")
    for keep in (0.0, 1.5, math.nan):
        with pytest.raises(gi.InputError, match="is not a number above 0, at most 1"):
            quantized_size(tiny_run, keep=keep)
