"""What every notifier must do, whatever it is called, against real servers on loopback.

A new one is found by itself; it needs a line in `SET_UP` that says how it is pointed at a server of the test.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest

from keepflow.core.notices import Notice
from keepflow.errors import RemoteError, Undeliverable, UsageError
from keepflow.ports import Channel, discover
from tests.notified import Ear, Mailbox, http_server, mail_server

NOTIFIERS = discover("keepflow.notifiers")
NOTICE = Notice(
    "kf-7-abc",
    "reverted",
    "keepwork production was put back",
    ("it answered 500 to <b>visitors</b>", "#12 Fix login @channel [x](http://evil.example) (master@abc1234 by ann)"),
    "https://ci.example.org/projects/keepwork/environments",
    "keepwork production",
    1_772_000_000_000_000,
    {"project": "keepwork", "environment": "production"},
    "line <script>\n",
)
SECRET = "a secret of enough characters"


@dataclass
class Told:
    """A channel and the two servers it may have been pointed at."""

    channel: Channel
    mail: Mailbox
    ear: Ear

    @property
    def count(self) -> int:
        """How many messages came."""
        return len(self.mail.taken) + len(self.ear.heard)

    @property
    def raw(self) -> str:
        """All that came, as text."""
        return "".join(str(message) for _, message in self.mail.taken) + "".join(
            f"{headers}{json.loads(body)}" for _, headers, body in self.ear.heard
        )

    def close(self) -> None:
        """Let nothing through for now."""
        self.mail.later = set(self.channel.recipients)
        self.ear.answers = [(503, {})]

    def open(self) -> None:
        """Let everything through again."""
        self.mail.later = set()
        self.ear.answers = [(200, {})]


def _set_up(kind: str, mail: Mailbox, ear: Ear, **more: Any) -> Channel:
    settings: dict[str, dict[str, Any]] = {
        "email": {
            "server": "127.0.0.1", "port": mail.port, "tls": "none",
            "from": "keepflow@example.org", "to": ["ann@example.org", "bo@example.net"],
        },
        "webhook": {"url": ear.url, "private": True, "secret_file": "x"},
        "chat": {"private": True, "url_file": "x"},
    }  # fmt: skip
    secrets: Mapping[str, Mapping[str, str]] = {"webhook": {"secret": SECRET}, "chat": {"url": ear.url}}
    module = NOTIFIERS[kind]
    made: Channel = module.Channel(
        module.Settings.model_validate({**settings[kind], **more}), {**secrets.get(kind, {})}
    )
    return made


@pytest.fixture
def servers() -> Iterator[tuple[Mailbox, Ear]]:
    with ExitStack() as stack:
        yield stack.enter_context(mail_server()), stack.enter_context(http_server())


@pytest.fixture(params=list(NOTIFIERS))
def told(request: pytest.FixtureRequest, servers: tuple[Mailbox, Ear]) -> Told:
    return Told(_set_up(request.param, *servers), *servers)


def test_the_notifiers_of_today_are_found_by_file_name() -> None:
    assert {"email", "webhook", "chat"} <= set(NOTIFIERS)


def test_r64_every_recipient_is_reached(told: Told) -> None:
    for recipient in told.channel.recipients:
        told.channel.send(NOTICE, recipient)
    assert told.count == len(told.channel.recipients) > 0
    assert [who for who, _ in told.mail.taken] in ([], ["ann@example.org", "bo@example.net"])
    assert "keepwork production was put back" in told.raw
    assert NOTICE.url in told.raw


def test_the_same_delivery_goes_along_on_every_try(told: Told) -> None:
    first = told.channel.recipients[0]
    told.close()
    with pytest.raises(RemoteError) as caught:
        told.channel.send(NOTICE, first)
    assert not isinstance(caught.value, Undeliverable)
    told.open()
    told.channel.send(NOTICE, first)
    told.channel.send(NOTICE, first)
    ids = [str(message["Message-ID"]) for _, message in told.mail.taken]
    ids += [headers["x-keepflow-delivery"] for _, headers, _ in told.ear.heard]
    assert len(ids) >= 2
    assert len(set(ids)) == 1
    assert "kf-7-abc" in ids[0]


def test_nobody_there_is_worth_another_try(told: Told, servers: tuple[Mailbox, Ear]) -> None:
    mail, ear = servers
    port, url = mail.port, ear.url
    mail.port, ear.url = 1, "http://127.0.0.1:1/"
    kind = type(told.channel).__module__.rpartition(".")[2]
    gone = _set_up(kind, mail, ear)
    mail.port, ear.url = port, url
    with pytest.raises(RemoteError) as caught:
        gone.send(NOTICE, gone.recipients[0])
    assert not isinstance(caught.value, Undeliverable)
    assert "s3cret" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_t26_text_from_outside_stays_text(told: Told) -> None:
    hostile = replace(NOTICE, title="t\r\nBcc: all@example.org\n\n<img src=x>", lines=("{{7*7}} <script>x</script>",))
    told.channel.send(hostile, told.channel.recipients[0])
    for _, message in told.mail.taken:
        assert "Bcc" not in message
        assert len(message["Subject"].splitlines()) == 1
        assert "<script>" not in message.get_body(("html",)).get_content()
    for _, headers, body in told.ear.heard:
        assert "bcc" not in headers
        json.loads(body)


def test_nothing_strange_fits(told: Told) -> None:
    for address in (
        "",
        "nobody@elsewhere.example",
        "ann@example.org\nBcc: x@example.org",
        "ops",
        "-x",
        "a@b@example.org",
    ):
        assert not told.channel.fits(address)


# --- mail ---


def test_r64_a_mail_is_text_and_html_and_threads(servers: tuple[Mailbox, Ear]) -> None:
    mail, _ = servers
    _set_up("email", *servers).send(NOTICE, "ann@example.org")
    _, message = mail.taken[0]
    assert message["Subject"] == "[keepflow] keepwork production was put back"
    assert (message["To"], message["From"]) == ("ann@example.org", "keepflow@example.org")
    assert message["References"] == message["In-Reply-To"]
    assert message["Auto-Submitted"] == "auto-generated"
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "line <script>" in text.get_content()
    assert "&lt;b&gt;visitors&lt;/b&gt;" in html.get_content()


def test_r64_a_recipient_nobody_knows_harms_no_other(servers: tuple[Mailbox, Ear]) -> None:
    mail, _ = servers
    channel = _set_up("email", *servers)
    mail.refused = {"ann@example.org"}
    with pytest.raises(Undeliverable, match="550 no such person"):
        channel.send(NOTICE, "ann@example.org")
    channel.send(NOTICE, "bo@example.net")
    assert [who for who, _ in mail.taken] == ["bo@example.net"]


def test_a_password_is_never_sent_in_the_clear(servers: tuple[Mailbox, Ear]) -> None:
    with pytest.raises(ValueError, match="without TLS"):
        _set_up("email", *servers, username="keepflow", password_file="x")
    with pytest.raises(RemoteError, match="STARTTLS"):
        _set_up("email", *servers, tls="starttls").send(NOTICE, "ann@example.org")
    assert servers[0].taken == []


def test_a_flow_file_writes_to_known_addresses_and_own_domains_only(servers: tuple[Mailbox, Ear]) -> None:
    channel = _set_up("email", *servers)
    fits = {address: channel.fits(address) for address in ("bo@example.net", "cy@example.org", "cy@example.net")}
    assert fits == {"bo@example.net": True, "cy@example.org": True, "cy@example.net": False}
    assert _set_up("email", *servers, domains=["example.com"]).fits("cy@example.com")


# --- webhooks ---


def test_a_webhook_is_signed_over_its_bytes(servers: tuple[Mailbox, Ear]) -> None:
    _, ear = servers
    _set_up("webhook", *servers).send(NOTICE, "127.0.0.1")
    _, headers, body = ear.heard[0]
    signed = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers["x-keepflow-signature-256"] == f"sha256={signed}"
    assert headers["x-keepflow-event"] == "reverted"
    said = json.loads(body)
    assert said["facts"] == {"project": "keepwork", "environment": "production"}
    assert "excerpt" not in said


def test_a_chat_message_mentions_nobody_and_hides_no_link(servers: tuple[Mailbox, Ear]) -> None:
    _, ear = servers
    hostile = replace(
        NOTICE, title="<!channel> @all", lines=("<http://evil.example|ok> @here [ok](http://evil.example)",)
    )
    _set_up("chat", *servers).send(hostile, "127.0.0.1")
    shown = json.loads(ear.heard[0][2])["attachments"][0]
    text = shown["title"] + shown["text"] + shown["fallback"]
    assert "<" not in text
    assert "](" not in text
    assert not [word for word in ("@all", "@here", "@channel") if word in text]


@pytest.mark.parametrize("kind", ["webhook", "chat"])
def test_t28_private_addresses_and_plain_http_need_to_be_allowed(kind: str, servers: tuple[Mailbox, Ear]) -> None:
    mail, ear = servers
    with pytest.raises(UsageError, match="https://"):
        _set_up(kind, *servers, private=False)
    ear.url = "https://127.0.0.1:1/hooks/s3cret"
    channel = _set_up(kind, mail, ear, private=False)
    with pytest.raises(Undeliverable, match="private address") as caught:
        channel.send(NOTICE, channel.recipients[0])
    assert "s3cret" not in str(caught.value)
    assert ear.heard == []


def test_a_short_signing_secret_is_refused() -> None:
    module = NOTIFIERS["webhook"]
    settings = module.Settings.model_validate({"url": "https://hooks.example.org/", "secret_file": "x"})
    with pytest.raises(UsageError, match="16 characters"):
        module.Channel(settings, {"secret": "short"})
