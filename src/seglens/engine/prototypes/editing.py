"""Other prototypes than those of training: dropped, merged, of another class, or added; in memory and as a folder."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from seglens.core.errors import BadParameter, MissingNeed
from seglens.engine.prototypes.records import check_prototypes, find_head, known_records, write_prototypes
from seglens.models.loaders.beside import find, folder_of
from seglens.models.nets.proto_unet import OTHER, OWN, PrototypeHead, ProtoUNet
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec


@dataclass(frozen=True, eq=False)
class Added:
    """A prototype that a person takes from an image; :meth:`PrototypeView.taken` makes one.

    Args:
        vector: (D,) features of its pixel.
        label: name of the class that it speaks for.
        record: where it comes from (image, name, source, position, box, crop), as the network keeps it.
    """

    vector: NDArray[np.float32]
    label: str
    record: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class PrototypeEdit:
    """What a person changes; prototypes by number, in the order dropped, relabelled, merged, added.

    Args:
        dropped: these count no more.
        merged: (this, into that): the first counts no more, and its weights are added to those of the second.
        relabelled: (number, class name): its weights for the two classes are swapped.
        added: further prototypes; they get the numbers behind the last, and the mean weights of those of their class.
    """

    dropped: frozenset[int] = frozenset()
    merged: tuple[tuple[int, int], ...] = ()
    relabelled: tuple[tuple[int, str], ...] = ()
    added: tuple[Added, ...] = ()


@dataclass(frozen=True, eq=False)
class Edited:
    """The prototype layer after an edit: (K, P') weights, (P',) owners and whether they count, (A, D) new vectors."""

    weight: Tensor
    owner: Tensor
    active: Tensor
    vectors: Tensor

    @property
    def counting(self) -> Tensor:
        """The weights as they count (K, P')."""
        return self.weight * self.active


def applied(head: PrototypeHead, spec: ModelSpec, edit: PrototypeEdit | None) -> Edited:
    """A prototype layer after an edit; the layer itself stays as it is.

    Raises:
        BadParameter: no such prototype, one merged into itself or into one that counts no more, or a vector of
            another length.
        UnknownName: no such class.
    """
    edit = edit or PrototypeEdit()
    weight = head.weight.detach().clone()
    owner, active = head.owner.clone(), head.active.clone()
    for number in sorted(edit.dropped):
        active[_place(number, head)] = False
    for number, label in edit.relabelled:
        at, to = _place(number, head), spec.class_index(label)
        weight[[int(owner[at]), to], at] = weight[[to, int(owner[at])], at]
        owner[at] = to
    for number, other in edit.merged:
        at, to = _place(number, head), _place(other, head)
        if at == to or not active[to]:
            raise BadParameter(
                f"Prototype {number} cannot be merged into {other}, which {'is itself' if at == to else 'is dropped'}.",
                fix="Choose another one that is kept.",
            )
        weight[:, to] += weight[:, at] * active[at]
        active[at] = False
    vectors = [_vector(one, head) for one in edit.added]
    for one in edit.added:
        to = spec.class_index(one.label)
        weight = torch.cat([weight, _usual(weight, owner, active, to)[:, None]], 1)
        owner = torch.cat([owner, owner.new_tensor([to])])
        active = torch.cat([active, active.new_ones(1)])
    return Edited(weight, owner, active, torch.stack(vectors) if vectors else head.prototypes.detach()[:0])


def _place(number: int, head: PrototypeHead) -> int:
    if not 1 <= number <= len(head.owner):
        raise BadParameter(
            f"There is no prototype {number}.", fix=f"Choose a number from 1 to {len(head.owner)} that is kept."
        )
    return number - 1


def _vector(one: Added, head: PrototypeHead) -> Tensor:
    width = head.prototypes.shape[1]
    if np.shape(one.vector) != (width,):
        raise BadParameter(
            f"A new prototype has {np.size(one.vector)} numbers; those of this network have {width}.",
            fix="Take it from an image that this network has looked at.",
        )
    return torch.as_tensor(np.array(one.vector, np.float32), device=head.prototypes.device)


def _usual(weight: Tensor, owner: Tensor, active: Tensor, to: int) -> Tensor:
    """What prototypes of a class count for each class (K,): their mean; as before training where there is none."""
    like = (owner == to) & active
    if bool(like.any()):
        return weight[:, like].mean(1)
    column = weight.new_full((len(weight),), OTHER)
    column[to] = OWN
    return column


def edited(model: SegmentationModel, edit: PrototypeEdit) -> SegmentationModel:
    """A model with other prototypes; the given one stays as it is. Its network is copied.

    Raises:
        MissingNeed, BadParameter, UnknownName: see :func:`check_prototypes` and :class:`PrototypeEdit`.
    """
    result = applied(check_prototypes(model), model.spec, edit)
    records = list(known_records(model).values())
    module = copy.deepcopy(model.module)
    head = find_head(module)
    if head is None:
        raise MissingNeed(f"{model.spec.name} cannot be copied.", fix="Load it from its folder.")
    first = len(head.owner) + 1
    head.similarity.vectors = nn.Parameter(torch.cat([head.prototypes.detach(), result.vectors]))
    head.weight = nn.Parameter(result.weight)
    head.owner, head.active = result.owner, result.active
    added = [{**one.record, "number": number} for number, one in enumerate(edit.added, start=first)]
    head.provenance = [*records, *added]
    if isinstance(module, ProtoUNet):
        module.arguments = {**module.arguments, "owners": result.owner.tolist()}
    spec = model.spec.with_(sha256="")
    return SegmentationModel(module, spec, device=model.device, source=model.source, options=model.options)


def save_edited(model: SegmentationModel, edit: PrototypeEdit, folder: str | Path) -> Path:
    """Save a model with other prototypes as a model folder of its own; card and record of training go along.

    Raises:
        MissingNeed: the network is no :class:`~seglens.models.nets.proto_unet.ProtoUNet`.
        BadParameter: the folder is not empty.
    """
    folder = Path(folder)
    changed = edited(model, edit)
    module = changed.module
    head = check_prototypes(changed)
    if not isinstance(module, ProtoUNet):
        raise MissingNeed(
            f"{model.spec.name} is a {type(module).__name__}, which cannot be saved as a folder.",
            fix="Save a network that was trained with a recipe proto-….",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadParameter(f"{folder} is there already and not empty.", fix="Name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    told = _told(edit, first=len(head.owner) - len(edit.added) + 1)
    _bring_along(model.source, folder, told)
    weights = folder / "weights.safetensors"
    save_file({name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}, weights)
    spec = changed.spec.with_(sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    network = {"name": "proto-unet", "arguments": module.arguments}
    _write(folder / "model.json", {"network": network, **spec.to_dict()})
    write_prototypes(folder, head, spec)
    return folder


def _bring_along(source: str, folder: Path, told: dict[str, Any]) -> None:
    """Card and record of the model that it was, each with what was edited."""
    with folder_of(source) as place:
        for name in ("CARD.md", "training.json"):
            found = None if place is None else find(place, name)
            if found is not None:
                shutil.copyfile(found, folder / name)
    card, record = folder / "CARD.md", folder / "training.json"
    if card.is_file():
        lines = "\n".join(f"- {what}: {', '.join(map(str, which))}" for what, which in told.items() if which)
        text = card.read_text(encoding="utf-8").rstrip()
        card.write_text(f"{text}\n\n## Prototypes edited by hand\n\n{lines or '- nothing'}\n", encoding="utf-8")
    if record.is_file():
        data = json.loads(record.read_text(encoding="utf-8"))
        _write(record, {**data, "edited": [*data.get("edited", []), told]})


def _told(edit: PrototypeEdit, first: int) -> dict[str, Any]:
    """An edit as plain data, without pixels and vectors."""
    return {
        "dropped": sorted(edit.dropped),
        "merged": [f"{number} into {other}" for number, other in edit.merged],
        "relabelled": [f"{number} as {label}" for number, label in edit.relabelled],
        "added": [
            f"{number} as {one.label} from {one.record.get('name') or 'an image'}"
            for number, one in enumerate(edit.added, start=first)
        ],
    }


def _write(file: Path, data: Any) -> None:
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
