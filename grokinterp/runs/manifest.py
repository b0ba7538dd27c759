"""run.json: what a run folder holds, in one small readable file.

format        1, or 2 where a kind or a key is in it that 0.2.0 does not know; a reader refuses a
              newer one
recipe        flat recipe keys, or null for a run that somebody else's loop trained
task          its kind and fields: of modular arithmetic operation, p, whether inputs end with "=";
              of Ising lattice, temperatures, numbers of configurations, seeds
architecture  its fields: sizes in TransformerLens' words; "kind" for other models, which of a
              module without one is "module", with the name of its class and shapes alone
split         rule, seed, train_fraction where known; n_train, n_test; null without a split
parameters    canonical weight names
steps         the saved checkpoints
steps_known   false where nobody knows their steps: these are positions, which date nothing (format
              2); absent otherwise
metrics       rows and bytes of metrics.csv that belong to the run. Its first line names its
              columns, as in grokinterp.runs.metrics: six of a task with mirrors and a split, four
              of others, and of runs that 0.2.0 began
measures      only of a run that `gi.Watch` wrote: names of the measures that it was begun with (and
              their frequencies, where these were given), and
              rows and bytes of measures.csv that belong to the run
finished      whether training reached its last step
versions      of the software that wrote it (`current_versions`)
environment   of the machine that trained it (`current_environment`): threads that torch computes
              with, since sums are split among them; cpu, the processor's name; cpu_capability, the
              instructions of torch's own kernels, such as AVX2; device, cpu or cuda with the name
              of the card; ensemble, only of runs that were trained as one batched model, how many
              they were. More facts may stand here; older runs have none
later         where training went on elsewhere: a list of from_step, versions, environment
source        only of an imported run: file, format, layout, and what was inferred or assumed
sha256        of every file; `checksum` is that of run.json's own other content
"""

import functools
import itertools
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from grokinterp.base.errors import InputError, one_line
from grokinterp.base.files import refuse_stand_in, sha256, write_whole
from grokinterp.base.paths import kind_at
from grokinterp.models.architecture import BaseArchitecture
from grokinterp.models.kinds import shape_from_dict
from grokinterp.recipe.recipe import Recipe
from grokinterp.tasks.operations import get_operation
from grokinterp.tasks.task import Task, task_from_dict

FORMAT = 2
# What 0.2.0 reads: kinds, and keys of recipes. The keys that came later are left out where they
# have these values, so that it reads such runs.
KINDS_OF_0_2_0 = (("modular", "ising"), ("transformer", "mlp", "cnn"), ("adamw", "adam", "sgd"))
KEYS_OF_0_2_0 = {
    "task", "operation", "p", "train_fraction", "split", "data_seed", "lattice", "n_temperatures",
    "half_width", "n_repeats", "sweeps", "n_train", "n_test", "pool_seed", "model", "n_layers",
    "n_heads", "d_model", "d_head", "d_mlp", "widths", "embedding", "channels", "act_fn", "biases",
    "equals_token", "equals_class", "init", "init_scale", "seed", "optimizer", "lr", "betas",
    "weight_decay", "warmup", "batch_size", "reshuffle", "steps", "checkpoints", "log_every",
    "device", "threads",
}  # fmt: skip
PARTS_OF_0_2_0 = {  # of its tasks and architectures
    "task", "operation", "p", "equals_token", "seed", "lattice", "n_temperatures", "half_width",
    "n_repeats", "sweeps", "n_train", "n_test", "data_seed", "pool_seed", "kind", "n_layers",
    "n_heads", "d_model", "d_head", "d_mlp", "d_vocab", "d_vocab_out", "n_ctx", "act_fn",
    "normalization_type", "eps", "attention_dir", "attention_rate", "widths", "n_classes",
    "d_embed", "channels",
}  # fmt: skip
VALUES_OF_0_2_0: dict[str, tuple[Any, ...]] = {
    "act_fn": ("relu", "gelu", "gelu_new", "silu"),
    "normalization_type": (None, "LN"),
}
OPERATIONS_OF_0_2_0 = ("add", "subtract", "multiply", "x2xyy2", "random")  # and those of plug-ins
LATER = {
    "objective": "cross_entropy", "gradient_filter": "none", "constraint": "none",
    "decay_on": "all", "lr_schedule": "constant", "lr_end": 0.0, "output_scale": 1.0,
    "label_noise": 0.0, "orthogonal_gradients": False, "clip_norm": 0.0, "start_step": -1,
    "normalization_type": "none", "attn_only": False,
    "combine": "concat", "separate": False,
}  # fmt: skip
RUN_JSON = "run.json"
_OURS = {"checksum", "task", "architecture"}  # keys of ours; other tools write run.json too
METRICS = "metrics.csv"
MEASURED = "measures.csv"
DYNAMICS = "dynamics.csv"
SPLIT = "split.safetensors"
RESUME = "resume.safetensors"
LARGEST_STEP = 2**53  # beyond it a float is no longer every whole number
PLAIN = ("split", "steps", "metrics", "finished", "versions", "sha256")  # as they are
ADDED = ("environment", "later", "source", "measures", "dynamics")  # which a run.json may lack
PACKAGES = ("grokinterp", "torch", "numpy", "transformer-lens")
KERNEL = re.compile(r"^Linux-.*(-\w+-with-)")  # its release does not change a run's bits
WORDS = {"cpu_capability": "instructions"}  # for facts whose names are no plain words


