"""What a send is known by, and where it is looked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamy_redis.core.idempotency import IdempotencyKey
from streamy_redis.core.publication import Position

TOKEN = "0123456789abcdef01234567"
positions = st.none() | st.builds(
    Position, st.integers(10**15, 10**16 - 1), st.integers(0, 10**16 - 1), st.just("0123abcd")
)


def test_a_caller_s_key_is_looked_up_at_every_try_and_is_the_nonce():
    key = IdempotencyKey.given("order 7")

    assert str(key) == "order 7"
    assert key.search(is_first_try=False) == key.search(is_first_try=True) == "index"
    assert [nonce.text for nonce in key.nonces(1)] == ["order 7"]


def test_a_drawn_key_is_looked_for_by_retries_behind_what_was_known():
    known = Position(1_800_000_000_000_000, 7, "0123abcd")
    key = IdempotencyKey.drawn(TOKEN, known)

    assert key.search(is_first_try=True) == ""
    assert key.search(is_first_try=False) == "1800000000000000-7"
    assert IdempotencyKey.drawn(TOKEN, None).search(is_first_try=False) == "0-0"
    # What every entry carries is short.
    assert [nonce.text for nonce in key.nonces(1)] == [TOKEN]


@given(positions, st.integers(1, 5))
def test_a_drawn_key_that_left_the_process_is_known_again(known: Position | None, count: int):
    key = IdempotencyKey.drawn(TOKEN, known)

    again = IdempotencyKey.given(str(key))

    assert again == key
    assert again.nonces(count) == key.nonces(count)


@pytest.mark.parametrize(
    "text",
    [
        *(TOKEN, f"{TOKEN}@", f"{TOKEN}@1-", f"{TOKEN}@0-1", f"{TOKEN}@01-1", f"{TOKEN[1:]}@1-1"),
        *(f"{TOKEN}@1-1-0", f" {TOKEN}@1-1", f"{TOKEN}@1-1\n", f"{TOKEN.upper()}@1-1"),
        f"{TOKEN}@{'9' * 17}-1",
    ],
)
def test_whatever_else_looks_like_one_is_a_caller_s(text: str):
    assert IdempotencyKey.given(text).search(is_first_try=False) == "index"


def test_no_two_publications_of_sends_with_other_keys_or_counts_share_a_nonce():
    sends = [IdempotencyKey.given(key).nonces(count) for key in ("k", "k1") for count in (1, 2, 3)]
    texts = [nonce.text for nonces in sends for nonce in nonces]

    assert len(set(texts)) == len(texts)
