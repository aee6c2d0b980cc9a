"""How good a model is: pure accumulators that ranks can merge."""
