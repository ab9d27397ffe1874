"""Pictures in the columns of parquet files, as Hugging Face stores sets of images. Only this file imports pyarrow."""

import contextlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastfid._files import DamagedFile
from fastfid._remote import known_file
from fastfid.errors import ImageError
from fastfid.sources.archive import BytesItem, reading_as
from fastfid.sources.base import FailedItem, FileSource, ImageItem, Labels
from fastfid.sources.folder import FileItem
from fastfid.sources.labels import made_of
from fastfid.sources.pages import check_pages
from fastfid.sources.picture import Decoder

__all__ = ["ParquetSource", "class_names_of", "column_of_images", "column_of_labels"]

# Rows that are in memory at once, beside one page of the file.
_ROWS = 4
_BUFFER_BYTES = 2**20
# Rows of a column of labels that are converted at once.
_LABEL_ROWS = 2**16


class ParquetSource(FileSource):
    """The pictures in one column of a parquet file, in its order. A few rows are in memory at a time.

    The column holds encoded pictures: bytes, or structs of ``bytes`` and ``path``. Where ``bytes`` is null, ``path`` is
    a file beside the parquet file.

    Parameters
    ----------
    path : str
        The file.
    decoder : Decoder
        Converts pictures to RGB.
    column : str, optional
        Name of the column. Default: ``image``, or the only column of pictures.

    Raises
    ------
    ImportError
        pyarrow is not installed.
    OSError
        The file cannot be opened.
    ValueError
        It is not a parquet file, it is damaged, or it has no such column.
    """

    def __init__(self, path: str, decoder: Decoder, column: str | None):
        self.name = path
        self.notes = []
        self._decoder = decoder
        self._file = known_file(path)
        with self._opened() as parquet, reading_as(path, "parquet file"):
            schema = parquet.schema_arrow
            self._rows = int(parquet.metadata.num_rows)
            kinds = {field.name: field.type for field in schema}
            features = _features(schema.metadata)
        # A picture takes a byte or more. This bounds the memory that a small file can claim.
        if not 0 <= self._rows <= self._file.size:
            raise ValueError(f"{path}: declares {self._rows} rows, but has {self._file.size} bytes")
        images = [name for name, kind in kinds.items() if _is_encoded(kind)]
        declared = [name for name in images if _kind_of_feature(features.get(name)) == "Image"]
        self._column = column_of_images(list(kinds), declared or images, column, path)
        if self._column not in images:
            raise ValueError(
                f"{path}: {self._column}: expected encoded pictures (bytes, or a struct of bytes and path); got"
                f" {kinds[self._column]}"
            )
        self._features = features
        self._kinds = kinds
        self._check_pages(self._column)

    def __len__(self) -> int:
        return self._rows

    def own_labels(self) -> Labels | None:
        """Read the column ``label``, or the only column of classes."""
        column = column_of_labels(list(self._kinds), self._features, self.name)
        if column is None:
            return None
        kind = self._kinds[column]
        if not str(_values_of(kind)).startswith(("int", "uint", "string", "large_string")):
            raise ValueError(f"{self.name}: {column}: expected whole numbers or names as labels; got {kind}")
        self._check_pages(column)
        found: list[Any] = []
        # As a dictionary, a name that comes a million times is in memory once.
        with self._opened(read_dictionary=[column]) as parquet, reading_as(self.name, "parquet file"):
            for batch in parquet.iter_batches(batch_size=_LABEL_ROWS, columns=[column], use_threads=False):
                array = batch.column(0)
                if hasattr(array, "dictionary"):
                    names = array.dictionary.to_pylist()
                    found += [None if index is None else names[index] for index in array.indices.to_pylist()]
                else:
                    found += array.to_pylist()
        classes = class_names_of(self._features.get(column))
        return made_of(found, f"column {column}", lambda i: f"{self.name}[{i}]", classes)

    def __iter__(self) -> Iterator[ImageItem]:
        index = 0
        with self._opened() as parquet:
            for data, path in self._rows_of(parquet):
                yield self._item(f"{self.name}[{index}]", data, path)
                index += 1
        if index != self._rows:
            raise DamagedFile(f"{self.name}: declares {self._rows} rows but has {index}")

    def _rows_of(self, parquet: Any) -> Iterator[tuple[bytes | None, str | None]]:
        """Yield bytes and path of every row."""
        for group in range(parquet.num_row_groups):  # one at a time, so that damage in one leaves those before whole
            batches = parquet.iter_batches(
                batch_size=_ROWS, row_groups=[group], columns=[self._column], use_threads=False
            )
            while True:
                with reading_as(self.name, "parquet file"):
                    batch = next(batches, None)
                    pictures = [] if batch is None else list(_encoded(_column(batch, self._column)))
                if batch is None:
                    break
                yield from pictures

    def _check_pages(self, column: str) -> None:
        """Check that no page of a column claims absurd memory, before pyarrow reads it."""
        with self._file.open() as file, reading_as(self.name, "parquet file"):
            check_pages(file, column)

    def _item(self, name: str, data: bytes | None, path: str | None) -> ImageItem:
        """Return the item of one row."""
        try:
            if data is not None:
                self._decoder.check_size(len(data), name)
                return BytesItem(name, data, self._decoder)
            if not path:
                raise ImageError(f"{name}: has neither bytes nor a path")
            if os.path.isabs(path) or ".." in path.split("/") or "\0" in path:
                raise ImageError(f"{name}: its bytes are null, and {path!r} is not a path of a file beside {self.name}")
        except ImageError as error:
            return FailedItem(name, error)
        return FileItem(os.path.join(os.path.dirname(self.name), path), self._decoder)

    @contextlib.contextmanager
    def _opened(self, read_dictionary: Sequence[str] = ()) -> Iterator[Any]:
        """Open the file with pyarrow. The texts of the columns in `read_dictionary` come as dictionaries."""
        try:
            library = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise ImportError(
                f"{self.name}: reading parquet needs pyarrow: pip install pyarrow, or '.[parquet]' in fastfid's source"
                " folder"
            ) from None
        with self._file.open() as file:
            with reading_as(self.name, "parquet file"):
                # Pages are read one after another. With pre_buffer, a whole group of rows would be in memory.
                parquet = library.ParquetFile(
                    file, buffer_size=_BUFFER_BYTES, pre_buffer=False, read_dictionary=list(read_dictionary)
                )
            with parquet:
                yield parquet


