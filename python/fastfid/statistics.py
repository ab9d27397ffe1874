"""Mean and covariance of one set of features, where they come from, and their file."""

import copy
import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastfid import npz
from fastfid._checks import expect_unmasked
from fastfid._core import DeviceMoments, Gaussian, Moments
from fastfid._files import atomic_file, npz_path
from fastfid._html import table
from fastfid._version import __version__
from fastfid.provenance import FORCE_HINT, KnownFeatures, check_provenance
from fastfid.reservoir import RESERVOIR_ROWS, RowReservoir

__all__ = ["Statistics"]

SCHEMA = 1
# d = 16384 in float64: 2 GiB. No network in use has more features; a file that declares more is damaged or hostile.
_MAX_DIMS = 16384
_MAX_META_BYTES = 1 << 20
# Begins the names of the arrays of the spatial part that ADM's files do not have.
_OF_SPATIAL = "spatial_"
_MAX_N = 1 << 62  # as the core counts: what a file holds is an int64, and the n of two sides add up in one


@dataclass(frozen=True, eq=False, repr=False)
class Statistics:
    """The Gaussian fitted to one set of features.

    Parameters
    ----------
    mu : array_like, shape (d,)
        Mean. Converted to float64.
    sigma : array_like, shape (d, d)
        Covariance (ddof=1). Converted to float64.
    n : int or None
        Number of samples; None where a file does not say.
    meta : mapping
        Provenance: ``protocol``, ``extractor``, ``precision``, ``dims``, ``source``, ``version``; empty where unknown.
    rows : ndarray or None, shape (n, d)
        The features themselves, kept in memory while n <= d: the distance is then exact. Not written to files.
    name : str
        What messages call this side: a path, or what the source calls itself.
    reservoir : RowReservoir or None
        A random sample of the features, at most 2,048 rows, for the standard error of a distance.
    spatial : Statistics or None
        Statistics of the spatial features of the same images, for the sFID (2,023 dims for Inception). It gets the n,
        the meta and the name of the features.

    Raises
    ------
    ValueError
        Shapes do not fit together, n < 2 or above 2^62, a value is not finite, or `spatial` has another n.
    TypeError
        An array of other than real numbers, or with a mask.

    Examples
    --------
    >>> s = Statistics(mu=[0.0, 1.0], sigma=[[1.0, 0.0], [0.0, 4.0]], n=100)
    >>> s.d
    2
    """

    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    n: int | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    rows: NDArray[Any] | None = None
    name: str = "statistics"
    reservoir: RowReservoir | None = None
    spatial: "Statistics | None" = None

    def __post_init__(self) -> None:
        mu = _as_float64(self.mu, "mu")
        sigma = _as_float64(self.sigma, "sigma")
        if mu.ndim != 1 or mu.size == 0:
            raise ValueError(f"mu: expected shape (d,), got {mu.shape}")
        if sigma.shape != (mu.size, mu.size):
            raise ValueError(f"sigma: expected shape {(mu.size, mu.size)} to go with mu, got {sigma.shape}")
        for name, array in (("mu", mu), ("sigma", sigma)):
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: has NaN or infinite values")
        if self.n is not None:
            if not isinstance(self.n, int | np.integer):
                raise TypeError(f"n: expected an integer, got {self.n!r}")
            if self.n < 2:
                raise ValueError(f"n: a covariance needs at least 2 samples, got {self.n}")
            if self.n > _MAX_N:
                raise ValueError(f"n: expected at most 2^62 samples, got {self.n:.3e}")
            object.__setattr__(self, "n", int(self.n))
        if self.reservoir is not None and not np.isfinite(self.reservoir.rows).all():
            object.__setattr__(self, "reservoir", None)  # features beyond float32 have no sample
        if self.reservoir is not None and (self.n is None or self.reservoir.n != self.n or self.reservoir.d != mu.size):
            raise ValueError(
                f"reservoir: expected a sample of n = {self.n} rows of {mu.size} features, got one of"
                f" {self.reservoir.n} rows of {self.reservoir.d}"
            )
        object.__setattr__(self, "mu", mu)
        object.__setattr__(self, "sigma", sigma)
        object.__setattr__(self, "meta", dict(self.meta))
        if self.spatial is not None:
            object.__setattr__(self, "spatial", self._checked_spatial(self.spatial))

    def _checked_spatial(self, spatial: Any) -> "Statistics":
        """Return the spatial part under the name and the provenance of the features."""
        if not isinstance(spatial, Statistics):
            raise TypeError(f"spatial: expected Statistics or None, got {type(spatial).__name__}")
        if spatial.spatial is not None:
            raise ValueError("spatial: expected statistics without a spatial part of their own")
        if spatial.n is not None and spatial.n != self.n:
            raise ValueError(f"spatial: expected n = {self.n}, as the features have; got {spatial.n}")
        part = copy.copy(spatial)  # the arrays are not copied once more
        for key in ("n", "meta", "name"):
            object.__setattr__(part, key, getattr(self, key))
        return part

    def __repr__(self) -> str:
        """Return one line, without the numbers."""
        protocol = self.meta.get("protocol")
        spatial = f", spatial_d={self.spatial.d}" if self.spatial is not None else ""
        return f"Statistics(d={self.d}{spatial}, n={self.n}, protocol={protocol!r}, name={self.name!r})"

    def _repr_html_(self) -> str:
        """Return a table for a notebook: what the statistics are of, without the numbers."""
        known = {
            "d": self.d,
            **({"d of the spatial features": self.spatial.d} if self.spatial is not None else {}),
            "n": self.n,
            **{key: self.meta.get(key) for key in ("protocol", "extractor", "precision")},
        }
        rows = [(key, "unknown" if value is None else str(value)) for key, value in known.items()]
        return table((), rows, caption=f"Statistics of {self.name}")

    @property
    def d(self) -> int:
        """Length of a feature vector."""
        return int(self.mu.size)

    @classmethod
    def from_moments(
        cls,
        moments: Moments,
        meta: Mapping[str, Any] | None = None,
        name: str = "features",
        reservoir: RowReservoir | None = None,
    ) -> "Statistics":
        """Take the mean, the covariance and, while n <= d, the rows of an accumulator.

        `reservoir` is a sample of the same rows.

        Raises
        ------
        ValueError
            It has seen fewer than two samples.
        """
        expect_two(name, moments.n)
        return cls(moments.mean, moments.covariance(), moments.n, meta or {}, moments.rows, name, reservoir)

    @classmethod
    def from_features(
        cls, features: NDArray[Any], meta: Mapping[str, Any] | None = None, name: str = "features"
    ) -> "Statistics":
        """Fit a Gaussian to features of one's own.

        Parameters
        ----------
        features : ndarray, shape (n, d)
            One row an image, float16, float32 or float64.
        meta : mapping, optional
            Provenance, such as ``{"extractor": "dinov2"}``: statistics of different extractors are not compared.
        name : str
            What messages call the set.

        Raises
        ------
        TypeError
            No such array.
        ValueError
            Fewer than two rows.
        fastfid.NumericalError
            A row has NaN or infinite values.

        Examples
        --------
        >>> Statistics.from_features(np.random.default_rng(0).standard_normal((50, 4))).n
        50
        """
        if not isinstance(features, np.ndarray) or features.ndim != 2:
            what = f"shape {features.shape}" if isinstance(features, np.ndarray) else type(features).__name__
            raise TypeError(f"features: expected a NumPy array (n, d), got {what}")
        moments, reservoir = Moments(features.shape[1]), RowReservoir(features.shape[1])
        moments.update(features)
        reservoir.update(features)
        return cls.from_moments(moments, meta, name, reservoir)

    def merge(self, other: "Statistics") -> "Statistics":
        """Return the statistics of both sample sets together (Chan, Golub & LeVeque 1983).

        They have a spatial part, a sample of the features and rows only where both sides have them.

        Raises
        ------
        ValueError
            Dimensions or provenance differ, a side does not know its n, or they sum to more than 2^62.

        Examples
        --------
        >>> a = Statistics([0.0], [[2.0]], n=2)   # samples -1 and 1
        >>> b = Statistics([2.0], [[2.0]], n=2)   # samples 1 and 3
        >>> a.merge(b).mu
        array([1.])
        """
        check_compatible(self, other, hint="")
        if self.n is None or other.n is None:
            raise ValueError("merge: both sides must know their number of samples n; compute them from the images")
        n = self.n + other.n
        if n > _MAX_N:
            raise ValueError(f"merge: n: expected at most 2^62 samples in all, got {self.n} + {other.n}")
        name = f"{self.name} + {other.name}"
        merged = self._merged(other, n, name)
        if self.spatial is None or other.spatial is None:
            return merged
        return replace(merged, spatial=self.spatial.merge(other.spatial))

    def _merged(self, other: "Statistics", n: int, name: str) -> "Statistics":
        """Return the merged statistics of the features; both sides know their n."""
        assert self.n is not None
        assert other.n is not None
        reservoir = None
        if self.reservoir is not None and other.reservoir is not None:
            reservoir = self.reservoir.copy()
            reservoir.merge(other.reservoir)
        if self.rows is not None and other.rows is not None and n <= self.d:
            moments = Moments(self.d)
            moments.update(self.rows)
            moments.update(other.rows)
            return Statistics.from_moments(moments, self.meta, name, reservoir)
        delta = other.mu - self.mu
        scatter = (self.n - 1) * self.sigma + (other.n - 1) * other.sigma
        scatter += np.outer(delta, delta) * (self.n * other.n / n)
        return Statistics(self.mu + delta * (other.n / n), scatter / (n - 1), n, self.meta, None, name, reservoir)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False, rows: bool = True) -> Path:
        """Write an ``.npz`` that pytorch-fid and every other tool can read, and return its path.

        ``mu`` float64 (d,), ``sigma`` float64 (d, d), and ``n``, ``schema``, ``meta`` (JSON). With a spatial part also
        ``mu_s`` and ``sigma_s``, float64, as guided-diffusion's evaluator reads them. The file appears whole or not at
        all. A missing ``.npz`` suffix is added.

        Parameters
        ----------
        path : path-like
        overwrite : bool
            Replace a file that exists.
        rows : bool
            Keep the sample of the features too, ``reservoir_rows`` float32 (k, d) and ``reservoir_keys`` int64 (k,),
            with k = min(n, 2048): 16 MiB at 2048 dims. Distances from a file without it have no standard error. Those
            of a spatial part are ``spatial_reservoir_rows`` and ``spatial_reservoir_keys``.

        Raises
        ------
        FileExistsError
            The file exists and `overwrite` is False.
        OSError
            It cannot be written; an older file is left as it was.
        """
        target = npz_path(path)
        if not overwrite and target.exists():
            raise FileExistsError(errno.EEXIST, "Existing output file", str(target))
        meta = {**self.meta, "version": __version__}
        arrays: dict[str, Any] = {"mu": self.mu, "sigma": self.sigma, "schema": np.int64(SCHEMA)}
        if self.n is not None:
            arrays["n"] = np.int64(self.n)
        arrays["meta"] = np.array(json.dumps(meta, sort_keys=True))
        if rows and self.reservoir is not None:
            arrays |= self.reservoir.state()
        if self.spatial is not None:
            arrays |= {"mu_s": self.spatial.mu, "sigma_s": self.spatial.sigma}
            if rows and self.spatial.reservoir is not None:
                state = self.spatial.reservoir.state()
                arrays |= {f"{_OF_SPATIAL}{name}": array for name, array in state.items()}
        with atomic_file(target, overwrite=overwrite) as stream:
            np.savez_compressed(stream, **arrays)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, spatial: bool = True) -> "Statistics":
        """Read a statistics file of ours or of another tool (float32 ``mu`` and no ``n`` are fine), without pickle.

        Parameters
        ----------
        path : path-like
        spatial : bool
            Read the spatial part too, ``mu_s`` and ``sigma_s``, where the file has them: 32 MiB in the references of
            guided-diffusion (ADM). Only the sFID needs it.

        Raises
        ------
        OSError
            The file cannot be opened.
        ValueError
            It is no statistics file, or its values are not finite; the message begins with the path.
        """
        path = os.fspath(path)
        with npz.open_npz(path) as archive:
            keys = archive.names
            missing = [key for key in ("mu", "sigma") if key not in keys]
            if missing:
                raise ValueError(
                    f"{path}: no {' and no '.join(missing)} in it (it has {', '.join(keys) or 'nothing'}); "
                    "a statistics file has mu and sigma"
                )
            n = _read_n(archive) if "n" in keys else None
            has_spatial = {"mu_s", "sigma_s"} <= set(keys)
            # The references of guided-diffusion (ADM) have the statistics of spatial features beside, and no meta.
            meta = _read_meta(archive) if "meta" in keys else {"writer": "ADM"} if has_spatial else {}
            part = None
            if spatial and has_spatial:
                part = _read_gaussian(cls, archive, ("mu_s", "sigma_s"), _OF_SPATIAL, n, meta)
            return _read_gaussian(cls, archive, ("mu", "sigma"), "", n, meta, part)


