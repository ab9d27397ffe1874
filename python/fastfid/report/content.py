"""What a page is made of. The template renders these, and escapes every text in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from fastfid._console import escaped

__all__ = [
    "Block",
    "Cell",
    "Entry",
    "Figure",
    "Notice",
    "Page",
    "Picture",
    "Section",
    "Sheet",
    "Table",
    "minus",
    "plain",
]


def minus(value: float, form: str) -> str:
    """Return a number with a minus sign, not a hyphen, which breaks the line.

    >>> minus(-2.5, ".2g")
    '−2.5'
    """
    return f"{value:{form}}".replace("-", "\N{MINUS SIGN}")


def plain(text: object) -> str:
    r"""Return a text that UTF-8 takes, with its control characters as ``\xNN``.

    >>> plain("a\udcffb\n")
    'a\\udcffb\\x0a'
    """
    return escaped(str(text).encode("utf-8", "backslashreplace").decode())


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes
    ----------
    text : str
    number : float or None
        What a sortable table sorts by; None: the text.
    """

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Table:
    """A table, whose first column names the rows.

    Attributes
    ----------
    caption : str
    head : sequence of str
    rows : sequence of sequences of Cell
    is_sortable : bool
        Whether a script makes its columns sort.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    is_sortable: bool = False

    def is_numeric(self, column: int) -> bool:
        """Whether a column has numbers alone, which are set to the right."""
        cells = [row[column] for row in self.rows if row[column].text]
        return bool(cells) and all(cell.number is not None for cell in cells)


@dataclass(frozen=True)
class Figure:
    """A drawing in two colour schemes, as ``data:`` URIs.

    Attributes
    ----------
    light, dark : str
    alt : str
        What it shows, for those who do not see it.
    caption : str
    title : str
        Its heading; empty: it has none.
    """

    light: str
    dark: str
    alt: str
    caption: str
    title: str = ""


@dataclass
class Picture:
    """An image of a set on a sheet.

    Attributes
    ----------
    side : {"real", "generated"}
    row : int
        Number of its row among the features of its side.
    facts : str
        What stands below it, such as its distance.
    source : str or None
        The ``data:`` URI; None: it is not there.
    name : str
        Name of the image in its source.
    is_small : bool
        Whether it has few pixels, which are shown as squares.
    """

    side: Literal["real", "generated"]
    row: int
    facts: str = ""
    source: str | None = None
    name: str = ""
    is_small: bool = False


@dataclass(frozen=True)
class Entry:
    """An image of a sheet, and those that are shown beside it."""

    picture: Picture
    beside: Sequence[Picture] = ()


@dataclass(frozen=True)
class Sheet:
    """Images in a grid.

    Attributes
    ----------
    title : str
    text : str
        What is on the sheet.
    entries : sequence of Entry
    beside : str
        What the images beside each one are; empty: there are none, or the text says so.
    is_of_ends : bool
        Whether it is of the end of a direction, below the heading of that.
    """

    title: str
    text: str
    entries: Sequence[Entry]
    beside: str = ""
    is_of_ends: bool = False


@dataclass(frozen=True)
class Notice:
    """A sentence: why something is not there, or what to keep in mind."""

    text: str


Block: TypeAlias = Table | Figure | Sheet | Notice


@dataclass
class Section:
    """A section of the page.

    Attributes
    ----------
    key : str
        Its anchor.
    title : str
    paragraphs : list of str
    blocks : list of Table, Figure, Sheet or Notice
    """

    key: str
    title: str
    paragraphs: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """The whole page.

    Attributes
    ----------
    title : str
    verdict : str
        One sentence.
    facts : sequence of (str, str)
        What was compared, and how.
    sections : sequence of Section
    """

    title: str
    verdict: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
