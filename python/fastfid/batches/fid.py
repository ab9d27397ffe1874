"""The FID of two growing sets of images, for training loops."""

import os
from collections.abc import Mapping
from typing import Any

from fastfid._core import Moments
from fastfid.batches.fixed import fixed_statistics
from fastfid.batches.growing import GrowingSets
from fastfid.extractor import FeatureExtractor
from fastfid.features.make import make_extractor
from fastfid.metrics.fid import FIDResult, FrechetInceptionDistance, as_result, distance, with_standard_error
from fastfid.metrics.moments import FeatureMoments
from fastfid.metrics.several import name_of
from fastfid.options import Dims, PrecisionName, ProtocolName
from fastfid.statistics import AnyStatistics, DeviceStatistics, Statistics

__all__ = ["FID"]


class FID(GrowingSets[FeatureMoments]):
    """FID of two growing sets of images. The memory does not grow with the number of images.

    Parameters
    ----------
    real : path or Statistics, optional
        The real side, given once: statistics, their ``.npz``, or a store of features. It is fixed: :meth:`update` then
        takes fake images only, :meth:`reset` keeps it, and copies, pickles and states carry it. Default: real images
        come by :meth:`update`.
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

    _one = "a FID"

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
        super().__init__(
            fixed,
            dims=dims,
            protocol=protocol,
            device=device,
            precision=precision,
            weights=weights,
            extractor=extractor,
            num_workers=num_workers,
        )

    def __repr__(self) -> str:
        """Return one line: what the network is, and how many images were seen."""
        return f"FID(dims={self.dims}, protocol={self.protocol!r}, {self._counts()})"

    def _make_extractor(self) -> FeatureExtractor:
        return make_extractor(self.dims, self.protocol, self._device, self._weights, self.precision)

    def _empty(self) -> FeatureMoments:
        return FeatureMoments(self.dims)

    def _restored(self, state: Mapping[str, Any]) -> FeatureMoments:
        # Of an Evaluator: the moments are one part.
        return FeatureMoments.from_state(state.get(name_of(FrechetInceptionDistance().accumulates), state))

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
