"""Stores of features: a folder with the outputs of a network for all images of one source.

A store has one ``.npy`` of float32 rows for each output, in the order of the source, and ``store.json``, which says
what the rows are. If the images have labels, ``labels.json`` has those of the rows. Rows are appended while images are
read. A run that was killed goes on after the last whole row of all outputs. The ``.npy`` have the number of rows in
their headers only when the store is complete.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastfid._files import FileSet, atomic_file, open_regular
from fastfid._version import __version__
from fastfid.cache import package_versions
from fastfid.errors import NumericalError
from fastfid.sources.base import ImageSource
from fastfid.sources.kept import KeptLabels

__all__ = ["FeatureStore", "StoreWriter", "StoredRows", "is_store", "writer_for"]

SCHEMA = 1
_SIDECAR = "store.json"
_LABELS = "labels.json"
_MAX_SIDECAR_BYTES = 1 << 26
_MOST_BYTES_PER_LABEL = 12  # the digits of a class, and what is between two
_HEADER_BYTES = 128  # of NumPy's format 1.0, padded: the header is written anew when the number of rows is known
BLOCK = 1024  # rows that are read at a time


def is_store(path: Any) -> bool:
    """Return whether `path` is the folder of a store."""
    return isinstance(path, str | os.PathLike) and os.path.isfile(os.path.join(os.fsdecode(path), _SIDECAR))


class StoredRows:
    """The rows of one output in a store, for metrics of whole rows. They are mapped, not read into memory."""

    def __init__(self, rows: NDArray[np.float32]):
        self._rows = rows

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def rows(self) -> NDArray[np.float32]:
        """Return the rows, read-only."""
        return self._rows


class FeatureStore:
    """A complete store.

    Parameters
    ----------
    path : path-like
        The folder.

    Attributes
    ----------
    name : str
        The folder, as messages name it.
    meta : dict
        Provenance of the features, and ``source``.
    outputs : dict of str to int
        Length of a row of each output.
    n : int
        Number of images.
    skipped : list of dict
        ``name`` and ``reason`` of each image that was left out.

    Raises
    ------
    OSError
        A file cannot be opened.
    ValueError
        The folder is no store, the store is not complete, or a file is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.name = os.fsdecode(path)
        self._folder = Path(self.name)
        sidecar = _read_sidecar(self._folder)
        if not sidecar["complete"]:
            raise ValueError(
                f"{self.name}: is not complete, as its run was interrupted; run the command that made it again"
            )
        self.meta: dict[str, Any] = sidecar["meta"]
        self.outputs: dict[str, int] = sidecar["outputs"]
        self.n: int = sidecar["n"]
        self.skipped: list[dict[str, str]] = sidecar["skipped"]
        for output in self.outputs:
            self.rows(output)  # a file that was cut is an error now

    @property
    def d(self) -> int:
        """Length of a feature vector."""
        return self.outputs["features"]

    def rows(self, output: str) -> NDArray[np.float32]:
        """Return the rows of one output, float32 (n, length), mapped read-only."""
        length = self.outputs[output]
        path = _rows_path(self._folder, output)
        expected = _HEADER_BYTES + self.n * length * 4
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != expected:
                raise ValueError(f"{path}: has {size} bytes, expected {expected}: delete the folder {self.name}")
            mapped = np.memmap(file, np.float32, "r", _HEADER_BYTES, (self.n, length))
        return np.asarray(mapped)

    @property
    def has_labels(self) -> bool:
        """Whether the labels of the images are there."""
        return (self._folder / _LABELS).exists()

    def labels(self) -> KeptLabels | None:
        """Return the labels of the images in the order of the rows. None: the store has none.

        Raises
        ------
        ValueError
            The file of labels is damaged. The message names it.
        """
        if not self.has_labels:
            return None
        path = self._folder / _LABELS
        with open_regular(path) as file:
            data = file.read(_MAX_SIDECAR_BYTES + _MOST_BYTES_PER_LABEL * self.n)
        try:
            return KeptLabels.from_json(data, self.n)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; delete the folder {self.name}, and run again") from None

    def blocks(self) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield the outputs of up to 1,024 images at a time."""
        rows = {output: self.rows(output) for output in self.outputs}
        for start in range(0, self.n, BLOCK):
            yield {output: np.array(values[start : start + BLOCK]) for output, values in rows.items()}


class StoreWriter:
    """A store that is being written. Use it as a context manager: it is locked, and kept if an error ends the block.

    Parameters
    ----------
    folder : Path
        The folder, which is made.
    identity : dict
        What the rows are: ``meta``, ``options``, ``outputs``, ``files``, ``labels``, ``versions``.
    can_resume : bool
        Whether rows of an interrupted run count. They do not where images may have been left out, as the rows do not
        say which.

    Attributes
    ----------
    done : int
        Number of images whose rows are there.

    Raises
    ------
    ValueError
        The folder has rows of something else, or another process writes to it.
    OSError
        The folder cannot be written to.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, can_resume: bool):
        self._folder = folder
        self._identity = dict(identity)
        self._outputs: Mapping[str, int] = identity["outputs"]
        self._can_resume = can_resume
        self._files: dict[str, BinaryIO] = {}
        self._stack = contextlib.ExitStack()
        self.done = 0

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder

    def __enter__(self) -> "StoreWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            self._lock(stack)
            self._check()
            self._open_files(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _lock(self, stack: contextlib.ExitStack) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self._folder}: another process is writing to this store") from None

    def _check(self) -> None:
        """Refuse a folder with something else, and begin the sidecar of a new store."""
        if (self._folder / _SIDECAR).exists():
            sidecar = _read_sidecar(self._folder)
            check_identity(self._folder, sidecar, self._identity)
            if not sidecar["complete"]:
                return
        # A complete store without one of the outputs is made anew.
        self._write_sidecar(complete=False, n=None, skipped=[])

    def _open_files(self, stack: contextlib.ExitStack) -> None:
        for output, length in self._outputs.items():
            path = _rows_path(self._folder, output)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._files[output] = stack.enter_context(os.fdopen(descriptor, "r+b", buffering=0))
            if os.fstat(descriptor).st_size < _HEADER_BYTES:
                os.ftruncate(descriptor, 0)
                _write_all(self._files[output], _header(0, length))
        self.done = min(self._whole_rows(output) for output in self._outputs) if self._can_resume else 0
        for output, length in self._outputs.items():
            end = _HEADER_BYTES + self.done * length * 4
            self._files[output].truncate(end)
            self._files[output].seek(end)

    def _whole_rows(self, output: str) -> int:
        size = os.fstat(self._files[output].fileno()).st_size
        return (size - _HEADER_BYTES) // (self._outputs[output] * 4)

    def add(self, outputs: Mapping[str, Any]) -> None:
        """Append the rows of a batch.

        Raises
        ------
        OSError
            The disk is full; the error names the file.
        fastfid.NumericalError
            A row has NaN or infinite values. No row has been added.
        """
        rows = {name: outputs[name] for name in self._files}
        arrays = {name: one if isinstance(one, np.ndarray) else one.numpy() for name, one in rows.items()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise NumericalError(
                    f"{self._identity['meta']['source']}: images from number {self.done} on, counted from 0: the output"
                    f" {name} has NaN or infinite values"
                )
        for name, array in arrays.items():
            try:
                _write_all(self._files[name], np.ascontiguousarray(array, np.float32))
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(_rows_path(self._folder, name))) from error
        self.done += len(arrays["features"])

    def finish(self, skipped: list[dict[str, str]], labels: KeptLabels | None = None) -> FeatureStore:
        """Complete the store and return it. `labels` are those of the rows; None: the images have none."""
        n = min(self._whole_rows(output) for output in self._outputs)
        if labels is None:
            (self._folder / _LABELS).unlink(missing_ok=True)
        else:
            with atomic_file(self._folder / _LABELS, overwrite=True) as file:
                file.write(labels.to_json())
        for output, length in self._outputs.items():
            self._files[output].seek(0)
            _write_all(self._files[output], _header(n, length))
            os.fsync(self._files[output].fileno())
        self._write_sidecar(complete=True, n=n, skipped=skipped)
        return FeatureStore(self._folder)

    def _write_sidecar(self, *, complete: bool, n: int | None, skipped: list[dict[str, str]]) -> None:
        content = {
            "schema": SCHEMA,
            "complete": complete,
            "n": n,
            **self._identity,
            "skipped": skipped,
            "version": __version__,
        }
        with atomic_file(self._folder / _SIDECAR, overwrite=True) as file:
            file.write(json.dumps(content, indent=1, sort_keys=True).encode())


