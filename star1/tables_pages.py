"""Pages of tables: headings, grids and footnotes, as Markdown and as LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from star1.tables import escape, tabular


@dataclass(frozen=True)
class Block:
    """A grid with its heading and a line below."""

    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    below: str = ""


@dataclass
class Page:
    """A page: a title, a notice over everything, what its figures are, grids, footnotes."""

    title: str
    notice: str | None
    about: str
    blocks: list[Block] = field(default_factory=list)
    footnotes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The page as Markdown."""
        parts = [f"# {self.title}", *([f"**{self.notice}**"] if self.notice else []), self.about]
        return "\n\n".join([*parts, *markdown_blocks(self.blocks), *self.footnotes]) + "\n"

    def latex(self) -> str:
        """The page as LaTeX (booktabs)."""
        parts = [f"% {escape(self.title)}; {escape(self.about)}"]
        parts += [f"\\textbf{{{escape(self.notice)}}}\\par"] if self.notice else []
        notes = [f"{escape(note)}\\par" for note in self.footnotes]
        return "\n\n".join([*parts, *latex_blocks(self.blocks), *notes]) + "\n"


def markdown_blocks(blocks: Sequence[Block]) -> list[str]:
    """Grids as Markdown; a vertical bar within a cell would end it."""
    parts = []
    for block in blocks:
        lines = [block.head, ["---"] * len(block.head), *block.lines]
        grid = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        parts += ["\n".join(grid), *([block.below] if block.below else [])]
    return parts


def latex_blocks(blocks: Sequence[Block]) -> list[str]:
    """Grids as LaTeX."""
    parts = []
    for block in blocks:
        parts.append(tabular(block.head, block.lines))
        parts += [f"{escape(block.below)}\\par"] if block.below else []
    return parts
