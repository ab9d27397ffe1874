"""Train a small GAN with many pairs of learning rates, and watch the FID: ``python gan.py -o DIR``.

One time scale: the generator and the discriminator have the same rate. Two: they have different ones (Heusel et al.
2017). Every pair of --rates is trained with every seed. A run that was killed goes on where it was; finished runs are
not trained again. DIR gets gan.json, gan-curves.png, gan-grid.png and gan-samples.png. docs/paper.md explains them.
"""

import argparse
import itertools
import json
import os
import statistics
from pathlib import Path

import numpy as np
import torch
from figures import draw_curves, draw_grid, draw_samples
from networks import (
    LATENTS,
    Classifier,
    load_digits,
    load_pictures,
    make_discriminator,
    make_generator,
    to_tensor,
    to_uint8,
    train_classifier,
)
from torch import nn

import fastfid

BETAS = (0.5, 0.999)  # of Adam, as DCGAN has them


def write(path: Path, text: bytes) -> None:
    """Write a file, whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(text)
    os.replace(new, path)


def as_json(value: object) -> bytes:
    """Return what a JSON file holds."""
    return (json.dumps(value, indent=1) + "\n").encode()


class Run:
    """One training: a rate of the discriminator, a rate of the generator, a seed.

    Attributes
    ----------
    curve : list of dict
        ``step``, ``fid``, ``standard_error`` and ``inception_score`` of every checkpoint.
    """

    def __init__(self, args: argparse.Namespace, data: torch.Tensor, rates: tuple[float, float], seed: int):
        self.args, self.data, self.rates, self.seed = args, data, rates, seed
        self.name = f"d{rates[0]:g}-g{rates[1]:g}-seed{seed}"
        self.folder = args.output / "work"
        self.curve: list[dict[str, float | None]] = []
        self.step = 0
        torch.manual_seed(seed)
        size, channels = data.shape[-1], data.shape[1]
        self.generator = make_generator(size, channels).to(args.device)
        self.discriminator = make_discriminator(size, channels).to(args.device)
        of_d, of_g = self.discriminator.parameters(), self.generator.parameters()
        self.optimizers = [
            torch.optim.Adam(of_d, lr=rates[0], betas=BETAS),
            torch.optim.Adam(of_g, lr=rates[1], betas=BETAS),
        ]
        self.random = torch.Generator().manual_seed(seed)
        self.best = (float("inf"), np.empty(0))  # FID and images

    def latents(self, n: int) -> torch.Tensor:
        """Return n latents."""
        return torch.randn(n, LATENTS, generator=self.random).to(self.args.device)

    def train(self, steps: int) -> None:
        """Take so many steps of both networks, one after the other, with the loss of Goodfellow et al. 2014."""
        loss = nn.functional.binary_cross_entropy_with_logits
        one, zero = torch.ones(self.args.batch), torch.zeros(self.args.batch)
        one, zero = one.to(self.args.device), zero.to(self.args.device)
        for _ in range(steps):
            real = self.data[torch.randint(len(self.data), (self.args.batch,), generator=self.random)]
            fake = self.generator(self.latents(self.args.batch))
            of_d = loss(self.discriminator(real), one) + loss(self.discriminator(fake.detach()), zero)
            self.optimizers[0].zero_grad()
            of_d.backward()
            self.optimizers[0].step()
            of_g = loss(self.discriminator(fake), one)
            self.optimizers[1].zero_grad()
            of_g.backward()
            self.optimizers[1].step()
        self.step += steps

    @torch.no_grad()
    def images(self) -> np.ndarray:
        """Return --images generated images, uint8 (n, h, w, 3)."""
        self.generator.eval()
        parts = [to_uint8(self.generator(self.latents(n))) for n in _batches(self.args.images)]
        self.generator.train()
        return np.concatenate(parts)

    def checkpoint(self, evaluator: fastfid.Evaluator) -> None:
        """Score the generator, and keep all that is needed to go on from here."""
        images = self.images()
        evaluator.update(images)
        found = evaluator.compute()
        evaluator.reset()  # the real side stays
        fid = found["fid"]
        row = {"step": self.step, "fid": fid.value, "standard_error": fid.standard_error}
        self.curve.append({**row, "inception_score": found["is:torch-fidelity"].value})
        if self.step == 0:
            np.save(self.folder / f"{self.name}-start.npy", images)
        if fid.value < self.best[0]:
            self.best = (fid.value, images)
        state = {
            "conditions": conditions(self.args),
            "step": self.step,
            "curve": self.curve,
            "networks": [self.discriminator.state_dict(), self.generator.state_dict()],
            "optimizers": [one.state_dict() for one in self.optimizers],
            "random": self.random.get_state(),
            "best": (self.best[0], torch.from_numpy(self.best[1])),
        }
        torch.save(state, self.folder / f"{self.name}.pt.new")
        os.replace(self.folder / f"{self.name}.pt.new", self.folder / f"{self.name}.pt")

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        path = self.folder / f"{self.name}.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        if state["conditions"] != conditions(self.args):
            raise SystemExit(f"gan.py: {path}: was made with other options; give another -o")
        self.step, self.curve = state["step"], state["curve"]
        for network, kept in zip((self.discriminator, self.generator), state["networks"], strict=True):
            network.load_state_dict(kept)
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.random.set_state(state["random"])
        self.best = (state["best"][0], state["best"][1].numpy())

    def finish(self, evaluator: fastfid.Evaluator) -> dict[str, object]:
        """Train to the end, and return the record of the run."""
        done = self.folder / f"{self.name}.json"
        if done.exists():
            record: dict[str, object] = json.loads(done.read_text())
            if record["conditions"] != conditions(self.args):
                raise SystemExit(f"gan.py: {done}: was made with other options; give another -o")
            return record
        self.resume()
        if not self.curve:
            self.checkpoint(evaluator)
        while self.step < self.args.steps:
            self.train(min(self.args.every, self.args.steps - self.step))
            self.checkpoint(evaluator)
        np.save(self.folder / f"{self.name}-best.npy", self.best[1])
        of_run = {"discriminator": self.rates[0], "generator": self.rates[1], "seed": self.seed}
        record = {**of_run, "conditions": conditions(self.args), "curve": self.curve}
        write(done, as_json(record))
        (self.folder / f"{self.name}.pt").unlink()
        return record


def _batches(n: int, size: int = 256) -> list[int]:
    return [min(size, n - start) for start in range(0, n, size)]


def conditions(args: argparse.Namespace) -> dict[str, object]:
    """Return the options that change a run."""
    return {name: getattr(args, name) for name in ("data", "size", "steps", "every", "images", "batch", "epochs")}


def summary(records: list[dict], args: argparse.Namespace) -> dict:
    """Return, for each pair of rates, mean and standard deviation over the seeds, and the best pair of each kind."""
    pairs = []
    for (d, g), group in itertools.groupby(records, lambda one: (one["discriminator"], one["generator"])):
        curves = [one["curve"] for one in group]
        values = np.array([[row["fid"] for row in curve] for curve in curves])
        scores = np.array([[row["inception_score"] for row in curve] for curve in curves])
        means = values.mean(axis=0)
        best = int(np.argmin(means))
        pairs.append(
            {
                "discriminator": d,
                "generator": g,
                "time_scales": 1 if d == g else 2,
                "steps": [row["step"] for row in curves[0]],
                "fid": means.tolist(),
                "standard_deviation": [statistics.stdev(v) if len(v) > 1 else None for v in values.T.tolist()],
                "best_step": curves[0][best]["step"],
                "best_fid": values[:, best].tolist(),
                "last_fid": values[:, -1].tolist(),
                "inception_score_at_best": scores[:, best].tolist(),
            }
        )
    best = {
        n: min((p for p in pairs if p["time_scales"] == n), key=lambda p: min(p["fid"]), default=None) for n in (1, 2)
    }
    return {"conditions": {**conditions(args), "rates": args.rates, "seeds": args.seeds}, "pairs": pairs, "best": best}


def with_error(values: list[float]) -> str:
    """Return the mean of the seeds with the standard deviation over them."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def table(found: dict) -> str:
    """Return the table "best of one time scale against two", in Markdown."""
    lines = ["| time scales | pairs tried | rate of D | rate of G | best FID | at step | last FID | Inception Score |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for count, best in found["best"].items():
        if best is None:
            continue
        tried = sum(p["time_scales"] == int(count) for p in found["pairs"])
        cells = [count, tried, f"{best['discriminator']:g}", f"{best['generator']:g}", with_error(best["best_fid"])]
        cells += [best["best_step"], with_error(best["last_fid"]), with_error(best["inception_score_at_best"])]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def inception(found: dict, real: np.ndarray, args: argparse.Namespace) -> None:
    """Add the FIDs of the Inception network, at the start and at the best of the best pairs, first seed."""
    n = args.inception
    for dims in (64, 2048):
        whole = fastfid.compute_statistics(real[:n], dims=dims, device=args.device)
        for best in filter(None, found["best"].values()):
            name = f"d{best['discriminator']:g}-g{best['generator']:g}-seed0"
            for when in ("start", "best"):
                images = np.load(args.output / "work" / f"{name}-{when}.npy")[:n]
                fid = fastfid.compute_fid(whole, images, dims=dims, return_info=True, device=args.device)
                kept = best.setdefault("inception", {}).setdefault(str(dims), {"n": len(images)})
                kept[when] = {"fid": fid["fid"], "standard_error": fid["metrics"][0]["standard_error"]}
                print(f"Inception, {dims} dims, n = {len(images)}, {name}, {when}: FID {fid['fid']:.3f}", flush=True)


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("ttur-gan"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--data", metavar="PATH", help="a folder or archive with a sub-folder a class; default: digits")
    parser.add_argument("--size", type=int, default=32, help="side of the pictures of --data; default: %(default)s")
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[1e-4, 3e-4, 1e-3, 3e-3],
        metavar="RATE",
        help="of either network: all pairs are trained; default: 1e-4 3e-4 1e-3 3e-3",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each pair of rates; default: %(default)s")
    parser.add_argument("--steps", type=int, default=4000, help="of each run; default: %(default)s")
    parser.add_argument("--every", type=int, default=250, help="steps between two checkpoints; default: %(default)s")
    parser.add_argument("--images", type=int, default=1797, help="generated images of a score; default: %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=30, help="of the classifier; default: %(default)s")
    parser.add_argument(
        "--inception", type=int, default=0, metavar="N", help="Inception FIDs of N images too; default: none"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch; default: %(default)s")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="of the GAN and of Inception; default: %(default)s")
    return parser.parse_args()


def main() -> None:
    """Train every pair of rates with every seed, and write what came out."""
    args = parse()
    torch.set_num_threads(args.threads)
    (args.output / "work").mkdir(parents=True, exist_ok=True)
    images, classes = load_pictures(args.data, args.size) if args.data else load_digits()
    if not (args.output / "work" / "classifier.npy").exists():
        accuracy = train_classifier(images, classes, args.output / "work", args.epochs)
        write(args.output / "work" / "accuracy.json", as_json(accuracy))
    accuracy = json.loads((args.output / "work" / "accuracy.json").read_text())
    print(f"{len(images)} images; the classifier is right on {accuracy:.1%} of a held-out fifth", flush=True)
    extractor = Classifier(args.output / "work", images.shape[1])
    real = to_uint8(to_tensor(images))
    evaluator = fastfid.Evaluator(["fid", "is:torch-fidelity"], real=real, extractor=extractor)
    half = np.random.default_rng(0).permutation(len(real))
    halves = fastfid.compute_fid(real[half[::2]], real[half[1::2]], extractor=extractor)
    records = []
    data = to_tensor(images).to(args.device)
    for rates in itertools.product(args.rates, args.rates):
        for seed in range(args.seeds):
            records.append(Run(args, data, rates, seed).finish(evaluator))
            fids = [row["fid"] for row in records[-1]["curve"]]
            name = f"D {rates[0]:g}, G {rates[1]:g}, seed {seed}"
            print(f"{name}: FID {fids[0]:.2f} at the start, {min(fids):.3f} at best, {fids[-1]:.3f} last", flush=True)
    found = {**summary(records, args), "classifier_accuracy": accuracy, "fid_of_two_halves": halves}
    if args.inception:
        inception(found, real, args)
    write(args.output / "gan.json", as_json(found))
    draw_curves(found, args.output / "gan-curves.png")
    draw_grid(found, args.output / "gan-grid.png")
    draw_samples(found, real, args.output)
    print(f"FID of one half of the real images to the other: {halves:.3f}")
    print(table(found))


if __name__ == "__main__":
    main()
