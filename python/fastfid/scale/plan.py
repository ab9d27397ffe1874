"""Plans: what is to be read, in which tasks, and what decides the outcome of a task."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastfid import segments
from fastfid._files import open_regular
from fastfid._remote import examined_once
from fastfid._version import __version__
from fastfid.cache import package_versions
from fastfid.reservoir import ALL_KEYS, sample_below
from fastfid.scale.places import Place, written
from fastfid.sources import ImageSource
from fastfid.sources.base import UNVERSIONED

__all__ = ["SIDES", "Plan", "SidePlan", "Sizing", "Task", "decisions", "plan_of"]

SCHEMA = 3
# What the two sets of an evaluation are called in its records and its run directory.
SIDES = ("real", "fake")
# The level of a task. Trees of more have 10^13 images.
_MOST_LEVELS = 8
_FRESH = "--fresh starts over"
# Tasks of rows have at most so many images: 8 MiB of features of 2,048 dims.
_MOST_ROWS = 1024
_FEWEST = 32
# A set of more images has Parts of moments: the rows would take more than 16 GiB at 2,048 dims.
_MOST_KEPT_AS_ROWS = 1 << 21
# A worker that is killed loses its task. Each does so many, so that this is at most 5 % of its work.
_TASKS_OF_A_WORKER = 20


def _images_of_node(level: int) -> int:
    return segments.SEGMENT * int(segments.RADIX**level)


@dataclass(frozen=True)
class Sizing:
    """How a set is cut into tasks.

    Attributes
    ----------
    images : int
        Images of a task. The last task has those that are left.
    level : int or None
        None: the Part has the rows of the images. Else it has what the metrics accumulate, and the task is a node of
        this level of the tree (:mod:`fastfid.segments`).
    sample_below : int
        Parts of nodes have the sampled rows with keys below this one: all that the sample of the set can need, see
        :func:`fastfid.reservoir.sample_below`. A set to which images are added keeps it.
    """

    images: int
    level: int | None = None
    sample_below: int = ALL_KEYS

    @classmethod
    def choose(cls, n: int, workers: int, images: int | None) -> "Sizing":
        """Return the sizing for `n` images and so many workers; `images` is what the caller asks for."""
        if images is not None:
            if images > segments.SEGMENT:
                raise ValueError(f"task_images: expected at most a segment, {segments.SEGMENT:,}, got {images:,}")
            return cls(images)
        share = -(-n // (_TASKS_OF_A_WORKER * workers))
        if share < segments.SEGMENT and n <= _MOST_KEPT_AS_ROWS:
            return cls(min(max(share, _FEWEST), _MOST_ROWS))
        level = 1 if share >= _images_of_node(1) else 0
        return cls(_images_of_node(level), level, sample_below(n))

    @classmethod
    def of_rows(cls) -> "Sizing":
        """Return the sizing of the largest tasks whose Parts have the rows of all images."""
        return cls(_MOST_ROWS)


@dataclass(frozen=True)
class Task:
    """A run of images of one side.

    Attributes
    ----------
    side : str
        "real" or "fake".
    first, count : int
        Index of the first image, and number of images.
    level, sample_below : int
        See :class:`Sizing`.
    files : str
        The state of the files of these images when the plan was made.
    key : str
        A hash of all that decides the Part.
    """

    side: str
    first: int
    count: int
    level: int | None
    files: str
    key: str
    sample_below: int = ALL_KEYS

    @property
    def node(self) -> int:
        """The index of the node of the tree, at the task's level."""
        return self.first // _images_of_node(self.level or 0)

    @property
    def name(self) -> str:
        """The name of the Part's file, without a suffix."""
        kind = "rows" if self.level is None else f"node{self.level}"
        return f"{self.first:012}-{self.count}-{kind}"

    def __str__(self) -> str:
        """Return what messages call the task."""
        return f"images {self.first:,} to {self.first + self.count - 1:,}"


