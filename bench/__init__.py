"""What a request costs: `python -m bench`."""
