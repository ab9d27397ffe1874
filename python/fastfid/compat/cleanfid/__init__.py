"""clean-fid's names on this engine: ``fid``, ``features``, ``resize`` and ``wrappers``.

Replace ``cleanfid`` by ``fastfid.compat.cleanfid`` in an import. Folders need no PyTorch; generators, feature
extractors of your own and tensors do.
"""
