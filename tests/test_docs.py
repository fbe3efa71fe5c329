"""The pages under docs/ name what exists."""

import importlib
import re
from pathlib import Path

import pytest

NAMED = re.compile(r"`((?:functional|lab|oracle|ppo)(?:\.\w+)+)`")

FIGURED = ("docs/policy-gradients.md", "docs/results.md", "README.md")


def resolved(name: str) -> object:
    """Import as much of the dotted name as is a module, and look the rest up."""
    parts = ["rlhf", *name.split(".")]
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def test_every_function_that_the_walk_through_policy_gradients_names_exists(root: Path) -> None:
    names = set(NAMED.findall((root / "docs/policy-gradients.md").read_text(encoding="utf-8")))
    assert len(names) > 25
    for name in sorted(names):
        resolved(name)
    with pytest.raises(AttributeError):
        resolved("functional.advantages.no_such_rung")


def test_every_file_that_the_walk_names_exists(root: Path) -> None:
    text = (root / "docs/policy-gradients.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:tests|docs|rlhf)/[\w/.-]+)`", text)
    assert files and all((root / path).is_file() for path in files)


def test_every_figure_that_a_page_shows_exists_and_each_is_shown(root: Path) -> None:
    texts = [(root / page).read_text(encoding="utf-8") for page in FIGURED]
    shown = re.findall(r"!\[[^]]*\]\((?:docs/)?(figures/[\w.]+)\)", "\n".join(texts))
    committed = {f"figures/{path.name}" for path in (root / "docs/figures").iterdir()}
    assert shown and set(shown) == committed


def test_every_test_that_the_page_on_processes_names_exists(root: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", (root / "docs/scaling.md").read_text(encoding="utf-8")))
    files = [*(root / "tests/training/sharding").glob("test_*.py"), root / "tests/training/test_launch.py"]
    defined = set(re.findall(r"^def (test_\w+)", "\n".join(file.read_text() for file in files), re.MULTILINE))
    assert len(named) > 8 and named <= defined


LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
PAGES = [*Path(__file__).parents[1].glob("*.md"), *Path(__file__).parents[1].glob("[bd]*/*.md")]


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make: small letters, digits and hyphens."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        file = (page.parent / target) if target else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}#{anchor}"


def test_every_page_is_in_the_menu_of_the_site(root: Path) -> None:
    menu = (root / "website/mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in (root / "docs").glob("*.md") if f": {page.name}\n" not in menu] == []
