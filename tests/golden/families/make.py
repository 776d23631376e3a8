"""Makes tiny folders of the newer families and of few-step models, with references of diffusers' own pipelines.

    python make.py OUT [FOLDER ...]

Install models/export/requirements.txt first. The networks are made and exported by models/export, so no third-party
licence applies. References are computed by torch on the CPU in float32; each one is computed again with the exported
graphs in ONNX Runtime, and cases.json has the largest difference.
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parents[2] / "models" / "export")]

import diffusers
import numpy as np
import onnx
import onnxruntime
import tokenizers
import torch
import transformers
from PIL import Image

import tiny
from cases import DOCUMENTED, FOLDERS, SAME, SHARED, SHORTENED, Case, cases
from export import export, write_json
from graphs import Options
from onnx_pipeline import attach

TRAINING_STEPS = 150
# A tolerance is this many times the measured difference, but no less than 1e-4 for latents and 2e-5 for pictures.
MARGIN = 8


def main() -> None:
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    pictures(out)
    file = out / "cases.json"
    known = json.loads(file.read_text())["cases"] if file.is_file() else []
    for folder in sys.argv[2:] or FOLDERS:
        models = out.with_name(out.name + ".torch")
        make(folder, out, models)
        made = [reference(case, folder, out, models / folder) for case in cases(folder)]
        known = [case for case in known if case["folder"] != folder] + made
        known.sort(key=lambda case: FOLDERS.index(case["folder"]))
        file.write_text(json.dumps({"versions": versions(), "notes": NOTES, "cases": known}, indent=1)
                        .replace(": -Infinity", ': "-Infinity"') + "\n")
        print(f"{folder}: {len(made)} cases", flush=True)


NOTES = (
    "files: float32 .npy. latents: as output_type=\"latent\" returns them. image: [h, w, 3] in 0 to 1. noise: every "
    "normal draw of the seeded generator in order, before it is scaled. trajectory: latents after each step. prompt, "
    "negative, *_mask: what the network is given. graphs_differ: largest difference of the pipeline with the exported "
    "graphs in ONNX Runtime from torch. documented: arguments that the model's documentation sets, which a default job "
    "must set by itself. Resolution binning and caption cleaning are off.")


def versions() -> dict:
    return {module.__name__: module.__version__ for module in (
        torch, diffusers, transformers, tokenizers, np, onnxruntime)}


def pictures(out: Path) -> None:
    """Writes two smooth pictures: wide.png of 96×64 pixels and square.png of 64×64."""
    (out / "reference").mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(9)
    for name, size in (("wide.png", (96, 64)), ("square.png", (64, 64))):
        coarse = generator.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.BICUBIC).save(out / "reference" / name)


def make(folder: str, out: Path, models: Path) -> None:
    """Writes `models/FOLDER` for torch and `out/FOLDER` for ONNX Runtime."""
    for place in (out / folder, models / folder):
        shutil.rmtree(place, ignore_errors=True)
    if folder not in SHARED:
        tiny.make(folder, models / folder, TRAINING_STEPS)
        export(models / folder, out / folder, Options())
        if folder in SHORTENED:
            for graph in (out / folder).rglob("*.onnx"):
                shorten_names(graph)
        for part, other in SAME.get(folder, {}).items():
            link(out, folder, part, other)
        return
    source, differs, scheduler = SHARED[folder]
    for place in (out, models):
        if not (place / source).is_dir():
            sys.exit(f"make.py: {folder} has the graphs of {source}; name {source} first")
        (place / folder).mkdir()
        for part in sorted((place / source).iterdir()):
            if part.is_dir() and (scheduler is None or part.name != "scheduler"):
                (place / folder / part.name).symlink_to(Path("..") / source / part.name)
        index = json.loads((place / source / "model_index.json").read_text()) | differs
        if scheduler is not None:
            scheduler.save_pretrained(place / folder / "scheduler")
            index["scheduler"] = ["diffusers", type(scheduler).__name__]
        write_json(place / folder / "model_index.json", index)


def shorten_names(path: Path) -> None:
    """Numbers the nodes of a graph and the values between them, whose names are half of a tiny file."""
    model = onnx.load(path)
    kept = {value.name for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]} | {""}
    short = {}
    for place, node in enumerate(model.graph.node):
        if any(attribute.HasField("g") for attribute in node.attribute):
            sys.exit(f"make.py: {path} has a node with a graph of its own, whose names cannot be shortened")
        node.name = str(place)
        for names in (node.input, node.output):
            names[:] = [name if name in kept else short.setdefault(name, f"v{len(short)}") for name in names]
    del model.graph.value_info[:]
    onnx.save(model, path)


def link(out: Path, folder: str, part: str, other: str) -> None:
    """Replaces a part by a link to that of another folder, which has the same graph under other names."""
    if not (out / other / part).is_dir():
        sys.exit(f"make.py: {folder} has {part} of {other}; name {other} first")
    shutil.rmtree(out / folder / part)
    (out / folder / part).symlink_to(Path("..") / other / part)


class Recorder:
    """Records normal draws from a seeded generator, and the conditions of the network's first evaluations."""

    def __init__(self, pipe):
        self.draws, self.calls = [], []
        self.network = pipe.unet if getattr(pipe, "unet", None) is not None else pipe.transformer
        self.forward = self.network.forward

    def __enter__(self):
        self.randn = torch.randn

        def randn(*size, generator=None, **named):
            drawn = self.randn(*size, generator=generator, **named)
            if generator is not None:
                self.draws.append(drawn.clone())
            return drawn

        def forward(*given, **named):
            if len(self.calls) < 2:
                self.calls.append((given, named))
            return self.forward(*given, **named)

        torch.randn, self.network.forward = randn, forward
        return self

    def __exit__(self, *_):
        torch.randn, self.network.forward = self.randn, self.forward

    def conditions(self, pipeline: str) -> dict[str, torch.Tensor]:
        given, named = self.calls[0]
        if pipeline.startswith("ZImage"):
            return dict(zip(("prompt", "negative"), (rows[None] for rows in given[2])))
        rows = named.get("encoder_hidden_states")
        found = {}
        if pipeline.startswith("Flux2"):
            found["prompt"] = rows
            # At guidance, a step evaluates the empty prompt second, at the same time.
            if len(self.calls) > 1 and torch.equal(named["timestep"], self.calls[1][1]["timestep"]):
                found["negative"] = self.calls[1][1]["encoder_hidden_states"]
            return found
        for name, value in (("", rows), ("_mask", named.get("encoder_attention_mask")),
                            ("_pooled", (named.get("added_cond_kwargs") or {}).get("text_embeds"))):
            if value is not None:
                halves = value.chunk(2) if len(value) == 2 else (value,)
                found[f"prompt{name}"] = halves[-1]
                if len(halves) == 2:
                    found[f"negative{name}"] = halves[0]
        return found


