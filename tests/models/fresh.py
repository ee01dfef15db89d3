"""Run as a script: loads the models of a list of jobs, saves their logits, tells what happened as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from seglens.core.errors import SegLensError
from seglens.models.loaders import load_model
from seglens.models.segmentation import quiet
from seglens.models.trust import Trust


def do(job: dict[str, Any]) -> dict[str, Any]:
    """One job: source, options, trust, and where the image and the logits are."""
    trust = Trust.always() if job["trust"] else Trust.never()
    try:
        model = load_model(job["source"], trust=trust, device="cpu", **job["options"])
    except SegLensError as error:
        return {"error": type(error).__name__, "what": error.what, "fix": error.fix}
    with quiet(model.module), torch.inference_mode():
        torch.save(model.logits(torch.load(job["image"])), job["logits"])
    return {"spec": model.spec.to_dict(), "layered": model.layered, "source": model.source}


jobs = json.loads(Path(sys.argv[1]).read_text())
sys.stdout.write(json.dumps([do(job) for job in jobs]) + "\n")
