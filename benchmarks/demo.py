"""The demo from a clean clone, and how fast the command line starts.

    python benchmarks/demo.py [--clone]

Prints wall time, peak memory (resident memory of all processes of the run together, sampled five times a second) and
accuracy of `examples/digits/finetune.yaml`, and the median time of `ocrft --help`. With `--clone` the time includes
cloning this repository and installing everything with `make demo`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def peak_and_time(command: list[str | Path], *, cwd: Path) -> tuple[float, int]:
    """Runs a command; returns its seconds and the peak of the resident bytes of all its processes together."""
    started = time.monotonic()
    process = psutil.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _resident(process))
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    return time.monotonic() - started, peak


def _resident(process: psutil.Popen) -> int:
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            # What several processes map is counted once: each takes its share of it.
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def help_seconds(runs: int = 9) -> float:
    """Median time of `ocrft --help`."""
    times = []
    for _ in range(runs):
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "ocr_finetune_trainer.cli", "--help"], check=True, capture_output=True)
        times.append(time.monotonic() - started)
    return statistics.median(times)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clone", action="store_true", help="begin with a clone and install everything")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ocrft-demo-") as name:
        folder = Path(name)
        if arguments.clone:
            subprocess.run(["git", "clone", "--quiet", ROOT, folder / "clone"], check=True)
            seconds, peak = peak_and_time(["make", "demo"], cwd=folder / "clone")
            workspace = folder / "clone" / "examples" / "digits" / "workspace"
        else:
            workspace = folder / "workspace"
            command = [sys.executable, "-m", "ocr_finetune_trainer.cli", "run", "examples/digits/finetune.yaml"]
            seconds, peak = peak_and_time([*command, "--workspace", workspace], cwd=ROOT)
        result = json.loads((workspace / "digits-local" / "results" / "evaluate.json").read_text(encoding="utf-8"))
    print(
        f"demo        {seconds:6.1f} s   {peak / 2**20:6.0f} MiB   accuracy {result['metrics']['best']['accuracy']:.4f}"
    )
    print(f"ocrft --help {help_seconds():5.2f} s")


if __name__ == "__main__":
    main()