def current_versions() -> dict[str, str]:
    """Versions of all software that can change a run's bits."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def current_environment(*, device: str = "auto", threads: int = 0) -> dict[str, Any]:
    """What this process computes with on a device; `threads=0` is torch's present number."""
    return {
        "threads": threads or torch.get_num_threads(),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": _device(device),
    }


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], *, words: Sequence[str] = ("there", "here")
) -> tuple[str, ...]:
    """The differences of two environments, such as "torch 2.13.0 there, 2.14.1 here".

    What only one of them says is left out, and so is the release of the kernel.

    >>> differences({"torch": "2.13.0", "cpu": "A"}, {"torch": "2.14.1", "threads": 2})
    ('torch 2.13.0 there, 2.14.1 here',)
    """
    return tuple(
        f"{WORDS.get(key, key)} {there[key]} {words[0]}, {here[key]} {words[1]}"
        for key in there
        if key in here and KERNEL.sub(r"\1", str(there[key])) != KERNEL.sub(r"\1", str(here[key]))
    )


@functools.cache
def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except (OSError, UnicodeDecodeError):
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()


def _device(name: str) -> str:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.device(name).type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(name)})" if torch.cuda.is_available() else "none"
    return name


def missing_split(file: str | None) -> str:
    """What to do where it is not known which rows were trained on, for notes and reasons.

    `file` is the source of checkpoints that others wrote; None for a run that was recorded.
    """
    if file is None:
        give = "give it to the recorder, gi.Recorder(out, task=task, train_mask=mask)"
        return f"the split is missing: the run was recorded without one; {give}"
    return (
        "the split is missing: give it beside all else that you gave, "
        f"`grokinterp import {one_line(file, most=60)} --out DIR --set split=torch "
        "--set data_seed=0 --set train_fraction=0.3` where it was drawn, `--set "
        "train_indices=FILE` where its rows are listed, or try `--set split=search` (in Python: "
        "gi.load(path, split=...))"
    )


