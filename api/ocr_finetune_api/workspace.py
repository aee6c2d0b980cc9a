"""Where every file of a run lies. Nobody else joins these paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ocr_finetune_api.plan import Stage


@dataclass(frozen=True)
class Workspace:
    """The files of one run under the root of a workspace.

    Attributes:
        root: The root, shared by runs.
        run: Name of the run's folder, `<run>-<first 8 characters of its UID>`.
    """

    root: Path
    run: str

    @property
    def cache(self) -> Path:
        """Prepared data and weights, shared between runs, by content hash."""
        return self.root / ".cache"

    @property
    def folder(self) -> Path:
        """Everything of this run."""
        return self.root / self.run

    @property
    def run_config(self) -> Path:
        """The run configuration that was used last."""
        return self.folder / "run.yaml"

    @property
    def data(self) -> Path:
        """What prepare leaves: `train/`, `validation/`, `test/`, the dictionary, the report."""
        return self.folder / "data"

    @property
    def dictionary(self) -> Path:
        """The characters the model is trained for, one entry a line."""
        return self.data / "dictionary.txt"

    @property
    def rejected(self) -> Path:
        """Every sample that could not be used, with its reason."""
        return self.data / "rejected.jsonl"

    @property
    def weights(self) -> Path:
        """The pretrained weights and their dictionary, as prepare checked them."""
        return self.folder / "weights"

    @property
    def checkpoints(self) -> Path:
        """`<step>.a<attempt>.x<execution>/` each."""
        return self.folder / "checkpoints"

    @property
    def fence(self) -> Path:
        """Which attempt and execution may write checkpoints."""
        return self.folder / "fence.json"

    @property
    def stop_request(self) -> Path:
        """Training stops with a checkpoint when this file appears."""
        return self.folder / "STOP"

    @property
    def logs(self) -> Path:
        """`a<attempt>.x<execution>/rank-<r>.log` each."""
        return self.folder / "logs"

    @property
    def events(self) -> Path:
        """What happened in training, one JSON object a line."""
        return self.folder / "events.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard files."""
        return self.folder / "tensorboard"

    @property
    def evaluation(self) -> Path:
        """Metrics, report and bad cases."""
        return self.folder / "evaluation"

    @property
    def export(self) -> Path:
        """The exported model."""
        return self.folder / "export"

    def result(self, stage: Stage) -> Path:
        """The result document of a stage."""
        return self.folder / "results" / f"{stage.value}.json"


def run_folder(name: str, uid: str) -> str:
    """Name of a run's folder: unique also when a run is deleted and made again under its name."""
    return f"{name}-{uid[:8]}"
