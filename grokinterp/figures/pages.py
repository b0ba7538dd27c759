"""What pages are made of: templates, styles and scripts of `assets`, and figures as few bytes.

A packed figure is gzip of: the length of its JSON as four bytes (little endian), the JSON, and the
arrays, which `assets/unpack.js` reads. An array stands in the JSON as {"at": first byte, "type":
"f8", "shape": [...]}. Images, which are the `z` of heat maps in floating point, are kept to 1/4094
of their range, as {"type": "q2", "low": ..., "step": ...}: low bytes, then high bytes, and 4095 for
NaN. Everything else is exact.
"""

import base64
import gzip
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from grokinterp.figures._figure import Figure

LEVELS = 2**12 - 2  # sixteen times finer than the eye sees colours; the last code is NaN


def asset(name: str) -> str:
    """A file of `assets` as text."""
    return (files("grokinterp.figures") / "assets" / name).read_text(encoding="utf-8")


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FunctionLoader(asset),
    autoescape=True,  # names of runs and files come from others
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """A template with these values in it, everything in them escaped."""
    return _TEMPLATES.get_template(template).render(**values)


def html_table(frame: pd.DataFrame, float_format: Callable[[float], str]) -> str:
    """A table with everything in it escaped and nothing cut off."""
    with pd.option_context("display.max_colwidth", None):
        return frame.to_html(
            index=False, classes="numbers", border=0, na_rep="", float_format=float_format
        )


def packed(drawn: Figure) -> str:
    """The figure with its frames; without its template and controls, which the page has once."""
    bare = json.loads(drawn.to_json())
    for name in ("template", "sliders", "updatemenus"):
        bare["layout"].pop(name, None)
    blob = bytearray()
    return packed_json(_arrays_out(bare, blob), blob)


def packed_json(part: Any, blob: bytes | bytearray = b"") -> str:
    """Plain values with the arrays that belong to them."""
    text = json.dumps(part, separators=(",", ":")).encode()
    return zipped(len(text).to_bytes(4, "little") + text + bytes(blob))


def zipped(raw: bytes) -> str:
    """The bytes compressed, the same each time, as base64, which is safe inside HTML."""
    return base64.b64encode(gzip.compress(raw, 6, mtime=0)).decode()


def _arrays_out(part: Any, blob: bytearray, name: str = "") -> Any:
    """The same with every array that plotly encoded moved into the blob; `name` is its key."""
    if isinstance(part, list):
        return [_arrays_out(one, blob) for one in part]
    if not isinstance(part, dict):
        return part
    if "bdata" not in part:
        return {name: _arrays_out(value, blob, name) for name, value in part.items()}
    array = np.frombuffer(base64.b64decode(part["bdata"]), np.dtype(part["dtype"]))
    shape = [int(n) for n in str(part.get("shape", len(array))).split(",")]
    entry: dict[str, Any] = {"at": len(blob), "shape": shape}
    if array.dtype.kind == "f" and name == "z" and len(shape) == 2:
        raw, low, step = _quantised(array)
        entry |= {"type": "q2", "low": low, "step": step}
    else:
        raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
        entry["type"] = array.dtype.kind + str(array.dtype.itemsize)
    blob += raw
    return entry


def _quantised(array: np.ndarray) -> tuple[bytes, float, float]:
    known = array[np.isfinite(array)].astype(np.float64)
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    step = (high - low) / LEVELS or 1.0
    places = np.where(np.isfinite(array), np.rint((array - low) / step), LEVELS + 1)
    codes = places.astype("<u2").tobytes()
    return codes[0::2] + codes[1::2], float(low), float(step)
