"""clean-fid's modules ``fid``, ``features``, ``resize`` and ``wrappers``, implemented by fastfid.

Replace ``cleanfid`` by ``fastfid.compat.cleanfid`` in an import. Folders need no PyTorch. Generators, custom feature
extractors and tensors need PyTorch.
"""
