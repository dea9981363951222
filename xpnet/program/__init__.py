"""Programs: the recorded calls on buffers, and how they are joined into launches."""
