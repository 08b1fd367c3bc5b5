"""A sheet of SVG that is written from top to bottom."""

from __future__ import annotations

from html import escape

from planner.compile.plan import OpKind
from planner.render.canvas import Canvas, wrap

INK, MUTED, FAINT = "#1b2430", "#5b6675", "#e3e7ec"

_SANS = "-apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Helvetica, Arial, sans-serif"
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_MARGIN, _ROOM = 36, 848
# Nobody measures text without a font, so lines are broken by what a character takes on average.
_CHARACTER, _MONO_CHARACTER = 0.57, 0.61


class Sheet:
    """SVG elements with a cursor ``y``; all text from outside is escaped here."""

    def __init__(self, *, name: str, title: str, framed: bool = True) -> None:
        """``name`` keeps ids apart where several pictures share a page.

        One that is not ``framed`` has neither margin nor ground: it lies on something that does.
        """
        self._framed = framed
        self.left = _MARGIN if framed else 0
        self.right = self.left + _ROOM
        self.width = self.left + self.right
        self.y: float = _MARGIN + 16 if framed else 0
        self._hatch = f"ditplan-{name}-adaptive"
        self._title = title
        self._elements: list[str] = []

    def text(
        self,
        x: float,
        text: str,
        *,
        size: float,
        color: str = INK,
        weight: int = 400,
        mono: bool = False,
        anchor: str = "start",
        down: float = 0,
    ) -> None:
        """One line whose baseline is ``down`` below the cursor."""
        extra = (f' font-weight="{weight}"' if weight != 400 else "") + (
            f' text-anchor="{anchor}"' if anchor != "start" else ""
        )
        self._elements.append(
            f'<text x="{x:.1f}" y="{self.y + down:.1f}" font-size="{size:g}" fill="{color}" '
            f'font-family="{_MONO if mono else _SANS}"{extra}>{_shown(text)}</text>'
        )

    def paragraph(self, x: float, text: str, *, size: float, mono: bool = False) -> None:
        """Lines down from the cursor, broken before the right margin; moves the cursor."""
        per_character = size * (_MONO_CHARACTER if mono else _CHARACTER)
        for line in wrap(Canvas().show(text), int((self.right - x) / per_character)) or [""]:
            self.text(x, line, size=size, mono=mono)
            self.y += 20
        self.y += 2

    def cell(
        self, x: float, width: float, height: float, kind: OpKind | None, tip: str, up: float = 0
    ) -> None:
        """A box in the look of an op's kind; None is a step that does not run."""
        fill, stroke = {
            OpKind.FULL: ("#2458a6", "#2458a6"),
            OpKind.ADAPTIVE: (f"url(#{self._hatch})", "#d28a12"),
            OpKind.CACHED: ("#e4f1e7", "#7fb58f"),
            None: ("none", FAINT),
        }[kind]
        title = f"<title>{_shown(tip)}</title>" if tip else ""
        self._elements.append(
            f'<rect x="{x + 0.5:.1f}" y="{self.y - up + 0.5:.1f}" width="{max(width - 1, 1):.1f}" '
            f'height="{height - 1:.1f}" rx="3" fill="{fill}" stroke="{stroke}">{title}</rect>'
        )

    def rule(self) -> None:
        """A faint line across."""
        self.y -= 2
        self._elements.append(
            f'<path d="M{self.left} {self.y:.1f}H{self.right}" stroke="{FAINT}" fill="none"/>'
        )
        self.y += 26

    def finish(self) -> str:
        height = self.y + (_MARGIN if self._framed else 10) - 22
        frame = (
            f'<rect x="0.5" y="0.5" width="{self.width - 1}" height="{height - 1:.0f}" rx="10" '
            f'fill="#ffffff" stroke="{FAINT}"/>'
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {height:.0f}" '
                f'width="{self.width}" height="{height:.0f}" role="img">',
                f"<title>{_shown(self._title)}</title>",
                f'<defs><pattern id="{self._hatch}" width="6" height="6" '
                'patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
                '<rect width="6" height="6" fill="#fdf0d3"/>'
                '<rect width="2.5" height="6" fill="#eda52f"/></pattern></defs>',
                *([frame] if self._framed else []),
                *self._elements,
                "</svg>\n",
            ]
        )


def _shown(text: str) -> str:
    """Text as XML can hold it: escaped, and without control characters."""
    return escape(Canvas().show(text))
