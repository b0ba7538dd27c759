"""What the site tells that the code knows: claims, commands, names at the top.

Pages take these files in with `{include}`, so that nothing of it is typed by hand.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import public_names

ROOT = Path(__file__).parents[1]
ADDRESS = "https://github.com/grokinterp/grokinterp/blob/main"
# typer decides when it is imported whether its help is drawn in boxes, so another process asks.
HELP = """
import json
from typer.testing import CliRunner
from grokinterp.cli import COMMANDS
from grokinterp.cli._app import PROGRAM, app
def said(*words):
    found = CliRunner().invoke(app, [*words, "--help"], prog_name=PROGRAM)
    assert found.exit_code == 0, found.output
    return found.output
print(json.dumps({"": said()} | {name: said(name) for name in COMMANDS}))
"""
ON = {"run": "one run", "runs": "runs of both regimes", "controls": "runs and their controls"}
SLOW = ", over 20 s of it: `--slow`"


def write(folder):
    """All of it, into a folder of its own."""
    folder.mkdir(exist_ok=True)
    texts = {"commands": commands(helps()), "claims": claims(), "names": names()}
    texts |= {f"claim_{name}": text for name, text in pages_of_claims().items()}
    texts |= {name: of_the_repository(name) for name in ("CONTRIBUTING", "CHANGELOG")}
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def helps() -> Mapping[str, str]:
    """What `--help` of every command prints, by the command's name; "" is the program's own."""
    plain = {**os.environ, "TYPER_USE_RICH": "0", "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "88"}
    asked = subprocess.run(
        [sys.executable, "-c", HELP], env=plain, capture_output=True, text=True, check=True
    )
    return json.loads(asked.stdout)


def commands(helps: Mapping[str, str]) -> str:
    """A section per command with its help."""
    parts = []
    for name, text in helps.items():
        title = f"grokinterp {name}".strip()
        parts.append(f"## {title}\n\n```text\n{text.strip()}\n```\n")
    return "\n".join(parts)


def claims() -> str:
    """A section per claim about regimes, as `gi.compare` decides it."""
    return "\n".join(
        f"## {claim.statement[:1].upper()}{claim.statement[1:]}\n\n`{claim.name}`\n\n{_rule(claim)}"
        for claim in _registered()
        if claim.needs == "runs"
    )


def pages_of_claims() -> Mapping[str, str]:
    """What the page of each other claim begins with, by its name."""
    return {claim.name: _rule(claim) for claim in _registered() if claim.needs != "runs"}


def _registered() -> list:
    from grokinterp.claims import CLAIMS

    return sorted(CLAIMS.every(), key=lambda claim: claim.name)


def _rule(claim) -> str:
    against = "".join(f"\n* {falsifier}" for falsifier in claim.falsifiers)
    return (
        f"**Decided on** {ON[claim.needs]}{SLOW * claim.slow}. **Source.** {claim.source}.\n\n"
        f"**Rule.** {claim.rule}.\n\n**What would turn a supported verdict:**\n{against}\n"
    )


def names() -> str:
    """The table of the names at the top, each with a link to its page."""
    rows = []
    for name, full in sorted(public_names.top().items(), key=lambda item: item[0].lower()):
        module, _, last = full.rpartition(".")
        owner = public_names.modules().get(module)
        thing = public_names.modules().get(full) or getattr(owner, last)
        page = public_names.files().get(full, full)
        said = public_names.first_sentence(thing).replace("|", "\\|")
        rows.append(f"| [`gi.{name}`](rooms/{page}.rst) | {said} |")
    return "\n".join(["| name | what it is |", "|---|---|", *rows, ""])


def of_the_repository(name: str) -> str:
    """A page at the top of the repository, whose links lead to pages here or to the repository."""

    def here(found: re.Match[str]) -> str:
        link = found[1].removeprefix("docs/")
        if link.startswith(("#", "http")) or (ROOT / "docs" / link.partition("#")[0]).exists():
            return f"]({link})"
        return f"]({ADDRESS}/{found[1]})"

    text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
    return re.sub(r"\]\(([^)\s]+)\)", here, text)
