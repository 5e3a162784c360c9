"""The types of fields that several files share, each with its own rule and its own words when it is broken."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, LiteralString
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError, core_schema

from keepflow.core.interpolation import problem_of
from keepflow.core.names import NAME, is_name
from keepflow.core.patterns import path_pattern_problem, pattern_problem
from keepflow.core.releases import ImageRef

#: Key of the validation's context: the inputs and axes that `${NAME}` may name, as variables.
GIVEN = "given"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_PERSON = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DURATION = re.compile(
    r"(?:(?P<days>\d{1,4})d)?(?:(?P<hours>\d{1,6})h)?(?:(?P<minutes>\d{1,6})m)?"
    r"(?:(?P<seconds>\d{1,8}(?:\.\d{1,3})?)s)?(?:(?P<milliseconds>\d{1,8})ms)?"
)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%")
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s?(MB|GB|TB|MiB|GiB|TiB)")
_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SECONDS = {"days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0, "milliseconds": 0.001}
_HOST_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._@+-]+)+")
_URL_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*")
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_SYSTEM_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_REGISTRY = re.compile(rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[0-9a-f:]+\])(?::[0-9]{{1,5}})?")


class Model(BaseModel):
    """Base of every file's models: immutable, unknown keys refused, numbers taken as text where text is wanted."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True, validate_default=False
    )


def bad(code: LiteralString, sentence: str) -> PydanticCustomError:
    """Return the error a validator raises: a stable code with a hyphen in it, and a sentence."""
    return PydanticCustomError(code, "{sentence}", {"sentence": sentence})


class OneOrMany:
    """Marks a list that may be written as its single item; last in an `Annotated`, after the length limits."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(_one_or_many, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str | int | float) and not isinstance(value, bool) else value


def _rule(code: LiteralString, test: Callable[[str], bool], sentence: str) -> AfterValidator:
    def check(text: str) -> str:
        if not test(text):
            raise bad(code, sentence)
        return text

    return AfterValidator(check)


def _duration(value: Any) -> Any:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if match is None or not value:
        raise bad("bad-duration", "must be a time with its unit, like 30s, 1m30s, 2h or 500ms")
    seconds = sum(float(match[unit] or 0) * worth for unit, worth in _SECONDS.items())
    if seconds > 366 * 86400:
        raise bad("bad-duration", "must not be longer than a year")
    return seconds


def _argv(value: Any) -> Any:
    if not isinstance(value, list) or not value or value[0] == "":
        raise bad(
            "bad-command",
            "must be a list: the program and its arguments, like [python, manage.py, migrate]; "
            'for a shell write [sh, -c, "..."]',
        )
    return value


def _percent(value: Any) -> Any:
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise bad("bad-percent", "must be a share of a hundred, like 5% or 0.5%")
    return float(match[1]) / 100


def size(value: Any) -> int:
    """Read a size with its unit and return the bytes; raises what validators raise."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if value == 0 and not isinstance(value, bool):
        return 0
    if match is None:
        raise bad("bad-size", "must be a size with its unit, like 500MB, 2GB or 1.5TB")
    return int(float(match[1]) * _BYTES[match[2]])


def _is_plain_path(text: str) -> bool:
    return _PLAIN_PATH.fullmatch(text) is not None and not {".", ".."} & set(text.split("/"))


def _is_relative_path(text: str) -> bool:
    parts = text.split("/")
    return (
        text.isprintable() and len(text) <= 1024 and not text.startswith("-") and "" not in parts and ".." not in parts
    )


def _is_repository(text: str) -> bool:
    try:
        reference = ImageRef.parse(text)
    except ValueError:
        return False
    return reference.tag is None and reference.digest is None


def _is_image_name(text: str) -> bool:
    return _is_repository(text) and not ImageRef.parse(text).domain


def _is_project_path(text: str) -> bool:
    project, slash, name = text.partition("/")
    return bool(slash) and is_name(project) and is_name(name)


def _is_host(text: str) -> bool:
    return len(text) <= 253 and _HOST.fullmatch(text) is not None


def _interpolated(text: str, info: ValidationInfo) -> str:
    if sentence := problem_of(text, (info.context or {}).get(GIVEN)):
        raise bad("unknown-variable", sentence)
    return text


def _pattern(text: str) -> str:
    if sentence := pattern_problem(text):
        raise bad("bad-pattern", sentence)
    return text


def _path_pattern(text: str) -> str:
    if sentence := path_pattern_problem(text):
        raise bad("bad-pattern", sentence)
    return text


def _listen(text: str) -> str:
    address, colon, port = text.rpartition(":")
    if bool(colon) != bool(address) or not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
        raise bad("bad-listen", "must be a port (80) or address:port (127.0.0.1:8900)")
    if address:
        try:
            ipaddress.ip_address(address[1:-1] if address.startswith("[") and address.endswith("]") else address)
        except ValueError:
            raise bad("bad-listen", "the part before the port must be an IP address; IPv6 in [ ]") from None
        if (":" in address) != address.startswith("["):
            raise bad("bad-listen", "an IPv6 address is written in [ ]")
    return text


