"""One push to a bare repository, told to the master: GitHub's JSON, signed with the hook's secret."""

from __future__ import annotations

import hmac
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepflow.core.names import is_ref, is_sha
from keepflow.core.text import one_line
from keepflow.errors import CommandFailed, RemoteError, UsageError
from keepflow.tools.files import read_private
from keepflow.tools.processes import clean_env, run

_TIMEOUT = 10.0  #: seconds to connect, and between two bytes; somebody waits for the end of the push
_GIT_SECONDS = 20.0
_MESSAGE_LIMIT = 16_384
_ANSWER_LIMIT = 64 * 1024  #: bytes of an answer that are read
#: Where git servers put the name of who pushes; `USER` is the account git runs as.
_ACTORS = ("GL_USERNAME", "GITOLITE_USER", "REMOTE_USER", "USER")
_FORMAT = "%H%x00%an%x00%ae%x00%B"


@dataclass(frozen=True, slots=True)
class Update:
    """One line of what git gives to post-receive."""

    old: str
    new: str
    ref: str

    @property
    def deleted(self) -> bool:
        """Whether the ref is gone."""
        return not self.new.strip("0")

    @property
    def created(self) -> bool:
        """Whether the ref is new."""
        return not self.old.strip("0")


def read_updates(lines: Iterable[bytes]) -> Iterator[Update]:
    """Read `old new ref` lines; refs that are neither branch nor tag are passed over.

    Raises UsageError for a line git would not write.
    """
    for line in lines:
        old, _, rest = line.rstrip(b"\n").decode(errors="replace").partition(" ")
        new, _, ref = rest.partition(" ")
        if not is_sha(old) or not is_sha(new) or not is_ref(ref):
            raise UsageError(f"not a line of post-receive: {one_line(line.decode(errors='replace'), 80)}")
        if ref.startswith(("refs/heads/", "refs/tags/")):
            yield Update(old, new, ref)


class Sender:
    """Signs and posts updates of one repository. Raises UsageError or Unavailable when the secret cannot be used."""

    def __init__(self, url: str, secret_file: Path, repository: Path | None, ca_file: Path | None) -> None:
        self._url = url
        self._secret = read_private(secret_file).strip()
        self._repository = Path(repository or os.environ.get("GIT_DIR", ".")).absolute()
        self._ca_file = ca_file
        if not self._secret:
            raise UsageError(f"{secret_file} is empty")
        if not url.startswith(("https://", "http://")):
            raise UsageError(f"{one_line(url, 80)}: not the address of a master; write https://…/hooks/PROJECT")

    def tell(self, update: Update) -> str:
        """Post one update and return where its decision can be read; raises RemoteError or CommandFailed."""
        body = json.dumps(self.payload(update)).encode()
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": str(uuid.uuid4()),
            "X-Hub-Signature-256": f"sha256={hmac.digest(self._secret, body, 'sha256').hex()}",
        }
        status, content = _post(self._url, body, headers, self._ca_file)
        words = _words(content)
        if status >= 300:
            raise RemoteError(f"{self._url} answered {status}: {words}")
        return words

    def payload(self, update: Update) -> dict[str, Any]:
        """Return the push in GitHub's shape; author and message come from the commit itself."""
        actor = next((os.environ[name] for name in _ACTORS if os.environ.get(name)), "")
        return {
            "ref": update.ref,
            "before": update.old,
            "after": update.new,
            "created": update.created,
            "deleted": update.deleted,
            "forced": not update.created and not update.deleted and not self._is_forward(update),
            "head_commit": None if update.deleted else self._commit(update.new),
            "repository": {"full_name": self._repository.name},
            "pusher": {"name": actor},
            "sender": {"login": actor},
        }

    def _commit(self, new: str) -> dict[str, Any]:
        """Return the commit that a branch or an annotated tag points to."""
        found = self._git(
            "log", "-1", "--no-show-signature", f"--format={_FORMAT}", "--end-of-options", f"{new}^{{commit}}"
        )
        sha, name, email, message = (*found.split("\0", 3), "", "", "")[:4]
        return {
            "id": sha.strip(),
            "message": message.strip()[:_MESSAGE_LIMIT],
            "author": {"name": name, "email": email},
        }

    def _is_forward(self, update: Update) -> bool:
        argv = ("git", "merge-base", "--is-ancestor", "--end-of-options", update.old, update.new)
        return run(argv, timeout=_GIT_SECONDS, env=self._env(), check=False).exit_code == 0

    def _git(self, *arguments: str) -> str:
        argv = ("git", "-c", "i18n.logOutputEncoding=UTF-8", *arguments)
        done = run(argv, timeout=_GIT_SECONDS, env=self._env())
        if not done.stdout:
            raise CommandFailed("git said nothing about the commit", argv=argv)
        return done.text

    def _env(self) -> dict[str, str]:
        return clean_env(GIT_DIR=str(self._git_directory()))

    def _git_directory(self) -> Path:
        inner = self._repository / ".git"
        return inner if inner.is_dir() else self._repository


def _post(url: str, body: bytes, headers: Mapping[str, str], ca_file: Path | None) -> tuple[int, bytes]:
    """Post once, along no redirect, and return status and answer; raises RemoteError.

    With the standard library alone: whoever pushes waits for this, and importing `requests` takes 0.1 s.
    """
    import ssl
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
        opener = urllib.request.build_opener(NoRedirects, urllib.request.HTTPSHandler(context=context))
        request = urllib.request.Request(url, data=body, headers=dict(headers))  # noqa: S310 - only http and https come here
        with opener.open(request, timeout=_TIMEOUT) as answer:
            return answer.status, answer.read(_ANSWER_LIMIT)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_ANSWER_LIMIT)
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise RemoteError(f"{url} does not answer: {one_line(str(reason))}") from None


def _words(content: bytes) -> str:
    """Return what an answer says in one line: the page or the address of the decision, what is wrong, or its text."""
    text = content.decode(errors="replace")
    try:
        answer = json.loads(text)
    except ValueError:
        return one_line(text)
    if isinstance(answer, dict):
        said = next((answer[key] for key in ("page", "decision_url", "detail", "title") if answer.get(key)), None)
        return one_line(said) if isinstance(said, str) else "taken"
    return "taken"
