"""Tables in training and evaluation: samples, batches, what counts, the report, and what a model can't learn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import pytest

from ocr_finetune_api.model_table import Kind
from ocr_finetune_trainer import losses, models
from ocr_finetune_trainer.data import formats
from ocr_finetune_trainer.data.files import open_files
from ocr_finetune_trainer.data.pictures import decode as decode_picture
from ocr_finetune_trainer.data.pictures import encode as encode_picture
from ocr_finetune_trainer.data.synthetic_tables import Drawing, draw_table
from ocr_finetune_trainer.data.table_labels import as_corners, merge_cells, vocabulary_for
from ocr_finetune_trainer.data.table_samples import TableAugmentation, TableTransform, label_of, untrainable
from ocr_finetune_trainer.evaluation.bad_cases import write_bad_tables
from ocr_finetune_trainer.evaluation.evaluate import measure
from ocr_finetune_trainer.evaluation.report.table import drawn, table_report
from ocr_finetune_trainer.evaluation.sample_evaluation import SampleEvaluation
from ocr_finetune_trainer.evaluation.tables import TableMeasurement, measure_tables
from ocr_finetune_trainer.geometry import geometry_for
from ocr_finetune_trainer.models.table import ServedTable
from ocr_finetune_trainer.table_geometry import TableGeometry, table_geometry

WORDS = ("total", "price", "a<b")
LOOK = Drawing(rows=(1, 3), columns=(2, 3), span=0.5)


@dataclass
class Table:
    image: bytes
    text: str
    polygons: list[np.ndarray]
    texts: tuple[str, ...]
    ignored: tuple[bool, ...]
    origin: str
    source: int = 0


class Tables:
    """A set of drawn tables as the store gives them."""

    source_names = ("drawn",)
    sizes = np.zeros((0, 2), dtype=np.int32)

    def __init__(self, count: int) -> None:
        self.samples = []
        for number in range(count):
            picture, label = draw_table(WORDS, rng=np.random.default_rng(number), look=LOOK)
            boxes = [None if c.box is None else np.float32(as_corners(c.box, numbers=8)) for c in label.cells]
            self.samples.append(
                Table(
                    image=encode_picture(picture, lossless=True),
                    text=label.html,
                    polygons=[np.zeros((0, 2), np.float32) if b is None else b.reshape(4, 2) for b in boxes],
                    texts=tuple("".join(c.tokens) for c in label.cells),
                    ignored=tuple(b is None for b in boxes),
                    origin=f"gt.txt:{number + 1}",
                )
            )

    @property
    def texts(self) -> list[str]:
        return [sample.text for sample in self.samples]

    def image(self, index: int) -> bytes:
        return self.samples[index].image

    def origin(self, index: int) -> str:
        return self.samples[index].origin

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Table:
        return self.samples[index]


class Knowing:
    """A network that knows the labels of a set, one picture after the other; from `wrong` on it forgets the last cell."""

    def __init__(self, tables: Tables, geometry: TableGeometry, *, wrong: int) -> None:
        self.tables, self.geometry, self.wrong, self.next = tables, geometry, wrong, 0

    def run(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def best(self, x: np.ndarray) -> Any:
        raise NotImplementedError

    def run_all(self, x: np.ndarray) -> list[np.ndarray]:
        transform = TableTransform(self.geometry)
        boxes = np.zeros((len(x), 60, self.geometry.box_numbers), np.float32)
        structure = np.zeros((len(x), 60, len(self.geometry.vocabulary.classes)), np.float32)
        for row in range(len(x)):
            sample = transform(self.tables[self.next], np.random.default_rng(0), tokens=60)
            tokens = sample["structure"][1:61].tolist()
            if self.next >= self.wrong:
                last = max(i for i, token in enumerate(tokens) if token in self.geometry.vocabulary.cell_classes)
                del tokens[last]
                tokens.append(0)
            else:
                boxes[row] = sample["bboxes"][1:61]
            structure[row, np.arange(60), tokens] = 1.0
            self.next += 1
        return [boxes, structure]


@pytest.mark.parametrize("name", ["SLANet", "SLANet_plus", "SLANet_small"])
def test_what_is_right_is_counted_right(name: str) -> None:
    tables = Tables(6)
    geometry = table_geometry(name)
    measured = measure_tables(Knowing(tables, geometry, wrong=4), tables, geometry=geometry, unusable=2, batch_size=4)
    scores = measured.scores_of(measured.sums)
    assert (scores["samples"], scores["structureAccuracy"]) == (8, 0.5)
    assert [table.right for table in measured.tables] == [True] * 4 + [False] * 2
    assert [table.teds for table in measured.tables[:4]] == [1.0] * 4
    assert all(0.3 < table.teds_structure < 1.0 for table in measured.tables[4:])
    assert measured.tables[0].read_html == measured.tables[0].true_html
    assert measured.tables[0].counts().boxes.matched == sum(not i for i in tables[0].ignored)
    # Ranks add up to the same.
    parts = [
        measure_tables(Knowing(tables, geometry, wrong=4), tables, geometry=geometry, indices=range(3), unusable=2),
        TableMeasurement(tables=measured.tables[3:]),
    ]
    np.testing.assert_allclose(sum(part.sums for part in parts), measured.sums)


def test_bad_tables_come_back_as_training_data(tmp_path) -> None:
    tables = Tables(4)
    geometry = table_geometry("SLANet")
    measured = measure_tables(Knowing(tables, geometry, wrong=2), tables, geometry=geometry)
    folder = tmp_path / "badcases"

    count = write_bad_tables(
        folder,
        [table for table in measured.tables if not table.right],
        dataset=tables,
        drawn=lambda table: decode_picture(tables[table.index].image),
    )

    request = formats.Request(files=open_files(folder)[0], kind=Kind.TABLE)
    records = list(formats.layout(formats.recognise(request).format).read(request))
    assert count == 2
    assert sorted(path.name for path in (folder / "drawn").iterdir()) == ["000002.png", "000003.png"]
    for record, sample in zip(records, tables.samples[2:], strict=True):
        assert record.text == sample.text
        assert [box.text for box in record.boxes] == list(sample.texts)
        for box, outline in zip(record.boxes, sample.polygons, strict=True):
            np.testing.assert_allclose(np.reshape(box.points, (-1, 2)), outline)
    reasons = [json.loads(line) for line in (folder / "why.jsonl").read_text().splitlines()]
    assert [row["origin"] for row in reasons] == ["gt.txt:3", "gt.txt:4"]


def test_a_picture_that_cannot_be_decoded_is_wrong() -> None:
    tables = Tables(2)
    tables.samples[0].image = b"broken"
    geometry = table_geometry("SLANet")
    network = Knowing(tables, geometry, wrong=9)
    network.next = 1
    measured = measure_tables(network, tables, geometry=geometry)
    assert [(table.right, bool(table.problem)) for table in measured.tables] == [(False, True), (True, False)]
    assert measured.scores_of(measured.sums)["structureAccuracy"] == 0.5


def test_the_report_shows_both_tables_and_escapes_what_cells_say() -> None:
    tables = Tables(6)
    geometry = table_geometry("SLANet")
    best = measure_tables(Knowing(tables, geometry, wrong=4), tables, geometry=geometry)
    base = measure_tables(Knowing(tables, geometry, wrong=0), tables, geometry=geometry)
    evaluation = SampleEvaluation(kind="table", metrics=("structureAccuracy", "teds"), best=best, base=base)
    document = evaluation.document
    assert document["best"]["structureAccuracy"] == pytest.approx(4 / 6)
    assert document["regressions"]["worse"] == 0
    assert evaluation.improvement("structureAccuracy").value == pytest.approx(4 / 6)
    from ocr_finetune_trainer.data.pictures import decode

    html = table_report(
        document,
        worst=[table for table in best.tables if not table.right],
        wrong=2,
        picture_of=lambda index: decode(tables[index].image),
        title="Tables",
        facts={},
        verdict={},
    )
    assert html.count("data:image/jpeg") == 2
    assert "a&lt;b" in html
    assert "a<b" not in html
    assert drawn(best.tables[0], decode(tables[0].image)).shape == decode(tables[0].image).shape


def test_batches_are_the_same_for_any_number_of_ranks() -> None:
    tables = Tables(4)
    transform = TableTransform(table_geometry("SLANet_small"), TableAugmentation())
    everyone = np.arange(4)

    def part(indices: list[int]) -> dict[str, np.ndarray]:
        samples = ((tables[i], np.random.default_rng(i)) for i in indices)
        return transform.batch(samples, dataset=tables, everyone=everyone)  # type: ignore[arg-type]

    whole, halves = part([0, 1, 2, 3]), [part([0, 1]), part([2, 3])]
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), values)
    assert whole["steps"].tolist() == [max(len(merge_cells(label_of(t).structure)) for t in tables.samples) + 1] * 4
    # What is decoded does not depend on how long the structures of one rank are.
    model, loss = models.build("SLANet_small"), losses.build("SLANet_small")
    batch = {key: paddle.to_tensor(halves[0][key]) for key in ("structure", "bboxes", "bbox_masks", "length", "steps")}
    outputs = models.train_forward(model, paddle.randn([2, 3, 160, 160]), batch)
    assert outputs["structure_probs"].shape[1] == whole["steps"][0]
    assert float(loss(outputs, batch)["loss"]) > 0


@pytest.mark.parametrize(
    ("structure", "kind"),
    [
        ('<tr><td colspan="12"></td></tr>', "unknown-structure-token"),
        ("<tr>" + "<td></td>" * 499 + "</tr>", "long-structure"),
        ("<tr><td></td></tr>", None),
    ],
)
def test_what_a_model_cannot_learn_is_named(structure: str, kind: str | None) -> None:
    wrong = untrainable(structure, vocabulary_for("SLANet"))
    assert (wrong[0] if wrong else None) == kind
    if kind == "unknown-structure-token":
        assert 'colspan="12"' in wrong[1]  # type: ignore[index]
        assert untrainable(structure, vocabulary_for("SLANet_plus")) is None


def test_serving_gets_four_corners() -> None:
    model = models.build("SLANet_small")
    model.head.max_text_length = 5
    model.eval()
    x = paddle.randn([1, 3, 160, 160])
    plain = model(x)["loc_preds"].numpy()
    corners, structure = ServedTable(model)(x)
    np.testing.assert_array_equal(corners.numpy()[..., [0, 1, 4, 5]], plain)
    np.testing.assert_array_equal(corners.numpy()[..., [2, 3, 6, 7]], plain[..., [2, 1, 0, 3]])
    assert structure.shape[2] == 30


def test_geometry_says_what_kind_of_model_is_measured() -> None:
    tables = Tables(1)
    geometry = geometry_for("SLANet_small")
    measured = measure(Knowing(tables, geometry, wrong=9), tables, geometry=geometry)  # type: ignore[arg-type]
    assert measured.scores_of(measured.sums)["structureAccuracy"] == 1.0
