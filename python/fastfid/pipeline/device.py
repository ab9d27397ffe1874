"""Images on a CUDA device to a network's outputs there, in batches of one size; the host waits for nothing."""

from collections.abc import Callable, Mapping
from typing import Any

from fastfid.extractor import FEATURES, DeviceBatch, DeviceNetwork
from fastfid.sources.device import DeviceImages

__all__ = ["DeviceFeed", "features_on_device"]


class DeviceFeed:
    """Feeds a network on a CUDA device with images that are there, and hands its outputs to `consume`.

    Parameters
    ----------
    network : DeviceNetwork
    consume : callable
        Takes the outputs for up to ``network.batch_size`` images, in their order: by name arrays on the device, float32
        (m, length), which the next batch overwrites. What `consume` asks for on the network's stream comes before that.

    Notes
    -----
    Only full batches are run: images that do not fill one wait in its buffer until others come, or :meth:`flush`.
    Calls from several threads take turns, also with those of other feeds of one network: its runs must not overlap.
    An error of the device leaves the images that were waiting in doubt.

    Attributes
    ----------
    waiting : int
        Images without outputs so far.
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
            The stream on which they are made, and may be overwritten once this returns. None: the images are what their
            ``__dlpack__`` says they are, and the host waits until they have been read.
        """
        with self._network.lock:
            if stream is not None:
                self._network.wait_for(stream)
            start = 0
            while start < len(images):
                if self.waiting == self._network.batch_size:  # its run failed
                    self._run()
                batch = self._batch_for(images)
                count = min(self._network.batch_size - self.waiting, len(images) - start)
                batch.fill(self.waiting, images, start, count)
                start += count
                self.waiting += count
                if start == len(images):
                    self._network.hold(stream)  # before the last run: the images have been read by then
                if self.waiting == self._network.batch_size:
                    self._run()

    def flush(self) -> None:
        """Run the network on the images that wait."""
        with self._network.lock:
            self._run()

    def _batch_for(self, images: DeviceImages) -> DeviceBatch:
        """Return the batch that has room for the next of the images; those of another size are run first."""
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

    See :meth:`DeviceFeed.add`.
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
