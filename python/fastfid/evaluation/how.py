"""With which network and options two sets are read and compared."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from fastfid._progress import ProgressMode
from fastfid.cache import CacheMode
from fastfid.extractor import FeatureExtractor
from fastfid.options import check_options
from fastfid.scale import RunDirectory

__all__ = ["How"]


@dataclass(frozen=True, kw_only=True)
class How:
    """The keywords of :func:`fastfid.evaluate`, as one object.

    Attributes
    ----------
    dims, protocol, device, precision, weights, extractor
        The network. None: what the statistics on the other side say, or the default.
    options : dict
        See :class:`fastfid.options.SourceOptions`.
    run : RunDirectory or None
    others
        See :func:`fastfid.evaluate`.

    Raises
    ------
    TypeError, ValueError
        An argument is invalid, also if statistics on both sides make the argument unused.
    """

    dims: int | None = None
    protocol: str | None = None
    device: str | int = "auto"
    precision: str = "float32"
    weights: str | os.PathLike[str] | None = None
    extractor: FeatureExtractor | None = None
    batch_size: int | None = None
    num_workers: int | None = None
    on_error: Literal["raise", "skip"] = "raise"
    max_errors: int | None = None
    progress: ProgressMode = False
    cache: CacheMode = False
    force: bool = False
    store: str | os.PathLike[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    hash_inputs: bool = False
    per_class: bool = False
    run: RunDirectory | None = None

    def __post_init__(self) -> None:
        check_options(
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            on_error=self.on_error,
            max_errors=self.max_errors,
            protocol=self.protocol,
            device=self.device,
            precision=self.precision,
            extractor=self.extractor,
            progress=self.progress,
            options=self.options,
        )

    @classmethod
    def of(cls, keywords: Mapping[str, Any], without: Collection[str] = (), **more: Any) -> "How":
        """Return the object for keywords among which those of the sources are not apart yet.

        A keyword in `without` is refused, as one that no source has.
        """
        names = {field.name for field in fields(cls)} - {"options", "run", *without}
        own = {name: value for name, value in keywords.items() if name in names}
        return cls(**own, options={name: value for name, value in keywords.items() if name not in names}, **more)

    def network(self) -> dict[str, Any]:
        """Return the keywords of :func:`fastfid.evaluation.evaluate.extractor_beside`."""
        names = ("dims", "protocol", "device", "weights", "extractor", "precision", "force")
        return {name: getattr(self, name) for name in names}
