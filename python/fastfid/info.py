"""Facts about the build and the machine, for ``fastfid info`` and bug reports."""

import importlib.metadata
import os
import platform
import sys
from typing import Any

from fastfid import _core
from fastfid._version import __version__

__all__ = ["gather"]


def gather() -> dict[str, Any]:
    """Return the facts that a bug report should contain. Loads ONNX Runtime, but no weights.

    >>> gather()["fastfid"] == __version__
    True
    """
    from fastfid.features import session, weights

    devices, reason = _core.cuda_driver()
    facts: dict[str, Any] = {
        "fastfid": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "executable": sys.executable,
        **_core.build_info(),
        "threads": _core.num_threads(),
        "threads_from": _core.threads_source(),
        "cuda_devices": devices if devices else f"0: {reason}",
    }
    for package in ("numpy", "pillow", "tqdm"):
        facts[package] = importlib.metadata.version(package)
    facts.update(session.runtime_facts())
    facts["weights"] = "; ".join(weights.describe(None).splitlines()[:2])
    facts["environment"] = {k: v for k, v in sorted(os.environ.items()) if k.startswith("FASTFID_")}
    return facts
