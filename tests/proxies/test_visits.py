"""The record of visitors: what a line means, and that no line is counted twice or lost while nginx writes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepflow.proxies import _visits
from keepflow.proxies._access_logs import access_logs
from keepflow.proxies._visits import Record, parse

SLOTS = {"10.213.0.2:8080": "blue", "10.213.0.3:8080": "green"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1789.5 200 kf_shop_main_blue 10.213.0.2:8080", (200, "blue", "blue")),
        ("1789.5 200 kf_shop_main_green_net 10.213.0.3:8080, 10.213.0.2:8080", (200, "green", "blue")),
        ("1789.5 502 kf_shop_main_blue 10.213.0.3:8080 : 10.213.0.2:8080", (502, "blue", "blue")),
        ("1789.5 502 kf_shop_main_green kf_shop_main_green", (502, "green", None)),
        ("1789.5 200 kf_blue_green_any 10.213.0.2:8080", (200, None, "blue")),
        ("1789.5 503 kf_shop_main_blue -", None),
        ("1789.5 400  -", None),
        ("17x9.5 200 kf_shop_main_blue 10.213.0.2:8080", None),
        ("1789.5 200", None),
        ("", None),
    ],
)
def test_a_line_says_who_was_meant_and_who_answered(line: str, expected: tuple[int, str, str] | None) -> None:
    visit = parse(line, SLOTS)
    assert (visit and (visit.status, visit.meant, visit.by)) == expected


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    record = Record(tmp_path / "visits.log")
    assert record.read(0, SLOTS) == ([], 0)
    with record.path.open("a") as file:
        file.write("1.0 200 kf_s_m_blue 10.213.0.2:8080\n2.0 200 kf_s_m_bl")
        file.flush()
        first, position = record.read(0, SLOTS)
        assert [visit.at for visit in first] == [1.0]
        assert record.read(position, SLOTS) == ([], position)
        file.write("ue 10.213.0.2:8080\n")
        file.flush()
        assert [visit.at for visit in record.read(position, SLOTS)[0]] == [2.0]


def test_a_record_that_grew_too_long_is_emptied_once_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_visits, "_LONGEST", 100)
    record = Record(tmp_path / "visits.log")
    with record.path.open("a") as file:
        seen, position = 0, 0
        for number in range(20):
            file.write(f"{number}.0 200 kf_s_m_blue 10.213.0.2:8080\n")
            file.flush()
            visits, position = record.read(position, SLOTS)
            seen += len(visits)
            assert record.path.stat().st_size <= 150
    assert seen == 20


MAIN = """
user www-data;
http {
    # access_log /commented/out;
    log_format own '$request; { $status }' ;
    access_log /var/log/nginx/access.log own if=$loggable; access_log "/var/log/with space.log";
    server { access_log /only/here.log; location / { access_log off; } }
    map $uri $loggable { default 1; access_log 0; }
}
stream { access_log /not/http.log; }
"""


def test_the_access_logs_of_a_hosts_main_file_are_found_where_they_hold_for_every_site() -> None:
    assert access_logs(MAIN) == (
        "access_log /var/log/nginx/access.log own if=$loggable;",
        'access_log "/var/log/with space.log";',
    )
    assert access_logs("http { include conf.d/*.conf; }") == ()
    assert access_logs("}}} access_log x; http { access_log off; }") == ("access_log off;",)
