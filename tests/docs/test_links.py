import re

import pytest

from tests.conftest import ROOT
from tests.docs.pages import PAGES, without_blocks

LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(path):
    """Return the anchors of a page's headings, as GitHub and the site generate them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_points_to_an_existing_file_and_heading(page):
    for target in LINK.findall(without_blocks(page)):
        if target.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path), target


def test_every_page_is_in_the_sites_navigation():
    pages = {str(path.relative_to(ROOT / "docs")) for path in PAGES if path.is_relative_to(ROOT / "docs")}
    listed = re.findall(r"[\w/-]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(listed) == sorted(pages)


def test_pages_load_no_external_resources():
    text = "".join(path.read_text() for path in [*PAGES, ROOT / "mkdocs.yml", *(ROOT / "docs").glob("*.svg")])
    assert "<script" not in text
    assert not re.search(r"!\[[^\]]*\]\(https?:|src=.https?:|@import|mermaid", text)
    assert "font: false" in text
