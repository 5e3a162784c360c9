"""What is a legal commit id, ref name and repository address; everything else is refused before git sees it."""

from __future__ import annotations

import re
from pathlib import Path

from keepflow import errors
from keepflow.core.names import is_sha

_MOST_REF, _MOST_URL = 255, 2048
#: `git check-ref-format`, as a pattern of what may not occur.
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|@\{|//|/\.|\.lock(?:/|$)|\.$|/$")

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_PATH = r"[A-Za-z0-9._~%+@=,/-]+"
_HTTP = re.compile(rf"https?://{_HOST}(?::[0-9]{{1,5}})?/{_PATH}")
_SSH = re.compile(rf"ssh://(?:{_USER}@)?{_HOST}(?::[0-9]{{1,5}})?/{_PATH}")
_SCP = re.compile(rf"{_USER}@{_HOST}:(?!-){_PATH}")
_SAFE_FILE = re.compile(r"/[A-Za-z0-9._+@,/-]+")


def check_sha(text: str) -> str:
    """Return a full commit id (40 or 64 lower-case hex); raises UsageError `bad-sha`."""
    if not is_sha(text):
        raise errors.UsageError(f"not a full commit id: {text[:80]!r}", code="bad-sha")
    return text


def check_ref(text: str) -> str:
    """Return a full ref name such as `refs/heads/dev`, legal by git's own rules; raises UsageError `bad-ref`.

    A legal name is still hostile: `refs/heads/--output=x;$(id)` passes, as it does in git.
    """
    if not text.startswith("refs/") or len(text.encode(errors="replace")) > _MOST_REF or _BAD_REF.search(text):
        raise errors.UsageError(f"not a full ref name (refs/heads/…): {text[:80]!r}", code="bad-ref")
    return text


def check_remote_url(url: str, *, allow_local: bool = False) -> str:
    """Return an address that git may be given: https, http, ssh, `user@host:path`, or a local path when allowed.

    Raises BadRemote with the reason.
    """
    if len(url) > _MOST_URL:
        raise _bad(url, f"longer than {_MOST_URL} characters")
    if url.startswith("-"):
        raise _bad(url, "it begins with a dash, which git would read as an option")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise _bad(url, "it contains a space or a control character")
    if url.startswith(("/", "file://")):
        return _check_local(url, allow_local)
    if re.match(r"[A-Za-z0-9]+::", url):
        raise _bad(url, "remote helpers (name::address) run programs")
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in ("http", "https"):
        return _check_http(url)
    if _SSH.fullmatch(url) if scheme else _SCP.fullmatch(url):
        return url
    if scheme and scheme != "ssh":
        raise _bad(url, f"the scheme {scheme[:20]!r} is not used; use https or ssh")
    raise _bad(url, "not of the form https://host/path, ssh://user@host/path or user@host:path")


def check_file_argument(path: Path, what: str) -> str:
    """Return the text of an absolute path that ssh's own option parser cannot misread; raises BadRemote."""
    text = str(path)
    if _SAFE_FILE.fullmatch(text) is None:
        raise errors.BadRemote(
            f"{what} {text!r}: ssh needs an absolute path of plain letters, digits and . _ + @ , - /"
        )
    return text


def _check_http(url: str) -> str:
    authority = url.split("/")[2]
    if "@" in authority:
        raise errors.BadRemote(
            f"the address of {authority.rpartition('@')[2][:80]!r} contains a login; put it into token_file instead"
        )
    if _HTTP.fullmatch(url) is None:
        raise _bad(url, "not of the form https://host/path, without query, spaces or special characters")
    return url


def _check_local(url: str, allowed: bool) -> str:
    if not allowed:
        raise _bad(url, "local paths are not allowed here")
    if not url.removeprefix("file://").startswith("/"):
        raise _bad(url, "a local path must be absolute")
    return url


def _bad(url: str, reason: str) -> errors.BadRemote:
    shown = re.sub(r"[^/@:]*:[^/@]*@", "…@", url)[:80]  # a password in a mistyped address must not reach a log
    return errors.BadRemote(f"the repository address {shown!r} is refused: {reason}")
