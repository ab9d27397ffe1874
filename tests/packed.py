"""One set of pictures in every kind of file that holds many."""

import io
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def pack(folder, pictures):
    """Write the ``.png`` of the folder `pictures`, called by three digits, into `folder`.

    ``a.zip``, ``a.tar``, ``a.tar.gz``, ``a.npz``, ``a.npy`` and ``a.parquet`` have all of them, ``0.shard.tar`` the
    first 50 and ``1.shard.tar`` the others, and ``classes.zip`` has them in the folders ``0`` and ``1``. The label is 7
    in tars, and the number modulo 3 in parquet.
    """
    names = sorted(path.name for path in pictures.iterdir())
    arrays = np.stack([np.asarray(Image.open(pictures / name)) for name in names])
    for path, inside in (("a.zip", "{1}"), ("classes.zip", "{0}/{1}")):
        with zipfile.ZipFile(folder / path, "w") as archive:
            for name in names:
                archive.write(pictures / name, inside.format(int(name[:3]) % 2, name))
    for path, mode, some in (
        ("a.tar", "w", names),
        ("a.tar.gz", "w:gz", names),
        ("0.shard.tar", "w", names[:50]),
        ("1.shard.tar", "w", names[50:]),
    ):
        with tarfile.open(folder / path, mode) as archive:
            for name in some:
                archive.add(pictures / name, name)
                label = tarfile.TarInfo(name.replace(".png", ".cls"))
                label.size = 1
                archive.addfile(label, io.BytesIO(b"7"))
    np.savez(folder / "a.npz", arrays)
    np.save(folder / "a.npy", arrays)
    rows = [{"bytes": (pictures / name).read_bytes(), "path": None} for name in names]
    pq.write_table(pa.table({"image": rows, "label": [i % 3 for i in range(len(rows))]}), folder / "a.parquet")
