"""Odd calls of the Python surface, and what comes of each: run as `python -m tests.odd_calls`.

In a process of its own, since the suite checks the annotations of every call and users' Python does
not. A line is a call; `# result` behind it says that it gives one, all others are refused. Prints a
line of JSON a call: the call, whether a result is promised, the exception that came ("" for none),
its text, and the seconds.
"""

import json
import resource
import signal
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import grokinterp as gi
from grokinterp import circuits, encodings, fourier, progress, tasks, training, viz
from grokinterp.circuits import hooks
from grokinterp.progress import Thresholds, measure
from grokinterp.recipe import checkpoint_steps, find_recipe, parse_setting
from grokinterp.tasks import operation, train_indices

CALLS = """
## gi.ModularTask
gi.ModularTask(None, 7)
gi.ModularTask(["add"], 7)
gi.ModularTask("", 7)
gi.ModularTask("add" * 300, 7)
gi.ModularTask("add", "7")
gi.ModularTask("add", 7.0)
gi.ModularTask("add", np.nan)
gi.ModularTask("add", np.int64(7))  # result
gi.ModularTask("add", BIG)
gi.ModularTask("add", -BIG)
gi.ModularTask("add", 10_001)
gi.ModularTask("add", [7])
gi.ModularTask("add", 7, "yes")
gi.ModularTask("add", 7, None)  # result
gi.ModularTask("add", 7, 1)
gi.ModularTask("random", 7, seed="a")
gi.ModularTask("random", 7, seed=1.5)
gi.ModularTask("random", 7, seed=BIG)
gi.ModularTask("random", 7, seed=-1).labels  # result
task.mirrored({1, 2})
task.mirrored(torch.zeros(48, dtype=torch.bool))
task.mirrored("abc")
tasks.task_from_dict("add")
tasks.task_from_dict({"task": "modlar"})
tasks.task_from_dict({"task": ["modular"]})
tasks.task_from_dict({"operation": "add", "modulus": 7})
tasks.task_from_dict({"operation": "add"})
tasks.unmirrored_rows(task, {1, 2})
tasks.unmirrored_rows("add", mask)
train_indices(49, "half", rule="torch", seed=0)
train_indices(49, 0.5, rule="numpy", seed=0)
train_indices(49, 0.5, rule=["torch"], seed=0)
train_indices(49, 0.5, rule="torch", seed="a")
train_indices(-1, 0.5, rule="torch", seed=0)
train_indices(49, float("nan"), rule="torch", seed=0)

## gi.IsingTask
gi.IsingTask("16")
gi.IsingTask(16.0)
gi.IsingTask(BIG)
gi.IsingTask(4, n_train=[3])
gi.IsingTask(4, half_width="1")
gi.IsingTask(4, half_width=float("inf"))
gi.IsingTask(4, half_width=BIG)
gi.IsingTask(4, half_width=True)
gi.IsingTask(4, seed=-1)
tasks.ising.energies([1, -1])
tasks.ising.energies(torch.zeros(1, 4, 4))
tasks.ising.magnetizations("up")

## operations
operation("add")(lambda a, b, p: a)
operation("sub")(lambda a, b, p: a)
operation("")(lambda a, b, p: a)
operation("two words")(lambda a, b, p: a)
operation(5)(lambda a, b, p: a)
operation(lambda a, b, p: a)
operation("odd_group", group="divide")(lambda a, b, p: a)
operation("odd_group", group=["add"])(lambda a, b, p: a)
operation("odd_seeded", seeded="yes")(lambda a, b, p: a)
operation("odd_none")(None)
operation("odd_few")(lambda a: a)
gi.ModularTask("twice_a_plus_b_in_add", 7)
gi.ModularTask("sum_in_subtract", 7)
gi.ModularTask("sum_in_multiply", 6)
gi.ModularTask("too_large", 7)
gi.ModularTask("negative", 7)
gi.ModularTask("halves", 7)
gi.ModularTask("not_a_number", 7)
gi.ModularTask("imaginary", 7)
gi.ModularTask("truth", 7)
gi.ModularTask("too_few", 7)
gi.ModularTask("square", 7)
gi.ModularTask("one_number", 7)
gi.ModularTask("nothing", 7)
gi.ModularTask("text", 7)
gi.ModularTask("fails", 7)
gi.ModularTask("quits", 7)
gi.ModularTask("dice", 7)
gi.ModularTask("numpy_labels", 7)  # result
gi.ModularTask("in_place", 7)  # result
gi.Recipe(operation="halves", p=7)

## measures
measure("train_loss")(lambda snapshot: 0.0)
measure("step")(lambda snapshot: 0.0)
measure("test_acc_unmirrored")(lambda snapshot: 0.0)
measure("")(lambda snapshot: 0.0)
measure(3)(lambda snapshot: 0.0)
measure("odd", of="lattice")(lambda snapshot: 0.0)
measure("odd", prefix=3)(lambda snapshot: 0.0)
measure("odd", needs_frequencies=True)(lambda snapshot: 0.0)
measure("odd")(0.5)
measured_with(lambda snapshot: "much")
measured_with(lambda snapshot: None)
measured_with(lambda snapshot: 1j)
measured_with(lambda snapshot: torch.ones(3))
measured_with(lambda snapshot: {"a": "b"})
measured_with(lambda snapshot: 1 / 0)
measured_with(lambda snapshot: snapshot.nothing)
measured_with(lambda snapshot: {"train_loss": 1.0}, prefix="")
measured_with(lambda snapshot: np.float32(2))  # result
measured_with(lambda snapshot: torch.tensor(2))  # result
progress.measure_snapshot("runs/mine", [1])
progress.measure_snapshot(snap, "1")
progress.measure_snapshot(snap, [4])
progress.restricted_loss(snap, ["1"])
progress.excluded_loss(snap, None)
progress.trig_loss(run, [1])  # result

## gi.Recipe
gi.Recipe(p="7")
gi.Recipe(p=None)
gi.Recipe(p=BIG)
gi.Recipe(p=7.5)
gi.Recipe(p=float("inf"))
gi.Recipe(task=None)
gi.Recipe(task=["modular"])
gi.Recipe(model=7)
gi.Recipe(operation={"add"})
gi.Recipe(lr="fast")
gi.Recipe(lr=float("nan"))
gi.Recipe(lr=BIG)
gi.Recipe(lr=0)
gi.Recipe(weight_decay=[1])
gi.Recipe(steps=10**30)
gi.Recipe(steps="many")
gi.Recipe(checkpoints=None)
gi.Recipe(checkpoints="every:0")
gi.Recipe(checkpoints="every:" + "9" * 5000)
gi.Recipe(checkpoints="log:" + "9" * 12)
gi.Recipe(checkpoints=[1, "a"])
gi.Recipe(checkpoints=[BIG])
gi.Recipe(checkpoints={1, 2})
gi.Recipe(betas=0.9)
gi.Recipe(betas=["a", "b"])
gi.Recipe(betas=[BIG, 0])
gi.Recipe(model="mlp", widths=[0])
gi.Recipe(model="mlp", widths=[-5])
gi.Recipe(model="mlp", widths="64")
gi.Recipe(task="ising", channels=[0])
gi.Recipe(task="ising", channels=[])
gi.Recipe(train_fraction="half")
gi.Recipe(train_fraction=float("nan"))
gi.Recipe(train_fraction=2)
gi.Recipe(train_fraction=1e-9)
gi.Recipe(seed=-1)
gi.Recipe(device=0)
gi.Recipe(d_model=10**6)
recipe.replace(modulus=11)
recipe.replace(seed=np.float64("nan"))
recipe.replace(task="ising", p=7)
recipe.replace(model=None)  # result
gi.Recipe.from_dict("p=7")
gi.Recipe.from_dict({7: 7})
gi.Recipe.from_dict(None)
gi.Recipe.from_dict([("p", 7)])
gi.Recipe.from_toml("nowhere.toml")
gi.Recipe.from_toml(out)
gi.Recipe.from_toml(None)
gi.Recipe.from_toml("a\\0b")
gi.Recipe.from_toml(b"bytes.toml")
gi.Recipe.from_toml(file("p = 7\\np = 7"))
gi.Recipe.from_toml(file("p = " + "9" * 5000))
gi.Recipe.from_toml(file("p = 2026-01-01"))
gi.Recipe.from_toml(file("[p]\\nq = 7"))
gi.Recipe.from_toml(file("a = " + "[" * 3000))
find_recipe("mod31-groked")
find_recipe(3)
find_recipe("a\\0b")
find_recipe("long" * 5000)
parse_setting(5)
parse_setting("p")
checkpoint_steps(5, 10)
checkpoint_steps("every:2", "10")
checkpoint_steps("every:2", 10**30)
checkpoint_steps("every:1", 10**9)

## gi.load
gi.load(5)
gi.load(None)
gi.load("")
gi.load("a\\0b")
gi.load("long" * 5000)
gi.load("nowhere")
gi.load(["a", "b"])
gi.load(run.path, format="zip")
gi.load(run.path, format=3)
gi.load(run.path, p=7)
gi.load(run.path, no_such_setting=1)
gi.load(b"bytes")

## gi.train
gi.train("mod31-groked", out)
gi.train(None, out)
gi.train({"p": 7}, out)
gi.train(recipe, None)
gi.train(recipe, "a\\0b")
gi.train(recipe, run.path)
gi.train(recipe, text_file)
gi.train(recipe, Path(text_file) / "below")
gi.train(recipe, "/proc/grokinterp")
gi.train(recipe, "long" * 5000)
gi.train(recipe.replace(seed=5), run.path, resume=True)
gi.train(recipe, new, resume="yes")
gi.train(recipe.replace(device="abacus"), new)
training.train_ensemble(recipe, new)
training.train_ensemble(None, new)
training.train_ensemble([], new)
training.train_ensemble([recipe, 3], new)
training.train_ensemble([recipe, recipe.replace(p=11)], new)
training.train_ensemble([recipe, recipe.replace(seed=1)], [new])
training.train_ensemble([recipe, recipe.replace(seed=1)], [new, new])
training.train_ensemble([recipe, recipe.replace(seed=1)], None)
training.train_ensemble([recipe, recipe.replace(seed=1)], new, when="now")
training.train_ensemble([recipe, recipe.replace(seed=1)], new, when=["always"])
training.verify("runs/mine")
training.verify(run, steps="all")
training.verify(run, steps=0)
training.verify(run, steps=BIG)  # result
training.faster_as_ensemble([recipe, None])
training.faster_as_ensemble([recipe], seconds="long")
training.groups({"a": recipe}, "two")
training.groups([recipe], 2)

## training.Sweep
training.Sweep(None, ())
training.Sweep(recipe, ())
training.Sweep(recipe, [{"seed": (0, 1)}])
training.Sweep(recipe, ({"seed": 3},))
training.Sweep(recipe, ({"seed": "01"},))
training.Sweep(recipe, ({"seed": ()},))
training.Sweep(recipe, ({"sead": (0, 1)},))
training.Sweep(recipe, ({3: (0, 1)},))
training.Sweep(recipe, ({"seed": (0, 0)},))
training.Sweep(recipe, ({"seed": (0, "a")},))
training.Sweep(recipe, ({"seed": (0, 1)},), measures=("nothing",), ensemble=1.5)
training.Sweep(recipe, ({"seed": (0, 1)},), measures=3)
training.Sweep(recipe, ({"seed": (0, 1)},), measures=(3,))
training.Sweep(recipe, ({"seed": range(10**6)},))
training.Sweep.from_toml("nowhere.toml")
training.Sweep.from_toml(None)
training.Sweep.from_toml(out)
training.Sweep.from_toml(file("seeds = 2"))  # result
training.Sweep.from_toml(file("seeds = [[]]"))
training.Sweep.from_toml(file("[[axes]]\\nlr = {log = [0, 1], n = 3}"))
training.Sweep.from_toml(file("[[axes]]\\nlr = {linear = [0.1, 1], n = 1e30}"))
training.Sweep.from_toml(file("[[axes]]\\nlr = {linear = ['a', 'b'], n = 3}"))
training.run_sweep(sweep, None)
training.run_sweep(sweep, "a\\0b")
training.run_sweep(sweep, text_file)
training.run_sweep(sweep, new, executor=["local"])
training.run_sweep(sweep, new, executor="slurm")
training.run_sweep(sweep, new, workers=0)
training.run_sweep(sweep, new, workers="two")
training.run_sweep(sweep, new, threads=2.5)
training.run_sweep(sweep, new, address="here")
training.run_sweep(sweep, new, measure="sizes")
training.run_sweep(sweep, "nothing://there")

## gi.controls
gi.controls(None)
gi.controls(3)
gi.controls(b"mlp31")
gi.controls("mlp32")
gi.controls(text_file)
gi.controls("a\\0b")
gi.controls(recipe.build_task())
gi.controls("mlp31", only=3)
gi.controls("mlp31", only="")
gi.controls("mlp31", only=[[]])
gi.controls("mlp31", only=(x for x in ["no_decay"]))  # result
gi.controls("mlp31", seeds=None)
gi.controls("mlp31", seeds=True)
gi.controls("mlp31", seeds=BIG)
gi.controls("mlp31", seeds=np.int64(2))  # result
gi.controls(gi.recipes()["mlp31"].replace(seed=2**40))

## gi.Run
run.weights(1.5)
run.weights("last")
run.weights(None)
run.weights(True)
run.weights(10**30)
run.weights(BIG)
run.weights(-2)
run.weights(np.int64(20))["embed.W_E"]  # result
run.weights(torch.tensor(20))["embed.W_E"]  # result
run.weights(torch.tensor([20, 40]))
run.weights([20])
run.model(np.nan)
run.model("20")
run.snapshot(float("inf"))
run.snapshot(slice(2))
gi.Run(None)
gi.Run(5)
gi.Run("nowhere")

## gi.snapshot
gi.snapshot(None, task)
gi.snapshot(model, None)
gi.snapshot(model, "add")
gi.snapshot(model, gi.ModularTask)
gi.snapshot(type(model), task)
gi.snapshot(torch.nn.Linear(2, 2), task)
gi.snapshot(model.state_dict(), task)
gi.snapshot(model, gi.ModularTask("add", 5))
gi.snapshot(model, gi.IsingTask(4, n_train=3, n_test=3, sweeps=1))
gi.snapshot(model, task, train_mask={1, 2, 3})
gi.snapshot(model, task, train_mask="abc")
gi.snapshot(model, task, train_mask=[0, 1])
gi.snapshot(model, task, train_mask=mask.float())
gi.snapshot(model, task, train_mask=mask[:-1])
gi.snapshot(model, task, train_mask={"a": 1})
gi.snapshot(model, task, train_mask=pd.Series(["a"] * 49))
gi.snapshot(model, task, train_mask=object())
gi.snapshot(model, task, train_mask=True)
gi.snapshot(model, task, train_mask=mask.numpy())  # result
gi.snapshot(model, task, train_mask=mask.tolist())  # result
gi.snapshot(model, task, step="5")
gi.snapshot(model, task, step=-3)
gi.snapshot(model, task, step=1.5)
snap.activation("blocks.0.mlp.hook_psot")
snap.activation(None)
snap.activation(["a"])
snap.logits_with(None)
snap.logits_with({"embed.W_E": torch.ones(2)})
snap.logits_with(run.weights(), rows="test")
snap.logits_with(run.weights(), rows=[1, 2])  # result
snap.logits_with(run.weights(), rows=torch.tensor([49]))
snap.tally(None)

## gi.Watch
gi.Watch(None, task=task)
gi.Watch(new, task="add")
gi.Watch(new, task=task, every=0)
gi.Watch(new, task=task, every=2.5)
gi.Watch(new, task=task, every=np.nan)
gi.Watch(new, task=task, every="100")
gi.Watch(new, task=task, every=BIG)  # result
gi.Watch(new, task=task, measures="restricted_loss")
gi.Watch(new, task=task, measures=[1])
gi.Watch(new, task=task, measures=5)
gi.Watch(new, task=task, frequencies=4)
gi.Watch(new, task=task, frequencies=["a"])
gi.Watch(new, task=task, frequencies=[BIG])
gi.Watch(new, task=task)(0, None)
gi.Watch(new, task=task)("0", model)
gi.Watch(new, task=task)(0.5, model)
gi.Watch(new, task=task)(-100, model)
gi.Watch(new, task=task)(50, None)  # result
## gi.Recorder
gi.Recorder(None, task=task)
gi.Recorder(new, task=None)
gi.Recorder(new, task="add")
gi.Recorder(new, task=task, train_mask={1})
gi.Recorder(new, task=task, train_mask="x")
gi.Recorder(new, task=task, train_indices={1, 2})
gi.Recorder(new, task=task, train_indices=[1.5])
gi.Recorder(new, task=task, train_indices=[49])
gi.Recorder(new, task=task, train_indices="12")
gi.Recorder(new, task=task, train_indices=[[1], [2, 3]])
gi.Recorder(new, task=task, train_mask=mask, train_indices=[1])
gi.Recorder(run.path, task=task)  # result
gi.Recorder(text_file, task=task)  # result

## gi.key_frequencies
gi.key_frequencies(None)
gi.key_frequencies(5)
gi.key_frequencies(run, rule="logit")
gi.key_frequencies(run, rule=["logits"])
gi.key_frequencies(run, rule=None)
gi.key_frequencies(model)
gi.key_frequencies(model, task="add")
gi.key_frequencies(model, task=task, train_mask={1})
gi.key_frequencies(run, task=gi.ModularTask("add", 5))
gi.key_frequencies(run, train_mask=mask)
gi.key_frequencies(run.metrics)

## gi.progress_measures
gi.progress_measures(None)
gi.progress_measures(snap)  # result
gi.progress_measures(run, frequencies=5)
gi.progress_measures(run, frequencies="1")
gi.progress_measures(run, frequencies=["1"])
gi.progress_measures(run, frequencies=[1.5])
gi.progress_measures(run, frequencies=[BIG])
gi.progress_measures(run, frequencies=torch.tensor(1))
gi.progress_measures(run, frequencies=torch.tensor([1.0]))
gi.progress_measures(run, frequencies={1: 2, 7: 3})

## gi.detect_phases: what is given
gi.detect_phases(None)
gi.detect_phases([1, 2, 3])
gi.detect_phases({"step": [1]})
gi.detect_phases(log["train_acc"])
gi.detect_phases(pd.DataFrame())
gi.detect_phases(log.head(0))
gi.detect_phases(log.head(1))  # result
gi.detect_phases(log)  # result
gi.detect_phases(log.drop(columns="step"))
gi.detect_phases(log.set_index("step"))  # result
gi.detect_phases(log[["step"]])
gi.detect_phases(log.T)
gi.detect_phases(log.set_axis(range(5), axis=1))
gi.detect_phases(log.set_axis(list("aaaaa"), axis=1))
gi.detect_phases(log.set_axis(pd.MultiIndex.from_product([["run"], log.columns]), axis=1))
gi.detect_phases(pd.concat([log, log[["step"]]], axis=1))
gi.detect_phases(pd.concat([log, log[["test_acc"]]], axis=1))
gi.detect_phases(log.set_index(["step", "train_acc"], drop=False))  # result
gi.detect_phases(log.set_axis([0] * 40, axis=0))  # result
gi.detect_phases(log.astype(object))  # result
gi.detect_phases(log.astype("string"))  # result
gi.detect_phases(log.astype(np.float16))  # result
gi.detect_phases(log.convert_dtypes())  # result
gi.detect_phases(log.assign(step=log["step"].astype("category")))  # result
gi.detect_phases(log.assign(train_acc=log["train_acc"].astype(complex)))
gi.detect_phases(log.assign(train_acc=log["train_acc"].astype(complex) + 1j))
gi.detect_phases(log.assign(step=pd.Timestamp("2026-01-01")))
gi.detect_phases(log.assign(step=pd.date_range("2026-01-01", periods=40)))
gi.detect_phases(log.assign(step=pd.date_range("2026-01-01", periods=40, tz="UTC")))
gi.detect_phases(log.assign(step=pd.to_timedelta(log["step"], unit="s")))
gi.detect_phases(log.assign(step=pd.period_range("2026-01", periods=40, freq="M")))
gi.detect_phases(log.assign(step=pd.interval_range(0, 40)))
gi.detect_phases(log.assign(step=[(i,) for i in range(40)]))
gi.detect_phases(log.assign(step=[[i] for i in range(40)]))
gi.detect_phases(log.assign(step=True))
gi.detect_phases(log.assign(step="many"))
gi.detect_phases(log.assign(step=None))
gi.detect_phases(log.assign(step=np.nan))
gi.detect_phases(log.assign(step=-log["step"] - 1))
gi.detect_phases(log.assign(step=log["step"] * 1e300))
gi.detect_phases(log.assign(step=[BIG] * 40))
gi.detect_phases(log.assign(step=[10**30 + i for i in range(40)]))
gi.detect_phases(log.assign(train_acc=None))  # result
gi.detect_phases(log.assign(train_acc=np.nan))  # result
gi.detect_phases(log[["step", "train_acc"]].assign(train_acc=np.nan))
gi.detect_phases(log.assign(train_acc="good"))
gi.detect_phases(log.assign(train_acc=True))
gi.detect_phases(log.assign(train_acc=[[0.5]] * 40))
gi.detect_phases(log.assign(train_acc=[{}] * 40))
gi.detect_phases(log.assign(train_acc=[np.ones(2)] * 40))
gi.detect_phases(log.assign(train_acc=[torch.tensor(0.5)] * 40))  # result
gi.detect_phases(log.assign(train_acc=[b"0.5"] * 40))
gi.detect_phases(log.assign(train_acc=50))
gi.detect_phases(log.assign(train_acc=BIG))
gi.detect_phases(log.assign(test_acc=pd.date_range("2026-01-01", periods=40)))
gi.detect_phases(log.assign(train_loss=-5.0))
gi.detect_phases(log.assign(train_loss=np.inf))  # result
gi.detect_phases(log.assign(train_loss=["9" * 400] * 40))
gi.detect_phases(log.assign(train_loss="9" * 500))
gi.detect_phases(log.assign(train_loss=1j))
gi.detect_phases(log.assign(excluded_loss="some"))
gi.detect_phases(log.assign(test_acc_unmirrored=7))

## gi.detect_phases: thresholds, ceiling, measures
gi.detect_phases(log, thresholds="strict")
gi.detect_phases(log, thresholds=0.9)
gi.detect_phases(log, thresholds=[0.9])
gi.detect_phases(log, thresholds={"train_acc": "high"})
gi.detect_phases(log, thresholds={"train_acc": None})
gi.detect_phases(log, thresholds={"train_acc": 1.5})
gi.detect_phases(log, thresholds={"train_acc": -1})
gi.detect_phases(log, thresholds={"train_acc": 0})
gi.detect_phases(log, thresholds={"train_acc": True})
gi.detect_phases(log, thresholds={"train_acc": np.nan})
gi.detect_phases(log, thresholds={"train_loss": -0.1})
gi.detect_phases(log, thresholds={"train_loss": float("inf")})
gi.detect_phases(log, thresholds={"test_loss": BIG})
gi.detect_phases(log, thresholds={"train_accuracy": 0.9})
gi.detect_phases(log, thresholds={3: 0.9})
gi.detect_phases(log, thresholds={3: 0.9, "a": 1})
gi.detect_phases(log, thresholds={"train_acc": np.float32(0.9)}).to_dict()  # result
gi.detect_phases(log, thresholds={"train_acc": torch.tensor(0.9)}).to_dict()  # result
gi.detect_phases(log, thresholds=Thresholds)
Thresholds(train_acc="x")
Thresholds(test_loss=[1])
gi.detect_phases(log, ceiling="x")
gi.detect_phases(log, ceiling="0.9")
gi.detect_phases(log, ceiling=[0.9])
gi.detect_phases(log, ceiling=np.nan)
gi.detect_phases(log, ceiling=True)
gi.detect_phases(log, ceiling=0)
gi.detect_phases(log, ceiling=1.01)
gi.detect_phases(log, ceiling=1j)
gi.detect_phases(log, ceiling=BIG)
gi.detect_phases(log, ceiling=log)
gi.detect_phases(log, ceiling=torch.tensor(0.9))  # result
gi.detect_phases(log, ceiling=odd)
gi.detect_phases(log, measures="all")
gi.detect_phases(log, measures=log)  # result
gi.detect_phases(log, measures=log.drop(columns="step"))
gi.detect_phases(run, measures=3)
gi.detect_phases(run, measures=log[["train_acc"]])
gi.detect_phases(run, measures=log.assign(excluded_loss="some"))
gi.detect_phases(run, measures=log.assign(step="a"))
gi.detect_phases(run, measures=pd.DataFrame())

## gi.ablate
gi.ablate(None)
gi.ablate("runs/mine")
gi.ablate(model)
gi.ablate(run, "heads", **few)
gi.ablate(run, 5, **few)
gi.ablate(run, [], **few)
gi.ablate(run, [5], **few)
gi.ablate(run, [None], **few)
gi.ablate(run, [("blocks.0.hook_mlp_out", 3)], **few)
gi.ablate(run, [[("blocks.0.hook_mlp_out", 3)]], **few)
gi.ablate(run, [[(5, lambda x, hook: x)]], **few)
gi.ablate(run, [[("blocks.9.hook_mlp_out", lambda x, hook: x)]], **few)
gi.ablate(run, [[("blocks.0.hook_mlp_out", lambda x, hook: "no")]], **few)
gi.ablate(run, [[("blocks.0.hook_mlp_out", lambda x, hook: x[:3])]], **few)
gi.ablate(run, [hooks.heads(0, 5)], **few)
gi.ablate(run, [hooks.heads(3, 0)], **few)
gi.ablate(run, [hooks.neurons(0, 10**30)], **few)
gi.ablate(run, [hooks.channels(0, 0)], **few)
gi.ablate(run, [hooks.mlp(0)], **few)  # result
gi.ablate(run, mode="maen", **few)
gi.ablate(run, mode=None, **few)
gi.ablate(run, mode=["mean"], **few)
gi.ablate(run, placebos=-1)
gi.ablate(run, placebos="many")
gi.ablate(run, placebos=2.5)
gi.ablate(run, placebos=True)
gi.ablate(run, seed=-1, **few)
gi.ablate(run, seed="a", **few)
gi.ablate(run, seed=BIG, **few)
gi.ablate(run, step="last", **few)
gi.ablate(run, step=1.5, **few)
gi.ablate(run, step=None, **few)
gi.ablate(run, step=True, **few)
gi.ablate(run, step=[], **few)
gi.ablate(run, step=[20, "a"], **few)
gi.ablate(run, step={20: 1, 21: 2}, **few)
gi.ablate(run, step=10**30, **few)
gi.ablate(run, step=BIG, **few)
gi.ablate(run, step=torch.tensor([20.5]), **few)
gi.ablate(snap, step=20, **few)
gi.ablate(snap, step=[-1, 20], **few)
gi.ablate(run, frequencies="1", **few)
gi.ablate(run, frequencies=[0], **few)
gi.ablate(run, frequencies=1, **few)
gi.ablate(run, task=task, train_mask=mask, **few)
gi.ablate(model, task=task, train_mask={1}, **few)
gi.ablate(model, task=task, train_mask="x", **few)
gi.ablate(run, **few)["no such part"]
gi.ablate(run, **few)[0]
circuits.ablation_ratios(None)
circuits.ablation_ratios(3)
circuits.ablation_ratios([3])

## circuits.hooks
hooks.heads("0", 0)
hooks.heads(-1, 0)
hooks.heads(0, "0")
hooks.heads(0, 1.5)
hooks.heads(0, [])
hooks.heads(0, None)
hooks.heads(BIG, 0)
hooks.heads(0, 0, mode=3)
hooks.neurons(0, [-1])
hooks.neurons(0, [BIG])
hooks.neurons(0, 3, name=5)
hooks.neurons(0, {"a": 1})
hooks.mlp(0.5)
hooks.mlp(None)
hooks.patterns([0])
hooks.embedding("add", [1])
hooks.embedding(task, 1)
hooks.embedding(task, [9])
hooks.embedding(task, [1], hook_name=5)
hooks.fourier("unembed.hook_out", task, ["a"])
hooks.fourier("unembed.hook_out", "task", [1])
hooks.fourier("unembed.hook_out", task, [1], terms="all")
hooks.fourier("unembed.hook_out", task, [1], terms=["answer"])
hooks.fourier("unembed.hook_out", task, [1], keep="yes")
hooks.fourier("unembed.hook_out", gi.ModularTask("x2xyy2", 7), [1])
hooks.fourier(3, task, [1])
hooks.directions("blocks.0.mlp.hook_post", "basis")
hooks.directions("blocks.0.mlp.hook_post", torch.ones(3))
hooks.directions("blocks.0.mlp.hook_post", torch.full((3, 1), float("nan")))
hooks.directions("blocks.0.mlp.hook_post", torch.eye(3), mode="men")
hooks.directions(3, torch.eye(3))
hooks.replaced_neurons(0, [1], "values", name="mine")
hooks.replaced_patterns(0, None, name="mine")
hooks.intervention(3)
hooks.intervention("ab")
hooks.intervention([("a", "b")])
hooks.mlp(0) + 3
hooks.mlp(0) + "ab"

## circuits
circuits.algorithm(run, thresholds="strict", frequencies=[1])
circuits.algorithm(run, n_samples="many", frequencies=[1])
circuits.algorithm(run, n_samples=0, frequencies=[1])
circuits.algorithm(run, seed=-1.5, frequencies=[1])
circuits.attention(run, layer="first", frequencies=[1])
circuits.attention(run, layer=7, frequencies=[1])
circuits.attention(run, layer=None, frequencies=[1])
circuits.attention(run, step="all", frequencies=[1])
circuits.attention(run, step=[20], frequencies=[1])
circuits.attention(run, frequencies=[1]).plot(to=3)
circuits.attention_fits(run, waves=0, frequencies=[1])
circuits.attention_fits(run, waves="two", frequencies=[1])
circuits.attention_fits(run, waves=10**9, frequencies=[1])
circuits.attention_patterns(run, inputs=None)
circuits.attention_patterns(run, inputs=3)
circuits.attention_patterns(run, inputs="ab")
circuits.attention_patterns(run, inputs=[(1, 2, 3)])
circuits.attention_patterns(run, inputs=[(1, 7)])
circuits.attention_patterns(run, inputs=[("a", "b")])
circuits.attention_patterns(run, inputs=[])
circuits.attention_patterns(run, layer=-1)
circuits.attention_patterns(run, inputs=[(1, 2)]).props("first")
circuits.attention_patterns(run, inputs=[(1, 2)]).props(9)
circuits.attention_readout(run, threshold="high", frequencies=[1])
circuits.attention_readout(run, threshold=7, frequencies=[1])
circuits.attention_readout(run, threshold=np.nan, frequencies=[1])
circuits.attention_readout(run, scaled="no", frequencies=[1])
circuits.attribution(run, against="median")
circuits.attribution(run, against=["mean"])
circuits.attribution(run, clusters="all")
circuits.attribution(run, clusters={1: "a"})
circuits.attribution(run, clusters={1: [0, 999]})
circuits.attribution(run, clusters=[[1]])
circuits.circuit_graph(run, step=1.5)
circuits.circuit_graph(run, frequencies="1")
circuits.circularity(run, n_components="four", frequencies=[1])
circuits.circularity(run, n_components=0, frequencies=[1])
circuits.circularity(run, n_components=10**9, frequencies=[1])  # result
circuits.circularity(snap, n_components=2.5, frequencies=[1])
circuits.commutativity(snap)  # result
circuits.commutativity(run, layer="a")
circuits.commutativity(run, layer=5)
circuits.distance_irrelevance(3)
circuits.distance_irrelevance(run, step="x")
circuits.faithfulness(run, placebos="ten", frequencies=[1])
circuits.faithfulness(run, placebos=-5, frequencies=[1])
circuits.faithfulness(run, seed=None, frequencies=[1])
circuits.fitted_neurons(run, clusters=None)
circuits.fitted_neurons(run, clusters=circuits.neuron_clusters(run), terms="cubic")
circuits.fitted_patterns(run, form="cubic", frequencies=[1])
circuits.fitted_patterns(run, form=["sigmoid"], frequencies=[1])
circuits.gradient_symmetricity(run, n_samples=10**30)  # result
circuits.gradient_symmetricity(run, n_samples=True)
circuits.gradient_symmetricity(run, seed="a")
circuits.isolate_circles(run, subsets=3, frequencies=[1])
circuits.isolate_circles(run, subsets="12", frequencies=[1])
circuits.isolate_circles(run, subsets=[1], frequencies=[1])
circuits.isolate_circles(run, subsets=[[9]], frequencies=[1])
circuits.isolate_circles(run, subsets=[], frequencies=[1])
circuits.isolate_circles(run, method="pca2", frequencies=[1])
circuits.isolate_circles(run, method=["frequency"], frequencies=[1])
circuits.logit_forms(run, frequencies=["a"])
circuits.neuron_clusters(run, threshold="x")
circuits.neuron_clusters(run, threshold=None)
circuits.neuron_clusters(run, threshold=-0.1)
circuits.neuron_clusters(run, threshold=1.1)
circuits.neuron_clusters(run, layer=1)
circuits.neuron_clusters(run, layer="last")
circuits.neuron_clusters(run).members("a")
circuits.neuron_clusters(run).members(99)  # result
circuits.neuron_logit_directions(run, step="x")
circuits.neuron_logit_directions(run, frequencies=[1]).direction("a", "u")
circuits.paper_table(run.metrics)
gi.paper_table(None)
gi.paper_table(run, step="first")
circuits.polynomial_fits(run, threshold=[0.5])
circuits.polynomial_fits(run, layer=3)
circuits.relu_regression("7", 1)
circuits.relu_regression(7, 9)
circuits.relu_regression(0, 1)
circuits.relu_regression(7, BIG)
circuits.standard_interventions(run, [1])  # result
circuits.standard_interventions(snap, 1)
circuits.standard_interventions(snap, ["a"])

## gi.compare
gi.compare(None)
gi.compare(run)
gi.compare([])
gi.compare([run, run])
gi.compare([run, None])
gi.compare([run, ising])
gi.compare({"a": 3})
gi.compare([run], align="phases")
gi.compare([run], by="label")
gi.compare([run], by=["setting"])

## gi.report, gi.export, gi.import_run
gi.report(None, out)
gi.report("runs/mine", new)
gi.report([], new)
gi.report([run, 3], new)
gi.report(run, None)
gi.report(run, "")
gi.report(run, out)
gi.report(run, "a\\0b")
gi.report(run, Path(text_file) / "below.html")
gi.report(run, "long" * 5000)
gi.export(None, new)
gi.export("runs/mine", new)
gi.export(snap, new)  # result
gi.export(run, None)
gi.export(run, out)
gi.export(run, "")
gi.export(run, new, format="onnx")
gi.export(run, new, format=None)
gi.export(run, Path(text_file) / "below.pth")
gi.export(ising, new)
gi.import_run(None, new)
gi.import_run("nowhere", new)
gi.import_run(run.path, new)
gi.import_run(5, new)
gi.import_run(exported, None)
gi.import_run(exported, run.path)
gi.import_run(exported, text_file)
gi.import_run(exported, Path(text_file) / "below")
gi.import_run(exported, new, format="onnx")
gi.import_run(exported, new, no_such_setting=1)

## fourier
fourier.embedding_spectrum(None)
fourier.embedding_spectrum(run)  # result
fourier.fourier_basis("7")
fourier.fourier_basis(0)
fourier.fourier_basis(-3)
fourier.fourier_basis(2.5)
fourier.fourier_basis(10**9)
fourier.fourier_basis(BIG)
fourier.frequency_shares(snap)  # result
fourier.gini("abc")
fourier.gini([1, 2])
fourier.gini(torch.ones(2, 2))
fourier.gini(torch.ones(0))
fourier.gini(torch.tensor([-1.0, 2.0]))
fourier.heldout_fit(run, [1])  # result
fourier.heldout_fit(snap, 1)
fourier.heldout_fit(snap, ["a"])
fourier.heldout_fit(snap, [9])
fourier.logit_shares("missing")
fourier.neuron_frequency_fractions(snap, layer=2)
fourier.neuron_frequency_fractions(snap, layer="x")
fourier.neuron_frequency_fractions(run)  # result
fourier.neuron_logit_map(None)
fourier.neuron_logit_spectrum([1])
fourier.spectrum("x")
fourier.spectrum(None)
fourier.spectrum(torch.tensor(1.0))
fourier.spectrum(torch.ones(0, 3))
fourier.spectrum(np.ones((7, 2)))
fourier.transform([1, 2])
fourier.transform(torch.ones(3, dtype=torch.complex64))
fourier.transform_2d(torch.ones(3))
fourier.transform_2d(torch.ones(3, 4))  # result
fourier.unembedding_spectrum(model)

## encodings
encodings.features(run, steps="some")
encodings.features(run, steps=5)
encodings.features(run, steps=[1.5])
encodings.features(run, steps=[])
encodings.features(run, convention="complx")
encodings.features(run, convention=3)
encodings.compressibility(run, steps=[BIG])
encodings.compressibility(run, scope="layers")
encodings.compressibility(run, scores="size")
encodings.compressibility(run, scores=5)
encodings.pruning_curve(run, step="x")
encodings.pruning_curve(run, fractions=[0, 2])
encodings.pruning_curve(run, fractions=[])
encodings.pruning_curve(run, fractions=0.5)
encodings.pruning_curve(run, fractions=[float("nan")])
encodings.pruning_curve(run, fractions=[BIG])
encodings.pruning_curve(run, keep=None)
encodings.pruning_curve(run, keep=7)
encodings.pruning_curve(run, biases="some")
encodings.pruning_curve(run, scores=lambda snapshot: 3)
encodings.pruning_curve(run, scores={"embed.W_E": torch.ones(2)})
encodings.prune(None, 0.5)
encodings.prune("weights", 0.5)
encodings.prune(run.weights(), -1)
encodings.prune(run.weights(), None)
encodings.prune(run.weights(), np.nan)
encodings.prune({"a": 3}, 0.5)
encodings.prune({}, 0.5)
encodings.prune(run.weights(), 0.5, scores=3)
encodings.pruning_order(None)
encodings.pruning_order({"a": "b"})
encodings.pruning_order(run.weights(), scope=3)
encodings.magnitudes(3)
encodings.magnitudes({"a": None})
encodings.weight_names(None)
encodings.coordinates(None, "weights")
encodings.coordinates(run.weights(), "fuorier")
encodings.coordinates(run.weights(), "fourier", tokens="abc")
encodings.quantize(None, bits=8)
encodings.quantize(run.weights(), bits="8")
encodings.quantize(run.weights(), bits=0)
encodings.quantize(run.weights(), bits=BIG)
encodings.quantize({"a": torch.tensor([float("nan")])}, bits=8)
encodings.compressed_bytes(run.weights(), bits=8, method=3)
encodings.compressed_bytes("weights", bits=8)
encodings.quantized_size(run, bits=1.5)
encodings.quantized_size(run, keep="most")
encodings.quantized_size(run, keep=-1)
encodings.sizes(None)
encodings.sizes(run, step="x")
encodings.effective_rank("x")
encodings.effective_rank(torch.zeros(2, 2))
encodings.effective_rank(torch.full((2, 2), float("nan")))
encodings.effective_rank(np.ones((2, 2)))
encodings.fisher_diagonal(run, variant="softmx")
encodings.fisher_diagonal(run, rows="tset")
encodings.fisher_diagonal(run, rows=["test"])
encodings.fisher_diagonal(run, rows=None)
encodings.fisher_diagonal(run, n_samples=0)
encodings.fisher_diagonal(run, n_samples="all")
encodings.fisher_diagonal(run, seed=BIG)
encodings.fisher_metric(run, form="exct")
encodings.fisher_metric(run, n_samples=2.5)
encodings.fisher_metric(run, n_samples=4).norm(None)
encodings.fisher_metric(run, n_samples=4).norm({"embed.W_E": torch.ones(2)})
encodings.fisher_metric(run, n_samples=4).norm({"embed.W_E": "a"})
encodings.fisher_rao_distance("p", "q")
encodings.fisher_rao_distance(torch.ones(3), torch.ones(3))
encodings.fisher_rao_distance(torch.ones(2, 3), torch.ones(3, 3))
encodings.fisher_rao_distance(torch.ones(2, 3), torch.ones(2, 4))
encodings.fourier_heat_map(run, side="left")
encodings.fourier_heat_map(run, side=None)
encodings.fourier_heat_map(run, path=["a"])
encodings.geodesic_point(torch.ones(2, 3), torch.ones(2, 3), "half")
encodings.geodesic_point(torch.ones(2, 3), torch.ones(2, 4), 0.5)
encodings.geodesic_point("p", "q", 0.5)
encodings.information_path(run, steps="some")
encodings.information_path(run, rows="x")
encodings.information_path(run, rows=3)
encodings.information_path(run, n_samples=-1)
encodings.information_path(run, steps=[20])  # result
encodings.information_path(run, n_samples=8).table(3)
encodings.information_path(run, n_samples=8).table({"a": "b"})
encodings.information_path(run, n_samples=8).table({"a": (20, 21)})
encodings.measured(run, "sizes")
encodings.measured(run, ["size"])
encodings.measured(run, [3])
encodings.measuring(3)
encodings.measuring(["sizes", "sizes"])
encodings.neuron_ipr(run, convention="x")
encodings.neuron_ipr(run, path="x")
encodings.observable_correlations(run)
encodings.pairwise_distances("x")
encodings.pairwise_distances(torch.ones(3, 3))
encodings.path_of("x", [1, 2])
encodings.path_of(torch.ones(2, 3), [1, 2])
encodings.path_of(torch.zeros(2, 2), [1, 2, 3])
encodings.path_of(torch.zeros(2, 2), "ab")
encodings.path_of(torch.zeros(2, 2), [2, 1])
encodings.root_probabilities("x")
encodings.root_probabilities(torch.ones(3))
encodings.stages_of(None, [1])
encodings.stages_of(phases, 3)
encodings.stages_of(phases, ["a"])
encodings.step_geometry(run, form="x")
encodings.step_geometry(run, steps=[0, 10**30])
encodings.step_geometry(run, stiff_above="x")
encodings.step_geometry(run, stiff_above=-1)  # result
encodings.trajectory_embedding(run)  # result
encodings.trajectory_embedding(None)
encodings.trajectory_embedding([])
encodings.trajectory_embedding([run, 3])
encodings.trajectory_embedding([run], dimensions=0)
encodings.trajectory_embedding([run], dimensions="3")
encodings.trajectory_embedding([run], most=1)
encodings.trajectory_embedding({3: run})  # result

## Why so late
gi.Recipe(objective="mse2")
gi.Recipe(objective=["mse"])
gi.Recipe(objective="hinge", margin="wide")
gi.Recipe(objective="hinge", margin=-1)
gi.Recipe(output_scale=0)
gi.Recipe(output_scale=float("inf"))
gi.Recipe(gradient_filter="ema", filter_alpha=2)
gi.Recipe(gradient_filter="ma", filter_window=0)
gi.Recipe(gradient_filter="ma", filter_window=BIG)
gi.Recipe(gradient_filter="ma", filter_alpha=0.5)
gi.Recipe(orthogonal_gradients="yes")
gi.Recipe(clip_norm=-1)
gi.Recipe(clip_norm=float("nan"))
gi.Recipe(norm_clamp="glob")
gi.Recipe(norm_clamp=True)
gi.Recipe(norm_clamp="layer", clamp_to=0)
gi.Recipe(norm_clamp="layer", clamp_from=1.5)
gi.Recipe(clamp_to=2)
gi.Recipe(optimizer="muon", momentum=2)
gi.Recipe(optimizer="muon", decay_on="biases")
gi.Recipe(lr_schedule="cosin")
gi.Recipe(lr_schedule="cosine", lr_end=-0.1)
gi.Recipe(label_noise=1.5)
gi.Recipe(label_noise="some")
gi.Recipe(p=7, label_noise=0.5).build_task().labels  # result
gi.Recipe(start=5)
gi.Recipe(start_step=-2)
gi.train(recipe.replace(start="nowhere"), new)
gi.train(recipe.replace(start=str(run.path), start_step=7), new)
gi.train(recipe.replace(start=str(run.path), d_mlp=9), new)
gi.train(recipe.replace(start=str(run.path), norm_clamp="global", steps=2), new)  # result
training.balance(5)
training.balance(run, steps="some")
training.balance(run, steps=[20, 0])
training.balance(run, lr="fast")
training.balance(run, weight_decay=-1)
training.balance(run, gradients="yes")
training.balance(run).over(0, 7)
training.balance(run).over(20, 0)
training.balance(run).table("W_Q")
training.balance(snap)  # result
training.balance(ising, gradients=True)  # result
gi.geometry.drift(snap)
gi.geometry.drift(run, window=5)
gi.geometry.drift(run, window=(20, 0))
gi.geometry.drift(run, window=("a", "b"))
gi.geometry.drift(run, window=(1, 5))
gi.geometry.drift(run, window=(0, 40))  # result
gi.geometry.routing(run, "first")
gi.geometry.routing(run, folds=1)
gi.geometry.routing(run, hooks=3)
gi.geometry.routing(run, hooks=["blocks.9.hook_resid_post"])
gi.geometry.routing(run, placebos=-1)
gi.geometry.weight_plane(snap)
gi.geometry.weight_plane([])
gi.geometry.weight_plane(run, step=[5])
gi.geometry.mode_connectivity(snap)
gi.geometry.mode_connectivity(run, 5)
gi.geometry.mode_connectivity(run, ("a", "b"))
gi.geometry.mode_connectivity(run, n_points=1)
gi.geometry.mode_connectivity(run, rows="test")
gi.geometry.mode_connectivity(run, other=3)
gi.geometry.kernel(run, rows="some")
gi.geometry.kernel(run, classes=0)
gi.geometry.kernel(run, per_class=10**9, probes=1, sets=1)  # result
gi.geometry.kernel(run, probes="two")
gi.geometry.kernel(run, sets=0)
gi.geometry.kernel(run, seed=-1)
gi.geometry.kernel(run, steps=[40, 0])
gi.geometry.kernel(run, per_class=1, probes=1)  # result
gi.geometry.centred_alignment(torch.eye(2), torch.eye(3))
encodings.ranks(run, steps=BIG)
encodings.ranks("nowhere")
encodings.ranks(ising)  # result
encodings.effective_ranks(torch.zeros(2, 2))
encodings.effective_ranks("matrix")
encodings.efficiency([])
encodings.efficiency([run, run])
encodings.efficiency(run, exponent="half")
encodings.efficiency(run)  # result
encodings.efficiency_fit([1, 2], [1], [1])
encodings.efficiency_fit([0, 2], [1, 2], [1])
circuits.cluster_norms(run, steps="some")
circuits.cluster_norms(ising)
circuits.cluster_norms(run)  # result
progress.abruptness(run, rows="some")
progress.abruptness(run, after=-1)
progress.abruptness(run)  # result
progress.abruptness_of_margins([[1.0]], [0])
progress.abruptness_of_margins(torch.zeros(2, 3), [1, 0])
progress.abruptness_of_margins(torch.full((2, 3), torch.nan), [0, 1])
progress.phase_shares("nowhere.csv")
progress.phase_shares(run, measures=5)
progress.phase_shares(run)  # result
progress.descents(7)
progress.descents(log, n_classes=1)
progress.descents(log, task=task)
progress.descents(log)  # result
progress.slingshots(log, times=0.5)
progress.slingshots(log, columns={"step": "nothing"})
progress.slingshots(log)  # result
gi.claims.norm_landscape(7)
gi.claims.norm_landscape({})
gi.claims.norm_landscape([run, run])
gi.claims.norm_landscape("nowhere")
gi.claims.norm_landscape(run, degree="two")
gi.claims.norm_landscape(run).table("norm")
gi.claims.norm_landscape(run)  # result
gi.claims.critical_size([])
gi.claims.critical_size("nowhere")
gi.claims.critical_size(run, exponent=2)
gi.claims.critical_size(run, step=BIG)
gi.claims.critical_size(run).table(of=3)
gi.claims.critical_size(run)  # result
viz.plot_norm_landscape(5)
viz.plot_critical_size("nowhere")
viz.plot_balance(run, matrix="W")
viz.plot_ranks(run, definition="rank")
viz.plot_descents(5)
## gi.viz
viz.plot_phases(log)  # result
viz.plot_progress(log.assign(train_loss="x"))
viz.plot_progress(pd.DataFrame({"step": [], "train_loss": []}))
viz.plot_progress(log, phases="x")
viz.plot_correctness(run, step="some")
viz.plot_correctness(run, stpe=20)
viz.plot_correctness(None)
viz.plot_embedding_circles(run, frequencies="1")
viz.plot_embedding_circles(run, frequencies=[9])
viz.plot_embedding_heat_map(run, step=1.5)
viz.plot_embedding_heat_map(ising)
viz.plot_embedding_spectrum(run, frequencies=3)
viz.plot_emergence(shares, frequencies=3)
viz.plot_emergence(shares, frequencies=None)  # result
viz.plot_emergence(shares, frequencies=[9])
viz.plot_emergence(shares, frequencies=[[1]])
viz.plot_logits(run, classes=[7])
viz.plot_logits(run, classes="0")
viz.plot_logits(run, classes=None)
viz.plot_logits(run, classes=3.5)
viz.plot_logits(run, classes=[])
viz.plot_neurons(run, neurons=[10**9])
viz.plot_neurons(run, neurons="all")
viz.plot_neurons(run, neurons=[])
viz.plot_neurons(run, layer="last")
viz.plot_neurons(run, neurons=[0.5])
viz.plot_neuron_fourier(run, neurons={0: 1, "a": 2})
viz.plot_neuron_fourier(run, layer=9)
viz.plot_neuron_logit_spectrum(run, step=None)
viz.plot_phase_diagram(None, x="a", y="b")
viz.plot_phase_diagram(table, x="lr", y="nothing")
viz.plot_phase_diagram(table, x=None, y="seed")
viz.plot_phase_diagram(table, x=["lr"], y="seed")
viz.plot_phase_diagram(table, x="lr", y="seed", value=3)
viz.plot_phase_diagram(table, x="lr", y="seed", by=3)
viz.plot_phase_diagram(table.head(0), x="lr", y="seed")
viz.plot_scaling(table, x="nothing")
viz.plot_scaling(table, x="lr", value=None)
viz.plot_scaling(table, x="lr", by=["nothing"])
viz.plot_scaling(table, x="lr", fit="yes")
viz.sweep_page(None)
viz.sweep_page(table, value="nothing")
viz.sweep_page(table, title=None)
viz.plot_trajectories(run)  # result
viz.plot_trajectories(embedding, dimensions=5)
viz.plot_trajectories(embedding, dimensions="2")
viz.comparison_page(run)

## Figure.save
figure.save(None)
figure.save("")
figure.save(".")
figure.save("figure")
figure.save("figure.gif")
figure.save(5)
figure.save("a\\0b.html")
figure.save(out)
figure.save(Path(text_file) / "below.html")
figure.save("/proc/grokinterp.html")
figure.save("long" * 5000 + ".html")
figure.save(new + ".svg", width="wide")
figure.save(new + ".svg", width=-5)
figure.save(new + ".svg", height=0)
figure.save(new + ".svg", width=10**9)
figure.save(new + ".html")  # result

## Phases
phases.plot()  # result
phases.table()  # result
gi.detect_phases(log.head(1)).plot()  # result
gi.detect_phases(log[["step", "test_loss"]]).plot()  # result
gi.detect_phases(log[["step", "train_acc"]]).plot()  # result
"""

