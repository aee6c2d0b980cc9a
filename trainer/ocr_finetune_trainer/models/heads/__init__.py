"""Parts that turn features into predictions."""
