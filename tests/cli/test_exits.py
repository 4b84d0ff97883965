from pathlib import Path

import pytest

from mvcfs import errors
from mvcfs.cli import exits

ALL_ERRORS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.MvcfsError)]


def test_every_error_has_a_documented_code():
    documented = {code for code, _ in exits.MEANINGS}
    for kind in [*ALL_ERRORS, exits.WorkLeft, KeyboardInterrupt, RuntimeError]:
        assert exits.exit_code(kind("x")) in documented


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidName("x"), 2),
        (errors.NotFound("x"), 3),
        (errors.Conflict("x"), 4),
        (errors.CorruptData("x"), 5),
        (exits.WorkLeft("x"), 6),
        (errors.Transient("x"), 7),
        (errors.UnknownOutcome("x"), 7),
        (errors.PermissionDenied("x"), 8),
        (errors.ReadOnly("x"), 8),
        (errors.AlreadyExists("x"), 9),
        (errors.LimitExceeded("x"), 10),
        (errors.Busy("x"), 11),
        (errors.UnsupportedFormat("x"), 12),
        (errors.MvcfsError("x"), 1),
        (ValueError("x"), 1),
    ],
)
def test_codes_are_distinct_by_what_a_script_would_do(error, code):
    assert exits.exit_code(error) == code


def test_the_page_lists_the_same_codes():
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for code, meaning in exits.MEANINGS:
        assert f"| {code} | {meaning} |" in page
