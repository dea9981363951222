"""Engines that run a recorded Program. `replay` is the reference; any other is tested equal to it."""
