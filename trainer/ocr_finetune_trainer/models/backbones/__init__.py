"""Parts that turn pictures into feature maps."""
