"""How OpenMP threads of torch wait for each other; to be said before torch is imported."""

from __future__ import annotations

import os


def wait_politely() -> None:
    """Let threads sleep while they wait, unless the person said otherwise in ``OMP_WAIT_POLICY``.

    By default they spin. Where another program wants the same cores, each convolution then waits for a thread
    that was put aside while another burns its share: up to forty times slower, measured on two shared cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
