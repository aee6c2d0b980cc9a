"""Writes scikit-learn's 1,797 real handwritten digits in the layout of single-character collections.

    data/binarized_data/<id>/<character>_<n>.png     a folder a character
    data/samples.csv                                 a row a sample: path, character, id
    data/id2char.json                                {"<id>": "<character>"}

Run it as `python examples/digits/make_dataset.py [FOLDER]`.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SIDE = 48
FIRST_ID = 5300


def write(folder: Path) -> int:
    """Writes the data set; returns how many pictures it has."""
    digits = load_digits()
    counts = dict.fromkeys(range(10), 0)
    rows = []
    for pixels, digit in zip(digits.images, digits.target.tolist(), strict=True):
        counts[digit] += 1
        name = Path("binarized_data") / str(FIRST_ID + digit) / f"{digit}_{counts[digit]}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        # 0 is paper and 16 full ink.
        ink = Image.fromarray(np.uint8(255 - pixels * 255 / 16))
        ink.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(folder / name)
        rows.append((name.as_posix(), str(digit), FIRST_ID + digit))
    with (folder / "samples.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "character", "id"))
        writer.writerows(rows)
    id2char = {str(FIRST_ID + digit): str(digit) for digit in range(10)}
    (folder / "id2char.json").write_text(json.dumps(id2char, indent=2) + "\n", encoding="utf-8")
    return len(rows)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    print(f"{write(target)} pictures in {target}")
