"""Draws tables with known structure and cells, in PaddleOCR's layout of tables (that of PubTabNet).

    data/images/<number>.png
    data/gt.txt                 a JSON line a table: its structure as HTML tokens, its cells with text and place

Run it as `python examples/tables/make_dataset.py [FOLDER]`. Words of your own, and what tables look like, are arguments
of `write_pubtabnet`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ocr_finetune_trainer.data.synthetic_tables import Drawing, write_pubtabnet

TABLES = 4400
WORDS = ("sum", "no", "net", "qty", "tax", "total", "item", "price")
LOOK = Drawing(rows=(1, 4), columns=(2, 4), span=0.0, lines=1.0, font_size=(10, 14), padding=(3, 8))


def write(folder: Path, *, tables: int = TABLES, seed: int = 1, look: Drawing = LOOK) -> int:
    """Draws the data set; returns how many tables it has."""
    write_pubtabnet(folder, words=WORDS, tables=tables, seed=seed, look=look)
    return tables


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    print(f"{write(target)} tables in {target}")
