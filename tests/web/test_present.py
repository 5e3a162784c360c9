"""How things are shown on pages."""

from __future__ import annotations

import pytest

from keepflow.web.present import with_code


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("change `concurrency`", "change <code>concurrency</code>"),
        ("`a` or `b`", "<code>a</code> or <code>b</code>"),
        ("one ` alone", "one ` alone"),
        ("<b> `<script>`", "&lt;b&gt; <code>&lt;script&gt;</code>"),
        ("", ""),
    ],
)
def test_words_in_backticks_are_code_and_nothing_becomes_markup(text: str, shown: str) -> None:
    assert str(with_code(text)) == shown
