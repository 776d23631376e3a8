#!/usr/bin/env python3
"""Write tiny pictures and what diffusers' load_image makes of them with Pillow 13.0.0.

    pip install pillow==13.0.0
    python tests/golden/pictures/make.py

pictures.json   each file's size and pixels, as RGB and, for masks, as grey levels
cuts.json       the lengths at which a cut file is still accepted
"""

import io
import json
import struct
import warnings
import zlib
from pathlib import Path

from PIL import Image, ImageOps, PngImagePlugin

HERE = Path(__file__).parent
COLOURS = [(250, 20, 30), (20, 240, 60), (40, 30, 220), (245, 245, 20), (10, 10, 10), (130, 140, 150)]


def load_image(file):
    """diffusers.utils.load_image."""
    return ImageOps.exif_transpose(Image.open(file)).convert("RGB")


def picture(scale):
    """Three columns and two rows of plain colours."""
    image = Image.new("RGB", (3, 2))
    image.putdata(COLOURS)
    return image.resize((3 * scale, 2 * scale), Image.Resampling.NEAREST)


def tiff(orientation, order="<", kind=3, count=1):
    value = struct.pack(order + {1: "B", 3: "H", 4: "L"}[kind], orientation).ljust(4, b"\0")
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "LHHHL", 8, 1, 0x0112, kind, count) + value + b"\0\0\0\0"


def xmp(orientation):
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def xmp_element(orientation):
    return f"<x:xmpmeta><tiff:Orientation>{orientation}</tiff:Orientation></x:xmpmeta>".encode()


def chunk(kind, data):
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def with_chunk(data, kind, content, last=False):
    """The file with another chunk after its header, or after its pixels."""
    at = data.rindex(b"IEND") - 4 if last else 33
    return data[:at] + chunk(kind, content) + data[at:]


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def with_segment(data, content):
    """The file with an APP1 segment."""
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]


def raw_profile(exif):
    return b"\nexif\n" + f"{len(exif):8}\n".encode() + b"\n".join(exif.hex().encode()[i:i + 72] for i in range(0, 2 * len(exif), 72)) + b"\n"


def files():
    small, large = png(picture(1)), jpeg(picture(8), subsampling=0)
    for orientation in range(1, 9):
        yield f"orientation-{orientation}.jpg", jpeg(picture(8), subsampling=0, exif=b"Exif\0\0" + tiff(orientation, ">"))
        yield f"orientation-{orientation}.png", with_chunk(small, b"eXIf", tiff(orientation))
    yield "orientation-0.png", with_chunk(small, b"eXIf", tiff(0))
    yield "orientation-9.jpg", with_segment(large, b"Exif\0\0" + tiff(9))
    yield "big-endian.png", with_chunk(small, b"eXIf", tiff(6, ">"))
    yield "prefixed.png", with_chunk(small, b"eXIf", b"Exif\0\0" + tiff(6))
    yield "long-type.png", with_chunk(small, b"eXIf", tiff(8, kind=4))
    yield "byte-type.jpg", with_segment(large, b"Exif\0\0" + tiff(3, kind=1))
    yield "after-pixels.png", with_chunk(small, b"eXIf", tiff(5), last=True)
    yield "raw-profile.png", with_chunk(small, b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(b"Exif\0\0" + tiff(6))))
    yield "raw-profile-text.png", with_chunk(small, b"tEXt", b"Raw profile type exif\0" + raw_profile(b"Exif\0\0" + tiff(7)))
    yield "xmp.png", with_chunk(small, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(8))
    yield "xmp-compressed.png", with_chunk(small, b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp_element(6)))
    yield "xmp.jpg", with_segment(large, b"http://ns.adobe.com/xap/1.0/\0" + xmp(6))
    yield "exif-before-xmp.jpg", with_segment(with_segment(large, b"http://ns.adobe.com/xap/1.0/\0" + xmp(6)), b"Exif\0\0" + tiff(3))
    yield "plain.png", small
    yield "plain.jpg", large
    rgba = picture(1).convert("RGBA")
    rgba.putalpha(Image.frombytes("L", (3, 2), bytes([0, 60, 120, 180, 240, 255])))
    yield "rgba.png", png(rgba)
    yield "la.png", png(rgba.convert("LA"))
    yield "grey.png", png(picture(1).convert("L"))
    yield "bits.png", png(picture(1).convert("1"))
    palette = picture(1).quantize(6)
    yield "palette.png", png(palette)
    yield "palette-transparent.png", png(palette, transparency=2)
    yield "grey-transparent.png", png(picture(1).convert("L"), transparency=10)
    yield "gamma.png", with_chunk(with_chunk(small, b"gAMA", struct.pack(">L", 100000)), b"sRGB", b"\0")
    yield "grey-16.png", png(Image.frombytes("I;16", (3, 2), struct.pack("<6H", 0, 255, 256, 32767, 40000, 65535)))
    wide = b"".join(b"\0" + b"".join(struct.pack(">3H", *(v * 257 + 128 * (v < 255) for v in c)) for c in row) for row in (COLOURS[:3], COLOURS[3:]))
    yield "rgb-16.png", small[:8] + chunk(b"IHDR", struct.pack(">LLBBBBB", 3, 2, 16, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(wide)) + chunk(b"IEND", b"")
    yield "grey.jpg", jpeg(picture(8).convert("L"))
    yield "cmyk.jpg", jpeg(picture(8).convert("CMYK"))
    yield "progressive.jpg", jpeg(picture(8), progressive=True)
    yield "subsampled.jpg", jpeg(picture(8), subsampling=2)
    yield "trailing.jpg", large + b"trailing bytes"
    yield "restarts.jpg", jpeg(picture(8), restart_marker_blocks=1)
    thumbnail = jpeg(picture(1))
    yield "thumbnail.jpg", with_segment(large, b"Exif\0\0" + tiff(1) + thumbnail)


def accepted(data):
    """The lengths at which the file is still read."""
    lengths = []
    for length in range(len(data) + 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load_image(io.BytesIO(data[:length]))
            lengths.append(length)
        except Exception:  # noqa: BLE001  Pillow raises many kinds
            pass
    return lengths


def main():
    pictures, cuts = [], []
    for name, data in files():
        (HERE / name).write_bytes(data)
        try:
            image = load_image(io.BytesIO(data))
        except Exception as error:
            pictures.append({"file": name, "refused": str(error)})
            continue
        pictures.append({"file": name, "size": list(image.size), "rgb": image.tobytes().hex(), "grey": image.convert("L").tobytes().hex()})
        if name in {"plain.png", "plain.jpg", "progressive.jpg", "restarts.jpg", "thumbnail.jpg", "trailing.jpg", "after-pixels.png", "grey.jpg"}:
            cuts.append({"file": name, "accepted": accepted(data)})
    for name, cases in [("pictures", pictures), ("cuts", cuts)]:
        lines = ",\n".join(json.dumps(case) for case in cases)
        (HERE / f"{name}.json").write_text(f"[\n{lines}\n]\n")
    print([case for case in pictures if "refused" in case])


if __name__ == "__main__":
    main()
