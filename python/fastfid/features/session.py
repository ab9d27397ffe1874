"""A network as a session of ONNX Runtime on one device. The only file that imports onnxruntime."""

import contextlib
import functools
import importlib.metadata
import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastfid import _core, at_exit
from fastfid._checks import check_device, current_cuda_index
from fastfid._console import warn
from fastfid.errors import BackendUnavailable
from fastfid.precisions import PRECISIONS

__all__ = [
    "CudaSettings",
    "Fixed",
    "Session",
    "Tensor",
    "UnusableGraph",
    "choose_device",
    "installed_remedy",
    "load_onnxruntime",
    "open_on",
    "runtime_facts",
    "runtime_on",
]

T = TypeVar("T")
Fixed = tuple[int, tuple[int, ...]]  # the address of a C-contiguous tensor in a device's memory, and its shape

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
        raise BackendUnavailable(f"ONNX Runtime cannot be loaded: {error}. {installed_remedy()}") from None
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


def installed_remedy() -> str:
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
        return installed_remedy()
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
            facts["onnxruntime_conflict"] = installed_remedy()
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


# ONNX Runtime's names of what runs a graph on a CUDA device.
_PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


@dataclass(frozen=True)
class CudaSettings:
    """How a network runs on a CUDA device. Users get the defaults; ``benchmarks/gpu.py`` measures the others.

    Attributes
    ----------
    provider : str
        ``"cuda"`` (cuDNN); or ``"tensorrt"``, which chooses its kernels by racing them and has no ``"float32"``:
        through ONNX Runtime its TF32 cannot be switched off.
    graph : bool
        Replay runs between fixed addresses from a CUDA graph.
    options : dict
        What ONNX Runtime's CUDA provider is told beside device, stream and TF32. An algorithm that cuDNN's rules choose
        is the same in every run.
    """

    provider: str = "cuda"
    graph: bool = False
    options: Mapping[str, str] = field(default_factory=lambda: {"cudnn_conv_algo_search": "HEURISTIC"})


def runtime_on(device: str, settings: CudaSettings) -> str:
    """Return what chooses the kernels on a CUDA device: the provider, for the card; nothing on the CPU."""
    if device == "cpu":
        return ""
    return f"{settings.provider} on {_core.cuda_device_name(int(device.removeprefix('cuda:'))) or device}"


def open_on(device: str | int, opening: Callable[[str], T], *, only_cuda: bool) -> T:
    """Return what `opening` returns for the device that is meant, ``cpu`` or ``cuda:N``.

    Where nobody asked for CUDA by name and the device cannot be used, the CPU is taken, with a warning; not so with
    `only_cuda`, where the CPU would give another number.
    """
    chosen = choose_device(device)
    try:
        return opening(chosen)
    except BackendUnavailable as error:
        if device != "auto" or chosen == "cpu" or only_cuda:
            raise
        warn(f"running on the CPU: {error}")
        return opening("cpu")


# The session's option for the folder of tensors that lie outside the model.
_FOLDER_OF_TENSORS = "session.model_external_initializers_file_folder_path"
# ONNX Runtime's exceptions that no other device would cure.
_OF_THE_GRAPH = ("InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel")


def _reason(error: Exception) -> str:
    """Return what ONNX Runtime says, without its number and the place in its source."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    return re.sub(r"^/\S+:\d+ .*?\) (?=[A-Z])", "", text)


class UnusableGraph(ValueError):
    """ONNX Runtime cannot make a graph of a model, whatever the device: it says why."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph, as the graph declares it.

    Attributes
    ----------
    name : str
    dtype : str
        ONNX Runtime's, such as ``tensor(float)``.
    shape : tuple of (int, str or None)
        A name or None is a length that is open; empty: not even the number of axes is known.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype.removeprefix('tensor')} {self.lengths}"

    @property
    def lengths(self) -> str:
        """The shape as text, such as ``(n, 3, 224, 224)``."""
        return f"({', '.join('?' if length is None else str(length) for length in self.shape)})"


