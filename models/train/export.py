"""Export a trained network into its bundle, and compare the graph with torch.

The bundle also contains the weights as safetensors, for the UNet2DModel of diffusers.
"""

import argparse
import json
from pathlib import Path

import diffusers
import numpy as np
import onnxruntime
import torch
from diffusers import DDPMScheduler, UNet2DModel

import digits
import ncsn
import swissroll
from networks import Digits, NoiseConditionalScore, Points

OPSET = 17


def trained(network, work: Path, name: str):
    state = torch.load(work / f"{name}.pt")
    network.load_state_dict(state["ema"])
    return network.eval(), state


def graph(network, inputs: dict[str, torch.Tensor], file: Path):
    """Write the graph with a dynamic batch size, and compare it with torch at two batch sizes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        network, tuple(inputs.values()), str(file), dynamo=False, opset_version=OPSET,
        input_names=list(inputs), output_names=["out_sample"],
        dynamic_axes={name: {0: "batch"} for name in [*inputs, "out_sample"]})
    session = onnxruntime.InferenceSession(file)
    for rows in (1, 2):
        feed = {name: value[:rows] for name, value in inputs.items()}
        with torch.no_grad():
            expected = network(*feed.values()).numpy()
        given = {name: value.numpy() for name, value in feed.items()}
        # Both get the same bytes.
        assert all(given[name].tobytes() == feed[name].numpy().tobytes() for name in feed)
        found = session.run(None, given)[0]
        difference = float(np.abs(found - expected).max())
        print(f"{file}: batch {rows}, largest difference from torch {difference:.1e}")
        assert difference < 1e-4 * max(1, np.abs(expected).max())


def write_json(file: Path, value: dict):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=2) + "\n")


def unet_files(bundle: Path, unet):
    """Save the U-Net without the pixel-unshuffle for diffusers, and check that it loads unchanged."""
    unet.save_pretrained(bundle / "unet", safe_serialization=True)
    again = UNet2DModel.from_pretrained(bundle / "unet").eval()
    labels = torch.tensor([3, 4]) if unet.config.num_class_embeds else None
    x, t = torch.randn(2, 4, 14, 14), torch.tensor([900, 5])
    with torch.no_grad():
        assert torch.equal(unet(x, t, labels).sample, again(x, t, labels).sample)


def pipeline_file(bundle: Path):
    """Write model_index.json, so that diffusers loads the whole directory."""
    write_json(bundle / "model_index.json", {
        "_class_name": "DDPMPipeline", "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]})
    pipeline = diffusers.DDPMPipeline.from_pretrained(bundle)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def scheduler_file(bundle: Path, settings: dict):
    DDPMScheduler(**settings).save_pretrained(bundle / "scheduler")


def export_digits(work: Path, models: Path):
    network, _ = trained(Digits(), work, "digits")
    bundle = models / "digits"
    inputs = {"sample": torch.randn(2, 1, 28, 28), "timestep": torch.tensor([999, 20]),
              "class_labels": torch.tensor([3, 10])}
    graph(network, inputs, bundle / "unet/model.onnx")
    unet_files(bundle, network.unet)
    scheduler_file(bundle, digits.SCHEDULER)
    pipeline_file(bundle)


def export_ncsn(work: Path, models: Path):
    network, _ = trained(NoiseConditionalScore(ncsn.SIGMAS), work, "ncsn")
    bundle = models / "digits-ncsn"
    inputs = {"sample": torch.rand(2, 1, 28, 28), "noise_level": torch.tensor([0, 9])}
    graph(network, inputs, bundle / "unet/model.onnx")
    unet_files(bundle, network.unet)
    write_json(bundle / "scheduler/scheduler_config.json", {
        "_class_name": "AnnealedLangevinDynamics", "prediction_type": "score",
        "num_noise_levels": 10, "sigma_begin": 1.0, "sigma_end": 0.01,
        "step_size": 2e-5})


def export_swissroll(work: Path, models: Path):
    network, _ = trained(Points(), work, "swissroll")
    bundle = models / "swissroll"
    inputs = {"sample": torch.randn(2, 1024, 2), "timestep": torch.tensor([999, 20])}
    graph(network, inputs, bundle / "unet/model.onnx")
    scheduler_file(bundle, swissroll.SCHEDULER)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=["digits", "ncsn", "swissroll"])
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--models", type=Path, default=Path(__file__).parent.parent)
    given = parser.parse_args()
    for name in given.names:
        globals()[f"export_{name}"](given.work, given.models)


if __name__ == "__main__":
    main()
