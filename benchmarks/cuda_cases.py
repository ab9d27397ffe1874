"""The one table of cases that compare the device code with the CPU: what is computed, of which shape and dtype.

tests/test_cuda_*.py run it, emulated and on a device, on each case's own numbers; gpu.py runs it on a device, on new
random numbers. tests/tolerances.py and gpu.py state how far off a result may be.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid.protocols import LEAST_SIDE, PROTOCOLS


@dataclass(frozen=True)
class MomentsCase:
    """One stream of rows: its size, its dtype, and its division into updates."""

    d: int
    n: int
    dtype: str = "float32"
    batch: int = 50
    offset: float = 0.0
    layout: str = "contiguous"  # or "strided": every other column of wider rows, misaligned

    def __str__(self) -> str:
        return f"{self.d}x{self.n}-{self.dtype}-b{self.batch}-{self.layout}" + (f"+{self.offset:g}" * bool(self.offset))

    @property
    def is_thin(self) -> bool:
        return self.n <= self.d

    def rows(self) -> NDArray[Any]:
        """Return rows (n, d) of the case's dtype, similar to features of a network: non-negative, correlated."""
        rng = np.random.default_rng(self.d * 100003 + self.n)
        mixing = rng.standard_normal((self.d, self.d)) / np.sqrt(self.d)
        rows = np.abs(rng.standard_normal((self.n, self.d)) @ mixing + 0.3) + self.offset
        rows = rows.astype(self._dtype())
        if self.layout == "contiguous":
            return rows
        wide = np.zeros((self.n, 2 * self.d + 1), rows.dtype)
        wide[:, 1::2] = rows
        return wide[:, 1::2]

    def _dtype(self) -> Any:
        if self.dtype != "bfloat16":
            return np.dtype(self.dtype)
        import ml_dtypes  # gpu.py runs without it, and leaves bfloat16 out

        return ml_dtypes.bfloat16

    def batches(self) -> list[NDArray[Any]]:
        rows = self.rows()
        return [rows[start : start + self.batch] for start in range(0, self.n, self.batch)]


def oracle(rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and covariance (ddof=1) in extended precision, rounded to float64."""
    x = np.asarray(rows).astype(np.longdouble)
    mean = x.mean(axis=0)
    # Products of two float64 halves are accurate enough here, because centred values are small.
    z = (x - mean).astype(np.float64)
    return mean.astype(np.float64), z.T @ z / (len(x) - 1)


# --- Spatial mean: of maps (n, channels, h, w).


@dataclass(frozen=True)
class MapCase:
    """Maps of a network's last layer."""

    shape: tuple[int, int, int, int]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))}-{self.dtype}"

    def map(self) -> NDArray[Any]:
        """Return the maps: values of about 1e3 and either sign, whose sums cancel."""
        rng = np.random.default_rng(1)
        map = rng.standard_normal(self.shape) + 1e3 * rng.choice([-1, 1], self.shape)
        return map.astype(self.dtype)


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

    def __str__(self) -> str:
        return f"{self.protocol}-{self.n}x{self.h}x{self.w}-{self.layout}-{self.dtype}"

    def images(self) -> NDArray[np.uint8]:
        """Return uint8 (n, h, w, 3)."""
        return np.random.default_rng((self.h, self.w, self.n)).integers(0, 256, (self.n, self.h, self.w, 3), np.uint8)

    def stored(self) -> NDArray[np.uint8]:
        """Return the images in the case's layout, C-contiguous."""
        return in_layout(self.images(), self.layout)


def in_layout(images: NDArray[np.uint8], layout: str) -> NDArray[np.uint8]:
    """Return images (n, h, w, 3) in the layout "nhwc" or "nchw", C-contiguous."""
    return images if layout == "nhwc" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


# --- Trace: value and bounds beside the CPU's eigenvalues.


@dataclass(frozen=True)
class TraceCase:
    """Two covariances of correlated Gaussian samples, and the requested width of the bracket."""

    d: int
    n: int
    tol: float = 1e-9

    def __str__(self) -> str:
        return f"{self.d}-n{self.n}-tol{self.tol:g}"

    @property
    def is_singular(self) -> bool:
        return self.n <= self.d

    def covariances(self) -> Iterator[NDArray[np.float64]]:
        """Return the two covariances."""
        rng = np.random.default_rng(self.d)
        for _ in range(2):
            mixing = np.eye(self.d) + rng.standard_normal((self.d, self.d)) / np.sqrt(self.d) / 3
            yield np.atleast_2d(np.cov(rng.standard_normal((self.n, self.d)) @ mixing, rowvar=False))


# --- Distance: of moments, with the rows of thin sides (n <= d).


@dataclass(frozen=True)
class DistanceCase:
    """Two sets of rows."""

    d: int
    n1: int
    n2: int

    def __str__(self) -> str:
        return f"{self.n1}x{self.d}-{self.n2}x{self.d}"

    def rows(self) -> list[NDArray[np.float32]]:
        """Return the rows of both sides, float32, with different means."""
        first, second = np.split(MomentsCase(self.d, self.n1 + self.n2).rows(), [self.n1])
        return [first, second + np.float32(0.1)]


# --- The table.


