"""The contract of a `imgkit.plugins.protocols.CacheStore`."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from imgkit.plugins.protocols import Busy, CacheStore, Entry, Failure, Hit, Lease, LeaseResult

KEY, OTHER = "a1" * 32, "b2" * 32
PICTURES = (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, b"\xff\xd8\xff" + b"x" * 100)
FACTS = {
    "prompt": "a fox, naïve 🦊 \ud800",
    "created": 1,
    "usage": None,
    "extra": {"list": [1, 2.5, True, None, "x"]},
    "pictures": [{"revised_prompt": None, "extra": {}}, {"revised_prompt": "b", "extra": {"x": 1}}],
}


def entry(*, created_at: float | None = None, pictures: tuple[bytes, ...] = PICTURES) -> Entry:
    """Return an entry as a service makes them."""
    return Entry(FACTS, pictures, time.time() if created_at is None else created_at)


def leased(answer: LeaseResult) -> Lease:
    """Return the lease that an answer must be."""
    assert isinstance(answer, Lease), f"expected a Lease, got {answer!r}"
    return answer


def hit(answer: LeaseResult) -> Entry:
    """Return the entry of the hit that an answer must be."""
    assert isinstance(answer, Hit), f"expected a Hit, got {answer!r}"
    return answer.entry


def busy(answer: LeaseResult) -> Busy:
    """Return the answer, which must be that somebody is at it."""
    assert isinstance(answer, Busy), f"expected a Busy, got {answer!r}"
    return answer


class CacheStoreContract:
    """What every `CacheStore` does.

    Attributes:
        shared: two stores that are made for one folder share their entries and leases.
    """

    shared: bool = True

    def store(self, folder: Path) -> CacheStore:
        """Return a store that keeps its things in, or under the name of, `folder`."""
        raise NotImplementedError("a contract is told what to test")

    def another(self, folder: Path) -> CacheStore:
        """Return a second store on the same things, as another process would have."""
        if not self.shared:
            pytest.skip("capability not declared: shared")
        return self.store(folder)

    def test_is_one(self, tmp_path: Path) -> None:
        """It has the methods."""
        assert isinstance(self.store(tmp_path), CacheStore)

    def test_miss_commit_hit(self, tmp_path: Path) -> None:
        """What was committed comes back, whole; other keys know nothing of it."""
        store = self.store(tmp_path)
        made = entry()
        store.commit(leased(store.try_lease(KEY)), made)
        found = hit(store.try_lease(KEY))
        assert (found.pictures, dict(found.facts)) == (made.pictures, dict(made.facts))
        assert found.created_at == pytest.approx(made.created_at, abs=0.001)
        leased(store.try_lease(OTHER)).close()

    def test_an_entry_without_pictures(self, tmp_path: Path) -> None:
        """No pictures are no problem."""
        store = self.store(tmp_path)
        store.commit(leased(store.try_lease(KEY)), entry(pictures=()))
        assert hit(store.try_lease(KEY)).pictures == ()

    def test_one_at_a_time(self, tmp_path: Path) -> None:
        """While one makes the entry, all others are told who."""
        store = self.store(tmp_path)
        lease = leased(store.try_lease(KEY))
        assert busy(store.try_lease(KEY)) == busy(store.try_lease(KEY)) == Busy(lease.holder)
        leased(store.try_lease(OTHER)).close()
        store.commit(lease, entry())
        hit(store.try_lease(KEY, waited_for=lease.holder))

    def test_holders_are_never_the_same(self, tmp_path: Path) -> None:
        """Each lease has an id of its own, also for the same key."""
        store = self.store(tmp_path)
        holders = set()
        for _ in range(5):
            lease = leased(store.try_lease(KEY))
            holders.add(lease.holder)
            lease.close()
        assert len(holders) == 5
        assert "" not in holders

    def test_abandoned_without_a_word(self, tmp_path: Path) -> None:
        """The next one goes on as if nothing had been, those who waited too."""
        store = self.store(tmp_path)
        lease = leased(store.try_lease(KEY))
        store.abandon(lease)
        store.abandon(lease)
        leased(store.try_lease(KEY, waited_for=lease.holder)).close()

    def test_abandoned_with_a_failure(self, tmp_path: Path) -> None:
        """Those who waited are told, time and again; those who come later begin anew."""
        store = self.store(tmp_path)
        lease = leased(store.try_lease(KEY))
        failure = Failure("ServerError", "it failed", {"status": 500, "request_id": None})
        store.abandon(lease, failure)
        for _ in range(2):
            told = busy(store.try_lease(KEY, waited_for=lease.holder))
            assert told.failure is not None
            assert (told.failure.error, told.failure.message) == ("ServerError", "it failed")
            assert dict(told.failure.facts) == {"status": 500, "request_id": None}
        again = leased(store.try_lease(KEY))
        assert busy(store.try_lease(KEY, waited_for=lease.holder)).failure is not None
        assert busy(store.try_lease(KEY)) == Busy(again.holder)
        store.commit(again, entry())
        hit(store.try_lease(KEY, waited_for=lease.holder))

    def test_ending_twice(self, tmp_path: Path) -> None:
        """A lease that has ended ends nobody else's."""
        store = self.store(tmp_path)
        first = leased(store.try_lease(KEY))
        store.commit(first, entry())
        store.abandon(first, Failure("ServerError", "x"))
        hit(store.try_lease(KEY, waited_for=first.holder))
        second = leased(store.try_lease(OTHER))
        store.abandon(second)
        third = leased(store.try_lease(OTHER))
        store.abandon(second)
        assert busy(store.try_lease(OTHER)) == Busy(third.holder)
        third.close()

    def test_newer_than(self, tmp_path: Path) -> None:
        """An entry from before does not count, stays until there is another one, and is then replaced."""
        store = self.store(tmp_path)
        now = time.time()
        store.commit(leased(store.try_lease(KEY)), entry(created_at=now - 10))
        lease = leased(store.try_lease(KEY, newer_than=now))
        hit(store.try_lease(KEY))
        assert busy(store.try_lease(KEY, newer_than=now)) == Busy(lease.holder)
        store.commit(lease, entry(created_at=now + 1, pictures=(b"new",)))
        assert hit(store.try_lease(KEY, newer_than=now)).pictures == (b"new",)

    def test_threads(self, tmp_path: Path) -> None:
        """Of many threads that ask at once, one gets the lease."""
        store = self.store(tmp_path)
        answers: list[LeaseResult] = []
        start = threading.Barrier(8)

        def ask() -> None:
            start.wait(10)
            answers.append(store.try_lease(KEY))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        leases = [answer for answer in answers if isinstance(answer, Lease)]
        assert len(answers) == 8
        assert len(leases) == 1
        store.commit(leases[0], entry())
        hit(store.try_lease(KEY))

    def test_two_handles(self, tmp_path: Path) -> None:
        """Entries, leases and failures are seen through every handle on the same things."""
        store, another = self.store(tmp_path), self.another(tmp_path)
        lease = leased(store.try_lease(KEY))
        assert busy(another.try_lease(KEY)) == Busy(lease.holder)
        store.abandon(lease, Failure("ServerError", "x"))
        assert busy(another.try_lease(KEY, waited_for=lease.holder)).failure is not None
        lease = leased(another.try_lease(KEY))
        another.commit(lease, entry())
        assert hit(store.try_lease(KEY)).pictures == PICTURES
