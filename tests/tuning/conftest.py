"""The table that searches are tried on."""

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def rows():
    """The rows of t.csv in the working directory, with the target y."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "c"])
    frame = frame.assign(y=frame["a"] * 3.0 - np.abs(frame["b"]) + 5.0)
    frame.to_csv("t.csv", index=False)
    return frame
