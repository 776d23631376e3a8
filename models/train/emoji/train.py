"""Train the emoji: autoencoder, text encoder with U-Net, distilled U-Net, and classifier.

Every phase has a budget of seconds and uses a GPU if there is one, so the same command serves a GPU for minutes and a
processor for hours. A phase that was stopped resumes from its state in `--work`; delete the `*.state` files to begin
again. `all` trains the autoencoder and the classifier in one process, while another one prepares the prompts and
compiles the U-Net, which is then trained on the latents.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from torch import multiprocessing

import autoencoder
import classifier
import networks
import text_to_latents
from training import join, log, set_up


def train_all(given, arguments: list[str]):
    """Run the phases as processes. Exits with the first failure's code."""
    run = [sys.executable, __file__]
    (given.out / "vae.json").unlink(missing_ok=True)
    drawing = subprocess.Popen([*run, "network", *arguments])
    codes = []
    for phase in ("autoencoder", "classifier"):
        codes.append(subprocess.call([*run, phase, *arguments]))
        if codes[0] != 0:
            # Without an autoencoder, the network would wait for ever.
            drawing.terminate()
    codes.append(drawing.wait())
    log(f"exit codes of the autoencoder, the classifier and the network: {codes}")
    sys.exit(next((1 for code in codes if code != 0), 0))


def train_network(rank: int, given):
    """What each process of the network's training does."""
    set_up(given.threads)
    join(rank, given.processes, given.work / "meeting")
    text_to_latents.train(given)


def train_together(given):
    """Train the network in one process or in several."""
    if given.processes == 1:
        text_to_latents.train(given)
    else:
        (given.work / "meeting").unlink(missing_ok=True)
        multiprocessing.spawn(train_network, (given,), given.processes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=["autoencoder", "network", "classifier", "all"])
    parser.add_argument("--work", type=Path, default=Path("work"), help="has emoji.npz and tokenizer; gets the states")
    parser.add_argument("--out", type=Path, help="where the weights and sheets go; by default --work")
    parser.add_argument("--size", choices=list(networks.SIZES), default="full", help="of the networks")
    parser.add_argument("--pictures", choices=["all", "few"], default="all",
                        help="few: no flags, symbols, people and rare things; nothing is moved or mirrored")
    parser.add_argument("--autoencoder", type=float, default=3600, metavar="SECONDS")
    parser.add_argument("--network", type=float, default=36000, metavar="SECONDS")
    parser.add_argument("--distillation", type=float, default=7200, metavar="SECONDS")
    parser.add_argument("--classifier", type=float, default=1800, metavar="SECONDS")
    parser.add_argument("--until", type=float, default=0, metavar="SECONDS",
                        help="end the network and its distillation so long after the start, whatever --network is")
    parser.add_argument("--guidance", type=float, default=2.5, help="of the trajectories that are distilled")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the network")
    parser.add_argument("--batch", type=int, default=0, help="of the network in each process; by default 512 on a GPU and 32 otherwise")
    parser.add_argument("--plan", type=int, default=262144, help="number of augmented pictures")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="that train the network together on a processor")
    given = parser.parse_args()
    given.out = given.out or given.work
    given.out.mkdir(parents=True, exist_ok=True)
    set_up(given.threads)
    match given.phase:
        case "autoencoder":
            autoencoder.train(given)
        case "network":
            train_together(given)
        case "classifier":
            classifier.train(given)
        case "all":
            train_all(given, sys.argv[2:])


if __name__ == "__main__":
    main()
