"""The training engine: what one process a device does, and what keeps many of them together."""
