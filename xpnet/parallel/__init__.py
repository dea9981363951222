"""Several processes that train together: how they talk, and how they add what each has computed."""
