"""Draws faces whose age can be read: `traits` decides who a face is, the other modules paint it."""

from agepipe.data.face.portrait import portrait
from agepipe.data.face.traits import Traits, traits

__all__ = ["Traits", "portrait", "traits"]
