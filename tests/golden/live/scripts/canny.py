"""Writes pictures and the edges that OpenCV finds in them to canny.json. Needs opencv-python-headless."""
import json
import pathlib

import cv2
import numpy as np

rng = np.random.default_rng(0)
cases = []
for kind, (height, width) in [("shapes", (20, 24)), ("noise", (20, 24)), ("both", (17, 31)), ("grey", (9, 5))]:
    picture = np.zeros((height, width, 3), np.uint8)
    if kind in ("shapes", "both"):
        cv2.circle(picture, (width // 3, height // 2), height // 3, (200, 30, 90), -1)
        cv2.line(picture, (2, height - 3), (width - 2, 1), (20, 160, 60), 2)
    if kind == "both":
        picture = np.clip(picture.astype(int) + rng.normal(0, 40, picture.shape), 0, 255).astype(np.uint8)
    if kind == "noise":
        picture = rng.integers(0, 256, picture.shape, np.uint8)
    if kind == "grey":
        picture[:] = (np.arange(width) * 60)[None, :, None]
    edges = ["".join("#" if x else "." for x in row) for row in cv2.Canny(picture, 100, 200)]
    cases.append(dict(width=width, height=height, rgb=picture.flatten().tolist(), edges=edges))
pathlib.Path(__file__).parents[1].joinpath("canny.json").write_text(json.dumps(cases) + "\n")
