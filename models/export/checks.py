"""Checks a folder, and the options for it, before the first graph is written."""

import json
import sys
from pathlib import Path

import controlnet
from families import CLIP, DIFFUSERS_WEIGHTS, FAMILIES, TRANSFORMERS_WEIGHTS, Family
from graphs import Options


def check(model: Path, out: Path, options: Options, only: list[str] | None) -> Family:
    """Returns the family of `model`, or exits with a sentence that names the first fault."""
    if not (model / "model_index.json").is_file():
        sys.exit(f"{model} has no model_index.json; name a folder that diffusers saved")
    if out.resolve() == model.resolve():
        sys.exit(f"{out} is the model itself; name another folder to write")
    if out.exists() and not out.is_dir():
        sys.exit(f"{out} is a file; name a folder to write")
    kind = json.loads((model / "model_index.json").read_text())["_class_name"]
    if kind not in FAMILIES:
        sys.exit(f"{model}/model_index.json: the pipeline {kind} can't be exported; these can: " + ", ".join(FAMILIES))
    family = FAMILIES[kind]
    check_only(family, model, only)
    check_folders(family, model, kind)
    check_options(family, model, options)
    return family


def check_only(family: Family, model: Path, only: list[str] | None) -> None:
    folders = family.graph_folders(model)
    for name in only or []:
        if name not in folders:
            sys.exit(f"--only {name}: this pipeline has no such graph; its graphs are " + ", ".join(folders))


def check_folders(family: Family, model: Path, kind: str) -> None:
    """Checks that each component has its configuration, of the expected class, and its weights."""
    encoders = family.encoders(model)
    components = [(name, "model_type", family.text_encoders[name], TRANSFORMERS_WEIGHTS) for name in encoders]
    components += [(family.network_folder, "_class_name", family.network, DIFFUSERS_WEIGHTS),
                   ("vae", "_class_name", family.autoencoder, DIFFUSERS_WEIGHTS)]
    graphs = sorted(model.glob("*/model.onnx"))
    for name, key, expected, weights in components:
        has_weights = any(is_complete(model / name, file) for file in weights)
        if graphs and not has_weights:
            sys.exit(f"{graphs[0]} is an ONNX graph, and {model}/{name} has no weights of PyTorch; name the folder "
                     "that diffusers saved")
        config = model / name / "config.json"
        if not config.is_file():
            sys.exit(f"{config} is missing, which {kind} needs; download the whole model, or correct _class_name in "
                     "model_index.json")
        found = json.loads(config.read_text()).get(key)
        if found != expected:
            sys.exit(f"{config}: {key} is {found}, but {kind} needs {expected}; correct _class_name in "
                     "model_index.json")
        if not has_weights:
            sys.exit(f"{model}/{name} has no complete {weights[0]} or {weights[1]}; download the whole model, with the "
                     "weights that have no variant such as fp16 in their names")
    for name in ["scheduler", *(encoder.replace("text_encoder", "tokenizer") for encoder in encoders)]:
        if not (model / name).is_dir():
            sys.exit(f"the folder {model}/{name} is missing, which {kind} needs; download the whole model")


def is_complete(folder: Path, weights: str) -> bool:
    """Whether the file `weights` is there, or its index with every part."""
    index = folder / f"{weights}.index.json"
    if index.is_file():
        return all((folder / part).is_file() for part in set(json.loads(index.read_text())["weight_map"].values()))
    return (folder / weights).is_file()


def check_controlnet(folder: Path, settings: dict, out: Path, options: Options, only: list[str] | None) -> None:
    """Exits with a sentence that names the first fault of a ControlNet's folder, or of the options for it."""
    kind, embedding = settings.get("_class_name"), settings.get("addition_embed_type")
    if kind != "ControlNetModel" or embedding not in (None, "text_time"):
        found = f"_class_name is {kind}" if kind != "ControlNetModel" else f"addition_embed_type is {embedding}"
        sys.exit(f"{folder}/config.json: {found}, which can't be exported; name the folder of a pipeline, with "
                 "model_index.json, or of a ControlNetModel for Stable Diffusion 1 or 2 or SDXL")
    if not any(is_complete(folder, file) for file in DIFFUSERS_WEIGHTS):
        sys.exit(f"{folder} has no complete {DIFFUSERS_WEIGHTS[0]} or {DIFFUSERS_WEIGHTS[1]}; download the whole model, "
                 "with the weights that have no variant such as fp16 in their names")
    if out.resolve() == folder.resolve():
        sys.exit(f"{out} is the model itself; name another folder to write")
    if out.exists() and not out.is_dir():
        sys.exit(f"{out} is a file; name a folder to write")
    if only:
        sys.exit(f"--only {only[0]}: a ControlNet is one graph; leave it out")
    check_counts(options)
    check_sides(options, controlnet.factor(settings))


def check_options(family: Family, model: Path, options: Options) -> None:
    check_counts(options)
    check_sides(options, family.side_multiple(model))
    if family.network == "ZImageTransformer2DModel":
        if options.batch not in (None, 1):
            sys.exit(f"--batch is {options.batch}, but Z-Image's graph takes one picture; leave it out")
        if options.text_length is not None:
            sys.exit("--text-length: Z-Image takes the rows of the prompt alone, so their number must stay free")
    if options.text_length is not None and set(family.text_encoders.values()) == {CLIP}:
        encoder = model / family.encoders(model)[0] / "config.json"
        rows = json.loads(encoder.read_text())["max_position_embeddings"]
        if options.text_length != rows:
            sys.exit(f"--text-length is {options.text_length}, but this model's text encoder always has {rows} rows; "
                     f"use {rows} or leave it out")


def check_counts(options: Options) -> None:
    for name in ("batch", "height", "width", "text_length"):
        value = getattr(options, name)
        if value is not None and value < 1:
            sys.exit(f"--{name.replace('_', '-')} is {value}, but it must be at least 1")


def check_sides(options: Options, step: int) -> None:
    for name in ("height", "width"):
        side = getattr(options, name)
        if side is not None and side % step:
            nearest = [str(size) for size in (side // step * step, side // step * step + step) if size]
            sys.exit(f"--{name} is {side}, but this model needs a multiple of {step}; use {' or '.join(nearest)}")
