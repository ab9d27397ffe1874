"""The classes of fastfid.compat.torchmetrics. This file imports nothing: they need PyTorch and torchmetrics."""
