"""Fréchet Inception Distance with a C++ core, ONNX Runtime features, and pytorch-fid's numbers."""

from fastfid._version import __version__

__all__ = ["__version__"]
