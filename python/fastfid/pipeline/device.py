"""The pipeline for images on a CUDA device: batches of one size, outputs on the device, no waiting of the host."""

from collections.abc import Callable, Mapping
from typing import Any

from fastfid.extractor import FEATURES, DeviceBatch, DeviceNetwork
from fastfid.sources.device import DeviceImages

__all__ = ["DeviceFeed", "features_on_device"]


class DeviceFeed:
    """Passes images on a CUDA device to a network on this device, and the network's outputs to `consume`.

    Parameters
    ----------
    network : DeviceNetwork
    consume : callable
        Takes the outputs for up to ``network.batch_size`` images, in the order of the images: arrays on the device by
        name, float32 (m, length). The next batch overwrites the arrays, after the work that `consume` enqueues on the
        network's stream.

    Notes
    -----
    Only full batches are run. Images that do not fill a batch wait in its buffer for more images or for :meth:`flush`.
    Calls from several threads, and calls of other feeds of one network, run one after another, because runs of a
    network must not overlap. After an error of the device, it is undefined whether the waiting images are counted.

    Attributes
    ----------
    waiting : int
        Number of images without outputs so far.
    """

    def __init__(self, network: DeviceNetwork, consume: Callable[[Mapping[str, Any]], object]):
        self._network = network
        self._consume = consume
        self._batch: DeviceBatch | None = None  # while images wait in it
        self.waiting = 0

    def add(self, images: DeviceImages, stream: int | None) -> None:
        """Add images.

        Parameters
        ----------
        images : DeviceImages
        stream : int or None
            The stream on which the images are made and may be overwritten after this call. None: the images are ready
            as their ``__dlpack__`` defines, and the host waits until the images have been read.
        """
        with self._network.lock:
            if stream is not None:
                self._network.wait_for(stream)
            start = 0
            while start < len(images):
                if self.waiting == self._network.batch_size:  # the previous run failed
                    self._run()
                batch = self._batch_for(images)
                count = min(self._network.batch_size - self.waiting, len(images) - start)
                batch.fill(self.waiting, images, start, count)
                start += count
                self.waiting += count
                if start == len(images):
                    self._network.hold(stream)  # before the last run, because fill() has read the images
                if self.waiting == self._network.batch_size:
                    self._run()

    def flush(self) -> None:
        """Run the network on the waiting images."""
        with self._network.lock:
            self._run()

    def _batch_for(self, images: DeviceImages) -> DeviceBatch:
        """Return a batch with room for the next image. Waiting images of another size are run first."""
        size = self._network.input_size(images)
        if self._batch is not None and self._batch.size != size:
            self._run()
        if self._batch is None:
            self._batch = self._network.take_batch(size)
        return self._batch

    def _run(self) -> None:
        if self._batch is None:
            return
        outputs = self._batch.run()
        self._consume({name: rows.rows(0, self.waiting) for name, rows in outputs.items()})
        self._network.give_back(self._batch)
        self._batch = None
        self.waiting = 0


def features_on_device(network: DeviceNetwork, images: DeviceImages, stream: int | None) -> Any:
    """Return the features of images as one array on their device, float32 (n, dims), for ``from_dlpack``.

    See :meth:`DeviceFeed.add` for `stream`.
    """
    features = network.new_rows(len(images))
    done = 0

    def keep(outputs: Mapping[str, Any]) -> None:
        nonlocal done
        rows = outputs[FEATURES]
        features.rows(done, done + rows.shape[0]).copy_on_device(rows)
        done += rows.shape[0]

    feed = DeviceFeed(network, keep)
    feed.add(images, stream)
    feed.flush()
    return features
