"""Exports a diffusers folder as a folder of ONNX graphs that `denoised` runs.

    python export.py MODEL OUT [--dtype float16] [--weights int8] [--height 1024 --width 1024 --batch 1]

MODEL is a folder as diffusers saves it: a pipeline, with model_index.json, or a ControlNet. README.md has a command for
each family.
"""

import argparse
import json
import re
import shutil
import warnings
from pathlib import Path

import torch

import controlnet
from checks import check, check_controlnet
from graphs import Graph, Options, write
from quantize import BITS, quantize

# Local names that diffusers and transformers write into configurations.
LOCAL_KEYS = ("_name_or_path",)


def main() -> None:
    given = arguments()
    options = Options(getattr(torch, given.dtype), given.opset, given.batch, given.height, given.width,
                      given.text_length, given.external_data)
    export(given.model, given.out, options, given.weights, given.only)


def export(model: Path, out: Path, options: Options, weights: str | None = None, only: list[str] | None = None) -> None:
    """Writes the folder `out`; `weights` is "int8" or "int4", `only` names the graphs to write.

    Of a ControlNet, `out` is the folder of its graph, such as `controlnet` in that of an exported pipeline.
    """
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    torch.manual_seed(0)
    if settings := controlnet.config(model):
        check_controlnet(model, settings, out, options, only)
        out.parent.mkdir(parents=True, exist_ok=True)
        export_graph(controlnet.graph(model, out.name, settings, options), model, out.parent, options, weights)
        return
    family = check(model, out, options, only)
    index = read_json(model / "model_index.json")
    out.mkdir(parents=True, exist_ok=True)
    if not only:
        # Without it, an interrupted export can't be taken for a complete one.
        (out / "model_index.json").unlink(missing_ok=True)
    index["_name_or_path"] = published_name(index, model)
    copy_settings(model, out)
    for graph in family.graphs(model, options):
        if not only or graph.folder in only:
            export_graph(graph, model, out, options, weights)
    write_json(out / "model_index.json", index, local_keys=())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="folder as diffusers saves it, of a pipeline or a ControlNet")
    parser.add_argument("out", type=Path, help="folder to write; of a ControlNet, the one of its graph")
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32",
                        help="type of weights and activations [default: float32]")
    parser.add_argument("--weights", choices=list(BITS),
                        help="store the weights of text encoders and the network in 8 or 4 bits; needs ONNX Runtime")
    parser.add_argument("--opset", type=int, default=17, help="[default: 17]")
    parser.add_argument("--height", type=int, help="fix the height of pictures, in pixels")
    parser.add_argument("--width", type=int, help="fix the width of pictures, in pixels")
    parser.add_argument("--batch", type=int, help="fix the batch size; guidance evaluates two samples a picture")
    parser.add_argument("--text-length", type=int, help="fix the number of text rows")
    parser.add_argument("--external-data", action="store_true",
                        help="keep weights in model.onnx_data, also of graphs under 64 MiB")
    parser.add_argument("--only", nargs="+", metavar="FOLDER",
                        help="export these graphs alone, such as unet, transformer or vae_decoder")
    return parser.parse_args()


def export_graph(graph: Graph, model: Path, out: Path, options: Options, weights: str | None) -> None:
    """Writes the graph and its configuration to a folder beside its own, which is renamed when it is complete."""
    name, config = graph.folder, graph.config
    partial, target = out / f"{name}.partial", out / name
    shutil.rmtree(partial, ignore_errors=True)
    path = write(graph, partial, options)
    source = model / ("vae" if name.startswith("vae_") else name) / "config.json"
    write_json(partial / "config.json", config or read_json(source))
    quantised = ""
    if weights and not name.startswith("vae_"):
        quantised = f", {quantize(path, weights, options.external_data)} weights in {weights}"
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    size = sum(file.stat().st_size for file in target.glob("model.onnx*"))
    print(f"{target / path.name}: {size / 1e6:.1f} MB{quantised}", flush=True)


def copy_settings(model: Path, out: Path) -> None:
    """Copies the scheduler and the tokenizers."""
    for folder in sorted(model.iterdir()):
        if folder.name == "scheduler" or folder.name.startswith("tokenizer"):
            target = out / folder.name
            shutil.copytree(folder, target, dirs_exist_ok=True)
            for file in target.glob("*config.json"):
                write_json(file, read_json(file))
            if folder.name.startswith("tokenizer"):
                complete_tokenizer(folder, target)


def published_name(index: dict, model: Path) -> str:
    """Returns the name by which `denoised` recognises a model for few steps: ORGANISATION/NAME, or else the folder's."""
    name = index.get("_name_or_path") or ""
    is_published = re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith(".") and not Path(name).exists()
    return name if is_published else model.resolve().name


def complete_tokenizer(folder: Path, target: Path) -> None:
    """Writes tokenizer.json where only the files of a Python tokenizer exist. CLIP needs vocab.json alone."""
    if (target / "tokenizer.json").is_file() or (target / "vocab.json").is_file():
        return
    from transformers import AutoTokenizer
    AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer.save(str(target / "tokenizer.json"))


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def write_json(path: Path, content: dict, local_keys: tuple[str, ...] = LOCAL_KEYS) -> None:
    content = {key: value for key, value in content.items() if key not in local_keys}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
