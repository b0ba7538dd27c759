"""One table of curves written as every kind of log: what tests read back, and what fuzzing damages.

A writer takes a table with the columns of metrics.csv and a folder, and returns the path of a file
or folder and the arguments that are needed to read it, most often none.
"""

import bz2
import gzip
import io
import json
import lzma
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

Written = tuple[Path, dict[str, Any]]
WRITERS: dict[str, Callable[[pd.DataFrame, Path], Written]] = {}
CURVES = ("train_loss", "test_loss", "train_acc", "test_acc")


def writer(function: Callable[[pd.DataFrame, Path], Any]) -> Callable[[pd.DataFrame, Path], Any]:
    """Add a writer under its name."""

    def write(frame: pd.DataFrame, folder: Path) -> Written:
        folder.mkdir(parents=True, exist_ok=True)
        found = function(frame, folder)
        return found if isinstance(found, tuple) else (found, {})

    WRITERS[function.__name__] = write
    return function


def text(path: Path, content: str) -> Path:
    """A text file with this content."""
    path.write_text(content)
    return path


def curves(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """The columns as lists."""
    return {name: frame[name].tolist() for name in frame}


@writer
def csv_file(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "log.csv", frame.to_csv(index=False))


@writer
def csv_with_the_index_of_pandas(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "log.csv", frame.to_csv())


@writer
def tsv_file(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "log.tsv", frame.to_csv(index=False, sep="\t"))


@writer
def semicolons_and_decimal_commas(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "log.csv", frame.to_csv(index=False, sep=";", decimal=","))


@writer
def tabs_and_decimal_commas_in_txt(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "log.txt", frame.to_csv(index=False, sep="\t", decimal=","))


@writer
def bars(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "curves", frame.to_csv(index=False, sep="|"))


@writer
def spaces_in_dat(frame: pd.DataFrame, folder: Path) -> Any:
    return text(
        folder / "log.dat", frame.to_string(index=False, float_format=lambda x: repr(float(x)))
    )


@writer
def savetxt_with_a_header(frame: pd.DataFrame, folder: Path) -> Any:
    path = folder / "log.txt"
    np.savetxt(path, frame.to_numpy(), fmt="%.17g", header=" ".join(frame))
    return path


@writer
def headerless_by_number(frame: pd.DataFrame, folder: Path) -> Any:
    columns = {name: str(i) for i, name in enumerate(frame)}
    return text(folder / "x.csv", frame.to_csv(index=False, header=False)), {"columns": columns}


@writer
def headerless_in_order(frame: pd.DataFrame, folder: Path) -> Any:
    path = folder / "log.txt"
    np.savetxt(path, frame.to_numpy(), fmt="%.17g")
    return path, {"columns": ",".join(frame)}


@writer
def comments_before(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "log.csv", "# lr=1e-3\n# seed 0\n" + frame.to_csv(index=False))


@writer
def names_in_capitals(frame: pd.DataFrame, folder: Path) -> Any:
    names = {name: name.replace("_", " ").title() for name in frame}
    return text(folder / "log.csv", frame.rename(columns=names).to_csv(index=False))


@writer
def percent_with_signs(frame: pd.DataFrame, folder: Path) -> Any:
    said = {x: [f"{100 * v!r} %" for v in frame[x]] for x in ("train_acc", "test_acc")}
    return text(folder / "log.csv", frame.assign(**said).to_csv(index=False))


@writer
def error_rates(frame: pd.DataFrame, folder: Path) -> Any:
    errors = {f"{x}_error": 1 - frame[f"{x}_acc"] for x in ("train", "test")}
    kept = frame.drop(columns=["train_acc", "test_acc"]).assign(**errors)
    return text(folder / "log.csv", kept.to_csv(index=False))


@writer
def error_rates_in_percent(frame: pd.DataFrame, folder: Path) -> Any:
    errors = {
        f"{theirs} err": 100 * (1 - frame[f"{ours}_acc"])
        for ours, theirs in (("train", "train"), ("test", "valid"))
    }
    kept = frame.drop(columns=["train_acc", "test_acc"]).assign(**errors)
    return text(folder / "log.csv", kept.to_csv(index=False))


@writer
def keras_history_csv(frame: pd.DataFrame, folder: Path) -> Any:
    names = {"step": "epoch", "train_loss": "loss", "test_loss": "val_loss",
             "train_acc": "accuracy", "test_acc": "val_accuracy"}  # fmt: skip
    return text(folder / "training.log", frame.rename(columns=names).to_csv(index=False))


@writer
def wandb_page(frame: pd.DataFrame, folder: Path) -> Any:
    named = frame.rename(columns={"step": "Step"})
    named.columns = [x if x == "Step" else f"fancy-sun-7 - {x}" for x in named]
    for name in list(named)[1:]:
        named[f"{name}__MIN"], named[f"{name}__MAX"] = named[name], named[name]
    return text(folder / "wandb_export_2026.csv", named.to_csv(index=False))


@writer
def wandb_history(frame: pd.DataFrame, folder: Path) -> Any:
    rows = [
        {"_step": 2 * i, "_runtime": i * 0.5, "_timestamp": 1.7e9 + i, "global_step": row["step"],
         "train": {"loss": row["train_loss"], "acc": row["train_acc"]},
         "eval/loss": row["test_loss"], "eval/acc": row["test_acc"]}
        for i, row in enumerate(frame.to_dict("records"))
    ]  # fmt: skip
    return text(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


@writer
def lightning_csv(frame: pd.DataFrame, folder: Path) -> Any:
    train = frame[["step", "train_loss", "train_acc"]].assign(epoch=frame["step"] // 7)
    test = frame[["step", "test_loss", "test_acc"]].assign(epoch=frame["step"] // 7)
    test = test.rename(columns={"test_loss": "val_loss", "test_acc": "val_acc"})
    both = pd.concat([train, test]).sort_values("step", kind="stable")
    (folder / "hparams.yaml").write_text("lr: 0.001\n")
    text(folder / "metrics.csv", both.to_csv(index=False))
    return folder


@writer
def json_records(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "log.json", json.dumps(frame.to_dict("records")))


@writer
def json_columns(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "log.json", json.dumps(curves(frame)))


@writer
def json_of_pandas(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "log.json", frame.to_json(double_precision=15))


@writer
def json_of_pandas_split(frame: pd.DataFrame, folder: Path) -> Any:
    return text(folder / "log.json", frame.to_json(orient="split", double_precision=15))


@writer
def json_by_side(frame: pd.DataFrame, folder: Path) -> Any:
    sides = {
        side: {"acc": frame[f"{side}_acc"].tolist(), "loss": frame[f"{side}_loss"].tolist()}
        for side in ("train", "test")
    }
    return text(folder / "log.json", json.dumps({"steps": frame["step"].tolist(), **sides}))


@writer
def json_by_measure(frame: pd.DataFrame, folder: Path) -> Any:
    data = {
        kind: {side: frame[f"{side}_{kind}"].tolist() for side in ("train", "test")}
        for kind in ("loss", "acc")
    }
    data = {"config": {"p": 113, "lr": 1e-3}, "metrics": {"epochs": frame["step"].tolist(), **data}}
    return text(folder / "results.json", json.dumps(data))


@writer
def json_by_step(frame: pd.DataFrame, folder: Path) -> Any:
    data = {str(row.pop("step")): row for row in frame.to_dict("records")}
    return text(folder / "log.json", json.dumps(data))


@writer
def json_pairs(frame: pd.DataFrame, folder: Path) -> Any:
    data = {
        name: [[step, value] for step, value in zip(frame["step"], frame[name], strict=True)]
        for name in CURVES
    }
    return text(folder / "log.json", json.dumps(data))


@writer
def json_lists_with_their_own_steps(frame: pd.DataFrame, folder: Path) -> Any:
    data = {"train_steps": frame["step"].tolist(), "eval_steps": frame["step"].tolist()[::-1]}
    data |= {name: frame[name].tolist() for name in ("train_loss", "train_acc")}
    data |= {name.replace("test", "eval"): frame[name].tolist()[::-1]
             for name in ("test_loss", "test_acc")}  # fmt: skip
    return text(folder / "log.json", json.dumps(data))


@writer
def jsonl_rows_of_sides(frame: pd.DataFrame, folder: Path) -> Any:
    rows = []
    for row in frame.to_dict("records"):
        for side in ("train", "test"):
            rows.append({"step": row["step"], "split": side, "loss": row[f"{side}_loss"],
                         "acc": row[f"{side}_acc"]})  # fmt: skip
    return text(folder / "log.jsonl", "\n".join(map(json.dumps, rows)))


@writer
def hugging_face_state(frame: pd.DataFrame, folder: Path) -> Any:
    history = []
    for row in frame.to_dict("records"):
        about = {"epoch": row["step"] / 7, "step": row["step"]}
        history += [
            {"loss": row["train_loss"], "train_accuracy": row["train_acc"], **about},
            {"eval_loss": row["test_loss"], "eval_accuracy": row["test_acc"], "eval_runtime": 0.1,
             **about},
        ]  # fmt: skip
    last = frame["step"].iloc[-1]
    history.append({"train_runtime": 9.0, "train_loss": 0.5, "epoch": 99.0, "step": int(last)})
    state = {"global_step": int(last), "log_history": history, "is_world_process_zero": True}
    text(folder / "trainer_state.json", json.dumps(state))
    return folder


@writer
def long_table(frame: pd.DataFrame, folder: Path) -> Any:
    long = frame.melt("step", var_name="metric", value_name="value")
    return text(folder / "log.csv", long.to_csv(index=False))


@writer
def npz_file(frame: pd.DataFrame, folder: Path) -> Any:
    np.savez_compressed(folder / "log.npz", **{x: frame[x].to_numpy() for x in frame})
    return folder / "log.npz"


@writer
def npy_structured(frame: pd.DataFrame, folder: Path) -> Any:
    np.save(folder / "log.npy", frame.to_records(index=False))
    return folder / "log.npy"


@writer
def npy_matrix(frame: pd.DataFrame, folder: Path) -> Any:
    np.save(folder / "log.npy", frame.to_numpy())
    return folder / "log.npy", {"columns": {name: i for i, name in enumerate(frame)}}


@writer
def torch_dictionary(frame: pd.DataFrame, folder: Path) -> Any:
    data = {name: torch.tensor(frame[name].to_numpy()) for name in frame}
    torch.save({"history": {**data, "its": data.pop("step")}}, folder / "curves.pt")
    return folder / "curves.pt"


@writer
def pickled_lists(frame: pd.DataFrame, folder: Path) -> Any:
    (folder / "history.pkl").write_bytes(pickle.dumps(curves(frame)))
    return folder / "history.pkl"


@writer
def pickled_records_of_numpy(frame: pd.DataFrame, folder: Path) -> Any:
    rows = [{x: np.float64(v) for x, v in row.items()} for row in frame.to_dict("records")]
    (folder / "history.pkl").write_bytes(pickle.dumps(rows))
    return folder / "history.pkl"


@writer
def parquet_file(frame: pd.DataFrame, folder: Path) -> Any:
    frame.to_parquet(folder / "log.parquet")
    return folder / "log.parquet"


@writer
def parquet_by_its_index(frame: pd.DataFrame, folder: Path) -> Any:
    frame.set_index("step").to_parquet(folder / "log.pq")
    return folder / "log.pq"


@writer
def lines_of_pairs(frame: pd.DataFrame, folder: Path) -> Any:
    lines = [
        f"[2026-01-01 10:00:00,123] INFO step={int(r['step']):,} train/loss={r['train_loss']!r} "
        f"(train/accuracy={r['train_acc']!r}) | test/loss={r['test_loss']!r} "
        f"test/accuracy={r['test_acc']!r} lr=1e-3 best_test_loss=0.0"
        for r in frame.to_dict("records")
    ]
    return text(folder / "train.log", "starting on 2 devices\n" + "\n".join(lines) + "\ndone\n")


@writer
def lines_of_tutorials(frame: pd.DataFrame, folder: Path) -> Any:
    lines = []
    for r in frame.to_dict("records"):
        lines.append(f"Epoch [{int(r['step'])}/99999], Train Loss: {r['train_loss']!r}, "
                     f"Train Acc: {100 * r['train_acc']!r}%")  # fmt: skip
        lines.append(f"  val loss {r['test_loss']!r}, val acc {100 * r['test_acc']!r} %")
    return text(folder / "out.txt", "\n".join(lines))


@writer
def printed_dictionaries(frame: pd.DataFrame, folder: Path) -> Any:
    rows = [
        str({"loss": r["train_loss"], "accuracy": r["train_acc"], "eval_loss": r["test_loss"],
             "eval_accuracy": r["test_acc"], "step": int(r["step"])})
        for r in frame.to_dict("records")
    ]  # fmt: skip
    return text(folder / "slurm-17.out", "\n".join(rows))


@writer
def event_files(frame: pd.DataFrame, folder: Path) -> Any:
    events(frame, folder, {"train_loss": "Loss/train", "test_loss": "Loss/test",
                           "train_acc": "Accuracy/train", "test_acc": "Accuracy/test"})  # fmt: skip
    return folder


@writer
def event_files_of_keras(frame: pd.DataFrame, folder: Path) -> Any:
    for side, name in (("train", "train"), ("test", "validation")):
        events(frame, folder / "logs" / name,
               {f"{side}_loss": "epoch_loss", f"{side}_acc": "epoch_accuracy"})  # fmt: skip
    return folder / "logs"


@writer
def gzipped(frame: pd.DataFrame, folder: Path) -> Any:
    (folder / "log.csv.gz").write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    return folder / "log.csv.gz"


@writer
def packed_by_bzip2(frame: pd.DataFrame, folder: Path) -> Any:
    content = json.dumps(curves(frame)).encode()
    (folder / "log.json.bz2").write_bytes(bz2.compress(content))
    return folder / "log.json.bz2"


@writer
def packed_by_xz(frame: pd.DataFrame, folder: Path) -> Any:
    rows = "\n".join(map(json.dumps, frame.to_dict("records")))
    (folder / "rows.jsonl.xz").write_bytes(lzma.compress(rows.encode()))
    return folder / "rows.jsonl.xz"


@writer
def gzipped_parquet(frame: pd.DataFrame, folder: Path) -> Any:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    (folder / "log.parquet.gz").write_bytes(gzip.compress(buffer.getvalue()))
    return folder / "log.parquet.gz"


def events(frame: pd.DataFrame, folder: Path, tags: dict[str, str]) -> None:
    """An event file of TensorBoard, written by its own writer."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    out = EventFileWriter(str(folder))
    for row in frame.to_dict("records"):
        for name, tag in tags.items():
            value = Summary.Value(tag=tag, simple_value=row[name])
            out.add_event(Event(wall_time=1.7e9, step=int(row["step"]),
                                summary=Summary(value=[value])))  # fmt: skip
    out.close()
