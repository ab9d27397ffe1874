"""The names, signatures and results of other FID packages, on this engine: pytorch_fid, torchmetrics, cleanfid."""
