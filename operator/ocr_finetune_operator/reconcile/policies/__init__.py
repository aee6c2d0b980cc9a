"""One decision a module; each takes values and returns values."""
