"""Sphinx builds the documentation from README.md, docs/ and the docstrings: ``make docs``.

Pages are Markdown that GitHub shows too, so what only the site can show is made here while a page is read: the home
page is README.md, a list of names becomes their docstrings, and a list of commands becomes their options.
"""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import fastfid
from benchmarks import peers
from tools.site import pages

# fastfid.compat.torchmetrics imports torchmetrics, and that torchvision, where it is installed.
if peers.torchvision_needs_stub():
    peers.install_torchvision_stub()

project = "fastfid"
version = release = fastfid.__version__
html_title = f"fastfid {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
source_suffix = {".md": "markdown"}

# A link to a page or a heading that does not exist is a warning, and `make docs` takes warnings as errors.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

# Blocks without a language are commands, as in all pages.
highlight_language = "sh"
default_role = "code"

nitpicky = True  # a reference in a docstring leads to a name on the site
numpydoc_show_class_members = False  # autodoc shows them
numpydoc_xref_param_type = False
autosummary_generate = False
autodoc_typehints = "none"  # the docstrings say the types
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"  # its pages ask no other machine for anything: fonts are those of the reader's system
html_static_path = ["static"]
html_css_files = ["site.css"]
smartquotes = False  # two hyphens begin an option
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}


def _is_foreign(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """Leave out what a class inherits from Python, NumPy or torch."""
    if isinstance(member, property):
        member = member.fget
    home = getattr(member, "__module__", None)
    return True if home is None or not home.startswith("fastfid") else None


def _link_pages(app: Sphinx, what: str, name: str, target: object, options: object, lines: list[str]) -> None:
    """Make links of the names of pages in a docstring."""
    lines[:] = [re.sub(r"(?<!`)docs/(\w+)\.md", r":doc:`\1`", line) for line in lines]


def _name_the_result(
    app: Sphinx, what: str, name: str, target: object, options: object, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Link the class that a function returns."""
    return signature, pages.returned(target) or result


def _check_requests(app: Sphinx, failure: Exception | None) -> None:
    """Fail where a page would fetch something from another machine."""
    built = Path(app.outdir)
    for page in sorted([*built.rglob("*.html"), *built.rglob("*.css")]) if failure is None else []:
        if found := pages.requests(page):
            raise ExtensionError(
                f"{page}: a page of the site asks no other machine for anything, and this has {found[0]}"
            )


def setup(app: Sphinx) -> dict[str, Any]:
    """Let `pages` complete each page when it has been read."""
    app.connect("source-read", lambda _, name, source: source.__setitem__(0, pages.complete(name, source[0])))
    app.connect("autodoc-process-docstring", _link_pages)
    app.connect("autodoc-skip-member", _is_foreign)
    app.connect("autodoc-process-signature", _name_the_result)
    app.connect("build-finished", _check_requests)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
