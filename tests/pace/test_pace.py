"""The pace by hand: when requests may start, and the file that the runs of an account share."""

from __future__ import annotations

import errno
import json
import time
from pathlib import Path

import pytest

import imgkit
from imgkit.locks import SharedFile
from imgkit.pace import pace_file
from imgkit.pace.pace import (
    FIRST_IN_FLIGHT,
    LONGEST_BACKOFF_S,
    LONGEST_LOOK_S,
    LONGEST_PAUSE_S,
    SHARED_LOOK_S,
    Pace,
    PaceLimits,
    Turn,
)
from imgkit.pace.pace_file import STUCK_S, find_pace_file
from imgkit.pace.pace_state import IDLE_S
from imgkit.redact import Secret
from tests.support.processes import kill_fork, start_fork

ACCOUNT = ("openai", "https", "api.openai.com", "443")


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def build_pace(clock: Clock, path: Path | None = None, chance: float = 1.0, **limits: float) -> Pace:
    """Return a pace with a clock and a jitter of the test."""
    return Pace(PaceLimits(**limits), path, clock=clock, chance=lambda: chance)


def start_all(pace: Pace, most: int = 100) -> list[Turn]:
    """Start requests until none may start at this time."""
    turns: list[Turn] = []
    while len(turns) < most and isinstance(turn := pace.try_start(), Turn):
        turns.append(turn)
    return turns


def find_start_s(pace: Pace, clock: Clock, images: int = 1, longest_s: float = 2000.0) -> float:
    """Move the clock to the next start; return the seconds until it, and end the request."""
    began = clock.now
    while clock.now - began < longest_s:
        turn = pace.try_start(images)
        if isinstance(turn, Turn):
            turn.release()
            return round(clock.now - began, 6)
        clock.now += turn
    raise AssertionError("nothing may start")


def succeed(turns: list[Turn]) -> None:
    """End requests well."""
    for turn in turns:
        turn.note_success()
        turn.release()


def refuse(turns: list[Turn], wait_s: float | None = None) -> None:
    """End requests with a refusal."""
    for turn in turns:
        turn.note_failure(imgkit.RateLimitError("slow", status=429, retry_after_s=wait_s))
        turn.release()


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_pace_starts_gently_backs_off_and_comes_back(is_shared: bool, tmp_path: Path) -> None:
    """Starts with two, adds one for each success, halves once for a wave of refusals, and grows again."""
    clock = Clock()
    pace = build_pace(clock, tmp_path / "a.json" if is_shared else None, requests_in_flight=8)
    sizes = []
    for _ in range(4):
        turns = start_all(pace)
        sizes.append(len(turns))
        succeed(turns)
    assert sizes == [2, 4, 8, 8]
    refuse(start_all(pace), 30.0)
    assert start_all(pace) == []
    assert find_start_s(pace, clock) == 30.0
    sizes = []
    for _ in range(6):
        turns = start_all(pace)
        sizes.append(len(turns))
        succeed(turns)
    assert sizes == [4, 4, 5, 6, 7, 8]
    pace.close()


def test_refusals_without_a_wait() -> None:
    """Backs off 1, 2, 4 … up to 60 seconds with jitter; a success begins anew."""
    clock = Clock()
    pace = build_pace(clock)
    waits = []
    for _ in range(9):
        refuse(start_all(pace))
        waits.append(find_start_s(pace, clock))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert waits[-1] == LONGEST_BACKOFF_S
    assert pace.refusals == 9
    succeed(start_all(pace))
    assert pace.refusals == 0
    refuse(start_all(pace))
    assert find_start_s(pace, clock) == 1
    jittered = build_pace(clock, chance=0.0)
    refuse(start_all(jittered))
    assert find_start_s(jittered, clock) == 0.5


@pytest.mark.parametrize(("wait_s", "expected"), [(0.25, 0.25), (300.0, 300.0), (86400.0, LONGEST_PAUSE_S)])
def test_the_wait_of_the_server(wait_s: float, expected: float) -> None:
    """Waits as long as the server asks, up to a limit, and looks often enough to be stopped."""
    clock = Clock()
    pace = build_pace(clock)
    refuse(start_all(pace), wait_s)
    first = pace.try_start()
    assert isinstance(first, float)
    assert 0 < first <= LONGEST_LOOK_S
    assert find_start_s(pace, clock) == expected


