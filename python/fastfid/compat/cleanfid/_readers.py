"""Features of the images of files, folders, zip files and generators."""

import contextlib
import glob
import os
import random
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid._console import warn
from fastfid._files import open_regular
from fastfid.compat._items import ItemSource, file_items
from fastfid.compat._torch import require_torch
from fastfid.compat.cleanfid import features
from fastfid.compat.cleanfid._network import (
    Model,
    ModeNetwork,
    PathLike,
    Transform,
    get_batch_features,
    torch_device,
)
from fastfid.errors import ImageError, SuspiciousInputWarning
from fastfid.npz import read_header
from fastfid.pipeline import extract, only_features
from fastfid.sources import DEFAULT_MAX_PIXELS, ImageItem
from fastfid.sources.archive import ZipItem
from fastfid.sources.picture import Decoder

__all__ = [
    "EXTENSIONS",
    "draw_like_a_data_loader",
    "get_files_features",
    "get_folder_features",
    "get_model_features",
    "list_folder",
    "read",
    "say",
]

EXTENSIONS = {
    *("bmp", "jpg", "jpeg", "pgm", "png", "ppm", "tif", "tiff", "webp", "npy"),
    *("JPEG", "JPG", "PNG"),
}


class _ArrayItem(ImageItem):
    """An image as a ``.npy`` array (h, w, 3) of any dtype."""

    def __init__(self, path: str):
        self.name = path

    def load(self) -> NDArray[Any]:
        """Return the array."""
        try:
            with open_regular(self.name) as file:
                header = read_header(file, self.name)
                shape, kind = header.shape, header.dtype.kind
                if len(shape) != 3 or shape[2] != 3 or kind not in "fiu":
                    raise ValueError(f"{self.name}: expected numbers of shape (h, w, 3), got {header.dtype} {shape}")
                if shape[0] * shape[1] > DEFAULT_MAX_PIXELS:
                    raise ValueError(f"{self.name}: has {shape[0] * shape[1]} pixels; at most {DEFAULT_MAX_PIXELS}")
                data = file.read(header.nbytes + 1)
        except OSError as error:
            raise ImageError(f"{self.name}: {error.strerror or error}") from error
        except ValueError as error:
            raise ImageError(str(error)) from error
        if len(data) != header.nbytes:
            raise ImageError(f"{self.name}: has {len(data)} bytes of data, its header declares {header.nbytes}")
        image = np.frombuffer(bytearray(data), header.dtype)  # writable for custom transforms
        return image.reshape(shape, order="F" if header.fortran_order else "C")


def _is_zip(path: PathLike) -> bool:
    return os.path.isfile(path) and zipfile.is_zipfile(path)


def _list_files(fdir: str) -> list[str]:
    """Return the pictures and arrays of a folder with its sub-folders, or of a zip file, sorted by name."""
    if _is_zip(fdir):
        with zipfile.ZipFile(fdir) as archive:
            names = [name for name in archive.namelist() if os.path.splitext(name)[1][1:].lower() in EXTENSIONS]
    elif os.path.isdir(fdir):
        # One pass, so that no file is counted twice on file systems that ignore case.
        found = glob.glob(os.path.join(glob.escape(fdir), "**", "*"), recursive=True)
        names = [name for name in found if os.path.splitext(name)[1][1:] in EXTENSIONS]
    else:
        raise ValueError(f"{fdir}: expected a folder or a zip file")
    if not names:
        raise ValueError(f"{fdir}: no images; expected files ending in {', '.join(sorted(EXTENSIONS))}")
    return sorted(names)


def list_folder(fdir: str, verbose: bool) -> list[str]:
    """Return the files of a folder or zip file, sorted by name, and print their number if `verbose`."""
    files = _list_files(fdir)
    if verbose:
        print(f"Found {len(files)} images in the folder {fdir}")
    return files


def get_files_features(
    l_files: Sequence[str],
    model: Model | None = None,
    num_workers: int | None = None,
    batch_size: int = 128,
    device: Any = None,
    mode: str = "clean",
    custom_fn_resize: Transform | None = None,
    description: str = "",
    fdir: PathLike | None = None,
    verbose: bool = True,
    custom_image_tranform: Transform | None = None,
) -> NDArray[np.float32]:
    """Return the features (n, d) of files. If `fdir` is a zip file, the files are its members.

    The other parameters are those of :func:`compute_fid`; `model` is its ``custom_feat_extractor``.

    Examples
    --------
    >>> get_files_features(["real/0.png", "real/1.png"], lambda x: x.mean(dim=(2, 3)), verbose=False).shape
    (2, 3)
    """
    model = model or features.build_feature_extractor(mode, device)
    batches: list[NDArray[Any]] = []
    network = ModeNetwork(model, mode, device, batch_size, custom_image_tranform, custom_fn_resize)
    read(l_files, fdir, network, num_workers, description, verbose, lambda rows: batches.append(rows.copy()))
    return np.concatenate(batches)


