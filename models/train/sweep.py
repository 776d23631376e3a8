"""Measure the quality of every sampler on `digits` and `swissroll`, with 4 to 1,000 evaluations.

Samples are drawn with the `denoised` program. Writes all results to docs/samplers.json, and from them
docs/samplers.png and the tables of docs/samplers.md.

    python models/train/sweep.py --program target/release/denoised --work work    (about an hour on one core)
    python models/train/sweep.py --only-draw                                      (redo the tables and the plot)
"""

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

import classifier
import data
from measure import energy_distance

ROOT = Path(__file__).parent.parent.parent
COSTS = [4, 6, 8, 10, 15, 20, 30, 50, 100, 250, 1000]
# Maximum number of evaluations on `digits`, if it is not 50.
FAR = {"ddpm": 1000, "ddim": 1000, "dpmpp_2m": 250, "euler_a": 250, "euler": 250, "sohl_dickstein": 250, "dpmpp_2m_sde": 250}
SAMPLERS = [
    "ddpm", "sohl_dickstein", "ddim", "pndm", "euler", "euler_a", "heun", "lms", "dpm_2", "dpm_2_a", "dpmpp_2m",
    "dpmpp_2m_karras", "dpmpp_3m", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "dpmpp_2s_a", "dpm_single", "deis",
    "unipc", "sa", "sgld"]
# Evaluations per step, if it is not one.
EVALUATIONS = {"heun": 2, "dpm_2": 2, "dpm_2_a": 2, "dpmpp_sde": 2, "dpmpp_2s_a": 2, "sgld": 5}
DIGITS_COUNT = 100
PLOTTED = ["ddpm", "ddim", "euler_a", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "sgld"]


def steps_for(sampler: str, cost: int) -> int:
    """The largest number of steps with at most `cost` evaluations."""
    each = EVALUATIONS.get(sampler, 1)
    if sampler == "pndm":
        return cost - 9  # the Runge-Kutta start takes twelve evaluations for three steps
    # The last step of a second-order method is first order.
    return (cost + 1) // 2 if each == 2 else cost // each


def sample(program, model: str, output: Path, *more: str):
    """Run the program. Returns the samples and the number of evaluations that it reports."""
    command = [program, "sample", str(ROOT / "models" / model), "--output", str(output), *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1]
    return np.load(output), int(re.search(r"NFE (\d+)", done.stderr).group(1))


