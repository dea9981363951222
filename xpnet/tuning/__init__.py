"""A search for the options of a training on a table, by trials that are compared on the rows held out."""
