"""The API server: requests and what can go wrong with them."""