@dataclass(frozen=True)
class Cases:
    """Cases of every kernel."""

    moments: tuple[MomentsCase, ...]
    maps: tuple[MapCase, ...]
    images: tuple[ImagesCase, ...]
    traces: tuple[TraceCase, ...]
    distances: tuple[DistanceCase, ...]

    def __add__(self, other: "Cases") -> "Cases":
        return Cases(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


RESIZING = tuple(name for name, row in PROTOCOLS.items() if row.filter is not None)
# One pixel, thin, smaller, the network's own side, larger, many taps (bicubic: 17 rows of 1000), two segments of a row.
IMAGE_SIZES = ((1, 1), (1, 37), (32, 32), (299, 299), (298, 301), (1000, 513), (3, 3000))

# Small enough to be emulated. Moments: tiles are 64 columns, squares 128, steps 16 rows; blocks are of 256 rows in the
# emulation, of 2048 on a device.
EMULATED = Cases(
    moments=(
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
    ),
    maps=tuple(
        MapCase(shape, dtype)
        for shape in ((1, 1, 1, 1), (2, 3, 1, 7), (3, 5, 73, 73), (2, 67, 8, 8), (1, 9, 5, 13))
        for dtype in ("float32", "float16")
    ),
    images=(
        *(ImagesCase(protocol, *size) for protocol in RESIZING for size in IMAGE_SIZES),
        *(ImagesCase(p, *size, layout="nchw") for p in RESIZING for size in ((1, 1), (50, 71), (640, 411))),
        *(ImagesCase(p, 80, 60, layout=layout, dtype="float16") for p in RESIZING for layout in ("nhwc", "nchw")),
        *(ImagesCase(protocol, 20, 31, n=3) for protocol in RESIZING),
        *(ImagesCase("none", *size, n=2, dtype=t) for size in ((75, 75), (76, 2500)) for t in ("float32", "float16")),
    ),
    traces=tuple(TraceCase(d, 3 * d + 5) for d in (1, 2, 33, 64)),
    distances=tuple(DistanceCase(64, *sizes) for sizes in ((100, 200), (100, 20), (20, 64), (2, 65))),
)

# Few and small, for compute-sanitizer and a smoke run on a device: blocks of 2048 rows, thin and full sides, every
# combination of protocol, layout and dtype in batches.
SMALL = Cases(
    moments=(
        MomentsCase(64, 500, batch=100),
        MomentsCase(65, 2500, batch=999),
        MomentsCase(192, 150, "float16"),  # thin
        MomentsCase(192, 2300, "float16", batch=700),
    ),
    maps=(
        MapCase((3, 64, 73, 73)),
        MapCase((5, 2048, 8, 8), "float16"),
        MapCase((1, 7, 1, 3)),
    ),
    images=tuple(
        ImagesCase(protocol, *size, n=3, layout=layout, dtype=dtype)
        for protocol, row in PROTOCOLS.items()
        for size in ((299, 299), (80, 131), (512, 512), (33, 301), (600, 101))
        if row.filter is not None or min(size) >= LEAST_SIDE
        for layout in ("nhwc", "nchw")
        for dtype in ("float32", "float16")
    ),
    traces=(TraceCase(64, 200), TraceCase(257, 900)),
    distances=(DistanceCase(64, 40, 50), DistanceCase(65, 300, 40), DistanceCase(64, 300, 500)),
)

# For a device: also the sizes of the network's layers.
LARGE = Cases(
    moments=(
        MomentsCase(64, 2048, batch=500),
        MomentsCase(65, 2049, batch=999),
        MomentsCase(128, 4200, batch=4200),
        MomentsCase(64, 50000, batch=1000),
        MomentsCase(192, 20000, batch=333),
        MomentsCase(768, 9000, "float16", batch=9000),
        MomentsCase(768, 20000, "float16", batch=1000),
        MomentsCase(2048, 1000),  # thin
        MomentsCase(2048, 1500, batch=500),  # thin
        MomentsCase(2048, 2100, batch=50),
        MomentsCase(2048, 6000, batch=1000),
        MomentsCase(2048, 10000, batch=10000),
        MomentsCase(2048, 10000, "float16", batch=1000),
        MomentsCase(2048, 10000, "bfloat16", batch=1000),
        MomentsCase(3000, 7000, batch=500),
    ),
    maps=(),
    images=(
        *(ImagesCase(p, *size, n=64) for p in RESIZING for size in ((32, 32), (256, 256), (512, 512), (1024, 768))),
        ImagesCase("clean", 4000, 3000, n=2),
        ImagesCase("clean", 3, 200_000),
        ImagesCase("none", 299, 299, n=64, dtype="float16"),
    ),
    traces=(
        TraceCase(64, 200, tol=1e-6),
        TraceCase(192, 1000),
        TraceCase(768, 2000),
        TraceCase(2048, 5000),
        TraceCase(2048, 2100, tol=1e-6),  # condition of M beyond 1e3
        TraceCase(100, 60, tol=1e-3),  # singular: factored on the host
    ),
    distances=(
        *(DistanceCase(512, *sizes) for sizes in ((900, 1200), (200, 300), (1000, 200), (2, 700))),
        DistanceCase(2048, 1000, 1000),
        DistanceCase(2048, 6144, 1000),
    ),
)
DEVICE = EMULATED + SMALL + LARGE
