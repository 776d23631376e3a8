"""Exports a tiny folder of each family with the command's own function and compares it with torch.

    pytest models/export/test_export.py            # all families, about five minutes on two cores
    pytest models/export/test_export.py -k klein

The folders have random, untrained weights and are made here.
"""

import json
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

import export as export_module
import tiny
from check import compare
from export import export
from graphs import Options
from onnx_pipeline import Session

torch.set_num_threads(1)
PROMPT = "a red fox in the snow"
# Pixels of the comparison, other than those of the example that was traced.
SIZES = {"sana_sprint": (64, 160), "sana": (64, 160), "sd_turbo": (64, 96), "sdxl_turbo": (64, 96), "lcm": (64, 96)}
GUIDANCE = {"lcm": 8.5, "flux": 3.5}
NEGATIVE = {"pixart_sigma", "sana", "z_image", "sd3"}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Returns a function that makes the folder of a family once."""
    root = tmp_path_factory.mktemp("models")

    def folder(family):
        if not (root / family).is_dir():
            tiny.make(family, root / family)
        return root / family

    return folder


@pytest.mark.parametrize("family", [name for name in tiny.FAMILIES if name not in ("flux2_klein_base", "z_image")])
def test_graphs_equal_torch(family, models, tmp_path):
    model = models(family)
    export(model, tmp_path, Options())
    height, width = SIZES.get(family, (48, 80))
    options = {"guidance_scale": GUIDANCE.get(family, 2.0)}
    if family in NEGATIVE:
        options["negative_prompt"] = "blurry"
    difference = compare(model, tmp_path, PROMPT, 2, height, width, **options)
    # Untrained noise prediction grows by the inverse of the signal at the first step.
    assert difference["latents"] < 2e-3 and difference["image"] < 1e-3, difference


@pytest.mark.parametrize("family", ["sana_sprint", "z_image_turbo", "flux2_klein", "pixart_sigma", "sd_turbo"])
def test_float16_graphs_load_and_are_close(family, models, tmp_path):
    model = models(family)
    export(model, tmp_path, Options(dtype=torch.float16, external_data=True))
    assert (tmp_path / networks(tmp_path) / "model.onnx_data").is_file()
    relative = network_difference(model, tmp_path)
    assert relative < 0.02, relative


@pytest.mark.parametrize("weights, limit", [("int8", 0.03), ("int4", 0.4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_quantised_weights_are_close(weights, limit, dtype, models, tmp_path):
    model = models("sana_sprint")
    export(model, tmp_path, Options(dtype=dtype), weights)
    operators = {node.op_type for node in onnx.load(tmp_path / "transformer" / "model.onnx").graph.node}
    assert "MatMulNBits" in operators
    relative = network_difference(model, tmp_path)
    assert relative < limit, relative


@pytest.mark.parametrize("family", ["sana_sprint", "pixart_sigma", "flux2_klein"])
def test_fixed_sizes_leave_no_free_axis(family, models, tmp_path):
    options = Options(batch=1, height=64, width=96, text_length=300)
    export(models(family), tmp_path, options, only=["text_encoder", "transformer", "vae_decoder"])
    for part in ("text_encoder", "transformer", "vae_decoder"):
        session = onnxruntime.InferenceSession(tmp_path / part / "model.onnx", providers=["CPUExecutionProvider"])
        free = {axis for port in session.get_inputs() for axis in port.shape if isinstance(axis, str)}
        expected = {("flux2_klein", "transformer"): {"tokens"}, ("sana_sprint", "text_encoder"): {"prompt_length"}}
        assert free == expected.get((family, part), set()), (part, free)


def test_text_encoder_holds_only_the_layers_that_are_read(models, tmp_path):
    export(models("flux2_klein"), tmp_path, Options(), only=["text_encoder"])
    config = json.loads((tmp_path / "text_encoder" / "config.json").read_text())
    assert config["num_hidden_layers"] == 27
    weights = {tensor.name for tensor in onnx.load(tmp_path / "text_encoder" / "model.onnx").graph.initializer}
    assert not any("layers.27." in name or "lm_head" in name for name in weights)


@pytest.fixture(scope="session")
def controlnets(models, tmp_path_factory):
    """Returns a function that makes the folder of a family's ControlNet once."""
    root = tmp_path_factory.mktemp("controlnets")

    def folder(family):
        if not (root / family).is_dir():
            network = UNet2DConditionModel.from_pretrained(models(family) / "unet")
            tiny.controlnet(network, 40).save_pretrained(root / family)
        return root / family

    return folder


