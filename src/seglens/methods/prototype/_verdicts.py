"""Concepts tested on examples: maps, tables and bars; what chance may do, too, stands back in grey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seglens.core.explanation import Figure, Layer, Table
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.features.concepts import Concept, Verdict, scores, verdicts
from seglens.methods.prototype._bank import bank_of, provenance
from seglens.methods.prototype._discovery import Source
from seglens.methods.prototype._sensitivity import Example

TYPICAL = 5  # examples of the bank per concept
ERROR, GREYED = "score standard error", "greyed"


@dataclass(frozen=True, eq=False)
class Tested:
    """Concepts and what the examples say of them.

    Args:
        case: the question.
        sources: where concepts come from.
        examples: regions that were followed.
        told: a verdict for each concept, in their order.
    """

    case: Case
    sources: list[Source]
    examples: list[Example]
    told: list[Verdict]

    @classmethod
    def of(cls, case: Case, sources: list[Source], examples: list[Example]) -> Tested:
        """Test all concepts together: p is corrected for all of them."""
        gradients = np.array([e.gradient for e in examples])
        tests = sum(len(s.concepts) for s in sources)
        told = [v for s in sources for v in verdicts(s.concepts, s.chance, gradients, tests=tests)]
        return cls(case, sources, examples, told)

    @property
    def concepts(self) -> list[Concept]:
        """All of them."""
        return [c for source in self.sources for c in source.concepts]

    @property
    def alike(self) -> bool:
        """Whether the target follows the layer in the same way in every example."""
        gradients = np.array([e.gradient for e in self.examples])
        size = float(np.abs(gradients).max())
        return bool(size > 0 and (np.abs(gradients - gradients[0]) < 1e-3 * size).all())

    def layers(self, layer: str) -> tuple[Layer, ...]:
        """On which side of each concept's classifier every pixel lies; significant concepts first."""
        activation = self.case.activation(layer)
        order = sorted(range(len(self.told)), key=lambda n: (not self.told[n].significant, -abs(self.told[n].effect)))
        found = []
        for n in order:
            concept, verdict = self.concepts[n], self.told[n]
            vector = torch.as_tensor(concept.vector, dtype=activation.dtype, device=activation.device)
            side = torch.einsum("ncp,c->np", activation.flatten(2), vector) - concept.offset
            values = self.case.at_image(side.reshape(1, 1, *activation.shape[2:]))
            name = concept.name if verdict.significant else f"{concept.name} (not significant)"
            found.append(
                Layer(name, "signed", values, "features along the concept", resolution=(*activation.shape[2:],))
            )
        return tuple(found)

    def tables(self) -> tuple[Table, ...]:
        """The concepts, sensitivities of every example, and examples of the bank."""
        concepts: dict[str, list[Any]] = {
            "concept": [v.name for v in self.told],
            "from": [s.kind for s in self.sources for _ in s.concepts],
            "embeddings": [c.count for c in self.concepts],
            "accuracy": [c.accuracy for c in self.concepts],
            "score": [v.score for v in self.told],
            "standard error": [v.error for v in self.told],
            "p (Bonferroni)": [v.p for v in self.told],
            "sensitivity": [v.sensitivity for v in self.told],
            "effect": [v.effect for v in self.told],
            "effect by chance": [v.chance for v in self.told],
            "significant": [v.significant for v in self.told],
        }
        each: dict[str, list[Any]] = {
            "image": [e.image for e in self.examples],
            "region": [e.what for e in self.examples],
            "pixels": [e.pixels for e in self.examples],
        }
        for concept in self.concepts:
            each[concept.name] = [float((concept.directions @ e.gradient).mean()) for e in self.examples]
        return (Table("concepts", concepts), Table("sensitivities", each), self._typical())

    def figure(self) -> Figure:
        """Scores with their errors; those that chance may reach, and chance itself, are greyed."""
        chance = self.sources[0].chance
        random = scores(chance, np.array([e.gradient for e in self.examples]))
        error = float(random.std(ddof=1) / np.sqrt(len(random)))
        series: dict[str, list[Any]] = {
            "score": [*(v.score for v in self.told), float(random.mean())],
            ERROR: [*(v.error for v in self.told), error],
            GREYED: [*(not v.significant for v in self.told), True],
        }
        label = "share of examples with a positive sensitivity"
        return Figure("scores", "bar", [*(v.name for v in self.told), "random"], series, "concept", label)

    def text(self, layer: str) -> str:
        """Which concepts the target follows."""
        target = self.case.target
        yes = [v for v in self.told if v.significant]
        told = ", ".join(f"{v.name} ({'for' if v.effect > 0 else 'against'} it, score {v.score:.2f})" for v in yes)
        start = f"{plural(len(self.told), 'concept')} at layer {layer}, "
        start += f"{plural(len(self.examples), 'example')} of {target.name}. "
        if len(self.examples) < 3:
            start += "With so few examples a score is little more than the sign of one sensitivity. "
        elif self.alike:
            start += "All have the same sensitivity (the network is linear from there on): build the bank deeper. "
        return start + (f"It follows {told}." if yes else "It follows none of them more than chance would.")

    def _typical(self) -> Table:
        bank = bank_of(self.case)
        named: list[str] = []
        rows: list[int] = []
        along: list[float] = []
        for source in self.sources:
            for concept, inside in zip(source.concepts, source.rows, strict=False):
                side = bank.vectors(inside) @ concept.vector - concept.offset
                best = np.argsort(-side, kind="stable")[:TYPICAL]
                named += [concept.name] * len(best)
                rows += [int(inside[n]) for n in best]
                along += [float(side[n]) for n in best]
        return Table("examples", {"concept": named} | provenance(bank, rows) | {"along the concept": along})
