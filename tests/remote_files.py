"""A set of four labelled images in every format that is read at URLs."""

import io
import json
import tarfile
import zipfile

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
