"""Parts between a backbone and a head."""
