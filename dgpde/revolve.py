"""Reversal of a chain of intervals from few kept states (Griewank & Walther 2000, ACM Trans. Math. Softw. 26:19).

With s states, that at the start among them, and no interval run more than r times to reach a later one, a chain of
C(s + r, s) intervals can be walked backwards. What lies after a state is walked with one state fewer, then what lies
before it with one run fewer, which says where it is best put: intervals are run again as seldom as can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb
from typing import TypeVar

from dgpde.checkpoint import State, StateStore

Item = TypeVar("Item")


def split(length: int, states: int) -> int:
    """Where in a chain of intervals the next state is best kept.

    Args:
        length: of the chain, at least 2.
        states: that may be kept, that at its start among them, at least 2.
    """
    runs = 1
    while comb(states + runs, states) < length:
        runs += 1
    # not so early that the part before would do with fewer runs still, nor so that the part after needs more
    return max(1, comb(states + runs - 2, states), length - comb(states + runs - 1, states - 1))


def first_states(length: int, states: int) -> list[int]:
    """Intervals before which the forward run keeps its state, the first one among them.

    Args:
        length: of the chain, at least 1.
        states: that may be kept, that at the start among them, at least 1.
    """
    found = [0]
    while states > 1 and length - found[-1] > 1:
        found.append(found[-1] + split(length - found[-1], states))
        states -= 1
    return found


def reversal(
    store: StateStore,
    length: int,
    states: int,
    advance: Callable[[State, int, int], State | None],
    item: Callable[[State, int], Item],
) -> Iterator[Item]:
    """An item for each interval, the last one first.

    Args:
        store: holds the state of ``first_states``; holds that of the first interval alone at the end.
        length, states: as for ``first_states``.
        advance: takes a state from the start of one interval to that of another; None when the run did not come
            that far, and its items are left out then.
        item: of an interval, from the state at its start.
    """
    return _walk(store, 0, length, states, advance, item)


def _walk(
    store: StateStore,
    first: int,
    last: int,
    states: int,
    advance: Callable[[State, int, int], State | None],
    item: Callable[[State, int], Item],
) -> Iterator[Item]:
    """The intervals [first, last), whose first state is kept; ``states`` may be in all."""
    while last - first > 1 and states > 1:
        middle = first + split(last - first, states)
        if middle not in store.kept:
            state = advance(store.get(first), first, middle)
            if state is not None:
                store.put(middle, state)
        if middle in store.kept:
            yield from _walk(store, middle, last, states - 1, advance, item)
            store.drop(middle)
        last = middle
    for interval in range(last - 1, first, -1):
        state = advance(store.get(first), first, interval)
        if state is not None:
            yield item(state, interval)
    yield item(store.get(first), first)
