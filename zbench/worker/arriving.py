"""Requests that are made when they are due: by the one thread that may call the engine, or by as many as it takes.

An open load is due at times of a list, whether or not former requests are done. A closed one keeps so many at once: the
next is due when one is done. It measures nothing but times, and judges no answer.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from zbench.engines import Generation

MOST_THREADS = 1024
"""A load without bound has so many requests in flight at most; those beyond are sent later than they are due."""

LOOK_S = 0.1
"""Longest wait between two looks at whether to stop."""


@dataclass(frozen=True)
class Schedule:
    """How many requests there are and when each is due, seconds after the start; None: when a place is free."""

    requests: int
    due_s: Sequence[float] | None
    concurrency: int | None


@dataclass(frozen=True)
class Answer:
    """What came of a request: an image or an error, and when. Seconds after the start."""

    index: int
    due_s: float
    sent_s: float
    begun_s: float
    done_s: float
    made: Generation | None
    error: Exception | None = None


Answers = Generator[Answer, None, None]
"""As they come; to close it is to send no more."""

Call = Callable[[int], Generation]
"""Makes the request of an index. By several threads it is called at the same time."""


@dataclass(frozen=True)
class Clock:
    """Seconds since a window began, and whether someone asked to stop (it raises)."""

    began_s: float
    check_stop: Callable[[], None]

    def now(self) -> float:
        """On the clock of `time.perf_counter`."""
        return time.perf_counter() - self.began_s

    def wait_until(self, due_s: float) -> None:
        """Return when it is time; raises where a stop was asked for."""
        while True:
            self.check_stop()
            left_s = due_s - self.now()
            if left_s <= 0:
                return
            time.sleep(min(left_s, LOOK_S))


def in_one_queue(call: Call, schedule: Schedule, clock: Clock) -> Answers:
    """Answers one after another, by the caller's own thread. A request waits in the queue from sent to begun.

    Raises what `call` raises.
    """
    done_s: list[float] = []
    for index in range(schedule.requests):
        bound = schedule.concurrency
        free_s = done_s[index - bound] if bound is not None and index >= bound else 0.0
        due_s = free_s if schedule.due_s is None else schedule.due_s[index]
        clock.wait_until(due_s)
        begun_s = clock.now()
        made = call(index)
        done_s.append(clock.now())
        yield Answer(index, due_s, max(due_s, free_s), begun_s, done_s[-1], made)


def by_threads(call: Call, schedule: Schedule, clock: Clock, at_once: int | None) -> Answers:
    """Answers as they come, each request from a thread of its own, `at_once` and `concurrency` of them at most.

    A request's error is its answer. When the iterator is closed, requests that are in flight are waited for and no
    other is sent.
    """
    bounds = [each for each in (at_once, schedule.concurrency) if each is not None]
    threads = min([*bounds, schedule.requests, MOST_THREADS])
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    ended = threading.Event()

    def one(index: int, due_s: float) -> Answer:
        sent_s, made, error = clock.now(), None, None
        try:
            made = call(index)
        except Exception as raised:
            error = raised
        answer = Answer(index, due_s, sent_s, sent_s, clock.now(), made, error)
        answers.put(answer)
        return answer

    with ThreadPoolExecutor(threads, thread_name_prefix="zbench-load") as pool:
        try:
            if schedule.due_s is None:
                _keep_busy(pool, one, schedule, ended)
                yield from (_next(answers, clock) for _ in range(schedule.requests))
            else:
                yield from _when_due(pool, one, schedule.due_s[: schedule.requests], answers, clock)
        finally:
            ended.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _keep_busy(
    pool: ThreadPoolExecutor, one: Callable[[int, float], Answer], schedule: Schedule, ended: threading.Event
) -> None:
    """So many requests at once: who is done sends the next, which was due at that moment."""
    at_first = min(schedule.concurrency or 1, schedule.requests)
    indices, taking = count(at_first), threading.Lock()

    def then_next(index: int, due_s: float) -> None:
        answer = one(index, due_s)
        with taking:
            index = next(indices)
        if index < schedule.requests and not ended.is_set():
            served = answer.made is not None and answer.made.served
            due_s = answer.sent_s + answer.made.latency_s if served and answer.made is not None else answer.done_s
            pool.submit(then_next, index, due_s)

    for index in range(at_first):
        pool.submit(then_next, index, 0.0)


def _when_due(
    pool: ThreadPoolExecutor,
    one: Callable[[int, float], Answer],
    due_s: Sequence[float],
    answers: "queue.SimpleQueue[Answer]",
    clock: Clock,
) -> Answers:
    """Send each request at its time, and take what comes back in between."""
    sent = received = 0
    while received < len(due_s):
        clock.check_stop()
        if sent < len(due_s) and clock.now() >= due_s[sent]:
            pool.submit(one, sent, due_s[sent])
            sent += 1
            continue
        left_s = due_s[sent] - clock.now() if sent < len(due_s) else LOOK_S
        try:
            answer = answers.get(timeout=max(0.0, min(left_s, LOOK_S)))
        except queue.Empty:
            continue
        received += 1
        yield answer


def _next(answers: "queue.SimpleQueue[Answer]", clock: Clock) -> Answer:
    while True:
        clock.check_stop()
        try:
            return answers.get(timeout=LOOK_S)
        except queue.Empty:
            continue
