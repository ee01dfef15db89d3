"""Small models on descriptors, how well they stand for the network, and their exact Shapley values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seglens.core.plural import plural
from seglens.methods.perturbation._shapley import every, exact

Numbers = NDArray[np.float64]
Head = Literal["linear", "trees", "logistic"]
FOLDS = 10
FEW = 4  # objects per descriptor below which a fit is poor
TRUSTED = 0.5  # R² below which a head says little of the network
COMPARED = 200  # objects over which a descriptor that is left out is averaged


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head fitted to objects.

    Args:
        answer: descriptors (N, D) to numbers (N,): the predicted value, or log-odds.
        quality: R², or for ``logistic`` the share of right classes, of objects that were left out of the fit.
        chance: what answering the same for all objects would reach.
    """

    answer: Callable[[Numbers], Numbers]
    quality: float
    chance: float


def fit(kind: Head, table: Numbers, wanted: Numbers, seed: int) -> Fitted:
    """Fit a head.

    Args:
        kind: ``linear`` (ridge, its strength by cross-validation), ``trees`` (random forest), ``logistic``.
        table: descriptors (N, D).
        wanted: per object the network's value (N,); for ``logistic`` 0 or 1, both at least twice.
        seed: of the folds and the forest.
    """
    strengths = np.logspace(-6, 3, 19)
    model: Any = {
        "linear": lambda: make_pipeline(StandardScaler(), RidgeCV(strengths)),
        "trees": lambda: RandomForestRegressor(100, min_samples_leaf=2, oob_score=True, random_state=seed),
        "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    }[kind]()
    if kind == "logistic":
        ones = int(wanted.sum())
        folds: Any = StratifiedKFold(min(FOLDS, ones, len(wanted) - ones), shuffle=True, random_state=seed)
        guessed = cross_val_predict(clone(model), table, wanted, cv=folds)
        model.fit(table, wanted)
        most = max(ones, len(wanted) - ones)
        return Fitted(model.decision_function, float((guessed == wanted).mean()), most / len(wanted))
    model.fit(table, wanted)
    if np.ptp(wanted) <= 1e-6 * np.abs(wanted).max(initial=0):
        # the network makes no difference between objects: there is nothing to explain
        return Fitted(lambda rows: np.full(len(rows), wanted.mean()), 0.0, 0.0)
    if kind == "trees":
        # each tree is fitted to some of the objects, and tried on the others
        return Fitted(model.predict, float(model.oob_score_), 0.0)
    folds = KFold(min(FOLDS, len(wanted)), shuffle=True, random_state=seed)
    guessed = cross_val_predict(clone(model), table, wanted, cv=folds)
    rest, spread = ((wanted - guessed) ** 2).sum(), ((wanted - wanted.mean()) ** 2).sum()
    return Fitted(model.predict, float(1 - rest / spread), 0.0)


def shapley(answer: Callable[[Numbers], Numbers], one: Numbers, others: Numbers) -> Numbers:
    """Exact Shapley values (D,) of ``answer`` at ``one`` (D,).

    A descriptor that is left out takes the values it has in ``others`` (N, D), and the answer is averaged over
    them: the marginal expectation, which treats descriptors as if they varied independently. The values add up to
    the answer less its mean over the others.
    """
    coalitions = every(len(one))
    kept = coalitions.numpy().astype(bool)[:, None]
    rows = np.where(kept, one, others)
    scores = answer(rows.reshape(-1, len(one))).reshape(len(kept), -1).mean(1)
    values: Numbers = exact(coalitions, torch.from_numpy(np.asarray(scores, np.float64))).numpy()
    return values


def standing(kind: Head, head: Fitted, measured: dict[str, Numbers]) -> str:
    """In words: what the head is worth, and what was averaged over."""
    table = np.stack([*measured.values()], 1)
    count, wide = table.shape
    if kind == "logistic":
        right, chance = f"{head.quality:.0%}", f"{head.chance:.0%}"
        quality = f"names the class of {right} of the objects that it was not fitted to ({chance} by chance)"
        good = head.quality > (1 + head.chance) / 2
    else:
        quality = f"explains R² {head.quality:.2f} of the differences between objects that it was not fitted to"
        good = head.quality >= TRUSTED
    told = f"What is explained is this head ({kind}), and not the network itself: it {quality}. "
    if not good:
        told += "It does not stand for the network: do not trust these shares. "
    if count < FEW * wide:
        told += f"{plural(count, 'object is', 'objects are')} few for {plural(wide, 'descriptor')}. "
    told += "Descriptors that are left out are averaged over the objects as if they varied independently (marginal)"
    varied = [name for name, values in measured.items() if np.ptp(values) > 0]
    if len(varied) < 2:
        return told + "."
    alike = np.abs(np.triu(np.corrcoef([measured[name] for name in varied]), 1))
    a, b = np.unravel_index(int(alike.argmax()), alike.shape)
    return told + f"; most alike are {varied[a]} and {varied[b]} (|r| {alike[a, b]:.2f}): the fit decides between them."
