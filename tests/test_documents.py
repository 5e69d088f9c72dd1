"""The documents name files and functions that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/evaluation.md",
    "docs/laws.md",
    "docs/scale.md",
)
BASES = (ROOT, ROOT / "agepipe", ROOT / "agepipe/core", ROOT / "tests", ROOT / "tests/agepipe")
"""Folders that paths in the documents start from."""

QUOTED = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w.-]*\.?[\w-]+(/[\w.-]+)+\.(py|toml|j2|json|md)|\w+\.(toml|yaml)|README\.md")
NAME = re.compile(r"[A-Za-z_]\w*")
DEFINED = r"^\s*(?:def|class) {name}\b|^\s*{name}\s*[:=]"
"""A function, a class, or a name with a type or a value; an import is none of them."""


def found(path: str) -> Path | None:
    return next((base / path for base in BASES if (base / path).is_file()), None)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_python_file_that_a_document_names_exists(document: str) -> None:
    quoted = QUOTED.findall((ROOT / document).read_text(encoding="utf-8"))
    paths = {text.removeprefix("../") for text in quoted if re.fullmatch(r"(\.\./)?\w+(/\w+)+\.py", text)}
    assert paths
    assert [path for path in sorted(paths) if found(path) is None] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_of_a_document_leads_to_a_file_and_a_heading(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}, target


def steps() -> list[str]:
    """The numbered steps of the recipes, each as one text."""
    recipes = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Recipes")[2]
    return [step.strip() for step in re.findall(r"^\d+\. (.*?)(?=^\d+\. |^###|\n\n|\Z)", recipes, flags=re.M | re.S)]


@pytest.mark.parametrize("step", steps(), ids=lambda step: step[:60])
def test_every_name_in_a_step_of_a_recipe_is_defined_in_a_file_that_the_step_names(step: str) -> None:
    quoted = [text for text in QUOTED.findall(" ".join(step.split())) if "NAME" not in text]
    files = [text for text in quoted if FILE.fullmatch(text)]
    assert [path for path in files if found(path) is None] == []
    text = "\n".join((ROOT / path).read_text(encoding="utf-8") for path in files)
    names = [name for name in quoted if NAME.fullmatch(name)]
    assert [name for name in names if not re.search(DEFINED.format(name=name), text, flags=re.M)] == []
