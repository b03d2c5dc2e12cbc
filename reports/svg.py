"""Altair charts as inline SVG that takes its colours and its size from the page.

Knows nothing about what is drawn. Colours are ``var(--NAME)`` of the page, which
defines them for light, dark and print, so one drawing serves all three.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, replace
from typing import Any, Final

from markupsafe import Markup

PANEL: Final = 350
WIDE: Final = 720
_ROOT: Final = re.compile(r"<svg[^>]*?viewBox=\"([^\"]+)\"[^>]*>")
_NOISE: Final = re.compile(
    r"\s(?:font-family|role|aria-[a-z]+|pointer-events)=\"[^\"]*\"|<path[^>]*d=\"(?:M0,0h0v0h0Z)?\"[^>]*/>"
)
_IDS: Final = re.compile(r"(\bid=\"|url\(#|href=\"#)")


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing: inline SVG, safe to put into a page, and its title and note as text."""

    svg: Markup
    title: str = ""
    note: str = ""
    kind: str = "panel"


def scoped(chart: Chart, scope: str) -> Chart:
    """The drawing with ids that no other part of the page has."""
    return replace(chart, svg=Markup(_IDS.sub(rf"\g<1>{scope}", chart.svg)))  # noqa: S704 - it was markup before


def _inline(svg: str, label: str, prefix: str) -> Markup:
    """SVG fit for HTML: no namespaces (and so no URLs), no fixed size, no fonts, ids of its own, one label."""
    root = f'<svg viewBox="\\1" role="img" aria-label="{html.escape(label).replace(chr(92), "&#92;")}">'
    bare = _IDS.sub(rf"\g<1>{prefix}-", _NOISE.sub("", svg))
    return Markup(_ROOT.sub(root, bare, count=1))  # noqa: S704 - Vega escapes the data's text, the label is escaped here


def render(chart: Any, label: str, *, width: int = PANEL, prefix: str = "c") -> Markup:
    """Draw an Altair chart.

    Args:
        chart: an ``altair`` chart without configuration.
        label: what it shows, in one sentence.
        width: width of the whole drawing in CSS pixels.
        prefix: keeps ids of several drawings in one page apart.
    """
    import vl_convert

    axis = {
        "labelColor": "var(--ink-2)", "titleColor": "var(--ink-2)", "gridColor": "var(--rule)",
        "domainColor": "var(--rule-2)", "tickColor": "var(--rule-2)", "labelFontSize": 11, "titleFontSize": 11,
        "titleFontWeight": "normal", "labelLimit": 140, "titlePadding": 6,
    }  # fmt: skip
    spec = chart.properties(width=width, autosize={"type": "fit-x", "contains": "padding"}).configure(
        background="transparent",
        aria=False,
        font="sans-serif",
        axis=axis,
        view={"stroke": None},
        legend={
            "orient": "top", "title": None, "labelColor": "var(--ink)", "labelFontSize": 12, "labelLimit": 150,
            "symbolSize": 70, "offset": 4, "columnPadding": 26,
        },
        text={"color": "var(--ink)", "fontSize": 12},
    )  # fmt: skip
    return _inline(vl_convert.vegalite_to_svg(spec.to_dict(validate=False)), label, prefix)