def reference(case: Case, folder: str, out: Path, model: Path) -> dict:
    pipe = load(case, model)
    given = arguments(case, out)
    trajectory = []

    def keep(_, step, time, values):
        trajectory.append(values["latents"].clone())
        return values

    with Recorder(pipe) as recorder:
        if "callback_on_step_end" in pipe.__call__.__code__.co_varnames:
            latents = run(pipe, case, given | {"callback_on_step_end": keep}, "latent")
        else:
            latents = run(pipe, case, given, "latent")
    image = run(pipe, case, given, "np")
    times, sigmas = pipe.scheduler.timesteps, getattr(pipe.scheduler, "sigmas", [])
    config = dict(pipe.scheduler.config)
    conditions = recorder.conditions(case.pipeline)

    graphs = load(case, model)
    attach(graphs, out / folder)
    differences = {
        "latents_max_abs": np.abs(run(graphs, case, given, "latent") - latents).max().item(),
        "image_max_abs": np.abs(run(graphs, case, given, "np") - image).max().item()}

    arrays = {"latents": latents, "image": image[0]}
    noise = [draw.numpy() for draw in recorder.draws]
    arrays |= {"noise": noise[0]} if len(noise) == 1 else {f"noise{place}": draw for place, draw in enumerate(noise)}
    if case.documented:
        arrays |= {name: value.float().numpy() for name, value in conditions.items()}
        if trajectory:
            arrays["trajectory"] = torch.cat(trajectory).numpy()
    files = {}
    for name, array in arrays.items():
        files[name] = f"reference/{case.name}.{name}.npy"
        np.save(out / files[name], np.asarray(array, np.float32))
    print(f"  {case.name}: latents std {latents.std():.2f}, image {image.mean():.2f}, clipped "
          f"{np.mean((image <= 0) | (image >= 1)):.3f}, differs {differences}", flush=True)
    return {
        "name": case.name, "pipeline": case.pipeline, "folder": folder,
        "mode": "img2img" if "Img2Img" in case.pipeline else "reference" if case.images else "txt2img",
        "prompt": case.prompt, "negative_prompt": case.negative, "steps": case.steps, "guidance": case.guidance,
        "seed": case.seed, "options": {"height": case.size[0], "width": case.size[1]} | case.options,
        "documented": [*DOCUMENTED, *(name for name in case.options if name == "eta")] if case.documented else [],
        "images": [f"reference/{name}" for name in case.images],
        "scheduler": {key: value for key, value in config.items() if key != "_use_default_values"}
        | {"_class_name": type(pipe.scheduler).__name__},
        "scheduler_is_folder_default": case.scheduler is None,
        "timesteps": [float(time) for time in times], "sigmas": [float(sigma) for sigma in sigmas],
        "gaussian_draws": len(noise), "files": files, "latents_std": latents.std().item(),
        "image_clipped": np.mean((image <= 0) | (image >= 1)).item(), "graphs_differ": differences,
        "tolerance": {
            "latents_max_abs": max(1e-4, round_up(differences["latents_max_abs"] * MARGIN)),
            "image_max_abs": max(2e-5, round_up(differences["image_max_abs"] * MARGIN))},
    }