def expect_two(name: str, n: int) -> None:
    """Raise ValueError unless `n` images have a covariance."""
    if n < 2:
        raise ValueError(f"{name}: a covariance needs at least 2 images, got {n}")


@dataclass(frozen=True, eq=False)
class DeviceStatistics:
    """Moments that stay on their CUDA device, as one side of a distance that is taken there.

    Raises
    ------
    ValueError
        They have seen fewer than two samples.
    """

    moments: DeviceMoments
    meta: Mapping[str, Any] = field(default_factory=dict)
    name: str = "features"

    def __post_init__(self) -> None:
        expect_two(self.name, self.n)

    @property
    def d(self) -> int:
        """Length of a feature vector."""
        return self.moments.d

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.moments.n


AnyStatistics = Statistics | DeviceStatistics


def gaussian(statistics: AnyStatistics, name: str) -> Gaussian:
    """Return the statistics as the core takes them; `name` begins the messages of the core."""
    name = name.encode("utf-8", "backslashreplace").decode()  # names of files may hold any bytes
    if isinstance(statistics, DeviceStatistics):
        return Gaussian.on_device(statistics.moments, name=name)
    if statistics.rows is not None:
        return Gaussian(statistics.mu, rows=statistics.rows, n=statistics.n, name=name)
    return Gaussian(statistics.mu, statistics.sigma, n=statistics.n, name=name)


