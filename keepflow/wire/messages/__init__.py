"""What master and agent say to each other over the agent's one outbound WebSocket.

Text frames are JSON objects with a `type`; unknown keys are ignored (an N-1 peer must be able to talk). Log bytes
travel as binary frames: `LOG_HEADER` (fence, offset) followed by the bytes. The order of a session:

    master: challenge → agent: hello → master: welcome | refused → both: the rest, until one says farewell

Downwards, everything with effect is a `send` (a row of the `outgoing` table): it is repeated on every session until the
agent has it on disk and says `received`. Upwards, everything with effect is a `report` with a number the agent's disk
gave it: repeated until `reported` comes back. Both sides must take repeats as said once. Times are UTC microseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from keepflow.wire.messages.base import (
    FRAME_LIMIT,
    HEARTBEAT_SECONDS,
    LOG_FRAME_LIMIT,
    LOG_HEADER,
    PROTOCOL,
    DeploymentId,
    Message,
    Whole,
)
from keepflow.wire.messages.deployments import (
    Deploy,
    DeployAnswer,
    DeployFinished,
    DeployPhase,
    Difference,
    Heartbeat,
    HostRollback,
    KeptRelease,
    ServiceState,
    Steer,
)
from keepflow.wire.messages.jobs import (
    Away,
    BaseImage,
    BuiltImage,
    Checkout,
    JobFinished,
    JobRefused,
    JobStarted,
    LentSecret,
    Login,
    RunEnded,
    RunJob,
    SecretUse,
    Shared,
    StepFinished,
    StepOrder,
    StepStarted,
    StopJob,
    job_secret_place,
)
from keepflow.wire.messages.session import (
    CONTAINERS,
    SSH,
    Beat,
    Challenge,
    Enrol,
    Enrolled,
    Farewell,
    Hello,
    KeyRotated,
    LogAck,
    Proven,
    Received,
    Refused,
    Reported,
    Welcome,
    hello_bytes,
    proof_bytes,
    sealing_bytes,
    welcome_bytes,
)

__all__ = [
    "CONTAINERS",
    "FRAME_LIMIT",
    "HEARTBEAT_SECONDS",
    "LOG_FRAME_LIMIT",
    "LOG_HEADER",
    "PROTOCOL",
    "SSH",
    "Away",
    "BaseImage",
    "Beat",
    "Body",
    "BuiltImage",
    "Challenge",
    "Checkout",
    "Deploy",
    "DeployAnswer",
    "DeployFinished",
    "DeployPhase",
    "DeploymentId",
    "Difference",
    "Enrol",
    "Enrolled",
    "Farewell",
    "FromAgent",
    "FromMaster",
    "Heartbeat",
    "Hello",
    "HostRollback",
    "JobFinished",
    "JobRefused",
    "JobStarted",
    "KeptRelease",
    "KeyRotated",
    "LentSecret",
    "LogAck",
    "Login",
    "Message",
    "Proven",
    "Received",
    "Refused",
    "Report",
    "ReportBody",
    "Reported",
    "RunEnded",
    "RunJob",
    "SecretUse",
    "Send",
    "ServiceState",
    "Shared",
    "Steer",
    "StepFinished",
    "StepOrder",
    "StepStarted",
    "StopJob",
    "Welcome",
    "Whole",
    "from_agent",
    "from_master",
    "hello_bytes",
    "job_secret_place",
    "proof_bytes",
    "sealing_bytes",
    "welcome_bytes",
]

Body = Annotated[RunJob | StopJob | RunEnded | Deploy | Steer | KeyRotated, Field(discriminator="type")]


class Send(Message):
    """One row of the master's `outgoing` table."""

    type: Literal["send"] = "send"
    id: Whole
    body: Body


ReportBody = Annotated[
    JobStarted
    | JobRefused
    | StepStarted
    | StepFinished
    | JobFinished
    | DeployAnswer
    | DeployPhase
    | DeployFinished
    | HostRollback,
    Field(discriminator="type"),
]


class Report(Message):
    """One numbered report from the agent's disk; numbers rise by one per agent state directory."""

    type: Literal["report"] = "report"
    number: Whole
    body: ReportBody


FromMaster = Annotated[
    Challenge | Welcome | Refused | Farewell | Send | Reported | LogAck | Beat, Field(discriminator="type")
]
FromAgent = Annotated[Hello | Received | Report | Heartbeat | Farewell, Field(discriminator="type")]
from_master: TypeAdapter[FromMaster] = TypeAdapter(FromMaster)
from_agent: TypeAdapter[FromAgent] = TypeAdapter(FromAgent)
