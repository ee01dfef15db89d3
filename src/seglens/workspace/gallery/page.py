"""A gallery as one HTML page: pictures inside, filters in plain script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter
from seglens.core.run import Run
from seglens.workspace.gallery.item import Item
from seglens.workspace.gallery.pictures import from_png, shrunk

if TYPE_CHECKING:
    from seglens.workspace.gallery.looking import Looking

THUMB = 128
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --card: #8881; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1280px; padding: 24px; }
h1 { font-size: 22px; margin: 0; } p { color: var(--soft); margin: 4px 0 16px; }
nav { display: flex; flex-wrap: wrap; gap: 8px; position: sticky; top: 0; padding: 10px 0; background: Canvas;
  border-bottom: 1px solid var(--line); margin-bottom: 16px; align-items: center; }
select, input { font: inherit; padding: 4px 8px; border: 1px solid var(--line); border-radius: 6px; background: Field;
  color: FieldText; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); gap: 12px; }
figure { margin: 0; padding: 10px; border: 1px solid var(--line); border-radius: 8px; background: var(--card);
  overflow-wrap: anywhere; }
figure[hidden] { display: none; }
figure > div { height: 128px; display: grid; place-items: center; color: var(--soft); }
img { image-rendering: pixelated; max-width: 100%; max-height: 128px; min-height: 64px; border-radius: 4px; }
figcaption b { display: block; margin-top: 8px; } small { color: var(--soft); display: block; }
figure[data-status=dropped], figure[data-status=merged] { opacity: .55; }
"""
SCRIPT = """
const all = [...document.querySelectorAll('figure')], get = id => document.getElementById(id);
function show() {
  const label = get('label').value, status = get('status').value, words = get('words').value.toLowerCase();
  let seen = 0;
  for (const one of all) {
    one.hidden = (label && one.dataset.label !== label) || (status && one.dataset.status !== status)
      || (words && !one.textContent.toLowerCase().includes(words));
    seen += !one.hidden;
  }
  get('seen').textContent = seen + ' of ' + all.length;
}
for (const id of ['label', 'status', 'words']) get(id).addEventListener('input', show);
show();
"""


def write_page(gallery: Looking, file: Path, run: Run) -> None:
    """Write the page; crops are read one by one, so memory stays small. Paths of images are not told.

    Raises:
        BadParameter: the file cannot be written.
        Cancelled: stopped; there is no file.
    """
    draft = file.with_name(f".{file.name}.draft")
    try:
        with draft.open("w", encoding="utf-8") as target:
            target.writelines(_parts(gallery, run))
        draft.replace(file)
    except OSError as error:
        raise BadParameter(
            f"{file} cannot be written: {error.strerror}.", fix="Choose a file in a folder that you may write to."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _parts(gallery: Looking, run: Run) -> Iterator[str]:
    info, items = gallery.info, gallery.items(order="label")
    title = escape(info.title)
    about = [f"{len(items)} prototypes, {gallery.count(status='kept')} kept"]
    about += [f"{name} {value}" for name, value in (("model", info.model), ("layer", info.layer)) if value]
    labels = "".join(f"<option>{escape(name)}</option>" for name in info.classes)
    yield (
        f'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy" '
        f'content="{POLICY}"><style>{STYLE}</style>\n<h1>{title}</h1><p>{escape(" · ".join(about))}</p>\n'
        f'<nav><select id="label" aria-label="Class"><option value="">all classes</option>{labels}</select>'
        '<select id="status" aria-label="Status"><option value="">all</option><option>kept</option>'
        "<option>dropped</option><option>merged</option></select>"
        '<input id="words" type="search" placeholder="image, group, note" aria-label="Search"> <span id="seen"></span>'
        "</nav>\n<main>\n"
    )
    for done, item in enumerate(items):
        run.progress(done, len(items), "Writing the page")
        yield _card(item, gallery.png(item.id))
    yield f"</main>\n<script>{SCRIPT}</script></html>\n"


def _card(item: Item, png: bytes | None) -> str:
    place = ", ".join(map(str, item.position))
    further = ", ".join(f"{axis}={at}" for axis, at in item.select.items())
    state = f"merged into {item.merged_into}" if item.merged_into is not None else item.status
    lines = [
        f"#{item.id}" + (f" · prototype {item.prototype}" if item.prototype is not None else ""),
        " · ".join(part for part in (item.name, further, place and f"at {place}") if part),
        "" if item.activity is None else f"explains {item.activity:.1%}",
        item.group and f"group {item.group}",
        "" if item.status == "kept" else state,
        item.note,
    ]
    told = "".join(f"<small>{escape(line)}</small>" for line in lines if line)
    picture = "no picture" if png is None else f'<img alt="" src="data:image/jpeg;base64,{_thumb(from_png(png))}">'
    return (
        f'<figure data-label="{escape(item.label)}" data-status="{item.status}"><div>{picture}</div>'
        f"<figcaption><b>{escape(item.label)}</b>{told}</figcaption></figure>\n"
    )


def _thumb(crop: NDArray[np.uint8]) -> str:
    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(shrunk(crop, THUMB)).save(file, "JPEG", quality=88)
    return base64.b64encode(file.getvalue()).decode("ascii")
