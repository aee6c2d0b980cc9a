"""Makes figures with another fill, from a checkout of PaddleOCR: the checks here must not depend on the numbers used.

    python tests/parity/make_figures.py PATH_OF_A_PADDLEOCR_CHECKOUT DEST --fill 7 [NAME …]
    OCRFT_FIGURES=DEST pytest tests/parity/test_recognition.py tests/parity/test_detection.py

Architecture and loss of each model are taken from the figures beside this file; weights, pictures and targets are new.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from figures import FOLDER, Figures, fill, gradient_norms, without_dropout

BATCH, LENGTH = 2, 25


def _targets(figures: Figures, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What training is told, keyed as in the figures."""
    if figures.facts["classes"] is None:
        maps = (shape[0], *shape[2:])
        return {
            "threshold_map": rng.uniform(0.3, 0.7, maps).astype(np.float32),
            "threshold_mask": (rng.uniform(size=maps) > 0.3).astype(np.float32),
            "shrink_map": (rng.uniform(size=maps) > 0.6).astype(np.float32),
            "shrink_mask": (rng.uniform(size=maps) > 0.1).astype(np.float32),
        }
    lengths = np.array([3, 12])
    ctc, guided = np.zeros((BATCH, LENGTH), np.int64), np.zeros((BATCH, LENGTH), np.int64)
    for row, length in enumerate(lengths):
        label = rng.integers(1, figures.facts["classes"], length)
        ctc[row, :length] = label
        guided[row, : length + 2] = [2, *(label + 3), 3]
    return {"label_ctc": ctc, "label_gtc": guided, "length": lengths}


def _run(figures: Figures, made: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Runs PaddleOCR's model, and adds what it gives to the arrays and facts."""
    from ppocr.losses import build_loss
    from ppocr.modeling.architectures import build_model

    model = build_model(copy.deepcopy(figures.facts["architecture"]))
    new = Figures(figures.name, facts, made)
    x = paddle.to_tensor(made["input"])
    fill(model, new)
    model.eval()
    with paddle.no_grad():
        output = model(x)
    key = next(name for name in figures.arrays if name.startswith("eval/"))
    if isinstance(output, dict):
        output = output[key.removeprefix("eval/")] if key.removeprefix("eval/") in output else output["ctc"]
    made[key] = output.numpy()
    if "loss" not in figures.facts:
        return
    fill(model, new)
    without_dropout(model)
    for layer in model.sublayers():
        if hasattr(layer, "drop_prob"):
            layer.drop_prob = 0.0
    batch = new.batch()
    names = ("threshold_map", "threshold_mask", "shrink_map", "shrink_mask")
    told = [batch[name] for name in names] if "shrink_map" in batch else [batch["label_ctc"], batch["length"]]
    if figures.facts["architecture"]["Head"]["name"] == "MultiHead":
        told = [batch["label_ctc"], batch["label_gtc"], batch["length"], paddle.ones([BATCH])]
    outputs = model(x) if "shrink_map" in batch else model(x, data=told)
    losses = build_loss(copy.deepcopy(figures.facts["loss"]))(outputs, [x, *told])
    losses["loss"].backward()
    facts["loss_values"] = {name: value.item() for name, value in losses.items()}
    facts["grad_norm"] = gradient_norms(model)
    named = outputs if isinstance(outputs, dict) else {}
    made.update({f"train/{k}": v.numpy() for k, v in named.items() if f"train/{k}" in figures.arrays})


def main() -> None:
    """Writes `NAME.json` and `NAME.npz` for each model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--fill", type=int, default=7, help="any whole number above 0")
    options = parser.parse_args()
    sys.path.insert(0, str(options.checkout))
    options.target.mkdir(parents=True, exist_ok=True)
    known = sorted(path.stem for path in FOLDER.glob("*.json") if not path.stem.endswith("_ops"))
    for name in options.names or [name for name in known if "v6" not in name and "SLANet" not in name]:
        figures = Figures.load(name, FOLDER)
        rng = np.random.default_rng(options.fill)
        shape = figures.arrays["input"].shape
        made = {"input": rng.standard_normal((BATCH, *shape[1:])).astype(np.float32)}
        made |= _targets(figures, rng, made["input"].shape) if "loss" in figures.facts else {}
        facts = {**figures.facts, "fill": options.fill}
        _run(figures, made, facts)
        (options.target / f"{name}.json").write_text(json.dumps(facts))
        np.savez(options.target / f"{name}.npz", **made)
        print(name, flush=True)
    for path in FOLDER.glob("*_ops.*"):
        shutil.copy(path, options.target)


if __name__ == "__main__":
    main()
