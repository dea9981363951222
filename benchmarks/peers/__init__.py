"""The same training work in other systems, checked against one float64 reference and timed in turns."""
