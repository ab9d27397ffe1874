"""Stores of features: a folder with the outputs of a network for all images of one source.

A store has one ``.npy`` of float32 rows for each output, in the order of the source, and ``fastfid-store.json``, which
says what the rows are. ``names.json`` has the names of the images, and ``labels.json`` their labels, if they have any.

Until a store is complete, the names of its files end in ``.new``. Rows are appended to them while images are read. A
run that was killed goes on after the last whole row of all outputs.

The files of a complete store are never written to. For an output that it lacks, all images are read anew into ``.new``
files. They replace the old ones when all are there: a process that has mapped an old file keeps it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fastfid._files import STORE_SIDECAR, FileSet, atomic_file, is_store, open_regular
from fastfid._version import __version__
from fastfid.cache import package_versions
from fastfid.errors import NumericalError
from fastfid.sources.base import ImageSource
from fastfid.sources.kept import KeptLabels

__all__ = ["FeatureStore", "StoreWriter", "StoredRows", "is_store", "writer_for"]

SCHEMA = 1
_FORMAT = "fastfid feature store"
_NEW = ".new"  # ends the names of the files of a store that is not complete
_LABELS = "labels.json"
_NAMES = "names.json"
_MOST_BYTES_PER_NAME = 25_000  # 4,096 bytes of a path, escaped
_MAX_SIDECAR_BYTES = 1 << 26
_MOST_BYTES_PER_LABEL = 12  # the digits of a class, and what is between two
_HEADER_BYTES = 128  # of NumPy's format 1.0, padded: the header is written anew when the number of rows is known
BLOCK = 1024  # rows that are read at a time


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
    skipped_at : list of int
        The indices in the source of the images that were left out, ascending.
    remarks : list of str
        Likely mistakes in the images, as they were said when the store was made.

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
        if not (self._folder / STORE_SIDECAR).is_file() and is_store(path):
            raise ValueError(
                f"{self.name}: is not complete, as its run was interrupted; run the command that made it again"
            )
        sidecar = _read_sidecar(self._folder)
        self.meta: dict[str, Any] = sidecar["meta"]
        self.outputs: dict[str, int] = sidecar["outputs"]
        self.n: int = sidecar["n"]
        self.skipped: list[dict[str, str]] = sidecar["skipped"]
        self.remarks: list[str] = sidecar["remarks"]
        self.skipped_at: list[int] = sidecar["skipped_at"]
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
                raise ValueError(f"{path}: has {size} bytes, expected {expected}; {self._renewal}")
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
            raise ValueError(f"{path}: {error}; {self._renewal}") from None

    def names(self) -> list[str] | None:
        """Return the names of the images in the order of the rows. None: the store is of an older version.

        They say which image a row is of, such as the neighbours that :func:`fastfid.metrics.nearest_rows` finds.

        Raises
        ------
        ValueError
            The file of names is damaged. The message names it.

        Examples
        --------
        >>> import fastfid
        >>> found = fastfid.evaluate("real", "fake", metrics=["fid"], dims=64, store="store")  # folders of pictures
        >>> from pathlib import Path
        >>> stores = [FeatureStore(path) for path in sorted(Path("store").iterdir())]
        >>> stores[1].names()[0]
        'real/0.png'
        """
        path = self._folder / _NAMES
        if not path.exists():
            return None
        with open_regular(path) as file:
            most = _MAX_SIDECAR_BYTES + _MOST_BYTES_PER_NAME * self.n
            data = file.read(min(most, os.fstat(file.fileno()).st_size))
        try:
            names = json.loads(data)
            is_sound = isinstance(names, list) and len(names) == self.n and all(isinstance(x, str) for x in names)
        except (ValueError, RecursionError):
            is_sound = False
        if not is_sound:
            raise ValueError(f"{path}: expected a list of {self.n:,} names; {self._renewal}")
        return list(names)

    @property
    def _renewal(self) -> str:
        return _renewal(self._folder, self.outputs)

    def files(self) -> list[str]:
        """Return the paths of the files of the store."""
        beside = [name for name in (_LABELS, _NAMES) if (self._folder / name).exists()]
        return [str(self._folder / name) for name in (STORE_SIDECAR, *beside, *(f"{one}.npy" for one in self.outputs))]

    def blocks(self, outputs: Collection[str]) -> Iterator[tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]]:
        """Yield these outputs of up to 1,024 images at a time, and the indices of these images in their source.

        Raises
        ------
        ValueError
            A value is NaN or infinite, which no network has given: the file was written to. The message names it.
        """
        rows = {output: self.rows(output) for output in outputs}
        indices = np.delete(np.arange(self.n + len(self.skipped_at)), self.skipped_at)
        for start in range(0, self.n, BLOCK):
            block = {output: np.array(values[start : start + BLOCK]) for output, values in rows.items()}
            for output, values in block.items():
                bad = ~np.isfinite(values).all(axis=1)
                if bad.any():
                    raise ValueError(
                        f"{_rows_path(self._folder, output)}: row {start + int(bad.argmax())}, counted from 0, has NaN"
                        f" or infinite values: the file is damaged; {self._renewal}"
                    )
            yield block, indices[start : start + BLOCK]


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

    def __enter__(self) -> "StoreWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            self._lock(stack)
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
            raise ValueError(
                f"{self._folder}: another process is writing to this store; wait for it, or name another folder"
            ) from None

    def complete_store(self) -> FeatureStore | None:
        """Return the store if it is complete and has the outputs, else None.

        Raises
        ------
        ValueError
            The folder has rows of something else.
        """
        if not (self._folder / STORE_SIDECAR).exists():
            return None
        sidecar = _read_sidecar(self._folder)
        check_identity(self._folder, sidecar, self._identity)
        return FeatureStore(self._folder) if set(self._outputs) <= set(sidecar["outputs"]) else None

    def check(self) -> None:
        """Refuse a folder with rows of something else. Nothing is written."""
        self.complete_store()
        self._is_begun()

    def _is_begun(self) -> bool:
        """Whether there are rows of an interrupted run that can be continued."""
        if not (self._can_resume and self._sidecar_path(_NEW).exists() and self._new_path("features").exists()):
            return False
        sidecar = _read_sidecar(self._folder, _NEW)
        check_identity(self._folder, sidecar, self._identity)
        for key in ("outputs", "versions"):
            if sidecar[key] != self._identity[key]:
                raise ValueError(
                    f"{self._folder}: an interrupted run had other {key}, and cannot be continued; delete the file"
                    f" {self._sidecar_path(_NEW)} to begin anew, or give another --store (store=)"
                )
        return True

    def _open_files(self, stack: contextlib.ExitStack) -> None:
        is_begun = self._is_begun()
        if not is_begun:
            for output in self._outputs:  # rows of what the sidecar does not describe
                self._new_path(output).unlink(missing_ok=True)
            self._write_sidecar(_NEW, n=None, outputs=self._outputs)
        for output, length in self._outputs.items():
            descriptor = os.open(self._new_path(output), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._files[output] = stack.enter_context(os.fdopen(descriptor, "r+b", buffering=0))
            if os.fstat(descriptor).st_size < _HEADER_BYTES:
                os.ftruncate(descriptor, 0)
                _write_all(self._files[output], _header(0, length))
        self.done = min(self._whole_rows(output) for output in self._outputs)
        for output, length in self._outputs.items():
            end = _HEADER_BYTES + self.done * length * 4
            self._files[output].truncate(end)
            self._files[output].seek(end)

    def features(self) -> Iterator[NDArray[np.float32]]:
        """Yield the features of the images whose rows were there at the beginning, up to 1,024 at a time."""
        length = self._outputs["features"]
        descriptor = self._files["features"].fileno()
        done = self.done
        for start in range(0, done, BLOCK):
            number = min(BLOCK, done - start) * length
            data = os.pread(descriptor, number * 4, _HEADER_BYTES + start * length * 4)
            yield np.frombuffer(data, np.float32).reshape(-1, length)

    def _sidecar_path(self, end: str) -> Path:
        return self._folder / f"{STORE_SIDECAR}{end}"

    def _new_path(self, output: str) -> Path:
        return self._folder / f"{output}.npy{_NEW}"

    def _whole_rows(self, output: str) -> int:
        size = os.fstat(self._files[output].fileno()).st_size
        return (size - _HEADER_BYTES) // (self._outputs[output] * 4)

    def add(self, outputs: Mapping[str, Any], indices: NDArray[np.int64]) -> None:
        """Append the rows of a batch, of the images with these indices in the source.

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
                    f"{self._identity['meta']['source']}: images from number {indices[0]} on, counted from 0: the"
                    f" output {name} has NaN or infinite values"
                )
        for name, array in arrays.items():
            try:
                _write_all(self._files[name], np.ascontiguousarray(array, np.float32))
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self._new_path(name))) from error
        self.done += len(arrays["features"])

    def finish(
        self,
        skipped: list[dict[str, str]],
        skipped_at: Sequence[int] = (),
        labels: KeptLabels | None = None,
        remarks: Sequence[str] = (),
        names: Sequence[str] | None = None,
    ) -> FeatureStore:
        """Complete the store and return it.

        Parameters
        ----------
        skipped, remarks : list
            As in :class:`FeatureStore`.
        skipped_at : sequence of int
            The indices in the source of the images that were left out, ascending.
        labels : KeptLabels, optional
            Labels of the rows. None: the images have none.
        names : sequence of str, optional
            Names of all images of the source, those that were left out among them.

        Raises
        ------
        ValueError
            There are fewer than two rows.
        """
        n = min(self._whole_rows(output) for output in self._outputs)
        if n < 2:
            left_out = f", as {len(skipped):,} could not be read" if skipped else ""
            raise ValueError(
                f"{self._identity['meta']['source']}: a covariance needs at least 2 images, got {n}{left_out}"
            )
        for output, length in self._outputs.items():
            self._files[output].seek(0)
            _write_all(self._files[output], _header(n, length))
            os.fsync(self._files[output].fileno())
        others = self._other_outputs(n, skipped, skipped_at)
        if labels is None:
            (self._folder / _LABELS).unlink(missing_ok=True)
        else:
            with atomic_file(self._folder / _LABELS, overwrite=True) as file:
                file.write(labels.to_json())
        if names is not None:
            gone = set(skipped_at)
            kept = [name for place, name in enumerate(names) if place not in gone]
            with atomic_file(self._folder / _NAMES, overwrite=True) as file:
                file.write(json.dumps(kept, indent=0).encode())
        for output in self._outputs:
            os.replace(self._new_path(output), _rows_path(self._folder, output))
        outputs = {**others, **self._outputs}
        self._write_sidecar("", n=n, outputs=outputs, skipped=skipped, skipped_at=skipped_at, remarks=remarks)
        self._sidecar_path(_NEW).unlink()
        return FeatureStore(self._folder)

    def _other_outputs(self, n: int, skipped: list[dict[str, str]], skipped_at: Sequence[int]) -> Mapping[str, int]:
        """Return the outputs of a complete store that stay, as it has the same images; else the store is given up."""
        if not self._sidecar_path("").exists():
            return {}
        old = _read_sidecar(self._folder)
        has_same_images = (old["n"], old["skipped"], old["skipped_at"]) == (n, skipped, list(skipped_at))
        if has_same_images:  # its sidecar is true of the new files too
            return dict(old["outputs"])
        self._sidecar_path("").unlink()
        return {}

    def _write_sidecar(
        self,
        end: str,
        *,
        n: int | None,
        outputs: Mapping[str, int],
        skipped: Sequence[Mapping[str, str]] = (),
        skipped_at: Sequence[int] = (),
        remarks: Sequence[str] = (),
    ) -> None:
        content = {
            **self._identity,
            "format": _FORMAT,
            "schema": SCHEMA,
            "n": n,
            "outputs": dict(outputs),
            "skipped": list(skipped),
            "skipped_at": list(skipped_at),
            "remarks": list(remarks),
            "version": __version__,
        }
        with atomic_file(self._sidecar_path(end), overwrite=True) as file:
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
    try:
        paths = [os.path.abspath(path) for path in source.files()]
    except ValueError as error:
        raise ValueError(
            f"store: {error}, so its features cannot be kept: give a folder, an archive or a pattern, or leave out"
            " --store (store=)"
        ) from None
    decides = {"meta": {**meta, "source": os.path.abspath(source.name)}, "options": dict(options)}
    if not os.path.exists(source.name):  # a pattern or a list: equal texts may mean files of other folders
        folders = sorted({os.path.dirname(path) for path in paths})
        decides["options"]["folders"] = hashlib.sha256("\0".join(folders).encode(errors="surrogateescape")).hexdigest()
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", os.path.basename(source.name.rstrip("/")))[:40].strip("-") or "source"
    folder = Path(root) / f"{stem}-{digest[:12]}"
    files = FileSet(paths)
    identity = {
        **decides,
        "outputs": dict(outputs),
        "files": {"count": len(paths), "state": files.state, "sizes": files.sizes()},
        "labels": source.labels_digest(),
        "versions": package_versions(),
    }
    identity = json.loads(json.dumps(identity, default=str))  # as it will be read again
    writer = StoreWriter(folder, identity, can_resume=can_resume)
    if (complete := writer.complete_store()) is not None:
        return complete
    writer.check()
    return writer


