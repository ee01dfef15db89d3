"""The feature bank: embeddings of pixels, patches or objects of many images, each with where it comes from.

A folder ``NAME.bank/``: ``vectors.zarr`` (N x D, half precision) and ``bank.sqlite``. It is opened lazily: nothing
is read before it is asked for. Vectors are written first and counted after, so a kill loses at most one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seglens.core.errors import BadParameter
from seglens.engine.features._table import Table
from seglens.engine.features.entry import BankInfo, Entry, Failure, ImageRow, Metric, Neighbours

if TYPE_CHECKING:
    from seglens.core.image import Image
    from seglens.engine.features.index import By, Index

DATABASE, VECTORS = "bank.sqlite", "vectors.zarr"
CHUNK = 2**20  # bytes of one chunk of vectors
MOST = 1e15  # squares of larger numbers do not add up in single precision
MEMORY = 2**30  # bytes that embeddings may take in memory between two searches


@contextmanager
def borrowed(bank: FeatureBank | str | Path | None) -> Iterator[FeatureBank | None]:
    """A bank for one question: one that was given stays open, one that is named by its folder is closed after.

    Raises:
        BadParameter: there is no bank in the folder.
    """
    if isinstance(bank, str | Path):
        with FeatureBank.open(bank) as opened:
            yield opened
    else:
        yield bank


class FeatureBank:
    """Embeddings (N, D) and their entries, in a folder.

    Args:
        folder: where it lies.
        info: what it is about.
        table: its entries.
        vectors: its zarr array; at least N rows.

    ``memory`` is how many bytes may stay in memory from one search to the next (1 GiB: 4 million embeddings of 64
    numbers). A bank that takes more is read from disk with every search, a batch at a time.
    """

    def __init__(self, folder: Path, info: BankInfo, table: Table, vectors: Any) -> None:
        """Use :meth:`create` or :meth:`open`."""
        self.folder, self.info = folder, info
        self.table, self._vectors = table, vectors
        self.memory = MEMORY
        self._index: Index | None = None

    @classmethod
    def create(cls, folder: str | Path, info: BankInfo) -> FeatureBank:
        """A new, empty bank.

        Args:
            folder: a new or empty folder.
            info: what it is about.

        Raises:
            BadParameter: the folder holds something, or cannot be written.
        """
        import zarr

        folder = Path(folder).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise BadParameter(f"{folder} is not empty.", fix="Choose a new folder for the bank.")
            rows = max(1, CHUNK // (info.dims * np.dtype(info.precision).itemsize))
            vectors = zarr.create_array(
                folder / VECTORS, shape=(0, info.dims), chunks=(rows, info.dims), dtype=info.precision, compressors=None
            )  # fmt: skip
        except OSError as error:
            raise _unusable(folder, error) from error
        return cls(folder, info, Table(folder / DATABASE, info), vectors)

    @classmethod
    def open(cls, folder: str | Path) -> FeatureBank:
        """A bank that is there; reads nothing but its description.

        Raises:
            BadParameter: there is no bank, or it cannot be read.
        """
        import zarr

        folder = Path(folder).expanduser()
        if not is_bank(folder):
            raise BadParameter(
                f"There is no feature bank in {folder}.", fix=f"Build one: seglens gallery bank IMAGES --out {folder}"
            )
        table = Table(folder / DATABASE)
        try:
            vectors = zarr.open_array(folder / VECTORS, mode="r+")
            return cls(folder, table.info(), table, vectors)
        except (OSError, ValueError) as error:
            table.close()
            raise _unusable(folder, error) from error

    def close(self) -> None:
        """Let go of the files and of what is in memory."""
        self.table.close()
        self._index = None

    def __enter__(self) -> FeatureBank:
        """Use it in a ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __len__(self) -> int:
        """Number of embeddings, N."""
        return len(self.table)

    def append(self, vectors: ArrayLike, entries: Sequence[Entry]) -> NDArray[np.int64]:
        """Add embeddings in one transaction.

        Args:
            vectors: (n, D).
            entries: n of them.

        Returns:
            Their rows (n,).

        Raises:
            BadParameter: other shapes than announced, or values that the bank cannot hold.
        """
        new = self.stored(vectors)
        if new.shape != (len(entries), self.info.dims):
            raise BadParameter(
                f"Vectors of shape {new.shape} came with {len(entries)} entries; "
                f"the bank holds {self.info.dims} numbers each.",
                fix="Give one entry for each vector, of the layer that the bank is of.",
            )
        with self.table.writing() as db:
            first = len(self.table)
            stop = first + len(new)
            if stop > self._vectors.shape[0]:
                step = self._vectors.chunks[0]
                self._vectors.resize((-(-stop // step) * step, self.info.dims))
            if len(new):
                self._vectors[first:stop] = new
            self.table.add(db, first, entries)
        return np.arange(first, stop)

    def stored(self, vectors: ArrayLike) -> NDArray[Any]:
        """Vectors (…, D) as the bank keeps them: rounded to its precision.

        Raises:
            BadParameter: a value that is not a number, or too large for it.
        """
        given = np.asarray(vectors, np.float32)
        with np.errstate(over="ignore"):
            kept = given.astype(self.info.precision)
        if not (np.isfinite(kept).all() and (np.abs(given) <= MOST).all()):
            raise BadParameter(
                f"An embedding of layer {self.info.layer} has values up to {np.abs(given).max():g}, "
                f"which {self.info.precision} cannot hold.",
                fix="Choose another layer, or build the bank with precision float32 (--precision float32).",
            )
        return kept

    def entries(self, rows: Sequence[int] | NDArray[Any]) -> list[Entry]:
        """The entries of some rows, in their order.

        Raises:
            BadParameter: no such row.
        """
        self.check_rows(rows)
        return self.table.entries([int(r) for r in rows], self.info.kind)

    def rows(
        self,
        *,
        image: str | None = None,
        predicted: str | None = None,
        truth: str | None = None,
        group: str | None = None,
    ) -> NDArray[np.int64]:
        """Rows, ascending, that fulfil every condition; ``image`` is a fingerprint."""
        return self.table.rows({"image": image, "predicted": predicted, "truth": truth, "group": group})

    def vectors(self, rows: Sequence[int] | NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Embeddings (n, D), in the order of the rows; ``None`` reads all of them at once.

        Raises:
            BadParameter: no such row.
        """
        if rows is None:
            total = len(self)
            return np.asarray(self.read(0, total), np.float32)
        self.check_rows(rows)
        wanted = np.asarray(rows, np.int64)
        out = np.empty((len(wanted), self.info.dims), np.float32)
        chunk = wanted // self._vectors.chunks[0]
        for one in np.unique(chunk):
            here = chunk == one
            first, last = wanted[here].min(), wanted[here].max()
            out[here] = self.read(int(first), int(last) + 1)[wanted[here] - first]
        return out

    def batches(
        self, size: int = 65536, *, only: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Embeddings bit by bit: rows (n,) and vectors (n, D), so that memory stays bounded.

        Args:
            size: how many at a time; rounded down to whole chunks of the file where there are any.
            only: (N,) rows that are wanted; a batch without any is not read.
        """
        total, chunk = len(self), self._vectors.chunks[0]
        size = size // chunk * chunk or size
        for first in range(0, total, size):
            stop = min(total, first + size)
            if only is None or only[first:stop].any():
                yield np.arange(first, stop), np.asarray(self.read(first, stop), np.float32)

    def images(self) -> list[ImageRow]:
        """The images that it is of, in the order in which they came."""
        return self.table.images()

    def failures(self) -> list[Failure]:
        """Images that the last build could not embed, and why."""
        return self.table.failures()

    def groups(self) -> tuple[str, ...]:
        """All groups, sorted."""
        return tuple(sorted(self.table.groups()))

    def groups_of(self, image: Image) -> tuple[str, ...]:
        """The groups of the bank that an image belongs to: by its pixels where it is in the bank, and by the rule."""
        from seglens.engine.features.groups import group_of

        pixels = image.fingerprint()
        found: set[str | None] = {row.group for row in self.images() if row.fingerprint == pixels}
        ruled = group_of(image.source or image.name, self.info.group, strict=False)
        return tuple(sorted(g for g in self.table.groups() if g in found | {ruled}))

    def nearest(
        self,
        queries: ArrayLike,
        k: int,
        *,
        metric: Metric = "cosine",
        rows: Sequence[int] | NDArray[Any] | None = None,
        exclude_groups: Sequence[str] = (),
        by: By = "auto",
    ) -> Neighbours:
        """The k nearest embeddings of each query, exactly; see :mod:`seglens.engine.features.search`.

        Args:
            queries: (q, D), or (D,) for one; rounded to the bank's precision, so that what is in the bank
                finds itself at distance 0.
            k: how many.
            metric: ``cosine`` (1 minus the cosine; 1 to a vector of zeros) or ``euclidean``.
            rows: look only among these.
            exclude_groups: leave these groups out.
            by: who looks for candidates while the bank fits into ``memory``: ``auto`` (faiss if it is installed and
                all rows are asked, else numpy), ``numpy``, ``sklearn`` or ``faiss``. The answer is the same.

        Raises:
            BadParameter: queries of another size, k below 1, or no such row.
            MissingNeed: faiss is asked for and not installed.
        """
        from seglens.engine.features.search import nearest

        return nearest(self, queries, k, metric=metric, rows=rows, exclude_groups=exclude_groups, by=by)

    def index(self) -> Index | None:
        """All embeddings in memory, kept for the next search; ``None`` if they do not fit into ``memory``."""
        from seglens.engine.features.index import Index

        try:
            self._index = Index.of(self, self._index, self.memory)
        except MemoryError:
            self._index = None
        return self._index

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Embeddings of the rows from ``start`` up to ``stop``, as they are kept (n, D)."""
        if stop > self._vectors.shape[0]:
            import zarr

            # another process has added some since
            self._vectors = zarr.open_array(self.folder / VECTORS, mode="r+")
        return np.asarray(self._vectors[start:stop])

    def check_rows(self, rows: Sequence[int] | NDArray[Any]) -> None:
        """Raise ``BadParameter`` if one of the rows is not there."""
        wanted, total = np.asarray(rows), len(self)
        wrong = wanted[(wanted < 0) | (wanted >= total)] if wanted.size else wanted
        if wrong.size:
            raise BadParameter(
                f"The bank has {total} embeddings; {int(wrong.flat[0])} is not one of them.",
                fix=f"Choose rows from 0 to {total - 1}." if total else "Build it first: it is empty.",
            )


def is_bank(folder: str | Path) -> bool:
    """Whether a folder holds a feature bank."""
    return (Path(folder) / DATABASE).is_file() and (Path(folder) / VECTORS).is_dir()


def _unusable(folder: Path, error: Exception) -> BadParameter:
    return BadParameter(
        f"The feature bank {folder} cannot be used: {error}.",
        fix="Choose a folder that you may write, or build the bank again.",
    )