def column_of_images(names: list[str], images: list[str], column: str | None, where: str) -> str:
    """Return the name of the column of pictures: `column` if given, else ``image``, or else the only one of `images`.

    Raises
    ------
    ValueError
        There is no such column, or there are several.
    """
    shown = ", ".join(names[:12]) or "none"
    if column is not None:
        if column not in names:
            raise ValueError(f"{where}: has no column {column}; its columns are {shown}")
        return column
    if "image" in images:
        return "image"
    if len(images) == 1:
        return images[0]
    what = "several columns of pictures" if images else "no column of pictures"
    raise ValueError(f"{where}: has {what}; its columns are {shown}; --column NAME or column= takes one")


def column_of_labels(names: list[str], features: Mapping[str, Any], where: str) -> str | None:
    """Return the name of the column of labels: ``label``, or else the only one of classes; None: there is none.

    Raises
    ------
    ValueError
        There are several columns of classes.
    """
    if "label" in names:
        return "label"
    classes = [name for name in names if _kind_of_feature(features.get(name)) == "ClassLabel"]
    if len(classes) > 1:
        raise ValueError(
            f"{where}: has several columns of classes ({', '.join(classes)}) and none called label; rename one, or pass"
            " labels="
        )
    return classes[0] if classes else None


def class_names_of(feature: Any) -> tuple[str, ...] | None:
    """Return the names of the classes of a Hugging Face feature, as JSON or as an object; None: it has none."""
    names = feature.get("names") if isinstance(feature, Mapping) else getattr(feature, "names", None)
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def _kind_of_feature(feature: Any) -> str | None:
    """Return the name of the class of a feature, as ``Image`` or ``ClassLabel``; None: it has none."""
    if feature is None:
        return None
    return str(feature.get("_type")) if isinstance(feature, Mapping) else type(feature).__name__


def _features(metadata: Any) -> Mapping[str, Any]:
    """Return the features that the key ``huggingface`` of the schema's metadata declares; none where it is damaged."""
    try:
        found = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):  # written by other tools, or of no interest
        return {}
    return found if isinstance(found, Mapping) else {}


def _is_binary(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary")


def _is_encoded(kind: Any) -> bool:
    """Return whether a type of pyarrow is that of encoded pictures: bytes, or a struct of bytes and path."""
    kind = _values_of(kind)
    if str(kind).startswith("struct"):
        # A list beside the bytes, of which nothing is wanted, could take any amount of memory.
        is_flat = not any(str(field.type).startswith(_NESTED) for field in kind)
        return is_flat and any(field.name == "bytes" and _is_binary(field.type) for field in kind)
    return _is_binary(kind)


_NESTED = ("list", "large_list", "fixed_size_list", "struct", "map")


def _values_of(kind: Any) -> Any:
    """Return the type of the values of a dictionary, and another type unchanged."""
    return kind.value_type if str(kind).startswith("dictionary") else kind


def _column(batch: Any, name: str) -> Any:
    """Return a column of a batch as a plain array."""
    array = batch.column(batch.schema.get_field_index(name))
    return array.dictionary_decode() if str(array.type).startswith("dictionary") else array


def _encoded(array: Any) -> Iterator[tuple[bytes | None, str | None]]:
    """Yield bytes and path of each row; None where they are null."""
    if not str(array.type).startswith("struct"):
        yield from ((data, None) for data in array.to_pylist())
        return
    fields = {field.name: part for field, part in zip(array.type, array.flatten(), strict=True)}
    data = fields["bytes"].to_pylist()
    paths = fields["path"].to_pylist() if "path" in fields else [None] * len(data)
    yield from zip(data, (path if isinstance(path, str) else None for path in paths), strict=True)
