"""Coverage-guided fuzzing of all code that reads foreign bytes: ``python fuzz/readers.py TARGET --minutes 15``.

Needs atheris (``pip install atheris``). ``python fuzz/readers.py --replay`` runs the committed corpus through every
target without atheris; the tests replay the corpus too. A finding is written to ``fuzz/crashes/`` and should become a
test.

A reader may raise ValueError, TypeError, OSError, MemoryError and fastfid's own classes, and the message must name the
file. Every other exception, and every crash, hang or gigabyte of memory, is a finding.
"""

import argparse
import gc
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
CRASHES = HERE / "crashes"
MAX_PIXELS = 20_000
MAX_BYTES = 1 << 16
# The Python code that reads the bytes, and not all that is imported: atheris takes about 4 ms for each function, and
# pandas alone, which pyarrow imports, has 7,000.
INSTRUMENTED = (
    "fastfid",
    "PIL",
    "zipfile",
    "tarfile",
    "pickle",
    "pickletools",
    "json",
    "csv",
    "ast",
    "gzip",
    "numpy.lib.format",
    "numpy.lib.npyio",
    "numpy.lib._format_impl",
    "numpy.lib._npyio_impl",
)


@contextmanager
def file_of(data: bytes, suffix: str) -> Iterator[str]:
    """Put the bytes into a file in memory."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.NamedTemporaryFile(suffix=suffix, dir=folder) as file:
        file.write(data)
        file.flush()
        yield file.name


def expected(error: BaseException, name: str) -> bool:
    """Whether a reader may end with this error; every error except OSError must name the file."""
    from fastfid import NumericalError, WeightsError

    if isinstance(error, OSError):
        return True
    return isinstance(error, ValueError | TypeError | MemoryError | WeightsError | NumericalError) and name in str(
        error
    )


def read(data: bytes, suffix: str) -> None:
    """Open the bytes as a source, with its labels and without, and decode every image of the source."""
    from fastfid.sources import is_statistics_file, open_source

    with file_of(data, suffix) as path:
        is_statistics_file(path)
        for labels in ("auto", None):
            try:
                for item in open_source(path, max_pixels=MAX_PIXELS, labels=labels):
                    try:
                        item.load()
                    except Exception as error:
                        if not expected(error, path):
                            raise
            except Exception as error:
                if not expected(error, path):
                    raise


def statistics(data: bytes) -> None:
    """Load the bytes as statistics."""
    from fastfid import Statistics

    with file_of(data, ".npz") as path:
        try:
            Statistics.load(path)
        except Exception as error:
            if not expected(error, path):
                raise
    read(data, ".npz")


def picture(data: bytes) -> None:
    """Decode the bytes as a picture in every supported way."""
    from fastfid.errors import ImageError
    from fastfid.sources.picture import Decoder

    for options in ({}, {"alpha": True, "exif": True}):
        try:
            image = Decoder(max_pixels=MAX_PIXELS, **options).decode_bytes(data, "the picture")
        except ImageError as error:
            if not str(error).startswith("the picture: "):
                raise
        else:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise AssertionError(f"{image.dtype} {image.shape}")


def weights(data: bytes) -> None:
    """Read the bytes as a carrier of weights."""
    from fastfid import WeightsError
    from fastfid.features.weights import find_weights

    with file_of(data, ".pth") as path:
        try:
            find_weights(path)
        except WeightsError as error:
            if path not in str(error):
                raise


def checkpoint(data: bytes) -> None:
    """Read the bytes as a checkpoint, and every tensor of it."""
    from fastfid.features.known.checkpoint import read_checkpoint

    with file_of(data, ".safetensors") as path:
        try:
            found = read_checkpoint(path)
            for name in found:
                try:
                    found[name]
                except ValueError as error:
                    if path not in str(error):
                        raise
        except ValueError as error:
            if path not in str(error):
                raise


def _value(take: Callable[[int], bytes], kind: int, like: Any) -> Any:
    """Return a replacement for one entry of a state."""
    number = int.from_bytes(take(8), "little", signed=True)
    if kind == 0:
        return number
    if kind == 1:
        return number % 7 - 2
    if kind == 2 and isinstance(like, list) and like:
        changed = list(like)
        changed[number % len(changed)] = int.from_bytes(take(8), "little", signed=True)
        return changed
    if kind == 3 and isinstance(like, np.ndarray):
        shape = tuple(take(1)[0] % 6 for _ in range(take(1)[0] % 4))
        return np.zeros(shape, like.dtype)
    if kind == 4 and isinstance(like, np.ndarray):
        return like.astype(["float32", "float64", "int64", "uint8", "O"][number % 5])
    if kind == 5 and isinstance(like, np.ndarray) and like.ndim:
        return like[..., ::-1]
    return [None, True, "x", [], {}, np.nan, 2**63, -(2**63), 1.5][number % 9]


def state_dict(data: bytes) -> None:
    """Load a valid state in which the bytes have changed some entries."""
    from fastfid import FID, Moments

    stream = io.BytesIO(data)

    def take(n: int) -> bytes:
        return stream.read(n).ljust(n, b"\0")

    rng = np.random.default_rng(take(1)[0])
    d = 4 + take(1)[0] % 3
    moments = Moments(d)
    moments.update(rng.random((take(1)[0] % 40, d)))
    state = {"groups": 0} | moments.state()  # as earlier versions wrote it
    for _ in range(1 + take(1)[0] % 4):
        key = sorted(state)[take(1)[0] % len(state)]
        choice = take(1)[0] % 8
        if choice == 7:
            del state[key]
            if not state:
                break
        else:
            state[key] = _value(take, choice, state[key])
    provenance: Any = [{"protocol": "pytorch-fid", "precision": "float32", "dims": 64}, None, [], {}][take(1)[0] % 4]
    for load in (
        Moments.from_state,
        lambda s: FID(dims=64).load_state_dict({"provenance": provenance, "real": s, "fake": s}),
    ):
        try:
            loaded = load(dict(state))
        except (ValueError, TypeError, MemoryError):
            continue
        if loaded is not None:
            loaded.update(rng.random((3, loaded.d)))
            if loaded.n > 1:
                loaded.covariance()


def spec(data: bytes) -> None:
    """Read the bytes as the JSON file of an input spec."""
    from fastfid import InputSpec

    with file_of(data, ".json") as path:
        try:
            InputSpec.load(path)
        except Exception as error:
            if not expected(error, path):
                raise


def onnx_tensors(data: bytes) -> None:
    """Search the bytes of an ONNX file for the files with tensors that it names."""
    from fastfid.features.onnx_file import tensor_files

    tensor_files(data)


def plan(data: bytes) -> None:
    """Read the bytes as the plan of a run directory."""
    from fastfid.scale.plan import Plan

    with file_of(data, ".json") as path:
        try:
            Plan.load(Path(path))
        except Exception as error:
            if not expected(error, path):
                raise


def part(data: bytes) -> None:
    """Read the bytes as a Part of a run directory."""
    from fastfid.scale.part import Part

    with file_of(data, ".npz") as path:
        try:
            Part.load(Path(path), task_of_seeds())
        except Exception as error:
            if not expected(error, path):
                raise


def part_meta(data: bytes) -> None:
    """Read the bytes as the JSON of a Part whose arrays are sound: a changed byte in an archive fails its checksum."""
    from fastfid.scale.part import Part

    with file_of(b"", ".npz") as path:
        np.savez(path, meta=np.array(data.decode(errors="replace").rstrip("\0")), **arrays_of_seeds())
        try:
            found = Part.load(Path(path), task_of_seeds())
        except Exception as error:
            if not expected(error, path):
                raise
        else:
            assert (found.n, len(found.census().state())) == (3, len(arrays_of_seeds()) - 3)
            assert all(map(str, (found.digest, found.runtimes, found.labels)))


def task_of_seeds() -> Any:
    """Return the task whose Parts the seeds are."""
    from fastfid.scale.plan import Task

    return Task("real", 0, 3, None, "files", "key")


def arrays_of_seeds() -> dict[str, Any]:
    """Return the arrays of a Part of that task."""
    from fastfid.mistakes import Census

    rows = {"rows/features": np.ones((3, 4), np.float32)}
    return rows | {"indices": np.arange(3), "skipped_at": np.empty(0, int)} | Census().state()


def labels(name: str, data: bytes) -> None:
    """Read the bytes as a file of labels of two pictures, beside them in a folder."""
    from fastfid.sources import open_source

    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for picture in ("a.png", "b.png"):
            Path(folder, picture).touch()  # their content is not read
        path = Path(folder, name)
        path.write_bytes(data)
        try:
            open_source(folder, labels="auto" if name == "dataset.json" else str(path))
        except Exception as error:
            if not expected(error, folder):
                raise


def records(data: bytes) -> None:
    """Read the bytes as records of comparisons, and compare them with two sound ones."""
    from fastfid import compare_records
    from fastfid.evaluation.stored import read_records

    with file_of(data, ".jsonl") as path, file_of(sound_records(), ".jsonl") as sound:
        for use in (lambda: read_records(path), lambda: compare_records([sound, path])):
            try:
                use()
            except Exception as error:
                if not expected(error, path):
                    raise


@cache
def sound_records() -> bytes:
    """Return two records of FIDs with standard errors, a line each."""
    from fastfid import Statistics, compute_fid

    rng = np.random.default_rng(0)
    sides = [Statistics.from_features(rng.normal(size=(20, 3)), {"protocol": "clean"}) for _ in range(3)]
    found = [compute_fid(sides[0], fake, return_info=True) for fake in sides[1:]]
    return "\n".join(
        json.dumps({**one, "real": "r", "fake": name}) for name, one in zip("ab", found, strict=True)
    ).encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "npz": statistics,
    "npy": lambda data: read(data, ".npy"),
    "tar": lambda data: read(data, ".tar"),
    "zip": lambda data: read(data, ".zip"),
    "parquet": lambda data: read(data, ".parquet"),
    "weights": weights,
    "checkpoint": checkpoint,
    "state_dict": state_dict,
    "picture": picture,
    "spec": spec,
    "onnx_tensors": onnx_tensors,
    "plan": plan,
    "part": part,
    "part_meta": part_meta,
    "records": records,
    "dataset_json": lambda data: labels("dataset.json", data),
    "labels_csv": lambda data: labels("labels.csv", data),
}


def seeds(target: str) -> dict[str, bytes]:
    """Return small valid inputs by name; the corpus begins with them."""
    image = Image.fromarray(np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3))

    def encoded(form: str, mode: str = "RGB", **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, form, **options)
        return buffer.getvalue()

    found: dict[str, bytes] = {}
    buffer = io.BytesIO()
    if target == "picture":
        forms = (
            "PNG",
            "JPEG",
            "WEBP",
            "BMP",
            "PPM",
            "TIFF",
            "GIF",
            "AVIF",
            "JPEG2000",
            "QOI",
            "DIB",
            "PCX",
            "SGI",
            "TGA",
        )
        found = {form: encoded(form) for form in forms}
        found |= {f"PNG-{mode}": encoded("PNG", mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")}
        found |= {f"TIFF-{name}": encoded("TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg")}
        found["TIFF-F"] = encoded("TIFF", "F")
        found["WEBP-frames"] = encoded("WEBP", save_all=True, append_images=[image, image])
    elif target == "npz":
        np.savez(buffer, mu=np.zeros(2), sigma=np.eye(2), n=3, meta=np.array('{"protocol": "clean"}'))
        found["statistics"] = buffer.getvalue()
        buffer = io.BytesIO()
        np.savez(buffer, mu=np.zeros(2), sigma=np.eye(2), mu_s=np.zeros(3), sigma_s=np.eye(3))
        found["spatial"] = buffer.getvalue()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, np.zeros((2, 5, 4, 3), np.uint8), np.arange(2))
        found["images"] = buffer.getvalue()
    elif target == "npy":
        np.save(buffer, np.zeros((2, 5, 4, 3), np.uint8))
        found["images"] = buffer.getvalue()
    elif target == "zip":
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", method) as archive:
                archive.writestr("a/x.png", encoded("PNG"))
                archive.writestr("y.txt", b"text")
                archive.writestr("dataset.json", b'{"labels": [["a/x.png", [0, 1]]]}')
            found[f"method-{method}"] = buffer.getvalue()
    elif target == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [{"bytes": encoded("PNG"), "path": "a.png"}, {"bytes": encoded("JPEG"), "path": None}]
        for method in ("none", "snappy", "gzip", "zstd"):
            buffer = io.BytesIO()
            pq.write_table(pa.table({"image": rows, "label": [1, 0]}), buffer, compression=method)
            found[method] = buffer.getvalue()
    elif target == "tar":
        for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            for mode in ("w", "w:gz", "w:xz"):
                buffer = io.BytesIO()
                with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:
                    for name in ("x.png", "long/" * 30 + "é.png"):
                        member = tarfile.TarInfo(name)
                        member.size = len(encoded("PNG"))
                        archive.addfile(member, io.BytesIO(encoded("PNG")))
                        beside = tarfile.TarInfo(name.replace("png", "cls" if form == tarfile.PAX_FORMAT else "json"))
                        text = b"12345678901" if form == tarfile.PAX_FORMAT else b'{"label": 3}'
                        beside.size = len(text)
                        archive.addfile(beside, io.BytesIO(text))
                found[f"{form}-{mode.replace(':', '-')}"] = buffer.getvalue()
    elif target in ("weights", "checkpoint"):
        found["dict"] = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s."
        found["tensor"] = (
            b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\nq\x02"
            b"((X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
            b"K\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs."
        )
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", found["tensor"])
            archive.writestr("archive/data/0", bytes(8))
        found["zip"] = buffer.getvalue()
        if target == "checkpoint":
            header = b'{"a": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}}'
            found["safetensors"] = len(header).to_bytes(8, "little") + header + bytes(4)
    elif target == "spec":
        found["every key"] = (
            b'{"size": [24, 32], "resize": "shorter", "filter": "bicubic", "antialias": true, "rounding": "clip",'
            b' "crop": "center", "mean": [0.5, 0, 1], "std": [1, 2.5, 3e-1], "layout": "nhwc", "channels": "bgr",'
            b' "shorter_side": 40, "output": "y", "select": "token:3", "post": "l2"}'
        )
    elif target == "plan":
        side = (
            b'{"name": "a", "n": 40, "images": 32, "level": null, "sample_below": 0, "files": ["x", "y"],'
            b' "remote": {"https://a/x.tar": [3, "etag"]}}'
        )
        found["one side"] = b'{"schema": 3, "decides": {"dims": 4}, "sides": {"real": %s}, "request": null}' % side
    elif target == "part":
        from fastfid.scale.part import Part

        path = Path(tempfile.mkdtemp()) / "part.npz"
        Part(task_of_seeds().key, 3, [("b.png", "is empty")], arrays_of_seeds()).save(path)
        found["rows"] = path.read_bytes()
    elif target == "part_meta":
        with np.load(io.BytesIO(seeds("part")["rows"])) as archive:
            found["rows"] = str(archive["meta"]).encode()
    elif target == "records":
        found["lines"] = sound_records()
        found["list"] = b"[" + sound_records().replace(b"\n", b",") + b"]"
    elif target == "dataset_json":
        found["numbers"] = b'{"labels": [["b.png", 6], ["a.png", 5]]}'
        found["one-hot"] = b'[["b.png", [0, 1]], ["a.png", [1, 0]]]'
        found["null"] = b'{"labels": null}'
    elif target == "labels_csv":
        found["names"] = 'name,label\na.png,cat\nb.png,"dog ""é"""\n'.encode()
        found["numbers"] = b"\xef\xbb\xbflabel;x,label,name\r\n,3,b.png\r\n0,2,a.png\r\n\r\nx,1,c.png\r\n"
    elif target == "onnx_tensors":
        entry = b"\x0a\x08location\x12\x05t.bin"
        tensor = b"\x42\x01w\x6a" + bytes([len(entry)]) + entry + b"\x70\x01"
        graph = b"\x2a" + bytes([len(tensor)]) + tensor
        found["model"] = b"\x08\x08\x3a" + bytes([len(graph)]) + graph
    else:
        found = {f"seed-{i}": np.random.default_rng(i).bytes(60) for i in range(4)}
    return found


