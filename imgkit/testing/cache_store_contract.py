"""The contract of a cache store (`imgkit.plugins.CacheStore`)."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from imgkit.plugins.protocols import Busy, CacheStore, Entry, Failure, Hit, Lease, LeaseResult

KEY, OTHER_KEY = "a1" * 32, "b2" * 32
IMAGES = (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, b"\xff\xd8\xff" + b"x" * 100)
FACTS = {
    "prompt": "a fox, naïve 🦊 \ud800",
    "created": 1,
    "usage": None,
    "extra": {"list": [1, 2.5, True, None, "x"]},
    "pictures": [{"revised_prompt": None, "extra": {}}, {"revised_prompt": "b", "extra": {"x": 1}}],
}


def make_entry(*, created_at: float | None = None, pictures: tuple[bytes, ...] = IMAGES) -> Entry:
    """Return an entry like the entries of a service."""
    return Entry(FACTS, pictures, time.time() if created_at is None else created_at)


def expect_lease(result: LeaseResult) -> Lease:
    """Return the lease; fail if the store returned another result."""
    assert isinstance(result, Lease), f"expected a Lease, got {result!r}"
    return result


def expect_hit(result: LeaseResult) -> Entry:
    """Return the entry of a hit; fail if the store returned another result."""
    assert isinstance(result, Hit), f"expected a Hit, got {result!r}"
    return result.entry


def expect_busy(result: LeaseResult) -> Busy:
    """Return the result; fail unless another caller holds the lease."""
    assert isinstance(result, Busy), f"expected a Busy, got {result!r}"
    return result


class CacheStoreContract:
    """The tests that every cache store must pass.

    Override `store`::

        class TestMyStore(CacheStoreContract):
            def store(self, folder):
                return MyStore(folder)

    Attributes:
        shared: Two stores on the same folder share entries and leases. False skips that test.
    """

    shared: bool = True

    def store(self, folder: Path) -> CacheStore:
        """Return a new store that keeps its entries in `folder`, or under its name."""
        raise NotImplementedError("Override store() to return the store under test.")

    def reopen(self, folder: Path) -> CacheStore:
        """Return a second store on the same folder, as another process would."""
        if not self.shared:
            pytest.skip("The store does not declare shared = True.")
        return self.store(folder)

    def test_implements_protocol(self, tmp_path: Path) -> None:
        """Has the methods of `CacheStore`."""
        assert isinstance(self.store(tmp_path), CacheStore)

    def test_returns_committed_entry(self, tmp_path: Path) -> None:
        """Returns a committed entry unchanged; other keys stay free."""
        store = self.store(tmp_path)
        committed = make_entry()
        store.commit(expect_lease(store.try_lease(KEY)), committed)
        returned = expect_hit(store.try_lease(KEY))
        assert (returned.pictures, dict(returned.facts)) == (committed.pictures, dict(committed.facts))
        assert returned.created_at == pytest.approx(committed.created_at, abs=0.001)
        expect_lease(store.try_lease(OTHER_KEY)).close()

    def test_stores_entry_without_images(self, tmp_path: Path) -> None:
        """Stores an entry that has no images."""
        store = self.store(tmp_path)
        store.commit(expect_lease(store.try_lease(KEY)), make_entry(pictures=()))
        assert expect_hit(store.try_lease(KEY)).pictures == ()

    def test_leases_key_to_single_caller(self, tmp_path: Path) -> None:
        """Gives a single lease per key; other callers get the holder's id."""
        store = self.store(tmp_path)
        lease = expect_lease(store.try_lease(KEY))
        assert expect_busy(store.try_lease(KEY)) == expect_busy(store.try_lease(KEY)) == Busy(lease.holder)
        expect_lease(store.try_lease(OTHER_KEY)).close()
        store.commit(lease, make_entry())
        expect_hit(store.try_lease(KEY, waited_for=lease.holder))

    def test_holder_ids_are_unique(self, tmp_path: Path) -> None:
        """Gives each lease a new id, also for the same key."""
        store = self.store(tmp_path)
        holders = set()
        for _ in range(5):
            lease = expect_lease(store.try_lease(KEY))
            holders.add(lease.holder)
            lease.close()
        assert len(holders) == 5
        assert "" not in holders

    def test_abandoned_lease_is_free(self, tmp_path: Path) -> None:
        """Frees a lease that is abandoned without a failure, also for waiting callers."""
        store = self.store(tmp_path)
        lease = expect_lease(store.try_lease(KEY))
        store.abandon(lease)
        store.abandon(lease)
        expect_lease(store.try_lease(KEY, waited_for=lease.holder)).close()

    def test_waiting_callers_learn_of_failure(self, tmp_path: Path) -> None:
        """Reports a failure to waiting callers each time they ask; new callers get a lease."""
        store = self.store(tmp_path)
        lease = expect_lease(store.try_lease(KEY))
        failure = Failure("ServerError", "it failed", {"status": 500, "request_id": None})
        store.abandon(lease, failure)
        for _ in range(2):
            result = expect_busy(store.try_lease(KEY, waited_for=lease.holder))
            assert result.failure is not None
            assert (result.failure.error, result.failure.message) == ("ServerError", "it failed")
            assert dict(result.failure.facts) == {"status": 500, "request_id": None}
        new_lease = expect_lease(store.try_lease(KEY))
        assert expect_busy(store.try_lease(KEY, waited_for=lease.holder)).failure is not None
        assert expect_busy(store.try_lease(KEY)) == Busy(new_lease.holder)
        store.commit(new_lease, make_entry())
        expect_hit(store.try_lease(KEY, waited_for=lease.holder))

    def test_ended_lease_has_no_effect(self, tmp_path: Path) -> None:
        """Ignores the second end of a lease, even while another lease is open."""
        store = self.store(tmp_path)
        first = expect_lease(store.try_lease(KEY))
        store.commit(first, make_entry())
        store.abandon(first, Failure("ServerError", "x"))
        expect_hit(store.try_lease(KEY, waited_for=first.holder))
        second = expect_lease(store.try_lease(OTHER_KEY))
        store.abandon(second)
        third = expect_lease(store.try_lease(OTHER_KEY))
        store.abandon(second)
        assert expect_busy(store.try_lease(OTHER_KEY)) == Busy(third.holder)
        third.close()

    def test_newer_than_ignores_old_entry(self, tmp_path: Path) -> None:
        """Ignores an entry older than `newer_than`, and keeps it until a new entry replaces it."""
        store = self.store(tmp_path)
        now = time.time()
        store.commit(expect_lease(store.try_lease(KEY)), make_entry(created_at=now - 10))
        lease = expect_lease(store.try_lease(KEY, newer_than=now))
        expect_hit(store.try_lease(KEY))
        assert expect_busy(store.try_lease(KEY, newer_than=now)) == Busy(lease.holder)
        store.commit(lease, make_entry(created_at=now + 1, pictures=(b"new",)))
        assert expect_hit(store.try_lease(KEY, newer_than=now)).pictures == (b"new",)

    def test_threads_share_single_lease(self, tmp_path: Path) -> None:
        """Gives a single lease to eight threads that ask at the same time."""
        store = self.store(tmp_path)
        results: list[LeaseResult] = []
        start = threading.Barrier(8)

        def ask() -> None:
            start.wait(10)
            results.append(store.try_lease(KEY))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        leases = [result for result in results if isinstance(result, Lease)]
        assert len(results) == 8
        assert len(leases) == 1
        store.commit(leases[0], make_entry())
        expect_hit(store.try_lease(KEY))

    def test_stores_on_same_folder_share_state(self, tmp_path: Path) -> None:
        """Shares entries, leases and failures between two stores on the same folder."""
        store, other_store = self.store(tmp_path), self.reopen(tmp_path)
        lease = expect_lease(store.try_lease(KEY))
        assert expect_busy(other_store.try_lease(KEY)) == Busy(lease.holder)
        store.abandon(lease, Failure("ServerError", "x"))
        assert expect_busy(other_store.try_lease(KEY, waited_for=lease.holder)).failure is not None
        lease = expect_lease(other_store.try_lease(KEY))
        other_store.commit(lease, make_entry())
        assert expect_hit(store.try_lease(KEY)).pictures == IMAGES
