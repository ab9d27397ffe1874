"""The machine code of the CUDA kernels in the extension: instructions that must be there, and none that spill.

Where there is no GPU, this and the emulation are what can be known about them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastfid import _core

ARCHITECTURES = {"sm_80", "sm_90"}

# Kernel, as its mangled name begins: what its code must contain, on every architecture or on one.
MUST_CONTAIN = {
    "resampleI": [r"\bLDGSTS\S*\.128\b", r"\bSTG\S*\.128\b"],  # 128-bit loads into shared memory, 128-bit stores
    # The float64 tensor cores, in Hopper's own shape there; 128-bit loads into shared memory.
    r"accumulateI\w+?7Float64E": [r"\bDMMA\b", r"\bLDGSTS\S*\.128\b"],
}
ON_ONE = {("sm_90", r"accumulateI\w+?7Float64E"): [r"\bDMMA\.16x8x8\b"]}


def tool(name):
    """A program of the wheels nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm, or of a toolkit."""
    folders = [Path(folder) / "nvidia" / "cu13" / "bin" for folder in sys.path]
    folders += [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    found = next((folder / name for folder in folders if os.access(folder / name, os.X_OK)), None)
    if found is None:
        pytest.skip(f"{name} was not found: pip install nvidia-cuda-{name}")
    return found


@pytest.fixture(scope="module")
def code():
    """{(architecture, mangled name): SASS} of every kernel."""
    if not _core.build_info()["cuda"].startswith("nvcc"):
        pytest.skip(_core.build_info()["cuda"])
    path = os.pathsep.join([str(tool("nvdisasm").parent), os.environ["PATH"]])
    command = [tool("cuobjdump"), "-sass", _core.__file__]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}).stdout
    found = {}
    architecture = None
    for part in re.split(r"^(?=arch = |\s*Function : )", text, flags=re.M):
        if match := re.match(r"arch = (\S+)", part):
            architecture = match[1]
        elif match := re.match(r"\s*Function : (\S+)", part):
            found[architecture, match[1]] = part
    return found


def test_every_kernel_is_there_for_every_architecture(code):
    kernels = {a: {re.sub(r"_GLOBAL__N__\w*?_cu_[0-9a-f]{8}", "", name) for b, name in code if b == a} for a, _ in code}
    assert set(kernels) == ARCHITECTURES
    assert kernels["sm_80"] == kernels["sm_90"]
    assert len(kernels["sm_80"]) > 10


@pytest.mark.parametrize("kernel", MUST_CONTAIN)
def test_instructions(code, kernel):
    found = {key: text for key, text in code.items() if re.search(rf"\d{kernel}", key[1])}
    assert {architecture for architecture, _ in found} == ARCHITECTURES
    for key, text in found.items():
        for pattern in MUST_CONTAIN[kernel] + ON_ONE.get((key[0], kernel), []):
            assert re.search(pattern, text), f"{key}: no {pattern}"


def test_nothing_spills(code):
    """Local memory holds what does not fit into registers."""
    assert not [key for key, text in code.items() if re.search(r"\b(LDL|STL)\b", text)]
