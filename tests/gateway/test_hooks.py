"""Webhooks against a real server: what is answered, what is stored, and that nothing forged is ever taken."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway.conftest import Served
from tests.hostile import NAMES
from tests.processes import Reply, hook_headers, push_body, sign
from tests.real.waiting import wait_until

MIB = 1024 * 1024


def _post(served: Served, body: bytes, delivery: str, event: str = "push", path: str = "app", **more: str) -> Reply:
    headers = {**hook_headers(body, delivery, event), **{k.replace("_", "-"): v for k, v in more.items()}}
    return served.master.ask("POST", f"/hooks/{path}", body, headers)


def _push(served: Served, **more: Any) -> bytes:
    return push_body(sha=served.sha, **more)


def _deliveries(served: Served) -> list[dict[str, Any]]:
    reply = served.master.api("GET", "/projects/app/deliveries")
    assert reply.status == 200, reply.body
    found: list[dict[str, Any]] = reply.json["items"]
    return found


# --- what is answered ------------------------------------------------------------------------------------------------


def test_a_push_is_answered_202_with_its_delivery_event_and_the_address_of_its_decision(served: Served) -> None:
    reply = _post(served, _push(served), "push-1")
    assert reply.status == 202
    assert reply.json["event"]["ref"] == "refs/heads/dev"
    assert reply.json["event"]["sha"] == served.sha
    decision = urllib.parse.urlsplit(reply.json["decision_url"]).path
    assert decision == f"/api/v1/projects/app/deliveries/{reply.json['delivery']}"
    assert reply.json["page"] == reply.json["decision_url"].replace("/api/v1/", "/")

    def decided() -> Any:
        return served.master.api("GET", decision.removeprefix("/api/v1")).json["decision"]

    found = wait_until(decided, 20, "the delivery has a decision")
    assert [run["flow"] for run in found["runs"]] == ["dev"]


def test_r08_the_same_delivery_twice_names_the_first_one_and_its_run(served: Served) -> None:
    body = _push(served)
    first = _post(served, body, "twice-1")
    assert first.status == 202

    def again() -> Any:
        reply = _post(served, body, "twice-1")
        assert reply.status == 200
        assert (reply.json["delivery"], reply.json["duplicate"]) == (first.json["delivery"], True)
        return reply.json["runs"]

    runs = wait_until(again, 20, "the repeated delivery names the run of the first")
    assert len(runs) == 1
    assert runs[0].startswith("app#")


def test_one_delivery_id_sent_by_many_at_once_is_taken_once(served: Served) -> None:
    body = _push(served)
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: _post(served, body, "crowd-1"), range(64)))
    assert sorted(reply.status for reply in replies) == [200] * 63 + [202]
    assert len({reply.json["delivery"] for reply in replies}) == 1


@pytest.mark.parametrize(
    ("event", "change", "status", "word"),
    [
        ("ping", {}, 200, "ping"),
        ("push", {"deleted": True, "after": "0" * 40, "head_commit": None}, 200, "deleted"),
        ("push", {"head_commit": None}, 200, "no-commit"),
        ("star", {}, 204, "unknown-event"),
        ("", {}, 204, "unknown-event"),
    ],
)
def test_r04_what_no_flow_file_can_change_is_decided_in_the_answer_and_recorded(
    served: Served, event: str, change: dict[str, Any], status: int, word: str
) -> None:
    delivery = f"final-{event}-{word}"
    reply = _post(served, _push(served, **change), delivery, event)
    assert reply.status == status
    assert (reply.json["word"] if status == 200 else "unknown-event") == word
    stored = next(item for item in _deliveries(served) if item["delivery"] == delivery)
    assert (stored["word"], stored["handled"]) == (word, True)


def test_a_form_is_read_as_well_as_json(served: Served) -> None:
    body = b"payload=" + urllib.parse.quote_plus(_push(served)).encode()
    reply = _post(served, body, "form-1", Content_Type="application/x-www-form-urlencoded")
    assert reply.status == 202
    assert reply.json["event"]["sha"] == served.sha


def test_the_headers_that_prove_the_sender_are_not_stored(served: Served) -> None:
    reply = _post(served, _push(served), "headers-1", Authorization="Bearer x", Cookie="kf=1", X_Hub_Token="t")
    assert reply.status == 202
    stored = served.master.api("GET", f"/projects/app/deliveries/{reply.json['delivery']}").body.decode()
    assert not [word for word in ("Bearer x", "kf=1", "sha256=", "x-hub-token") if word in stored.lower()]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_r03_a_missing_or_wrong_signature_is_401_and_stores_nothing(served: Served) -> None:
    body = _push(served)
    before = _deliveries(served)[0]["id"]
    for signature in ("", "sha256=", "sha1=" + "0" * 40, sign(body, "another"), sign(body)[:-1], "sha256=\u00e9" * 3):
        assert _post(served, body, "forged", X_Hub_Signature_256=signature).status == 401
    assert _deliveries(served)[0]["id"] == before
    assert _post(served, body, "forged").status == 202, "a refused delivery must not burn its id"


@pytest.mark.parametrize("name", ["other", "APP", "app%2f", "a" * 41, "app%00", "..%2f..%2fapp", "%F0%9F%98%80"])
def test_an_unknown_project_is_404_and_looks_like_every_other(served: Served, name: str) -> None:
    body = _push(served)
    reply = _post(served, body, "unknown", path=name)
    assert reply.status == 404
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert name not in reply.body.decode()


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "", "application/jsonx", "application/xml"]
)
def test_another_content_type_is_415_before_the_body_is_read(served: Served, kind: str) -> None:
    assert _post(served, b"x" * 1000, "kind", Content_Type=kind).status == 415


def test_t03_a_form_of_a_thousand_parts_is_refused(served: Served) -> None:
    parts = "".join(f'--b\r\nContent-Disposition: form-data; name="p{n}"\r\n\r\nx\r\n' for n in range(1000))
    reply = _post(served, f"{parts}--b--".encode(), "bomb", Content_Type="multipart/form-data; boundary=b")
    assert reply.status == 415


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"ref": NaN}',
        b'{"ref": 1, "ref": 2}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"ref": "refs/heads/dev"}',
        json.dumps({"ref": "refs/heads/../x", "after": "1" * 40}).encode(),
    ],
)
def test_a_signed_body_that_cannot_be_read_is_400_and_is_not_repeated_in_the_answer(
    served: Served, body: bytes
) -> None:
    reply = _post(served, body, f"bad-{hash(body)}")
    assert reply.status == 400
    assert body[:200].decode(errors="replace") not in reply.body.decode() or len(body) < 4


def test_a_delivery_without_an_id_is_400(served: Served) -> None:
    body = _push(served)
    headers = hook_headers(body, "x")
    del headers["X-GitHub-Delivery"]
    assert served.master.ask("POST", "/hooks/app", body, headers).status == 400
    assert _post(served, body, "x" * 5000).status == 400


def test_hooks_are_posted_and_nothing_else(served: Served) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        reply = served.master.ask(method, "/hooks/app")
        assert (reply.status, reply.headers["Allow"]) == (405, "POST")


def test_hostile_branch_names_are_taken_as_data(served: Served) -> None:
    statuses = set()
    for number, name in enumerate(NAMES):
        body = push_body(ref=f"refs/heads/{name}", sha=served.sha)
        reply = _post(served, body, f"hostile-{number}")
        statuses.add(reply.status)
        if reply.status == 202:
            assert reply.json["event"]["ref"] == f"refs/heads/{name}"
    assert statuses <= {202, 400}
    assert 202 in statuses


def test_p04_no_flipped_bit_is_accepted_and_none_breaks_the_server(served: Served) -> None:
    body = _push(served, size=2048)
    headers = hook_headers(body, "flip")
    before = _deliveries(served)[0]["id"]
    picked = random.Random(4)  # noqa: S311 - the same bits on every run
    bits = picked.sample(range(len(body) * 8), 3000)
    statuses: dict[int, int] = {}

    def flip(chunk: list[int]) -> None:
        with served.master.connect() as connection:
            for bit in chunk:
                changed = bytearray(body)
                changed[bit // 8] ^= 1 << bit % 8
                status = _exchange(connection, _request("/hooks/app", headers, bytes(changed)))
                statuses[status] = statuses.get(status, 0) + 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(flip, [bits[start::4] for start in range(4)]))
    assert statuses == {401: 3000}
    assert _deliveries(served)[0]["id"] == before
    assert _post(served, body, "flip").status == 202


def test_p04_no_mutated_header_is_accepted_without_its_signature_and_none_breaks_the_server(served: Served) -> None:
    body = _push(served)
    good = hook_headers(body, "mutated")
    picked = random.Random(5)  # noqa: S311 - the same headers on every run
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789-=:;,/ \t\x80\xff%"
    statuses: dict[int, int] = {}
    with served.master.connect() as connection:
        for _ in range(2000):
            headers = dict(good)
            name = picked.choice(list(headers))
            value = list(headers[name])
            for _ in range(picked.randint(1, 4)):
                value[picked.randrange(len(value))] = picked.choice(alphabet)
            headers[name] = "".join(value).strip()
            unproven = headers["X-Hub-Signature-256"] != good["X-Hub-Signature-256"]
            status = _exchange(connection, _request("/hooks/app", headers, body))
            assert status < 500
            assert not (unproven and status in (200, 202, 204))
            statuses[status] = statuses.get(status, 0) + 1
    assert statuses.get(401, 0) > 100


# --- sizes and slowness ----------------------------------------------------------------------------------------------


def test_a_declared_length_above_the_limit_is_413_before_anything_is_read(served: Served) -> None:
    head = _request("/hooks/app", {**hook_headers(b"", "large"), "Content-Length": str(26 * MIB)}, b"")
    with served.master.connect() as connection:
        began = time.monotonic()
        connection.sendall(head)
        assert _status(connection) == 413
        assert time.monotonic() - began < 1.0


def test_a_body_that_grows_above_the_limit_is_413_with_bounded_memory(served: Served) -> None:
    before = served.master.rss()
    headers = hook_headers(b"", "growing")
    headers["Transfer-Encoding"] = "chunked"
    piece = b"%x\r\n" % MIB + b"x" * MIB + b"\r\n"
    with served.master.connect() as connection:
        connection.sendall(_request("/hooks/app", headers, b"", length=False))
        sent, status = 0, 0
        connection.settimeout(10)
        try:
            for _ in range(200):
                connection.sendall(piece)
                sent += 1
        except OSError:
            pass
        status = _status(connection)
    assert status == 413
    assert sent < 60, "the server must not read a body it has refused"
    assert served.master.rss() - before < 80 * MIB


def test_a_refused_sender_reads_the_answer_although_it_was_still_sending(served: Served) -> None:
    body = b"x" * (2 * MIB)
    for headers, status in (
        ({"Content-Type": "text/plain"}, 415),
        ({**hook_headers(body, "x"), "Content-Length": str(40 * MIB)}, 413),
    ):
        with served.master.connect() as connection:
            connection.sendall(_request("/hooks/app", headers, body))
            assert _status(connection) == status


def test_the_largest_body_is_taken(served: Served) -> None:
    body = _push(served, size=25 * MIB - 1000)
    assert 24 * MIB < len(body) <= 25 * MIB
    before = served.master.rss()
    began = time.monotonic()
    assert _post(served, body, "largest").status == 202
    assert served.master.rss() - before < 300 * MIB
    assert time.monotonic() - began < 20


def test_t02_two_hundred_slow_posts_keep_nobody_from_pushing(served: Served) -> None:
    before = served.master.rss()
    body = _push(served)
    slow = _request("/hooks/app", {**hook_headers(body, "slow"), "Content-Length": str(20 * MIB)}, b"{" * 1000)
    held: list[socket.socket] = []
    try:
        for _ in range(200):
            connection = served.master.connect()
            connection.sendall(slow)
            held.append(connection)
        began = time.monotonic()
        for number in range(20):
            assert _post(served, body, f"beside-{number}").status == 202
        assert served.master.get("/login").status == 200
        assert time.monotonic() - began < 10
        # Beyond its share of the places one address is told to wait, not left hanging.
        assert 503 in {_status(connection, 0.2) for connection in held[100:120]}
    finally:
        for connection in held:
            connection.close()
    assert served.master.rss() - before < 300 * MIB


def test_a_sender_that_goes_away_in_the_middle_leaves_no_trace(served: Served) -> None:
    body = _push(served)
    before = _deliveries(served)[0]["id"]
    for _ in range(50):
        with served.master.connect() as connection:
            connection.sendall(_request("/hooks/app", {**hook_headers(body, "gone")}, body[:-10], length=len(body)))
    assert _post(served, body, "after-gone").status == 202
    assert _deliveries(served)[0]["id"] == before + 1
    assert "Traceback" not in served.master.log


# --- helpers ---------------------------------------------------------------------------------------------------------


def _request(path: str, headers: dict[str, str], body: bytes, length: bool | int = True) -> bytes:
    lines = {"Host": "127.0.0.1", **headers}
    if length is not False:
        lines.setdefault("Content-Length", str(len(body) if length is True else length))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def _exchange(connection: socket.socket, request: bytes) -> int:
    connection.sendall(request)
    return _status(connection)


def _status(connection: socket.socket, timeout: float = 30) -> int:
    """Return the status of the next answer, 0 when none came; reads the whole answer."""
    connection.settimeout(timeout)
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return 0
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        left = (int(lengths[0].split(b":")[1]) if lengths else 0) - len(rest)
        while left > 0:
            left -= len(connection.recv(65536))
    except TimeoutError:
        return 0
    return int(head.split()[1])


def test_the_answer_to_a_slow_client_does_not_hold_up_others(served: Served) -> None:
    stop = threading.Event()

    def never_reads() -> None:
        with served.master.connect() as connection:
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 50)
            stop.wait(20)

    readers = [threading.Thread(target=never_reads) for _ in range(20)]
    for reader in readers:
        reader.start()
    try:
        assert _post(served, _push(served), "beside-readers").status == 202
    finally:
        stop.set()
        for reader in readers:
            reader.join()
