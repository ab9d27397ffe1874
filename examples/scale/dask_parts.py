"""An evaluation by the workers of a Dask cluster, which all see the images and the run directory.

usage: python dask_parts.py REAL GENERATED RUN [--scheduler ADDRESS] [--dims D]. Without an address, Dask starts workers
on this machine.
"""

import argparse

from distributed import Client

import fastfid


def main() -> None:
    """Plan, let the workers do the tasks, reduce."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real")
    parser.add_argument("generated")
    parser.add_argument("run")
    parser.add_argument("--scheduler")
    parser.add_argument("--dims", type=int)
    args = parser.parse_args()
    fastfid.plan(args.real, args.generated, args.run, metrics=["fid", "kid"], dims=args.dims)
    with Client(args.scheduler) as client:
        # Several parts a worker: one that is lost takes few with it, and a slow worker gets fewer.
        parts = 4 * len(client.scheduler_info(n_workers=-1)["workers"])
        done = client.map(lambda index: fastfid.part(args.run, index, parts), range(parts), retries=3, pure=False)
        client.gather(done)
    for name, result in fastfid.reduce(args.run).items():
        print(name, result.value)


if __name__ == "__main__":
    main()