def inputs(target: str) -> Iterator[tuple[str, bytes]]:
    """Yield the seeds and the committed corpus of a target."""
    yield from seeds(target).items()
    for path in sorted((CORPUS / target).glob("*")) if (CORPUS / target).is_dir() else ():
        yield path.name, path.read_bytes()


def replay(target: str) -> int:
    """Run the seeds and the corpus once; return the number of inputs."""
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _, data in inputs(target):
            TARGETS[target](data)
            count += 1
    return count


def fuzz(target: str, minutes: float) -> int:
    """Fuzz in a new process, and print the outcome; return the exit code of the process."""
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-"))
    for name, data in inputs(target):
        (corpus / name).write_bytes(data)
    CRASHES.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--inside", target, str(corpus), f"-max_total_time={round(minutes * 60)}"]
    command += [f"-max_len={MAX_BYTES}", "-rss_limit_mb=3000", "-timeout=20", f"-artifact_prefix={CRASHES}/{target}-"]
    done = subprocess.run([*command, "-print_final_stats=1"], stderr=subprocess.PIPE, text=True, check=False)
    lines = done.stderr.splitlines()
    runs = next((line.split()[-1] for line in lines if "number_of_executed_units" in line), "?")
    found = sorted(path.name for path in CRASHES.glob(f"{target}-*"))
    print(
        f"{target}: {runs} runs in {minutes:g} minutes, {len(list(corpus.iterdir()))} inputs in its corpus,"
        f" findings: {', '.join(found) or 'none'}; exit code {done.returncode}; corpus in {corpus}",
        flush=True,
    )
    if done.returncode != 0:
        print("\n".join(lines[-40:]))
    return done.returncode


