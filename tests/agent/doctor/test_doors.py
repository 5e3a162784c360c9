"""Ports of fronts: free, held by somebody, or impossible."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from keepflow.agent.doctor import doors
from keepflow.agent.doctor.patient import Patient


def services(*listens: str) -> dict[str, object]:
    return {
        f"shop-{number}": {
            "environment": f"shop/e{number}",
            "images": ["shop"],
            "front": {"server_name": "shop.example.org", "listen": listen},
        }
        for number, listen in enumerate(listens)
    }


def test_each_address_is_tried_once_and_its_holder_named(make_patient: Callable[..., Patient]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held, socket.create_server(("127.0.0.1", 0)) as other:
        port, free = held.getsockname()[1], other.getsockname()[1]
        other.close()
        patient = make_patient(
            nginx={"mode": "own"}, services=services(f"127.0.0.1:{port}", f"127.0.0.1:{free}", "192.0.2.1:80")
        )
        found = {finding.sentence.split(" ")[0].rstrip(":"): finding for finding in doors.look(patient)}
    assert {listen: finding.state.value for listen, finding in found.items()} == {
        f"127.0.0.1:{port}": "failed",
        f"127.0.0.1:{free}": "ok",
        "192.0.2.1:80": "failed",
    }
    assert f"process {os.getpid()}" in found[f"127.0.0.1:{port}"].sentence


def test_without_a_front_there_are_no_doors(make_patient: Callable[..., Patient]) -> None:
    assert doors.look(make_patient(services=services("80"))) == []
