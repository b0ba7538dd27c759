"""Mutated files through the loaders: a run or one line of error, and nothing executed.

    python tests/fuzz.py 10000 [SEED]
    python tests/fuzz.py 2000 [SEED] texts
    python tests/fuzz.py 20000 [SEED] logs

The corpus is a small file of every format, the texts of `tests/fuzz_texts.py`, or the logs of
`tests/fuzz_logs.py`. A mutation
flips bits, cuts off, inserts or removes bytes, swaps members of an archive, or does these to the
pickle inside one and puts it back with right checksums, so that the parser itself sees it. An audit
hook ends the process at once if anything starts a program, opens a connection, imports by a
pickle's wish or unpickles.
"""

import argparse
import contextlib
import hashlib
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

import grokinterp as gi
from grokinterp.runs.manifest import _checksum

sys.path.insert(0, str(Path(__file__).parents[1]))  # which a script does not have
from tests import fuzz_logs, fuzz_texts
from tests.foreign import Net, in_parts

SLOWEST = 5.0  # seconds of processor time a file may take
LONGEST = 400  # characters of a refusal
FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen",
    "socket.connect", "pickle.find_class", "ctypes.dlopen", "webbrowser.open",
)  # fmt: skip


def small_run(folder: Path) -> gi.Run:
    """What the corpus is made of."""
    return gi.train(
        gi.Recipe(
            p=5, d_model=8, n_heads=2, d_head=4, d_mlp=8, steps=4, checkpoints="every:2",
            train_fraction=0.5, log_every=1, biases="all",
        ),
        folder / "run",
    )  # fmt: skip


