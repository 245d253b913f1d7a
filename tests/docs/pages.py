"""Parses the project's Markdown files: code blocks, headings and links."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\S*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block; its mark is the comment directly above it."""

    place: str  # file:line
    mark: str
    language: str
    text: str

    def __str__(self) -> str:
        return self.place


def blocks(*languages: str) -> list[Block]:
    """Return all blocks in these languages."""
    return [block for path in PAGES for block in blocks_of(path) if not languages or block.language in languages]


def blocks_of(path: Path) -> Iterator[Block]:
    """Yield one page's blocks."""
    text = path.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        place = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start('language')) + 1}"
        yield Block(place, match["mark"] or "", match["language"], match["text"])


def without_blocks(path: Path) -> str:
    """Return a page's prose."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def commands(block: Block) -> list[str]:
    """Return the commands of a shell block, or after a console block's prompts; joins continued lines."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def sessions(block: Block) -> list[tuple[str, str]]:
    """Return each command of a console block with its output."""
    parts = re.split(r"^\$ (.*)\n", block.text, flags=re.M)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def generator() -> ModuleType:
    """Import docs/generate.py as a module."""
    name = "docs_generate"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "generate.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look up their module there
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
