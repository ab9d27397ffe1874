"""The Inception network on ONNX Runtime. The only file that imports onnxruntime."""

import contextlib
import functools
import importlib.metadata
import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid import _core, at_exit
from fastfid._checks import check_device, current_cuda_index
from fastfid._console import warn
from fastfid.errors import BackendUnavailable, WeightsError
from fastfid.features.weights import Weights, convolutions
from fastfid.precisions import PRECISIONS

__all__ = [
    "CUDA_OPTIONS",
    "PROVIDERS",
    "SKELETON_DTYPES",
    "Network",
    "check_cuda_graph",
    "check_provider",
    "choose_device",
    "fingerprint_input",
    "load_onnxruntime",
    "runtime_facts",
    "skeleton_name",
]

BATCH_NORM_EPSILON = 1e-3


# What the CUDA provider is told beside device, stream and TF32; benchmarks/gpu.py measures others. An algorithm that
# cuDNN's rules choose is the same in every run. (ONNX Runtime's default raced them before cuDNN 9.)
CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC"}

SKELETON_DTYPES = tuple(sorted({precision.dtype for precision in PRECISIONS.values()}, reverse=True))


def skeleton_name(dims: int, dtype: str) -> str:
    """Return the file that holds the graph up to the layer of width `dims`, whose numbers are of type `dtype`."""
    return f"inception-{dims}.onnx" if dtype == "float32" else f"inception-{dims}-{dtype}.onnx"


def _skeletons() -> Any:
    return resources.files("fastfid.features") / "skeletons"


_CUDA_EXTRA = "pip install '.[cuda]' in fastfid's source folder"

# ONNX Runtime reads it once, when it is loaded.
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_MEANS_YES = ("1", "true", "yes", "on", "y")
_MEANS_NO = ("0", "false", "no", "off", "n")  # what a user who wants the telemetry sets


@functools.cache
def load_onnxruntime() -> Any:
    """Import ONNX Runtime, with its telemetry off; BackendUnavailable with the remedy where that fails."""
    value = os.environ.get(_NO_TELEMETRY, "").lower()
    if "onnxruntime" in sys.modules:
        if value not in _MEANS_YES and not os.environ.get("CI"):  # in CI it is silent by itself
            warn(
                "onnxruntime was imported before fastfid needed it, with its telemetry on: it writes to the home folder"
                f" and may send usage data. Set {_NO_TELEMETRY}=1 before that import"
            )
    else:
        # Since 1.29 it is on by default on Linux, where CI is not set: a device id and a database in the home folder,
        # a connection to a collector, and threads that hang a forked child.
        if value not in (*_MEANS_YES, *_MEANS_NO):
            os.environ[_NO_TELEMETRY] = "1"
    try:
        import onnxruntime

        # An overwritten installation can import as an empty package.
        onnxruntime.InferenceSession  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise BackendUnavailable(f"ONNX Runtime cannot be loaded: {error}. {_remedy()}") from None
    return onnxruntime


@contextlib.contextmanager
def _calling() -> Iterator[None]:
    """Hold what a call of ONNX Runtime needs.

    The interpreter ends after it. This thread's current CUDA device is left as it was: ONNX Runtime sets its own and
    does not go back.
    """
    with at_exit.awaited():
        before = _core.current_cuda_context()
        try:
            yield
        finally:
            _core.set_current_cuda_context(before)


