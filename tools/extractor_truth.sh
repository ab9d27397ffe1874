#!/usr/bin/env bash
# Runs tests/extractors_truth with the packages of the extra "truth": the known extractors beside timm, transformers and
# open_clip, with random tensors. FASTFID_TRUE_SHAPES=1 gives every network its own number of blocks; that takes 20 GB of
# memory and of disk.
# usage: tools/extractor_truth.sh [pytest arguments]
exec bash "$(dirname "${BASH_SOURCE[0]}")/with_extra.sh" truth python -m pytest tests/extractors_truth "$@"
