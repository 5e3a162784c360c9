"""A forge's part: it has the commit, and tells the master with a signed webhook."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import secrets
from urllib.parse import urlsplit

from tests.real.demo.files import PROJECT
from tests.real.demo.world import World


class Forge:
    """Pushes without the bare repository's own hook, so that the time of a webhook is the time of the master."""

    def __init__(self, world: World) -> None:
        self._world = world
        (world.repository.bare / "hooks" / "post-receive").unlink(missing_ok=True)

    def push(self, branch: str) -> tuple[str, str]:
        """Commit a new marker and push it; return marker and commit. Nobody is told yet."""
        marker, sha = self._world.repository.change(branch)
        self._world.repository.push(branch)
        return marker, sha

    def tell(self, branch: str, sha: str) -> None:
        """Send the webhook and wait for its 202."""
        body = json.dumps(
            {
                "ref": f"refs/heads/{branch}",
                "before": "0" * 40,
                "after": sha,
                "deleted": False,
                "repository": {"full_name": "example/keepwork"},
                "sender": {"login": "ann"},
                "head_commit": {"id": sha, "message": "Show a marker", "author": {"name": "Ann"}},
            }
        ).encode()
        secret = self._world.hook_secret.read_text().strip().encode()
        place = urlsplit(self._world.master.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=10)
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": secrets.token_hex(16),
            "X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(),
        }
        connection.request("POST", f"/hooks/{PROJECT}", body, headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        connection.close()
        if answer.status != 202:
            raise RuntimeError(f"the hook was answered {answer.status}: {text}")
