"""Drop-in replacements for pytorch_fid, torchmetrics and cleanfid: their names, signatures and results, by fastfid."""
