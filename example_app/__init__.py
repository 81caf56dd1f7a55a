"""A small service with plugins in four languages in front of it."""
