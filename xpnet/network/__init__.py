"""A network: its layers, its parameters, the Programs it records, and the file it is kept in."""
