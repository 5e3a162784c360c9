"""People, their groups, roles and tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from keepflow.wire.api.base import Answer, Items, Moment, Request


class User(Answer):
    """One person."""

    name: str
    email: str
    admin: bool
    disabled: bool
    has_password: bool
    created_at: Moment


class NewUser(Request):
    """A person to add."""

    name: str = Field(max_length=60)
    email: str = Field(default="", max_length=200)
    admin: bool = False


class Invited(Answer):
    """A user and the one-time link by which they set a password; it is told this once."""

    user: User
    link: str


class SetDisabled(Request):
    """Whether a user is shut out."""

    disabled: bool


class Group(Answer):
    """A named list of people; `managed` ones belong to the server file."""

    name: str
    managed: bool
    members: list[str]


class SetGroup(Request):
    """Exactly these members."""

    members: list[Annotated[str, Field(max_length=60)]] = Field(max_length=1000)


class Role(Answer):
    """One role in one project, held by a user or a group."""

    project: str
    role: str
    user: str | None
    group: str | None


class SetRole(Request):
    """Give a role to a user or a group; null takes it away."""

    user: str = Field(default="", max_length=60)
    group: str = Field(default="", max_length=40)
    role: str | None = Field(max_length=20)


class Token(Answer):
    """One API token, without the token."""

    id: int
    user: str
    name: str
    scopes: list[str]
    created_at: Moment
    expires_at: Moment | None
    used_at: Moment | None
    revoked: bool


class NewToken(Request):
    """An API token to make, for oneself, or as an admin for `user`."""

    name: str = Field(min_length=1, max_length=60)
    scopes: list[str] = Field(min_length=1, max_length=10)
    days: int | None = Field(default=90, ge=1, le=3650)
    user: str = Field(default="", max_length=60)


class MadeToken(Answer):
    """A new API token; it is told this once."""

    token: str


class WhoAmI(Answer):
    """Who the caller is."""

    name: str
    admin: bool
    scopes: list[str]


class Users(Items):
    """All users."""

    items: list[User]


class Groups(Items):
    """All groups."""

    items: list[Group]


class Roles(Items):
    """The roles of a project."""

    items: list[Role]


class Tokens(Items):
    """API tokens."""

    items: list[Token]
