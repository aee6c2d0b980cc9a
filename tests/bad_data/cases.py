"""All broken data sets; each module adds its own."""

from __future__ import annotations

import layout_cases  # noqa: F401
import line_cases  # noqa: F401
import source_cases  # noqa: F401
from case import CASES, Case

__all__ = ["CASES", "Case"]