@pytest.mark.parametrize("family", ["sd_turbo", "sdxl_turbo"])
def test_a_controlnet_equals_torch_at_a_scale_for_each_residual(family, controlnets, tmp_path):
    model = controlnets(family)
    export(model, tmp_path / "pipeline" / "controlnet", Options())
    assert sorted(path.name for path in (tmp_path / "pipeline" / "controlnet").iterdir()) == ["config.json", "model.onnx"]
    net = ControlNetModel.from_pretrained(model)
    generator = torch.Generator().manual_seed(6)
    random = lambda *shape: torch.randn(*shape, generator=generator)
    given = {"sample": random(3, 4, 6, 10), "timestep": torch.tensor([1.0, 500.0, 990.5]),
             "encoder_hidden_states": random(3, 77, net.config.cross_attention_dim),
             "controlnet_cond": random(3, 3, 48, 80).sigmoid()}
    added = {"text_embeds": random(3, 16), "time_ids": 100 * random(3, 6)} if family == "sdxl_turbo" else {}
    scale = random(3, 5)
    with torch.no_grad():
        skips, middle = net(**given, added_cond_kwargs=added, return_dict=False)
    expected = [residual * scale[:, place, None, None, None] for place, residual in enumerate([*skips, middle])]
    found = Session(tmp_path / "pipeline" / "controlnet" / "model.onnx")(**given, **added, conditioning_scale=scale)
    assert list(found) == [*(f"down_block_additional_residuals_{place}" for place in range(4)),
                           "mid_block_additional_residual"]
    assert max((one - other).abs().max() for one, other in zip(found.values(), expected)) < 1e-5
    export(model, tmp_path / "half", Options(dtype=torch.float16))
    half = Session(tmp_path / "half" / "model.onnx")(**given, **added, conditioning_scale=scale)
    assert all((half[name] - found[name]).abs().max() < 0.02 * found[name].std() for name in found)


def test_a_controlnet_with_fixed_sizes_has_no_free_axis(controlnets, tmp_path):
    export(controlnets("sdxl_turbo"), tmp_path / "controlnet", Options(batch=2, height=64, width=96, text_length=77))
    session = onnxruntime.InferenceSession(tmp_path / "controlnet" / "model.onnx", providers=["CPUExecutionProvider"])
    ports = [*session.get_inputs(), *session.get_outputs()]
    assert not [(port.name, port.shape) for port in ports if any(isinstance(axis, str) for axis in port.shape)]


def refusal(model, out, options=Options(), only=None):
    """Returns the sentence with which the export is refused before anything is written."""
    with pytest.raises(SystemExit) as error:
        export(model, out, options, only=only)
    assert not out.exists()
    return str(error.value)


def test_a_graph_that_the_family_lacks_was_ignored(models, tmp_path):
    for name in ("transformer", "vae"):
        assert refusal(models("sd_turbo"), tmp_path / "out", only=[name]) == (
            f"--only {name}: this pipeline has no such graph; its graphs are text_encoder, unet, vae_decoder, vae_encoder")


def test_options_were_refused_after_the_first_graph(models, tmp_path):
    out = tmp_path / "out"
    assert refusal(models("sd_turbo"), out, Options(height=100)) == (
        "--height is 100, but this model needs a multiple of 8; use 96 or 104")
    assert refusal(models("sana_sprint"), out, Options(width=16)) == (
        "--width is 16, but this model needs a multiple of 32; use 32")
    for family in ("pixart_sigma", "flux2_klein", "z_image_turbo"):
        assert "a multiple of 16; use 64 or 80" in refusal(models(family), out, Options(width=72))
    assert "always has 77 rows" in refusal(models("sd_turbo"), out, Options(text_length=50))


