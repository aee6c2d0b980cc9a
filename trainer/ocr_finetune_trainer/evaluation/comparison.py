"""Several runs side by side: what was set, what they were made from, what they reach, and where they disagree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_api import results, run_config
from ocr_finetune_api.exit_codes import ConfigurationError, InputMissingError
from ocr_finetune_api.model_table import Kind
from ocr_finetune_api.plan import Stage
from ocr_finetune_api.workspace import Workspace
from ocr_finetune_trainer.evaluation.detection import counts_from, sums_of
from ocr_finetune_trainer.evaluation.statistics import Interval, paired_bootstrap
from ocr_finetune_trainer.metrics.detection import DetectionCounts, match_page

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ocr_finetune_api.run_config import RunConfig
    from ocr_finetune_trainer.data.store import DataSet

__all__ = ["ComparedRun", "Comparison", "Disagreement", "open_run"]

_METRICS = {
    Kind.RECOGNITION: "accuracy",
    Kind.DETECTION: "hmean",
    Kind.TABLE: "structureAccuracy",
    Kind.ORIENTATION: "accuracy",
}
Shown = tuple[int, bool]

# What is said of a run in the manifest and changes from run to run without meaning anything.
_UNINTERESTING = ("workspace", "policy", "pods", "queue", "credentials")


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One run, as far as it has come.

    Attributes:
        label: What it is called here; unique in a comparison.
        config: Its run configuration.
        workspace: Its files.
        metrics: Its `metrics.json`.
        predictions: What was read or found, by index of the sample and whether it was shown turned by 180°.
        results: Its stages' results.
    """

    label: str
    config: RunConfig
    workspace: Workspace
    metrics: Mapping[str, Any]
    predictions: Mapping[Shown, Mapping[str, Any]]
    results: Mapping[Stage, results.StageResult]

    @property
    def kind(self) -> Kind:
        """What its model does."""
        return self.config.spec.model.kind

    @property
    def data_hash(self) -> str:
        """Identifies the set it was measured on."""
        return str(self.metrics.get("dataHash", ""))

    @cached_property
    def settings(self) -> dict[str, str]:
        """The manifest's values by their path."""
        document = self.config.spec.model_dump(mode="json", by_alias=True)
        return {
            path: value
            for path, value in _flat(document)
            if not path.startswith(tuple(f"{name}" for name in _UNINTERESTING))
        }

    @cached_property
    def figures(self) -> dict[str, Any]:
        """What it reaches, how fast, and how large: numbers by name."""
        figures: dict[str, Any] = dict(self.metrics.get("best") or {})
        train, export = self.results.get(Stage.TRAIN), self.results.get(Stage.EXPORT)
        figures |= {"training step": self.metrics.get("checkpointStep")}
        if train is not None:
            seconds = train.metrics.get("seconds") or train.details.get("seconds")
            figures |= {"training seconds": seconds} if seconds is not None else {}
        for name, check in (export.metrics.get("formats", {}) if export is not None else {}).items():
            figures[f"{name} MiB"] = check["bytes"] / 2**20
            figures[f"{name} pictures/s"] = check["picturesPerSecond"]
        return {key: value for key, value in figures.items() if value is not None}

    @cached_property
    def data(self) -> dict[str, str]:
        """What it was made from."""
        prepared = self.results.get(Stage.PREPARE)
        details = prepared.details if prepared is not None else {}
        values = {f"{name} samples": str(count) for name, count in (details.get("counts") or {}).items()}
        hashes = details.get("contentHash") or {}
        values |= {f"{name} content": str(value) for name, value in hashes.items()} if isinstance(hashes, dict) else {}
        return values | {"measured on": f"{self.metrics.get('set', '?')} set {self.data_hash}"}


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [item for key, inner in value.items() for item in _flat(inner, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return [item for i, inner in enumerate(value) for item in _flat(inner, f"{path}[{i}]")]
    return [(path, "" if value is None else json.dumps(value, ensure_ascii=False).strip('"'))]


def open_run(folder: Path, *, label: str = "") -> ComparedRun:
    """Reads what a run has left.

    Raises:
        InputMissingError: It is no run, or has not been evaluated.
    """
    folder = folder.resolve()
    if not (folder / "run.yaml").is_file():
        raise InputMissingError(f"{folder}: is not the folder of a run", hint="it holds a run.yaml")
    workspace = Workspace(folder.parent, folder.name)
    try:
        metrics = json.loads((workspace.evaluation / "metrics.json").read_text(encoding="utf-8"))
        lines = (workspace.evaluation / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, json.JSONDecodeError) as error:
        raise InputMissingError(
            f"{folder}: has not been evaluated ({error})", hint="run `ocrft evaluate` on it"
        ) from error
    rows = [json.loads(line) for line in lines]
    found = {stage: result for stage in Stage if (result := results.read(workspace.result(stage))) is not None}
    return ComparedRun(
        label=label or folder.name,
        config=run_config.read(folder / "run.yaml"),
        workspace=workspace,
        metrics=metrics,
        predictions={(int(row["index"]), bool(row.get("turned"))): row for row in rows},
        results=found,
    )


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One sample on which runs are not of one mind.

    Attributes:
        index: Position in the data set.
        origin: Where its label stands.
        label: What is there; for a page, how many texts it has.
        answers: What each run says, by the run's label.
        right: Which runs are right; for pages, those that find the most.
    """

    index: int
    origin: str
    label: str
    answers: Mapping[str, str]
    right: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "index": self.index,
            "origin": self.origin,
            "label": self.label,
            "answers": dict(self.answers),
            "right": list(self.right),
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: At least two, with different labels, all of one kind.
    """

    runs: tuple[ComparedRun, ...]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Comparison:
        """Opens runs.

        Raises:
            ConfigurationError: They are fewer than two, or of different kinds.
            InputMissingError: One is no run, or has not been evaluated; all of them are named.
        """
        if len(folders) < 2:
            raise ConfigurationError("give at least two runs to compare")
        names = [folder.resolve().name for folder in folders]
        labels = [
            name if names.count(name) == 1 else f"{folder.resolve().parent.name}/{name}"
            for name, folder in zip(names, folders, strict=True)
        ]
        if len(set(labels)) != len(labels):
            raise ConfigurationError(f"the same run is given twice: {', '.join(sorted(labels))}")
        runs: list[ComparedRun] = []
        problems: list[str] = []
        for folder, label in zip(folders, labels, strict=True):
            try:
                runs.append(open_run(folder, label=label))
            except InputMissingError as error:
                problems += error.problems
        if problems:
            raise InputMissingError(*problems, hint="compare runs that have been evaluated")
        if len({run.kind for run in runs}) > 1:
            told = ", ".join(f"{run.label} ({run.kind.value})" for run in runs)
            raise ConfigurationError(f"models of different kinds cannot be compared: {told}")
        return cls(runs=tuple(runs))

    @property
    def same_set(self) -> bool:
        """Whether all were measured on the same samples."""
        return len({run.data_hash for run in self.runs}) == 1 and bool(self.runs[0].data_hash)

    @cached_property
    def settings(self) -> dict[str, dict[str, str]]:
        """Settings in which the runs differ: values by run, by path."""
        paths = dict.fromkeys(path for run in self.runs for path in run.settings)
        rows = {path: {run.label: run.settings.get(path, "") for run in self.runs} for path in paths}
        return {path: row for path, row in rows.items() if len(set(row.values())) > 1}

    def table(self, part: str) -> dict[str, dict[str, Any]]:
        """`figures` or `data` of all runs: values by run, by name."""
        names = dict.fromkeys(name for run in self.runs for name in getattr(run, part))
        return {name: {run.label: getattr(run, part).get(name) for run in self.runs} for name in names}

    @cached_property
    def disagreements(self) -> list[Disagreement]:
        """Samples of the common set on which the runs do not say the same; empty without a common set."""
        if not self.same_set:
            return []
        return self._pages() if self.runs[0].kind is Kind.DETECTION else self._texts()

    def _texts(self) -> list[Disagreement]:
        kind = self.runs[0].kind
        found = []
        for shown, first in self.runs[0].predictions.items():
            answers = {run.label: _answer(run.predictions[shown], kind) for run in self.runs}
            if len(set(answers.values())) > 1:
                right = tuple(run.label for run in self.runs if _is_right(run.predictions[shown], kind))
                found.append(
                    Disagreement(
                        index=shown[0],
                        origin=str(first.get("origin", "")),
                        label=_label(first, kind),
                        answers=answers,
                        right=right,
                    )
                )
        return sorted(found, key=lambda item: (len(item.right) in (0, len(self.runs)), item.index))

    def _pages(self) -> list[Disagreement]:
        dataset = self.dataset
        found = []
        for index, _ in self.runs[0].predictions:
            matches = {run.label: self._counts(run, index) for run in self.runs}
            scores = {name: counts.scores().hmean for name, counts in matches.items()}
            if len({(counts.matched, counts.found) for counts in matches.values()}) > 1:
                best = max(scores.values())
                found.append(
                    Disagreement(
                        index=index,
                        origin=dataset.origin(index),
                        label=f"{next(iter(matches.values())).truths} texts",
                        answers={name: f"{c.matched} right of {c.found} found" for name, c in matches.items()},
                        right=tuple(name for name, score in scores.items() if score == best),
                    )
                )
        return found

    @cached_property
    def dataset(self) -> DataSet:
        """The set that the first run was measured on."""
        from ocr_finetune_trainer.data.store import DataSet

        run = self.runs[0]
        return DataSet.open(run.workspace.data / str(run.metrics["set"]))

    def _counts(self, run: ComparedRun, index: int) -> DetectionCounts:
        sample = self.dataset[index]
        regions = [region["points"] for region in run.predictions[index, False]["found"]]
        return match_page(sample.polygons or (), sample.ignored, regions).counts

    @property
    def metric(self) -> str:
        """The figure that runs of this kind are told apart by."""
        return _METRICS[self.runs[0].kind]

    @cached_property
    def differences(self) -> dict[str, Interval]:
        """`metric` of each further run less that of the first, paired on the common set."""
        if not self.same_set:
            return {}
        pages = self.runs[0].kind is Kind.DETECTION
        figure = _hmean if pages else _share
        sums = [self._page_sums(run) if pages else self._correct(run) for run in self.runs]
        return {
            run.label: paired_bootstrap(rows, sums[0], figure)
            for run, rows in zip(self.runs[1:], sums[1:], strict=True)
        }

    def _page_sums(self, run: ComparedRun) -> NDArray[np.float64]:
        return np.stack([sums_of(self._counts(run, index)) for index, _ in sorted(run.predictions)])

    def _correct(self, run: ComparedRun) -> NDArray[np.float64]:
        right = [_is_right(run.predictions[shown], run.kind) for shown in sorted(run.predictions)]
        return np.stack([np.asarray(right, dtype=np.float64), np.ones(len(right))], axis=1)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "runs": [run.label for run in self.runs],
            "sameSet": self.same_set,
            "settings": self.settings,
            "data": self.table("data"),
            "figures": self.table("figures"),
            "differences": {name: value.as_dict() for name, value in self.differences.items()},
            "disagreements": [item.as_dict() for item in self.disagreements],
        }


def _is_right(row: Mapping[str, Any], kind: Kind) -> bool:
    if kind is Kind.RECOGNITION:
        return row.get("prediction") == row.get("label") and not row.get("problem")
    return bool(row.get("right"))


def _answer(row: Mapping[str, Any], kind: Kind) -> str:
    if kind is Kind.ORIENTATION:
        return "turned" if float(row.get("probability", 0.0)) >= 0.5 else "upright"
    return str(row.get("read" if kind is Kind.TABLE else "prediction", ""))


def _label(row: Mapping[str, Any], kind: Kind) -> str:
    if kind is Kind.ORIENTATION:
        return "turned" if row.get("turned") else "upright"
    return str(row.get("structure" if kind is Kind.TABLE else "label", ""))


def _share(sums: NDArray[np.float64]) -> float:
    return float(sums[0] / max(sums[1], 1))


def _hmean(sums: NDArray[np.float64]) -> float:
    return counts_from(sums).scores().hmean
