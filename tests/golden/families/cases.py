"""The cases of each folder: pipeline, prompt and arguments of the reference.

`DOCUMENTED` names the arguments at which the model's own documentation calls the pipeline; a job that leaves them out
must give the same picture.
"""

from dataclasses import dataclass, field

import diffusers

FOX = "a red fox in the snow"
SHIP = "A small blue ship under the moon, watercolor"
# More than 32 rows, so that Z-Image pads its text to 64.
LONG = "an old house in the mountains at dawn, two dogs by the sea, portrait of a woman with a green hat"
DOCUMENTED = ["steps", "guidance"]


@dataclass
class Case:
    name: str
    pipeline: str
    prompt: str
    steps: int
    guidance: float
    size: tuple[int, int]
    seed: int
    negative: str | None = None
    options: dict = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    scheduler: object = None
    documented: bool = False


def cases(folder: str) -> list[Case]:
    """Sizes are (height, width)."""
    sprint, sprint_image = "SanaSprintPipeline", "SanaSprintImg2ImgPipeline"
    pixart, klein = "PixArtSigmaPipeline", "Flux2KleinPipeline"
    zimage, zimage_image = "ZImagePipeline", "ZImageImg2ImgPipeline"
    sd, sd_image, xl = "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionXLPipeline"
    lcm = "LatentConsistencyModelPipeline"
    evenly = {"intermediate_timesteps": None}
    return {
        "sana_sprint": [
            Case("sprint_default", sprint, FOX, 2, 4.5, (96, 96), 42, documented=True),
            Case("sprint_wide", sprint, SHIP, 2, 2.0, (64, 160), 3),
            Case("sprint_one", sprint, FOX, 1, 4.5, (64, 64), 4, options=evenly),
            Case("sprint_four", sprint, LONG, 4, 4.5, (96, 64), 5, options=evenly),
            Case("sprint_image", sprint_image, SHIP, 2, 4.5, (64, 96), 6, options={"strength": 0.6}, images=["wide.png"]),
        ],
        "pixart_sigma": [
            Case("pixart_default", pixart, FOX, 20, 4.5, (64, 64), 42, "", documented=True),
            Case("pixart_wide", pixart, SHIP, 8, 3.0, (48, 80), 3, "blurry"),
            Case("pixart_sample_size", pixart, LONG, 6, 2.0, (128, 128), 4, ""),
            Case("pixart_unguided", pixart, FOX, 6, 1.0, (64, 48), 5, ""),
        ],
        "flux2_klein": [
            Case("klein_default", klein, FOX, 4, 1.0, (64, 64), 42, documented=True),
            Case("klein_wide", klein, SHIP, 5, 1.0, (48, 96), 3),
            Case("klein_reference", klein, LONG, 4, 1.0, (64, 96), 4, images=["wide.png"]),
            Case("klein_two_references", klein, FOX, 4, 1.0, (48, 64), 5, images=["wide.png", "square.png"]),
        ],
        "flux2_klein_base": [
            Case("klein_base_default", klein, FOX, 50, 4.0, (48, 48), 42, documented=True),
            Case("klein_base_wide", klein, SHIP, 6, 2.5, (32, 64), 3),
        ],
        "z_image_turbo": [
            Case("zimage_turbo_default", zimage, FOX, 8, 0.0, (64, 64), 42, documented=True),
            Case("zimage_turbo_wide", zimage, LONG, 5, 0.0, (48, 112), 3),
            Case("zimage_turbo_image", zimage_image, SHIP, 8, 0.0, (64, 96), 4, options={"strength": 0.6},
                 images=["wide.png"]),
        ],
        "z_image": [
            Case("zimage_default", zimage, FOX, 50, 5.0, (48, 48), 42, "", documented=True),
            Case("zimage_low", zimage, SHIP, 6, 1.0, (64, 48), 3, "blurry"),
            Case("zimage_normalised", zimage, LONG, 6, 4.0, (48, 64), 4, "bright",
                 options={"cfg_normalization": 1.0, "cfg_truncation": 0.7}),
        ],
        "sd_turbo": [
            Case("sd_turbo_default", sd, FOX, 1, 0.0, (128, 128), 42, documented=True),
            Case("sd_turbo_four", sd, SHIP, 4, 0.0, (48, 80), 3),
            Case("sd_turbo_image", sd_image, SHIP, 2, 0.0, (64, 96), 4, options={"strength": 0.5}, images=["wide.png"]),
        ],
        "sdxl_turbo": [
            Case("sdxl_turbo_default", xl, FOX, 1, 0.0, (128, 128), 42, documented=True),
            Case("sdxl_turbo_four", xl, SHIP, 4, 0.0, (32, 48), 3),
        ],
        "sdxl_lightning_4step": [
            Case("lightning_default", xl, FOX, 4, 0.0, (64, 64), 42, documented=True),
            Case("lightning_eight", xl, SHIP, 8, 0.0, (32, 48), 3),
        ],
        "hyper_sdxl_8steps": [
            Case("hyper_default", xl, FOX, 8, 0.0, (64, 64), 42, options={"eta": 1.0}, documented=True),
            Case("hyper_eta", xl, SHIP, 4, 0.0, (32, 48), 3, options={"eta": 0.3}),
        ],
        "sdxl_lcm": [
            Case("lcm_xl_default", xl, FOX, 4, 1.0, (64, 64), 42, documented=True),
            Case("lcm_xl_guided", xl, SHIP, 6, 1.8, (32, 48), 3),
        ],
        "lcm": [
            Case("lcm_default", lcm, FOX, 4, 8.5, (64, 64), 42, documented=True),
            Case("lcm_wide", lcm, SHIP, 6, 3.0, (32, 48), 3),
        ],
    }[folder]


SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
# Folders that have the graphs of another one: that folder's name, and what differs.
SHARED = {
    "flux2_klein_base": ("flux2_klein", {"is_distilled": False}, None),
    "z_image": ("z_image_turbo", {}, diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0)),
    "sdxl_lightning_4step": ("sdxl_turbo", {}, diffusers.EulerDiscreteScheduler(**SCALED, timestep_spacing="trailing")),
    "hyper_sdxl_8steps": ("sdxl_turbo", {}, diffusers.TCDScheduler(**SCALED)),
    "sdxl_lcm": ("sdxl_turbo", {}, diffusers.LCMScheduler(**SCALED)),
}
# Folders whose graphs get short names, and parts of another folder that have the same weights.
SHORTENED = {"sdxl_turbo", "lcm"}
SAME = {"lcm": {"vae_decoder": "sd_turbo", "vae_encoder": "sd_turbo"}}
FOLDERS = ["sana_sprint", "pixart_sigma", "flux2_klein", "flux2_klein_base", "z_image_turbo", "z_image", "sd_turbo",
           "sdxl_turbo", "sdxl_lightning_4step", "hyper_sdxl_8steps", "sdxl_lcm", "lcm"]
