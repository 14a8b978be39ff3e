"""`Stopwatch`: each second counts once, to the section that is open."""

from __future__ import annotations

import threading
import types

import pytest

from textgym_agents.stopwatch import Stopwatch


class Clock:
    """Moves when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Kitchen:
    """What is timed: each takes a second of its own."""

    def __init__(self, clock):
        self.clock = clock

    def work(self):
        self.clock.now += 1
        return "done"

    def cook(self):
        """Work, with another's work in its middle."""
        self.clock.now += 1
        self.work()
        self.clock.now += 0.5

    def burn(self):
        self.work()
        raise ValueError("burnt")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(clock):
    return Stopwatch(clock)


def test_sections_take_their_time_from_those_around_them(clock, watch):
    kitchen = Kitchen(clock)
    watch.wrap(kitchen, "cook", "cooking")
    watch.wrap(Kitchen, "work", "working")
    watch.start()
    clock.now += 4
    kitchen.cook()
    assert kitchen.work() == "done"
    clock.now += 8
    watch.stop()
    assert watch.seconds == {"other": 12, "cooking": 1.5, "working": 2}


def test_a_whole_section_keeps_what_is_within(clock, watch):
    kitchen = Kitchen(clock)
    watch.wrap(kitchen, "cook", "cooking", whole=True)
    watch.wrap(Kitchen, "work", "working")
    watch.start()
    kitchen.cook()
    kitchen.work()
    watch.stop()
    assert watch.seconds == {"other": 0, "cooking": 2.5, "working": 1}


def test_sections_end_with_an_exception(clock, watch):
    kitchen = Kitchen(clock)
    watch.wrap(kitchen, "burn", "burning", whole=True)
    watch.wrap(kitchen, "work", "working")
    watch.start()
    with pytest.raises(ValueError, match="burnt"):
        kitchen.burn()
    kitchen.work()
    clock.now += 3
    watch.stop()
    assert watch.seconds == {"other": 3, "burning": 1, "working": 1}


def test_other_threads_are_not_timed(clock, watch):
    kitchen = Kitchen(clock)
    watch.wrap(kitchen, "work", "working")
    watch.start()
    thread = threading.Thread(target=kitchen.work)
    thread.start()
    thread.join()
    watch.stop()
    assert watch.seconds == {"other": 1}


def test_stopped_from_within_a_section(clock, watch):
    kitchen = Kitchen(clock)
    kitchen.end = watch.stop
    watch.wrap(kitchen, "end", "ending")
    watch.start()
    clock.now += 1
    kitchen.end()
    clock.now += 1
    assert sum(watch.seconds.values()) == 1


def test_nothing_is_left_behind(clock, watch):
    kitchen, module = Kitchen(clock), types.ModuleType("kitchen")
    module.work = kitchen.work
    kitchen.cook = cook = lambda: None
    before = vars(Kitchen).copy()
    for owner, name in (
        *((kitchen, "work"), (kitchen, "cook"), (Kitchen, "work"), (Kitchen, "cook")),
        (module, "work"),
    ):
        watch.wrap(owner, name, "working")
    watch.wrap(kitchen, "work", "twice")
    watch.start()
    watch.stop()
    assert vars(Kitchen) == before
    assert vars(kitchen) == {"clock": clock, "cook": cook}
    assert module.work == kitchen.work
    clock.now += 1
    kitchen.work()
    assert sum(watch.seconds.values()) == 0


def test_not_timed_before_it_starts(clock, watch):
    kitchen = Kitchen(clock)
    watch.wrap(kitchen, "work", "working")
    kitchen.work()
    assert not watch.seconds
