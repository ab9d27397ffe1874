"""Score two folders (or zip files, or statistics files) of images: ``python score_two_folders.py REAL GENERATED``."""

import argparse

import fastfid


def main() -> None:
    """Print the FID, its numerical bounds and its standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real")
    parser.add_argument("generated")
    parser.add_argument("--dims", type=int, default=2048, choices=[64, 192, 768, 2048])
    args = parser.parse_args()

    info = fastfid.compute_fid(args.real, args.generated, dims=args.dims, progress="auto", return_info=True)
    if info["standard_error"] is None:
        print(f"FID {info['fid']:.4f}, standard error of sampling unknown: {info['no_standard_error']}")
    else:
        print(f"FID {info['fid']:.4f} +- {info['standard_error']:.4f} (standard error of sampling)")
    rounding = max(info["numerical_upper"] - info["fid"], info["fid"] - info["numerical_lower"])
    print(f"rounding after the network moves it by at most {rounding:.1e}")
    print(f"{info['n']['real']} real and {info['n']['fake']} generated images, {info['dims']} dimensions")


if __name__ == "__main__":
    main()
