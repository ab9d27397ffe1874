"""Copies OpenBLAS out of the scipy-openblas32 wheel under a SONAME of our own.

Prints library;include-folder;licence for CMake.
"""

import importlib.metadata
import pathlib
import sys

import scipy_openblas32

THEIRS = b"libscipy_openblas.so"
OURS = b"libfastfid_lapack.so"  # the same length, so that the ELF string table keeps its layout

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
library = pathlib.Path(scipy_openblas32.get_lib_dir()) / THEIRS.decode()
data = library.read_bytes()
if len(OURS) != len(THEIRS) or data.count(b"\0" + THEIRS + b"\0") != 1:
    sys.exit(
        f"{library}: expected its SONAME {THEIRS.decode()} exactly once; this scipy-openblas32 is not the one we know"
    )
target = out / OURS.decode()
renamed = data.replace(b"\0" + THEIRS + b"\0", b"\0" + OURS + b"\0")
if not target.exists() or target.read_bytes() != renamed:
    target.write_bytes(renamed)
files = importlib.metadata.files("scipy-openblas32") or []
licence = next(f for f in files if f.name.upper().startswith("LICENSE"))
print(target, scipy_openblas32.get_include_dir(), licence.locate(), sep=";")
