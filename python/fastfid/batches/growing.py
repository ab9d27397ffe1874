"""Two growing sets of images and the network that reads them: the base of FID and Evaluator."""

import copy
import hashlib
import numbers
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, Unpack

from fastfid import mistakes
from fastfid._checks import check_device, check_dims, check_real
from fastfid._console import warn
from fastfid.assumptions import assume_protocols, dims_and_protocol
from fastfid.batches.fixed import (
    fixed_from_state,
    is_fixed_state,
    is_same,
    state_of_fixed,
)
from fastfid.batches.gathering import gathered
from fastfid.batches.states import as_arrays, as_tensors
from fastfid.beside import check_extractor_beside, check_network_beside
from fastfid.errors import SuspiciousInputWarning
from fastfid.extractor import FeatureExtractor, check_extractor
from fastfid.metrics.base import Accumulator
from fastfid.options import SourceOptions
from fastfid.pipeline import DeviceFeed, extract
from fastfid.precisions import check_precision
from fastfid.protocols import get_protocol
from fastfid.provenance import check_provenance, provenance_of
from fastfid.sources import open_source
from fastfid.sources.device import DeviceImages, callers_stream
from fastfid.statistics import Statistics

__all__ = ["GrowingSets"]


class _Side(Accumulator, Protocol):
    """What is accumulated of one set of images."""

    @property
    def d(self) -> int | None:
        """Number of features in a row; None where it is not known yet."""


A = TypeVar("A", bound=_Side)


