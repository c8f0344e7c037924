"""What a page is made of: tiles, actions, charts, tables, sections.

What belongs here: the shapes the template draws. What does not: what they say (the section modules) or how they look (the
template and its styles).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from marketing_assets.report.drawing import plain

Tone = Literal["plain", "good", "bad", "warn", "muted"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table. detail: what opens under it."""

    text: str
    tone: Tone = "plain"
    detail: str | None = None


@dataclass(frozen=True)
class Grid:
    """A table. numeric: columns set flush right. shown: rows open at once, the rest unfolds. note: under the table.

    is_open: whether it lies open at once; else only its caption does.
    """

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    numeric: frozenset[int] = frozenset()
    shown: int = 12
    note: str | None = None
    is_open: bool = True

    @property
    def cells(self) -> list[list[Cell]]:
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite shape, its data sets and its words. alt: what the picture shows, in a sentence. grid: the same as a table."""

    chart_id: str
    title: str
    alt: str
    spec: Mapping[str, Any]
    data: Mapping[str, Sequence[Mapping[str, Any]]]
    grid: Grid
    note: str | None = None
    is_wide: bool = False

    @property
    def drawn(self) -> dict[str, Any]:
        """The shape with its data inside."""
        return {
            **self.spec,
            "datasets": {**self.spec.get("datasets", {}), **{name: plain(rows) for name, rows in self.data.items()}},
        }


@dataclass(frozen=True)
class Notes:
    """Sentences, one per point."""

    title: str
    points: Sequence[str]
    tone: Tone = "plain"


Block = Chart | Grid | Notes


@dataclass(frozen=True)
class Section:
    """One part of the page. lead: what it says in a sentence. missing: which source it lacks, in place of blocks."""

    section_id: str
    title: str
    lead: str = ""
    blocks: Sequence[Block] = ()
    missing: str | None = None

    @property
    def placed(self) -> list[tuple[Block, bool]]:
        """Blocks with whether each takes the whole width: tables and wide charts do, and a half that has no neighbour."""
        result: list[tuple[Block, bool]] = []
        half_open = False
        for block in self.blocks:
            is_wide = isinstance(block, Grid) or (isinstance(block, Chart) and block.is_wide)
            if is_wide and half_open:
                result[-1] = (result[-1][0], True)
            half_open = not is_wide and not half_open
            result.append((block, is_wide))
        if half_open:
            result[-1] = (result[-1][0], True)
        return result


@dataclass(frozen=True)
class Tile:
    """A headline figure. change: against usual; tone says whether that is good and beyond noise."""

    label: str
    value: str
    change: str
    tone: Tone
    interval: str
    when: str
    history: Sequence[float | None] = ()

    @property
    def points(self) -> str:
        """The history as a polyline in a box of 100 x 24; '' where there is nothing to draw."""
        known = [value for value in self.history if value is not None]
        if len(known) < 3:
            return ""
        low, high = min(known), max(known)
        scale = (high - low) or 1.0
        step = 100 / (len(self.history) - 1)
        return " ".join(
            f"{place * step:.1f},{22 - 20 * (value - low) / scale:.1f}"
            for place, value in enumerate(self.history)
            if value is not None
        )


@dataclass(frozen=True)
class Action:
    """Something to do or to know today. anchor: the section that says more."""

    text: str
    anchor: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Page:
    """Everything the template needs."""

    title: str
    subtitle: str
    status: str
    status_tone: Tone
    tiles: Sequence[Tile]
    actions: Sequence[Action]
    trust: Sequence[Action]
    sections: Sequence[Section]
    labels: Mapping[str, str] = field(default_factory=dict)
    language: str = "en"