def corpus(folder: Path, run: gi.Run) -> list[Path]:
    """One small checkpoint in every format."""
    weights = run.weights()
    made = [
        gi.export(run, folder / "demo.pth"),
        gi.export(_without_biases(run, folder), folder / "paper.pth", format="paper"),
    ]
    torch.save({"model": weights, "step": 3}, folder / "zip.pt")
    torch.save(weights, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(weights, folder / "tensors.safetensors")
    (folder / "many").mkdir()
    for step in run.steps:
        torch.save(run.weights(step), folder / "many" / f"step_{step}.pt")
    torch.save({step: run.weights(step) for step in run.steps}, folder / "steps.pt")
    torch.save({"model": Net(weights), "step": 3}, folder / "whole.ckpt")
    (folder / "parts" / "checkpoint-4").mkdir(parents=True)
    in_parts(weights, folder / "parts" / "checkpoint-4", "safetensors")
    (folder / "parts" / "hparams.yaml").write_text("p: 5\nmodel: {n_heads: 2, act: [relu]}\n")
    run.metrics.to_csv(folder / "curves.csv", index=False)
    net = torch.nn.Sequential(torch.nn.Linear(10, 6), torch.nn.ReLU(), torch.nn.Linear(6, 5))
    torch.save(net.state_dict(), folder / "mlp.pt")
    tables = {f"W_{x}": torch.randn(5, 4) for x in "xy"}
    torch.save({"model": {**tables, "W_U": torch.randn(4, 5)}, "epoch": 3}, folder / "tables.pt")
    files = ("zip.pt", "legacy.pt", "tensors.safetensors", "steps.pt", "whole.ckpt", "parts",
             "mlp.pt", "tables.pt")  # fmt: skip
    made += [folder / name for name in files]
    return [*made, folder / "many", folder / "run", folder / "curves.csv"]


def _without_biases(run: gi.Run, folder: Path) -> gi.Run:
    zeroed = {n: w * 0 if ".b_" in n and ".mlp." not in n else w for n, w in run.weights().items()}
    torch.save(zeroed, folder / "zeroed_step_4.pt")
    return gi.load(folder / "zeroed_step_4.pt", train_indices=str(run.path / "split.safetensors"))


def mutate(source: Path, target: Path, rng: random.Random) -> None:
    """A damaged copy of a file or folder."""
    victim = rng.choice(fuzz_texts.copied(source, target))
    content = victim.read_bytes()
    if victim.suffix in (".pth", ".pt") and rng.random() < 0.4:
        torch.save(_mutated_values(torch.load(victim, weights_only=True), rng), victim)
    elif (target / "run.json").is_file() and victim.name != "run.json" and rng.random() < 0.8:
        victim.write_bytes(_mutated_part(victim, rng))
        _sign(target, victim)
    elif victim.name == "run.json" and rng.random() < 0.8:
        victim.write_bytes(_mutated_json(content, rng))
    elif content[:2] == b"PK" and rng.random() < 0.7:
        victim.write_bytes(_mutated_archive(content, rng))
    else:
        victim.write_bytes(_mutated(content, rng))


def mutate_text(source: Path, target: Path, rng: random.Random) -> None:
    """A copy of a text, or of a folder with one, in which something else is written."""
    fuzz_texts.copied(source, target)
    victim = rng.choice(fuzz_texts.victims(target))
    content = victim.read_bytes()
    is_text = victim.suffix in (".toml", ".json", ".csv") and rng.random() < 0.8
    victim.write_bytes((fuzz_texts.mutated_text if is_text else _mutated)(content, rng))


def _mutated(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1) if data else 0
        if rng.random() < 0.5:
            at = min(at, rng.randrange(600))  # where headers and pickles are
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.randrange(256)
            case 2:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
            case 3:
                del data[at : at + rng.choice((1, 4, 100))]
            case 4:
                other = rng.randrange(len(data) + 1)
                data[at : at + 8] = data[other : other + 8]
            case 5 if rng.random() < 0.2:
                del data[at:]
    return bytes(data)


def _mutated_part(part: Path, rng: random.Random) -> bytes:
    """Other content of a run's file: bytes, cells of a table, or tensors of another kind."""
    if part.suffix == ".csv" and rng.random() < 0.7:
        lines = [line.split(",") for line in part.read_text().splitlines()]
        row = rng.choice(lines)
        row[rng.randrange(len(row))] = rng.choice(("", "x", "-1", "1e400", "nan", "9" * 30, '"'))
        rng.choice((lambda: None, lines.reverse, lines.clear, lambda: lines.append(row)))()
        return "\n".join(map(",".join, lines)).encode()
    if part.suffix == ".safetensors" and rng.random() < 0.7:
        tensors = safetensors.torch.load_file(part)
        name = rng.choice(list(tensors))
        tensors[name] = _odd_tensor(tensors[name], rng)
        if rng.random() < 0.2:
            tensors[rng.choice(("x", "a\nb"))] = tensors.pop(name)
        return safetensors.torch.save({key: x.contiguous() for key, x in tensors.items()})
    return _mutated(part.read_bytes(), rng)


def _sign(run: Path, part: Path) -> None:
    """Give a changed file of a run its right checksum."""
    values = json.loads((run / "run.json").read_text())
    content = part.read_bytes()
    values["sha256"][str(part.relative_to(run))] = hashlib.sha256(content).hexdigest()
    del values["checksum"]
    values["checksum"] = _checksum(values)
    (run / "run.json").write_text(json.dumps(values))


def _odd_tensor(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    kinds = (torch.float64, torch.float16, torch.int32, torch.uint8, torch.bool, torch.complex64,
             torch.float8_e4m3fn, torch.uint16)  # fmt: skip
    changes = (
        lambda x: x.to(rng.choice(kinds)), lambda x: x[:0], lambda x: x.sum(),
        lambda x: x[None], lambda x: x * float("nan"), lambda x: x * 1e30, lambda x: x.flatten(),
        lambda x: torch.cat([x, x]), lambda x: x.double() - 100, lambda x: x * 0,
    )  # fmt: skip
    return rng.choice(changes)(tensor) if tensor.ndim else tensor.to(rng.choice(kinds))


def _mutated_values(data: object, rng: random.Random) -> object:
    """The content of a checkpoint with another value, or another key, somewhere."""
    places = []

    def visit(node: object) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(value, (dict, list)) and value:
                visit(value)

    visit(data)
    for _ in range(rng.choice((1, 1, 2))):
        node, key = rng.choice(places)
        if key not in node if isinstance(node, dict) else key >= len(node):
            continue
        value = node[key]
        if isinstance(node, dict) and rng.random() < 0.2:
            odd = (7, None, 1.5, b"x", "", "a\nb", "\ud800", "model." * 50 + "x", "x" * 5000,
                   f"blocks.{'9' * 5000}.attn.W_Q")  # fmt: skip
            node[rng.choice(odd)] = node.pop(key)
        elif isinstance(value, torch.Tensor) and rng.random() < 0.7:
            node[key] = _odd_tensor(value, rng)
        elif isinstance(value, list) and rng.random() < 0.5:
            node[key] = rng.choice((value * 2, value[::-1], value[:1], torch.ones(2, 2), "12"))
        else:
            node[key] = rng.choice((
                None, True, -1, 0, 10, 2**53, 2**100, 1e308, float("nan"), float("inf"), -0.5, "",
                "x", "9" * 5000, b"x", [], [[]], ["1"], {}, (1,), torch.ones(3), torch.tensor(1.0),
            ))  # fmt: skip
    return data


def _mutated_archive(content: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    names = [info.filename for info, _ in members]
    kind = rng.randrange(5)
    if kind == 0:
        rng.shuffle(names)  # every member under another's name
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression=rng.choice((0, 0, 0, 8))) as archive:
        for name, (_, data) in zip(names, members, strict=True):
            if kind == 1 and rng.random() < 0.2:
                continue
            if kind == 2 or (kind == 3 and name.endswith("data.pkl")):
                data = _mutated(data, rng)
            if kind == 4 and rng.random() < 0.2:
                name = rng.choice((f"../{name}", f"/{name}", name + "x", "data.pkl"))
            archive.writestr(name, data)
    return buffer.getvalue()


def _mutated_json(content: bytes, rng: random.Random) -> bytes:
    """A manifest with another value somewhere and a right checksum."""
    values = json.loads(content)
    where = values
    while True:
        key = rng.choice(list(where) if isinstance(where, dict) else range(len(where)))
        if not (isinstance(where[key], (dict, list)) and where[key]) or rng.random() < 0.2:
            break
        where = where[key]
    where[key] = rng.choice((None, -1, 0, 2**70, 1e300, True, "", "x", [], {}, [1], "../../x"))
    values.pop("checksum", None)
    values["checksum"] = _checksum(values)
    return json.dumps(values).encode()


def look_at(path: Path) -> None:
    """Load a file and use all that it gives."""
    if path.suffix == ".csv":
        gi.detect_phases(path)
        return
    run = gi.load(path)
    run.verify()
    _ = run.metrics, run.train_mask
    _ = run.snapshot().logits
    _ = run.train_indices
    if run.architecture.transformer is not None:
        gi.export(run, path.with_name("exported.pth"))
    gi.import_run(path, path.with_name("imported")) if run.notes else None


def try_one(path: Path, look: Callable[[Path], object]) -> str:
    """What becomes of it, "run" or "refused"; anything else is raised."""
    try:
        look(path)
    except gi.InputError as error:
        line = str(error)
    else:
        return "run"
    assert "\n" not in line
    assert len(line) <= LONGEST
    return "refused"


def damaged(kind: str, source: Path, target: Path, rng: random.Random) -> None:
    """A damaged copy of a file of a kind of corpus."""
    match kind:
        case "texts":
            mutate_text(source, target, rng)
        case "logs":
            fuzz_logs.mutate(source, target, rng, _mutated)
        case _:
            mutate(source, target, rng)


def corpus_of(kind: str, folder: Path) -> dict[Path, Callable[[Path], object]]:
    """The files of a kind, and what is to be done with a damaged copy of each."""
    if kind == "logs":
        return fuzz_logs.corpus(folder)
    run = small_run(folder)
    return (
        fuzz_texts.corpus(folder, run)
        if kind == "texts"
        else dict.fromkeys(corpus(folder, run), look_at)
    )


def fuzz(n_files: int, seed: int = 0, *, kind: str = "files") -> dict[str, int]:
    """How many mutated files were read and refused; the first that does neither is kept."""
    rng = random.Random(seed)
    counts = {"run": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        looks = corpus_of(kind, folder)
        files = list(looks)
        for number in range(n_files):
            source = rng.choice(files)
            target = folder / f"mutated{''.join(source.suffixes[-2:])}"
            damaged(kind, source, target, rng)
            begin = time.process_time()
            try:
                counts[try_one(target, looks[source])] += 1
                assert time.process_time() - begin < SLOWEST, "too slow"
            except BaseException:
                kept = Path(tempfile.mkdtemp(prefix="fuzz-")) / target.name
                shutil.move(target, kept)
                sys.stderr.write(f"file {number} of seed {seed}, from {source.name}: {kept}\n")
                raise
            for made in (target, folder / "exported.pth", folder / "imported"):
                if made.is_dir():
                    shutil.rmtree(made)
                else:
                    made.unlink(missing_ok=True)
            assert not list(folder.glob(".*")), "something was left behind"
    return counts


def forbid() -> None:
    """End the process if anything is executed; there is no way back from an audit hook."""

    def watch(event: str, arguments: tuple) -> None:
        if event.startswith(FORBIDDEN):
            raise SystemExit(f"executed: {event} {arguments}")

    sys.addaudithook(watch)


def main() -> None:
    """Fuzz as many files as asked for, within four gigabytes of memory."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n_files", type=int, nargs="?", default=1000)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("kind", choices=("files", "texts", "logs"), nargs="?", default="files")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:  # everything imported and warm
        for path, look in corpus_of(asked.kind, Path(name)).items():
            with contextlib.suppress(gi.InputError):
                look(path)
    limit = 8 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    forbid()
    begin = time.monotonic()
    counts = fuzz(asked.n_files, asked.seed, kind=asked.kind)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    took = time.monotonic() - begin
    print(f"{asked.n_files} {asked.kind}: {counts}, {took:.0f} s, peak {peak:.2f} GB")


if __name__ == "__main__":
    main()
