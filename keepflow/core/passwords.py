"""Which passwords are good enough: long, not the obvious ones; no rules of composition."""

from __future__ import annotations

LEAST = 12  #: characters; 15 and more is advised
MOST = 256  #: characters; a longer one only costs the server time

#: The beginnings that survive a length of twelve in lists of leaked passwords.
_OBVIOUS = (
    "password",
    "passw0rd",
    "qwertyuiop",
    "asdfghjkl",
    "1q2w3e4r",
    "123456789",
    "987654321",
    "iloveyou",
    "administrator",
    "letmein",
    "welcome",
    "keepflow",
    "changeme",
)


def weakness(password: str, name: str) -> str:
    """Say what is wrong with a password for a person of this name, or "" when it will do."""
    if len(password) < LEAST:
        return f"use at least {LEAST} characters; a few unrelated words are easy to remember"
    if len(password) > MOST:
        return f"use at most {MOST} characters"
    plain = password.casefold()
    if len(set(plain)) < 5:
        return "use more than a handful of different characters"
    rest = plain
    for word in (*_OBVIOUS, *([name.casefold()] if len(name) > 2 else [])):
        rest = rest.replace(word, "")
    if len(rest) < LEAST // 2:
        return "this is one of the first passwords anybody would try; pick a few unrelated words"
    return ""
