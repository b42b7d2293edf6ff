"""Writes equations as MathML, which browsers draw by themselves: no script, no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def markup(latex: str, display: str) -> str:
    """MathML, with a space between a function and an argument that has no parenthesis."""
    made = convert(latex, display=display)
    return re.sub(r"(<mi>(?:log|tanh)</mi>)(?!<mo stretchy)", r'\1<mspace width="0.167em" />', made)


def inline(translator: Any, node: nodes.math) -> None:
    """An equation within a line."""
    translator.body.append(markup(node.astext(), "inline"))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """An equation of its own."""
    translator.body.append(f'<div class="math">{markup(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Registers the renderer."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(inline, None), block_renderers=(block, None)
    )
