"""Timing: the harness that takes turns, the grid of `xpnet bench`, and facts about the machine."""
