"""Samples of a WebDataset: the members of a tar that have one key, such as ``00/17.png`` and ``00/17.cls``."""

import json
import re
import tarfile
from collections.abc import Callable
from typing import Any

from fastfid.sources.base import Label, Labels
from fastfid.sources.labels import as_label, made_of
from fastfid.sources.listing import PassedOver

__all__ = ["SampleLabels", "Samples"]

# What lies beside a picture and is no stray file.
_COMPANIONS = (".cls", ".json", ".txt")
# Largest file with a label. Metadata of crawled pictures takes a few KiB.
_MOST_BYTES = 2**20
# Keys of a .json under which labels are found, in this order.
_KEYS = ("label", "cls")


def split_name(name: str) -> tuple[str, str] | None:
    """Return key and extension of a member: the extension begins with the first dot of the base name.

    None: the base name has no dot, or begins with one, and the member belongs to no sample.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return (folder + slash + stem, dot + extension) if dot and stem else None


class Samples:
    """Finds the files that lie beside pictures. Members of one sample follow each other in the archive.

    Parameters
    ----------
    passed_over : PassedOver
        Counts the files that have no picture beside them.
    """

    def __init__(self, passed_over: PassedOver):
        self._passed_over = passed_over
        self._picture = ""  # name of the last picture
        self._key: str | None = None  # of the files that wait for their picture
        self._waiting: list[str] = []  # their kinds

    def is_companion(self, member: tarfile.TarInfo) -> bool:
        """Return whether the member is a file that may lie beside a picture. It is counted if it turns out not to."""
        if not member.name.endswith(_COMPANIONS) or not member.isfile() or (split := split_name(member.name)) is None:
            return False
        key, extension = split
        if extension not in _COMPANIONS or any(part[:1] == "." or part == "__MACOSX" for part in key.split("/")):
            return False
        last = split_name(self._picture)
        if last is not None and last[0] == key:
            return True
        if key != self._key:
            self.end()
        self._key = key
        self._waiting.append(extension)
        return True

    def add_picture(self, name: str) -> None:
        """Take note of a picture."""
        self._picture = name
        if self._waiting:
            split = split_name(name)
            if split is not None and split[0] == self._key:
                self._waiting.clear()
            self.end()

    def end(self) -> None:
        """Count the files whose picture did not come."""
        for kind in self._waiting:
            self._passed_over.count_other(kind)
        self._waiting.clear()
        self._key = None


class SampleLabels:
    """Reads the labels of samples: those in ``.cls`` files, or else those in ``.json`` files.

    The first sample with a label decides which, and under which key of the ``.json``.

    Parameters
    ----------
    path : str
        The archive, for messages.
    """

    def __init__(self, path: str):
        self._path = path
        self._key: str | None = None
        self._pictures: list[str] = []  # of the sample with this key
        self._files: dict[str, bytes] = {}
        self._found: dict[str, Label] = {}  # by picture
        self._extension: str | None = None
        self._json_key: str | None = None

    def add(self, name: str, nbytes: int, data: Callable[[], bytes], *, is_picture: bool) -> None:
        """Take the next member of the archive. `data` reads its data."""
        split = split_name(name)
        if split is None:
            return
        key, extension = split
        if key != self._key:
            self._end_sample()
            self._key = key
        if is_picture:
            self._pictures.append(name)
        elif extension in (".cls", ".json"):
            if nbytes > _MOST_BYTES:
                raise ValueError(f"{self._path}/{name}: has {nbytes} bytes, too many for a label")
            if extension in self._files:
                raise ValueError(f"{self._path}/{name}: comes twice in one sample")
            self._files[extension] = data()

    def labels(self, names: list[str]) -> Labels | None:
        """Return the labels of the pictures called `names`; None: no picture has one."""
        self._end_sample()
        if self._extension is None:
            return None
        missing = next((name for name in names if name not in self._found), None)
        if missing is not None:
            what = self._extension if self._json_key is None else f".json with the key {self._json_key}"
            raise ValueError(f"{self._path}/{missing}: has no label, as no {what} is beside it")
        origin = self._extension if self._json_key is None else f"{self._extension}: {self._json_key}"
        return made_of((self._found[name] for name in names), origin, lambda i: f"{self._path}/{names[i]}")

    def _end_sample(self) -> None:
        if self._pictures and self._files:
            label = self._label()
            if label is not None:
                self._found |= dict.fromkeys(self._pictures, label)
        self._pictures.clear()
        self._files.clear()

    def _label(self) -> Label | None:
        """Return the label of the current sample; None: its files have none."""
        name = f"{self._path}/{self._key}"
        if ".cls" in self._files and self._extension in (None, ".cls"):
            self._extension = ".cls"
            text = self._files[".cls"].strip()
            if not re.fullmatch(rb"-?[0-9]{1,18}", text):
                raise ValueError(f"{name}.cls: expected a whole number in ASCII; got {text[:40]!r}")
            return as_label(int(text), f"{name}.cls")
        if ".json" not in self._files or self._extension == ".cls":
            return None
        record = self._record(f"{name}.json")
        keys = _KEYS if self._json_key is None else (self._json_key,)
        key = next((key for key in keys if key in record), None)
        if key is None:
            return None
        self._extension, self._json_key = ".json", key
        return as_label(record[key], f"{name}.json: {key}")

    def _record(self, name: str) -> dict[str, Any]:
        """Return the object in the ``.json`` of the current sample."""
        try:
            record = json.loads(self._files[".json"])
        except RecursionError:
            raise ValueError(f"{name}: cannot be read as JSON (it nests too deep)") from None
        except ValueError as error:
            raise ValueError(f"{name}: cannot be read as JSON ({error})") from None
        return record if isinstance(record, dict) else {}
