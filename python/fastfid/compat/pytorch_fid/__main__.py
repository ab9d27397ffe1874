"""``python -m fastfid.compat.pytorch_fid PATH PATH``."""

from fastfid.compat.pytorch_fid.fid_score import main

main()
