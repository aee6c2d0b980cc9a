"""The evaluation report: one HTML page that holds everything, pictures included."""

from __future__ import annotations

from ocr_finetune_trainer.evaluation.report.recognition import recognition_report

__all__ = ["recognition_report"]
