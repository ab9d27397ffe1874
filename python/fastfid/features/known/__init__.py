"""Known extractors: the table of them, and the export of one from its original checkpoint to an ONNX file."""

from fastfid.features.known.table import KNOWN, KnownExtractor, find_known

__all__ = ["KNOWN", "KnownExtractor", "find_known"]