def check_identity(folder: Path, sidecar: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise ValueError unless the sidecar of a store is of this source, network and these options."""
    how = f"{_renewal(folder, sidecar['outputs'])}, or give another --store (store=)"
    source = identity["meta"]["source"]
    was, now = sidecar["files"], identity["files"]
    if was != now and [was.get(key) for key in ("count", "sizes")] == [now.get(key) for key in ("count", "sizes")]:
        raise ValueError(
            f"{folder}: is stale: times or inodes of the files of {source} have changed since, but neither names nor"
            f" sizes: touch or a copy may be the cause, or other contents of equal sizes; {how}"
        )
    if was != now:
        raise ValueError(f"{folder}: is stale: the files of {source} have changed since; {how}")
    if sidecar.get("labels") != identity.get("labels"):
        raise ValueError(f"{folder}: is stale: the labels of {source} have changed since; {how}")
    for key in ("meta", "options"):
        if sidecar[key] != identity[key]:
            raise ValueError(f"{folder}: is of another {'network' if key == 'meta' else 'choice of options'}; {how}")


def _renewal(folder: Path, outputs: Collection[str] = ("features", "spatial")) -> str:
    """Return what to delete so that a store is made anew: nothing but what is the store's own."""
    own = {STORE_SIDECAR, _LABELS, _NAMES, *(f"{output}.npy" for output in outputs)}
    names = [name for name in os.listdir(folder) if not re.fullmatch(r"\..*\.tmp", name)]  # of a run that was killed
    if own.issuperset(name.removesuffix(_NEW) for name in names):
        return f"delete the folder {folder}, and run again"
    files = [str(folder / f"{STORE_SIDECAR}{end}") for end in ("", _NEW) if (folder / f"{STORE_SIDECAR}{end}").exists()]
    return f"delete {' and '.join(files)}, and run again"


def _are_places(found: Any, count: int, n: Any) -> bool:
    """Whether ``skipped_at`` of a sidecar is a list of ascending indices: those of `count` images beside `n` rows."""
    if not isinstance(found, list) or len(found) != count or not all(type(at) is int for at in found):
        return False
    is_ascending = all(a < b for a, b in pairwise(found))
    return is_ascending and (not found or (type(n) is int and found[0] >= 0 and found[-1] < n + count))


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


def _read_sidecar(folder: Path, end: str = "") -> dict[str, Any]:
    """Return the content of a sidecar, checked as far as this module uses it. With the end _NEW, `n` is None."""
    path = folder / f"{STORE_SIDECAR}{end}"
    with open_regular(path) as file:
        text = file.read(_MAX_SIDECAR_BYTES)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: is damaged; {_renewal(folder)}") from None
    is_sound = (
        isinstance(found, dict)
        and found.get("format") == _FORMAT
        and found.get("schema") == SCHEMA
        and all(isinstance(found.get(key), dict) for key in ("meta", "options", "outputs", "files", "versions"))
        and "features" in found["outputs"]
        and all(re.fullmatch(r"\w+", name) and type(k) is int and k > 0 for name, k in found["outputs"].items())
        and isinstance(found.get("skipped"), list)
        and all(_is_skipped(one) for one in found["skipped"])
        and isinstance(found.get("remarks"), list)
        and all(isinstance(text, str) for text in found["remarks"])
        and ((type(found.get("n")) is int and found["n"] >= 2) or end == _NEW)
        and _are_places(found.get("skipped_at"), len(found["skipped"]), found.get("n"))
    )
    if not is_sound:
        raise ValueError(f"{path}: is no sidecar of a store of this version; {_renewal(folder)}")
    sidecar: dict[str, Any] = found
    return sidecar


def _is_skipped(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(found.get(key), str) for key in ("name", "reason"))
