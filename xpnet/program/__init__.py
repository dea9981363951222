"""What a network records: calls on buffers, and how they are joined into launches."""
