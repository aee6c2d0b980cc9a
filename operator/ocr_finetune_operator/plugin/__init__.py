"""`kubectl ocrft`: what people do with runs from a terminal. It works with the rights of whoever calls it."""

from ocr_finetune_operator.plugin.cli import main

__all__ = ["main"]
