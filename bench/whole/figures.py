"""What was measured, beside its budget, as one table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Rounds = Mapping[str, Sequence[float]]
"""By subject, what each round gave."""


@dataclass(frozen=True)
class Budget:
    """Of a ratio, or of the figure itself where there is nothing to compare it with."""

    must: float
    stretch: float


@dataclass(frozen=True)
class Figure:
    """values: medians by subject. of: what the gate's is compared with, and `ratio` is the median of the rounds' ratios; `low` and `high` the
    least and the largest of them. Without `of` the ratio is the gate's own figure."""

    title: str
    unit: str
    values: Mapping[str, float]
    of: str
    ratio: float
    low: float
    high: float
    budget: Budget | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.budget is None:
            return ""
        if self.ratio <= self.budget.stretch:
            return "stretch"
        return "met" if self.ratio <= self.budget.must else "MISSED"


def compare(
    title: str,
    unit: str,
    rounds: Rounds,
    budget: Budget | None = None,
    *,
    gate: str = "gate",
    of: str = "naive",
    scale: float = 1.0,
    note: str = "",
) -> Figure:
    """Of each round's ratio of `gate` to `of`; scale: by which the ratio is multiplied."""
    ratios = sorted(one / other * scale for one, other in zip(rounds[gate], rounds[of], strict=True))
    values = {name: statistics.median(values) for name, values in rounds.items()}
    return Figure(title, unit, values, of, statistics.median(ratios), ratios[0], ratios[-1], budget, note)


def absolute(
    title: str, unit: str, rounds: Rounds, budget: Budget | None = None, *, gate: str = "gate", note: str = ""
) -> Figure:
    """The gate's own figure."""
    values = {name: statistics.median(values) for name, values in rounds.items()}
    return Figure(title, unit, values, "", values[gate], min(rounds[gate]), max(rounds[gate]), budget, note)


_HEAD = ("work", "unit", "gate", "naive", "nginx", "ratio", "rounds", "must", "stretch", "")


def table(figures: Sequence[Figure]) -> str:
    rows = [_HEAD, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    gate = next((value for name, value in figure.values.items() if name.startswith("gate")), 0.0)
    return (
        figure.title,
        figure.unit,
        _number(gate),
        _number(figure.values.get("naive")),
        _number(figure.values.get("nginx")),
        _number(figure.ratio) if figure.of else "",
        f"{_number(figure.low)} to {_number(figure.high)}",
        _number(figure.budget.must) if figure.budget else "",
        _number(figure.budget.stretch) if figure.budget else "",
        " ".join(part for part in (figure.verdict, figure.note) if part),
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
