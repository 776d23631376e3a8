"""Pack the pictures and words of the npm packages into one file, `work/emoji.npz`.

emoji-datasource-google 16.0.0 has the pictures and names, emojilib 4.0.2 further words.
"""

import argparse
import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGES = ["emoji-datasource-google@16.0.0", "emojilib@4.0.2"]
SIZE = 64
COLUMNS = 64
SKIN_TONES = {"1F3FB": "light", "1F3FC": "medium light", "1F3FD": "medium", "1F3FE": "medium dark", "1F3FF": "dark"}


def read_package(package: str, folder: Path, prefixes: tuple[str, ...]) -> dict[str, bytes]:
    """Fetch a package with npm, once, and read its files that start with one of the prefixes."""
    name, version = package.rsplit("@", 1)
    file = folder / f"{name}-{version}.tgz"
    if not file.exists():
        subprocess.run(["npm", "pack", package, "--pack-destination", str(folder)], check=True)
    # In the order of the file, because a compressed file cannot seek.
    with tarfile.open(file) as package:
        named = ((member, member.name.removeprefix("package/")) for member in package)
        return {name: package.extractfile(member).read() for member, name in named if name.startswith(prefixes)}


def plain(text: str) -> str:
    """Lower-case words without punctuation."""
    text = text.lower().replace("’", "").replace("'", "")
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text).split())


def words_of(entry: dict, keywords: list[str]) -> dict:
    """The names and keywords of an entry. The first name is the prompt that is measured."""
    spellings = [keywords[0] if keywords else "", entry["name"] or "", *entry["short_names"]]
    names = [plain(spelling) for spelling in spellings]
    if entry["subcategory"] == "country-flag":
        country = names[1].replace("flag", "").strip()
        names = [f"flag of {country}", f"{country} flag", *names[2:]]
    names = list(dict.fromkeys(name for name in names if name))
    more = [plain(keyword) for keyword in keywords[1:]]
    return {"names": names, "keywords": [word for word in more if word and word not in names]}


def entries_of(data: list[dict], library: dict) -> list[dict]:
    """One entry for each picture: words, category, skin tones, and the file."""
    entries = []
    for entry in sorted(data, key=lambda entry: entry["sort_order"]):
        symbol = "".join(chr(int(code, 16)) for code in entry["unified"].split("-"))
        found = library.get(symbol) or library.get(symbol.replace("\ufe0f", "")) or []
        shared = words_of(entry, found) | {"category": entry["category"], "subcategory": entry["subcategory"]}
        if entry["has_img_google"]:
            entries.append(shared | {"tones": [], "file": entry["image"]})
        for code, variation in entry.get("skin_variations", {}).items():
            if variation["has_img_google"]:
                tones = [SKIN_TONES[part] for part in code.split("-")]
                entries.append(shared | {"tones": tones, "file": variation["image"]})
    return entries


def pack(work: Path) -> Path:
    """Write `emoji.npz` with `sheet` (the bytes of a PNG with all pictures) and `entries` (JSON)."""
    work.mkdir(parents=True, exist_ok=True)
    google = read_package(PACKAGES[0], work, ("emoji.json", "img/google/64/"))
    library = read_package(PACKAGES[1], work, ("dist/emoji-en-US.json",))
    entries = entries_of(json.loads(google["emoji.json"]), json.loads(library["dist/emoji-en-US.json"]))
    rows = -(-len(entries) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * SIZE, rows * SIZE))
    for index, entry in enumerate(entries):
        picture = Image.open(io.BytesIO(google[f"img/google/64/{entry.pop('file')}"])).convert("RGBA")
        sheet.paste(picture.resize((SIZE, SIZE), Image.LANCZOS), (index % COLUMNS * SIZE, index // COLUMNS * SIZE))
    bytes_of_sheet = io.BytesIO()
    sheet.save(bytes_of_sheet, "PNG", optimize=True)
    file = work / "emoji.npz"
    np.savez(file, sheet=np.frombuffer(bytes_of_sheet.getvalue(), np.uint8),
             entries=np.frombuffer(json.dumps(entries).encode(), np.uint8))
    print(f"{file}: {len(entries)} pictures, {file.stat().st_size / 1e6:.1f} MB")
    return file


def load(file: Path) -> tuple[np.ndarray, list[dict]]:
    """The pictures [N, 4, 64, 64] as uint8 RGBA, and their entries."""
    packed = np.load(file)
    entries = json.loads(packed["entries"].tobytes())
    sheet = np.asarray(Image.open(io.BytesIO(packed["sheet"].tobytes())))
    rows = sheet.shape[0] // SIZE
    pictures = sheet.reshape(rows, SIZE, COLUMNS, SIZE, 4).transpose(0, 2, 4, 1, 3)
    return pictures.reshape(-1, 4, SIZE, SIZE)[: len(entries)], entries


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("work"))
    pack(parser.parse_args().work)