def check_compatible(a: KnownFeatures, b: KnownFeatures, *, force: bool = False, hint: str = FORCE_HINT) -> None:
    """Refuse two statistics that do not belong together.

    Raises
    ------
    ValueError
        Their dims differ (always), or their protocol, extractor or precision do (unless `force`).
    """
    if a.d != b.d:
        raise ValueError(
            f"{a.name} has {a.d} dims, {b.name} has {b.d}: they cannot be compared; make both with one network"
        )
    check_provenance(a.name, a.meta, b.name, b.meta, force=force, hint=hint)


def _as_float64(value: ArrayLike, name: str) -> NDArray[np.float64]:
    expect_unmasked(value, name)
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return np.array(array, dtype=np.float64, order="C")  # a copy: the caller may change the array


def _read_n(archive: npz.NpzFile) -> int:
    n = archive.read("n", 64)
    if n.shape != () or n.dtype.kind not in "iu":
        raise ValueError(f"{archive.path}: n: expected one integer, got shape {n.shape} of {n.dtype}")
    return int(n)


def _read_gaussian(
    cls: type[Statistics],
    archive: npz.NpzFile,
    keys: tuple[str, str],
    prefix: str,
    n: int | None,
    meta: dict[str, Any],
    spatial: Statistics | None = None,
) -> Statistics:
    """Return the mean and the covariance under `keys`, and the sample of rows whose names begin with `prefix`."""
    path, (mean, covariance) = archive.path, keys
    mu = archive.read(mean, _MAX_DIMS * 16)
    if mu.ndim != 1:
        raise ValueError(f"{path}: {mean}: expected shape (d,), got {mu.shape}")
    if mu.size > _MAX_DIMS:
        raise ValueError(f"{path}: {mean}: has {mu.size} dims; at most {_MAX_DIMS} are read")
    sigma = archive.read(covariance, mu.size * mu.size * 16)
    sample = _read_sample(archive, mu.size, prefix)
    try:
        reservoir = RowReservoir.from_state(sample, mu.size, n) if sample and n is not None else None
        return cls(mu, sigma, n, meta, name=path, reservoir=reservoir, spatial=spatial)
    except (TypeError, ValueError) as error:
        # The message begins with mu or sigma, the names of the parameters.
        where = f"{path}: {mean}, {covariance}" if prefix else path
        raise ValueError(f"{where}: {error}") from None


def _read_sample(archive: npz.NpzFile, d: int, prefix: str) -> dict[str, NDArray[Any]]:
    """Return the state of the sample of rows, empty where the file has none."""
    limits = {"reservoir_keys": RESERVOIR_ROWS * 8, "reservoir_rows": RESERVOIR_ROWS * d * 4}
    there = {name: limit for name, limit in limits.items() if f"{prefix}{name}" in archive.names}
    return {name: archive.read(f"{prefix}{name}", limit) for name, limit in there.items()}


def _read_meta(archive: npz.NpzFile) -> dict[str, Any]:
    text = archive.read("meta", _MAX_META_BYTES)
    try:
        meta = json.loads(str(text[()])) if text.shape == () and text.dtype.kind == "U" else None
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise ValueError(f"{archive.path}: meta: expected a JSON object in a string")
    for key in ("protocol", "extractor", "precision"):
        if not isinstance(meta.get(key), str | None):
            raise ValueError(f"{archive.path}: meta: {key}: expected a string, got {meta[key]!r}")
    return meta
