"""Pictures with changed colours, places, sizes and company, and the prompts that say so.

`Plan` chooses on the processor what each training picture shows; `Painter` draws it on the device.
"""

import random

import numpy as np
import torch
import torch.nn.functional as F

import captions

PLAIN, SMALL, TWO, PAIR, INSIDE = range(5)
# Hue, and factors of saturation and value.
RECOLOURED = {
    "red": (0.985, 1.1, 0.95), "orange": (0.075, 1.1, 1.0), "yellow": (0.135, 1.0, 1.05), "green": (0.34, 0.9, 0.8),
    "blue": (0.58, 1.0, 0.95), "purple": (0.76, 0.85, 0.85), "pink": (0.92, 0.6, 1.05), "brown": (0.06, 0.8, 0.55),
    "grey": (0.0, 0.0, 0.7), "black": (0.6, 0.15, 0.28), "white": (0.6, 0.06, 1.1),
}
FEW = ("animal-", "plant-", "food-fruit", "food-vegetable", "food-prepared", "food-sweet", "drink", "cat-face", "heart",
       "face-smiling", "face-affection", "face-tongue", "face-glasses", "face-hat", "face-costume", "event", "sport",
       "sky & weather", "transport-", "place-building", "musical-instrument", "light & video", "book-paper")
FIXED_DIRECTION = ("left", "right", "arrow", "facing", "east", "west", "clock", "oclock", "point", "button", "keycap",
                   "music", "calendar", "book", "abacus", "pencil", "receipt", "hundred", "zzz", "question")


