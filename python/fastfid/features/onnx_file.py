"""The bytes of an ONNX file and of the files with tensors that it names, and the hash of all of them."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fastfid._files import open_regular

__all__ = ["OnnxFile", "read_onnx", "tensor_files"]

# Where ONNX's messages have messages of which a tensor may be a part: the number of the field, and what is there
# (onnx.proto, of ONNX 1.17). A message that is not here has no tensor.
_PARTS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
_KEY, _VALUE = 1, 2  # of an entry


@dataclass(frozen=True)
class OnnxFile:
    """The content of an ONNX file.

    Attributes
    ----------
    path : str
    model : bytes
        The file.
    tensors : dict of str to bytes
        The files with tensors that it names, by the name it has for them.
    sha256 : str
        Of the file; with other files, of a line for each: its SHA-256 and its name, the ONNX file's without a name
        first, the others in the order of their names.
    """

    path: str
    model: bytes = field(repr=False)
    tensors: Mapping[str, bytes] = field(repr=False)

    @property
    def sha256(self) -> str:
        """SHA-256 of everything that makes the network, in hexadecimal."""
        own = hashlib.sha256(self.model).hexdigest()
        if not self.tensors:
            return own
        lines = [own, *(f"{hashlib.sha256(content).hexdigest()} {name}" for name, content in self.tensors.items())]
        return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def read_onnx(path: str | os.PathLike[str]) -> OnnxFile:
    """Read an ONNX file and the files with tensors beside it.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is no regular file, or it names a file with tensors that is not in its folder or cannot be read. The message
        names both.
    """
    name = os.fspath(path)
    with open_regular(path) as stream:
        model = stream.read()
    tensors: dict[str, bytes] = {}
    for location in tensor_files(model):
        parts = location.split("/")
        if os.path.isabs(location) or ".." in parts or not location.isprintable():
            raise ValueError(f"{name}: names a file with tensors outside of its folder, {location!r}: export it again")
        try:
            with open_regular(os.path.join(os.path.dirname(name), location)) as stream:
                tensors[location] = stream.read()
        except OSError as error:
            raise ValueError(
                f"{name}: its tensors are in {location!r}, which cannot be read beside it: {error.strerror or error}"
            ) from None
    return OnnxFile(name, model, tensors)


def tensor_files(model: bytes) -> list[str]:
    """Return the names of the files with tensors that an ONNX file names, sorted.

    A damaged file gives those that were found up to the damage: ONNX Runtime, which reads it after this, refuses it,
    and takes no file that is not among these.
    """
    found: set[str] = set()
    waiting: list[tuple[str, memoryview]] = [("model", memoryview(model))]
    while waiting:
        kind, message = waiting.pop()
        entry: dict[int, bytes] = {}
        for number, value in _fields(message):
            if kind == "entry":
                entry[number] = bytes(value)
            elif part := _PARTS[kind].get(number):
                waiting.append((part, value))
        if entry.get(_KEY) == b"location":
            found.add(entry.get(_VALUE, b"").decode(errors="surrogateescape"))
    return sorted(found)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of each field of a protobuf message that has a length; stop at what is none."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            _, place = _varint(message, place)
        elif kind == 2:
            length, place = _varint(message, place)
            if length > len(message) - place:
                return
            yield key >> 3, message[place : place + length]
            place += length
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:  # groups, which ONNX has not, and what is no message
            return


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it; behind the end, and for a number of over 64 bits, 0."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            return 0, len(message)
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    return 0, len(message)
