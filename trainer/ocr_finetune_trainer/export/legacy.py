"""The older form of Paddle's inference format (`.pdmodel`), for programs that cannot read `inference.json`.

Which form Paddle writes is decided when it is imported, so this runs as a process of its own:
`python -m ocr_finetune_trainer.export.legacy <run configuration> <workspace> <run folder> <target>`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ocr_finetune_api.exit_codes import OCRFineTuneError

if TYPE_CHECKING:
    from ocr_finetune_api.run_config import RunConfig
    from ocr_finetune_api.workspace import Workspace

__all__ = ["save_legacy"]

_FLAGS = {"FLAGS_enable_pir_api": "0", "FLAGS_json_format_model": "0"}
_TIMEOUT_SECONDS = 1800


def save_legacy(config: RunConfig, *, workspace: Workspace, folder: Path) -> None:
    """Writes `inference.pdmodel`, `inference.pdiparams` and `inference.yml` of a run's best checkpoint.

    Args:
        config: The run.
        workspace: Its files.
        folder: Where they go.

    Raises:
        OCRFineTuneError: Paddle cannot write the model in this form.
    """
    with tempfile.TemporaryDirectory(prefix="ocrft-legacy-") as aside:
        file = Path(aside) / "run.yaml"
        file.write_text(config.to_yaml(), encoding="utf-8")
        arguments = [str(item) for item in (file, workspace.root, workspace.run, folder)]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", __name__, *arguments],
            env=os.environ | _FLAGS,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    if done.returncode or not (folder / "inference.pdmodel").is_file():
        last = (done.stderr.strip() or done.stdout.strip() or "without a word").splitlines()[-1]
        raise OCRFineTuneError(
            f"export as paddle-legacy failed: {last}", hint="leave paddle-legacy out of export.formats"
        )


def _main(config_file: str, root: str, run: str, target: str) -> None:
    from ocr_finetune_api import run_config
    from ocr_finetune_api.workspace import Workspace
    from ocr_finetune_trainer.evaluation.subjects import trained_of
    from ocr_finetune_trainer.export.exporter import settings_for
    from ocr_finetune_trainer.export.paddle_format import save_paddle

    config = run_config.read(Path(config_file))
    subject = trained_of(Workspace(Path(root), run), config.spec)
    save_paddle(subject.layer, folder=Path(target), geometry=subject.geometry, config=settings_for(subject))


if __name__ == "__main__":
    _main(*sys.argv[1:])
