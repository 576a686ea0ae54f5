"""Formulas as MathML, which browsers draw by themselves: no script, no font from elsewhere."""
import html

from docutils import nodes
from latex2mathml.converter import convert


def formula(node, display):
    text = node.astext().strip()
    return f'<span class="formula" role="math" aria-label="{html.escape(text)}">{convert(text, display=display)}</span>'


def visit_math(translator, node):
    translator.body.append(formula(node, "inline"))
    raise nodes.SkipNode


def visit_math_block(translator, node):
    translator.body.append(f'<div class="formula-block">{formula(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