@dataclass
class Manifest:
    """The content of run.json."""

    task: Task
    architecture: BaseArchitecture
    recipe: Recipe | None
    split: dict[str, Any] | None
    steps: list[int] = field(default_factory=list)
    metrics: dict[str, int] = field(default_factory=lambda: {"rows": 0, "bytes": 0})
    finished: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    source: dict[str, Any] | None = None
    environment: dict[str, Any] | None = None
    later: list[dict[str, Any]] = field(default_factory=list)
    measures: dict[str, Any] | None = None
    dynamics: dict[str, int] | None = None
    steps_known: bool = True

    def write(self, folder: Path) -> None:
        """Write run.json into the folder."""
        stored = self.recipe.to_dict() if self.recipe else {}
        stored = {key: x for key, x in stored.items() if LATER.get(key) != x}
        kinds = (self.task.kind, self.architecture.kind, stored.get("optimizer", "adamw"))
        known = all(name in names for name, names in zip(kinds, KINDS_OF_0_2_0, strict=True))
        known = known and self.steps_known  # 0.2.0 would date events by positions
        shape = self.architecture.to_dict()
        parts = self.task.to_dict() | shape
        known = known and parts.keys() <= PARTS_OF_0_2_0 and stored.keys() <= KEYS_OF_0_2_0
        known = known and all(parts.get(x, y[0]) in y for x, y in VALUES_OF_0_2_0.items())
        if (task := self.task.modular) is not None and task.operation not in OPERATIONS_OF_0_2_0:
            known = known and not get_operation(task.operation).built_in
        content: dict[str, Any] = {
            "format": 1 if known else FORMAT,
            "recipe": stored or None,
            "task": self.task.to_dict(),
            "architecture": shape,
            "split": self.split,
            "parameters": list(self.architecture.parameter_shapes()),
            "steps": self.steps,
            "metrics": self.metrics,
            "finished": self.finished,
            "versions": self.versions,
            "sha256": dict(sorted(self.sha256.items())),
        }
        content |= {key: getattr(self, key) for key in ADDED if getattr(self, key)}
        content |= {} if self.steps_known else {"steps_known": False}
        content["checksum"] = _checksum(content)
        write_whole(folder / RUN_JSON, (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a run folder; InputError with the reason for any other folder."""
        path = folder / RUN_JSON
        if kind_at(folder) is None:
            raise InputError(f"{folder} does not exist; give the folder of a run.")
        if not path.is_file():
            missing = f"it has no {RUN_JSON}, and no checkpoints to import"
            raise InputError(f"{folder} is not a run: {missing}.")
        damaged = InputError(f"{path} is damaged or was not written by grokinterp.")
        found = path.read_bytes()
        refuse_stand_in(path, found)
        try:
            content = json.loads(found)
            number = content["format"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise damaged from None
        if type(number) is not int or number < 1:
            raise damaged
        if number > FORMAT:
            newer = f"has format {number}, newer than the {FORMAT} known here"
            raise InputError(f"{path} {newer}; upgrade grokinterp.")
        if content.pop("checksum", None) != _checksum(content):
            raise InputError(f"{path} is damaged: its checksum differs; restore it from a copy.")
        try:
            recipe = content["recipe"] and Recipe.from_dict(content["recipe"])
            noisy = recipe and recipe.label_noise  # which labels are wrong follows from the recipe
            task = recipe.build_task() if noisy else task_from_dict(content["task"])
            manifest = cls(
                task=task,
                architecture=shape_from_dict(content["architecture"], task),
                recipe=recipe,
                **{key: content[key] for key in PLAIN},
                **{key: content[key] for key in (*ADDED, "steps_known") if key in content},
            )
        except InputError as error:
            raise InputError(f"{path} cannot be used: {error}") from None
        except (KeyError, TypeError, AttributeError, ValueError):
            raise damaged from None
        if not manifest._is_sound():
            raise damaged
        return manifest

    def _is_sound(self) -> bool:
        """Whether every part has the type that readers count on."""
        steps = self.steps
        if not (
            isinstance(steps, list)
            and all(type(step) is int and 0 <= step < LARGEST_STEP for step in steps)
            and steps == sorted(set(steps))
            and isinstance(self.finished, bool)
            and isinstance(self.steps_known, bool)
            and isinstance(self.later, list)
            and all(isinstance(x, dict) for x in (self.metrics, self.versions, self.sha256))
            and all(
                x is None or isinstance(x, dict)
                for x in (self.split, self.source, self.environment, self.measures, self.dynamics)
            )
        ):
            return False
        measured: dict[str, Any] = {"names": [], "rows": 0, "bytes": 0}
        if self.measures is not None:
            measured = self.measures
        notes = (self.source or {}).get("notes", [])
        files = {METRICS, *map(weights_file, steps)} if steps else set()
        return (
            files <= {*self.sha256}
            and (self.split is None or SPLIT in self.sha256)
            and (self.measures is None or MEASURED in self.sha256)
            and (self.dynamics is None or DYNAMICS in self.sha256)
            and all(
                type(table.get(key)) is int
                for table in (self.metrics, measured, self.dynamics or measured)
                for key in ("rows", "bytes")
            )
            and isinstance(measured.get("names"), list)
            and isinstance(measured.get("frequencies", []), list)
            and all(isinstance(name, str) for name in measured["names"])
            and isinstance(notes, list)
            and all(isinstance(note, str) for note in notes)
            and all(
                isinstance(entry, dict)
                and type(entry.get("from_step")) is int
                and all(isinstance(entry.get(key), dict) for key in ("versions", "environment"))
                for entry in self.later
            )
            and self.architecture.why_not(self.task, stored=True) is None
        )

    def environments(self) -> list[tuple[int, dict[str, Any]]]:
        """From which step on it was trained with which versions and environment, together."""
        first = {"from_step": 0, "versions": self.versions, "environment": self.environment or {}}
        return [
            (entry["from_step"], {**entry["versions"], **entry["environment"]})
            for entry in (first, *self.later)
        ]

    def differs(self, *, before: int | None = None) -> tuple[str, ...]:
        """The differences between training `before` a step and this machine now.

        Another loop's threads and device are compared with those that a recipe would get.
        """
        device, threads = (self.recipe.device, self.recipe.threads) if self.recipe else ("auto", 0)
        here = {**current_versions(), **current_environment(device=device, threads=threads)}
        return tuple(
            f"{text} (from step {step} on)" if step else text
            for step, there in self.environments()
            if before is None or step < max(before, 1)
            for text in differences(there, here)
        )

    def changes(self) -> tuple[str, ...]:
        """Where training went on in another environment, and what differed."""
        found = []
        for (_, before), (step, after) in itertools.pairwise(self.environments()):
            differ = differences(before, after, words=("before", "then")) or ("as far as is known",)
            found.append(f"from step {step} on in another environment: {'; '.join(differ)}")
        return tuple(found)

    def goes_on(self, step: int, environment: Mapping[str, Any] | None) -> None:
        """Note the environment in which training goes on from a step, if it is another one."""
        self.later = [entry for entry in self.later if entry["from_step"] < step]
        versions = current_versions()
        if environment is not None and self.environments()[-1][1] != {**versions, **environment}:
            now = {"from_step": step, "versions": versions, "environment": dict(environment)}
            self.later.append(now)


def is_run_folder(folder: Path) -> bool:
    """Whether a folder has a run.json, damaged or not, and not that of another tool."""
    path = folder / RUN_JSON
    if not path.is_file():
        return path.exists()  # a link to nowhere, a folder: which is said where it is read
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return True
    if not isinstance(content, dict) or not content or _OURS & set(content):
        return True
    return not str(content.get("format", "none"))[:1].isalpha()  # Sacred has a name there


def weights_file(step: int) -> str:
    """The file of a checkpoint, relative to the run folder.

    >>> weights_file(100)
    'weights/step_00000100.safetensors'
    """
    return f"weights/step_{step:08d}.safetensors"


def _checksum(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())