def _address_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port  # reading the port is its check
    except ValueError:
        raise bad("bad-url", "must be an address like https://ci.example.org") from None
    if "@" in parts.netloc:
        raise bad("inline-secret", "must not hold a user or password")
    strange = not text.isprintable() or " " in text or parts.query or parts.fragment
    if strange or parts.scheme not in ("http", "https") or not (_is_host(host) or _is_ipv6(host)):
        raise bad("bad-url", "must be http://host or https://host, with :port when it is not the usual one")
    return text.rstrip("/")


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def is_time_zone(text: str) -> bool:
    """Say whether this machine knows a time zone."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _beside_the_file(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or not value or "\0" in value:
        raise bad("bad-path", "must be the path of a file")
    base: Path = (info.context or {}).get("base", Path())
    return base / value


def _plain_path(path: Path) -> Path:
    if not _is_plain_path(str(path)):
        raise bad("bad-path", "must be an absolute path of letters, digits and . _ @ + -, without '..'")
    return path


Text = Annotated[
    str,
    Field(max_length=16_384),
    _rule("bad-text", lambda text: "\0" not in text, "must not hold a NUL"),
    WithJsonSchema({"type": ["string", "number"]}),
]
Line = Annotated[
    str,
    Field(min_length=1, max_length=200),
    _rule("bad-text", lambda text: text.isprintable(), "must be one line of printable text"),
]
TimeZone = Annotated[
    str, _rule("bad-time-zone", is_time_zone, "must be a time zone this machine knows, like Europe/Berlin or UTC")
]
Flag = Annotated[bool, Strict()]
Port = Annotated[int, Strict(), Field(ge=1, le=65535)]
Count = Annotated[int, Strict(), Field(ge=1, le=1000)]
Name = Annotated[
    str,
    _rule("bad-name", is_name, "must be a name: 1 to 40 of a-z, 0-9 and '-', neither first nor last a '-'"),
    WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"}),
]
Names = Annotated[tuple[Name, ...], OneOrMany()]
ProjectPath = Annotated[str, _rule("bad-name", _is_project_path, "must be project/name, like 'shop/production'")]
Person = Annotated[
    str,
    _rule("bad-name", lambda text: _PERSON.fullmatch(text) is not None, "must be a user like 'ann' or 'bo.li'"),
]
EnvName = Annotated[
    str,
    _rule(
        "bad-name",
        lambda text: _ENV_NAME.fullmatch(text) is not None,
        "must be the name of a variable: letters, digits and '_', the first no digit",
    ),
]
Env = dict[EnvName, Text]
Size = Annotated[int, BeforeValidator(size), WithJsonSchema({"type": ["string", "integer"]})]
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": r"^(\d+d)?(\d+h)?(\d+m)?(\d+(\.\d+)?s)?(\d+ms)?$"}),
]  #: seconds
#: A Duration that is written into a plan as the text it is read from: what agents get is validated there again.
SpelledDuration = Annotated[Duration, PlainSerializer(lambda seconds: f"{seconds:.3f}s", when_used="unless-none")]
Percent = Annotated[
    float, BeforeValidator(_percent), WithJsonSchema({"type": "string", "pattern": r"^\d{1,3}(\.\d{1,3})? ?%$"})
]  #: between 0 and 1
ContainerPath = Annotated[
    str, _rule("bad-path", _is_plain_path, "must be an absolute path of letters, digits and . _ @ + -, without '..'")
]
RelativePath = Annotated[
    str, _rule("bad-path", _is_relative_path, "must be a path inside the repository: not absolute, without '..'")
]
UrlPath = Annotated[
    str,
    Field(max_length=1024),
    _rule("bad-path", lambda text: _URL_PATH.fullmatch(text) is not None, "must be a URL path that begins with '/'"),
]
ImageName = Annotated[
    str,
    _rule("bad-image", _is_image_name, "must be a name like 'shop' or 'team/shop': no registry address, tag or digest"),
]
Repository = Annotated[
    str,
    _rule(
        "bad-image",
        _is_repository,
        "must be like 'registry.example.org:5000/shop', without tag and digest",
    ),
]
RegistryAddress = Annotated[
    str,
    _rule(
        "bad-address",
        lambda text: _REGISTRY.fullmatch(text) is not None,
        "must be host or host:port, without https://",
    ),
]
HostName = Annotated[str, _rule("bad-host", _is_host, "must be a host name in small letters, like 'shop.example.org'")]
#: A host name, or `*.` before one: every instance has its own name there.
HostPattern = Annotated[
    str,
    _rule(
        "bad-host",
        lambda text: _is_host(text.removeprefix("*.")),
        "must be a host name in small letters, like 'shop.example.org', or one for every instance, like "
        "'*.dev.example.org'",
    ),
]
Listen = Annotated[str, AfterValidator(_listen), WithJsonSchema({"type": ["string", "integer"]})]
Url = Annotated[str, AfterValidator(_address_url)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1), OneOrMany()]
PathPatterns = Annotated[tuple[Annotated[str, AfterValidator(_path_pattern)], ...], Field(min_length=1), OneOrMany()]
Texts = Annotated[tuple[Text, ...], OneOrMany()]
#: A program and its arguments, each as it is; a line for a shell is refused, for nothing here splits or expands it.
Argv = Annotated[tuple[Text, ...], BeforeValidator(_argv)]
Interpolated = Annotated[Text, AfterValidator(_interpolated)]  #: `${NAME}` is replaced here
FilePath = Annotated[Path, BeforeValidator(_beside_the_file)]  #: relative to the folder of the file that names it
Program = Annotated[
    str,
    _rule(
        "bad-path",
        lambda text: _PROGRAM.fullmatch(text) is not None or _is_plain_path(text),
        "must be the name of a program, or its absolute path",
    ),
]
SystemUser = Annotated[
    str,
    _rule("bad-name", lambda text: _SYSTEM_USER.fullmatch(text) is not None, "must be a user of the system"),
]
PlainPath = Annotated[FilePath, AfterValidator(_plain_path)]  #: goes into another program's configuration