def sweep_digits(program, work, folder):
    judge = classifier.trained(work)
    _, _, held_out, _ = data.digits(work)
    cases = [(s, cost, 1.0) for s in SAMPLERS for cost in COSTS if cost <= FAR.get(s, 50)]
    cases += [("ddim", 10, 2.0), ("dpmpp_2m", 10, 2.0), ("unipc", 10, 2.0), ("dpmpp_2m_sde", 10, 2.0), ("dpmpp_2m_karras", 10, 2.0), ("ddpm", 1000, 2.0)]
    for sampler, cost, guidance in cases:
        steps = steps_for(sampler, cost)
        if steps < 1:
            continue
        parts, evaluations = [], None
        for label in range(10):
            arguments = ["--sampler", sampler, "--steps", str(steps), "--class", str(label), "--guidance", str(guidance)]
            more = ["--count", str(DIGITS_COUNT // 10), "--seed", str(1000 * label)]
            part, evaluations = sample(program, "digits", folder / "x.npy", *arguments, *more)
            if part is None:
                break
            parts.append(torch.from_numpy(part))
        if part is None:
            print("digits", sampler, steps, evaluations, flush=True)
            continue
        images = (torch.cat(parts) / 2 + 0.5).clamp(0, 1)
        labels = torch.arange(10).repeat_interleave(DIGITS_COUNT // 10)
        with torch.no_grad():
            right = (judge(images).argmax(1) == labels).float().mean().item()
        distance = classifier.frechet(judge, images, held_out)
        yield {"model": "digits", "sampler": sampler, "steps": steps, "nfe": evaluations, "guidance": guidance,
               "agreement": right, "distance": distance}


def sweep_swissroll(program, work, folder):
    held_out = data.swiss_roll(4096, seed=99).numpy()
    for sampler in SAMPLERS:
        for cost in COSTS:
            steps = steps_for(sampler, cost)
            if steps < 1:
                continue
            arguments = ["--sampler", sampler, "--steps", str(steps), "--count", "4", "--seed", "1"]
            points, evaluations = sample(program, "swissroll", folder / "x.npy", *arguments)
            if points is None:
                print("swissroll", sampler, steps, evaluations, flush=True)
                continue
            distance = energy_distance(points.reshape(-1, 2), held_out)
            yield {"model": "swissroll", "sampler": sampler, "steps": steps, "nfe": evaluations, "distance": distance}


def floors(work):
    """The same distances between two sets of data."""
    judge, (train, _, held_out, _) = classifier.trained(work), data.digits(work)
    torch.manual_seed(0)
    some = train[torch.randperm(len(train))[:DIGITS_COUNT]]
    roll = energy_distance(data.swiss_roll(4096, seed=100).numpy(), data.swiss_roll(4096, seed=99).numpy())
    return {"digits": classifier.frechet(judge, some, held_out), "swissroll": roll}


def table(rows, model, guidance, show):
    rows = [row for row in rows if row["model"] == model and row.get("guidance", guidance) == guidance]
    costs = [cost for cost in COSTS if any(row["nfe"] <= cost for row in rows)]
    lines = ["| sampler | " + " | ".join(f"{cost}" for cost in costs) + " |", "|---" * (len(costs) + 1) + "|"]
    for sampler in SAMPLERS:
        cells = []
        for below, cost in zip([0, *costs], costs):
            found = [row for row in rows if row["sampler"] == sampler and below < row["nfe"] <= cost]
            cells.append(show(found[-1]) if found else "")
        if any(cells):
            lines.append(f"| {sampler} | " + " | ".join(cells) + " |")
    return lines


def draw(result):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), dpi=110)
    names = {"digits": "digits, without guidance: Fréchet distance", "swissroll": "Swiss roll: energy distance"}
    for panel, model in zip(panels, names):
        for sampler in PLOTTED:
            rows = [r for r in result["rows"] if r["model"] == model and r["sampler"] == sampler and r.get("guidance", 1) == 1]
            panel.plot([r["nfe"] for r in rows], [r["distance"] for r in rows], marker="o", markersize=3, label=sampler)
        panel.axhline(result["floors"][model], color="grey", linestyle=":", label="data against data")
        panel.set(xscale="log", yscale="log", title=names[model], xlabel="network evaluations (NFE)")
        panel.grid(alpha=0.3)
    panels[1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(ROOT / "docs/samplers.png")


def write(result):
    rows = result["rows"]
    guided = [r for r in rows if r.get("guidance") == 2.0]
    parts = {
        "digits": table(rows, "digits", 1.0, lambda r: f"{r['distance']:.0f} ({r['agreement']:.0%})"),
        "guided": ["| sampler | NFE | label agreement | Fréchet distance |", "|---|---|---|---|"]
        + [f"| {r['sampler']} | {r['nfe']} | {r['agreement']:.0%} | {r['distance']:.1f} |" for r in guided],
        "swissroll": table(rows, "swissroll", None, lambda r: f"{r['distance'] * 1000:.1f}"),
        "floors": [f"For comparison, between training and held-out data: the Fréchet distance of the same number of digits is "
                   f"{result['floors']['digits']:.0f}, and the energy distance of two Swiss rolls is "
                   f"{result['floors']['swissroll'] * 1000:.1f}."],
    }
    file = ROOT / "docs/samplers.md"
    text = file.read_text()
    for name, lines in parts.items():
        before, rest = text.split(f"<!-- {name} -->\n")
        _, after = rest.split("<!-- end -->", 1)
        text = before + f"<!-- {name} -->\n" + "\n".join(lines) + "\n<!-- end -->" + after
    file.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default="target/release/denoised")
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--only-draw", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = ROOT / "docs/samplers.json"
    if not given.only_draw:
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for sweep in (sweep_swissroll, sweep_digits):
                for row in sweep(Path(given.program).resolve(), given.work, Path(folder)):
                    print(row, flush=True)
                    rows.append(row)
        result = {"floors": floors(given.work), "rows": rows}
        file.write_text("{\n\"floors\": " + json.dumps(result["floors"]) + ",\n\"rows\": [\n"
                        + ",\n".join(json.dumps(row) for row in rows) + "\n]\n}\n")
    result = json.loads(file.read_text())
    draw(result)
    write(result)


if __name__ == "__main__":
    main()
