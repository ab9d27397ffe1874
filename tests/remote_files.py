"""A set of four labelled images in every format that is read at URLs, and a web server of this process."""

import contextlib
import http.server
import io
import json
import re
import tarfile
import threading
import zipfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3), dtype=np.uint8)


def encoded(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def tar(mode):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for i, image in enumerate(IMAGES):
            for name, data in ((f"{i}.png", encoded(image)), (f"{i}.cls", b"%d" % i)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def files():
    found = {"x.tar": tar("w"), "x.tar.gz": tar("w:gz")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i, image in enumerate(IMAGES):
            archive.writestr(f"{i}.png", encoded(image))
        archive.writestr("dataset.json", json.dumps({"labels": [[f"{i}.png", i] for i in range(4)]}))
    found["x.zip"] = buffer.getvalue()
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [encoded(x) for x in IMAGES], "label": range(4)}), buffer, row_group_size=1)
    found["x.parquet"] = buffer.getvalue()
    for name, arrays in (("x.npz", (IMAGES, np.arange(4))), ("s.npz", ())):
        buffer = io.BytesIO()
        np.savez(buffer, *arrays, **({} if arrays else {"mu": np.zeros(12), "sigma": np.eye(12), "n": 20}))
        found[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, IMAGES)
    found["x.npy"] = buffer.getvalue()
    return found


SOURCES = ["x.zip", "x.tar", "x.tar.gz", "x.parquet", "x.npz", "x.npy"]


def pictures(source):
    return np.stack([item.load() for item in source])


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers HEAD and GET with HTTP ranges."""

    def log_message(self, *_):
        """Print nothing, as tests look at what is printed."""

    def do_HEAD(self):
        self.answer(has_body=False)

    def do_GET(self):
        self.answer(has_body=True)

    def answer(self, has_body):
        server = self.server
        data = server.files.get(self.path.partition("?")[0].lstrip("/"))
        server.may_answer.wait(60)
        if server.status or data is None:
            self.send_error(server.status or 404)
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if server.has_ranges else None
        first, last = (int(span[1]), min(int(span[2]), len(data) - 1)) if span else (0, len(data) - 1)
        if has_body:
            server.requests.append((first, last))
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(last - first + 1))
        if server.has_ranges:
            self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        if server.tag is not None:
            self.send_header("ETag", server.tag)
        self.end_headers()
        body = data[first : last + 1]
        if has_body and server.breaks > 0 and len(body) > 1:
            server.breaks -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.shutdown(2)  # in the middle
            self.close_connection = True
        elif has_body:
            self.wfile.write(body)


@contextlib.contextmanager
def serving(files):
    """Serve files, by name, at ``url``. Attributes say what goes wrong, and ``requests`` has the spans that came."""
    fsspec.filesystem("http").clear_instance_cache()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.requests, server.tag = dict(files), [], '"1"'
        server.has_ranges, server.breaks, server.status = True, 0, None
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.may_answer = threading.Event()
        server.may_answer.set()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.may_answer.set()
            server.shutdown()
            thread.join()
