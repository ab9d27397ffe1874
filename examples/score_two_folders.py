"""Score two folders (or zip files, or statistics files) of images: ``python score_two_folders.py REAL GENERATED``."""

import argparse

import fastfid


def main() -> None:
    """Print the FID with its bounds, and keep the statistics of the real side for the next time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real")
    parser.add_argument("generated")
    parser.add_argument("--dims", type=int, default=2048, choices=[64, 192, 768, 2048])
    parser.add_argument("--keep", metavar="FILE.npz", help="where to keep the statistics of the real side")
    args = parser.parse_args()

    real = fastfid.compute_statistics(args.real, dims=args.dims, progress=True)
    if args.keep:
        print(f"kept in {real.save(args.keep)}")
    info = fastfid.compute_fid(real, args.generated, dims=args.dims, progress=True, return_info=True)
    print(f"FID {info['fid']:.4f}, certainly between {info['lower']:.4f} and {info['upper']:.4f}")
    print(f"{info['n']['real']} real and {info['n']['fake']} generated images, {info['dims']} dimensions")


if __name__ == "__main__":
    main()
