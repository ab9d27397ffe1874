"""The table of cases of the device code: what is computed, of which shape and dtype.

It drives the emulated kernels and the device beside the CPU (tests/test_cuda_*.py), and benchmarks of the device.
How far off it may be: tolerances.py.
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from fastfid.protocols import PROTOCOLS

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class MomentsCase:
    """One stream of rows: its size, its dtype, and its division into updates."""

    d: int
    n: int
    dtype: str = "float32"
    batch: int = 50
    offset: float = 0.0
    layout: str = "contiguous"  # or "strided": every other column of wider rows, misaligned

    def __str__(self):
        return f"{self.d}x{self.n}-{self.dtype}-b{self.batch}-{self.layout}" + (f"+{self.offset:g}" * bool(self.offset))

    @property
    def is_thin(self):
        return self.n <= self.d

    def rows(self):
        """Rows (n, d) of the case's dtype, similar to features of a network: non-negative, correlated."""
        rng = np.random.default_rng(self.d * 100003 + self.n)
        mixing = rng.standard_normal((self.d, self.d)) / np.sqrt(self.d)
        rows = np.abs(rng.standard_normal((self.n, self.d)) @ mixing + 0.3) + self.offset
        rows = rows.astype(DTYPES[self.dtype])
        if self.layout == "contiguous":
            return rows
        wide = np.zeros((self.n, 2 * self.d + 1), rows.dtype)
        wide[:, 1::2] = rows
        return wide[:, 1::2]

    def batches(self):
        rows = self.rows()
        return [rows[start : start + self.batch] for start in range(0, self.n, self.batch)]


# Small enough to be emulated. Tiles are 64 columns, squares 128, steps 16 rows; blocks are of 256 rows in the
# emulation, of 2048 on a device.
EMULATED = [
    MomentsCase(1, 3),
    MomentsCase(3, 2, batch=1),  # thin
    MomentsCase(64, 64),  # thin, exactly
    MomentsCase(64, 65),  # one row more
    MomentsCase(64, 256, batch=100),  # one block exactly
    MomentsCase(65, 257, batch=99),  # a tile of one column; a block and a row
    MomentsCase(30, 700, batch=700),
    MomentsCase(128, 1000, batch=1000),  # whole blocks read from where they are
    MomentsCase(128, 600, "float16", batch=600),
    MomentsCase(128, 600, "bfloat16", batch=333),
    MomentsCase(192, 300, "float16", batch=100, layout="strided"),
    MomentsCase(100, 400, offset=1000.0),
    MomentsCase(300, 400, "bfloat16"),  # 3 squares: each diagonal one alone; two blocks when n passes d
    MomentsCase(520, 600, batch=520),  # 5 squares: 4 diagonal ones share thread blocks
]

# For a device: the sizes of the network's layers.
DEVICE = [
    *EMULATED,
    MomentsCase(64, 2048, batch=500),
    MomentsCase(65, 2049, batch=999),
    MomentsCase(128, 4200, batch=4200),
    MomentsCase(64, 50000, batch=1000),
    MomentsCase(192, 20000, batch=333),
    MomentsCase(768, 20000, "float16", batch=1000),
    MomentsCase(2048, 1000),  # thin
    MomentsCase(2048, 2100, batch=50),
    MomentsCase(2048, 10000, batch=10000),
    MomentsCase(2048, 10000, "float16", batch=1000),
    MomentsCase(2048, 10000, "bfloat16", batch=1000),
    MomentsCase(3000, 7000, batch=500),
]


def oracle(rows):
    """Mean and covariance (ddof=1) in extended precision, rounded to float64."""
    x = np.asarray(rows).astype(np.longdouble)
    mean = x.mean(axis=0)
    # Products of two float64 halves are accurate enough here, because centred values are small.
    z = (x - mean).astype(np.float64)
    return mean.astype(np.float64), z.T @ z / (len(x) - 1)


# --- Preprocessing: float32 results are the CPU's bits, float16 ones those bits rounded once; no tolerance.


@dataclass(frozen=True)
class ImagesCase:
    """Noise images of one size, and their layout in memory."""

    protocol: str
    h: int
    w: int
    n: int = 1
    layout: str = "nhwc"
    dtype: str = "float32"

    def __str__(self):
        return f"{self.protocol}-{self.n}x{self.h}x{self.w}-{self.layout}-{self.dtype}"

    def images(self):
        """(n, h, w, 3) uint8."""
        return np.random.default_rng((self.h, self.w, self.n)).integers(0, 256, (self.n, self.h, self.w, 3), np.uint8)

    def stored(self):
        """The images in the case's layout, C-contiguous."""
        images = self.images()
        return images if self.layout == "nhwc" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


RESIZING = [name for name, row in PROTOCOLS.items() if row.filter is not None]
# One pixel, thin, smaller, the network's own side, larger, many taps (bicubic: 17 rows of 1000), two segments of a row.
IMAGE_SIZES = ((1, 1), (1, 37), (32, 32), (299, 299), (298, 301), (1000, 513), (3, 3000))
EMULATED_IMAGES = [
    *(ImagesCase(protocol, *size) for protocol in RESIZING for size in IMAGE_SIZES),
    *(ImagesCase(protocol, *size, layout="nchw") for protocol in RESIZING for size in ((1, 1), (50, 71), (640, 411))),
    *(ImagesCase(p, 80, 60, layout=layout, dtype="float16") for p in RESIZING for layout in ("nhwc", "nchw")),
    *(ImagesCase(protocol, 20, 31, n=3) for protocol in RESIZING),
    *(ImagesCase("none", *size, n=2, dtype=t) for size in ((75, 75), (76, 2500)) for t in ("float32", "float16")),
]
DEVICE_IMAGES = [
    *EMULATED_IMAGES,
    *(ImagesCase(p, *size, n=64) for p in RESIZING for size in ((32, 32), (256, 256), (512, 512), (1024, 768))),
    ImagesCase("clean", 4000, 3000, n=2),
    ImagesCase("clean", 3, 200_000),
    ImagesCase("none", 299, 299, n=64, dtype="float16"),
]


# --- Trace: value and bounds beside the CPU's eigenvalues.


@dataclass(frozen=True)
class TraceCase:
    """Two covariances of correlated Gaussian samples, and the requested width of the bracket."""

    d: int
    n: int
    tol: float = 1e-9

    def __str__(self):
        return f"{self.d}-n{self.n}-tol{self.tol:g}"

    def covariances(self):
        rng = np.random.default_rng(self.d)
        for _ in range(2):
            mixing = np.eye(self.d) + rng.standard_normal((self.d, self.d)) / np.sqrt(self.d) / 3
            yield np.atleast_2d(np.cov(rng.standard_normal((self.n, self.d)) @ mixing, rowvar=False))


EMULATED_TRACES = [TraceCase(d, 3 * d + 5) for d in (1, 2, 33, 64)]
DEVICE_TRACES = [
    *EMULATED_TRACES,
    TraceCase(64, 200, tol=1e-6),
    TraceCase(192, 1000),
    TraceCase(768, 2000),
    TraceCase(2048, 5000),
    TraceCase(2048, 2100, tol=1e-6),  # condition of M beyond 1e3
    TraceCase(100, 60, tol=1e-3),  # singular: factored on the host
]
