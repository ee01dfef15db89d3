"""Errors that a person can meet. Each says what went wrong and what to do.

::

    SegLensError                 every error below; also an ordinary Exception
    ├── BadParameter             a parameter is outside its limits            (ValueError)
    ├── UnknownName              no method, model, layer or class of that name (LookupError)
    ├── MissingNeed              the method needs something that is not there  (ValueError)
    │   └── NoRule           the network has an operation that cannot be followed back
    ├── ModelMismatch            the file is not a model we can run            (ValueError)
    ├── ImageMismatch            the image cannot be read or does not fit      (ValueError)
    ├── NoSuchRegion             the region to explain is empty or outside     (ValueError)
    ├── UntrustedModel           loading would run code that nobody allowed    (PermissionError)
    ├── OutOfMemory              every smaller way was tried                   (MemoryError)
    └── Cancelled                the person pressed Cancel                     (Exception)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SegLensError(Exception):
    """What happened, with the value given; then what to do about it."""

    def __init__(self, what: str, *, fix: str) -> None:
        """Keep both sentences: ``what`` happened and the ``fix``."""
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        """Both sentences, a line each."""
        return f"{self.what}\n{self.fix}"


class BadParameter(SegLensError, ValueError):
    """A parameter is outside its limits or of the wrong kind."""


class UnknownName(SegLensError, LookupError):
    """No method, model, layer or class has this name."""

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str], *, listing: str) -> UnknownName:
        """Say which known name is nearest; ``listing`` tells where all of them stand."""
        near = difflib.get_close_matches(name, list(known), n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        return cls(f"There is no {kind} called {name!r}.", fix=f"{hint}{listing}")


class MissingNeed(SegLensError, ValueError):
    """The method needs something that this model or this call does not have."""


class NoRule(MissingNeed):
    """The network uses an operation through which this method cannot go back."""


class ModelMismatch(SegLensError, ValueError):
    """The file is not a model that can be run, or it does not fit what it was declared to be."""


class ImageMismatch(SegLensError, ValueError):
    """The image cannot be read, or does not fit the model."""


class NoSuchRegion(SegLensError, ValueError):
    """The region to explain is empty or lies outside the image."""


class UntrustedModel(SegLensError, PermissionError):
    """Loading this file can run code, and nobody has allowed it yet."""

    def __init__(self, what: str, *, fix: str, sha256: str = "") -> None:
        """``sha256`` is the fingerprint that an answer is remembered for."""
        super().__init__(what, fix=fix)
        self.sha256 = sha256


class OutOfMemory(SegLensError, MemoryError):
    """There is not enough memory, after every smaller way was tried."""


class Cancelled(SegLensError):
    """The work was stopped on request."""

    def __init__(self, what: str = "Stopped on request.", *, fix: str = "Run it again when ready.") -> None:
        """Both sentences have defaults: there is only one way to get here."""
        super().__init__(what, fix=fix)
