"""Export trained weights into a bundle that both `denoised` and diffusers load.

The folder is that of a StableDiffusionPipeline in float16, with a graph beside the weights of each component. The graphs
of the U-Net and the text encoder have no weights of their own: their external data are the safetensors files. Those of the
autoencoder have, because external data may not lie in another folder.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

import diffusers
import numpy as np
import onnx
import onnxruntime
import torch
from diffusers import StableDiffusionPipeline
from onnx import TensorProto, helper
from torch import nn

import autoencoder
import networks
import tokenizer
from text_to_latents import TextToLatents
from training import load

OPSET = 17
SHARD = "7MB"
LARGEST_FILE, LARGEST_FOLDER = 8_000_000, 16_000_000  # bytes


class TextEncoderGraph(nn.Module):
    """CLIPTextModel's last hidden state for a fixed number of tokens, without transformers' masks of any shape."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mask", torch.full((networks.LENGTH,) * 2, -1e4).triu(1), persistent=False)

    def forward(self, input_ids):
        # transformers before 5 has one more level.
        model = getattr(self.encoder, "text_model", self.encoder)
        x = model.embeddings.token_embedding(input_ids) + model.embeddings.position_embedding.weight
        for layer in model.encoder.layers:
            x = x + self.attend(layer.self_attn, layer.layer_norm1(x))
            x = x + layer.mlp(layer.layer_norm2(x))
        return model.final_layer_norm(x)

    def attend(self, attention, x):
        heads, width = attention.num_heads, attention.head_dim
        query, key, value = (
            project(x).view(-1, networks.LENGTH, heads, width).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj))
        weights = (query @ key.transpose(2, 3) / math.sqrt(width) + self.mask).softmax(-1)
        return attention.out_proj((weights @ value).transpose(1, 2).reshape(-1, networks.LENGTH, heads * width))


class UNetGraph(nn.Module):
    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class EncoderGraph(nn.Module):
    """The mean and the logarithm of the variance of the latents."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, sample):
        return self.vae.quant_conv(self.vae.encoder(sample))


class DecoderGraph(nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        return self.vae.decoder(self.vae.post_quant_conv(latent_sample))


def write_graph(network: nn.Module, inputs: dict, output: str, axes: dict, file: Path, external: bool):
    """Write the graph of a network, with float16 weights, and compare it with torch."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Constants are not folded, so that every weight keeps its name and its shape.
    torch.onnx.export(network, tuple(inputs.values()), str(file), dynamo=False, opset_version=OPSET,
                      do_constant_folding=False, input_names=list(inputs), output_names=[output], dynamic_axes=axes)
    model = onnx.load(file)
    halve_weights(model, safetensors_of(file.parent) if external else {})
    onnx.save(model, file)
    onnx.checker.check_model(str(file))
    session = onnxruntime.InferenceSession(file)
    for rows in (1, 2):
        feed = {name: value[:rows] for name, value in inputs.items()}
        with torch.no_grad():
            expected = network(*feed.values()).numpy()
        found = session.run(None, {name: value.numpy() for name, value in feed.items()})[0]
        difference = float(np.abs(found - expected).max())
        print(f"{file}: batch {rows}, largest difference from torch {difference:.1e}")
        assert difference < 2e-5 * max(1, np.abs(expected).max())


