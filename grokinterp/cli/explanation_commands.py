"""Commands that test explanations: claims on runs, their controls, accelerations."""

from pathlib import Path
from typing import Annotated, get_args

from typer import Argument, Exit, Option

from grokinterp.base.errors import InputError, nearest, shown
from grokinterp.cli._app import UNEXPECTED, Json, a_file, write_text
from grokinterp.cli.terminal import say, show, show_json


def explain(
    paths: Annotated[
        list[str], Argument(metavar="RUN...", help="A run, or several seeds of one setting.")
    ],
    controls: Annotated[
        str | None, Option(metavar="DIR", help="Folder of controls, as `controls` fills it.")
    ] = None,
    claims: Annotated[
        str | None, Option(metavar="ID,...", help="These alone, such as A1,E2.")
    ] = None,
    slow: Annotated[
        bool, Option("--slow", help="Decide those that take over 20 s a run, too.")
    ] = False,
    as_json: Json = False,
    out: Annotated[Path | None, Option(help="HTML file to write.", callback=a_file)] = None,
    expect: Annotated[
        list[str] | None,
        Option(metavar="CLAIM=VERDICT", help="Exit with 3 if it is another; may be repeated."),
    ] = None,
) -> None:
    """Test every published claim on a run: a verdict each, with its numbers.

    Why so late: weight decay, circuits, the norm, double descent, how abrupt,
    lazy and rich. What takes a control is undetermined, and says which one,
    until --controls has it. The terminal gets verdicts and reasons; --json
    and --out have rules and every number.
    """
    from grokinterp.claims import explain as find
    from grokinterp.reading._load import load

    wanted = dict(_expected(each) for each in expect or ())
    ids = None if claims is None else [name.strip() for name in claims.split(",") if name.strip()]
    if ids is not None:
        ids = [*dict.fromkeys([*ids, *wanted])]
    found = find([load(path) for path in paths], controls, claims=ids, slow=slow, progress=True)
    if out is not None:
        from grokinterp.claims._figures.verdicts import explain_page

        write_text(out, explain_page(found))
    if as_json:
        show_json(found.to_dict())
    else:
        show(found)
        if out is not None:
            show(f"\n{out}: figure, verdicts and rules")
    wrong = [
        f"{name} is {shown(found[name].verdict)}, expected {shown(verdict)}"
        for name, verdict in wanted.items()
        if found[name].verdict != verdict
    ]
    for line in wrong:
        say(line)
    if wrong:
        raise Exit(UNEXPECTED)


def _expected(text: str) -> tuple[str, str]:
    """A claim and a verdict, as "A1=contradicted" says them."""
    from grokinterp.claims.registry import CLAIMS, Verdict

    name, _, verdict = text.partition("=")
    verdicts = get_args(Verdict)
    if verdict not in verdicts:
        raise InputError(
            f"--expect {shown(text)} is no CLAIM=VERDICT; {nearest(verdict, verdicts)}"
        )
    return CLAIMS.canonical(name), verdict
