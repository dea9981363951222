"""Tables of rows: files, columns as features, and the preprocessing that is kept with a run."""
