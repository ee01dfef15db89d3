"""Work in another thread: the window stays alive, pieces do not pile up, errors become sentences."""

import os
import threading
import time

import numpy as np
import pytest
from qtpy.QtCore import Qt, QTimer
from viewer_help import blobs, make_model

from seglens.app.napari import inserting, jobs
from seglens.app.napari.jobs import Job
from seglens.core.errors import BadParameter


def finish(qtbot, job, timeout=10_000):
    """Start a job and wait for its end."""
    with qtbot.waitSignal(job.ended, timeout=timeout):
        job.start()


def test_answers_arrive_in_the_thread_of_the_window(qtbot):
    seen = []
    job = Job("test", lambda run, emit: threading.get_ident())
    job.returned.connect(lambda value: seen.append((value, threading.get_ident())))
    finish(qtbot, job)
    ((worked, received),) = seen
    assert worked != received == threading.get_ident()


def test_progress_is_thinned_out_but_the_last_is_told(qtbot):
    seen = []

    def work(run, emit):
        for done in range(1, 2001):
            run.progress(done, 2000, "steps")

    job = Job("test", work)
    job.progressed.connect(lambda done, total, text, rate: seen.append(done))
    finish(qtbot, job)
    qtbot.wait(10)
    assert seen[-1] == 2000
    assert len(seen) < 500


def test_a_worker_waits_for_a_slow_window(qtbot):
    ahead = []

    def work(run, emit):
        for n in range(20):
            emit(n)
            ahead.append(n)

    job = Job("test", work)
    job.start()
    qtbot.waitUntil(lambda: len(ahead) >= jobs.AHEAD, timeout=5000)
    qtbot.wait(150)
    assert len(ahead) == jobs.AHEAD
    job.produced.connect(lambda _: job.applied())
    for _ in range(jobs.AHEAD):
        job.applied()
    with qtbot.waitSignal(job.ended, timeout=5000):
        pass
    assert len(ahead) == 20


def test_a_waiting_worker_can_be_cancelled(qtbot):
    told = []
    job = Job("test", lambda run, emit: [emit(n) for n in range(20)])
    job.cancelled.connect(lambda: told.append("cancelled"))
    job.returned.connect(told.append)
    job.start()
    qtbot.wait(50)
    with qtbot.waitSignal(job.ended, timeout=2000):
        job.cancel()
    assert told == ["cancelled"]


@pytest.mark.parametrize("error", [BadParameter("What.", fix="Fix."), ZeroDivisionError("oops")])
def test_errors_are_handed_over(qtbot, error):
    told = []

    def work(run, emit):
        raise error

    job = Job("test", work)
    job.failed.connect(told.append)
    finish(qtbot, job)
    assert told == [error]


def test_what_napari_asks_on_closing_cancels_the_run(qtbot):
    job = Job("test", lambda run, emit: [time.sleep(0.01) or run.check() for _ in range(1000)])
    job.start()
    qtbot.wait(50)
    with qtbot.waitSignal(job.ended, timeout=2000):
        job._worker.quit()
    assert job.run.cancelled


class Gaps:
    """How long the window did nothing else, turn by turn: in seconds on the wall, and of its own computing.

    Another process on the same cores delays any window; it does not add to what the window computes. What napari
    itself needs to put a new layer in and to draw it for the first time is left out: once per layer.
    """

    def __init__(self, monkeypatch, viewer):
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(5)
        self._timer.timeout.connect(self.tick)
        self.wall, self.own = [], []
        self._resume, self._fresh, self._drawn = 0.0, False, False
        step = inserting.Inserter._next

        def stepped(inserter):
            self.tick()
            step(inserter)
            # at least until the picture with it was drawn, which a busy machine does late
            self._resume, self._fresh, self._drawn = time.perf_counter() + 0.3, True, False

        monkeypatch.setattr(inserting.Inserter, "_next", stepped)
        viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(self._draws)

    def _draws(self, _event):
        self._drawn = True

    def __enter__(self):
        self._restart()
        self._timer.start()
        return self

    def __exit__(self, *_):
        self.tick()
        self._timer.stop()

    def _restart(self):
        self._start = time.perf_counter(), time.thread_time()

    def tick(self):
        now = time.perf_counter(), time.thread_time()
        if self._start[0] > self._resume and not (self._fresh and self._start[0] < self._resume + 2):
            self.wall.append(1000 * (now[0] - self._start[0]))
            self.own.append(1000 * (now[1] - self._start[1]))
        self._fresh = self._fresh and not self._drawn
        self._start = now


@pytest.mark.parametrize("job", ["segment", "explain"])
def test_the_window_never_blocks_for_a_tenth_of_a_second(drive, job, monkeypatch):
    d = drive(show=True)
    d.viewer.add_image(np.tile(blobs(256, 256), (3, 3)))
    d.use(make_model(pause=0.05))
    d.session.question.probabilities = True
    if job == "segment":
        d.session.question.tile, d.session.question.halo = 192, 16
    else:
        d.dock.tabs.setCurrentIndex(1)
        d.session.question.method = "occlusion"
    d.qtbot.wait(300)
    # the wall clock only tells of us where nobody else wants the cores, not beside a second test worker
    busy = os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1)
    for stride in (48, 46, 44):
        # what the engine knows already it would not compute again
        d.session.values["occlusion"] = {"window": 192, "stride": stride}
        # again if a garbage collection, or a neighbour of this machine, came in between
        with Gaps(monkeypatch, d.viewer) as gaps:
            d.press()
            d.wait(timeout=60_000)
            d.qtbot.wait(50)
        assert d.session.status.done >= 16
        assert len(gaps.own) > 20
        if max(gaps.own) < 100 and (busy or max(gaps.wall) < 100):
            break
    longest = f"{job}: longest turn {max(gaps.wall):.0f} ms, of it computed {max(gaps.own):.0f} ms"
    print(longest)  # noqa: T201 - the figure is wanted in the log
    assert max(gaps.own) < 100, longest
    assert busy or max(gaps.wall) < 100, longest
