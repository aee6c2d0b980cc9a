"""TEDS of 1,000 tables on two cores, in seconds: tables as large as PubTabNet's, read right, nearly right and wrong."""

from __future__ import annotations

import time

import numpy as np

from ocr_finetune_trainer.data.synthetic_tables import Drawing, draw_table
from ocr_finetune_trainer.evaluation.table_decode import to_html
from ocr_finetune_trainer.metrics.table import plain_text, teds_of_many

WORDS = (
    "amount",
    "date",
    "name",
    "total",
    "price",
    "city",
    "weight",
    "order",
    "item",
    "code",
    "mean",
    "error",
    "value",
)
LOOK = Drawing(rows=(6, 14), columns=(3, 6), span=0.8)
TABLES = 1000


def table(seed: int, *, change: float) -> str:
    """A drawn table as HTML; `change` is the share of its cells whose text is another."""
    rng = np.random.default_rng(seed)
    _, label = draw_table(WORDS, rng=rng, look=LOOK)
    texts = [plain_text(cell.tokens) for cell in label.cells]
    return to_html(label.structure, [text[::-1] if rng.random() < change else text for text in texts])


def main() -> None:
    """Prints seconds and the mean score of each case."""
    true = [table(seed, change=0.0) for seed in range(TABLES)]
    cells = sum(markup.count("<td") for markup in true) / TABLES
    cases = {
        "all right": true,
        "one cell in fifty wrong": [table(seed, change=0.02) for seed in range(TABLES)],
        "half right, half with a fifth of the cells wrong": [
            table(seed, change=0.2 * (seed % 2)) for seed in range(TABLES)
        ],
        "every table another one": [true[(number + 1) % TABLES] for number in range(TABLES)],
    }
    print(f"{TABLES} tables of {cells:.0f} cells")
    for name, predicted in cases.items():
        for structure_only in (False, True):
            pairs = list(zip(predicted, true, strict=True))
            started = time.perf_counter()
            scores = teds_of_many(pairs, structure_only=structure_only, processes=2)
            took = time.perf_counter() - started
            kind = "structure" if structure_only else "with text"
            print(f"{name}, {kind}: {took:.1f} s, mean {scores.mean():.4f}")


if __name__ == "__main__":
    main()
