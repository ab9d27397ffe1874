"""A script that was written for pytorch-fid. Only its import has changed; the old import is in the comment."""

import sys

# from pytorch_fid.fid_score import calculate_fid_given_paths
from fastfid.compat.pytorch_fid.fid_score import calculate_fid_given_paths

if __name__ == "__main__":
    real, generated = sys.argv[1:3]
    dims = int(sys.argv[3]) if len(sys.argv) > 3 else 2048
    fid = calculate_fid_given_paths([real, generated], batch_size=50, device="cpu", dims=dims, num_workers=2)
    print("FID: ", fid)