@pytest.mark.parametrize(
    ("error", "pause_s"),
    [
        (imgkit.ServerError("broken", status=500), 1.0),
        (imgkit.ServerError("busy", status=503, retry_after_s=7.0), 7.0),
        (imgkit.OutcomeUnknownError("gateway", status=504), 0.0),
        (imgkit.QuotaExceededError("pay", status=429), 0.0),
        (imgkit.InvalidRequestError({"size": "no"}), 0.0),
        (imgkit.NotSentError("no route"), 0.0),
    ],
)
def test_other_failures(error: imgkit.ImgkitError, pause_s: float) -> None:
    """Failures of the server pause for a short time; those of one request do not."""
    clock = Clock()
    pace = build_pace(clock)
    [turn, other] = start_all(pace)
    turn.note_failure(error)
    other.release()
    assert find_start_s(pace, clock) == pause_s
    assert pace.refusals == 0


def test_starts_in_a_minute() -> None:
    """Spaces starts evenly, and images by their number."""
    clock = Clock()
    pace = build_pace(clock, requests_per_minute=120)
    assert [find_start_s(pace, clock) for _ in range(4)] == [0, 0.51, 0.51, 0.51]
    pace = build_pace(clock, images_per_minute=60)
    assert [find_start_s(pace, clock, images) for images in (4, 1, 1)] == [0, 4.08, 1.02]


def test_images_in_flight() -> None:
    """Counts the images that are made at once; a request larger than the limit goes alone."""
    pace = build_pace(Clock(), images_in_flight=10)
    first, second = pace.try_start(8), pace.try_start(4)
    assert isinstance(first, Turn)
    assert isinstance(second, float)
    first.shrink(6)
    second = pace.try_start(4)
    assert isinstance(second, Turn)
    first.release()
    second.release()
    assert isinstance(pace.try_start(20), Turn)


