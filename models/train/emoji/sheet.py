"""Sheets of pictures."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image


def save(pictures: torch.Tensor, columns: int, file: Path, zoom: int = 2):
    """Write pictures [N, 3, H, W] in −1..1 as one PNG."""
    values = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    n, _, height, width = values.shape
    rows = -(-n // columns)
    full = np.full((rows * columns, 3, height, width), 255, np.uint8)
    full[:n] = values
    grid = full.reshape(rows, columns, 3, height, width).transpose(0, 3, 1, 4, 2)
    image = Image.fromarray(grid.reshape(rows * height, columns * width, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.resize((image.width * zoom, image.height * zoom), Image.NEAREST).save(file)
