"""Copies OpenBLAS out of its wheel under a SONAME of our own, without destructors and the names for debuggers.

Prints library;include-folder;licence for CMake.
"""

import importlib.metadata
import pathlib
import shutil
import struct
import subprocess
import sys

import scipy_openblas32

THEIRS = b"libscipy_openblas.so"
OURS = b"libfastfid_lapack.so"  # the same length, so that the ELF string table keeps its layout

PT_DYNAMIC, DT_NULL, DT_FINI_ARRAYSZ = 2, 0, 28


def without_destructors(library):
    """Return the ELF file (64 bits, little-endian) with a table of destructors of length 0.

    OpenBLAS's one unmaps its buffers when the process exits, though a daemon thread may be computing in them: SIGSEGV.
    """
    data = bytearray(library)
    if data[:6] != b"\x7fELF\x02\x01":
        sys.exit("OpenBLAS: expected a little-endian ELF file of 64 bits")
    (headers,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for header in range(headers, headers + size * count, size):
        kind, _, entry = struct.unpack_from("<IIQ", data, header)
        if kind != PT_DYNAMIC:
            continue
        while (tag := struct.unpack_from("<Q", data, entry)[0]) != DT_NULL:
            if tag == DT_FINI_ARRAYSZ:
                struct.pack_into("<Q", data, entry + 8, 0)
                return bytes(data)
            entry += 16
    sys.exit("OpenBLAS: found no table of destructors; this scipy-openblas32 is not the one we know")


out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
library = pathlib.Path(scipy_openblas32.get_lib_dir()) / THEIRS.decode()
data = library.read_bytes()
if len(OURS) != len(THEIRS) or data.count(b"\0" + THEIRS + b"\0") != 1:
    sys.exit(
        f"{library}: expected its SONAME {THEIRS.decode()} exactly once; this scipy-openblas32 is not the one we know"
    )
target = out / OURS.decode()
ours = without_destructors(data.replace(b"\0" + THEIRS + b"\0", b"\0" + OURS + b"\0"))
new = target.with_suffix(".new")
new.write_bytes(ours)
if shutil.which("strip"):  # of the linker's package; 0.9 MB of names for debuggers
    subprocess.run(["strip", "--strip-unneeded", new], check=True)
if not target.exists() or target.read_bytes() != new.read_bytes():  # else all would be linked again
    new.replace(target)
new.unlink(missing_ok=True)
files = importlib.metadata.files("scipy-openblas32") or []
licence = next(f for f in files if f.name.upper().startswith("LICENSE"))
print(target, scipy_openblas32.get_include_dir(), licence.locate(), sep=";")
