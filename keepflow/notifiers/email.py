"""Mail by SMTP: one message to each recipient, as text and as HTML.

`server` and `port` say where; `tls` is `starttls` (the rule), `implicit` or `none`; `username` with `password_file` log
in. `domains` are those whose addresses a flow file may write to, the sender's own when it is left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import smtplib
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from keepflow.config.fields import FilePath, HostName, Line, Model, OneOrMany, Port, bad
from keepflow.core.notices import Notice, as_html, as_text, is_address, subject
from keepflow.errors import RemoteError, Undeliverable, UsageError

_TIMEOUT = 20  #: seconds for each answer of the server


def _address(text: str) -> str:
    if not is_address(text):
        raise bad("bad-address", "must be a mail address like team@example.org")
    return text


Address = Annotated[str, AfterValidator(_address)]


class Settings(Model):
    """What `email:` says."""

    server: HostName
    port: Port = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    ca_file: FilePath | None = None
    username: Line | None = None
    password_file: FilePath | None = None
    sender: Address = Field(alias="from")
    to: Annotated[tuple[Address, ...], Field(min_length=1, max_length=100), OneOrMany()]
    domains: Annotated[tuple[HostName, ...], OneOrMany()] = ()

    @model_validator(mode="after")
    def _logs_in_safely(self) -> Settings:
        if bool(self.username) != bool(self.password_file):
            raise bad("missing-login", "username and password_file belong together")
        if self.username and self.tls == "none":
            raise bad("plain-password", "a password is not sent without TLS; set tls: starttls or implicit")
        return self


class Channel:
    """A mail server and those it brings notices to."""

    def __init__(self, settings: Settings, secrets: Mapping[str, str]) -> None:
        self._settings, self._password = settings, secrets.get("password", "")
        self._domain = settings.sender.rpartition("@")[2].lower()
        try:
            self._tls = ssl.create_default_context(cadata=secrets.get("ca") or None)
        except ssl.SSLError as error:
            raise UsageError(f"ca_file is no certificate: {error.reason}", code="bad-certificate") from None
        self.recipients = tuple(dict.fromkeys(settings.to))

    def fits(self, address: str) -> bool:
        """Say whether it is an address that gets notices anyway, or one of a domain that flow files may write to."""
        allowed = self._settings.domains or (self._domain,)
        known = address in self.recipients or address.rpartition("@")[2].lower() in allowed
        return known and is_address(address)

    def send(self, notice: Notice, recipient: str) -> None:
        """Give one message to the server; it is sent when the server has taken it."""
        try:
            server = self._connected()
            try:
                server.send_message(self.message(notice, recipient), self._settings.sender, [recipient])
            finally:
                with contextlib.suppress(OSError, smtplib.SMTPException):  # taken is taken, whatever is said after it
                    server.quit()
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()), (550, b""))
            raise (Undeliverable if code >= 500 else RemoteError)(_answer(recipient, code, said)) from None
        except smtplib.SMTPResponseException as error:
            raise RemoteError(_answer(self._settings.server, error.smtp_code, error.smtp_error)) from None
        except (OSError, smtplib.SMTPException) as error:
            raise RemoteError(f"{self._settings.server}: {getattr(error, 'strerror', None) or error}") from None

    def message(self, notice: Notice, recipient: str) -> EmailMessage:
        """Return the message; a header can hold no line break, and the HTML no tag but ours."""
        made = EmailMessage(policy=POLICY)
        made["From"], made["To"], made["Subject"] = self._settings.sender, recipient, subject(notice)
        made["Date"] = datetime.fromtimestamp(notice.at / 1e6, UTC)
        made["Message-ID"] = f"<{notice.delivery}@{self._domain}>"
        thread = hashlib.sha256(notice.thread.encode()).hexdigest()[:32]
        made["In-Reply-To"] = made["References"] = f"<{thread}@{self._domain}>"
        made["Auto-Submitted"] = "auto-generated"
        made.set_content(as_text(notice))
        made.add_alternative(as_html(notice), subtype="html")
        return made

    def _connected(self) -> smtplib.SMTP:
        settings = self._settings
        place = (settings.server, settings.port)
        if settings.tls == "implicit":
            server: smtplib.SMTP = smtplib.SMTP_SSL(*place, self._domain, timeout=_TIMEOUT, context=self._tls)
        else:
            server = smtplib.SMTP(*place, self._domain, timeout=_TIMEOUT)
        try:
            if settings.tls == "starttls":
                server.starttls(context=self._tls)
            if settings.username:
                server.login(settings.username, self._password)
        except BaseException:
            server.close()
            raise
        return server


def _answer(who: str, code: int, said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return f"{who}: {code} {text}"
