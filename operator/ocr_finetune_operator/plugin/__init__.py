"""`kubectl ocrft`: what people do with runs from a terminal."""
