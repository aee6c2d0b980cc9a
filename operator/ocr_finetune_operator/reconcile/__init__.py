"""Reads what is there, decides what should be, does it, and writes the status once."""
