"""Measures models: on raw data, beside the model they came from, and says where they fail."""