def functions_of(modules: Sequence[str]) -> list[types.FunctionType]:
    """Return all functions and methods of these modules, and of modules below them, that are imported."""
    below = tuple(f"{name}." for name in modules)
    # gc knows the functions; most other objects have no such attribute, and proxies may raise when they are asked.
    functions = [one for one in gc.get_objects() if type(one) is types.FunctionType]
    return [one for one in functions if f"{one.__module__}.".startswith(below)]


def inside(target: str, arguments: list[str]) -> None:
    """Fuzz in this process."""
    import atheris

    os.environ["ORT_DISABLE_TELEMETRY"] = "1"

    Image.init()
    warnings.simplefilter("ignore")
    # Else nearly every change inside an archive ends at its checksum.
    zipfile.ZipExtFile._update_crc = lambda *_: None  # type: ignore[attr-defined]
    for data in seeds(target).values():
        TARGETS[target](data)  # imports what reads the bytes: only what is there is instrumented
    for function in functions_of(INSTRUMENTED):
        atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


def main() -> int:
    """Return 0, or 1 where there is a finding."""
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("target", nargs="*", choices=[*TARGETS, []], help="default: all, one after the other")
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target; default: 1")
    parser.add_argument("--replay", action="store_true", help="run the committed corpus once, without atheris")
    options = parser.parse_args()
    targets = options.target or list(TARGETS)
    if options.replay:
        print("\n".join(f"{target}: {replay(target)} inputs" for target in targets))
        return 0
    return max(fuzz(target, options.minutes) != 0 for target in targets)


if __name__ == "__main__":
    sys.exit(main())
