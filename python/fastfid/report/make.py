"""The making of a report: what it says, and the one file with all of it."""

import hashlib
import importlib.util
import os
import re
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from fastfid._checks import check_count
from fastfid._files import atomic_file, check_writable
from fastfid._version import __version__
from fastfid.evaluation.result import Evaluation
from fastfid.options import EvaluateOptions
from fastfid.report.album import Album
from fastfid.report.classes import classes_section
from fastfid.report.content import Page, plain
from fastfid.report.curves import curves_section
from fastfid.report.directions import directions_section
from fastfid.report.header import facts_of, metrics_section, verdict
from fastfid.report.samples import sections_of_samples
from fastfid.report.sides import evaluate_with_rows
from fastfid.report.sources import sources_section

__all__ = ["DEFAULT_PICTURES", "check_target", "make_report", "render"]

DEFAULT_PICTURES = 12
_MOST_PICTURES = 100  # of a sheet, so that the file stays small


def make_report(
    real: Any,
    fake: Any,
    output: str | os.PathLike[str],
    *,
    metrics: Any = None,
    store: str | os.PathLike[str] | None = None,
    pictures: int = DEFAULT_PICTURES,
    command: Sequence[str] | None = None,
    overwrite: bool = False,
    **options: Unpack[EvaluateOptions],
) -> Evaluation:
    """Compare two sets of images and write one HTML file that shows what the distance is made of.

    Parameters
    ----------
    real, fake, store, options
        See :func:`fastfid.evaluate`.
    output : path
        The file to write. It refers to nothing outside of it.
    metrics : list of str or Metric, or "all", optional
        Default: FID, FID-infinity, KID, precision to coverage and MIFID, as far as they can be computed of what is
        given.
    pictures : int
        Images of a sheet, 1 to 100.
    command : list of str, optional
        The command line that repeats it, for the head of the page.
    overwrite : bool
        Replace `output` if it exists; else that is an error.

    Raises
    ------
    ImportError
        Jinja2 or matplotlib is missing. The message says what to install.
    FileExistsError, OSError
        The file exists already, or cannot be written.
    ValueError
        See :func:`fastfid.evaluate`.

    Examples
    --------
    >>> found = make_report("real", "fake", "report.html", dims=64)  # two folders of four pictures
    >>> found["fid"].value > 0, "<title>" in Path("report.html").read_text()
    (True, True)
    """
    check_packages()
    if check_count("pictures", pictures, 1) > _MOST_PICTURES:
        raise ValueError(f"pictures: expected 1 to {_MOST_PICTURES}, got {pictures}")
    target = check_target(output, overwrite=overwrite)
    evaluation, a, b = evaluate_with_rows(real, fake, metrics, store=store, **options)
    album = Album(a, b)
    sections = [metrics_section(evaluation), curves_section(evaluation, a, b)]
    sections += sections_of_samples(evaluation, a, b, album, pictures)
    if (classes := classes_section(evaluation, album, pictures)) is not None:
        sections.append(classes)
    sections += [directions_section(evaluation, a, b, album, pictures), sources_section(a, b)]
    album.load(options.get("progress", False))
    page = Page(
        plain(f"{evaluation.fake.name} compared with {evaluation.real.name}"),
        verdict(evaluation),
        facts_of(evaluation.to_dict(), command),
        sections,
    )
    write(page, target, overwrite=overwrite)
    return evaluation


def check_packages() -> None:
    """Raise ImportError if a package of the extra ``report`` is missing."""
    names = (("Jinja2", "jinja2"), ("matplotlib", "matplotlib"))
    missing = [package for package, module in names if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f"a report needs {' and '.join(missing)}: pip install '.[report]' in fastfid's source folder")


def check_target(output: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Return the file to be written. OSError where it exists, unless it may be replaced, or cannot be written."""
    target = Path(output)
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.absolute().parent}; make it first")
    if os.path.lexists(target) and not (overwrite and target.is_file()):
        raise FileExistsError(f"{target}: exists already (--overwrite, overwrite=True replaces a file)")
    check_writable(target)
    return target


def write(page: Page, target: Path, *, overwrite: bool) -> None:
    """Write a page, whole or not at all."""
    with atomic_file(target, overwrite=overwrite) as stream:
        stream.write(render(page).encode())


def render(page: Page) -> str:
    """Return the HTML of a page. Every text in it is escaped."""
    import jinja2

    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    environment.filters["anchor"] = lambda text: re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    script = (folder / "page.js").read_text()
    # The page may run this script and no other, whatever is in a name.
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (folder / "page.css").read_text()
    template = environment.get_template("page.html.jinja")
    return str(template.render(page=page, script=script, digest=digest, style=style, version=__version__))