class Session:
    """A graph on one device.

    Parameters
    ----------
    model : bytes
        The ONNX file.
    weights : iterable of (str, ndarray)
        The initializers that the file lacks.
    device : str
        ``cpu`` or ``cuda:N``.
    precision : str
        A key of `PRECISIONS`. On the CPU, "float16" rounds what a GPU would round, around sums in float32; "tf32" does
        nothing there.
    stream : CudaStream, optional
        The stream on that device that the session is to use. Default: one of its own, for :meth:`run` alone.
    settings : CudaSettings
    files : dict of str to bytes
        Contents of the files with tensors that `model` names. Files that are not here are not looked for.

    Attributes
    ----------
    lock : threading.Lock
        To be held around what :meth:`bind` returns, and around what reads or writes its buffers: a session on a stream
        reuses what lies between its layers, so runs must be asked for one after the other.

    Raises
    ------
    fastfid.BackendUnavailable
        ONNX Runtime cannot use the device.
    UnusableGraph
        `model` is damaged, needs what this ONNX Runtime lacks, or keeps tensors in files that `files` lacks or that are
        too short.
    """

    def __init__(
        self,
        model: bytes,
        weights: Iterable[tuple[str, NDArray[Any]]],
        device: str,
        precision: str,
        stream: "_core.CudaStream | None",
        settings: CudaSettings,
        files: Mapping[str, bytes] | None = None,
    ):
        self.device = device
        self.lock = threading.Lock()
        self._precision = precision
        self._stream = stream
        self._settings = settings
        self._has_run = False
        ort = load_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 4  # its log would precede, and repeat, our own sentence
        # A run stays in its thread and callers make several at once, one a core. Measured on 2 cores, 4 images a run:
        # 4.5 % faster than one run over both, whose threads wait for each other at the end of each layer, and nothing
        # spins that would take the processor from those that decode and resize.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # Files that the model names would be looked for in the working folder, and be in no hash of it.
        options.add_session_config_entry(_FOLDER_OF_TENSORS, os.devnull)
        if files:
            contents = list(files.values())
            options.add_external_initializers_from_files_in_memory(list(files), contents, list(map(len, contents)))
        names, values = [], []
        for name, value in weights:
            names.append(name)
            values.append(ort.OrtValue.ortvalue_from_numpy(value))
        options.add_external_initializers(names, values)
        with _calling():
            if device == "cpu":
                try:
                    self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
                except MemoryError:
                    raise
                except Exception as error:
                    raise UnusableGraph(_reason(error)) from error
            else:
                self._session = self._open_on_cuda(model, options)

    def _open_on_cuda(self, model: bytes, options: Any) -> Any:
        ort = load_onnxruntime()
        if self._settings.provider == "tensorrt":
            own = {"trt_fp16_enable": str(int(PRECISIONS[self._precision].dtype == "float16"))}
        else:
            own = {"use_tf32": str(int(PRECISIONS[self._precision].use_tf32)), **self._settings.options}
        # A handle of 0 would mean "none given": hence ours is not the default stream.
        stream = {"user_compute_stream": str(self._stream.handle)} if self._stream is not None else {}
        place = {"device_id": self.device.removeprefix("cuda:")}
        provider = (_PROVIDERS[self._settings.provider], {**place, **own, **stream})
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
            if type(error).__name__ in _OF_THE_GRAPH:
                raise UnusableGraph(_reason(error)) from error
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
            is_silent = self._settings.provider == "tensorrt" and used is None
            if used != stream["user_compute_stream"] and not is_silent:
                raise BackendUnavailable(
                    f"ONNX Runtime's {got} did not take the stream it was given (it reports {used!r}, expected"
                    f" {stream['user_compute_stream']!r}): another version of it is needed"
                )
        return session

    def __del__(self) -> None:
        # The session before the stream, which it may use once more when it ends.
        if "_session" in self.__dict__ and _calling is not None:  # None: the interpreter has taken this module apart
            with _calling():
                del self.__dict__["_session"]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors that a run takes."""
        return tuple(Tensor(x.name, x.type, tuple(x.shape)) for x in self._session.get_inputs())

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The tensors that a run can give."""
        return tuple(Tensor(x.name, x.type, tuple(x.shape)) for x in self._session.get_outputs())

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return these outputs of the graph, in their order, for inputs on the host.

        It runs outside the GIL. Several threads may call at once.

        Raises
        ------
        fastfid.BackendUnavailable
            It is the device that cannot run the graph: only a first run shows that cuDNN is missing, or that a card has
            no kernel for a layer.
        """
        try:
            with _calling():
                found: list[NDArray[Any]] = self._session.run(list(outputs), dict(inputs))
        except Exception as failure:
            # Memory that is taken by others is nothing to install.
            if self._has_run or self.device == "cpu" or "memory" in str(failure).lower():
                raise
            raise BackendUnavailable(
                f"ONNX Runtime cannot run the network on {self.device}: {failure}. {_cuda_needs('')}"
            ) from failure
        self._has_run = True
        return found

    def bind(self, inputs: Mapping[str, Fixed], outputs: Mapping[str, Fixed]) -> Callable[[], None]:
        """Return a function that runs the graph from fixed addresses to others, all in the memory of :attr:`device`.

        Parameters
        ----------
        inputs, outputs : dict of str to (address, shape)
            C-contiguous, in the dtype of the precision.

        Returns
        -------
        callable
            On a CUDA device it gives the work to the session's stream and returns.
        """
        kind, _, index = self.device.partition(":")
        place = (kind, int(index or 0), np.dtype(PRECISIONS[self._precision].dtype))
        with _calling():
            binding = self._session.io_binding()
            for name, (address, shape) in inputs.items():
                binding.bind_input(name, *place, shape, address)
            for name, (address, shape) in outputs.items():
                binding.bind_output(name, *place, shape, address)
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
