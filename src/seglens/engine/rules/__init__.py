"""Backward rules on operations: what a network's operations hand back, other than the gradient.

- :class:`Trace` records a case's network and goes back through it; :func:`summed` does so part by part where memory
  is short.
- Rules: :class:`Backprop` (guided, deconvolution), :class:`Rescale` (DeepLift), :class:`Relevance` (LRP) and its named
  :data:`COMPOSITES`.
"""

from seglens.engine.rules.backprop import Backprop, rectified
from seglens.engine.rules.parted import summed
from seglens.engine.rules.relevance import COMPOSITES, Relevance
from seglens.engine.rules.rescale import Rescale
from seglens.engine.rules.tape import Rules
from seglens.engine.rules.trace import Flow, Row, Trace

__all__ = ["COMPOSITES", "Backprop", "Flow", "Relevance", "Rescale", "Row", "Rules", "Trace", "rectified", "summed"]