class GrowingSets(ABC, Generic[A]):
    """Two sets of images that grow by :meth:`update`, one of which may be fixed, and what metrics accumulate of them.

    A subclass says which network reads the images, what accumulates each side, and computes something of the two.

    Parameters
    ----------
    fixed : Statistics or None
        The real side, if it is given once.
    dims, protocol, device, precision, weights, extractor, num_workers
        As in :class:`fastfid.FID`.
    """

    _one: ClassVar[str]  # "a FID", in messages

    def __init__(
        self,
        fixed: Statistics | None,
        *,
        dims: int | None,
        protocol: str | None,
        device: str | int,
        precision: str,
        weights: str | os.PathLike[str] | None,
        extractor: FeatureExtractor | None,
        num_workers: int | None,
    ):
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
        self._seen: dict[bool, A] = {}  # by side, made when it is first needed
        self._censuses = {real: mistakes.Census(keeps_digests=False) for real in (True, False)}
        self._feeds: dict[bool, DeviceFeed] = {}  # for tensors on a GPU
        self._lock = threading.RLock()  # held while the network, a feed or an accumulator is created

    @abstractmethod
    def _make_extractor(self) -> FeatureExtractor:
        """Return the network, where the caller has given none."""

    @abstractmethod
    def _empty(self) -> A:
        """Return the accumulator of a side without images."""

    @abstractmethod
    def _restored(self, state: Mapping[str, Any]) -> A:
        """Return an accumulator that continues from a state; TypeError or ValueError if it is none."""

    @property
    def _this(self) -> str:
        return f"this {self._one.partition(' ')[2]}"

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
        self._check_takes(fixed)
        if fixed.meta.get("protocol") is None:
            assume_protocols([fixed, None], self.protocol, "protocol={!r}")
        self._fixed = fixed

    def _check_takes(self, fixed: Statistics) -> None:
        """Raise ValueError if statistics of the real side are not enough. They are for FIDs."""

    @property
    def _fixed_name(self) -> str | None:
        """Name of the real side if it was given once; None where real images come by :meth:`update`."""
        return self._fixed.name if self._fixed is not None else None

    def _counts(self) -> str:
        """Return how many images each side has, for the repr."""
        real = self._count(True) if self._fixed is None else self._fixed.n or "unknown"
        return f"real={real}{' (fixed)' if self._fixed_name is not None else ''}, fake={self._count(False)}"

    def _count(self, real: bool) -> int:
        feed, seen = self._feeds.get(real), self._seen.get(real)
        return (seen.n if seen is not None else 0) + (feed.waiting if feed is not None else 0)

    @property
    def extractor(self) -> FeatureExtractor:
        """The network. The first access loads it."""
        with self._lock:
            if self._extractor is None:
                extractor = self._make_extractor()
                if self._fixed is not None:
                    check_extractor_beside(self._fixed, extractor)
                check_provenance(
                    self._this, provenance_of(extractor), "what was merged or loaded", self._adopted, hint=""
                )
                self._extractor = extractor
            return self._extractor

    def to(self, device: str | int) -> Self:
        """Let the network run on another device from now on; what was accumulated stays.

        The network is loaded there at the next :meth:`update`. Images that wait for a full batch on the GPU it leaves
        are counted first. Not to be called during an :meth:`update` in another thread.

        Parameters
        ----------
        device : str, int or torch.device
            As in :func:`compute_statistics`.

        Returns
        -------
        FID or Evaluator
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
        >>> from fastfid import FID
        >>> FID(dims=64).to("cpu")
        FID(dims=64, protocol='pytorch-fid', real=0, fake=0)
        """
        from fastfid.features.session import choose_device  # loads what two .npz files do not need

        chosen = choose_device(device)
        with self._lock:
            if self._is_extractor_given:
                if self.extractor.device != chosen:
                    name = self._one.partition(" ")[2].lower()
                    raise ValueError(
                        f"device: the extractor is the caller's own and runs on {self.extractor.device}, not on"
                        f" {chosen}: make {self._one} with one that does, and load_state_dict({name}.state_dict())"
                    )
                return self
            check_precision(self.precision, chosen)
            if self._extractor is not None and self._extractor.device != chosen:
                for side in self._feeds:  # the only way that rows come to lie on a device
                    self._seen[side] = self._restored(self._accumulated(side).state())
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
            How the source is read: see :func:`fastfid.sources.open_source`.

        Notes
        -----
        A tensor on the network's GPU is never copied to the host, and the host does not wait for the GPU, unless a
        metric keeps the features of all images on the host. The work is enqueued on a stream of the network, which
        first waits for all work enqueued on `stream` so far. In turn, `stream` waits until the images have been read,
        so the images may be overwritten or freed immediately. For a tensor of a library other than torch and CuPy,
        without `stream`, the host waits.

        Raises
        ------
        TypeError, ValueError, fastfid.ImageError
            As in :func:`compute_statistics`. Images before the bad one are counted. ValueError also for a tensor on
            another device than the network's, for `stream` with images that are on none, and for real images where
            the real side is fixed.
        fastfid.BackendUnavailable
            The images are a tensor on a GPU, but fastfid was built without CUDA.
        """
        self._add(images, self._side(real), stream, options)

    def _add(self, images: Any, real: bool, stream: Any, options: SourceOptions) -> None:
        """Read images and add them to one side, whether or not it is fixed."""
        source = open_source(images, **options)
        for note in source.notes:
            warn(note)
        if isinstance(source, DeviceImages) and (feed := self._feed(real, source.device)) is not None:
            feed.add(source, callers_stream(images, stream))
            return
        if stream is not None:
            raise ValueError("stream: is for tensors on the GPU that the network runs on; these images are not")
        seen = self._seen_of(real)
        extract(
            source,
            self.extractor,
            lambda outputs, indices: seen.update(outputs),
            num_workers=self._num_workers,
            census=self._censuses[real],
        )

    def _side(self, real: bool | None) -> bool:
        """Return the side that images are for; TypeError or ValueError where `real` names none."""
        if self._fixed_name is None:
            if real is None:
                raise TypeError("real: expected True or False, got None; which set are the images of?")
            return check_real(real)
        if real is not None and check_real(real):
            raise ValueError(
                f"real: the real side is fixed, as {self._fixed_name}: pass real=False, or make {self._one} without"
                " real="
            )
        return False

    def _seen_of(self, real: bool) -> A:
        """Return the accumulator of one side, without the images that still wait in its feed."""
        with self._lock:
            if real not in self._seen:
                self._seen[real] = self._empty()
            return self._seen[real]

    def _feed(self, real: bool, device: str) -> DeviceFeed | None:
        """Return the feed that takes tensors on `device` for one side; None if the extractor supports the host only."""
        with self._lock:
            network = self.extractor.on_device(device)
            if network is not None and real not in self._feeds:
                self._feeds[real] = DeviceFeed(network, self._seen_of(real).update)
            return self._feeds.get(real)

    def _accumulated(self, real: bool) -> A:
        """Return the accumulator of one side, after adding the images that still wait in its feed."""
        if real in self._feeds:
            self._feeds[real].flush()
        return self._seen_of(real)

    def _warn_of_images_without_levels(self) -> None:
        for real, name in ((True, "real"), (False, "fake")):
            if remark := self._censuses[real].without_levels():
                warn(f"{name}: {remark}", SuspiciousInputWarning)

    def merge(self, other: Self) -> None:
        """Add what another one (another process's shard, say) has seen.

        A fixed real side is not added: the other must have the same. Where memory runs out in the middle, one side may
        have been added and the other not.

        Raises
        ------
        ValueError
            The other saw its images otherwise, or has another real side that is fixed, or none.
        TypeError
            `other` is no object of this class.
        """
        self._expect_same_kind(other)
        check_provenance(self._this, self._provenance(), "the other", other._provenance(), hint="")
        self._expect_same_real(other._fixed, 0, "the other")
        # Copies: the other may be this one, or grow meanwhile.
        sides = (False,) if self._fixed_name is not None else (True, False)
        seen = {real: self._restored(other._accumulated(real).state()) for real in sides}
        for real, one in seen.items():
            self._seen_of(real).merge(one)
        self._adopted = {**other._provenance(), **self._provenance()}

    def gather(self, dst: int | None = None, *, group: Any = None) -> Self | None:
        """Return a new object with the images of all processes of torch.distributed, merged in the order of ranks.

        All processes must call it, as any collective operation of torch.distributed. This object stays as it is; call
        :meth:`reset` before the next images. Without torch.distributed the new object has the images of this one.

        Parameters
        ----------
        dst : int, optional
            The rank in `group` that gets the object; the others get None. Default: every rank gets it.
        group : torch.distributed.ProcessGroup, optional
            Default: all processes.

        Returns
        -------
        FID or Evaluator, or None
            Processes may have seen any number of images, or none. A fixed real side is not added up.

        Raises
        ------
        ValueError
            On all processes: two of them have other dims, another protocol, network, or real side, or other metrics;
            `dst` is no rank. Also where torchrun has started several processes that have made no process group.
        RuntimeError
            Another process cannot give its images, or cannot hold those of all.

        Notes
        -----
        With gloo, or a group ``"cpu:gloo,cuda:nccl"``, states go from host to host. With nccl alone they go through the
        current device of torch, 64 MiB at once.

        Examples
        --------
        >>> from fastfid import FID
        >>> fid = FID(dims=64)
        >>> fid.update("fake", real=False)  # this process's share: a folder of four pictures
        >>> fid.gather().fake.n  # of all processes
        4
        """
        return gathered(self, dst, group)

    def _shared_state(self) -> dict[str, Any]:
        """Return what :meth:`gather` sends: all that was accumulated, and what must be the same everywhere."""
        fixed = self._fixed
        digest = hashlib.sha256(fixed.mu.tobytes() + fixed.sigma.tobytes()).hexdigest() if fixed is not None else None
        sides = (False,) if self._fixed_name is not None else (True, False)
        return {
            "same": {**self._must_be_same(), "fixed real side": digest},
            "provenance": self._provenance(),
            "seen": {real: self._accumulated(real).state() for real in sides},
            "censuses": {real: self._censuses[real].state() for real in sides},
        }

    def _must_be_same(self) -> dict[str, Any]:
        """Return, in words, what objects must have in common whose images are added up, beside the network."""
        return {"class": type(self).__name__}

    def _like_all(self, headers: Sequence[Mapping[str, Any]]) -> Self:
        """Return an empty object for what processes have seen; ValueError, on all, if it cannot be added up."""
        known: dict[str, Any] = {}
        for rank, header in enumerate(headers):
            for what, value in header["same"].items():
                if value != (first := headers[0]["same"].get(what)):
                    shown = "" if what == "fixed real side" else f": {first} and {value}"
                    raise ValueError(f"gather: rank 0 and rank {rank} do not have the same {what}{shown}")
            check_provenance("what lower ranks have", known, f"that of rank {rank}", header["provenance"], hint="")
            known = {**header["provenance"], **known}
        total = copy.copy(self)
        total._adopted = known
        total._extractor = self._extractor
        total._censuses = {real: mistakes.Census(keeps_digests=False) for real in (True, False)}
        total._seen = {}
        if self._fixed_name is not None and self._fixed is None:  # images that were given once, and may have been read
            total._seen[True] = self._restored(self._accumulated(True).state())
        return total

    def _take_over(self, state: Mapping[str, Any]) -> None:
        """Add the images of a state of :meth:`_shared_state`."""
        for real, side in state["seen"].items():
            one = self._restored(side)
            if real in self._seen:
                self._seen[real].merge(one)
            else:
                self._seen[real] = one
            self._censuses[real].merge(mistakes.Census.from_state(state["censuses"][real]))

    def _expect_same_kind(self, other: object) -> None:
        """Raise TypeError unless the other is a FID where this is one, and an Evaluator where this is one."""
        if not isinstance(other, GrowingSets) or other._one != self._one:
            raise TypeError(f"other: expected {self._one}, got {type(other).__name__}")

    def _expect_same_real(self, other: Statistics | None, n: int, name: str) -> None:
        """Raise ValueError unless both real sides are fixed and the same, or neither is fixed.

        Parameters
        ----------
        other : Statistics or None
            The other's fixed real side.
        n : int
            How many real images the other has, where ours is fixed.
        name : str
            What messages call the other.
        """
        ours = self._fixed
        if ours is None and other is None:
            return
        if ours is None or other is None or n:
            fixed, free = (name, self._this) if ours is None else (self._this, name)
            raise ValueError(f"{fixed} has a fixed real side, {free} has none: make both with the same real=")
        if not is_same(ours, other):
            raise ValueError(
                f"the fixed real side of {self._this}, {ours.name}, and that of {name}, {other.name}, are not the same"
            )

    def reset(self, *, real: bool = True, fake: bool = True) -> None:
        """Forget the images of both sides, or of one. A fixed real side stays, whatever `real` is.

        Examples
        --------
        >>> from fastfid import FID
        >>> fid = FID(dims=64)
        >>> fid.update("real", real=True)  # a folder of four pictures
        >>> fid.reset(real=False)  # the next epoch's images are compared with the same real ones
        >>> fid
        FID(dims=64, protocol='pytorch-fid', real=4, fake=0)
        """
        for side, wanted in ((True, real and self._fixed_name is None), (False, fake)):
            if wanted:
                self._feeds.pop(side, None)
                self._seen_of(side).reset()
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
        state["_seen"] = {real: self._accumulated(real) for real in (True, False)}
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
            ``numpy.ndarray`` otherwise. Fixed statistics of the real side hold ``mu`` (d,) and ``sigma`` (d, d), and a
            sample of the features: 48 MB at 2048 dims.

        Examples
        --------
        >>> from fastfid import FID
        >>> fid = FID(dims=64)
        >>> fid.update("fake", real=False)  # a folder of four pictures
        >>> again = FID(dims=64)
        >>> again.load_state_dict(fid.state_dict())
        >>> again.fake.n
        4
        """
        return {
            "provenance": as_tensors(self._provenance()),
            "real": as_tensors(self._state_of_real()),
            "fake": as_tensors(self._accumulated(False).state()),
        }

    def _state_of_real(self) -> dict[str, Any]:
        return self._accumulated(True).state() if self._fixed is None else state_of_fixed(self._fixed)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the accumulated state by one that :meth:`state_dict` returned.

        A fixed real side is taken from the state, if there is none here.

        Parameters
        ----------
        state : mapping
            As :meth:`state_dict` returns it. Arrays may be tensors, on any device, and the other way round.

        Raises
        ------
        TypeError
            `state` or a part of it is not a mapping, or an entry has a wrong type.
        ValueError
            It is no such state, or was made with other dims, another protocol or another network; there is a fixed
            real side here, and the state has another one, or real images.
        """
        origin, parts = _parts_of(state)
        check_provenance(self._this, self._provenance(), "the state", origin, hint="")
        fixed = self._fixed
        seen: dict[bool, A] = {}
        for real, side in ((True, "real"), (False, "fake")):
            try:
                if real and is_fixed_state(parts[side]):
                    fixed = fixed_from_state(parts[side])
                    seen[real], d = self._empty(), fixed.d
                else:
                    seen[real] = self._restored(parts[side])
                    d = seen[real].d or self.dims
            except (TypeError, ValueError) as error:  # NumericalError too
                raise type(error)(f"{side}: {error}") from None
            if d != self.dims:
                raise ValueError(f"state: holds features of {d} dims, expected {self.dims}")
        if self._fixed_name is not None:
            self._expect_same_real(fixed, seen[True].n, "the state")
        elif fixed is not None:
            self._check_takes(fixed)
            check_provenance(self._this, self._provenance(), "the real side of the state", fixed.meta, hint="")
        self._feeds = {}
        self._seen = seen
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
