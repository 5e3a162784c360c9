"""What every test shares."""

from __future__ import annotations

from hypothesis import settings

# A busy machine makes an example slow, which says nothing about the property; pytest's own timeout ends a hang.
settings.register_profile("keepflow", deadline=None)
settings.load_profile("keepflow")
