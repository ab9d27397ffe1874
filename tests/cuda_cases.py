"""The table of cases of the device code: what is computed, of which shape and dtype, and how far off it may be.

It drives the emulated kernels (tests/test_cuda_moments.py), the device against the CPU (tests/test_cuda_device.py), and
benchmarks of the device. Tolerances are for the largest error of an element, relative to the largest element.
"""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

# Errors of a covariance against one in extended precision, relative to its largest element.
#   float64: n u of rounding in the worst case; n = 6000 gives 7e-13, seen 5e-16.
#   float32: products of 256 rows are summed in float32 (u = 6e-8); errors are of random sign, seen 4e-7.
TOLERANCE = {"float64": 1e-13, "float32": 1e-6}


@dataclass(frozen=True)
class MomentsCase:
    """One stream of rows: its size, its dtype, and how it is cut into updates."""

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
        """Features as a network makes them: non-negative, correlated; (n, d) of the case's dtype."""
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
    # Products of two float64 halves lose nothing that counts here: centred values are small.
    z = (x - mean).astype(np.float64)
    return mean.astype(np.float64), z.T @ z / (len(x) - 1)
