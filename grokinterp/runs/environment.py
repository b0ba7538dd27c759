"""On what a run was trained: everything outside of its recipe that can change its bits.

`current_versions` are of the software. `current_environment` is of the machine:

threads         how many torch computes with: sums are split among them
cpu             the processor's name
cpu_capability  the instructions that torch's own kernels use, such as AVX2
device          cpu, or cuda with the name of the card
ensemble        only of runs that were trained together as one batched model: how many they were

More facts may stand in a run.json; whatever has another value elsewhere is said to differ.
"""

import functools
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("grokinterp", "torch", "numpy", "transformer-lens")
WORDS = {"cpu_capability": "instructions"}  # where the name of a fact is no plain word


def current_versions() -> dict[str, str]:
    """Versions of everything that could change a run's bits."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def current_environment(*, device: str = "auto", threads: int = 0) -> dict[str, Any]:
    """What this process computes with on a device; `threads=0` is what torch is set to now."""
    return {
        "threads": threads or torch.get_num_threads(),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": _device(device),
    }


def differences(
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    *,
    words: tuple[str, str] = ("there", "here"),
) -> tuple[str, ...]:
    """What two environments say differently, such as "torch 2.13.0 there, 2.14.1 here".

    What only one of them says is left out, and so is the release of the kernel.

    >>> differences({"torch": "2.13.0", "cpu": "A"}, {"torch": "2.14.1", "threads": 2})
    ('torch 2.13.0 there, 2.14.1 here',)
    """
    return tuple(
        f"{WORDS.get(key, key)} {there[key]} {words[0]}, {here[key]} {words[1]}"
        for key in there
        if key in here and _comparable(key, there[key]) != _comparable(key, here[key])
    )


def _comparable(key: str, value: Any) -> Any:
    """A platform without the release of its kernel, which computes nothing."""
    if key == "platform" and isinstance(value, str):
        return re.sub(r"^Linux-.*-(\w+)-with-", r"Linux-\1-with-", value)
    return value


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
