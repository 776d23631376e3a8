"""Makes tiny pipelines, ControlNets and LoRA files, and references by the pipelines of diffusers.

    python make.py OUT [CASE ...]

Install models/export/requirements.txt, peft, and lycoris-lora with einops and toml. The networks are made and exported
by models/export, so no third-party licence applies. References are computed by torch on the CPU in float32; each one
is computed again by ONNX Runtime with LoRAs merged into the weights, and cases.json has the largest difference. With
the names of cases, only these are made again.
"""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parents[2] / "models" / "export")]

import diffusers
import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from PIL import Image

import loras
import steered
import tiny
from cases import BATCHES, CASES, DDIM, Case
from export import export, write_json
from graphs import Options

TRAINING_STEPS = 150
# A tolerance is this many times the measured difference, but no less than 2e-4.
MARGIN, MIN_TOLERANCE = 10, 2e-4
# The autoencoders have the weights of these folders' ones.
AUTOENCODERS = {"sd": "sd_turbo", "sd_inpaint": "sd_turbo", "xl": "sdxl_turbo"}
# Has the weights of `controlnet`, and means of its residuals.
POOLED = "controlnet_shuffle"
NETS = {"sd": ["controlnet", "controlnet_1"], "sd_inpaint": ["controlnet"], "xl": ["controlnet"]}


def main() -> None:
    torch.set_num_threads(1)
    out, chosen = Path(sys.argv[1]), sys.argv[2:]
    models = out.with_name(out.name + ".torch")
    if not chosen:
        make_models(models)
        export_models(models, out)
        pictures(out / "reference")
        loras.write(out / "loras", lambda folder: load(models / folder))
    file = out / "cases.json"
    known = {case["name"]: case for case in json.loads(file.read_text())["cases"]} if chosen else {}
    for case in CASES:
        if not chosen or case.name in chosen:
            known[case.name] = reference(case, out, models)
    made = [known[case.name] for case in CASES]
    check_differences(made, out)
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers, np, onnxruntime)}
    # As diffusers writes it into configurations; JSON has no such number.
    text = json.dumps({"versions": versions, "batches": BATCHES, "cases": made}, indent=1)
    file.write_text(text.replace(": -Infinity", ': "-Infinity"') + "\n")


def make_models(models: Path) -> None:
    """Writes the folders for torch: `sd` and its variant for inpainting, `xl`, and the ControlNets."""
    for place in (models, steered.root(models)):
        shutil.rmtree(place, ignore_errors=True)
    for folder, family in (("sd", "sd_turbo"), ("xl", "sdxl_turbo")):
        tiny.make(family, models / folder, TRAINING_STEPS)
        DDIM.save_pretrained(models / folder / "scheduler")
        index = json.loads((models / folder / "model_index.json").read_text())
        write_json(models / folder / "model_index.json", index | {"scheduler": ["diffusers", "DDIMScheduler"]})
        unet = load(models / folder).unet
        for place, net in enumerate(NETS[folder]):
            tiny.controlnet(unet, 40 + place).save_pretrained(models / f"{folder}-{net}")
    shutil.copytree(models / "sd-controlnet", models / f"sd-{POOLED}")
    make_pooled(models / f"sd-{POOLED}")
    inpaint = models / "sd_inpaint"
    shutil.copytree(models / "sd", inpaint)
    shutil.copytree(models / "sd-controlnet", models / "sd_inpaint-controlnet")
    narrow = load(models / "sd").unet
    torch.manual_seed(50)
    wide = diffusers.UNet2DConditionModel.from_config({**narrow.config, "in_channels": 9})
    weights = narrow.state_dict()
    more = 0.1 * torch.randn(len(weights["conv_in.weight"]), 5, 3, 3)
    wide.load_state_dict(weights | {"conv_in.weight": torch.cat([weights["conv_in.weight"], more], dim=1)})
    for parameter in wide.parameters():
        parameter.data = parameter.data.half().float()
    wide.save_pretrained(inpaint / "unet")


