"""Prototype networks: what their prototypes are, what each counts at a pixel, and how the mask changes without one.

A prototype network has a layer of prototypes (:class:`~seglens.models.nets.proto_unet.PrototypeHead`) and behind it
nothing but interpolation. So a logit is exactly the sum of what the prototypes contribute, at every pixel, and a mask
after an edit of the prototypes takes no pass through the network.

Prototypes are numbered from 1, and keep their numbers when others are dropped. Everything here speaks of numbers.
"""

from __future__ import annotations

from seglens.engine.prototypes.editing import Added, PrototypeEdit, edited, save_edited
from seglens.engine.prototypes.records import Prototype, check_prototypes, prototypes_of, write_prototypes
from seglens.engine.prototypes.view import Contribution, PrototypeView

__all__ = [
    "Added",
    "Contribution",
    "Prototype",
    "PrototypeEdit",
    "PrototypeView",
    "check_prototypes",
    "edited",
    "prototypes_of",
    "save_edited",
    "write_prototypes",
]