def dominant_hues(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The commonest hue of each RGBA picture, and its share of the visible pixels."""
    rgb = torch.from_numpy(pictures[:, :3].astype(np.float32) / 255)
    weight = torch.from_numpy(pictures[:, 3].astype(np.float32) / 255)
    hue, saturation, value = rgb_to_hsv(rgb)
    coloured = weight * (saturation > 0.25) * (value > 0.2)
    bins = (hue * 36).long().clamp(0, 35)
    histogram = torch.zeros(len(pictures), 36).scatter_add_(1, bins.flatten(1), coloured.flatten(1))
    smooth = histogram + histogram.roll(1, 1) + histogram.roll(-1, 1)
    share, best = smooth.max(1)
    return (best.numpy() + 0.5) / 36, (share / weight.sum((1, 2)).clamp(min=1)).numpy()


def is_mirrored(entry: dict) -> bool:
    """Whether the mirrored picture shows the same thing."""
    if entry["category"] in ("Flags", "Symbols") or entry["subcategory"] in ("time", "book-paper", "mail"):
        return False
    return not any(word in name for name in entry["names"] for word in FIXED_DIRECTION)


def weights(entries: list[dict], pictures: str) -> list[float]:
    """How often each entry is shown: skin tones and flags less often, and of "few" pictures not at all."""
    weight = [0.25 if entry["tones"] else 0.6 if entry["category"] == "Flags" else 1.0 for entry in entries]
    if pictures == "few":
        weight = [float(entry["subcategory"].startswith(FEW)) for entry in entries]
    return weight


class Plan:
    """`count` training pictures: their prompts, layers, colours and transformations.

    `kind` is "all", "single" (without compositions) or "few" (a part of the pictures, neither moved nor mirrored).
    """

    def __init__(self, pictures: np.ndarray, entries: list[dict], count: int, seed: int, kind: str):
        draw = random.Random(seed)
        composed, moved = kind != "single", kind != "few"
        hues, shares = dominant_hues(pictures)
        weight = weights(entries, kind)
        base = [i for i, entry in enumerate(entries)
                if weight[i] > 0 and not entry["tones"] and entry["category"] != "Flags"]
        by_name = {name: i for i, entry in reversed(list(enumerate(entries))) if not entry["tones"]
                   for name in entry["names"]}
        chosen = draw.choices(range(len(entries)), weight, k=count)
        self.layers = np.full((count, 3), -1, np.int64)
        self.places = np.zeros((count, 3, 3), np.float32)  # scale, x, y
        self.places[:, :, 0] = 1
        self.colours = np.full(count, -1, np.int64)
        self.mirrored = np.zeros(count, bool)
        self.captions = []
        self.hues = hues
        self.colour_names = list(RECOLOURED)
        for row, index in enumerate(chosen):
            entry, shown = entries[index], PLAIN
            if composed and not entry["tones"] and entry["category"] != "Flags" and draw.random() < 0.1:
                shown = draw.choice([SMALL, TWO, PAIR, PAIR, INSIDE, INSIDE])
            self.mirrored[row] = moved and is_mirrored(entry) and draw.random() < 0.5
            self.layers[row, 0] = index
            name = captions.name_of(entry, draw)
            if shown == SMALL and not captions.HELD_OUT_SMALL & set(entry["names"]):
                self.places[row, 0] = (0.5, 0, 0)
                text = f"small {name}"
            elif shown == TWO:
                self.layers[row, 1] = index
                self.places[row, :2] = [(0.52, -0.48, 0), (0.52, 0.48, 0)]
                text = f"two {name}"
            elif shown == PAIR and not self.is_held_out(entry, entries[other := draw.choice(base)]):
                self.layers[row, 1] = other
                self.places[row, :2] = [(0.52, -0.48, 0), (0.52, 0.48, 0)]
                text = f"{name} and {captions.name_of(entries[other], draw)}"
            elif shown == INSIDE and (box := self.container(entry, draw)):
                self.layers[row, 1] = by_name[captions.CONTAINERS[box]]
                self.places[row, :2] = [(0.55, 0, -0.42), (0.68, 0, 0.34)]
                text = f"{name} in a {box}"
            else:
                if moved and draw.random() < 0.3:
                    x, y = draw.uniform(-0.06, 0.06), draw.uniform(-0.06, 0.06)
                    self.places[row, 0] = (draw.uniform(0.9, 1.02), x, y)
                colour = None
                is_recoloured = shares[index] > 0.35 and entry["category"] not in ("Flags", "People & Body")
                if is_recoloured and draw.random() < 0.2:
                    colour = draw.choice(captions.COLOURS)
                    colour = None if captions.is_held_out_colour(entry, colour) else colour
                if colour:
                    self.colours[row] = self.colour_names.index(colour)
                text = captions.caption_of(entry, draw, colour)
            self.captions.append(text)

    @staticmethod
    def is_held_out(entry: dict, other: dict) -> bool:
        names = {*entry["names"], *other["names"]}
        return any(pair <= names for pair in captions.HELD_OUT_PAIRS)

    @staticmethod
    def container(entry: dict, draw: random.Random) -> str | None:
        box = draw.choice(list(captions.CONTAINERS))
        return None if set(captions.HELD_OUT_CONTENTS.get(box, [])) & set(entry["names"]) else box


class Painter:
    """Draws the pictures of a plan in −1..1 on white."""

    def __init__(self, pictures: np.ndarray, plan: Plan, device: torch.device):
        self.device = device
        self.pictures = torch.from_numpy(pictures).to(device)
        put = lambda values: torch.from_numpy(np.asarray(values)).to(device)
        self.layers, self.places, self.colours = put(plan.layers), put(plan.places), put(plan.colours)
        self.mirrored, self.hues = put(plan.mirrored), put(plan.hues.astype(np.float32))
        self.targets = torch.tensor([RECOLOURED[name] for name in plan.colour_names], device=device)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """The pictures [N, 3, 64, 64] of these rows of the plan."""
        layers, places, mirrored = self.layers[rows], self.places[rows], self.mirrored[rows]
        picture = torch.ones(len(rows), 3, 64, 64, device=self.device)
        for layer in range(layers.shape[1]):
            shown = (layers[:, layer] >= 0).nonzero()[:, 0]
            if len(shown) == 0:
                break
            index = layers[shown, layer]
            rgba = self.pictures[index].float() / 255
            if layer == 0:
                rgba = self.recolour(rgba, index, self.colours[rows[shown]])
                rgba = torch.where(mirrored[shown][:, None, None, None], rgba.flip(3), rgba)
            rgb, alpha = place(rgba, places[shown, layer])
            picture[shown] = picture[shown] * (1 - alpha) + rgb
        return picture.clamp(0, 1) * 2 - 1

    def recolour(self, rgba: torch.Tensor, index: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
        changed = (colours >= 0).nonzero()[:, 0]
        if len(changed) == 0:
            return rgba
        target = self.targets[colours[changed]][:, :, None, None]
        own = self.hues[index[changed]][:, None, None]
        hue, saturation, value = rgb_to_hsv(rgba[changed, :3])
        distance = ((hue - own + 0.5) % 1 - 0.5).abs()
        weight = ((0.13 - distance) / 0.04).clamp(0, 1) * (saturation > 0.12)
        new = hsv_to_rgb((target[:, 0] + (hue - own) * 0.5) % 1, (saturation * target[:, 1]).clamp(0, 1),
                         (value * target[:, 2]).clamp(0, 1))
        rgb = rgba[changed, :3] * (1 - weight[:, None]) + new * weight[:, None]
        return rgba.index_copy(0, changed, torch.cat([rgb, rgba[changed, 3:]], 1))


def place(rgba: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and move pictures. Returns premultiplied colours and the alpha channel."""
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
    moved = (places != torch.tensor([1.0, 0, 0], device=places.device)).any(1).nonzero()[:, 0]
    if len(moved):
        scale, x, y = places[moved].unbind(1)
        zero = torch.zeros_like(scale)
        matrix = torch.stack([1 / scale, zero, -x / scale, zero, 1 / scale, -y / scale], 1).view(-1, 2, 3)
        grid = F.affine_grid(matrix, [len(moved), 4, 64, 64], align_corners=False)
        rgba = rgba.index_copy(0, moved, F.grid_sample(rgba[moved], grid, align_corners=False))
    return rgba[:, :3], rgba[:, 3:]


def rgb_to_hsv(rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[N, 3, H, W] in 0..1 to hue, saturation and value, each [N, H, W] in 0..1."""
    red, green, blue = rgb.unbind(1)
    value, least = rgb.amax(1), rgb.amin(1)
    range_ = value - least
    safe = range_.clamp(min=1e-6)
    hue = torch.where(value == red, ((green - blue) / safe) % 6,
                      torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4)) / 6
    return torch.where(range_ > 1e-6, hue, 0) % 1, range_ / value.clamp(min=1e-6), value


def hsv_to_rgb(hue: torch.Tensor, saturation: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    channel = lambda n: value - value * saturation * (k := (n + hue * 6) % 6).minimum(4 - k).clamp(0, 1)
    return torch.stack([channel(5), channel(3), channel(1)], 1)