def safetensors_of(folder: Path) -> dict[str, tuple[str, int, int, list[int]]]:
    """File, offset, length and shape of every tensor in the safetensors files of a folder."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                assert tensor["dtype"] == "F16", f"{file}: {name} is {tensor['dtype']}"
                begin, end = tensor["data_offsets"]
                found[name] = (file.name, 8 + length + begin, end - begin, tensor["shape"])
    return found


def halve_weights(model: onnx.ModelProto, places: dict):
    """Store the weights as float16, followed by casts. Those that `places` names become external data."""
    casts, used = [], set()
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        name, values = tensor.name, onnx.numpy_helper.to_array(tensor)
        halved = values.astype(np.float16)
        if not np.array_equal(halved.astype(np.float32), values):
            continue  # a constant, not a weight
        # Without the name of the module around it; some versions of transformers write one more level.
        own = name.split(".", 1)[-1]
        key = next((key for key in (own, f"text_model.{own}") if key in places), None)
        tensor.CopyFrom(onnx.numpy_helper.from_array(halved, f"{name}.float16"))
        if key:
            file, offset, length, shape = places[key]
            assert list(shape) == list(values.shape) and length == halved.nbytes, key
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for entry, value in (("location", file), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=entry, value=str(value))
            used.add(key)
        casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], name=f"{name}/widen", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if places:
        print(f"{len(used)} of {len(places)} tensors are external data")


def model_index(bundle: Path):
    """model_index.json of a StableDiffusionPipeline without a safety checker."""
    (bundle / "model_index.json").write_text(json.dumps({
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None], "image_encoder": [None, None], "requires_safety_checker": False,
        "safety_checker": [None, None], "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    }, indent=2) + "\n")


def graphs(bundle: Path, vae, network: TextToLatents):
    """The four graphs, with batch and size of the latents free."""
    batch, size = {0: "batch"}, {0: "batch", 2: "height", 3: "width"}
    ids = torch.randint(networks.LENGTH, (2, networks.LENGTH))
    write_graph(TextEncoderGraph(network.text), {"input_ids": ids}, "last_hidden_state",
                {"input_ids": batch, "last_hidden_state": batch}, bundle / "text_encoder/model.onnx", True)
    write_graph(UNetGraph(network.unet),
                {"sample": torch.randn(2, 4, 16, 16), "timestep": torch.tensor([999, 20]),
                 "encoder_hidden_states": torch.randn(2, networks.LENGTH, networks.WIDTH)}, "out_sample",
                {"sample": size, "timestep": batch, "encoder_hidden_states": batch, "out_sample": size},
                bundle / "unet/model.onnx", True)
    write_graph(EncoderGraph(vae), {"sample": torch.rand(2, 3, 64, 64) * 2 - 1}, "latent_parameters",
                {"sample": size, "latent_parameters": size}, bundle / "vae_encoder/model.onnx", False)
    write_graph(DecoderGraph(vae), {"latent_sample": torch.randn(2, 4, 16, 16)}, "sample",
                {"latent_sample": size, "sample": size}, bundle / "vae_decoder/model.onnx", False)
    for part in ("vae_encoder", "vae_decoder"):
        shutil.copy(bundle / "vae/config.json", bundle / part / "config.json")


def check_folder(bundle: Path):
    """diffusers loads the folder, and neither a file nor the folder is too large."""
    pipeline = StableDiffusionPipeline.from_pretrained(bundle, torch_dtype=torch.float32)
    picture = pipeline("pizza", width=64, height=64, num_inference_steps=2, guidance_scale=1.0, output_type="np").images
    assert picture.shape == (1, 64, 64, 3)
    sizes = {file: file.stat().st_size for file in bundle.rglob("*") if file.is_file()}
    largest = max(sizes, key=sizes.get)
    print(f"{bundle}: {sum(sizes.values()):,} bytes; the largest file is {largest.name} with {sizes[largest]:,}")
    assert sizes[largest] <= LARGEST_FILE and sum(sizes.values()) <= LARGEST_FOLDER


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"), help="has the tokenizer")
    parser.add_argument("--out", type=Path, help="has the weights; by default --work")
    parser.add_argument("--weights", choices=["base", "distilled"], default="distilled")
    parser.add_argument("--bundle", type=Path, default=Path(__file__).parents[2] / "emoji")
    given = parser.parse_args()
    out = given.out or given.work
    torch.manual_seed(0)
    vae = autoencoder.trained(out)
    network = TextToLatents(json.loads((out / "vae.json").read_text())["size"])
    load(network.parts(), out / f"{given.weights}.safetensors")
    network.eval().requires_grad_(False)
    for file in given.bundle.rglob("*.safetensors"):
        file.unlink()
    for part, name, shard in ((network.unet, "unet", {"max_shard_size": SHARD}), (vae, "vae", {}),
                              (network.text, "text_encoder", {})):
        part.half().save_pretrained(given.bundle / name, **shard)
        part.float()
    networks.scheduler().save_pretrained(given.bundle / "scheduler")
    shutil.copytree(given.work / "tokenizer", given.bundle / "tokenizer", dirs_exist_ok=True)
    model_index(given.bundle)
    here = Path(__file__).parent
    shutil.copytree(here / "bundle", given.bundle, dirs_exist_ok=True)
    shutil.copy(here.parents[2] / "LICENSE-APACHE", given.bundle)
    graphs(given.bundle, vae, network)
    check_folder(given.bundle)


if __name__ == "__main__":
    main()