def make_pooled(net: Path) -> None:
    config = json.loads((net / "config.json").read_text())
    write_json(net / "config.json", config | {"global_pool_conditions": True})


def export_models(models: Path, out: Path) -> None:
    """Writes the folders that the program reads. No graph has live inputs, as those of optimum."""
    for folder, family in AUTOENCODERS.items():
        shutil.rmtree(out / folder, ignore_errors=True)
        export(models / folder, out / folder, Options())
        for net in NETS[folder]:
            export(models / f"{folder}-{net}", out / folder / net, Options())
            shorten(out / folder / net / "model.onnx", nodes=True)
        for graph in (out / folder).glob("*/model.onnx"):
            if graph.parent.name in ("unet", "text_encoder", "text_encoder_2"):
                shorten(graph, nodes=False)
        for part in ("vae_decoder", "vae_encoder"):
            check_weights(out / folder / part, HERE.parent / "families" / family / part)
            link(out / folder / part, Path("../../families") / family / part)
        if folder == "sd":
            # The program takes the means, also if a graph does not.
            (out / folder / POOLED).mkdir()
            shutil.copy(out / folder / "controlnet" / "config.json", out / folder / POOLED)
            make_pooled(out / folder / POOLED)
            (out / folder / POOLED / "model.onnx").symlink_to("../controlnet/model.onnx")
        if folder == "sd_inpaint":
            for part in ("text_encoder", "tokenizer", "controlnet", "scheduler"):
                link(out / folder / part, Path("../sd") / part)


def check_weights(part: Path, other: Path) -> None:
    """Exits if a graph has other weights than the one that replaces it."""
    first, second = ([weight.raw_data for weight in onnx.load(folder / "model.onnx").graph.initializer]
                     for folder in (part, other))
    if sorted(first) != sorted(second):
        sys.exit(f"make.py: {part} has other weights than {other}; make tests/golden/families again")


def link(part: Path, target: Path) -> None:
    shutil.rmtree(part)
    part.symlink_to(target)


def shorten(path: Path, nodes: bool) -> None:
    """Numbers the values between nodes, and the nodes too if `nodes` is set: names are half of a tiny file."""
    model = onnx.load(path)
    kept = {value.name for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]} | {""}
    short = {}
    for place, node in enumerate(model.graph.node):
        if nodes:
            node.name = str(place)
        for names in (node.input, node.output):
            names[:] = [name if name in kept else short.setdefault(name, f"v{len(short)}") for name in names]
    del model.graph.value_info[:]
    onnx.save(model, path)


def pictures(folder: Path) -> None:
    """Smooth pictures and a mask, of 48×32 pixels, and a wide one of 96×64."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(9)
    for name, size in (("a.png", (48, 32)), ("b.png", (48, 32)), ("wide.png", (96, 64))):
        coarse = generator.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.BICUBIC).save(folder / name)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:32, 16:40] = 255
    Image.fromarray(mask).save(folder / "mask.png")


def load(model: Path):
    pipe = diffusers.DiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline(case: Case, out: Path, models: Path, merge: bool):
    """The case's pipeline with its LoRAs."""
    parts = load(models / case.folder)
    loras.apply(parts, out / "loras", case.loras, merge)
    components = dict(parts.components) | {"scheduler": case.scheduler}
    if case.controls:
        nets = [diffusers.ControlNetModel.from_pretrained(models / f"{case.folder}-{control.net}")
                for control in case.controls]
        components["controlnet"] = nets if len(nets) > 1 else nets[0]
    if case.folder != "xl":
        components["requires_safety_checker"] = False
    pipe = getattr(diffusers, case.pipeline)(**components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, case: Case, out: Path, kind: str) -> np.ndarray:
    picture = lambda name: Image.open(out / "reference" / name)
    given = {"prompt": case.prompt, "negative_prompt": "blurry", "num_inference_steps": case.steps,
             "guidance_scale": case.guidance}
    controls = [picture(control.picture) for control in case.controls]
    one = lambda values: values if len(values) > 1 else values[0]
    if case.image:
        given |= {"image": picture(case.image), "strength": case.strength}
    if case.mask:
        given["mask_image"] = picture(case.mask)
    if case.mode != "img2img":
        given |= {"height": case.size[0], "width": case.size[1]}
    if controls:
        given["control_image" if case.image else "image"] = one(controls)
        given |= {"controlnet_conditioning_scale": one([control.scale for control in case.controls]),
                  "control_guidance_start": one([control.start for control in case.controls]),
                  "control_guidance_end": one([control.end for control in case.controls]),
                  "guess_mode": case.guess_mode}
    result = pipe(**given, generator=torch.Generator().manual_seed(case.seed), output_type=kind)[0]
    return np.asarray(result if isinstance(result, np.ndarray) else result.detach().numpy(), np.float32)


