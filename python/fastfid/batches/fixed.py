"""A real side that is given once, as statistics: where it comes from, and its state."""

import dataclasses
import os
import shlex
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from fastfid._files import is_store
from fastfid.evaluation.opening import load_statistics
from fastfid.reservoir import RowReservoir
from fastfid.statistics import Statistics

__all__ = [
    "fixed_from_state",
    "fixed_statistics",
    "is_fixed_state",
    "is_same",
    "state_of_fixed",
]

_STORED = ("mu", "sigma", "n", "meta", "rows", "name")


def fixed_statistics(given: Any, argument: str) -> Statistics:
    """Return the statistics that `given`, the argument called `argument`, is or names; of a store, its features'.

    Raises
    ------
    TypeError
        It is neither :class:`Statistics` nor a path.
    OSError
        The file cannot be opened.
    ValueError
        It is a folder of images, a store that is damaged or not complete, or a file without statistics.
    """
    if isinstance(given, Statistics):
        return given
    if is_store(given):
        return cast(Statistics, load_statistics(given))
    if not isinstance(given, str | os.PathLike):
        raise TypeError(
            f"{argument}: expected Statistics or the path of an .npz of them, got {type(given).__name__};"
            " fastfid.compute_statistics(images) makes them"
        )
    path = os.fspath(given)
    if os.path.isdir(path):
        raise ValueError(f"{argument}: {path} is a folder; fit it once: fastfid stats {shlex.quote(path)} -o real.npz")
    return Statistics.load(path, spatial=False)  # of the FID


def is_same(a: Statistics, b: Statistics) -> bool:
    """Whether two statistics are the same numbers of the same provenance, whatever they are called."""
    if (a.n, a.d) != (b.n, b.d):
        return False
    if any(a.meta.get(key) != b.meta.get(key) for key in ("protocol", "extractor", "precision")):
        return False
    return np.array_equal(a.mu, b.mu) and np.array_equal(a.sigma, b.sigma)


def state_of_fixed(fixed: Statistics) -> dict[str, Any]:
    """Return fixed statistics as arrays and plain values; :func:`fixed_from_state` takes them back.

    Examples
    --------
    >>> state = state_of_fixed(Statistics([0.0], [[1.0]], n=9))
    >>> fixed_from_state(state).n
    9
    """
    values = {key: getattr(fixed, key) for key in _STORED}
    if fixed.reservoir is not None:
        values |= fixed.reservoir.state()
    if fixed.spatial is not None:
        values["spatial"] = state_of_fixed(fixed.spatial)
    return {
        key: value.copy() if isinstance(value, np.ndarray) else value  # the state is the caller's to change
        for key, value in {**values, "meta": dict(fixed.meta)}.items()
        if value is not None
    }


def is_fixed_state(state: Mapping[str, Any]) -> bool:
    """Whether a side's state is one of fixed statistics; else it is one of moments."""
    return "mu" in state


def fixed_from_state(state: Mapping[str, Any]) -> Statistics:
    """Return the statistics of a state.

    Raises
    ------
    TypeError, ValueError
        It is no state of :func:`state_of_fixed`; the message names the entry.
    """
    if missing := [key for key in ("mu", "sigma") if key not in state]:
        raise ValueError(f"state: the key {missing[0]!r} is missing")
    meta, name, rows = state.get("meta", {}), state.get("name", "real"), state.get("rows")
    if not isinstance(meta, Mapping):
        raise TypeError(f"state['meta']: expected a mapping, got {type(meta).__name__}")
    for key in ("protocol", "extractor", "precision"):
        if not isinstance(meta.get(key), str | None):
            raise TypeError(f"state['meta'][{key!r}]: expected a string, got {meta[key]!r}")
    if not isinstance(name, str):
        raise TypeError(f"state['name']: expected a string, got {type(name).__name__}")
    spatial = _spatial_from_state(state["spatial"]) if "spatial" in state else None
    known = Statistics(state["mu"], state["sigma"], state.get("n"), meta, name=name, spatial=spatial)
    if any(key.startswith("reservoir_") for key in state):
        if known.n is None:
            raise ValueError("state['n']: is missing beside a sample of rows")
        known = dataclasses.replace(known, reservoir=RowReservoir.from_state(state, known.d, known.n))
    if rows is None:
        return known
    if not isinstance(rows, np.ndarray) or rows.dtype not in (np.float32, np.float64):
        raise TypeError("state['rows']: expected an array of float32 or float64")
    if rows.shape != (known.n, known.d) or not np.isfinite(rows).all():
        raise ValueError(f"state['rows']: expected finite values of shape {(known.n, known.d)}, got {rows.shape}")
    # The distance takes the rows in place of the covariance.
    scale = np.sqrt(np.abs(known.sigma.diagonal()).max())
    if np.abs(rows.mean(axis=0, dtype=np.float64) - known.mu).max() > 1e-3 * scale:
        raise ValueError("state['rows']: do not have the mean state['mu']")
    return dataclasses.replace(known, rows=rows.copy())


def _spatial_from_state(state: Any) -> Statistics:
    """Return the spatial part of a state; the message of an error names the entry."""
    if not isinstance(state, Mapping) or "spatial" in state:
        raise TypeError("state['spatial']: expected a mapping without a spatial part of its own")
    try:
        return fixed_from_state(state)
    except (TypeError, ValueError) as error:
        raise type(error)(f"state['spatial']: {error}") from None
