"""Setup that runs other FID packages unmodified, offline, with the real weights, for tests/peers and the benchmarks.

A new machine lacks two things that ``python -m pytorch_fid`` needs:

* The weights. pytorch-fid, torchmetrics and torch-fidelity load a PyTorch state dict from torch hub's cache.
  :func:`write_checkpoints` makes this file from the tensors of fastfid. These tensors do not include the final
  classifier, so it is filled with random numbers. No FID feature depends on the classifier.
* torchvision. A CPU build may not be available, and a CUDA build cannot be imported beside a CPU torch, because its
  native operators are missing. If ``import torchvision`` fails in a new process, the operators' schemas are declared
  first (:func:`declare_torchvision_operators`), and then its Python parts work.

Use :func:`prepare` to do both for this process and, through the environment that it returns, for child processes.
"""

import contextlib
import functools
import importlib.abc
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PYTORCH_FID_FILE = "pt_inception-2015-12-05-6726825d.pth"
TORCH_FIDELITY_FILE = "weights-inception-2015-12-05-6726825d.pth"

_POOLED = "float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_SHAPE = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_ROI = f"Tensor input, Tensor rois, {_POOLED}"
_DEFORM = (
    "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, "
    "SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, "
    "bool use_mask"
)
# torchvision 0.28 attaches fake implementations and autocast rules to these names when it is imported.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({_ROI}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, {_POOLED}, {_SHAPE}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_POOLED}, {_SHAPE}) -> Tensor",
    f"ps_roi_align({_ROI}, int sampling_ratio) -> (Tensor, Tensor)",
    f"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOLED}, int sampling_ratio, {_SHAPE})"
    " -> Tensor",
    f"ps_roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_POOLED}, {_SHAPE}) -> Tensor",
    f"deform_conv2d({_DEFORM}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, {_DEFORM}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)

# The 94 convolutions in the order of the network, named as pytorch-fid and torch-fidelity name them.
_BLOCK_A = "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool"
_BLOCK_B = "branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"
_BLOCK_C = (
    "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 "
    "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5 branch_pool"
)
_BLOCK_D = "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4"
_BLOCK_E = (
    "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b "
    "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a branch3x3dbl_3b branch_pool"
)
CONVOLUTIONS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    *(f"Mixed_5{letter}.{branch}" for letter in "bcd" for branch in _BLOCK_A.split()),
    *(f"Mixed_6a.{branch}" for branch in _BLOCK_B.split()),
    *(f"Mixed_6{letter}.{branch}" for letter in "bcde" for branch in _BLOCK_C.split()),
    *(f"Mixed_7a.{branch}" for branch in _BLOCK_D.split()),
    *(f"Mixed_7{letter}.{branch}" for letter in "bc" for branch in _BLOCK_E.split()),
)


def declare_torchvision_operators() -> None:
    """Declare the schemas of torchvision's native operators, so that its Python parts can be imported without them."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for schema in _OPERATORS:
        library.define(schema)
    # The declarations last as long as this object.
    setattr(declare_torchvision_operators, "library", library)  # noqa: B010 - mypy knows no attributes of functions


class _DeclareBeforeTorchvision(importlib.abc.MetaPathFinder):
    """An import hook that declares the operators at the first import of torchvision, so that torch is loaded late."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find nothing; `fullname` "torchvision" is the signal."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            declare_torchvision_operators()
        return None


def install_torchvision_stub() -> None:
    """Make the next ``import torchvision`` in this process declare its operators first."""
    if "torchvision" not in sys.modules:
        sys.meta_path.insert(0, _DeclareBeforeTorchvision())


@functools.cache
def torchvision_needs_stub() -> bool:
    """Return whether ``import torchvision`` fails in a new process."""
    command = [sys.executable, "-c", "import torchvision"]
    return subprocess.run(command, check=False, capture_output=True).returncode != 0


def write_checkpoints(torch_home: Path) -> None:
    """Write the real weights where torch hub looks for them, under the official file names of both carriers."""
    import torch

    from fastfid.features.weights import find_weights

    tensors = iter(find_weights().tensors)
    state: dict[str, torch.Tensor] = {}
    for name in CONVOLUTIONS:
        weight, beta, mean, variance = (torch.from_numpy(next(tensors).copy()) for _ in range(4))
        state |= {
            f"{name}.conv.weight": weight,
            f"{name}.bn.weight": torch.ones_like(beta),
            f"{name}.bn.bias": beta,
            f"{name}.bn.running_mean": mean,
            f"{name}.bn.running_var": variance,
            f"{name}.bn.num_batches_tracked": torch.tensor(0),
        }
    generator = torch.Generator().manual_seed(0)
    state["fc.weight"] = 0.01 * torch.randn(1008, 2048, generator=generator)
    state["fc.bias"] = torch.zeros(1008)
    folder = torch_home / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{PYTORCH_FID_FILE}.{os.getpid()}.part"
    torch.save(state, partial)
    partial.replace(folder / PYTORCH_FID_FILE)
    with contextlib.suppress(FileExistsError):
        os.link(folder / PYTORCH_FID_FILE, folder / TORCH_FIDELITY_FILE)


def prepare(folder: Path, *, weights: bool = True) -> dict[str, str]:
    """Make the peers run in this process and in its children.

    Parameters
    ----------
    folder : Path
        A working folder. The checkpoints take 95 MB.
    weights : bool
        Whether to write the checkpoints. Pass False if only the peers' statistics are needed, or if `folder` has the
        checkpoints.

    Returns
    -------
    dict
        The environment in which ``python -m pytorch_fid`` runs unmodified. In this process, TORCH_HOME is set.
    """
    if weights:
        write_checkpoints(folder)
    os.environ["TORCH_HOME"] = str(folder)
    environment = dict(os.environ)
    if torchvision_needs_stub():
        site = folder / "site"
        site.mkdir(parents=True, exist_ok=True)
        (site / "sitecustomize.py").write_text(
            "import importlib.util as util\n\n"
            f"spec = util.spec_from_file_location('fastfid_peers', {str(Path(__file__).resolve())!r})\n"
            "module = util.module_from_spec(spec)\n"
            "spec.loader.exec_module(module)\n"
            "module.install_torchvision_stub()\n"
        )
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        install_torchvision_stub()
    return environment
