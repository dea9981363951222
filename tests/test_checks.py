"""What is said to a user who passes a wrong name or number."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import says

from xpnet.checks import check_number, check_option, check_whole, one_line, shown

NAMES = ("relu", "sigmoid", "tanh")


@pytest.mark.parametrize("choices", [NAMES, dict.fromkeys(NAMES), iter(NAMES)], ids=["tuple", "dict", "iterator"])
def test_a_known_name_is_returned(choices):
    assert check_option("activation", "sigmoid", choices) == "sigmoid"


@pytest.mark.parametrize(
    ("found", "nearest"), [("rleu", "relu"), ("ReLU", "relu"), ("sigmoi", "sigmoid"), ("TANH", "tanh"), ("tan", "tanh")]
)
def test_the_nearest_name_is_named(found, nearest):
    with pytest.raises(ValueError) as error:
        check_option("activation", found, NAMES)
    says(error, f"activation is {found!r}", "choose one of 'relu', 'sigmoid', 'tanh'", f"did you mean {nearest!r}?")


@pytest.mark.parametrize("found", ["qqq", "", None, 5, ["relu"], {"relu"}, b"relu"], ids=repr)
def test_what_resembles_no_name_is_refused_with_the_list(found):
    with pytest.raises(ValueError) as error:
        check_option("activation", found, NAMES)
    assert str(error.value).startswith(f"activation is {found!r}, choose one of 'relu', 'sigmoid', 'tanh'")


def test_no_name_is_suggested_when_none_is_near():
    with pytest.raises(ValueError, match=r"'tanh'$"):
        check_option("activation", "qqq", NAMES)


@pytest.mark.parametrize("number", [1, 7, np.int64(7), np.uint8(7)], ids=repr)
def test_whole_numbers_become_python_ints(number):
    found = check_whole("epochs", number, at_least=1)
    assert type(found) is int and found == number


@pytest.mark.parametrize("found", [1.0, np.float64(2), "3", None, [1], np.arange(2)], ids=repr)
def test_what_is_not_a_whole_number_is_refused(found):
    with pytest.raises(TypeError) as error:
        check_whole("epochs", found, at_least=1)
    says(error, f"epochs is {found!r}", type(found).__name__, "a whole number of at least 1", "Pass an int")


@pytest.mark.parametrize(("found", "at_least"), [(0, 1), (-3, 0), (np.int64(1), 2), (True, 1), (False, 0)])
def test_what_is_too_small_is_refused(found, at_least):
    """True is an int in Python, and never what was meant."""
    with pytest.raises(ValueError) as error:
        check_whole("epochs", found, at_least)
    says(error, f"epochs is {found!r}", f"at least {at_least}", f"epochs={at_least} or more")


@pytest.mark.parametrize(
    "found", [10**400, -(10**400), float("inf"), float("nan")], ids=["huge", "-huge", "inf", "nan"]
)
def test_numbers_beyond_all_floats_are_not_finite(found):
    with pytest.raises(ValueError) as error:
        check_number("lr", found, example="SGD(lr=0.1)")
    says(error, f"lr is {found}"[:60], "it must be a finite number", "such as SGD(lr=0.1)")


def test_what_is_shown_is_short_and_plain():
    """It may come from a file, and go to a terminal."""
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert shown("a\x1b[31m\nb") == r"'a\x1b[31m\nb'" and shown(1.5) == "1.5"
    for value in ("x" * 10**6, 10**300, list(range(1000)), {"a": "b" * 100}):
        assert len(shown(value)) == 60 and shown(value).endswith("...")
    assert shown(10**5000) == "a int too large to show" and shown(deep).startswith("a list")
    with pytest.raises(ValueError, match=r"^activation is 'xxx[^']*\.\.\., choose one of"):
        check_option("activation", "x" * 10**6, NAMES)
    assert one_line(ValueError("a\x1b[31m\n  b")) == "a [31m b" and one_line(KeyError()) == "KeyError"
    assert len(one_line("x" * 10**6)) == 300