LABELS = {  # operations that give them
    "twice_a_plus_b_in_add": lambda a, b, p: (2 * a + b) % p,
    "sum_in_subtract": lambda a, b, p: (a + b) % p,
    "sum_in_multiply": lambda a, b, p: (a + b) % p,
    "too_large": lambda a, b, p: a + b,
    "negative": lambda a, b, p: -(a % 2),
    "halves": lambda a, b, p: (a + b) % p / 2,
    "not_a_number": lambda a, b, p: torch.full((p * p,), torch.nan),
    "imaginary": lambda a, b, p: a * 1j,
    "truth": lambda a, b, p: a > b,
    "too_few": lambda a, b, p: a[1:],
    "square": lambda a, b, p: a.view(p, p),
    "one_number": lambda a, b, p: 3,
    "nothing": lambda a, b, p: None,
    "text": lambda a, b, p: "labels",
    "fails": lambda a, b, p: {}[3],
    "quits": lambda a, b, p: [][p],
    "dice": lambda a, b, p: torch.randint(p, (p * p,)),
    "numpy_labels": lambda a, b, p: np.maximum(a.numpy(), b.numpy()),
    "in_place": lambda a, b, p: a.add_(b).remainder_(p),
}


class Odd:
    """An object that cannot even be shown."""

    def __repr__(self):
        raise RuntimeError("not to be shown")


