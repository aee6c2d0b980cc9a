"""`python -m ocr_finetune_operator.plugin`, the same as `kubectl-ocrft`."""

from ocr_finetune_operator.plugin.cli import main

main()
