"""What benchmarks draw for themselves: lines, pages, documents with outlines; and a detector fitted to documents."""

from __future__ import annotations

import string

import cv2
import numpy as np

DETECTOR = "PP-OCRv3_mobile_det"
PAGE = (720, 960)
DOCUMENT = (1000, 1240)  # large enough that our size rule and PaddleOCR's come to the same


def crops(count: int = 16) -> list[np.ndarray]:
    """Lines of text as a camera gives them, uint8, about 48 x 200."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        image = np.full((48, int(rng.integers(150, 300)), 3), 200, np.uint8)
        text = "".join(rng.choice(list(string.ascii_letters), 8))
        cv2.putText(image, text, (5, 34), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (30, 30, 30), 2)
        made.append((image + rng.integers(0, 30, image.shape)).clip(0, 255).astype(np.uint8))
    return made


def pages(count: int = 4) -> list[np.ndarray]:
    """Pages with lines of text, uint8, 960 x 720."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        image = np.full((*PAGE, 3), 220, np.uint8)
        for row in range(12):
            text = "".join(rng.choice(list(string.ascii_letters + " "), 24))
            cv2.putText(image, text, (30, 50 + row * 55), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (20, 20, 20), 2)
        made.append((image - rng.integers(0, 20, image.shape)).clip(0, 255).astype(np.uint8))
    return made


def document(seed: int) -> tuple[bytes, list[np.ndarray]]:
    """A JPEG of noisy paper with 30 lines of text that lie a little askew, and their outlines."""
    rng = np.random.default_rng(seed)
    height, width = DOCUMENT
    noise = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (7, 7), 2)
    picture = (noise // 4 + 170).astype(np.uint8)
    outlines = []
    for number in range(30):
        left, top = 40 + (number % 3) * 400, 30 + (number // 3) * 95
        columns, rows = float(rng.uniform(150, 340)), float(rng.uniform(20, 40))
        corners = np.asarray([[0, 0], [columns, 0], [columns, rows], [0, rows]]) + np.asarray((left, top))
        turn = cv2.getRotationMatrix2D((left + columns / 2, top + rows / 2), float(rng.uniform(-6, 6)), 1.0)
        outlines.append((corners @ turn[:, :2].T + turn[:, 2]).astype(np.float32))
        text = "evaluation 0123456789 of pages"[: int(columns / 13)]
        cv2.putText(picture, text, (left, int(top + 0.8 * rows)), cv2.FONT_HERSHEY_SIMPLEX, rows / 32, (30, 30, 30), 2)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes(), outlines


def fit_detector(steps: int) -> dict[str, np.ndarray]:
    """Trains the detector on crops of drawn documents until it finds most texts; its weights by structured name."""
    import paddle

    from ocr_finetune_trainer import losses, models
    from ocr_finetune_trainer.data.db_targets import db_targets
    from ocr_finetune_trainer.data.pictures import decode
    from ocr_finetune_trainer.geometry import detection_geometry

    paddle.seed(0)
    normalize = detection_geometry(DETECTOR).normalization
    pictures = [(decode(content), outlines) for content, outlines in map(document, range(1000, 1012))]
    targets = [
        db_targets(outlines, [False] * len(outlines), height=DOCUMENT[0], width=DOCUMENT[1]) for _, outlines in pictures
    ]
    model, loss = models.build(DETECTOR), losses.build(DETECTOR)
    model.train()
    optimizer = paddle.optimizer.Adam(2e-3, parameters=model.parameters())
    rng, side = np.random.default_rng(0), 320
    for _ in range(steps):
        crops_, maps = [], []
        for number in rng.integers(0, len(pictures), 2):
            top, left = (int(rng.integers(0, limit - side)) for limit in DOCUMENT)
            crops_.append(normalize(np.ascontiguousarray(pictures[number][0][top : top + side, left : left + side])))
            maps.append({name: value[top : top + side, left : left + side] for name, value in targets[number].items()})
        batch = {name: paddle.to_tensor(np.stack([m[name] for m in maps]).astype(np.float32)) for name in maps[0]}
        loss(models.train_forward(model, paddle.to_tensor(np.stack(crops_)), batch), batch)["loss"].backward()
        optimizer.step()
        optimizer.clear_grad()
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
