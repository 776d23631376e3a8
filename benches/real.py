"""Compares `denoised` with plain Python at the size of Stable Diffusion 1.5: `python real.py DENOISED`.

Runs the same job with both in turns, and prints a table with the targets. `just bench real` calls it. Environment:

    DENOISED_REAL           a Stable Diffusion folder with float16 or float32 weights, or else
    DENOISED_REAL_FIXTURE   a folder with fill.py, which makes one (2 GB, in target/bench-real)
    DENOISED_REAL_ROUNDS    how often each start is measured [default: 1]; the median counts
    ORT_DYLIB_PATH          the ONNX Runtime library for denoised, of the version that Python imports

Needs onnxruntime, numpy and tokenizers.
"""

import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from real_peer import latent_side

HERE = Path(__file__).resolve().parent
JOB = {"prompt": "a photograph of a red fox in the snow", "negative_prompt": "blurry", "steps": 2, "guidance": 7.5}
SIDE = 256
EVALUATION_SIDE, EVALUATION_BATCH = 512, 2
# Differences of two pictures of the same job, in steps of 255: the order of sums may differ, and float16 rounds.
MEAN_TOLERANCE, MAX_TOLERANCE = 1, 16


def folder():
    """Returns the model's folder, and makes it if only the fixture is known."""
    if given := os.environ.get("DENOISED_REAL"):
        path = Path(given)
        if not (path / "unet/model.onnx").is_file():
            sys.exit(f"benches/real.py: DENOISED_REAL: {path} has no unet/model.onnx; name a Stable Diffusion folder")
        return path
    fixture = os.environ.get("DENOISED_REAL_FIXTURE")
    if not fixture or not (Path(fixture) / "fill.py").is_file():
        sys.exit("benches/real.py: set DENOISED_REAL to a Stable Diffusion folder (float16, with text_encoder, unet and "
                 "vae_decoder), or DENOISED_REAL_FIXTURE to a folder whose fill.py makes one")
    path = HERE.parent / "target/bench-real"
    if not (path / "filled").is_file():
        print(f"filling {path} (2 GB)", file=sys.stderr)
        subprocess.run([sys.executable, str(Path(fixture) / "fill.py"), str(path)], check=True)
        (path / "filled").touch()
    return path


def measured(command, environment):
    """Runs a command, and returns its seconds and its peak resident memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"benches/real.py: {' '.join(command)} failed:\n{errors.decode(errors='replace')}")
    print(f"{seconds:.1f} s, {usage.ru_maxrss / 1024:.0f} MiB: {command[0]} {command[1]}", file=sys.stderr)
    return seconds, usage.ru_maxrss / 1024


def environment(cache):
    """The environment of `denoised`, with this engine cache and without this machine's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DENOISED_")}
    return {**kept, "DENOISED_ENGINE__CACHE": str(cache), "DENOISED_ENGINE__PROVIDERS": "cpu"}


def pixels(file):
    """Decodes an RGB PNG of 8 bits."""
    data, at, compressed = Path(file).read_bytes(), 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 2), "expected RGB of 8 bits"
        if kind == b"IDAT":
            compressed += body
        at += 12 + length
    raw = np.frombuffer(zlib.decompress(compressed), np.uint8).reshape(height, 1 + 3 * width)
    rows = np.zeros((height + 1, 3 * width + 3), int)
    for y, row in enumerate(raw, 1):
        kind, own, above = row[0], rows[y], rows[y - 1]
        for x, value in enumerate(row[1:].tolist(), 3):
            a, b, c = own[x - 3], above[x], above[x - 3]
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            own[x] = (value + (0, a, b, (a + b) // 2, nearest)[kind]) % 256
    return rows[1:, 3:]


def check_pictures(own, peer):
    difference = abs(pixels(own) - pixels(peer))
    print(f"\nThe pictures of both differ by {difference.mean():.3f} of 255 on average, and by {difference.max()} at most "
          f"(tolerance: {MEAN_TOLERANCE} and {MAX_TOLERANCE}).")
    if difference.mean() > MEAN_TOLERANCE or difference.max() > MAX_TOLERANCE:
        sys.exit("benches/real.py: they differ by more than the tolerance: the figures do not compare the same job")


def starts(program, model, work):
    """Measures both programs in turns. Returns the (seconds, MiB) of the first starts, the later ones and the peer's."""
    noise, job = work / "noise.npy", work / "job.json"
    latent = latent_side(model, SIDE)
    np.save(noise, np.random.default_rng(1).standard_normal((1, 4, latent, latent), np.float32))
    job.write_text(json.dumps({**JOB, "width": SIDE, "height": SIDE, "sampler": "ddim"}))
    own = [program, "sample", str(model), "--engine", "onnxruntime", "--job", str(job), "--init-noise", str(noise),
           "--output", str(work / "own.png")]
    peer = [sys.executable, str(HERE / "real_peer.py"), "draw", str(model), str(job), str(noise),
            str(work / "latents.npy"), str(work / "peer.png")]
    first, later, plain = [], [], []
    for number in range(int(os.environ.get("DENOISED_REAL_ROUNDS", "1"))):
        settings = environment(work / f"cache{number}")
        first.append(measured(own, settings))
        plain.append(measured(peer, dict(os.environ)))
        later.append(measured(own, settings))
        plain.append(measured(peer, dict(os.environ)))
    check_pictures(work / "own.png", work / "peer.png")
    return first, later, plain


def evaluations(program, model, work):
    """Returns the seconds of an evaluation in `denoised` and in a bare session."""
    command = [program, "bench", str(model), "--engine", "onnxruntime", "--json", "--steps", "1", "--repeat", "2",
               "--size", str(EVALUATION_SIDE), "--batch", str(EVALUATION_BATCH)]
    report = subprocess.run(command, env=environment(work / "cache0"), stdout=subprocess.PIPE, check=True).stdout
    [figures] = json.loads(report)["evaluations"]
    if "error" in figures:
        sys.exit(f"benches/real.py: the evaluation failed: {figures['error']}")
    command = [sys.executable, str(HERE / "real_peer.py"), "evaluate", str(model), str(EVALUATION_SIDE),
               str(EVALUATION_BATCH), "3"]
    _, *bare = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    return figures["median_ms"] / 1e3, statistics.median(map(float, bare))


def row(what, own, peer, unit, target):
    ratio = own / peer
    result = "met" if ratio <= target else "missed"
    print(f"| {what} | {own:.1f} {unit} | {peer:.1f} {unit} | {ratio:.2f} × | ≤ {target} × | {result} |", flush=True)


def main():
    program, model = sys.argv[1], folder()
    with tempfile.TemporaryDirectory(dir=HERE.parent / "target") as work:
        work = Path(work)
        first, later, plain = starts(program, model, work)

        def seconds(runs):
            return statistics.median(run[0] for run in runs)

        print("\n| what | denoised | peer | ratio | target | result |\n|---|---|---|---|---|---|")
        job = f"start to picture, {SIDE}×{SIDE}, {JOB['steps']} steps"
        row(f"{job}, first start", seconds(first), seconds(plain), "s", 0.75)
        row(f"{job}, later starts", seconds(later), seconds(plain), "s", 0.3)
        peak = max(run[1] for run in first + later)
        row("peak resident memory of either", peak, min(run[1] for run in plain), "MiB", 0.75)
        own, bare = evaluations(program, model, work)
        row(f"an evaluation at {EVALUATION_SIDE}×{EVALUATION_SIDE}, batch {EVALUATION_BATCH}, beside the bare session",
            own, bare, "s", 0.85)


if __name__ == "__main__":
    main()
