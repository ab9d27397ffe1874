"""Files in S3: the server process of moto, by s3fs; and a proxy before it that counts bytes and cuts connections.

``bash tools/remote_s3.sh`` runs these tests, in an environment of their own; ``python -m pytest`` has none of them.
"""

import io
import os
import select
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import boto3
import numpy as np
import pytest
import s3fs
from remote_files import IMAGES, SOURCES, encoded, files, pictures
from stubs import GridMeans

from fastfid import Statistics, _remote, cli, compute_statistics, evaluate
from fastfid.evaluation import steps
from fastfid.sources import open_source


class Proxy:
    """Passes bytes on to a port. It counts those that come back, and cuts connections after so many of them."""

    def __init__(self, port):
        self.target = port
        self.received = 0
        self.cuts = 0  # how many connections are still cut
        self.cut_after = 0  # bytes that come back before that
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client):
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            with server:
                came = 0
                while True:
                    for ready in select.select([client, server], [], [])[0]:
                        try:
                            data = ready.recv(2**16)
                        except OSError:
                            return
                        if not data:
                            return
                        if ready is client:
                            server.sendall(data)
                            continue
                        self.received += len(data)
                        if self.cuts and came + len(data) > self.cut_after:
                            self.cuts -= 1
                            client.sendall(data[: max(0, self.cut_after - came)])
                            return
                        came += len(data)
                        client.sendall(data)

    def close(self):
        self._listener.close()


class Moto:
    """The server process, with a bucket that holds every format."""

    def __init__(self, port):
        self.port = port
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
        self.client.create_bucket(Bucket="bucket")
        for name, data in files().items():
            self.put(name, data)

    def put(self, name, data):
        self.client.put_object(Bucket="bucket", Key=f"set/{name}", Body=data)

    def kill(self):
        self._process.kill()
        self._process.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def credentials():
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "id")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield patch


@pytest.fixture(scope="module")
def moto(credentials):
    server = Moto(free_port())
    yield server
    server.kill()


