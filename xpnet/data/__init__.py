"""Data sets in memory or in mapped files, what they refuse, and how their samples reach an engine."""
