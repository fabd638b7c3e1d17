"""The spool against a list, and against whatever may happen to its files."""

import os
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from jetson.mqtt import segment
from jetson.mqtt.spool import Spool

LIMITS = {"max_records": 40, "segment_bytes": 200}


def drain(spool, step):
    spool.rewind()
    found = []
    for part in iter(lambda: spool.read(step), []):
        assert len(part) <= step
        found += part
    return found


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(1, 25)),
        st.tuples(st.just("read"), st.integers(1, 30)),
        st.tuples(st.just("acknowledge"), st.integers(0, 30)),
        st.tuples(st.just("drain"), st.integers(1, 50)),
        st.tuples(st.just("reopen"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_it_is_a_list_with_a_limit(steps):
    """`kept`: numbers that wait; `seen`: how far the reader is. Each round of writing ends in close or in a wait."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(folder, **LIMITS)
        kept, last, seen, dropped, published = [], 0, 0, 0, 0
        for kind, count in steps:
            if kind == "offer":
                for _ in range(count):
                    last += 1
                    assert spool.offer(b"event %d" % last) == last
                kept += range(last - count + 1, last + 1)
            elif kind == "acknowledge" and kept:
                upto = kept[min(count, len(kept)) - 1] if count else kept[0] - 1
                spool.acknowledge(upto)
                published += sum(number <= upto for number in kept)
                kept = [number for number in kept if number > upto]
            spool._write()  # what its thread does, here at a known moment
            spool._hold_limit()
            spool._sync()
            dropped += max(0, len(kept) - LIMITS["max_records"])
            kept = kept[-LIMITS["max_records"] :]
            if kind == "read":
                found = spool.read(count)
                assert [n for n, _ in found] == [n for n in kept if n > seen][:count]
                assert all(payload == b"event %d" % n for n, payload in found)
                seen = found[-1][0] if found else seen
            elif kind == "drain":
                assert [n for n, _ in drain(spool, count)] == kept
                seen = max([last, seen])
            elif kind == "reopen":
                spool.close()
                spool = Spool(folder, **LIMITS)
                seen = 0
            state = spool.state()
            assert state["waiting"] == len(kept) and state["published"] == published
            assert state["dropped"] == {"limit": dropped, "disk": 0, "damaged": 0, "refused": 0}
        spool.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_never_bring_a_wrong_record(data):
    """Whatever is cut, flipped, emptied or added: no exception, no false or doubled record, the order kept, all
    that is missing counted, and new events go on behind."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(folder, segment_bytes=150)
        for number in range(1, 41):
            spool.offer(b"event %d" % number)
        spool._write()
        spool._sync()
        spool.acknowledge(data.draw(st.integers(0, 20)))
        first = spool._head
        spool._sync()
        spool.close()
        names = sorted(name for name in os.listdir(folder) if name.endswith(segment.SUFFIX))
        for name in data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True)):
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                content = bytearray(file.read())
            for _ in range(data.draw(st.integers(1, 4))):
                kind = data.draw(st.sampled_from(["flip", "cut", "add", "zero"]))
                at = data.draw(st.integers(0, max(0, len(content) - 1)))
                if kind == "flip" and content:
                    content[at] ^= data.draw(st.integers(1, 255))
                elif kind == "cut":
                    del content[at:]
                elif kind == "add":
                    content[at:at] = data.draw(st.binary(max_size=30))
                elif content:
                    content[at : at + 20] = bytes(len(content[at : at + 20]))
            with open(path, "wb") as file:
                file.write(content)
        again = Spool(folder, segment_bytes=150)
        found = drain(again, 7)
        order = [n for n, _ in found]
        assert all(payload == b"event %d" % n for n, payload in found)
        assert order == sorted(set(order)) and set(order) <= set(range(first, 41))
        state = again.state()
        assert state["waiting"] == len(order)
        assert again.offer(b"event 41") == 41
        again._write()
        again._sync()
        assert [n for n, _ in drain(again, 7)] == order + [41]
        # What is lost before the first record that is left may as well have been acknowledged: that is not counted.
        lost = set(range(first, 41)) - set(order)
        beginning = {n for n in lost if not order or n < order[0]}
        assert len(lost - beginning) <= state["dropped"]["damaged"] <= len(lost)
        again.close()


@given(st.binary(max_size=400), st.integers(0, 50))
def test_decoding_takes_any_bytes(noise, at):
    for number, payload, end in segment.decode(noise, at):
        assert noise[:end].endswith(segment.encode(number, payload))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=60)), max_size=6), st.binary(max_size=8))
def test_what_was_encoded_is_decoded(records, noise):
    data = b"".join(segment.encode(number, payload) for number, payload in records)
    found = [(number, payload) for number, payload, _ in segment.decode(data + noise)]
    assert found == records