@dataclass(frozen=True)
class SidePlan:
    """The tasks of one side, in the order of its source; and the sizes and versions of files at URLs."""

    name: str
    n: int
    sizing: Sizing
    tasks: Sequence[Task]
    remote: Mapping[str, tuple[int, str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes
    ----------
    decides : dict
        What decides the outcome of every task: versions, network, options, metrics.
    sides : dict of str to SidePlan
        The sides that are read, by "real" and "fake".
    request : dict or None
        What was asked for, for processes that have nothing but the run directory.
    """

    decides: Mapping[str, Any]
    sides: Mapping[str, SidePlan]
    request: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def tasks(self) -> list[Task]:
        """The tasks of all sides."""
        return [task for side in self.sides.values() for task in side.tasks]

    def unversioned(self) -> Iterator[str]:
        """Yield a sentence for each side some of whose files at URLs have no known version."""
        for side in self.sides.values():
            unknown = [task for task in side.tasks if task.files.endswith(UNVERSIONED)]
            if unknown:
                yield (
                    f"{side.name}: the server does not say which version its files are (no ETag, no time), first for"
                    f" {unknown[0]}: a file that changes and keeps its size will not be noticed"
                )

    def save(self, path: Place) -> None:
        """Write the plan; it appears whole or not at all."""
        sides = {
            name: {
                "name": side.name,
                "n": side.n,
                "images": side.sizing.images,
                "level": side.sizing.level,
                "sample_below": side.sizing.sample_below,
                "files": [task.files for task in side.tasks],
                "remote": side.remote,
            }
            for name, side in self.sides.items()
        }
        content = {"schema": SCHEMA, "decides": self.decides, "sides": sides, "request": self.request}
        with written(path) as file:
            file.write(json.dumps(content, indent=1, sort_keys=True).encode())

    @classmethod
    def load(cls, path: Place) -> "Plan":
        """Read a plan.

        Raises
        ------
        OSError
            The file cannot be read.
        ValueError
            It is no plan of this version.
        """
        try:
            found = json.loads(_bytes_of(path))
            if found["schema"] != SCHEMA or not isinstance(found["decides"], dict):
                raise ValueError
            sides = {}
            for name in [name for name in SIDES if name in found["sides"]]:
                side = found["sides"][name]
                sizing = Sizing(side["images"], side["level"], side["sample_below"])
                _check_sizing(sizing)
                tasks = _tasks(found["decides"], name, int(side["n"]), sizing, side["files"])
                remote = {str(url): (int(size), version) for url, (size, version) in side["remote"].items()}
                sides[name] = SidePlan(str(side["name"]), int(side["n"]), sizing, tasks, remote)
            return cls(found["decides"], sides, found["request"])
        except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError):
            raise ValueError(f"{path}: is damaged, or is no plan of this version; {_FRESH}") from None

    def check_same(self, other: "Plan", where: str) -> None:
        """Raise ValueError, naming what differs, unless `other`, the plan of now, is this plan."""
        self.check_decisions(other.decides, where)
        if set(self.sides) != set(other.sides):
            raise ValueError(f"{where}: reads {_and(self.sides)}, but now {_and(other.sides)} is to be read; {_FRESH}")
        for name, side in self.sides.items():
            _check_images(side, other.sides[name], where)

    def check_decisions(self, decides: Mapping[str, Any], where: str) -> None:
        """Raise ValueError, naming the first difference, unless the Parts of this plan are what `decides` gives."""
        for key in sorted({*self.decides, *decides}):
            there, here = self.decides.get(key), decides.get(key)
            if there != here:
                raise ValueError(f"{where}: is of another run: {_difference(key, there, here)}; {_FRESH}")

    def check_extends(self, old: "Plan", sources: Mapping[str, ImageSource], where: str) -> None:
        """Raise ValueError unless the images of `old` are the first ones of this plan."""
        old.check_decisions(self.decides, where)
        for name, before in old.sides.items():
            now = self.sides.get(name)
            if now is None or now.n < before.n:
                raise ValueError(f"{where}: {before.name} has fewer images than the {before.n:,} of the plan; {_FRESH}")
            with examined_once():
                states = [_state(sources[name], task.first, task.count) for task in before.tasks]
            for task, files in zip(before.tasks, states, strict=True):
                if files != task.files:
                    raise ValueError(f"{where}: {task} of {before.name} are others than those of the plan; {_FRESH}")


def decisions(provenance: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the outcome of every task of a plan, in JSON's types."""
    found = {
        **provenance,
        "fastfid": __version__,
        "versions": package_versions(),
        "segment": segments.SEGMENT,
        "radix": segments.RADIX,
        **more,
    }
    decided: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True, default=_as_json))
    return decided


