"""What every refusal is held to: found, needed and fix, in one line."""

from __future__ import annotations


def says(error, *parts):
    """Assert that an error (as pytest.raises gives it, or its text) holds all these parts, in one line."""
    text = str(getattr(error, "value", error))
    missing = [part for part in parts if part not in text]
    assert not missing, f"{missing} not in: {text}"
    assert "\n" not in text