def writer_for(
    root: str | os.PathLike[str],
    source: ImageSource,
    meta: Mapping[str, Any],
    outputs: Mapping[str, int],
    options: Mapping[str, Any],
    *,
    can_resume: bool,
) -> "StoreWriter | FeatureStore":
    """Return the store of a source below the folder `root`: complete, or to be written.

    Its folder is called after the source, with a hash of the source's path, the network and the options.

    Raises
    ------
    ValueError
        The source is not made of files; its store is of other files, as the source has changed since.
    """
    paths = [os.path.abspath(path) for path in source.files()]
    decides = {"meta": dict(meta), "options": dict(options)}
    decides["meta"]["source"] = os.path.abspath(source.name) if os.path.exists(source.name) else source.name
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", os.path.basename(source.name.rstrip("/")))[:40].strip("-") or "source"
    folder = Path(root) / f"{stem}-{digest[:12]}"
    identity = {
        **decides,
        "outputs": dict(outputs),
        "files": {"count": len(paths), "state": FileSet(paths).state},
        "labels": source.labels_digest(),
        "versions": package_versions(),
    }
    identity = json.loads(json.dumps(identity, default=str))  # as it will be read again
    if is_store(folder):
        sidecar = _read_sidecar(folder)
        check_identity(folder, sidecar, identity)
        if sidecar["complete"] and set(outputs) <= set(sidecar["outputs"]):
            return FeatureStore(folder)
    return StoreWriter(folder, identity, can_resume=can_resume)


