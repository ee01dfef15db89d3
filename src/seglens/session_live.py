"""Questions about one image, one after another: the second answer costs only what its target decides."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.catalogue import METHODS
from seglens.core.explanation import Explanation
from seglens.core.image import Image
from seglens.core.method import Method
from seglens.core.run import Run
from seglens.core.target import Point, Target
from seglens.engine.artefacts import prepared
from seglens.engine.channels import LayerMethod
from seglens.engine.fast import at_rest
from seglens.engine.features import FeatureBank, borrowed
from seglens.engine.reach import find_reach
from seglens.engine.record import record
from seglens.engine.resolve import check_needs, resolve
from seglens.engine.standing import Standing
from seglens.engine.target import freeze
from seglens.models.segmentation import SegmentationModel

__all__ = ["LiveQuestion"]


class LiveQuestion:
    """An image and a model that stay while a person asks about one pixel after another.

    The image goes through the whole network once. After that a method that looks at the target's surroundings alone
    (a gradient, a class activation map) takes a pass or two over a crop of the model's reach.

    Args:
        image: a view whose axes are the model's (and channels).
        model: the model; left exactly as it was.
    """

    def __init__(self, image: Image, model: SegmentationModel) -> None:
        """Nothing is computed before the first question, or :meth:`warm`."""
        self.image, self.model = image, model
        self._case: Standing | None = None
        self._labels: NDArray[np.uint8] | None = None
        self._mark = ""

    def warm(self, run: Run | None = None, method: Method | None = None) -> None:
        """Do now what the first question would have to wait for.

        Args:
            run: progress, cancel.
            method: what will be asked; if it looks at a layer, so do we, once for the whole image.

        Raises:
            SegLensError: as :func:`seglens.session.explain`.
        """
        run = run or Run()
        with at_rest(self.model):
            standing = self._stand(run)
            if isinstance(method, LayerMethod) and self.model.layered:
                standing = standing.turned(standing.target, run)
                standing.clean_at([standing.layer(method.layer)])

    def explain(
        self,
        method: str | Method,
        target: Target,
        *,
        run: Run | None = None,
        annotation: NDArray[Any] | None = None,
        bank: FeatureBank | Path | str | None = None,
        **parameters: Any,
    ) -> Explanation:
        """Ask one method about one target; the same answer as :func:`seglens.session.explain` gives.

        Args:
            method: name (with ``parameters``) or a configured method.
            target: what to explain.
            run: progress, cancel, seed.
            annotation, bank: what some methods need.
            parameters: the method's parameters, with a name.

        Raises:
            SegLensError: as :func:`seglens.session.explain`.
        """
        run = run or Run()
        recipe = METHODS[method].from_values(parameters) if isinstance(method, str) else method
        given = {"annotation": "" if annotation is None else "MASK"}
        with at_rest(self.model), borrowed(bank) as opened:
            given["bank"] = "" if opened is None else str(opened.folder)
            check_needs(recipe, self.model, annotation=annotation, bank=opened)
            standing = self._stand(run)
            start = time.perf_counter()
            frozen = freeze(target, standing.logits, self.model.spec, self._labels)
            case = replace(standing.turned(frozen, run, annotation), bank=opened)
            recipe.check(case)
            answer = recipe.run(prepared(recipe, case))
            return answer.with_record(record(recipe, case, target, time.perf_counter() - start, **given))

    def _stand(self, run: Run) -> Standing:
        mark = self.image.fingerprint()
        if self._case is None or mark != self._mark:
            # about some pixel: that always is a target
            corner = Target(None, Point((0,) * len(self.model.spec.axes)))
            case = Standing.of(resolve(self.image, self.model, corner, run))
            find_reach(self.model, run)
            self._case, self._labels, self._mark = case, case.labels, mark
        return self._case