def round_up(value: float) -> float:
    """Rounds to one digit, upwards."""
    text = f"{value:.0e}"
    return float(text) if float(text) >= value else float(f"{value * 1.5:.0e}")


def load(case: Case, model: Path):
    pipe = getattr(diffusers, case.pipeline).from_pretrained(model)
    if case.scheduler is not None:
        pipe.scheduler = case.scheduler
    pipe.set_progress_bar_config(disable=True)
    return pipe


def arguments(case: Case, out: Path) -> dict:
    height, width = case.size
    given = {"prompt": case.prompt, "num_inference_steps": case.steps, "guidance_scale": case.guidance, **case.options}
    pictures = [Image.open(out / "reference" / name).convert("RGB") for name in case.images]
    if case.pipeline.startswith("StableDiffusion") and pictures:
        # These image-to-image pipelines take the picture's size.
        given["image"] = pictures[0].resize((width, height)) if pictures[0].size != (width, height) else pictures[0]
    else:
        given |= {"height": height, "width": width}
        if pictures:
            given["image"] = pictures if case.pipeline.startswith("Flux2") else pictures[0]
    if case.negative is not None:
        given["negative_prompt"] = case.negative
    if case.pipeline.startswith(("Sana", "PixArt")):
        given["use_resolution_binning"] = False
    if case.pipeline.startswith("PixArt"):
        given["clean_caption"] = False
    return given


def run(pipe, case: Case, given: dict, kind: str) -> np.ndarray:
    result = pipe(**given, generator=torch.Generator().manual_seed(case.seed), output_type=kind)[0]
    return np.asarray(result if isinstance(result, np.ndarray) else result.detach().numpy())


if __name__ == "__main__":
    main()
