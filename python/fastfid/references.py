"""Names of statistics that are known by their numbers.

Statistics are passed on as files, whose names say little. A table has a hash of mean and covariance, and a name that
people know: it says which reference a distance is from. The user's table is a file of JSON lines beside the cache,
``references.jsonl``; ``fastfid inspect FILE --add-reference NAME`` adds a line.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from fastfid._console import escaped, warn
from fastfid._files import append_line, cache_folder, open_regular
from fastfid.statistics import Statistics

__all__ = ["SHIPPED", "add_reference", "known_as", "numbers_hash", "read_table", "table_path"]

SHIPPED: Mapping[str, str] = MappingProxyType({})
"""The names that come with fastfid, by the hash of the numbers."""

_MAX_TABLE_BYTES = 1 << 22
_MAX_NAME = 200


def table_path() -> Path:
    """Return the path of the user's table. RuntimeError if there is no home folder."""
    return cache_folder() / "references.jsonl"


def numbers_hash(statistics: Statistics) -> str:
    """Return the SHA-256 of the mean and the covariance, 64 hexadecimal digits.

    It is that of ``d`` as a little-endian int64, and ``mu`` and ``sigma``, row by row, as little-endian float64 without
    negative zeros. So it does not depend on how a file is compressed, what else the file holds, and where it lies. n is
    no part of it, because the files of other tools do not have it.

    Examples
    --------
    >>> numbers_hash(Statistics([0.0, 1.0], [[1.0, 0.0], [0.0, 1.0]]))[:16]
    'cfebc34e4a213f5e'
    """
    found = hashlib.sha256(np.array(statistics.d, "<i8").tobytes())
    found.update((statistics.mu + 0.0).astype("<f8", copy=False).tobytes())
    for row in statistics.sigma:  # a copy of the whole would take as much memory again
        found.update((row + 0.0).astype("<f8", copy=False).tobytes())
    return found.hexdigest()


def read_table() -> dict[str, str]:
    """Return the names of the shipped and of the user's table, by the hash of the numbers.

    Raises
    ------
    OSError, ValueError
        The user's table cannot be read or is damaged. The message names the file and the line.
    """
    names = dict(SHIPPED)
    try:
        path = table_path()
        with open_regular(path) as stream:
            data = stream.read(_MAX_TABLE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, RuntimeError):  # no table, or no home folder for one
        return names
    if len(data) > _MAX_TABLE_BYTES:
        raise ValueError(f"{path}: is larger than {_MAX_TABLE_BYTES >> 20} MiB; remove what is no line of a reference")
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            digest, name = entry["sha256"], entry["name"]
            is_sound = _is_hash(digest) and _is_name(name)
        except (ValueError, TypeError, KeyError, RecursionError):
            is_sound = False
        if not is_sound:
            raise ValueError(
                f"{path}: line {number} is damaged: expected a JSON object with sha256 and name; remove it"
            )
        names.setdefault(digest, name)
    return names


def known_as(sides: Sequence[Statistics | None]) -> list[str | None]:
    """Return the name of each of these statistics in the tables; None: they are in none.

    A table that cannot be read gives one warning and no names.
    """
    if not any(sides):
        return [None] * len(sides)
    try:
        names = read_table()
    except (OSError, ValueError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        warn(f"names of known references are not looked up: {text}")
        names = {}
    # A hash of 32 MiB takes a tenth of a second.
    return [names.get(numbers_hash(side)) if names and side is not None else None for side in sides]


def add_reference(statistics: Statistics, name: str) -> str:
    """Add the statistics to the user's table, and return the hash of their numbers.

    Adding what is there under this name changes nothing. Processes that add at once wait for each other.

    Raises
    ------
    OSError
        The table cannot be read or written.
    ValueError
        The name is empty, too long or not printable; the numbers are known by another name, or the name is that of
        other numbers; the table is damaged.
    """
    if not _is_name(name):
        raise ValueError(
            f"a name of a reference is 1 to {_MAX_NAME} printable characters; got {escaped(repr(name[:80]))}"
        )
    names, digest = read_table(), numbers_hash(statistics)
    if (known := names.get(digest, name)) != name:
        raise ValueError(f"{statistics.name}: is known as {known} already; to rename it, edit {table_path()}")
    if digest in names:
        return digest
    if (other := next((found for found, given in names.items() if given == name), None)) is not None:
        raise ValueError(f"{name} is the name of other statistics (sha256 {other[:16]}...); choose another name")
    path = table_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"dims": statistics.d, "n": statistics.n, "protocol": statistics.meta.get("protocol")}
    append_line(path, json.dumps({"sha256": digest, "name": name, **facts}))
    return digest


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) == len(value) <= _MAX_NAME and value.isprintable()