def test_a_folder_with_a_fault_ended_in_a_traceback(models, tmp_path):
    whole, out = models("sd_turbo"), tmp_path / "out"
    for name, file in (("vae", "config.json"), ("text_encoder", "config.json"), ("tokenizer", ""),
                       ("unet", "diffusion_pytorch_model.safetensors")):
        model = tmp_path / f"without_{name}"
        shutil.copytree(whole, model)
        (model / name / file).unlink() if file else shutil.rmtree(model / name)
        assert f"{model}/{name}" in refusal(model, out)
    index = json.loads((whole / "model_index.json").read_text())
    other = tmp_path / "pixart"
    shutil.copytree(whole, other)
    (other / "model_index.json").write_text(json.dumps(index | {"_class_name": "PixArtSigmaPipeline"}))
    assert "but PixArtSigmaPipeline needs t5" in refusal(other, out)
    graphs = tmp_path / "graphs"
    (graphs / "unet").mkdir(parents=True)
    (graphs / "unet" / "model.onnx").touch()
    (graphs / "model_index.json").write_text(json.dumps(index))
    assert f"{graphs}/unet/model.onnx is an ONNX graph" in refusal(graphs, out)
    with pytest.raises(SystemExit, match="is the model itself"):
        export(whole, whole, Options())


def test_faults_of_a_controlnet_are_named(controlnets, tmp_path):
    model, out = controlnets("sd_turbo"), tmp_path / "out"
    assert refusal(model, out, Options(height=100)) == (
        "--height is 100, but this model needs a multiple of 8; use 96 or 104")
    assert refusal(model, out, only=["controlnet"]) == "--only controlnet: a ControlNet is one graph; leave it out"
    other = tmp_path / "union"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"_class_name": "ControlNetUnionModel"}))
    assert "_class_name is ControlNetUnionModel, which can't be exported" in refusal(other, out)
    shutil.copy(model / "config.json", other)
    assert "has no complete diffusion_pytorch_model.safetensors" in refusal(other, out)


def test_an_interrupted_export_looked_complete(models, tmp_path, monkeypatch):
    def interrupted(path, *_):
        assert path.is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "write_json", lambda path, *_: interrupted(path.with_name("model.onnx")))
    graph = models("sd_turbo")
    (tmp_path / "model_index.json").touch()
    monkeypatch.setattr(export_module, "copy_settings", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        export(graph, tmp_path, Options())
    assert [path.name for path in tmp_path.iterdir()] == ["text_encoder.partial"]


def networks(folder):
    return "unet" if (folder / "unet").is_dir() else "transformer"


def network_difference(model, folder):
    """Returns the largest difference of the network's output from the float32 graph, in standard deviations."""
    part = networks(folder)
    exact = folder / "exact"
    export(model, exact, Options(), only=[part])
    session, other = (Session(place / part / "model.onnx") for place in (exact, folder))
    generator = np.random.default_rng(5)
    feed = {port.name: example(port, generator) for port in session.session.get_inputs()}
    expected, found = session.only(**feed), other.only(**feed)
    assert torch.isfinite(found).all()
    return ((found - expected).abs().max() / expected.std()).item()


SIDES = {"batch_size": 1, "height": 8, "width": 12, "sequence_length": 40, "tokens": 96}


def example(port, generator):
    shape = [SIDES[axis] if isinstance(axis, str) else axis for axis in port.shape]
    if "ids" in port.name and "time" not in port.name:
        ids = np.zeros(shape, np.int64)
        ids[..., 1 if port.name.startswith("img") else 3] = np.arange(shape[1])
        return ids
    if "mask" in port.name:
        return np.ones(shape, np.int64)
    if port.name == "timestep":
        return np.full(shape, 500 if "int" in port.type or not shape else 0.5)
    return generator.standard_normal(shape).astype(np.float32)
