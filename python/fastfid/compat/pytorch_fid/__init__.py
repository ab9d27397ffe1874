"""pytorch-fid's modules ``fid_score`` and ``inception``, implemented by fastfid.

Replace ``pytorch_fid`` by ``fastfid.compat.pytorch_fid`` in an import. Or leave the script unchanged and put
``sys.modules["pytorch_fid"] = fastfid.compat.pytorch_fid`` before its imports.
``python -m fastfid.compat.pytorch_fid`` prints what ``python -m pytorch_fid`` prints.
"""

__version__ = "0.3.0"  # the version of pytorch-fid whose names and behaviour this package has
