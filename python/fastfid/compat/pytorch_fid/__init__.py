"""pytorch-fid's names on this engine: ``fid_score`` and ``inception``.

Replace ``pytorch_fid`` by ``fastfid.compat.pytorch_fid`` in an import, or leave the script as it is and put
``sys.modules["pytorch_fid"] = fastfid.compat.pytorch_fid`` before its imports.
``python -m fastfid.compat.pytorch_fid`` prints what ``python -m pytorch_fid`` prints.
"""

__version__ = "0.3.0"  # the pytorch-fid whose names and behaviour these are
