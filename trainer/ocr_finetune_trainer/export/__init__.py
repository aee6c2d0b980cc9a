"""Turns a trained model into what others load, and proves that it is the same model."""