def test_limits_that_replies_tell() -> None:
    """Spreads the units that are left until their reset, and waits for it once none is left."""
    clock = Clock()
    pace = build_pace(clock)
    find_start_s(pace, clock)
    pace.note_reply({"x-ratelimit-remaining-requests": "4", "x-ratelimit-reset-requests": "20s"})
    assert find_start_s(pace, clock) == 5
    pace.note_reply({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"})
    assert find_start_s(pace, clock) == 9
    assert find_start_s(pace, clock) == 0
    pace.note_reply({"x-ratelimit-remaining-input-images": "2", "x-ratelimit-reset-input-images": "60s"})
    assert find_start_s(pace, clock, images=4) == 60
    pace.note_reply({"x-ratelimit-remaining-requests": "200", "x-ratelimit-reset-requests": "24h"})
    assert find_start_s(pace, clock) == 0
    pace.note_reply({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "3s"})
    assert find_start_s(pace, clock) == 3


def test_calls_that_have_begun_come_first() -> None:
    """A retry takes its turn before a new request, and a call that waits counts among those of its run."""
    pace = build_pace(Clock())
    [first, second] = start_all(pace)
    pace.add_caller()
    first.release()
    assert isinstance(pace.try_start(), float)
    assert isinstance(pace.try_start(is_call=True), Turn)
    pace.remove_caller()
    second.release()
    assert isinstance(pace.try_start(calls=2), float)
    assert isinstance(pace.try_start(calls=1), Turn)


def test_runs_share_the_limits(tmp_path: Path) -> None:
    """Runs of an account keep the lowest limits together, and take turns; one that ends leaves its part."""
    clock, path = Clock(), tmp_path / "a.json"
    one = build_pace(clock, path, requests_in_flight=6)
    other = build_pace(clock, path, requests_in_flight=4)
    for _ in range(3):
        succeed(start_all(one))
    assert isinstance(other.try_start(), Turn)  # so that its limit is known
    assert len(start_all(one)) == 3
    assert start_all(other) == []
    one.close()
    clock.now += 1
    assert len(start_all(other)) == 3
    other.close()
    assert sorted(each.suffix for each in tmp_path.iterdir()) == [".json"]


def test_the_run_that_has_waited_longer_starts_first(tmp_path: Path) -> None:
    """A run does not take each free place before another looks for it, unless the other is late."""
    clock, path = Clock(), tmp_path / "a.json"
    one, other = (build_pace(clock, path, requests_in_flight=1) for _ in range(2))
    order = []
    turn = one.try_start()
    for _ in range(6):
        for pace in (one, other):
            pace.try_start()  # both wait
        assert isinstance(turn, Turn)
        turn.release()
        for pace in (one, other, one):
            found = pace.try_start()
            if isinstance(found, Turn):
                order.append(pace)
                turn = found
                break
        clock.now += 0.001
    assert order.count(one) == order.count(other) == 3
    assert isinstance(turn, Turn)
    turn.release()
    late = one if order[-1] is other else other
    clock.now += 1
    assert late.try_start()  # the other does not look any more
    one.close()
    other.close()


def test_backing_off_together(tmp_path: Path) -> None:
    """A refusal of one run is a pause of all, for as long as the server asks."""
    clock, path = Clock(), tmp_path / "a.json"
    one, other = (build_pace(clock, path) for _ in range(2))
    refuse(start_all(one), 12.0)
    assert find_start_s(other, clock) == 12.0
    one.note_reply({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s"})
    assert start_all(one) == []
    assert find_start_s(other, clock) == 9.0
    one.close()
    other.close()


def test_starts_in_a_minute_are_shared(tmp_path: Path) -> None:
    """Two runs start as many requests as the lower of their limits allows for one."""
    clock, path = Clock(), tmp_path / "a.json"
    one = build_pace(clock, path, requests_per_minute=60)
    other = build_pace(clock, path, requests_per_minute=600)
    starts = [0, 0]
    while clock.now < 1010:
        for number, pace in enumerate((one, other)):
            turn = pace.try_start()
            if isinstance(turn, Turn):
                starts[number] += 1
                turn.note_success()
                turn.release()
        clock.now += 0.02
    assert 9 <= sum(starts) <= 11
    assert min(starts) >= 4
    one.close()
    other.close()


def test_a_dead_process_frees_its_places(tmp_path: Path) -> None:
    """The requests of a killed process count until the next look, and its lock goes with it."""
    path = tmp_path / "a.json"

    def hold() -> bool:
        pace = Pace(PaceLimits(2), path)
        start_all(pace)
        (tmp_path / "ready").touch()
        time.sleep(50)
        return True

    child = start_fork(hold)
    until = time.monotonic() + 20
    while not (tmp_path / "ready").exists() and time.monotonic() < until:
        time.sleep(0.01)
    clock = Clock(time.monotonic())
    pace = build_pace(clock, path)
    assert start_all(pace) == []
    kill_fork(child)
    (tmp_path / "dead.lock").touch()
    clock.now += pace_file.LOOK_S
    assert len(start_all(pace)) == FIRST_IN_FLIGHT
    build_pace(clock, path).close()
    pace.close()
    assert not list(tmp_path.glob("*.lock"))


@pytest.mark.parametrize(
    "damage",
    ["", "{", "null", "[1]", "\0\0", '{"version":1}', '{"version":99,"boot":""}', "cut", "future", "boot"],
)
def test_a_damaged_file(damage: str, tmp_path: Path) -> None:
    """A file that is damaged, of another boot, or from the future says nothing; a run keeps its memory."""
    clock, path = Clock(), tmp_path / "a.json"
    pace = build_pace(clock, path, requests_per_minute=60)
    succeed(start_all(pace))
    text = path.read_text()
    if damage == "cut":
        path.write_text(text[: len(text) // 2])
    elif damage in ("future", "boot"):
        values = json.loads(text.splitlines()[0])
        values |= {"boot": "other"} if damage == "boot" else {"refused_at": 5e9, "pause_s": 100}
        path.write_text(json.dumps(values))
    else:
        path.write_text(damage)
    assert find_start_s(pace, clock) == 1.02
    other = build_pace(clock, path)
    assert isinstance(other.try_start(), float)  # the run above has written the file again
    path.unlink()
    clock.now += 1
    assert find_start_s(other, clock) == pytest.approx(0.02)
    assert find_start_s(pace, clock) == 1.02
    assert set(json.loads(path.read_text().splitlines()[0])["runs"]) >= {pace._shared.name}
    pace.close()
    other.close()


def test_a_clock_that_jumps_back(tmp_path: Path) -> None:
    """The times of an earlier boot, whose clock was ahead, hold no run up."""
    path = tmp_path / "a.json"
    before = build_pace(Clock(90_000.0), path, requests_per_minute=1)
    refuse(start_all(before), 500.0)
    pace = build_pace(Clock(10.0), path)
    assert len(start_all(pace)) == FIRST_IN_FLIGHT
    before.close()
    pace.close()


def test_a_run_that_was_idle_starts_gently(tmp_path: Path) -> None:
    """The room that earlier requests have earned is gone after a minute."""
    clock = Clock()
    pace = build_pace(clock)
    for _ in range(3):
        succeed(start_all(pace))
    clock.now += IDLE_S + 1
    assert len(start_all(pace)) == FIRST_IN_FLIGHT


def test_a_stopped_process_holds_nobody_up(tmp_path: Path) -> None:
    """A run waits for a file that another process has, but not for a process that was stopped with it."""
    clock, path = Clock(), tmp_path / "a.json"
    pace = build_pace(clock, path)
    file = SharedFile(path)
    assert file.try_lock()
    assert 0 < find_start_s(pace, clock) <= STUCK_S + SHARED_LOOK_S
    [turn, *_] = start_all(pace)
    turn.release()
    file.unlock()
    assert isinstance(pace.try_start(), Turn)
    file.close()
    pace.close()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run goes on alone where files cannot be locked, from its start or from any time on."""
    clock, path = Clock(), tmp_path / "a.json"
    pace = build_pace(clock, path, requests_per_minute=60)
    succeed(start_all(pace))

    def fail(*_: object) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(SharedFile, "try_lock", fail)
    assert find_start_s(pace, clock) == 1.02
    monkeypatch.setattr(SharedFile, "__init__", fail)
    assert isinstance(build_pace(clock, path).try_start(), Turn)
    pace.close()


def test_the_name_of_the_file_shows_no_key(tmp_path: Path) -> None:
    """An account has one file in each state folder; its name depends on the key, and shows nothing of it."""
    keys = [Secret("sk-1234567890abcdef"), Secret("other")]
    path = find_pace_file(tmp_path, ACCOUNT, keys)
    assert path == find_pace_file(tmp_path, ACCOUNT, [*keys[::-1], keys[0]])
    assert path != find_pace_file(tmp_path, ACCOUNT, keys[:1])
    assert path != find_pace_file(tmp_path, ("xai", *ACCOUNT[1:]), keys)
    assert path.name != find_pace_file(tmp_path / "else", ACCOUNT, keys).name
    assert path.parent == tmp_path / "pace"
    assert (path.parent / "salt").stat().st_mode & 0o777 == 0o600
    with pytest.raises(imgkit.ConfigurationError, match="Set another state folder"):
        find_pace_file(tmp_path / "else" / "pace" / "salt", ACCOUNT, keys)


def test_a_turn_costs_little(tmp_path: Path) -> None:
    """A turn in a shared file takes far less than any request: at most 0.3 ms of the processor."""
    pace = Pace(PaceLimits(), tmp_path / "a.json")
    best = 1.0
    for _ in range(5):
        before = time.process_time()
        for _ in range(100):
            turn = pace.try_start()
            assert isinstance(turn, Turn)
            succeed([turn])
        best = min(best, (time.process_time() - before) / 100)
    pace.close()
    assert best < 0.0003


@pytest.mark.parametrize(
    "option",
    [
        {"most_in_flight": 0},
        {"most_in_flight": 1.5},
        {"most_in_flight": "many"},
        {"per_minute": -1},
        {"per_minute": float("nan")},
        {"images_per_minute": 0},
        {"per_minutes": 5},
    ],
)
def test_wrong_limits(option: dict[str, object], tmp_path: Path) -> None:
    """Refuses a limit that is no positive number, and an option that a run does not have."""
    [name] = option
    with imgkit.ImageService() as images, pytest.raises(imgkit.ConfigurationError, match=name):
        images.bulk(["a fox"], folder=tmp_path, **option)  # type: ignore[arg-type]  # wrong on purpose
