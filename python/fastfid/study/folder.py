"""The folder of a study: what it is of, and one file for each result, so that a run that was killed goes on."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastfid._files import FileSet, atomic_file, check_writable
from fastfid.sources.base import ImageSource

__all__ = ["StudyFolder", "describe_source", "write_json"]

_PLAN, _POINTS = "plan.json", "points"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_file(path, overwrite=True) as stream:
        stream.write((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def describe_source(source: ImageSource) -> dict[str, Any]:
    """Return what tells a source from another one: name, number of images, and a hash of sizes and times of its files.

    The hash is None where the images do not come from files.
    """
    try:
        files = FileSet(source.files()).state
    except ValueError:
        files = None
    return {"name": source.name, "n": len(source), "files": files}


class StudyFolder:
    """A folder with the conditions of a study (``plan.json``) and its results (``points/``).

    Parameters
    ----------
    path : path-like
        The folder, which is made.
    plan : dict
        All that decides a result, as JSON types.
    fresh : bool
        Start over where the folder has results of something else.
    optional : sequence of str
        Keys of the plan that may be None in one run and something in another one. The folder keeps what there is.

    Attributes
    ----------
    plan : dict
        The plan, with what earlier runs had of the optional keys.

    Raises
    ------
    ValueError
        The folder has results of something else, or a file in it is damaged.
    OSError
        The folder cannot be made or written to.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        plan: Mapping[str, Any],
        *,
        fresh: bool = False,
        optional: Sequence[str] = (),
    ):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: expected a folder for the results, or a name that is free")
        (self.path / _POINTS).mkdir(parents=True, exist_ok=True)
        check_writable(self.path / _PLAN)
        now = json.loads(json.dumps(plan, default=str))
        if fresh:
            for file in (self.path / _PLAN, *(self.path / _POINTS).glob("*.json")):
                file.unlink(missing_ok=True)
        there = _read(self.path / _PLAN) if (self.path / _PLAN).exists() else {}
        now |= {key: there.get(key) for key in optional if now[key] is None}
        self.plan: dict[str, Any] = now
        if there:
            there |= {key: now[key] for key in optional if there.get(key) is None}
            if (different := _difference(there, now)) is not None:
                raise ValueError(
                    f"{self.path}: has results of another study: {different}; give another folder (-o), or start over"
                    " there (--fresh)"
                )
        if not (self.path / _PLAN).exists() or _read(self.path / _PLAN) != now:
            write_json(self.path / _PLAN, now)

    def file_of(self, key: str) -> Path:
        """Return the path of the file of a result."""
        return self.path / _POINTS / f"{key}.json"

    def load(self, key: str) -> dict[str, Any] | None:
        """Return a result; None if it is not there. ValueError if its file is damaged."""
        file = self.file_of(key)
        return _read(file) if file.exists() else None

    def names(self) -> list[str]:
        """Return the names of all results that are there."""
        return sorted(file.stem for file in (self.path / _POINTS).glob("*.json"))

    def keep(self, key: str, value: Mapping[str, Any]) -> None:
        """Write a result."""
        write_json(self.file_of(key), value)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: is damaged ({error}); remove the file, and the run makes it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected a JSON object, got {type(found).__name__}; remove the file")
    return found


def _difference(there: Mapping[str, Any], now: Mapping[str, Any], of: str = "") -> str | None:
    """Return what differs in words; None for equal plans."""
    for key in sorted({*there, *now}):
        a, b = there.get(key), now.get(key)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            return _difference(a, b, f"{of}{key} ")
        if key == "files":
            return f"the files of the {of.strip()} have changed"
        return f"{of}{key} is {_in_words(a)} there, {_in_words(b)} here"
    return None


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    return "not given" if value is None else str(value)