def _installed() -> dict[str, str]:
    """Return the versions of the ONNX Runtime distributions in this environment."""
    versions = {}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _remedy() -> str:
    """Return what to install, in a sentence."""
    if len(_installed()) == 2:
        return (
            "onnxruntime and onnxruntime-gpu are both installed and have overwritten each other's files; mend it with:"
            " pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        )
    return "Reinstall it: pip install --force-reinstall onnxruntime-gpu (or onnxruntime where that does not exist)"


def _cuda_needs(findings: str) -> str:
    """Return why a CUDA session fell back to the CPU; `findings` is what the search for libraries printed."""
    installed = _installed()
    if len(installed) == 2:
        return _remedy()
    if "onnxruntime-gpu" not in installed:
        return f"pip uninstall -y onnxruntime; {_CUDA_EXTRA}"
    missing = ", ".join(re.findall(r"Failed to load (\S+):", findings)) or "see its documentation for what it needs"
    return f"it needs CUDA 13 and cuDNN 9 (missing: {missing}); {_CUDA_EXTRA}"


def runtime_facts() -> dict[str, str]:
    """Return what ``fastfid info`` says of ONNX Runtime: version, providers, a broken installation."""
    installed = _installed()
    facts = {"onnxruntime": ", ".join(f"{name} {version}" for name, version in installed.items()) or "not installed"}
    try:
        facts["onnxruntime_providers"] = ", ".join(load_onnxruntime().get_available_providers())
    except BackendUnavailable as error:
        facts["onnxruntime_providers"] = str(error)
    else:
        if len(installed) == 2:
            facts["onnxruntime_conflict"] = _remedy()
    return facts


def choose_device(device: str | int) -> str:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into ``cpu`` or ``cuda:N``; the CUDA driver is asked for devices.

    Raises
    ------
    ValueError
        `device` is none of these.
    fastfid.BackendUnavailable
        CUDA is asked for and the driver has no such device.
    """
    device = check_device(device)
    if device == "cpu":
        return device
    # ONNX Runtime names its CUDA provider on machines without a GPU too, so the driver is asked.
    devices, reason = _core.cuda_driver()
    if devices == 0:
        if device == "auto":
            return "cpu"
        raise BackendUnavailable(f"device {device!r}: there is no CUDA device: {reason}. Use device 'cpu'")
    if device in ("auto", "cuda"):
        return f"cuda:{current_cuda_index(devices)}"
    index = int(device.partition(":")[2])
    if index >= devices:
        raise BackendUnavailable(f"device {device!r}: the driver has {devices} CUDA device(s), 0 to {devices - 1}")
    return f"cuda:{index}"


# ONNX Runtime's names of what runs the graph on a CUDA device.
PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


def check_provider(provider: str, precision: str, device: str) -> None:
    """Refuse an unknown provider, and TensorRT on the CPU or in a precision that it does not keep to.

    Raises
    ------
    ValueError
        It is not in `PROVIDERS`; or it is "tensorrt", and the device the CPU or the precision "float32".
    """
    if not isinstance(provider, str) or provider not in PROVIDERS:
        raise ValueError(f"provider: expected one of {', '.join(PROVIDERS)}; got {provider!r}")
    if provider == "tensorrt" and device == "cpu":
        raise ValueError("provider: 'tensorrt' needs a CUDA device, got device 'cpu'")
    if provider == "tensorrt" and precision == "float32":
        # Through ONNX Runtime its TF32 cannot be switched off.
        raise ValueError("provider: 'tensorrt' has no 'float32'; expected precision 'tf32' or 'float16'")


def check_cuda_graph(cuda_graph: bool, provider: str, device: str) -> None:
    """Refuse a CUDA graph on the CPU, and of TensorRT, which has its own.

    Raises
    ------
    ValueError
        One of the two.
    """
    if cuda_graph and device == "cpu":
        raise ValueError("cuda_graph: needs a CUDA device, got device 'cpu'")
    if cuda_graph and provider != "cuda":
        raise ValueError(f"cuda_graph: is for provider 'cuda', got {provider!r}")


def _fold_batch_norm(
    tensors: tuple[NDArray[np.float32], ...], dtype: str = "float32"
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return weight and bias of the convolution that does what a convolution and its batch norm do.

    ``gamma (conv(x) - mean) / sqrt(var + eps) + beta`` with gamma = 1, folded in float64 and rounded once, to `dtype`.
    """
    weight, beta, mean, var = (tensor.astype(np.float64) for tensor in tensors)
    scale = 1 / np.sqrt(var + BATCH_NORM_EPSILON)
    return (weight * scale[:, None, None, None]).astype(dtype), (beta - mean * scale).astype(dtype)


def fingerprint_input() -> NDArray[np.float32]:
    """Return the fixed input, float32 (1, 3, 299, 299): smooth waves with fine noise, from integer arithmetic only."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(299), np.arange(299), indexing="ij")
    # A quadratic in three variables modulo a prime: as good as noise here, and the same on every machine.
    noise = (7919 * x * x + 104729 * y * y + 15485863 * x * y + 32452843 * c * (x + 2 * y) + 17 * c) % 251
    waves = np.abs((x * (c + 2) + 3 * y) % 400 - 200) + np.abs((2 * x + y * (3 - c)) % 300 - 150)
    grey = (noise * 96 // 251 + waves * 160 // 350).astype(np.float32)
    image: NDArray[np.float32] = (grey - 128) / 128
    return image[None]


class Network:
    """The network up to one feature map, as an ONNX Runtime session that has proved itself on the fingerprint.

    Parameters
    ----------
    dims : int
        64, 192, 768 or 2048.
    weights : Weights
        The verified weights.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    precision : str
        A key of `PRECISIONS`. On the CPU, "float16" rounds what a GPU would round, around sums in float32: that is how
        its error is measured and tested without a GPU; "tf32" does nothing there.
    provider : str
        A key of `PROVIDERS`: what runs the graph on a CUDA device.
    cuda_graph : bool
        Whether runs between fixed addresses are to be replayed from a CUDA graph: of concern to who makes them.
    stream : CudaStream, optional
        The stream on that device that the session is to use. Default: one of its own, for :meth:`features` alone.

    Attributes
    ----------
    device : str
        ``cpu`` or ``cuda:N``, where it runs.
    dtype : str
        Of the image and the map: ``float32`` or ``float16``.
    lock : threading.Lock
        To be held around what :meth:`bind` returns, and around what reads or writes its buffers: a session on a stream
        reuses what lies between its layers, so runs must be asked for one after the other.

    Raises
    ------
    fastfid.BackendUnavailable
        The device does not exist, or ONNX Runtime cannot use it.
    fastfid.WeightsError
        The session does not reproduce the fingerprint.
    """

    def __init__(
        self,
        dims: int,
        weights: Weights,
        device: str | int = "auto",
        precision: str = "float32",
        stream: "_core.CudaStream | None" = None,
        provider: str = "cuda",
        cuda_graph: bool = False,
    ):
        self.dims = dims
        self.cuda_graph = cuda_graph
        self.precision = precision
        self.dtype = PRECISIONS[precision].dtype
        self.lock = threading.Lock()
        self._stream = stream
        self._provider = provider
        self.device = choose_device(device)
        try:
            self._open(weights)
        except BackendUnavailable as error:
            # Nor has the CPU another precision than float32.
            is_for_cuda = precision != "float32" or provider != "cuda" or cuda_graph
            if device != "auto" or self.device == "cpu" or is_for_cuda:
                raise
            # Nobody asked for CUDA by name: the CPU gives the same number, and the warning says what was missed.
            warn(f"running on the CPU: {error}")
            self.device = "cpu"
            self._open(weights)

    def _open(self, weights: Weights) -> None:
        ort = load_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its log would precede, and repeat, our own sentence
        # A run stays in its thread and callers make several at once, one a core. Measured on 2 cores, 4 images a run:
        # 4.5 % faster than one run over both, whose threads wait for each other at the end of each layer, and nothing
        # spins that would take the processor from those that decode and resize.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        names, values = [], []
        for k, layer in enumerate(convolutions()):
            if layer.dims > self.dims:  # the skeleton ends before it
                break
            for part, value in zip(
                ("weight", "bias"), _fold_batch_norm(weights.tensors[4 * k : 4 * k + 4], self.dtype), strict=True
            ):
                names.append(f"{layer.name}.conv.{part}")
                values.append(ort.OrtValue.ortvalue_from_numpy(value))
        options.add_external_initializers(names, values)

        model = (_skeletons() / skeleton_name(self.dims, self.dtype)).read_bytes()
        with _calling():
            if self.device == "cpu":
                self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            else:
                self._session = self._cuda_session(model, options)
        self._check_fingerprint()

    def _cuda_session(self, model: bytes, options: Any) -> Any:
        ort = load_onnxruntime()
        if self._provider == "tensorrt":
            own = {"trt_fp16_enable": str(int(self.dtype == "float16"))}
        else:
            own = {"use_tf32": str(int(PRECISIONS[self.precision].use_tf32)), **CUDA_OPTIONS}
        # A handle of 0 would mean "none given": hence ours is not the default stream.
        stream = {"user_compute_stream": str(self._stream.handle)} if self._stream is not None else {}
        place = {"device_id": self.device.removeprefix("cuda:")}
        provider = (PROVIDERS[self._provider], {**place, **own, **stream})
        findings = io.StringIO()
        # preload_dlls loads cuBLAS and cuDNN out of the nvidia-* wheels, and prints what it misses to standard output,
        # which belongs to the result. The log of a provider that cannot be loaded is not the session's own.
        with contextlib.redirect_stdout(findings):
            ort.preload_dlls()
        ort.set_default_logger_severity(4)
        try:
            # Without its fallback: it would print to standard output and go on with the CPU, at any later run too.
            session = ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)
        except Exception as error:
            raise BackendUnavailable(f"ONNX Runtime cannot open a session on {self.device}: {error}") from error
        finally:
            ort.set_default_logger_severity(2)  # its own default: warnings
        # A session whose provider cannot be loaded silently runs on the CPU.
        got = session.get_providers()[0]
        if got != provider[0]:
            raise BackendUnavailable(
                f"ONNX Runtime cannot use {self.device} (its session runs on {got}): {_cuda_needs(findings.getvalue())}"
            )
        if self._stream is not None:
            # On another stream its runs would not be ordered with what we do on ours, and numbers would be wrong.
            used = session.get_provider_options()[got].get("user_compute_stream")
            # TensorRT's provider does not say.
            is_silent = self._provider == "tensorrt" and used is None
            if used != stream["user_compute_stream"] and not is_silent:
                raise BackendUnavailable(
                    f"ONNX Runtime's {got} did not take the stream it was given (it reports {used!r}, expected"
                    f" {stream['user_compute_stream']!r}): another version of it is needed"
                )
        return session

    def __del__(self) -> None:
        # The session before the stream, which it may use once more when it ends.
        if "_session" in self.__dict__:
            with _calling():
                del self.__dict__["_session"]

    def _check_fingerprint(self) -> None:
        with (_skeletons() / "fingerprint.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            expected = stored[str(self.dims)]
        try:
            features = self.features(fingerprint_input())[0]
        except Exception as failure:
            # Memory that is taken by others is nothing to install.
            if self.device == "cpu" or "memory" in str(failure).lower():
                raise
            # The first run is where a missing cuDNN shows, or a card that has no kernel for a layer.
            raise BackendUnavailable(
                f"ONNX Runtime cannot run the network on {self.device}: {failure}. {_cuda_needs('')}"
            ) from failure
        error = float(np.max(np.abs(features - expected)))
        tolerance = PRECISIONS[self.precision].tolerance
        if not error <= tolerance:
            remedy = _remedy() if self.device == "cpu" else f"It may compute in another arithmetic. {_remedy()}"
            raise WeightsError(
                f"the network on {self.device} does not reproduce the stored features of the fixed input in"
                f" {self.precision}: it is off by {error:.3g}, at most {tolerance:g} is accepted. {remedy}"
            )

    def features(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the features (n, dims) of network inputs (n, 3, h, w), h and w at least 75.

        The session runs outside the GIL. Several threads may call at once.
        """
        image = batch.astype(self.dtype, copy=False)
        # A float16 map is widened: float16 has no spatial mean of its own, and every one of its values is a float32.
        with _calling():
            map = self._session.run(None, {"image": image})[0]
        return _core.spatial_mean(map.astype(np.float32, copy=False))

    def map_shape(self, shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """Return the shape of the map (n, dims, h', w') of inputs of `shape` (n, 3, h, w)."""
        n, _, h, w = shape
        return n, self.dims, _map_length(self.dims, h), _map_length(self.dims, w)

    def bind(self, image: int, shape: tuple[int, int, int, int], map: int) -> Callable[[], None]:
        """Return a function that runs the network from one fixed address to another.

        Parameters
        ----------
        image : int
            Address of the inputs, of :attr:`dtype`, C-contiguous, in the memory of :attr:`device`.
        shape : tuple
            Theirs: (n, 3, h, w), h and w at least 75.
        map : int
            Address of the map, of :attr:`dtype` and of the shape that :meth:`map_shape` says.

        Returns
        -------
        callable
            On a CUDA device it gives the work to the session's stream and returns.
        """
        kind, _, index = self.device.partition(":")
        place = (kind, int(index or 0), np.dtype(self.dtype))
        with _calling():
            binding = self._session.io_binding()
            binding.bind_input("image", *place, shape, image)
            binding.bind_output("map", *place, self.map_shape(shape), map)
        # The binding holds the session, which may hence end with it, after this object: the stream must still be there.
        # An object's attributes end in the order in which they were set.
        binding.stream = self._stream
        options = load_onnxruntime().RunOptions()
        # Else every run ends by waiting for the stream.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")

        def run() -> None:
            with _calling():
                self._session.run_with_iobinding(binding, options)

        return run


def _map_length(dims: int, length: int) -> int:
    """Return the height or width of the map that an input of height or width `length` gives."""

    def halved(x: int) -> int:  # by 3 x 3 with stride 2, no padding
        return (x - 3) // 2 + 1

    length = halved(halved(length) - 2)
    if dims >= 192:
        length = halved(length - 2)
    if dims >= 768:
        length = halved(length)
    if dims >= 2048:
        length = halved(length)
    return length
