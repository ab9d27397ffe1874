"""The opt-in cache of statistics: files are read only once under the same protocol and network.

The key of an entry is a hash of everything that determines the statistics: the versions of the packages that decode
and compute, the extractor, the options for reading images, and the files. Files are identified by path, size, inode,
modification time and change time, or, on request, by their content.

An entry is never stale: a write or a rename updates the change time, and no program can set the change time back.
Statistics are not stored if a file has changed during the reading, after the source was opened, or less than two
seconds before. Two seconds are the resolution of the coarsest file system clock in use. These rules assume that the
machine's clock is correct and that the file system reports changes. A network file system may report changes seconds
late. If a folder above the files is replaced and restored while the files are read, this is not detected.
"""

import hashlib
import importlib.metadata
import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastfid._files import cache_folder, content_hash
from fastfid._version import __version__
from fastfid.errors import FastfidWarning
from fastfid.sources import ImageSource
from fastfid.statistics import Statistics

__all__ = ["CacheMode", "StatisticsCache", "package_versions"]

CacheMode = Literal[False, True, "hashes"]

_CLOCK_S = 2.0


@dataclass(frozen=True)
class _Fingerprint:
    """Identity and state of the files at one moment."""

    key: str
    state: str  # hash of path, size, inode and times, also if the key identifies files by content
    newest: float  # latest change time, seconds since the epoch; infinite if a file cannot be read


class StatisticsCache:
    """The cache entry of one source.

    Parameters
    ----------
    source : ImageSource
        A source made of files: a folder or an archive.
    provenance : mapping
        Everything else that determines the statistics: extractor, protocol, dims, and the options for reading images.
        The values are JSON values.
    by_content : bool
        True: identify files by the SHA-256 of their content. False: by path, size, inode and times.
    opened_at : float
        A time (``time.time()``) before the source was opened. Changes of files after this time are detected.

    Raises
    ------
    ValueError
        The source is not made of files.
    """

    def __init__(self, source: ImageSource, provenance: Mapping[str, Any], *, by_content: bool, opened_at: float):
        self._files = list(source.files())
        self._provenance = dict(provenance)
        self._folder = cache_folder() / "statistics"
        self._by_content = by_content
        self._opened_at = opened_at
        self._before = self._fingerprint()

    @property
    def path(self) -> Path:
        """Path of the entry's file with the statistics of the features."""
        return self._file("")

    def _file(self, part: str) -> Path:
        return self._folder / f"{self._before.key}{f'-{part}' if part else ''}.npz"

    def load(self, part: str = "") -> Statistics | None:
        """Return the cached statistics of one part, or None if there are none.

        A damaged entry gives a warning and None. :meth:`store` then overwrites it.

        Parameters
        ----------
        part : str
            Default: the features. Each other part has a file of its own, so that a run needs none of the others.
        """
        try:
            return Statistics.load(self._file(part), spatial=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            warnings.warn(f"not taken from the cache: {error}", FastfidWarning, stacklevel=2)
            return None

    def store(self, statistics: Statistics, part: str = "") -> str | None:
        """Store the statistics of one part. Return None, or the reason why they are not stored."""
        if self._fingerprint() != self._before:
            return "its files changed while they were read"
        if self._before.newest > self._opened_at - _CLOCK_S:
            return "its files changed less than two seconds before they were read, or since"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            statistics.save(self._file(part), overwrite=True)  # a concurrent run writes the same statistics
        except OSError as error:
            return f"{self._folder}: {error.strerror or error}"
        return None

    def _fingerprint(self) -> _Fingerprint:
        decides = {"fastfid": __version__, **package_versions(), **_codec_versions(), **self._provenance}
        head = json.dumps(decides, sort_keys=True, default=_as_json)
        key, state = hashlib.sha256(head.encode()), hashlib.sha256()
        newest = 0.0
        for path in self._files:
            # The extension is part of the key, because it determines how the file is read.
            facts: list[object] = [os.path.splitext(path)[1]]
            try:
                status = os.stat(path)
                where = [os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
                facts += [content_hash(path)] if self._by_content else where
            except (OSError, ValueError):  # the reader says what is wrong; if it can be read then, it has changed
                where, newest = [], math.inf
            else:
                newest = max(newest, status.st_ctime)
            key.update(json.dumps(facts).encode() + b"\n")
            state.update(json.dumps(where).encode() + b"\n")
        return _Fingerprint(key.hexdigest(), state.hexdigest(), newest)


def _as_json(value: Any) -> Any:
    """Return an option that JSON has no type for: an array, a tensor or a path."""
    return value.tolist() if hasattr(value, "tolist") else os.fsdecode(value)


def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that decode, compute and run the network."""
    versions: dict[str, str | None] = {}
    for package in ("numpy", "pillow", "onnxruntime-gpu", "onnxruntime"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _codec_versions() -> dict[str, str | None]:
    """Return the versions of the decoding libraries, which may differ between builds of one Pillow version."""
    from PIL import features

    names = ("libjpeg_turbo", "jpg_2000", "zlib", "libtiff", "webp")
    return {name: features.version(name) for name in names}
