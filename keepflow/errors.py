"""The tree of intentional errors.

KeepflowError
├── UsageError            2  400  the caller asked for something that makes no sense
│   ├── ConfigError       2  422  a file is unreadable or wrong; carries every Problem with its line
│   ├── UnsupportedMedia  2  415  a body of a content type that is not read here
│   └── SecretTooShort    2  422  a value so short that masking it would blot out the log
├── AuthError             4  401  nobody proved who they are
│   ├── Denied            4  403  somebody known may not do this
│   ├── BadSignature      4  401  a signature does not fit its message
│   └── BadReceipt        4  401  a signed statement does not say what it must; names the field
├── NotFound              1  404  no such thing, or none this caller may see
├── Refused               7  409  a guard said no: locked, untested digest, stale order
│   └── StaleFence        7  409  a newer owner has this; stop
├── TooLarge              1  413  more bytes than the limit allows
├── TooMany               1  429  asked too often; carries how many seconds to wait
├── Unavailable           1  503  cannot be done now: store closed, disk full, part missing
│   ├── ProgramMissing    1  503  a program this needs is not installed
│   └── OutOfSpace        1  503  the disk is full
├── CommandFailed         1  502  a program ended with an error
│   └── CommandTimeout    1  504  a program did not end in time
├── Stopped               5  409  somebody wants it to end now
├── RemoteError           1  502  another machine gave a wrong answer
│   ├── RegistryError     1  502  the registry refused or failed
│   ├── Undeliverable     1  502  a notice that another try would not bring there either
│   └── BadRemote         2  400  a repository address that keepflow will not use
├── DeployFailed          3  500  a new release could not be made to serve; carries the reason code
└── BadSeal               1  500  a sealed value was changed, moved, or sealed with another key

Every class carries `exit_code` (command line) and `http_status` (API); `code` is stable and meant for machines.
"""

from __future__ import annotations

from dataclasses import dataclass


class KeepflowError(Exception):
    """Something keepflow understands went wrong; the text says what, where, and how to mend it."""

    exit_code = 1
    http_status = 500
    default_code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code

    def __str__(self) -> str:
        return self.message


class UsageError(KeepflowError):
    """The caller asked for something that makes no sense."""

    exit_code = 2
    http_status = 400
    default_code = "usage"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a file: where it is, its stable code, and what to do about it."""

    line: int
    column: int
    code: str
    message: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.code} {self.message}"


class ConfigError(UsageError):
    """A file is unreadable or wrong; carries every problem, each with its line and column."""

    http_status = 422
    default_code = "config"

    def __init__(self, problems: list[Problem], *, code: str | None = None) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), code=code)


class SecretTooShort(UsageError):
    """A value is too short to be a secret: masking it would blot out the log, not masking it would leak it."""

    http_status = 422
    default_code = "secret-too-short"


class UnsupportedMedia(UsageError):
    """A body of a content type that is not read here."""

    http_status = 415
    default_code = "unsupported-media"


class AuthError(KeepflowError):
    """Nobody proved who they are."""

    exit_code = 4
    http_status = 401
    default_code = "unauthenticated"


class Denied(AuthError):
    """Somebody known may not do this."""

    http_status = 403
    default_code = "denied"


class BadSignature(AuthError):
    """A signature does not fit its message, or the key is not a trusted one."""

    default_code = "bad-signature"


class BadReceipt(AuthError):
    """A statement about an image does not say what it must; `field` is where, like `predicate.result`."""

    default_code = "receipt-unreadable"

    def __init__(self, message: str, *, code: str | None = None, field: str = "") -> None:
        super().__init__(message, code=code)
        self.field = field


class NotFound(KeepflowError):
    """No such thing, or none this caller may see."""

    http_status = 404
    default_code = "not-found"


class Refused(KeepflowError):
    """A guard said no; the code names the guard."""

    exit_code = 7
    http_status = 409
    default_code = "refused"


class StaleFence(Refused):
    """A newer owner has this attempt; the older one must stop."""

    default_code = "stale-fence"


class TooLarge(KeepflowError):
    """More bytes than the limit allows."""

    http_status = 413
    default_code = "too-large"


class TooMany(KeepflowError):
    """Asked too often; `wait` is how many seconds to wait."""

    http_status = 429
    default_code = "too-many"

    def __init__(self, message: str, *, wait: int = 60) -> None:
        super().__init__(message)
        self.wait = wait


class Unavailable(KeepflowError):
    """Cannot be done now; trying again later may help."""

    http_status = 503
    default_code = "unavailable"


class ProgramMissing(Unavailable):
    """A program this needs is not installed."""

    default_code = "program-missing"


class OutOfSpace(Unavailable):
    """The disk is full."""

    default_code = "disk-full"


class CommandFailed(KeepflowError):
    """A program ended with an error; carries its argv, exit code and last error lines."""

    http_status = 502
    default_code = "command-failed"

    def __init__(
        self, message: str, *, argv: tuple[str, ...] = (), exit_status: int | None = None, tail: str = ""
    ) -> None:
        super().__init__(message)
        self.argv = argv
        self.exit_status = exit_status
        self.tail = tail


class CommandTimeout(CommandFailed):
    """A program did not end in time and was killed with its whole process group."""

    http_status = 504
    default_code = "command-timeout"


class Stopped(KeepflowError):
    """Work was ended on the way because somebody asked for that."""

    exit_code = 5
    http_status = 409
    default_code = "stopped"


class RemoteError(KeepflowError):
    """Another machine gave a wrong answer or none."""

    http_status = 502
    default_code = "remote"


class RegistryError(RemoteError):
    """The registry refused or failed; the code says unauthorised, missing, unreachable or certificate."""

    default_code = "registry"


class Undeliverable(RemoteError):
    """A notice cannot get where it should, and another try would not help."""

    default_code = "undeliverable"


class BadRemote(RemoteError):
    """A repository address that keepflow will not use."""

    exit_code = 2
    http_status = 400
    default_code = "bad-remote"


class DeployFailed(KeepflowError):
    """A new release could not be made to serve; the code is the deployment's reason code."""

    exit_code = 3
    default_code = "deploy-failed"

    def __init__(self, message: str, *, code: str, log_tail: str = "") -> None:
        super().__init__(message, code=code)
        self.log_tail = log_tail


class BadSeal(KeepflowError):
    """A sealed value was changed, moved to another place, or sealed with another key."""

    default_code = "bad-seal"
