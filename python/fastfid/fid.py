"""The FID of two growing sets of images, for training loops."""

import numbers
import os
import threading
from collections.abc import Mapping
from typing import Any, Unpack

from fastfid import mistakes
from fastfid._checks import check_device, check_dims, check_real
from fastfid._console import warn
from fastfid._core import Moments
from fastfid.errors import SuspiciousInputWarning
from fastfid.extractor import FeatureExtractor, check_extractor
from fastfid.features.make import make_extractor
from fastfid.metrics.fid import distance
from fastfid.metrics.moments import FeatureMoments
from fastfid.options import DEFAULT_DIMS, DEFAULT_PROTOCOL, Dims, PrecisionName, ProtocolName, SourceOptions
from fastfid.pipeline import DeviceFeed, extract
from fastfid.precisions import check_precision
from fastfid.protocols import get_protocol
from fastfid.provenance import check_provenance, provenance_of
from fastfid.sources import open_source
from fastfid.sources.device import DeviceImages, callers_stream
from fastfid.statistics import AnyStatistics, DeviceStatistics, Statistics

__all__ = ["FID"]


class FID:
    """FID of two growing sets of images. The memory does not grow with the number of images.

    Parameters
    ----------
    dims, protocol, device, precision, weights, extractor
        See :func:`compute_statistics`. The network is loaded at the first :meth:`update`.
    num_workers : int, optional
        Threads that resize. Default: min(8, available CPUs).

    Examples
    --------
    >>> import numpy as np
    >>> fid = FID(dims=64)
    >>> rng = np.random.default_rng(0)
    >>> fid.update(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), real=True)
    >>> fid.update(rng.integers(0, 128, (4, 32, 32, 3), dtype=np.uint8), real=False)
    >>> fid.compute() > 0
    True
    """

    def __init__(
        self,
        *,
        dims: Dims | int = DEFAULT_DIMS,
        protocol: ProtocolName = DEFAULT_PROTOCOL,
        device: str | int = "auto",
        precision: PrecisionName = "float32",
        weights: str | os.PathLike[str] | None = None,
        extractor: FeatureExtractor | None = None,
        num_workers: int | None = None,
    ):
        if extractor is None:
            dims = check_dims(dims)
            get_protocol(protocol)
            device = check_device(device)
            check_precision(precision, device)
        else:
            check_extractor(extractor)
        self.dims = extractor.dims if extractor is not None else dims
        self.protocol = extractor.protocol if extractor is not None else protocol
        self._device = device
        self.precision = extractor.precision if extractor is not None else precision
        self._weights = weights
        self._extractor = extractor
        self._is_extractor_given = extractor is not None
        self._adopted: dict[str, Any] = {}  # provenance of the images added by merge or load_state_dict
        self._num_workers = num_workers
        self._moments = {real: FeatureMoments(self.dims) for real in (True, False)}
        self._censuses = {real: mistakes.Census(keeps_digests=False) for real in (True, False)}
        self._feeds: dict[bool, DeviceFeed] = {}  # for tensors on a GPU
        self._lock = threading.RLock()  # held while the network or a feed is created

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={self._count(real)}" for name, real in (("real", True), ("fake", False)))
        return f"FID(dims={self.dims}, protocol={self.protocol!r}, {counts})"

    def _count(self, real: bool) -> int:
        feed = self._feeds.get(real)
        return self._moments[real].n + (feed.waiting if feed is not None else 0)

    @property
    def extractor(self) -> FeatureExtractor:
        """The network. The first access loads it."""
        with self._lock:
            if self._extractor is None:
                extractor = make_extractor(self.dims, self.protocol, self._device, self._weights, self.precision)
                check_provenance(
                    "this FID", provenance_of(extractor), "what was merged or loaded", self._adopted, hint=""
                )
                self._extractor = extractor
            return self._extractor

    def update(self, images: Any, real: bool, *, stream: Any = None, **options: Unpack[SourceOptions]) -> None:
        """Add images to one side.

        Parameters
        ----------
        images : array, tensor, path or iterable
            Any source (see :func:`compute_statistics`); most often a uint8 batch [n, h, w, 3] or [n, 3, h, w].
        real : bool
            True adds the images to the real side, False to the fake side.
        stream : CUDA stream or its handle, optional
            For a tensor on a GPU: the stream on which the tensor is used. Default: the current stream of torch or CuPy.
        **options
            See :class:`SourceOptions`.

        Notes
        -----
        A tensor on the network's GPU is never copied to the host, and the host does not wait for the GPU. The work is
        enqueued on a stream of the network, which first waits for all work enqueued on `stream` so far. In turn,
        `stream` waits until the images have been read, so the images may be overwritten or freed immediately. For a
        tensor of a library other than torch and CuPy, without `stream`, the host waits.

        Raises
        ------
        TypeError, ValueError, fastfid.ImageError
            As in :func:`compute_statistics`. Images before the invalid image are counted. ValueError is also raised
            for a tensor on a device other than the network's, and for `stream` with images that are not on a device.
        fastfid.BackendUnavailable
            The images are a tensor on a GPU, but fastfid was built without CUDA.
        """
        real = check_real(real)
        source = open_source(images, **options)
        for note in source.notes:
            warn(note)
        if isinstance(source, DeviceImages) and (feed := self._feed(real, source.device)) is not None:
            feed.add(source, callers_stream(images, stream))
            return
        if stream is not None:
            raise ValueError("stream: is for tensors on the GPU that the network runs on; these images are not")
        extract(
            source,
            self.extractor,
            self._moments[real].update,
            num_workers=self._num_workers,
            census=self._censuses[real],
        )

    def _feed(self, real: bool, device: str) -> DeviceFeed | None:
        """Return the feed that takes tensors on `device` for one side; None if the extractor supports the host only."""
        with self._lock:
            network = self.extractor.on_device(device)
            if network is not None and real not in self._feeds:
                self._feeds[real] = DeviceFeed(network, self._moments[real].update)
            return self._feeds.get(real)

    @property
    def real(self) -> Statistics:
        """Statistics of the real images so far. Raises ValueError if there are fewer than two images."""
        return self._statistics(True)

    @property
    def fake(self) -> Statistics:
        """Statistics of the fake images so far. Raises ValueError if there are fewer than two images."""
        return self._statistics(False)

    def _statistics(self, real: bool) -> Statistics:
        return self._accumulated(real).statistics(self._provenance(), "real" if real else "fake")

    def _statistics_on(self, device: str, real: bool) -> AnyStatistics:
        """Return the statistics of one side: on `device` if all of its images are there, else on the host."""
        moments = self._accumulated(real).on_device(device)
        if moments is None:
            return self._statistics(real)
        return DeviceStatistics(moments, self._provenance(), "real" if real else "fake")

    def _total(self, real: bool) -> Moments:
        """Return the moments of one side on the host, including images on a GPU. Waits for the GPU."""
        return self._accumulated(real).total()

    def _accumulated(self, real: bool) -> FeatureMoments:
        """Return the accumulator of one side, after adding the images that still wait in its feed."""
        if real in self._feeds:
            self._feeds[real].flush()
        return self._moments[real]

    def compute(self, *, tol: float | None = None, device: str = "cpu") -> float:
        """Return the FID of the images so far. Waits for a GPU that holds images. More images may be added later.

        Parameters
        ----------
        tol : float, optional
            Tighten the numerical bounds of the trace term to this width, given as a fraction of the trace term.
        device : str
            Device on which the distance is computed; see :func:`frechet_distance`. The moments of a side whose images
            were all tensors on this device stay there, unless the covariance is singular although n > d.

        Raises
        ------
        ValueError
            A side has fewer than two images.
        fastfid.BackendUnavailable
            The device does not exist.
        """
        for real, name in ((True, "real"), (False, "fake")):
            if remark := self._censuses[real].without_levels():
                warn(f"{name}: {remark}", SuspiciousInputWarning)
        sides = (self._statistics_on(device, real) for real in (True, False))
        return distance(*sides, tol=tol, device=device).value

    def merge(self, other: "FID") -> None:
        """Add the images of another FID, such as the shard of another process.

        If memory runs out during the merge, one side may have been added and the other not.

        Raises
        ------
        ValueError
            The other FID has other dims, another protocol, another network or another precision.
        """
        check_provenance("this FID", self._provenance(), "the other", other._provenance(), hint="")
        # Merge copies: `other` may be `self`, and another thread may update `other` during the merge.
        seen = {real: FeatureMoments.from_state(other._accumulated(real).state()) for real in (True, False)}
        for real, moments in seen.items():
            self._moments[real].merge(moments)
        self._adopted = {**other._provenance(), **self._provenance()}

    def reset(self, *, real: bool = True, fake: bool = True) -> None:
        """Remove the images of both sides, or of one side."""
        for side, wanted in ((True, real), (False, fake)):
            if wanted:
                self._feeds.pop(side, None)
                self._moments[side].reset()
                self._censuses[side] = mistakes.Census(keeps_digests=False)

    def _provenance(self) -> dict[str, Any]:
        known = provenance_of(self._extractor) if self._extractor is not None else self._adopted
        return {"protocol": self.protocol, "precision": self.precision, "dims": self.dims, **known}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling: without the loaded network, which is loaded again when needed.

        The provenance of the network is kept.
        """
        state = dict(self.__dict__)
        del state["_lock"]
        state["_moments"] = {real: self._accumulated(real) for real in (True, False)}
        state["_feeds"] = {}
        if not self._is_extractor_given:
            state["_extractor"] = None
            state["_adopted"] = self._provenance()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def state_dict(self) -> dict[str, Any]:
        """Return the accumulated state as arrays and plain values, for :meth:`load_state_dict`."""
        return {
            "provenance": self._provenance(),
            "real": self._accumulated(True).state(),
            "fake": self._accumulated(False).state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the accumulated state by one that :meth:`state_dict` returned.

        Raises
        ------
        TypeError
            `state` or a part of it is not a mapping, or an entry has a wrong type.
        ValueError
            `state` is not a valid state, or it was made with other dims, another protocol or another network.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping, as state_dict() returns it, got {type(state).__name__}")
        missing = {"provenance", "real", "fake"} - set(state)
        if missing:
            raise ValueError(f"state: the keys {', '.join(sorted(missing))} are missing")
        for key in ("provenance", "real", "fake"):
            if not isinstance(state[key], Mapping):
                raise TypeError(f"state[{key!r}]: expected a mapping, got {type(state[key]).__name__}")
        origin = dict(state["provenance"])
        for key, value in origin.items():
            if not isinstance(value, str | numbers.Integral | None):
                raise TypeError(f"state['provenance'][{key!r}]: expected a string or an integer, got {value!r}")
        check_provenance("this FID", self._provenance(), "the state", origin, hint="")
        moments = {}
        for real in (True, False):
            side = "real" if real else "fake"
            try:
                moments[real] = FeatureMoments.from_state(dict(state[side]))
            except (TypeError, ValueError) as error:  # includes NumericalError
                raise type(error)(f"{side}: {error}") from None
            if moments[real].d != self.dims:
                raise ValueError(f"state: holds features of {moments[real].d} dims, expected {self.dims}")
            if (groups := moments[real].total().groups) != 0:
                raise ValueError(f"{side}: state['groups']: expected 0, got {groups}")
        self._feeds = {}
        self._moments = moments
        self._adopted = origin
