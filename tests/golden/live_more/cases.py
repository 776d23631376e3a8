"""The cases: pipeline, job and scheduler of each reference."""

from dataclasses import dataclass, field

import diffusers

FOX, SHIP, NIGHT = "a red fox in the snow", "a small blue ship under the moon, watercolor", "city at night"
SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
DDIM = diffusers.DDIMScheduler(**SCALED, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


@dataclass
class Control:
    """Steers from `start` to `end`, shares of the evaluations."""

    net: str
    picture: str
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0


@dataclass
class Case:
    """`size` is (height, width); `image` and `mask` are pictures of `reference`."""

    name: str
    prompt: str
    steps: int
    guidance: float
    seed: int
    folder: str = "sd"
    size: tuple[int, int] = (32, 48)
    scheduler: object = DDIM
    controls: list[Control] = field(default_factory=list)
    guess_mode: bool = False
    loras: list[tuple[str, float]] = field(default_factory=list)
    image: str | None = None
    mask: str | None = None
    strength: float = 1.0

    @property
    def mode(self) -> str:
        return "inpaint" if self.mask else "img2img" if self.image else "txt2img"

    @property
    def pipeline(self) -> str:
        family = "StableDiffusionXL" if self.folder == "xl" else "StableDiffusion"
        kind = {"inpaint": "Inpaint", "img2img": "Img2Img", "txt2img": ""}[self.mode]
        return f"{family}{'ControlNet' if self.controls else ''}{kind}Pipeline"


def first(*window: float) -> Control:
    return Control("controlnet", "a.png", *window)


PEFT, KOHYA = "peft_alphas", "kohya_r3"
CASES = [
    Case("plain", FOX, 8, 5.0, 1),
    Case("two_controls", FOX, 8, 5.0, 2, controls=[first(0.9, 0.0, 0.6), Control("controlnet_1", "b.png", 0.5, 0.4)]),
    Case("two_loras", SHIP, 8, 5.0, 3, loras=[(PEFT, 0.65), (KOHYA, -0.4)]),
    Case("locon", FOX, 8, 5.0, 4, loras=[("locon", 0.8)]),
    Case("loha", NIGHT, 8, 5.0, 5, loras=[("loha", 0.7)]),
    Case("lokr", SHIP, 8, 5.0, 6, loras=[("lokr", -1.2)], controls=[first(0.8)]),
    Case("wide_control", SHIP, 6, 4.0, 7, size=(64, 96), controls=[Control("controlnet_1", "wide.png", 0.7)],
         loras=[(PEFT, 0.5)], scheduler=diffusers.DPMSolverMultistepScheduler(**SCALED, steps_offset=1)),
    Case("guess_euler", FOX, 6, 6.0, 8, controls=[first(1.0)], guess_mode=True,
         scheduler=diffusers.EulerDiscreteScheduler(**SCALED, steps_offset=1)),
    Case("guess_unguided", NIGHT, 6, 1.0, 9, controls=[first(0.9), Control("controlnet_1", "b.png", 0.6)],
         guess_mode=True, scheduler=diffusers.EulerAncestralDiscreteScheduler(**SCALED, steps_offset=1)),
    Case("pooled", FOX, 8, 5.0, 18, controls=[Control("controlnet_shuffle", "b.png", 0.8)]),
    Case("window_heun", SHIP, 6, 3.0, 10, controls=[first(1.0, 0.3, 0.7)],
         scheduler=diffusers.HeunDiscreteScheduler(**SCALED, steps_offset=1)),
    Case("window_pndm", FOX, 7, 3.0, 11, controls=[first(1.0, 0.3, 0.7)],
         scheduler=diffusers.PNDMScheduler(**SCALED, steps_offset=1, skip_prk_steps=True)),
    Case("image_window", NIGHT, 12, 4.0, 12, controls=[first(1.0, 0.3, 0.7)], image="b.png", strength=0.6),
    Case("image_window_heun", FOX, 8, 4.0, 13, controls=[first(1.0, 0.3, 0.7)], image="b.png", strength=0.6,
         scheduler=diffusers.HeunDiscreteScheduler(**SCALED, steps_offset=1)),
    Case("inpaint_blended", SHIP, 8, 4.0, 14, controls=[first(0.8)], image="b.png", mask="mask.png", strength=0.75,
         loras=[(KOHYA, -0.3)]),
    Case("inpaint_nine_channels", FOX, 6, 4.0, 15, folder="sd_inpaint", controls=[first(0.8, 0.0, 0.8)], image="b.png",
         mask="mask.png"),
    Case("xl_control_lora", SHIP, 6, 4.0, 16, folder="xl", controls=[first(0.8, 0.0, 0.7)], loras=[("xl_kohya", 0.7)],
         scheduler=diffusers.EulerDiscreteScheduler(**SCALED, timestep_spacing="trailing")),
    Case("xl_guess", FOX, 6, 4.0, 17, folder="xl", controls=[first(1.0, 0.2, 1.0)], guess_mode=True),
]
# Cases that may share batches, and must each give their own reference.
BATCHES = [
    ["plain", "two_controls", "pooled", "two_loras"],
    ["locon", "loha", "plain", "lokr"],
    ["two_loras", "image_window", "lokr", "two_controls", "inpaint_blended"],
]
