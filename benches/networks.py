"""Export two U-Nets with random weights as bundles for the benchmarks: `python networks.py OUT`.

Needs models/train/requirements.txt.
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel

SIZES = {
    "unet7m": dict(block_out_channels=(64, 128, 144), layers_per_block=2, norm_num_groups=16,
                   down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
                   up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D")),
    "unet300k": dict(block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=8,
                     down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3),
}


class Plain(torch.nn.Module):
    """Returns only the output tensor of the network."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, sample, timestep):
        return self.network(sample, timestep, return_dict=False)[0]


def main():
    for name, size in SIZES.items():
        torch.manual_seed(0)
        network = UNet2DModel(sample_size=32, in_channels=3, out_channels=3, **size).eval()
        folder = Path(sys.argv[1]) / name
        (folder / "unet").mkdir(parents=True, exist_ok=True)
        (folder / "scheduler").mkdir(exist_ok=True)
        DDIMScheduler().save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDIMPipeline"}))

        torch.onnx.export(
            Plain(network), (torch.randn(2, 3, 32, 32), torch.tensor([5.0, 7.0])), str(folder / "unet" / "model.onnx"),
            input_names=["sample", "timestep"], output_names=["out_sample"], opset_version=17, dynamo=False,
            dynamic_axes={"sample": {0: "batch"}, "timestep": {0: "batch"}, "out_sample": {0: "batch"}})
        print(name, sum(p.numel() for p in network.parameters()), "parameters")


if __name__ == "__main__":
    main()
