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
from fastfid.assumptions import assume_protocols, dims_and_protocol
from fastfid.beside import check_extractor_beside, check_network_beside
from fastfid.errors import SuspiciousInputWarning
from fastfid.extractor import FeatureExtractor, check_extractor
from fastfid.features.make import make_extractor
from fastfid.fixed import (
    fixed_from_state,
    fixed_statistics,
    is_fixed_state,
    is_same,
    state_of_fixed,
)
from fastfid.metrics.fid import FIDResult, as_result, distance, with_standard_error
from fastfid.metrics.moments import FeatureMoments
from fastfid.options import Dims, PrecisionName, ProtocolName, SourceOptions
from fastfid.pipeline import DeviceFeed, extract
from fastfid.precisions import check_precision
from fastfid.protocols import get_protocol
from fastfid.provenance import check_provenance, provenance_of
from fastfid.sources import open_source
from fastfid.sources.device import DeviceImages, callers_stream
from fastfid.states import as_arrays, as_tensors
from fastfid.statistics import AnyStatistics, DeviceStatistics, Statistics

__all__ = ["FID"]


class FID:
    """FID of two growing sets of images. The memory does not grow with the number of images.

    Parameters
    ----------
    real : path or Statistics, optional
        The real side, given once: statistics or their ``.npz``. It is fixed: :meth:`update` then takes fake images
        only, :meth:`reset` keeps it, and copies, pickles and states carry it. Default: real images come by
        :meth:`update`.
    dims, protocol, device, precision, weights, extractor
        See :func:`compute_statistics`. The network is loaded at the first :meth:`update`. `dims` and `protocol` are
        those of the statistics of `real`, unless others are given, which is refused.
    num_workers : int, optional
        Threads that resize. Default: min(8, available CPUs).

    Raises
    ------
    ValueError
        A bad argument; `real` was made with other dims, another protocol, precision or network: the message names the
        option that mends it, and the command that makes other statistics.
    TypeError
        `real` is neither statistics nor a path; `extractor` is none.
    OSError
        The file of `real` cannot be opened.

    Examples
    --------
    >>> import numpy as np
    >>> fid = FID(dims=64)
    >>> rng = np.random.default_rng(0)
    >>> fid.update(rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), real=True)
    >>> fid.update(rng.integers(0, 128, (4, 32, 32, 3), dtype=np.uint8), real=False)
    >>> fid.compute() > 0
    True

    With a fixed real side, of a folder of four pictures:

    >>> import fastfid
    >>> path = fastfid.compute_statistics("real", dims=64).save("real.npz")
    >>> fid = FID(real=path, dims=64)
    >>> fid.update("fake")
    >>> fid
    FID(dims=64, protocol='pytorch-fid', real=4 (fixed), fake=4)
    """

    def __init__(
        self,
        *,
        real: str | os.PathLike[str] | Statistics | None = None,
        dims: Dims | None = None,
        protocol: ProtocolName | None = None,
        device: str | int = "auto",
        precision: PrecisionName = "float32",
        weights: str | os.PathLike[str] | None = None,
        extractor: FeatureExtractor | None = None,
        num_workers: int | None = None,
    ):
        fixed = fixed_statistics(real, "real") if real is not None else None
        self.dims: int
        self.protocol: str
        self.precision: str
        if extractor is None:
            if dims is not None:
                check_dims(dims)
            if protocol is not None:
                get_protocol(protocol)
            device = check_device(device)
            check_precision(precision, device)
            self.dims, self.protocol = dims_and_protocol(dims, protocol, fixed)
            self.precision = precision
        else:
            check_extractor(extractor)
            self.dims, self.protocol, self.precision = extractor.dims, extractor.protocol, extractor.precision
        self._device = device
        self._weights = weights
        self._extractor = extractor
        self._is_extractor_given = extractor is not None
        self._adopted: dict[str, Any] = {}  # provenance of what came in by merge or load_state_dict
        self._fixed: Statistics | None = None
        if fixed is not None:
            self._fix(fixed)
        self._num_workers = num_workers
        self._moments = {real: FeatureMoments(self.dims) for real in (True, False)}
        self._censuses = {real: mistakes.Census(keeps_digests=False) for real in (True, False)}
        self._feeds: dict[bool, DeviceFeed] = {}  # for tensors on a GPU
        self._lock = threading.RLock()  # held while the network or a feed is created

    def _fix(self, fixed: Statistics) -> None:
        """Take the fixed real side; ValueError if it does not go with the network."""
        if self._extractor is not None:
            check_extractor_beside(fixed, self._extractor)
        else:
            check_network_beside(
                fixed,
                {"dims": self.dims, "protocol": self.protocol, "precision": self.precision},
                lambda key, value: f"{key}={value!r}",
            )
        if fixed.meta.get("protocol") is None:
            assume_protocols([fixed, None], self.protocol, "protocol={!r}")
        self._fixed = fixed

    def __repr__(self) -> str:
        """Return one line: what the network is, and how many images were seen."""
        real = f"{self._count(True)}" if self._fixed is None else f"{self._fixed.n or 'unknown'} (fixed)"
        return f"FID(dims={self.dims}, protocol={self.protocol!r}, real={real}, fake={self._count(False)})"

    def _count(self, real: bool) -> int:
        feed = self._feeds.get(real)
        return self._moments[real].n + (feed.waiting if feed is not None else 0)

    @property
    def extractor(self) -> FeatureExtractor:
        """The network. The first access loads it."""
        with self._lock:
            if self._extractor is None:
                extractor = make_extractor(self.dims, self.protocol, self._device, self._weights, self.precision)
                if self._fixed is not None:
                    check_extractor_beside(self._fixed, extractor)
                check_provenance(
                    "this FID", provenance_of(extractor), "what was merged or loaded", self._adopted, hint=""
                )
                self._extractor = extractor
            return self._extractor

    def to(self, device: str | int) -> "FID":
        """Let the network run on another device from now on; what was accumulated stays.

        The network is loaded there at the next :meth:`update`. Images that wait for a full batch on the GPU it leaves
        are counted first. Not to be called during an :meth:`update` in another thread.

        Parameters
        ----------
        device : str, int or torch.device
            As in :func:`compute_statistics`.

        Returns
        -------
        FID
            The object itself.

        Raises
        ------
        fastfid.BackendUnavailable
            There is no such device.
        ValueError
            It is no name of a device; the device does not have the precision; the extractor is the caller's own, and
            runs elsewhere.

        Examples
        --------
        >>> FID(dims=64).to("cpu")
        FID(dims=64, protocol='pytorch-fid', real=0, fake=0)
        """
        from fastfid.features.session import choose_device  # loads what two .npz files do not need

        chosen = choose_device(device)
        with self._lock:
            if self._is_extractor_given:
                if self.extractor.device != chosen:
                    raise ValueError(
                        f"device: the extractor is the caller's own and runs on {self.extractor.device}, not on"
                        f" {chosen}: make a FID with one that does, and load_state_dict(fid.state_dict())"
                    )
                return self
            check_precision(self.precision, chosen)
            if self._extractor is not None and self._extractor.device != chosen:
                for side in self._feeds:  # the only way that rows come to lie on a device
                    self._moments[side] = FeatureMoments.from_state(self._accumulated(side).state())
                self._feeds = {}
                self._adopted = self._provenance()
                self._extractor = None
            self._device = chosen
        return self

    def update(
        self, images: Any, real: bool | None = None, *, stream: Any = None, **options: Unpack[SourceOptions]
    ) -> None:
        """Add images to one side.

        Parameters
        ----------
        images : array, tensor, path or iterable
            Any source (see :func:`compute_statistics`); most often a uint8 batch [n, h, w, 3] or [n, 3, h, w].
        real : bool
            Which side. It may be left out where the real side is fixed: images are fake ones then.
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
            As in :func:`compute_statistics`. Images before the bad one are counted. ValueError also for a tensor on
            another device than the network's, for `stream` with images that are on none, and for real images where
            the real side is fixed.
        fastfid.BackendUnavailable
            The images are a tensor on a GPU, but fastfid was built without CUDA.
        """
        real = self._side(real)
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

    def _side(self, real: bool | None) -> bool:
        """Return the side that images are for; TypeError or ValueError where `real` names none."""
        if self._fixed is None:
            return check_real(real)
        if real is not None and check_real(real):
            raise ValueError(
                f"real: the real side is fixed, as {self._fixed.name}: pass real=False, or make a FID without real="
            )
        return False

    def _feed(self, real: bool, device: str) -> DeviceFeed | None:
        """Return the feed that takes tensors on `device` for one side; None if the extractor supports the host only."""
        with self._lock:
            network = self.extractor.on_device(device)
            if network is not None and real not in self._feeds:
                self._feeds[real] = DeviceFeed(network, self._moments[real].update)
            return self._feeds.get(real)

    @property
    def real(self) -> Statistics:
        """The real side so far, or the fixed one; ValueError with fewer than two images."""
        return self._statistics(True)

    @property
    def fake(self) -> Statistics:
        """Statistics of the fake images so far. Raises ValueError if there are fewer than two images."""
        return self._statistics(False)

    def _statistics(self, real: bool) -> Statistics:
        if real and self._fixed is not None:
            return self._fixed
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
        self._warn_of_images_without_levels()
        sides = (self._statistics_on(device, real) for real in (True, False))
        return distance(*sides, tol=tol, device=device).value

    def result(self, *, tol: float | None = None) -> FIDResult:
        """Return the FID of the images so far with its standard error, bias and numerical bounds.

        It takes longer than :meth:`compute`, which gives the same value, and is taken on the CPU.

        Parameters
        ----------
        tol : float, optional
            As in :meth:`compute`.

        Returns
        -------
        FIDResult
            ``standard_error`` is None with n <= dims, and ``no_standard_error`` says why. ``standard_error_of`` says
            whose sampling it covers: a fixed real side without a sample of its features adds nothing to it.

        Raises
        ------
        ValueError
            A side has fewer than two images.

        Examples
        --------
        >>> import numpy as np
        >>> fid = FID(dims=64)
        >>> rng = np.random.default_rng(0)
        >>> fid.update(rng.integers(0, 256, (80, 8, 8, 3), dtype=np.uint8), real=True)
        >>> fid.update(rng.integers(0, 128, (80, 8, 8, 3), dtype=np.uint8), real=False)
        >>> result = fid.result()
        >>> result.value == fid.compute(), 0 < result.standard_error < result.value
        (True, True)
        """
        self._warn_of_images_without_levels()
        real, fake = self.real, self.fake
        return with_standard_error(as_result(distance(real, fake, tol=tol, needs_bias=True)), real, fake)

    def _warn_of_images_without_levels(self) -> None:
        for real, name in ((True, "real"), (False, "fake")):
            if remark := self._censuses[real].without_levels():
                warn(f"{name}: {remark}", SuspiciousInputWarning)

    def merge(self, other: "FID") -> None:
        """Add what another FID (another process's shard, say) has seen.

        A fixed real side is not added: the other must have the same. Where memory runs out in the middle, one side may
        have been added and the other not.

        Raises
        ------
        ValueError
            The other saw its images otherwise, or has another real side that is fixed, or none.
        """
        check_provenance("this FID", self._provenance(), "the other", other._provenance(), hint="")
        self._expect_same_real(other._fixed, "the other")
        # Copies: the other may be this one, or grow meanwhile.
        seen = {real: FeatureMoments.from_state(other._accumulated(real).state()) for real in (True, False)}
        for real, moments in seen.items():
            self._moments[real].merge(moments)
        self._adopted = {**other._provenance(), **self._provenance()}

    def _expect_same_real(self, other: Statistics | None, name: str) -> None:
        """Raise ValueError unless both real sides are fixed and the same, or neither is fixed."""
        ours = self._fixed
        if ours is None and other is None:
            return
        if ours is None or other is None:
            fixed, free = (name, "this FID") if ours is None else ("this FID", name)
            raise ValueError(f"{fixed} has a fixed real side, {free} has none: make both with the same real=")
        if not is_same(ours, other):
            raise ValueError(
                f"the fixed real side of this FID, {ours.name}, and that of {name}, {other.name}, are not the same"
            )

    def reset(self, *, real: bool = True, fake: bool = True) -> None:
        """Forget the images of both sides, or of one. A fixed real side stays, whatever `real` is.

        Examples
        --------
        >>> fid = FID(dims=64)
        >>> fid.update("real", real=True)  # a folder of four pictures
        >>> fid.reset(real=False)  # the next epoch's images are compared with the same real ones
        >>> fid
        FID(dims=64, protocol='pytorch-fid', real=4, fake=0)
        """
        for side, wanted in ((True, real), (False, fake)):
            if wanted:
                self._feeds.pop(side, None)
                self._moments[side].reset()
                self._censuses[side] = mistakes.Census(keeps_digests=False)

    def _provenance(self) -> dict[str, Any]:
        known = provenance_of(self._extractor) if self._extractor is not None else self._adopted
        if "extractor" not in known and self._fixed is not None and self._fixed.meta.get("extractor") is not None:
            known = {**known, "extractor": self._fixed.meta["extractor"]}
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
        """Return all that was accumulated, and a fixed real side; :meth:`load_state_dict` takes it back.

        Returns
        -------
        dict
            ``provenance``, ``real`` and ``fake``: dicts of plain values and of arrays. The arrays are ``torch.Tensor``
            where the program has imported torch, so that ``torch.save`` and ``torch.load`` take them as they are, and
            ``numpy.ndarray`` otherwise. A fixed ``real`` holds ``mu`` (d,) and ``sigma`` (d, d), and a
            sample of the features: 48 MB at 2048 dims.

        Examples
        --------
        >>> fid = FID(dims=64)
        >>> fid.update("fake", real=False)  # a folder of four pictures
        >>> again = FID(dims=64)
        >>> again.load_state_dict(fid.state_dict())
        >>> again.fake.n
        4
        """
        return {
            "provenance": as_tensors(self._provenance()),
            "real": as_tensors(self._accumulated(True).state() if self._fixed is None else state_of_fixed(self._fixed)),
            "fake": as_tensors(self._accumulated(False).state()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the accumulated state by one that :meth:`state_dict` returned.

        A fixed real side is taken from the state, if this FID has none.

        Parameters
        ----------
        state : mapping
            As :meth:`state_dict` returns it. Arrays may be tensors, on any device, and the other way round.

        Raises
        ------
        TypeError
            `state` or a part of it is not a mapping, or an entry has a wrong type.
        ValueError
            It is no such state, or was made with other dims, another protocol or another network; this FID has a fixed
            real side, and the state another one, or real images.
        """
        origin, parts = _parts_of(state)
        check_provenance("this FID", self._provenance(), "the state", origin, hint="")
        fixed = self._fixed
        moments: dict[bool, FeatureMoments] = {}
        for real, side in ((True, "real"), (False, "fake")):
            try:
                if real and is_fixed_state(parts[side]):
                    fixed = fixed_from_state(parts[side])
                    moments[real], d = FeatureMoments(self.dims), fixed.d
                else:
                    moments[real] = FeatureMoments.from_state(parts[side])
                    d = moments[real].d
            except (TypeError, ValueError) as error:  # NumericalError too
                raise type(error)(f"{side}: {error}") from None
            if d != self.dims:
                raise ValueError(f"state: holds features of {d} dims, expected {self.dims}")
        if self._fixed is not None:
            self._expect_same_real(fixed if not moments[True].n else None, "the state")
        elif fixed is not None:
            check_provenance("this FID", self._provenance(), "the real side of the state", fixed.meta, hint="")
        self._feeds = {}
        self._moments = moments
        self._fixed = self._fixed or fixed
        self._adopted = origin


def _parts_of(state: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the provenance and the two sides of a state, with NumPy arrays; TypeError or ValueError if it is none."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a mapping, as state_dict() returns it, got {type(state).__name__}")
    missing = {"provenance", "real", "fake"} - set(state)
    if missing:
        raise ValueError(f"state: the keys {', '.join(sorted(missing))} are missing")
    parts = {}
    for key in ("provenance", "real", "fake"):
        if not isinstance(state[key], Mapping):
            raise TypeError(f"state[{key!r}]: expected a mapping, got {type(state[key]).__name__}")
        parts[key] = as_arrays(state[key], f"state[{key!r}]")
    origin = parts.pop("provenance")
    for key, value in origin.items():
        if not isinstance(value, str | numbers.Integral | None):
            raise TypeError(f"state['provenance'][{key!r}]: expected a string or an integer, got {value!r}")
    return origin, parts
