"""The project's Markdown files, taken apart: blocks of code, headings and links."""

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
_FENCE = re.compile(r"^(?:<!-- (?P<mark>.*) -->\n)?```(?P<language>\S*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block; its mark is the comment right above it."""

    place: str  # file:line
    mark: str
    language: str
    text: str

    def __str__(self) -> str:
        return self.place


def blocks(*languages: str) -> list[Block]:
    """All blocks in these languages."""
    return [block for path in PAGES for block in blocks_of(path) if not languages or block.language in languages]


def blocks_of(path: Path) -> Iterator[Block]:
    """One page's blocks."""
    text = path.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        place = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, match.start('language')) + 1}"
        yield Block(place, match["mark"] or "", match["language"], match["text"])


def without_blocks(path: Path) -> str:
    """A page's prose."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def commands(block: Block) -> list[str]:
    """The commands of a shell block, or of a console block behind its prompts; continued lines are joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def sessions(block: Block) -> list[tuple[str, str]]:
    """Each command of a console block with what it prints."""
    parts = re.split(r"^\$ (.*)\n", block.text, flags=re.M)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def generator() -> ModuleType:
    """docs/generate.py as a module."""
    name = "docs_generate"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "generate.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)  # its dataclasses look themselves up there
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
