"""What several test files use: an extractor whose truth is known, and a look at the GIL."""

import sys
import threading
import time

import numpy as np

from fastfid.features import FeatureExtractor


class GridMeans(FeatureExtractor):
    """Means over a grid of cells, per channel: d = 3 * cells^2, exact arithmetic that any size of image allows."""

    identity = "grid-means"
    protocol = "none"
    precision = "float32"
    device = "cpu"
    batch_size = 2

    def __init__(self, cells=2):
        self.cells = cells
        self.dims = 3 * cells * cells

    def prepare(self, image):
        height, width, _ = image.shape
        starts = np.arange(self.cells)
        tops, lefts = starts * height // self.cells, starts * width // self.cells
        bottoms = np.maximum((starts + 1) * height // self.cells, tops + 1)
        rights = np.maximum((starts + 1) * width // self.cells, lefts + 1)
        cells = [
            image[tops[i] : bottoms[i], lefts[j] : rights[j]].mean((0, 1))
            for i in range(self.cells)
            for j in range(self.cells)
        ]
        return np.concatenate(cells).astype(np.float32)

    def forward(self, batch):
        return np.ascontiguousarray(batch, dtype=np.float32)


def counts_during(call):
    """How far another Python thread counts while `call` runs: not at all if it holds the GIL."""
    count = 0
    stop = threading.Event()

    def run():
        nonlocal count
        while not stop.is_set():
            count += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    worker = threading.Thread(target=run)
    worker.start()
    try:
        # No forced switches: the other thread runs only where this one gives the GIL away.
        sys.setswitchinterval(1000)
        before = count
        call()
        return count - before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        worker.join()
