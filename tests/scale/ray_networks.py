"""Networks for the workers of tests/scale/test_ray.py, which import this file: they fail, hang, die or take long."""

import errno
import os
import signal
import time

from stubs import GridMeans

WHITE = 255 * 9 * 11 * 3  # the sum of a white picture


def take(mark):
    """Return whether this process is the one that takes the file `mark` away."""
    try:
        os.unlink(mark)
    except FileNotFoundError:
        return False
    return True


class Once(GridMeans):
    """One worker, in mid-task, sends itself a signal, or sleeps for ever: the one that takes the file `mark` away."""

    def __init__(self, mark, number=None):
        super().__init__()
        self.mark = str(mark)
        self.number = number
        self.seen = 0

    def prepare(self, image):
        self.seen += 1
        if self.seen == 10 and take(self.mark):
            if self.number is None:
                time.sleep(10_000)
            os.kill(os.getpid(), self.number)
        return super().prepare(image)


class DiesOfWhite(GridMeans):
    """A white picture ends every worker."""

    def prepare(self, image):
        if int(image.sum()) == WHITE:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prepare(image)


class Transient(GridMeans):
    """Reading fails as often as there are files in the folder `marks`."""

    def __init__(self, marks):
        super().__init__()
        self.marks = str(marks)

    def forward(self, batch):
        for name in os.listdir(self.marks):
            if take(os.path.join(self.marks, name)):
                raise OSError(errno.EIO, os.strerror(errno.EIO), "/far/away.tar")
        return super().forward(batch)


class Strange(Exception):
    """Cannot be pickled: it needs two arguments."""

    def __init__(self, one, two):
        super().__init__(f"{one} of {two}")


class Fails(GridMeans):
    def forward(self, batch):
        raise Strange(1, 2)


class Slow(GridMeans):
    def forward(self, batch):
        time.sleep(0.02 * len(batch))
        return super().forward(batch)


class Fixed(GridMeans):
    """With inputs of one size, as several extractors need them."""

    def __init__(self, cells):
        super().__init__(cells)
        self.input_shape = (self.dims,)
        self.identity = f"grid-means-{cells}"
