"""Description of the machine of a run: CPU, versions, load."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["available_cores", "commit", "cpu_model", "describe", "slug", "thread_environment", "versions"]

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = (
    "fastfid",
    "numpy",
    "onnxruntime-gpu",
    "onnxruntime",
    "pillow",
    "torch",
    "torchvision",
    "scipy",
    "pytorch-fid",
    "torchmetrics",
    "torch-fidelity",
    "clean-fid",
    "prdc",
    "scikit-learn",
)


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_environment(threads: int) -> dict[str, str]:
    """Return the environment variables that limit BLAS, OpenMP, torch and fastfid to `threads` threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "FASTFID_NUM_THREADS")
    return dict.fromkeys(names, str(threads))


def cpu_model() -> str:
    """Return the CPU's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def slug() -> str:
    """Return the name of this machine's result files: CPU model and cores."""
    model = re.sub(r"\([^)]*\)|@.*|\b(CPU|Processor|with Radeon.*)\b", " ", cpu_model(), flags=re.IGNORECASE)
    words = re.findall(r"[a-z0-9]+", model.lower())
    return "-".join([*(words or ["unknown"]), f"{available_cores()}cores"])


def describe() -> dict[str, Any]:
    """Return the description of the machine as plain values."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "slug": slug(),
        "cpu": cpu_model(),
        "cores": available_cores(),
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the compared packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of the working tree, with a plus sign if files differ from it; empty outside a clone."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "csrc", "python", "CMakeLists.txt"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")
