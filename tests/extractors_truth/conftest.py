"""timm and open_clip import torchvision when the tests are collected, which needs its stub before that."""

from benchmarks import peers

if peers.torchvision_needs_stub():
    peers.install_torchvision_stub()
