"""What runs on the machines of a Ray cluster. Like ray.py, this file imports Ray, and only when a task is done."""

import contextlib
import importlib
import os
import pickle
from collections.abc import Sequence
from typing import Any

from fastfid import _core
from fastfid._version import __version__
from fastfid.cache import package_versions
from fastfid.scale.part import Part, run_task
from fastfid.scale.plan import Task
from fastfid.scale.watch import Watch

__all__ = ["Witness", "Worker", "versions"]


def versions() -> dict[str, str | None]:
    """Return the versions that decide bits."""
    return {"fastfid": __version__, **package_versions()}


# Seconds that an image waits for the witness.
_REPORT_S = 10.0


class Worker:
    """An actor: does one task after another, and says meanwhile how far it is."""

    def __init__(self, folder: str, threads: int, most_pixels: int | None):
        from PIL import Image

        if os.path.isdir(folder):  # relative paths mean what they mean to the driver
            os.chdir(folder)
        _core.set_num_threads(threads)
        Image.MAX_IMAGE_PIXELS = most_pixels
        self._watch = Watch()
        self._kept: dict[str, Any] = {}  # the network and the rest of the work that were used last

    def hello(self) -> tuple[int, str, dict[str, str | None]]:
        """Return the process's number, the machine, and the versions that decide bits."""
        return os.getpid(), os.uname().nodename, versions()

    def images(self) -> int:
        """Return the number of images that were decoded."""
        return self._watch.images

    def do(self, task: Task, parcel: Sequence[Any], witness: Any) -> tuple[Part | None, Exception | None]:
        """Return the Part of a task, or the error. With a witness, images are decoded one by one, and reported."""
        try:
            extractor, (source, metrics, options) = self._get(parcel)
        except (ImportError, AttributeError) as error:
            what = "the module of the network or of a metric must be importable there"
            return None, ImportError(f"engine ray: {os.uname().nodename}: {error}: {what}")
        except Exception as error:
            return None, _that_travels(error)
        try:
            self._watch.on_begin = None
            if witness is not None:
                self._watch.on_begin = lambda name: _report(witness, task, name)
                options = {**options, "num_workers": 0}
            return run_task(task, self._watch.over(source), extractor, metrics, **options), None
        except Exception as error:
            return None, _that_travels(error)

    def _get(self, parcel: Sequence[Any]) -> list[Any]:
        ray = importlib.import_module("ray")
        names = [reference.hex() for reference in parcel]
        if list(self._kept) != names:
            self._kept = {
                name: self._kept[name] if name in self._kept else pickle.loads(ray.get(reference))
                for name, reference in zip(names, parcel, strict=True)
            }
        return list(self._kept.values())


def _report(witness: Any, task: Task, name: str) -> None:
    """Tell the witness, and wait until it knows. Without a witness the task goes on: only a message is poorer."""
    ray = importlib.import_module("ray")
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(witness.begin.remote(task.key, name), timeout=_REPORT_S)


class Witness:
    """An actor: remembers which image of a task was begun last."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def begin(self, key: str, name: str) -> None:
        """Remember the image of a task."""
        self._last[key] = name

    def last(self, key: str) -> str | None:
        """Return the image of a task; None: none was begun."""
        return self._last.get(key)


def _that_travels(error: Exception) -> Exception:
    """Return the error, or one with its text where it cannot be pickled."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(str(error) or type(error).__name__)
    return error
