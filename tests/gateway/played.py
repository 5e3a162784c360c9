"""An agent played over the real WebSocket by a test: it proves its key and says what the test wants."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from keepflow.crypto import keys
from keepflow.crypto.keys import PrivateKey
from keepflow.wire import messages
from tests.processes import MasterProcess, Reply


@dataclass
class Played:
    """One identity of an agent; `link` opens sessions of it."""

    master: MasterProcess
    name: str
    key: PrivateKey = field(default_factory=keys.generate)
    number: int = 0  #: of the last report
    order_key: str = ""  #: pinned at joining

    @classmethod
    def joined(cls, master: MasterProcess, name: str) -> Played:
        """Join with a fresh token, as an admin gives it."""
        agent = cls(master, name)
        reply = agent.enrol(token_for(master, name))
        assert reply.status == 200, reply.body
        assert reply.json["agent"] == name
        agent.order_key = reply.json["order_key"]
        return agent

    def enrol(self, token: str) -> Reply:
        body = messages.Enrol(
            token=token,
            public_key=self.key.public.text,
            proof=base64.b64encode(self.key.sign(token.encode())).decode(),
            version="test",
        )
        headers = {"Content-Type": "application/json"}
        return self.master.ask("POST", "/agents/enrol", body.model_dump_json().encode(), headers)

    def link(self, **hello: Any) -> Link:
        """Open a session and get through the handshake; raises Turned."""
        link = Link(self, **hello)
        link.shake_hands()
        return link


class Turned(Exception):
    """The master said no; `said` is its last message."""

    def __init__(self, said: messages.Message) -> None:
        super().__init__(repr(said))
        self.said = said


class Link:
    """One WebSocket of a played agent."""

    def __init__(self, agent: Played, **hello: Any) -> None:
        self.agent = agent
        self.nonce = secrets.token_hex(8)
        self._said: dict[str, Any] = {"capabilities": ("run", "deploy"), "step_kinds": ("run",), **hello}
        self.socket: ClientConnection = open_socket(agent.master)
        self.welcome: messages.Welcome | None = None

    def shake_hands(self) -> None:
        challenge = self.hear()
        assert isinstance(challenge, messages.Challenge)
        self.say(self.hello(challenge.nonce))
        answer = self.hear()
        if not isinstance(answer, messages.Welcome):
            raise Turned(answer)
        self.welcome = answer

    def hello(self, nonce: str) -> messages.Hello:
        key_id = self.agent.key.public.key_id
        signature = self.agent.key.sign(messages.hello_bytes(nonce, key_id, self.nonce))
        fields = {"key_id": key_id, "nonce": self.nonce, "version": "test", **self._said}
        return messages.Hello(**{"signature": base64.b64encode(signature).decode(), **fields})

    def say(self, message: messages.Message) -> None:
        self.socket.send(message.model_dump_json())

    def send_log(self, fence: int, offset: int, data: bytes) -> None:
        self.socket.send(messages.LOG_HEADER.pack(fence, offset) + data)

    def report(self, body: Any, number: int | None = None) -> int:
        """Send a report under the next number of this agent, or under a given one."""
        if number is None:
            self.agent.number += 1
            number = self.agent.number
        self.say(messages.Report(number=number, body=body))
        return number

    def beat(self, **fields: Any) -> None:
        self.say(messages.Heartbeat(at=time.time_ns() // 1000, **fields))

    def hear(self, timeout: float = 20) -> messages.FromMaster:
        """Return the next message; raises TimeoutError and ConnectionClosed."""
        return messages.from_master.validate_json(self.socket.recv(timeout))

    def hear_until(self, kind: type[Any], timeout: float = 20) -> Any:
        """Return the next message of a kind; others are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.hear(max(0.01, deadline - time.monotonic()))
            if isinstance(message, kind):
                return message

    def hear_end(self, timeout: float = 20) -> list[messages.FromMaster]:
        """Return everything until the master closes."""
        heard = []
        try:
            while True:
                heard.append(self.hear(timeout))
        except ConnectionClosed:
            return heard

    def take_order(self, timeout: float = 20) -> messages.Send:
        """Return the next order, confirmed as being on the disk."""
        order: messages.Send = self.hear_until(messages.Send, timeout)
        self.say(messages.Received(ids=(order.id,)))
        return order

    def close(self) -> None:
        self.socket.close()


def open_socket(master: MasterProcess, **options: Any) -> ClientConnection:
    """Open the agents' WebSocket without saying anything."""
    address = master.url.replace("http://", "ws://") + "/agents/link"
    return connect(address, proxy=None, compression=None, max_size=4 * messages.FRAME_LIMIT, legacy=True, **options)


def token_for(master: MasterProcess, name: str) -> str:
    """Make a join token as an admin."""
    reply = master.api("POST", "/agents", {"name": name})
    assert reply.status in (200, 201), reply.body
    token: str = json.loads(reply.body)["token"]
    return token
