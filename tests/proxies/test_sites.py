"""Sites: whatever the values are, the text holds exactly the directives of the template (T27)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepflow.core import names
from keepflow.errors import DeployFailed
from keepflow.ports import Site
from keepflow.proxies._flags import CANARY_PERCENT
from keepflow.proxies._sites import render, render_own, variable_prefix

FLAGS, PAGES = Path("/var/lib/keepflow/sw/kf-shop-main/cur"), Path("/var/lib/keepflow/sw/pages")
VISITS = Path("/var/lib/keepflow/sw/visits/kf-shop-main.log")
SITE = Site(
    service="shop",
    instance="main",
    server_name="shop.example.org",
    listen="127.0.0.1:8900",
    blue="10.213.0.2:8080",
    green="10.213.0.3:8080",
    probe_token="p" * 32,
    bypass_token="b" * 32,
)
_TOKENS = re.compile(r'"(?:\\.|[^"\\])*"|[{};]|#[^\n]*|[^\s;{}]+(?:\{[a-z0-9_]+\}[^\s;{}]*)*')

#: What was tried against generators of nginx files (ingress-nginx CVE-2025-1097/1098/24514, Coolify CVE-2025-66212 …).
PAYLOADS = [
    *("a;b", "a b", "a\nb", "a\r\nb", "a\tb", "a{b", "a}b", "a#b", 'a"b', "a'b", "a\\b", "a$b", "a\0b", "\u2028a"),
    *(
        "a\n",
        "\na",
        " a",
        "a ",
        "",
        ".",
        "..",
        "-a",
        "a-",
        "a..b",
        "${a}",
        "$(id)",
        "`id`",
        "%7B",
        "{{7*7}}",
        "{% raw %}",
    ),
    *("*.example.org", "_", "~^(.*)$", "A.example.org", "ä.example", "a" * 64, "a." * 130, "1.2.3.4;", "[::1]", "::1"),
    *("//", "/etc/../etc/passwd", "a/b", "http://x", "x:80", "unix:/run/x.sock", "{#", "x;#", "include /etc/passwd"),
    *("x; return 200 pwned", "x;}\nserver{listen 80;}", "x { return 301 http://evil; }", "x\n}\nhttp {"),
    *("x; load_module /tmp/x.so", "x; ssl_engine /tmp/x.so", "x; alias /etc/"),
]
_FIELDS = [
    *("service", "instance", "server_name", "listen", "blue", "green", "probe_token", "bypass_token"),
    *("certificate", "certificate_key"),
]


def directives(text: str) -> list[str]:
    """Read nginx text into its words, comments left out."""
    return [token for token in _TOKENS.findall(text) if not token.startswith("#")]


def shape(text: str, site: Site) -> list[str]:
    """Return the words with every value of the site and everything made from it replaced by its name."""
    masks = {
        variable_prefix(site.service, site.instance): "V",
        site.server_name: "NAME",
        site.listen: "LISTEN",
        site.blue: "SLOT1",
        site.green: "SLOT2",
        site.probe_token: "PROBE",
        site.bypass_token: "BYPASS",
    }
    generation = re.search(r"generation ([0-9a-f]{16})", text)
    assert generation is not None
    masks[generation[1]] = "GENERATION"
    words = directives(text)
    for value in sorted(masks, key=len, reverse=True):
        words = [word.replace(value, masks[value]) for word in words]
    return words


_label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
_token = st.from_regex(r"[A-Za-z0-9_-]{16,40}", fullmatch=True)
_slot = st.tuples(st.ip_addresses(v=4), st.integers(1, 65535)).map(lambda pair: f"{pair[0]}:{pair[1]}")
_sites = st.builds(
    Site,
    service=_label,
    instance=_label,
    server_name=st.lists(_label, min_size=1, max_size=4).map(".".join),
    listen=st.integers(1, 65535).map(str) | _slot,
    blue=_slot,
    green=_slot,
    probe_token=_token,
    bypass_token=_token,
).filter(lambda site: site.blue != site.green)


@given(_sites)
def test_t27_legal_values_add_and_remove_no_directive(site: Site) -> None:
    def punctuation(one: Site) -> list[str]:
        return [word for word in directives(render(one, FLAGS, PAGES, VISITS).text) if word in ("{", "}", ";")]

    assert punctuation(site) == punctuation(SITE)


@pytest.mark.parametrize("field", _FIELDS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_t27_no_payload_reaches_the_text(field: str, payload: str) -> None:
    if (field, payload) == ("certificate", ""):
        payload = "/etc/keepflow/"  # an empty one means plain HTTP
    with_tls = replace(SITE, certificate="/etc/keepflow/a.pem", certificate_key="/etc/keepflow/a.key")
    with pytest.raises(DeployFailed) as refused:
        render(replace(with_tls, **{field: payload}), FLAGS, PAGES, VISITS)
    assert refused.value.code == "proxy-site"
    render(with_tls, FLAGS, PAGES, VISITS)


@pytest.mark.parametrize("path", ["/a b", "/a;b", "/a/../b", "a/b", "/a\n", "/a$b", "/ä", ""])
def test_t27_a_path_outside_the_pattern_is_refused(path: str) -> None:
    good = (FLAGS, PAGES, VISITS)
    for number in range(len(good)):
        with pytest.raises(DeployFailed):
            render(SITE, *good[:number], Path(path), *good[number + 1 :])


def test_the_shape_of_a_site_depends_on_nothing_but_the_template() -> None:
    other = Site("a-long-name", "i1", "x.test", "[::1]:80", "10.9.9.9:1", "10.9.9.8:2", "Q" * 20, "R" * 40)
    assert shape(render(SITE, FLAGS, PAGES, VISITS).text, SITE) == shape(
        render(other, FLAGS, PAGES, VISITS).text, other
    )


def test_the_generation_names_the_text_and_changes_with_it() -> None:
    one, same, other = (
        render(site, FLAGS, PAGES, VISITS) for site in (SITE, SITE, replace(SITE, server_name="shop.example.com"))
    )
    assert one == same
    assert one.generation in one.text.splitlines()[0]
    assert one.generation != other.generation


def test_the_first_line_tells_the_version_and_the_grammar_is_complete() -> None:
    text = render(SITE, FLAGS, PAGES, VISITS).text
    assert text.startswith("# keepflow site template 2 ")
    wanted = [
        "blue",
        "green",
        "net",
        "maint",
        "count",
        *(f"c{percent}{way}" for percent in CANARY_PERCENT for way in "gb"),
    ]
    for word in wanted:
        assert f"-f {FLAGS}/{word})" in text
    assert "open_file_cache off" in text


def test_two_instances_never_share_a_variable_and_no_variable_overflows_nginxs_default_hash() -> None:
    pairs = [("a", "b"), ("a-b", "c"), ("x" * 40, "y" * 40), ("x" * 40, "y" * 39 + "z"), ("s", "feature-" + "1" * 30)]
    prefixes = [variable_prefix(*pair) for pair in pairs]
    assert len(set(prefixes)) == len(pairs)
    assert all(re.fullmatch(r"[a-z0-9_]{1,30}", prefix) for prefix in prefixes)


@given(st.tuples(_label, _label), st.tuples(_label, _label))
def test_different_names_give_different_variables(one: tuple[str, str], other: tuple[str, str]) -> None:
    same_name = names.prefix(*one) == names.prefix(*other)
    assert (variable_prefix(*one) == variable_prefix(*other)) == same_name


def test_a_newer_nginx_is_told_to_keep_idle_connections_through_a_reload() -> None:
    home = Path("/var/lib/keepflow/nginx")
    assert "keepalive_min_timeout" not in render_own(home, (1, 22, 1))
    assert "keepalive_min_timeout" in render_own(home, (1, 27, 4))
    with pytest.raises(DeployFailed):
        render_own(Path("/var/lib/a;b"), (1, 22, 1))