def check_identity(folder: Path, sidecar: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise ValueError unless the sidecar of a store is of this source, network and these options."""
    how = f"delete {folder}, or give another --store"
    if sidecar["files"] != identity["files"]:
        raise ValueError(f"{folder}: is stale: the files of {identity['meta']['source']} have changed since; {how}")
    if sidecar.get("labels") != identity.get("labels"):
        raise ValueError(f"{folder}: is stale: the labels of {identity['meta']['source']} have changed since; {how}")
    for key in ("meta", "options"):
        if sidecar[key] != identity[key]:
            raise ValueError(f"{folder}: is of another {'network' if key == 'meta' else 'choice of options'}; {how}")
    if not sidecar["complete"]:
        for key in ("outputs", "versions"):
            if sidecar[key] != identity[key]:
                raise ValueError(f"{folder}: an interrupted run had other {key}, and cannot be continued; {how}")


def _rows_path(folder: Path, output: str) -> Path:
    return folder / f"{output}.npy"


def _header(n: int, length: int) -> bytes:
    """Return the header of a ``.npy`` of float32 (n, length), always 128 bytes."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, {length}), }}".encode()
    magic = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return magic + text.ljust(_HEADER_BYTES - 11) + b"\n"


def _write_all(file: BinaryIO, data: Any) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[file.write(view) :]


def _read_sidecar(folder: Path) -> dict[str, Any]:
    """Return the content of a sidecar, checked as far as this module uses it."""
    path = folder / _SIDECAR
    with open_regular(path) as file:
        text = file.read(_MAX_SIDECAR_BYTES)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: is damaged; delete the folder {folder}") from None
    is_sound = (
        isinstance(found, dict)
        and found.get("schema") == SCHEMA
        and isinstance(found.get("complete"), bool)
        and all(isinstance(found.get(key), dict) for key in ("meta", "options", "outputs", "files", "versions"))
        and "features" in found["outputs"]
        and all(re.fullmatch(r"\w+", name) and type(k) is int and k > 0 for name, k in found["outputs"].items())
        and isinstance(found.get("skipped"), list)
        and ((type(found.get("n")) is int and found["n"] >= 0) or not found["complete"])
    )
    if not is_sound:
        raise ValueError(f"{path}: is no sidecar of a store of this version; delete the folder {folder}")
    sidecar: dict[str, Any] = found
    return sidecar