def plan_of(
    sources: Mapping[str, ImageSource],
    decides: Mapping[str, Any],
    sizings: Mapping[str, Sizing],
    request: Mapping[str, Any] | None,
) -> Plan:
    """Return the plan for sources that were opened now.

    Raises
    ------
    OSError
        A server cannot be reached.
    TypeError, ValueError
        The number of images is not known, or they do not come from files.
    """
    sides = {}
    for name, source in sources.items():
        sizing, n = sizings[name], len(source)
        with examined_once() as remote:
            files = [_state(source, first, min(sizing.images, n - first)) for first in range(0, n, sizing.images)]
        sides[name] = SidePlan(source.name, n, sizing, _tasks(decides, name, n, sizing, files), dict(remote))
    return Plan(decides, sides, request)


def _bytes_of(path: Place) -> bytes:
    if not isinstance(path, Path):
        return path.read_bytes()
    with open_regular(path) as file:
        return file.read()


def _check_sizing(sizing: Sizing) -> None:
    """Raise ValueError unless these are numbers that a plan has. They become names of files."""
    whole = [sizing.images, sizing.sample_below, sizing.level or 0]
    is_level = sizing.level is None or sizing.images == _images_of_node(min(sizing.level, _MOST_LEVELS))
    if not all(type(number) is int for number in whole) or min(whole) < 0 or not sizing.images >= 1 or not is_level:
        raise ValueError


def _tasks(decides: Mapping[str, Any], side: str, n: int, sizing: Sizing, files: Sequence[str]) -> list[Task]:
    head = hashlib.sha256(json.dumps(decides, sort_keys=True).encode())
    tasks = []
    for first, state in zip(range(0, n, sizing.images), files, strict=True):
        count = min(sizing.images, n - first)
        key = head.copy()
        key.update(json.dumps([side, first, count, sizing.level, sizing.sample_below, state]).encode())
        tasks.append(Task(side, first, count, sizing.level, state, key.hexdigest(), sizing.sample_below))
    return tasks


def _state(source: ImageSource, first: int, count: int) -> str:
    """Return a hash of what some images come from."""
    return source.state_of(first, first + count)


def has_changed(task: Task, source: ImageSource) -> bool:
    """Whether the files of a task are others than when the plan was made."""
    return _state(source, task.first, task.count) != task.files


def _check_images(old: SidePlan, new: SidePlan, where: str) -> None:
    differ = [a for a, b in zip(old.tasks, new.tasks, strict=False) if a.files != b.files]
    added = "; --extend keeps what was read, if images were only added at the end"
    if old.n != new.n:
        how = f"{old.name} had {old.n:,} images when the plan was made, and has {new.n:,} now"
        raise ValueError(f"{where}: {how}; {_FRESH}{added if new.n > old.n else ''}")
    if differ:
        raise ValueError(
            f"{where}: the files of {len(differ)} of {len(old.tasks)} tasks of {old.name} have changed since the plan"
            f" was made, first those of {differ[0]}{_first_other(old.remote, new.remote)}; {_FRESH}"
        )


def _first_other(old: Mapping[str, tuple[int, str | None]], new: Mapping[str, tuple[int, str | None]]) -> str:
    """Return what is said of the first file at a URL that is another one; nothing if there is none."""
    if old and (others := [url for url in new if url not in old]):
        return f" ({others[0]} was not read then)"
    for url, now in new.items():
        before = old.get(url, now)
        if before != now:
            what, there, here = ("size", f"{before[0]:,}", f"{now[0]:,}")
            if before[0] == now[0]:
                what, there, here = ("version", str(before[1]), str(now[1]))
            return f" ({url}: its {what} was {there}, and is {here})"
    return ""


def _difference(key: str, there: Any, here: Any) -> str:
    """Return what differs in words; of two mappings, the first entry."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        inner = next(name for name in sorted({*there, *here}) if there.get(name) != here.get(name))
        return _difference(f"{key} {inner}", there.get(inner), here.get(inner))
    return f"{key} is {there} there, {here} here"


def _and(names: Mapping[str, Any]) -> str:
    return " and ".join(names) or "nothing"


def _as_json(value: Any) -> Any:
    """Return an option that JSON has no type for: an array, a tensor or a path."""
    return value.tolist() if hasattr(value, "tolist") else os.fsdecode(value)


Changed = Literal["refuse", "fresh", "extend"]
