"""Who came first, as a line from A to B: where the two parted, with its interval, if that was measured."""

from __future__ import annotations

from weightprint.report.page.svg import Drawing, element, joined, label, line, rect
from weightprint.verdict.values import Direction

__all__ = ["direction_line"]

_FIRST, _LAST, _Y = 24.0, 76.0, 30.0  # percent: A and B; pixels
_BEYOND = (-0.4, 1.4)  # the drawing ends there


def direction_line(direction: Direction) -> Drawing | None:
    """0 is A, 1 is B: a parent is where the two parted. None where there is nothing to draw."""
    measured = direction.measured
    parted = direction.parted_at or (None if measured is None else (measured.t, measured.low, measured.high))
    if direction.later is None and parted is None:
        return None
    parts = [line(_FIRST, _Y, _LAST, _Y, "axis")]
    for x, name, side in ((_FIRST, "A", "a"), (_LAST, "B", "b")):
        parts.append(element("circle", cx=f"{x}%", cy=_Y, r=6, class_="mark-for"))
        said = "" if direction.later is None else ", later" if direction.later == side else ", earlier"
        parts.append(label(x, _Y - 14, name + said, "strong", anchor="middle"))
    title = "nothing says where the two parted"
    if parted is not None:
        t, low, high = (_at(value) for value in parted)
        parts.insert(0, rect(low, _Y - 8, max(high - low, 0.4), 16, "band", "95 % interval"))
        inside = _BEYOND[0] <= parted[0] <= _BEYOND[1]
        parts += [line(t, _Y - 11, t, _Y + 11, "level-line")] if inside else []
        words = f"parted at {parted[0]:.2f} [{parted[1]:.2f}, {parted[2]:.2f}]" + ("" if inside else ", off the line")
        anchor = "start" if t < 30 else "end" if t > 70 else "middle"
        parts.append(label(t, _Y + 28, words, "level", anchor=anchor))
        title = f"The two parted at {parted[0]:.2f} of the way from A to B, between {parted[1]:.2f} and {parted[2]:.2f}"
    elif direction.later is not None:
        later = direction.later.upper()
        start, end = (_FIRST, _LAST) if direction.later == "b" else (_LAST, _FIRST)
        parts.append(line(start, _Y, end, _Y, "stem"))
        title = f"{later} is the later one"
    return Drawing("direction", title, _Y + 36, joined(parts))


def _at(t: float) -> float:
    return _FIRST + (_LAST - _FIRST) * min(_BEYOND[1], max(_BEYOND[0], t))
