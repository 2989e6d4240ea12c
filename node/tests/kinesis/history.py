"""What was put and what was read of a stream, by whomever, and whether that is what was promised.

A record's text is `WRITER:N`: a writer counts from 0, and puts one record after the other under a key of its own. Those whose name
ends in "many" put several at a time, each under a key of its own.
"""


def check(sent, acked, readers):
    """Each promise, over all that was seen: sent are writers and how many records each put, acked is text → (shard, number), and each
    reader gives, for every shard, what it read there: (number, text)."""
    readers = {name: {shard: it for shard, it in shards.items() if it} for name, shards in readers.items()}
    first, *others = readers
    for other in others:
        same(first, readers[first], other, readers[other])
    everything = set()
    for shard, records in readers[first].items():
        assert all(a[0] < b[0] for a, b in zip(records, records[1:])), f"{shard} is out of order"
        newest = {}
        for number, text in records:
            everything.add((shard, number, text))
            writer, n = text.split(":")
            assert int(n) < sent[writer], f"never put: {text}"
            if not writer.endswith("many"):
                # Once more, if an attempt was stored whose answer was lost; never for the first time after a later one.
                assert int(n) <= newest.get(writer, int(n)) + 1, f"{text} after {writer}:{newest[writer]} in {shard}"
                newest[writer] = max(newest.get(writer, 0), int(n))
    lost = [text for text, (shard, number) in acked.items() if (shard, number, text) not in everything]
    assert not lost, f"{len(lost)} acknowledged and lost: {lost[:10]}"
    return len(everything)


def same(name, records, other, others):
    """Two readers have read the same; says shortly where they have not."""
    for shard in sorted({*records, *others}):
        one, two = records.get(shard, []), others.get(shard, [])
        if one != two:
            at = next((n for n, (a, b) in enumerate(zip(one, two)) if a != b), min(len(one), len(two)))
            raise AssertionError(
                f"{shard}: {name} read {len(one)}, {other} read {len(two)}; from {at} on {one[at:at + 3]}, {two[at:at + 3]}"
            )
