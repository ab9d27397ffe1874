"""Where the files of a run directory are: in a folder, or at URLs that fsspec can write to."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fastfid._files import atomic_file
from fastfid._remote import file_system, is_url, persistently

__all__ = ["Place", "UrlPath", "entries", "place_of", "set_aside", "written"]


class UrlPath:
    """A file or a folder at a URL, with those methods of :class:`pathlib.Path` that a run directory needs.

    Nothing is kept of what the server says, as other processes write too. Requests that fail are made again.

    Attributes
    ----------
    name : str
        The last part of the URL.
    """

    def __init__(self, url: str, system: Any, place: str):
        self._url, self._system, self._place = url.rstrip("/"), system, place.rstrip("/")
        self.name = self._url.rpartition("/")[2]

    def __truediv__(self, name: str) -> "UrlPath":
        return UrlPath(f"{self._url}/{name}", self._system, f"{self._place}/{name}")

    def __str__(self) -> str:
        return self._url

    @property
    def parent(self) -> "UrlPath":
        """The folder of the file."""
        return UrlPath(self._url.rpartition("/")[0], self._system, self._place.rpartition("/")[0])

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: folders are made with the files in them."""

    def exists(self) -> bool:
        """Whether the file is there."""
        with contextlib.suppress(FileNotFoundError):
            return self._ask(lambda: self._system.info(self._place)) is not None
        return False

    def read_bytes(self) -> bytes:
        """Return the content. FileNotFoundError if there is no such file."""
        data: bytes = self._ask(lambda: self._system.cat_file(self._place))
        return data

    def write_bytes(self, data: bytes) -> None:
        """Write the file by one request: in an object store it appears whole or not at all.

        FileNotFoundError if there is no such bucket. None is made: the name may be misspelt.
        """
        self._ask(lambda: self._system.pipe_file(self._place, data), "cannot be written")

    def unlink(self) -> None:
        """Remove the file. FileNotFoundError if there is no such file."""
        self._ask(lambda: self._system.rm_file(self._place), "cannot be removed")

    def names(self) -> list[str]:
        """Return the names of the files in the folder; none if there is no such folder."""
        with contextlib.suppress(FileNotFoundError):
            found = self._ask(lambda: self._system.ls(self._place, detail=False))
            return [path.rstrip("/").rpartition("/")[2] for path in found]
        return []

    def _ask(self, request: Any, failed: str = "cannot be read") -> Any:
        return persistently(self._url, request, failed)


Place = Path | UrlPath


def place_of(path: str | os.PathLike[str]) -> Place:
    """Return the folder at a path or URL.

    Raises
    ------
    ImportError, OSError
        See :func:`fastfid._remote.known_file`.
    ValueError
        Nothing can be written there.
    """
    text = os.fspath(path)
    if not text:
        raise ValueError("run_dir: expected the path of a folder, or a URL, got ''")
    if not is_url(text):
        return Path(os.path.abspath(path))
    if text.lower().startswith(("http:", "https:")):
        raise ValueError(f"{text}: nothing can be written to a web server; expected a folder, or a URL as s3://...")
    system, place = file_system(text, use_listings_cache=False)
    is_local = "file" in ([system.protocol] if isinstance(system.protocol, str) else system.protocol)
    return Path(place) if is_local else UrlPath(text, system, place)


@contextlib.contextmanager
def written(place: Place) -> Iterator[IO[bytes]]:
    """Open a file to write; it appears whole, or not at all if the block ends with an error.

    Raises
    ------
    OSError
        The disk is full, or the place cannot be written to; the error names the file.
    """
    if isinstance(place, Path):
        with atomic_file(place, overwrite=True) as file:
            yield file
        return
    buffer = io.BytesIO()
    yield buffer
    place.write_bytes(buffer.getvalue())


def entries(folder: Place) -> list[str]:
    """Return the names of what is in a folder; none if there is no such folder."""
    if isinstance(folder, UrlPath):
        return folder.names()
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def set_aside(place: Place) -> None:
    """Rename a file: ``.bad`` comes after its name. Nothing is done where another process was faster."""
    with contextlib.suppress(FileNotFoundError):
        if isinstance(place, Path):
            os.replace(place, f"{place}.bad")
            return
        (place.parent / f"{place.name}.bad").write_bytes(place.read_bytes())
        place.unlink()
