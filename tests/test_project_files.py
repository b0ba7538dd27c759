"""Workflows, forms, metadata, artefacts: what stands around the package, and agrees with it."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
OURS = "grokinterp/grokinterp"
ADDRESS = re.compile(
    r"(?:github\.com|githubusercontent\.com|colab\.research\.google\.com/github)"
    r"/([\w.-]+/[\w-]+)(?:/(?:blob|tree|main)/(?:main/)?([\w./-]*[\w/]))?"
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CI = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())
RELEASE = yaml.safe_load((GITHUB / "workflows" / "release.yml").read_text())
EVENTS = True  # what YAML 1.1 makes of the word "on"
RUN = "checkpoints/mod31-small"
LARGEST_WHEEL, LARGEST_SDIST = 4_000_000, 3_000_000  # bytes


def steps(workflow, job):
    return workflow["jobs"][job]["steps"]


def commands(workflow, job):
    return [step["run"] for step in steps(workflow, job) if "run" in step]


class TestWorkflows:
    def test_every_change_is_checked_by_one_script_and_nothing_else(self):
        assert set(CI[EVENTS]) == {"push", "pull_request"}
        assert list(CI["jobs"]) == ["run"]
        assert commands(CI, "run") == ["bash .ci/run"]
        assert [step["uses"].partition("@")[0] for step in steps(CI, "run") if "uses" in step] == [
            "actions/checkout", "actions/setup-python"
        ]  # fmt: skip
        assert steps(CI, "run")[1]["with"]["python-version"] == "3.11"
        assert CI["jobs"]["run"]["timeout-minutes"] == 60
        assert (ROOT / ".ci" / "run").is_file()

    def test_a_tag_is_published_by_trust_and_without_a_secret(self):
        assert RELEASE[EVENTS] == {"push": {"tags": ["v*"]}}
        publish = RELEASE["jobs"]["publish"]
        assert publish["needs"] == "build"
        assert publish["environment"]["name"] == "pypi"
        assert publish["permissions"] == {"id-token": "write"}
        last = publish["steps"][-1]
        assert last["uses"].startswith("pypa/gh-action-pypi-publish@")
        assert "with" not in last  # no user, password or other place
        text = (GITHUB / "workflows" / "release.yml").read_text()
        assert not re.search(r"secrets\.|password|api[-_]token", text, re.IGNORECASE)

    def test_what_is_published_was_built_checked_and_tried(self):
        said = "\n".join(commands(RELEASE, "build"))
        for part in (
            "python -m build\n", "twine check --strict dist/*", "-c constraints.txt dist/*.whl",
            "gi.detect_phases('mod31-small')",
        ):  # fmt: skip
            assert part in said
        kept = next(x for x in steps(RELEASE, "build") if "upload-artifact" in x.get("uses", ""))
        fetched = RELEASE["jobs"]["publish"]["steps"][0]
        assert kept["with"]["name"] == fetched["with"]["name"]
        assert kept["with"]["path"] == fetched["with"]["path"] == "dist/"

    @pytest.mark.skipif(os.name != "posix", reason="a script of bash")
    def test_a_tag_that_is_not_the_version_stops_the_release(self):
        script = next(
            x["run"] for x in steps(RELEASE, "build") if "tag" in x.get("name", "").lower()
        )
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

        def status(tag):
            env = {**os.environ, "PATH": path, "GITHUB_REF_NAME": tag}
            call = subprocess.run(["bash", "-e", "-c", script], cwd=ROOT, env=env, check=False,
                                  capture_output=True, text=True)  # fmt: skip
            return call.returncode, call.stdout + call.stderr

        version = PROJECT["project"]["version"]
        assert status(f"v{version}") == (0, "")
        for tag in (version, f"v{version}1", "v9.9.9", "main"):
            code, said = status(tag)
            assert code == 1
            assert f"::error::the tag is {tag}, the version in pyproject.toml {version}" in said

    @pytest.mark.parametrize("workflow", [CI, RELEASE], ids=["ci", "release"])
    def test_jobs_may_do_little_and_actions_are_of_a_major_version(self, workflow):
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"] <= 60
            assert set(job.get("permissions", {}).values()) <= {"read"} or name == "publish"
            for step in job["steps"]:
                assert re.search(r"@(release/)?v\d+$", step.get("uses", "@v1")), step
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False


def test_hooks_are_the_tools_of_the_environment():
    found = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in found["repos"]] == ["local"]
    hooks = found["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format", "mypy"]
    development = [
        re.split(r"[\[>=]", x)[0] for x in PROJECT["project"]["optional-dependencies"]["dev"]
    ]
    for hook in hooks:
        assert hook["language"] == "system"
        assert hook["entry"].split()[0] in development


ASKED = {  # by every form
    "bug": ["grokinterp info RUN --json", "grokinterp --version"],
    "unreadable_file": ["grokinterp info FILE --json", "shapes of its tensors", "first lines"],
    "number": ["section", "The number there", "The number here", "Code that computes both"],
}


class TestForms:
    @pytest.mark.parametrize("name", ASKED)
    def test_it_is_one_that_github_shows(self, name):
        path = GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml"
        form = yaml.safe_load(path.read_text())
        assert set(form) <= {"name", "description", "labels", "body"}
        assert form["name"]
        assert form["description"]
        asked = [element for element in form["body"] if element["type"] != "markdown"]
        assert {element["type"] for element in asked} <= {"input", "textarea", "dropdown"}
        ids = [element["id"] for element in asked]
        assert len(set(ids)) == len(ids)
        assert all(element["attributes"]["label"] for element in asked)
        assert any(
            element["validations"]["required"] for element in asked if "validations" in element
        )
        for wanted in ASKED[name]:
            assert wanted in path.read_text()

    def test_there_are_no_others(self):
        found = {path.stem for path in (GITHUB / "ISSUE_TEMPLATE").iterdir()}
        assert found == {*ASKED, "config"}
        config = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "config.yml").read_text())
        assert set(config) == {"blank_issues_enabled", "contact_links"}
        assert all(set(link) == {"name", "url", "about"} for link in config["contact_links"])


def files_with_addresses():
    """Everything that people read, and the metadata."""
    places = (
        "*.md", "*.toml", "*.cff", ".*.yaml", ".github/**/*.yml", ".github/*.md", "docs/*.md",
        "docs/api/*.md", "examples/**/*.md", "examples/*.ipynb", "checkpoints/*.md",
        "grokinterp/**/*.py",
    )  # fmt: skip
    return sorted({path for place in places for path in ROOT.glob(place)})


def addresses(path):
    """Of every address of GitHub in a file, the repository and the file there."""
    return [found.groups() for found in ADDRESS.finditer(path.read_text(encoding="utf-8"))]


def test_the_repository_has_one_address_and_what_it_leads_to_is_there():
    named = set()
    for path in files_with_addresses():
        for repository, file in addresses(path):
            if not re.search("grok.?interp", repository, re.IGNORECASE):
                continue  # of others
            assert repository == OURS, path
            assert file is None or (ROOT / file).exists(), (path, file)
            named.add(path.relative_to(ROOT).as_posix())
    assert {"pyproject.toml", "CITATION.cff", "docs/house.md", "SECURITY.md"} <= named


class TestMetadata:
    def test_the_citation_is_of_this_version_and_says_the_same(self):
        project = PROJECT["project"]
        assert CITATION["version"] == project["version"]
        assert CITATION["license"] == project["license"] == "MIT"
        assert CITATION["keywords"] == project["keywords"]
        assert CITATION["repository-code"] == CITATION["url"] == project["urls"]["Source"]
        for reference in CITATION["references"]:
            number = reference["identifiers"][0]["value"].removeprefix("arXiv:")
            assert reference["url"] == f"https://arxiv.org/abs/{number}"
            assert number[:2] == str(reference["year"])[2:]

    def test_its_pages_are_named(self):
        urls = PROJECT["project"]["urls"]
        assert set(urls) == {"Homepage", "Documentation", "Source", "Changelog", "Issues"}
        assert all(url.startswith(f"https://github.com/{OURS}") for url in urls.values())

    def test_one_run_goes_into_both_artefacts(self):
        targets = PROJECT["tool"]["hatch"]["build"]["targets"]
        assert RUN in targets["wheel"]["only-include"]
        assert targets["wheel"]["sources"] == {RUN: f"grokinterp/{RUN}"}
        of_sdist = targets["sdist"]["only-include"]
        assert set(targets["wheel"]["only-include"]) <= set(of_sdist)  # a wheel is made from it
        assert [name for name in of_sdist if name.startswith("checkpoints")] == [RUN]
        assert all((ROOT / name).exists() for name in of_sdist if name != RUN)


def test_every_promise_of_security_names_a_test_that_there_is():
    text = (ROOT / "SECURITY.md").read_text()
    promised = re.findall(r"(test_\w+\.py)::(test_\w+)", text)
    assert len(promised) > 20
    for file, name in promised:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), (file, name)
    for path in re.findall(r"`(grokinterp/[\w/]+\.py)`", text):
        assert (ROOT / path).is_file(), path


@pytest.mark.slow
def test_the_artefacts_hold_the_run_and_are_small(tmp_path):
    """As `python -m build` makes them, the wheel from the sdist."""
    for tool in ("build", "hatchling", "twine"):
        pytest.importorskip(tool)

    def python(*arguments):
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python("-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT))
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    assert "PASSED" in python("-m", "twine", "check", "--strict", str(wheel), str(sdist))
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = archive.namelist()
    assert f"grokinterp/{RUN}/run.json" in in_wheel
    assert sum(name.startswith(f"grokinterp/{RUN}/weights/") for name in in_wheel) >= 12
    top = {name.partition("/")[0] for name in in_wheel}
    assert {name for name in top if not name.endswith(".dist-info")} == {"grokinterp"}
    with tarfile.open(sdist) as archive:
        in_sdist = [name.partition("/")[2] for name in archive.getnames()]
    assert {name for name in in_sdist if name.startswith("checkpoints/")} == {
        name.removeprefix("grokinterp/") for name in in_wheel if f"/{RUN}/" in name
    }
    assert wheel.stat().st_size < LARGEST_WHEEL
    assert sdist.stat().st_size < LARGEST_SDIST
