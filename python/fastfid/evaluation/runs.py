"""The run directory and the engine of an evaluation, from what the caller asked for."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Literal, TypeAlias

from fastfid.cache import CacheMode
from fastfid.scale import RunDirectory
from fastfid.scale.engine import Engine
from fastfid.scale.ray import RayEngine

__all__ = ["EngineOption", "WorkersOption", "opened_run"]

EngineOption: TypeAlias = Engine | Literal["ray"] | None
WorkersOption: TypeAlias = int | tuple[int, int] | None


@contextlib.contextmanager
def opened_run(
    run_dir: str | os.PathLike[str] | RunDirectory | None,
    engine: EngineOption,
    workers: WorkersOption,
    store: object,
    cache: CacheMode,
) -> Iterator[RunDirectory | None]:
    """Yield the run directory that is meant, or None. With an engine and no directory: one that is removed at the end.

    Raises
    ------
    TypeError, ValueError
        The engine is none, or does not go with the other arguments.
    """
    if engine is None:
        if workers is not None:
            raise ValueError(f"workers: are of an engine, and there is none; pass engine='ray' too; got {workers!r}")
        yield make_run(run_dir, store, cache)
        return
    if cache:
        raise ValueError("engine: does not go with cache; leave one of the two out")
    with contextlib.ExitStack() as stack:
        if isinstance(engine, str):
            chosen: Engine = stack.enter_context(_named(engine, workers))
        elif not callable(getattr(engine, "run", None)):
            raise TypeError(f"engine: expected 'ray', or an object with run(tasks, work); got {type(engine).__name__}")
        elif workers is not None:
            raise ValueError("workers: are of engine='ray'; an engine that is an object has its own")
        else:
            chosen = engine
        if run_dir is None:
            run_dir = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="fastfid-run-", ignore_cleanup_errors=True)
            )
        run = make_run(run_dir, store, cache)
        assert run is not None
        run.use(chosen)
        yield run


def _named(name: str, workers: WorkersOption) -> RayEngine:
    if name != RayEngine.name:
        raise ValueError(f"engine: expected {RayEngine.name!r}, or an object with run(tasks, work); got {name!r}")
    return RayEngine(workers)


def make_run(
    run_dir: str | os.PathLike[str] | RunDirectory | None, store: object, cache: CacheMode
) -> RunDirectory | None:
    """Return the run directory that is meant; None: none.

    Raises
    ------
    ValueError
        It does not go with the cache.
    """
    if run_dir is None:
        return None
    if cache:
        raise ValueError("run_dir: does not go with cache; take one of the two")
    run = run_dir if isinstance(run_dir, RunDirectory) else RunDirectory(run_dir)
    run.needs_rows = store is not None
    return run