def measured_with(function, prefix="odd_"):
    """The tiny run's measures with one more, which is forgotten afterwards."""
    measure("odd", prefix=prefix)(function)
    try:
        return progress.measure_snapshot(NAMES["snap"], [1])
    finally:
        del progress.MEASURES["odd"]


def file(content):
    """The path of a new file of this content."""
    path = Path(tempfile.mkdtemp(dir=NAMES["out"])) / "file.toml"
    path.write_text(content)
    return path


NAMES: dict[str, object] = {  # that the calls may use; more are made in `names_in`
    "Path": Path,
    "Thresholds": Thresholds,
    "checkpoint_steps": checkpoint_steps,
    "circuits": circuits,
    "encodings": encodings,
    "file": file,
    "find_recipe": find_recipe,
    "fourier": fourier,
    "gi": gi,
    "hooks": hooks,
    "measure": measure,
    "measured_with": measured_with,
    "np": np,
    "operation": operation,
    "parse_setting": parse_setting,
    "pd": pd,
    "progress": progress,
    "tasks": tasks,
    "torch": torch,
    "train_indices": train_indices,
    "training": training,
    "viz": viz,
}
MEMORY = 12 * 2**30  # bytes of addresses; what an odd number would fill is refused before
SECONDS = 5  # of one call at most: an argument that asks for too much is refused, not tried