def reference(case: Case, out: Path, models: Path) -> dict:
    pipe = pipeline(case, out, models, merge=False)
    arrays = {kind: run(pipe, case, out, output) for kind, output in (("latents", "latent"), ("image", "np"))}
    graphs = pipeline(case, out, models, merge=True)
    steered.write_graphs(graphs, case, models)
    steered.attach_graphs(graphs, case, models, out)
    differences = {f"{kind}_max_abs": float(np.abs(run(graphs, case, out, output) - arrays[kind]).max())
                   for kind, output in (("latents", "latent"), ("image", "np"))}
    files = {}
    for name, array in arrays.items():
        files[name] = f"reference/{case.name}.{name}.npy"
        np.save(out / files[name], array)
    latents, image = arrays["latents"], arrays["image"]
    clipped = float(np.mean((image <= 0) | (image >= 1)))
    print(f"{case.name}: latents std {latents.std():.2f}, image {image.mean():.2f}, clipped {clipped:.3f}, differs "
          f"{differences}", flush=True)
    return {
        "name": case.name, "pipeline": case.pipeline, "folder": case.folder, "mode": case.mode, "prompt": case.prompt,
        "negative_prompt": "blurry", "steps": case.steps, "guidance": case.guidance, "seed": case.seed,
        "height": case.size[0], "width": case.size[1],
        "controls": [{"controlnet": control.net, "image": f"reference/{control.picture}", "scale": control.scale,
                      "start": control.start, "end": control.end} for control in case.controls],
        "guess_mode": case.guess_mode,
        "loras": [{"file": f"loras/{name}.safetensors", "weight": weight} for name, weight in case.loras],
        "init_image": case.image and f"reference/{case.image}", "mask_image": case.mask and f"reference/{case.mask}",
        "strength": case.strength if case.image else None,
        "scheduler": {key: value for key, value in pipe.scheduler.config.items() if key != "_use_default_values"}
        | {"_class_name": type(pipe.scheduler).__name__},
        "timesteps": [float(time) for time in pipe.scheduler.timesteps], "files": files,
        "latents_std": float(latents.std()), "image_clipped": clipped, "ort_vs_torch": differences,
        "tolerance": {name: max(MIN_TOLERANCE, MARGIN * value) for name, value in differences.items()},
    }


def check_differences(made: list[dict], out: Path) -> None:
    """Exits if two cases of one batch are so similar that a test could not tell them apart."""
    for batch in BATCHES:
        chosen = [case for case in made if case["name"] in batch]
        images = [np.load(out / case["files"]["image"]) for case in chosen]
        for place, image in enumerate(images):
            nearest = min(np.abs(image - other).max() for index, other in enumerate(images) if index != place)
            if nearest < 50 * chosen[place]["tolerance"]["image_max_abs"]:
                sys.exit(f"make.py: {chosen[place]['name']} differs by {nearest} from another case of its batch")


if __name__ == "__main__":
    main()
