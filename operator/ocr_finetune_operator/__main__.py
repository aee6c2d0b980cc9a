"""`python -m ocr_finetune_operator`."""

from __future__ import annotations

import asyncio
import sys

from ocr_finetune_api.exit_codes import OCRFineTuneError
from ocr_finetune_operator import app, logs, settings


def main() -> int:
    """Runs the operator; returns the exit code."""
    try:
        loaded = settings.load(sys.argv[1:])
        logs.configure(form=loaded.log_format, level=loaded.log_level)
        return asyncio.run(app.serve(loaded))
    except OCRFineTuneError as error:
        for problem in error.problems:
            sys.stderr.write(f"error: {problem}\n")
        if error.hint:
            sys.stderr.write(f"hint: {error.hint}\n")
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
