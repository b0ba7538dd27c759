"""Checkpoints as others write them, made from a run of ours by independent code.

The transpositions are spelt out with plain torch, not taken from the package's layout tables.
"""

import json
import random
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

import grokinterp as gi


def paper_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The released code of Nanda et al. 2023: [out, in] matrices, heads merged in W_O."""
    n_ctx = len(weights["pos_embed.W_pos"])
    state = {
        "embed.W_E": weights["embed.W_E"].T.clone(),
        "pos_embed.W_pos": weights["pos_embed.W_pos"].clone(),
    }
    for layer in range(sum(name.endswith("attn.W_O") for name in weights)):
        block = f"blocks.{layer}."
        w = {name.removeprefix(block): weight for name, weight in weights.items()}
        heads, d_head, d_model = w["attn.W_O"].shape
        state |= {
            **{f"{block}attn.W_{x}": w[f"attn.W_{x}"].transpose(1, 2).clone() for x in "KQV"},
            f"{block}attn.W_O": w["attn.W_O"].reshape(heads * d_head, d_model).T.clone(),
            f"{block}attn.mask": torch.tril(torch.ones(n_ctx, n_ctx)),
            f"{block}mlp.W_in": w["mlp.W_in"].T.clone(),
            f"{block}mlp.b_in": w["mlp.b_in"].clone(),
            f"{block}mlp.W_out": w["mlp.W_out"].T.clone(),
            f"{block}mlp.b_out": w["mlp.b_out"].clone(),
        }
    return {**state, "unembed.W_U": weights["unembed.W_U"].clone()}


def bridge_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """TransformerBridge of TransformerLens 4: torch.nn.Linear everywhere."""
    state = {}
    for name, weight in weights.items():
        *path, last = name.split(".")
        where = ".".join(path)
        if last in ("W_E", "W_pos"):
            state[f"{where}.weight"] = weight
        elif last in ("w", "b"):
            state[f"{where}.{'weight' if last == 'w' else 'bias'}"] = weight
        elif last in ("W_Q", "W_K", "W_V"):
            flat = torch.cat(list(weight), dim=1)  # [d_model, heads * d_head]
            state[f"{where}.{last[-1].lower()}.weight"] = flat.T.clone()
        elif last in ("b_Q", "b_K", "b_V"):
            state[f"{where}.{last[-1].lower()}.bias"] = weight.flatten()
        elif last == "W_O":
            state[f"{where}.o.weight"] = torch.cat(list(weight), dim=0).T.clone()
        elif last == "b_O":
            state[f"{where}.o.bias"] = weight
        elif last in ("W_in", "W_out"):
            state[f"{where}.{last[2:]}.weight"] = weight.T.clone()
        elif last in ("b_in", "b_out"):
            state[f"{where}.{last[2:]}.bias"] = weight
        elif last == "W_U":
            state[f"{where}.weight"] = weight.T.clone()
        elif last == "b_U":
            state[f"{where}.bias"] = weight
        else:
            raise AssertionError(name)
    return state


def gpt_state(weights: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """A small GPT with a fused query-key-value matrix, under names of somebody's choice."""
    bridge = bridge_state(weights)
    state = {}
    for key, weight in bridge.items():
        if ".attn.q." in key:
            fused = [bridge[key.replace(".q.", f".{x}.")] for x in "qkv"]
            key, weight = key.replace(".q.", ".qkv."), torch.cat(fused)
        elif ".attn.k." in key or ".attn.v." in key:
            continue
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[key] = weight
    return state


def paper_file(run: gi.Run, path: Path, *, split_seed: int | None = None) -> Path:
    """`full_run_data.pth`: losses before the update of their epoch, weights after it."""
    steps = [step for step in run.steps if step > 0]
    epochs = steps[-1]
    metrics = run.metrics.set_index("step")
    every = metrics.reindex(range(epochs)).interpolate()
    content = {
        "train_losses": every["train_loss"].tolist(),
        "test_losses": every["test_loss"].tolist()[::10],
        "epochs": [step - 1 for step in steps],
        "state_dicts": [paper_state(run.weights(step)) for step in steps],
        "model": paper_state(run.weights(steps[-1])),
        "config": {
            "lr": 1e-3, "p": run.task.p, "d_model": run.architecture.d_model, "fn_name": "add",
            "frac_train": 0.5, "num_epochs": epochs, "save_every": 20, "seed": split_seed or 0,
        },
    }  # fmt: skip
    torch.save(content, path)
    return path


def trainer_folder(run: gi.Run, folder: Path) -> Path:
    """The folder of the paper's Trainer: init.pth, <epoch>.pth, final.pth."""
    folder.mkdir()
    p = run.task.p
    pairs = [(row // p, row % p, p) for row in range(p * p)]
    train = [pairs[row] for row in run.train_indices.tolist()]
    test = [pair for pair in pairs if pair not in set(train)]
    init = {"model": paper_state(run.weights(0)), "train_data": train, "test_data": test}
    torch.save(init, folder / "init.pth")
    losses = run.metrics.set_index("step")
    for step in run.steps[1:-1]:
        epoch = step - 1
        content = {
            "model": paper_state(run.weights(step)),
            "train_loss": float(losses.loc[step, "train_loss"]),
            "test_loss": float(losses.loc[step, "test_loss"]),
            "epoch": epoch,
        }
        torch.save(content, folder / f"{epoch}.pth")
    last = run.steps[-1]
    every = losses.reindex(range(last)).interpolate()
    content = {
        "model": paper_state(run.weights(last)),
        "train_losses": every["train_loss"].tolist(),
        "test_losses": every["test_loss"].tolist(),
        "train_loss": 0.0,
        "test_loss": 0.0,
        "epoch": 50_000,  # what was planned, not what was run
    }
    torch.save(content, folder / "final.pth")
    return folder


def python_split(n_inputs: int, n_train: int, seed: int) -> list[int]:
    """Training rows by random.shuffle."""
    rows = list(range(n_inputs))
    random.Random(seed).shuffle(rows)
    return rows[:n_train]


class Net(nn.Module):
    """A model of somebody's own class, with HookedTransformer's names."""

    def __init__(self, weights):
        super().__init__()
        for name, weight in weights.items():
            *path, last = name.split(".")
            place = self
            for each in path:
                if each not in place._modules:
                    place.add_module(each, nn.Module())
                place = place._modules[each]
            place.register_parameter(last, nn.Parameter(weight.clone()))
        self.register_buffer("seen", torch.zeros(3), persistent=False)
        self.activation = torch.nn.functional.relu


def in_parts(weights, folder, ending, n=2):
    """The weights in n files with an index."""
    stem = {"safetensors": "model", "bin": "pytorch_model"}[ending]
    save = safetensors.torch.save_file if ending == "safetensors" else torch.save
    where = {}
    for i in range(n):
        part = f"{stem}-{i + 1:05d}-of-{n:05d}.{ending}"
        held = dict(list(weights.items())[i::n])
        save(held, folder / part)
        where |= dict.fromkeys(held, part)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index
