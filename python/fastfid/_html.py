"""Small tables in HTML, for notebooks."""

import html
from collections.abc import Sequence

from fastfid._console import escaped

__all__ = ["table"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a table as HTML.

    Parameters
    ----------
    head : sequence of str, length k
        The columns; empty: none is named.
    rows : sequence of sequences of str, each of length k
    caption : str
        What stands above the table.

    Notes
    -----
    All texts are plain: what HTML would read as markup is escaped, and so is what no terminal or UTF-8 takes.

    Examples
    --------
    >>> table(["n"], [["<3>"]])
    '<table><tr><th>n</th></tr><tr><td>&lt;3&gt;</td></tr></table>'
    """

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_plain(cell)}</{tag}>" for cell in cells) + "</tr>"

    above = f"<caption>{_plain(caption)}</caption>" if caption else ""
    lines = ([row(head, "th")] if head else []) + [row(cells, "td") for cells in rows]
    return f"<table>{above}{''.join(lines)}</table>"


def _plain(text: str) -> str:
    return html.escape(escaped(text.encode("utf-8", "backslashreplace").decode()))
