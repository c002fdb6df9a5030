"""The code in README and docs runs, page by page, in an empty folder; what the pages name exists."""

import linecache
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import onecycle

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)#]*)(#[^)]*)?\)")
HEADING = re.compile(r"^#+ (.*)", re.M)
SOURCE_FILE = re.compile(r"`((?:[\w-]+/)+\w+\.py)`")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, here: Path):
    namespace: dict[str, object] = {}
    for i, block in enumerate(BLOCK.findall(page.read_text())):
        name = f"{page.name} {i}"
        linecache.cache[name] = len(block), None, block.splitlines(keepends=True), name  # as notebooks do it
        exec(compile(block, name, "exec"), namespace)
        plt.close("all")


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for link, anchor in LINK.findall(page.read_text()):
        if link.startswith("http"):
            continue
        target = page.parent / link if link else page
        assert target.exists(), link
        if anchor:
            headings = HEADING.findall(target.read_text())
            assert anchor in {"#" + re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_the_source_files_that_a_page_names_exist(page: Path):
    for name in SOURCE_FILE.findall(page.read_text()):
        assert any((folder / name).is_file() for folder in (ROOT, ROOT / "src" / "onecycle")), name


def test_every_public_name_is_on_some_page():
    text = "".join(page.read_text() for page in PAGES)
    assert [name for name in onecycle.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_both_readmes_have_the_same_code():
    english, chinese = (re.sub(r"#.*", "", "".join(BLOCK.findall(page.read_text()))) for page in PAGES[:2])
    assert english.split() == chinese.split()
