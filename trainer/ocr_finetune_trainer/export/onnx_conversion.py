"""paddle2onnx in a process of its own.

Where it meets an operator that it does not know it ends the process without an exception, and what it prints comes from
C++ as well as from Python. So it runs as `python -m ocr_finetune_trainer.export.onnx_conversion <folder> <file>`, and
its end becomes a message.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ocr_finetune_api.exit_codes import OCRFineTuneError

__all__ = ["convert"]

_TIMEOUT_SECONDS = 1800
_LINES = 5


def convert(folder: Path, *, opset: int) -> bytes:
    """Converts an exported folder.

    Args:
        folder: Holds `inference.json` and `inference.pdiparams`.
        opset: Version of ONNX's operators.

    Returns:
        The serialised ONNX model, neither simplified nor named.

    Raises:
        OCRFineTuneError: paddle2onnx cannot convert it; the message holds its last words and how it ended.
    """
    with tempfile.TemporaryDirectory(prefix="ocrft-onnx-") as aside:
        target = Path(aside) / "model.onnx"
        command = [sys.executable, "-W", "ignore", "-m", __name__, str(folder), str(target), str(opset)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise OCRFineTuneError(f"paddle2onnx did not convert {folder} within {_TIMEOUT_SECONDS} s") from error
        if done.returncode == 0 and target.is_file():
            return target.read_bytes()
    said = " | ".join([line.strip() for line in done.stdout.splitlines() if line.strip()][-_LINES:])
    raise OCRFineTuneError(
        f"paddle2onnx cannot convert {folder} ({_end(done.returncode)}): {said or 'it does not say why'}",
        hint="leave onnx out of export.formats, and quantize at none; Paddle's own format does not need it",
    )


def _end(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _main(folder: Path, target: Path, opset: int) -> None:
    import paddle2onnx

    # Without a file to save to, it does not start its optimiser, which would look for packages on the network.
    content: bytes | None = paddle2onnx.export(
        str(folder / "inference.json"),
        str(folder / "inference.pdiparams"),
        opset_version=opset,
        auto_upgrade_opset=False,
        enable_onnx_checker=True,
        enable_optimize=True,
    )
    if not content:
        sys.exit(1)
    target.write_bytes(content)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