def names_in(folder):
    """What the calls are about: a tiny run, its model, a log, and the like."""
    recipe = gi.Recipe(
        p=7, d_model=8, n_heads=1, d_head=8, d_mlp=8, steps=40, checkpoints="every:20",
        train_fraction=0.5, lr=1e-2,
    )  # fmt: skip
    run = gi.train(recipe, folder / "run", progress=False)
    ising = gi.train(
        gi.Recipe(task="ising", lattice=4, n_train=8, n_test=8, n_repeats=2, sweeps=1, steps=2),
        folder / "ising",
        progress=False,
    )
    rows = np.arange(40)
    log = pd.DataFrame(
        {
            "step": rows * 10,
            "train_loss": np.exp(-rows / 4.0),
            "test_loss": np.exp(-np.maximum(rows - 20, 0) / 4.0) * 3,
            "train_acc": np.minimum(rows / 10, 1),
            "test_acc": np.clip((rows - 20) / 10, 0, 1),
        }
    )
    text_file = folder / "text.txt"
    text_file.write_text("text")
    for name, labels in LABELS.items():
        group = name.partition("_in_")[2]
        known = group if group in ("add", "subtract", "multiply") else None
        operation(name, group=known)(labels)
    return {
        "BIG": 10**5000,
        "odd": Odd(),
        "recipe": recipe,
        "run": run,
        "ising": ising,
        "task": run.task,
        "mask": run.train_mask,
        "model": run.model(),
        "snap": run.snapshot(),
        "log": log,
        "phases": gi.detect_phases(log),
        "shares": fourier.frequency_shares(run),
        "embedding": encodings.trajectory_embedding([run]),
        "table": pd.DataFrame({"lr": [0.1, 0.2], "seed": [0, 0], "grok_step": [5, None]}),
        "sweep": training.Sweep(recipe, ({"seed": (0, 1)},)),
        "figure": gi.detect_phases(log).plot(),
        "few": {"placebos": 1},
        "exported": gi.export(run, folder / "exported.pth"),
        "text_file": str(text_file),
        "out": str(folder),
    }


def outcome(call):
    """The exception that came of a call, by its name, and its text; ("", "") for a result."""
    new = str(Path(tempfile.mkdtemp(dir=NAMES["out"])) / "new")
    signal.alarm(SECONDS)
    try:
        eval(call, NAMES | {"new": new})  # the table above, and nothing else
    except Exception as error:
        kind = "InputError" if type(error) is gi.InputError else type(error).__name__
        return kind, str(error)
    finally:
        signal.alarm(0)
    return "", ""


def too_slow(number, frame):
    raise TimeoutError(f"more than {SECONDS} s")


def calls():
    """Every call of the table, and whether it gives a result."""
    for line in CALLS.splitlines():
        if line and not line.startswith("#"):
            call, _, promise = line.partition("  # ")
            yield call, promise == "result"


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, too_slow)
    with tempfile.TemporaryDirectory() as folder:
        NAMES.update(names_in(Path(folder)))
        for call, gives in calls():
            started = time.monotonic()
            row = (call, gives, *outcome(call), round(time.monotonic() - started, 2))
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
