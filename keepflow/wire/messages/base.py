"""What all messages are made of, and the limits of what is said."""

from __future__ import annotations

import struct
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL = (1, 1)  #: [lowest, highest] version this build speaks
LOG_HEADER = struct.Struct(">QQ")  #: fence, offset of the first byte in the attempt's log
LOG_FRAME_LIMIT = 256 * 1024  #: bytes of log in one frame
FRAME_LIMIT = 1024 * 1024
HEARTBEAT_SECONDS = 10.0
Whole = Annotated[int, Field(ge=0, lt=2**63)]  #: a number that a database can hold
DeploymentId = Annotated[str, Field(max_length=100)]


class Message(BaseModel):
    """Base of all messages: immutable, unknown keys ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")
