"""The opt-in cache of statistics: the same files under the same protocol and network are read once.

An entry's key is a hash of everything that decides the numbers: the versions of what decodes and computes, the
extractor, how the images are read, and the files themselves. Files are known by path, size, inode, modification and
change time, or, on request, by their content.

There is never a stale hit: a write or a rename moves the change time, which no program can set back. Statistics are not
kept where a file differs after the reading from what it was before, or changed since, or less than two seconds (the
coarsest clock of a file system in use) before, the source was opened. This trusts the machine's clock and that a file
system reports changes: one that is mounted from elsewhere may do so seconds late, and a folder above the files that is
exchanged for another and put back, all while they are read, goes unseen.
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

from fastfid._files import cache_folder
from fastfid._version import __version__
from fastfid.errors import FastfidWarning
from fastfid.sources import ImageSource
from fastfid.statistics import Statistics

__all__ = ["CacheMode", "StatisticsCache", "package_versions"]

CacheMode = Literal[False, True, "hashes"]

_CLOCK_S = 2.0


@dataclass(frozen=True)
class _Fingerprint:
    """What the files were at one moment."""

    key: str
    state: str  # of path, size, inode and times, also where the key knows them by their content
    newest: float  # change time, seconds since the epoch; infinite where a file cannot be read


class StatisticsCache:
    """One source's place in the cache.

    Parameters
    ----------
    source : ImageSource
        A folder or an archive: something made of files.
    provenance : mapping
        What else decides the numbers: extractor, protocol, dims, and how the images are read. JSON values.
    by_content : bool
        Know the files by the SHA-256 of their content rather than by path, size, inode and times.
    opened_at : float
        When, at the latest, the source had not been opened yet: ``time.time()``. What changes later is noticed.

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
        """The entry's file."""
        return self._folder / f"{self._before.key}.npz"

    def load(self) -> Statistics | None:
        """Return the cached statistics, or None; a damaged entry is none, and is said and written anew."""
        try:
            return Statistics.load(self.path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            warnings.warn(f"not taken from the cache: {error}", FastfidWarning, stacklevel=2)
            return None

    def store(self, statistics: Statistics) -> str | None:
        """Keep the statistics; return None, or the reason why they are not kept."""
        if self._fingerprint() != self._before:
            return "its files changed while they were read"
        if self._before.newest > self._opened_at - _CLOCK_S:
            return "its files changed less than two seconds before they were read, or since"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            statistics.save(self.path, overwrite=True)  # a concurrent run writes the same numbers
        except OSError as error:
            return f"{self._folder}: {error.strerror or error}"
        return None

    def _fingerprint(self) -> _Fingerprint:
        decides = {"fastfid": __version__, **package_versions(), **_codec_versions(), **self._provenance}
        head = json.dumps(decides, sort_keys=True)
        key, state = hashlib.sha256(head.encode()), hashlib.sha256()
        newest = 0.0
        for path in self._files:
            # The same file is read in another way under another extension.
            facts: list[object] = [os.path.splitext(path)[1]]
            try:
                status = os.stat(path)
                where = [os.path.realpath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
                facts += [_content_hash(path)] if self._by_content else where
            except OSError:  # the reader says what is wrong; if it can be read then, it has changed
                where, newest = [], math.inf
            else:
                newest = max(newest, status.st_ctime)
            key.update(json.dumps(facts).encode() + b"\n")
            state.update(json.dumps(where).encode() + b"\n")
        return _Fingerprint(key.hexdigest(), state.hexdigest(), newest)


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
    """Return the versions of the libraries that decode: one Pillow may come with different ones."""
    from PIL import features

    names = ("libjpeg_turbo", "jpg_2000", "zlib", "libtiff", "webp")
    return {name: features.version(name) for name in names}


def _content_hash(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
