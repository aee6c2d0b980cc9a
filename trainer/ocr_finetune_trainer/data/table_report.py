"""What the data report says of tables: how large they are, what spans, what is empty, what has no place."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from ocr_finetune_trainer.data.table_checks import StructureError, read_grid
from ocr_finetune_trainer.data.table_labels import merge_cells, split_structure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ocr_finetune_trainer.data.catalogue import Catalogue

__all__ = ["table_facts"]


def table_facts(catalogue: Catalogue, used: NDArray[np.int64]) -> dict[str, Any]:
    """Facts about the usable tables.

    Args:
        catalogue: All samples.
        used: Numbers of the usable ones.

    Returns:
        `rows`, `columns` and `tokens`: least, median and most; `spans`: how many cells cover how many rows and columns,
        by token; counts of `cells`, `emptyCells`, `cellsWithoutPlace` (text but no usable box), and of tables:
        `withoutBoxes`, `withoutHead`, `ragged` (rows of different widths).
    """
    sizes: dict[str, list[int]] = {"rows": [], "columns": [], "tokens": []}
    spans: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for index in used:
        tokens = split_structure(catalogue.texts[int(index)])
        try:
            grid = read_grid(tokens)
        except StructureError:  # kept in a test set, where it counts as wrong
            continue
        sizes["rows"].append(grid.rows)
        sizes["columns"].append(grid.columns)
        sizes["tokens"].append(len(merge_cells(tokens)))
        spans.update(token.strip() for token in tokens if "span=" in token)
        counts["ragged"] += grid.ragged
        counts["withoutHead"] += grid.head_rows == 0
    for texts, ignored in _cells(catalogue, used):
        counts["cells"] += len(texts)
        empty = [not text.strip() for text in texts]
        counts["emptyCells"] += sum(empty)
        missing = [skip and not blank for skip, blank in zip(ignored, empty, strict=True)]
        if all(ignored):
            counts["withoutBoxes"] += 1
        else:
            counts["cellsWithoutPlace"] += sum(missing)
    names = ("cells", "emptyCells", "cellsWithoutPlace", "withoutBoxes", "withoutHead", "ragged")
    return {
        **{name: _range(values) for name, values in sizes.items()},
        "spans": dict(spans.most_common()),
        **{name: counts[name] for name in names},
    }


def _range(values: list[int]) -> dict[str, int]:
    if not values:
        return {"least": 0, "median": 0, "most": 0}
    return {"least": min(values), "median": int(np.median(values)), "most": max(values)}


def _cells(catalogue: Catalogue, used: NDArray[np.int64]) -> Iterator[tuple[list[str], list[bool]]]:
    """Texts and marks of the cells of each table, a shard at a time; pictures stay on the disk."""
    for number, shard in enumerate(catalogue.shards):
        rows = catalogue.row[used[catalogue.shard[used] == number]]
        if not len(rows):
            continue
        with pa.memory_map(str(catalogue.folder / f"{shard.name}.arrow")) as source:
            table = pa.ipc.open_file(source).read_all().select(["texts", "ignored"])
            for row in rows:
                texts, ignored = (table.column(name)[int(row)].as_py() for name in ("texts", "ignored"))
                yield list(texts or ()), list(ignored or ())