def read(
    files: Sequence[str],
    fdir: PathLike | None,
    network: ModeNetwork,
    num_workers: int | None,
    description: str,
    verbose: bool,
    consume: Callable[[NDArray[Any]], None],
) -> None:
    """Pass the features of files to `consume`, batch by batch. If `fdir` is a zip file, the files are its members."""
    workers = 0 if network.has_callbacks else num_workers
    name = os.fspath(fdir) if fdir is not None else "files"
    with contextlib.ExitStack() as stack:
        if _is_zip(name):
            archive = stack.enter_context(zipfile.ZipFile(name))
            items: list[ImageItem] = [
                ZipItem(f"{name}/{member}", archive, archive.getinfo(member), Decoder()) for member in files
            ]
        else:
            items = [
                _ArrayItem(file) if file.endswith(".npy") else item
                for file, item in zip(files, file_items(files), strict=True)
            ]
        report = extract(
            ItemSource(name, items),
            network,
            only_features(consume),
            num_workers=workers,
            progress=verbose,
            description=description.removesuffix(" : "),
        )
        if remark := report.census.without_levels():
            warn(f"{name}: {remark}", SuspiciousInputWarning)


def get_folder_features(
    fdir: PathLike,
    model: Model | None = None,
    num_workers: int | None = None,
    num: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    batch_size: int = 128,
    device: Any = None,
    mode: str = "clean",
    custom_fn_resize: Transform | None = None,
    description: str = "",
    verbose: bool = True,
    custom_image_tranform: Transform | None = None,
) -> NDArray[np.float32]:
    """Return the features (n, d) of a folder with its sub-folders, or of a zip file.

    Parameters
    ----------
    num : int, optional
        Use only the first `num` images, in the order of their names or, with `shuffle`, in a random order.
    shuffle : bool
        With `num`: put the images in a random order first.
    seed : int
        Seed of the random order.
    fdir, model, num_workers, batch_size, device, mode, custom_fn_resize, description, verbose, custom_image_tranform
        See :func:`compute_fid`; `model` is its ``custom_feat_extractor``.

    Raises
    ------
    ValueError
        The folder does not exist or has no images.
    fastfid.ImageError
        An image cannot be read.

    Examples
    --------
    >>> get_folder_features("real", lambda x: x.mean(dim=(2, 3)), num=3).shape
    Found 4 images in the folder real
    (3, 3)
    """
    fdir = os.fspath(fdir)
    files = list_folder(fdir, verbose)
    if num is not None:
        if shuffle:
            random.Random(seed).shuffle(files)
        files = files[:num]
    return get_files_features(
        files,
        model,
        num_workers,
        batch_size,
        device,
        mode,
        custom_fn_resize,
        description,
        fdir,
        verbose,
        custom_image_tranform,
    )


def get_model_features(
    G: Model,
    model: Model,
    mode: str = "clean",
    z_dim: int = 512,
    num_gen: int = 50_000,
    batch_size: int = 128,
    device: Any = None,
    desc: str = "FID model: ",
    verbose: bool = True,
    return_z: bool = False,
    custom_image_tranform: Transform | None = None,
    custom_fn_resize: Transform | None = None,
) -> Any:
    """Return the features (num_gen, d) of generated images.

    Parameters
    ----------
    G : callable
        Takes z (batch_size, z_dim) on `device`, standard normal values from PyTorch's global generator. Returns at
        least batch_size images (n, 3, h, w) with values in [0, 255].
    model : callable
        The feature extractor; see :func:`compute_fid`.
    return_z : bool
        True: return (features, z).
    mode, z_dim, num_gen, batch_size, device, desc, verbose, custom_image_tranform, custom_fn_resize
        See :func:`compute_fid`.

    Raises
    ------
    ValueError
        The generator returns fewer than batch_size images, or images of another shape.

    Examples
    --------
    >>> grey = lambda z: z[:, :1, None, None].clamp(0, 1).expand(-1, 3, 8, 8) * 255
    >>> get_model_features(grey, lambda x: x.mean(dim=(2, 3)), num_gen=5, batch_size=4, verbose=False).shape
    (5, 3)
    """
    from tqdm import tqdm

    torch = require_torch("a generator")
    if num_gen < 1 or batch_size < 1:
        raise ValueError(f"num_gen, batch_size: expected at least 1, got {num_gen} and {batch_size}")
    device = torch_device(device)
    network = ModeNetwork(model, mode, device, batch_size, custom_image_tranform, custom_fn_resize)
    batches, latents = [], []
    for _ in tqdm(range(-(-num_gen // batch_size)), desc=desc, disable=not verbose):
        with torch.no_grad():
            z = torch.randn((batch_size, z_dim)).to(device)
            images = G(z)
            if images.ndim != 4 or len(images) < batch_size or images.shape[1] != 3:
                raise ValueError(f"gen: expected images of shape ({batch_size}, 3, h, w), got {tuple(images.shape)}")
            if return_z:
                latents.append(z)
            if mode == "legacy_tensorflow":  # the network resizes the images itself
                batches.append(get_batch_features(images[:batch_size].float(), model, device))
                continue
            arrays = images[:batch_size].cpu().permute(0, 2, 3, 1).numpy()
            batches.append(network.forward(np.stack([network.prepare(image) for image in arrays])))
    result = np.concatenate(batches)[:num_gen]
    return (result, torch.cat(latents)) if return_z else result


def draw_like_a_data_loader() -> None:
    """Draw one number from PyTorch's generator, as clean-fid's DataLoader of fdir2 does: equal seeds give equal z."""
    torch = require_torch("a generator")
    torch.empty((), dtype=torch.int64).random_()


def say(verbose: bool, text: str) -> None:
    """Print one line if `verbose`."""
    if verbose:
        print(text)