@pytest.fixture
def proxy(moto, monkeypatch):
    monkeypatch.setattr(_remote, "_DELAYS_S", (0.0,) * 4)
    found = Proxy(moto.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{found.port}")
    s3fs.S3FileSystem.clear_instance_cache()
    yield found
    found.close()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("name", SOURCES)
def test_every_format(proxy, name):
    source = open_source(f"s3://bucket/set/{name}", labels="auto")
    np.testing.assert_array_equal(pictures(source), IMAGES)
    if name != "x.npy":
        assert [item.label for item in source] == [0, 1, 2, 3]
    assert all(item.name.startswith(f"s3://bucket/set/{name}") for item in source)


def test_patterns_brace_lists_and_statistics(proxy):
    assert [item.name for item in open_source("s3://bucket/set/x.{tar,zip}")][::4] == [
        "s3://bucket/set/x.tar/0.png",
        "s3://bucket/set/x.zip/0.png",
    ]
    assert len(open_source("s3://bucket/set/*.tar*")) == 8
    assert Statistics.load("s3://bucket/set/s.npz").n == 20
    with pytest.raises(FileNotFoundError, match=r"^s3://bucket/set/y\*\.tar: no such file or folder"):
        open_source("s3://bucket/set/y*.tar")


def test_the_features_are_those_of_the_file(proxy, tmp_path):
    (tmp_path / "x.zip").write_bytes(files()["x.zip"])
    options = {"extractor": GridMeans(), "labels": "auto"}  # else a note says that dataset.json is not read
    there = compute_statistics("s3://bucket/set/x.zip", **options)
    np.testing.assert_array_equal(there.mu, compute_statistics(tmp_path / "x.zip", **options).mu)


@pytest.mark.parametrize("name", SOURCES)
def test_a_connection_that_breaks_in_the_middle(proxy, name):
    proxy.cuts, proxy.cut_after = 3, 500
    np.testing.assert_array_equal(pictures(open_source(f"s3://bucket/set/{name}")), IMAGES)
    assert proxy.cuts == 0


@pytest.mark.parametrize("name", SOURCES)
def test_a_connection_that_breaks_every_time(proxy, name):
    source = open_source(f"s3://bucket/set/{name}")
    proxy.cuts = 10**9
    with pytest.raises((OSError, ValueError), match="cannot be read") as failure:
        [item.load() for item in source]
    assert f"s3://bucket/set/{name}" in str(failure.value)
    assert len(str(failure.value).splitlines()) == 1


def test_a_server_that_dies_while_a_set_is_read(credentials, proxy):
    own = Moto(free_port())
    proxy.target = own.port
    sources = {name: open_source(f"s3://bucket/set/{name}") for name in SOURCES}
    own.kill()
    for name, source in sources.items():
        with pytest.raises((OSError, ValueError), match=r"cannot be read \(.*(endpoint URL|closed)") as failure:
            [item.load() for item in source]
        assert f"s3://bucket/set/{name}" in str(failure.value)
    with pytest.raises(OSError, match=r"cannot be read .*x\.zip"):
        open_source("s3://bucket/set/x.zip")


def test_a_server_that_does_not_answer(proxy, monkeypatch):
    """Each request is made five times and not once more, whatever s3fs and botocore would do."""
    monkeypatch.setattr(_remote, "_ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connections = []
        threading.Thread(target=lambda: [connections.append(silent.accept()) for _ in range(25)], daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(OSError, match=r"cannot be read \(Read timeout"):
            open_source("s3://bucket/set/x.zip")
        assert len(connections) == 5


def test_only_parts_are_read(proxy, moto, monkeypatch):
    """Of a large zip, what is not asked for is not fetched."""
    monkeypatch.setattr(_remote, "_BLOCK_BYTES", 2**16)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("0.png", encoded(IMAGES[0]))
        archive.writestr("1.bin", bytes(20_000_000))
        archive.writestr("2.png", encoded(IMAGES[1]))
    moto.put("large.zip", buffer.getvalue())
    np.testing.assert_array_equal(pictures(open_source("s3://bucket/set/large.zip")), IMAGES[:2])
    assert proxy.received < 1_000_000


@pytest.mark.parametrize("listed", [False, True])
def test_a_file_that_changes(proxy, moto, listed):
    moto.put("z.zip", files()["x.zip"])
    source = open_source("s3://bucket/set/z*.zip" if listed else "s3://bucket/set/z.zip")
    moto.put("z.zip", files()["x.tar"])
    with pytest.raises(ValueError, match=r"z\.zip: has changed since it was listed"):
        [item.load() for item in source]
    moto.put("z.zip", files()["x.zip"])
    assert len(open_source("s3://bucket/set/z.zip")) == 4  # what fsspec has listed is out of date


def test_a_file_that_changes_while_it_is_read(proxy, moto, monkeypatch):
    monkeypatch.setattr(_remote, "_BLOCK_BYTES", 2**12)  # else the first picture brings the others
    moto.put("z.tar", files()["x.tar"])
    first, *rest = open_source("s3://bucket/set/z.tar")
    first.load()
    moto.put("z.tar", files()["x.zip"])
    with pytest.raises(OSError, match=r"has changed since it was listed.*z\.tar"):
        rest[-1].load()


def test_a_run_whose_images_and_directory_are_there(proxy, moto, tmp_path):
    """In tasks, by processes of their own; another version of a file is refused."""
    buffer = io.BytesIO()
    np.save(buffer, IMAGES // 2)
    moto.put("half.npy", buffer.getvalue())
    moto.put("r.parquet", files()["x.parquet"])
    names = {"r.parquet": files()["x.parquet"], "half.npy": buffer.getvalue()}
    for name, data in names.items():
        (tmp_path / name).write_bytes(data)
    plain = evaluate(tmp_path / "r.parquet", tmp_path / "half.npy", extractor=GridMeans())["fid"].value
    sides, run = [f"s3://bucket/set/{name}" for name in names], "s3://bucket/run"
    steps.plan(*sides, run, extractor=GridMeans())
    words = "import sys; from stubs import GridMeans; from fastfid.evaluation import steps"
    call = "steps.part(sys.argv[1], int(sys.argv[2]), 2, extractor=GridMeans())"
    for index in "01":
        subprocess.run([sys.executable, "-c", f"{words}; {call}", run, index], check=True, env=with_tests())
    assert steps.reduce(run)["fid"].value == plain
    assert evaluate(*sides, extractor=GridMeans(), run_dir=run)["fid"].value == plain
    moto.put("half.npy", buffer.getvalue()[:-1] + b"\1")
    with pytest.raises(ValueError, match=r"half\.npy: its version was .*, and is .*; --fresh starts over"):
        evaluate(*sides, extractor=GridMeans(), run_dir=run)


def with_tests():
    """The environment of a process that imports from the folder of the tests."""
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_what_is_not_there(proxy):
    for url in ("s3://bucket/set/y.zip", "s3://nobucket/x.zip"):
        with pytest.raises(FileNotFoundError, match=rf"No such file .*{url}"):
            open_source(url)
    with pytest.raises(ValueError, match=r"expected a folder, or a file that ends in"):
        open_source("s3://bucket/set")


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.parquet", "x.npz", "x.npy"])
def test_files_that_are_damaged(proxy, moto, name):
    whole = files()[name]
    for label, data in (("cut", whole[: len(whole) // 2]), ("none", b""), ("noise", os.urandom(5000))):
        moto.put(f"{label}.{name}", data)
        with pytest.raises((OSError, ValueError)) as failure:
            [item.load() for item in open_source(f"s3://bucket/set/{label}.{name}")]
        assert f"{label}.{name}" in str(failure.value)
        assert len(str(failure.value).splitlines()) == 1


def test_credentials_that_are_missing(proxy, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(PermissionError, match=r"credentials are missing .*s3://bucket/set/x\.zip"):
        open_source("s3://bucket/set/x.zip")


def test_on_the_command_line(proxy, capsys):
    assert cli.main(["inspect", "s3://bucket/set/x.zip"]) == 0
    assert "  images      4\n" in capsys.readouterr().out
    assert cli.main(["inspect", "s3://nobucket/x.zip"]) == 1
    assert capsys.readouterr().err == "fastfid: error: s3://nobucket/x.zip: No such file or directory\n"
