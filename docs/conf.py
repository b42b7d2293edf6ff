"""Sphinx's settings; `make docs` builds the site into build/docs."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# The generator reads the benchmarks' files with the benchmarks' own code.
sys.path[:0] = [str(DOCS), str(ROOT / "benchmarks")]

from generator import mathml, write  # noqa: E402

import fastact  # noqa: E402

project = "fastact"
author = "the fastact developers"
release = version = fastact.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_generated/*.md", "data"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shapes", "notes_style")]

html_theme = "furo"
html_title = f"fastact {release}"
html_static_path = ["_static"]
html_css_files = ["fastact.css"]
html_show_sourcelink = False
html_show_copyright = False
templates_path: list[str] = []
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app: object) -> None:
    """Registers the equations' renderer and writes what the pages include."""
    mathml.setup(app)
    write.everything(DOCS / "_generated")
