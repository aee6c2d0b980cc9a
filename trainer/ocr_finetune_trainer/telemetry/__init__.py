"""How others see what a stage does: progress, metrics, and the endpoint that serves both."""
