"""A room of Slack, Mattermost or whatever takes the same incoming webhooks; the address is the secret.

Text from outside mentions nobody and makes no links: what a commit message says is only shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from keepflow.config.fields import FilePath, Flag, Model
from keepflow.core.notices import Notice, Word
from keepflow.core.text import one_line
from keepflow.notifiers._places import place_of, tell

_GOOD = frozenset({Word.RECOVERED, Word.DEPLOYED})
_BAD = frozenset({Word.FAILED, Word.BROKEN, Word.REVERTED, Word.UNKNOWN, Word.QUARANTINE, Word.BREAK_GLASS})
_APART = "\u200b"  #: shown as nothing


class Settings(Model):
    """What `chat:` says; `private` allows addresses of this machine and of private networks, and plain http."""

    url_file: FilePath
    ca_file: FilePath | None = None
    private: Flag = False


class Channel:
    """One room."""

    def __init__(self, settings: Settings, secrets: Mapping[str, str]) -> None:
        self._place = place_of(secrets.get("url", ""), private=settings.private)
        self._private, self._ca = settings.private, secrets.get("ca", "")
        self.recipients = (self._place.host,)

    def fits(self, address: str) -> bool:  # noqa: ARG002 - the port's signature
        """Say no: a flow file names a room by the name of its channel only."""
        return False

    def send(self, notice: Notice, recipient: str) -> None:  # noqa: ARG002 - there is one
        """POST it; anything but a 2xx is tried again."""
        body = json.dumps(payload(notice), ensure_ascii=True).encode()
        headers = {"X-Keepflow-Delivery": notice.delivery}
        tell(self._place, body, headers, private=self._private, ca_pem=self._ca)


def payload(notice: Notice) -> dict[str, object]:
    """Return the message as both Slack and Mattermost read it."""
    title, text = harmless(notice.title), "\n".join(harmless(line) for line in notice.lines)
    colour = "#2da44e" if notice.word in _GOOD else "#cf222e" if notice.word in _BAD else "#9a6700"
    shown = {"fallback": title, "color": colour, "title": title, "title_link": notice.url, "text": text}
    return {"attachments": [{**shown, "mrkdwn_in": []}]}


def harmless(text: str) -> str:
    """Return a text that is only shown: no tag, no mention, no link whose words differ from where it leads."""
    plain = one_line(text, 600).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("@", f"@{_APART}").replace("](", f"]{_APART}(").replace("![", f"!{_APART}[")
