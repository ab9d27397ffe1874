"""The opt-in cache of statistics: the same files under the same protocol and network are read once.

An entry's key is a hash of everything that decides the numbers: the versions of what decodes and computes, the
extractor, how the images are read, and the files themselves. Files are known by path, size, modification and change
time, or, on request, by their content. There is never a stale hit: a write moves the change time, which no program can
set back, and files that changed less than two seconds (the coarsest clock of a file system in use) before they were
read are not cached.
"""

import hashlib
import importlib.metadata
import json
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fastfid._version import __version__
from fastfid.errors import FastfidWarning
from fastfid.features.weights import cache_folder
from fastfid.sources import ImageSource
from fastfid.statistics import Statistics

__all__ = ["CacheMode", "StatisticsCache", "package_versions"]

CacheMode = Literal[False, True, "hashes"]

_CLOCK_S = 2.0


class StatisticsCache:
    """One source's place in the cache.

    Parameters
    ----------
    source : ImageSource
        A folder or an archive: something made of files.
    provenance : mapping
        What else decides the numbers: extractor, protocol, dims, and how the images are read. JSON values.
    by_content : bool
        Know the files by the SHA-256 of their content rather than by path, size and times.

    Raises
    ------
    ValueError
        The source is not made of files.
    """

    def __init__(self, source: ImageSource, provenance: Mapping[str, Any], *, by_content: bool):
        self._files = list(source.files())
        self._provenance = dict(provenance)
        self._folder = cache_folder() / "statistics"
        self._by_content = by_content
        self._started = time.time()
        self._key, self._newest = self._fingerprint()

    @property
    def path(self) -> Path:
        """The entry's file."""
        return self._folder / f"{self._key}.npz"

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
        if not self._by_content and self._newest > self._started - _CLOCK_S:
            return "its files changed less than two seconds before they were read"
        if self._fingerprint()[0] != self._key:
            return "its files changed while they were read"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            statistics.save(self.path, overwrite=True)  # a concurrent run writes the same numbers
        except OSError as error:
            return f"{self._folder}: {error.strerror or error}"
        return None

    def _fingerprint(self) -> tuple[str, float]:
        """Return the key, and the newest change time among the files (seconds since the epoch)."""
        head = json.dumps({"fastfid": __version__, **package_versions(), **self._provenance}, sort_keys=True)
        digest = hashlib.sha256(head.encode())
        newest = 0.0
        for path in self._files:
            status = os.stat(path)
            newest = max(newest, status.st_ctime)
            if self._by_content:
                fact = _content_hash(path)
            else:
                fact = json.dumps([os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns])
            digest.update(fact.encode() + b"\n")
        return digest.hexdigest(), newest


def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that decode, compute and run the network."""
    versions: dict[str, str | None] = {}
    for package in ("numpy", "pillow", "onnxruntime-gpu", "onnxruntime"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _content_hash(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
