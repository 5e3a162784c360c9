"""What a test says when a real part is missing: a loud skip on a laptop, a failure where CI=true."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

#: Programs some distributions keep out of a user's PATH.
_MORE_PLACES = "/usr/local/sbin:/usr/sbin:/sbin"


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where every part must be there."""
    text = f"{what} (scripts/install-parts.sh installs what the tests need)"
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def need(*programs: str) -> None:
    """Ask for programs; without them the test is skipped, or fails in CI."""
    absent = [program for program in programs if find(program) is None]
    if absent:
        missing(f"missing: {', '.join(absent)}")


def need_root() -> None:
    """Ask for root: namespaces and own engines cannot be made without it."""
    if os.geteuid() != 0:
        missing("needs root, to make network namespaces and start engines")


def find(program: str) -> str | None:
    """Return where a program is, also in the places for administrators."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_MORE_PLACES}")
