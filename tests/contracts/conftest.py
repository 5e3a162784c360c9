"""Contracts run over real parts, too."""

from tests.real.conftest import base_images, engine

__all__ = ["base_images", "engine"]
