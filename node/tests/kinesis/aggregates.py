"""Aggregated records, as the Kinesis Producer Library writes them, by those who write and read its format: aggregates.py
put|read ENDPOINT

`put` makes a stream of two shards, and has aggregates put by AWS's modules for Python and JavaScript and by aiokpl, a producer that
does as the KPL does; then some that are none. `read` has all of it taken apart by AWS's modules and by KCL, which must agree:
each record once, in its key's order. It prints what they read, a line for each record: SHARD NUMBER PLACE KEY TEXT.

The KPL itself is not here: it is a program for each machine inside of a jar, and no registry that the tests use has it.
"""

import base64
import collections
import hashlib
import json
import os
import subprocess
import sys

from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import iter_deaggregate_records

from cluster import BOUND_S, Kinesis, equal
from kcl import Given, Tables, Worker

STREAM = "aggregates"
SHARDS = ["shardId-000000000000", "shardId-000000000001"]
RECORDS, KEYS, IN_ONE = 100, 7, 8

# Begins as an aggregate does, and does not end as one: readers give it as it is.
DAMAGED = b"\xf3\x89\x9a\xc2damaged, 0123456789abcdef"


def user_records(source):
    return [(f"{source}-key-{n % KEYS}", f"{source}:{n}") for n in range(RECORDS)]


def shard_of(key):
    return SHARDS[int.from_bytes(hashlib.md5(key.encode()).digest(), "big") >> 127]


def shown(text):
    """As it can be printed by anybody."""
    return text.encode("ascii", "replace").decode()


def javascript(endpoint, *arguments):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "aggregates.cjs")
    environment = {**os.environ, "NODE_PATH": os.path.join(sys.prefix, "js"), "NODE_NO_WARNINGS": "1"}
    command = ["node", script, endpoint, STREAM, *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * BOUND_S, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def put(endpoint):
    kinesis = Kinesis([endpoint])
    kinesis.create(STREAM, len(SHARDS))
    raw = collections.defaultdict(list)

    def put_one(key, data, hash_key=None):
        more = {} if hash_key is None else {"ExplicitHashKey": hash_key}
        shard = kinesis.put_record(StreamName=STREAM, PartitionKey=key, Data=data, **more)["ShardId"]
        raw[shard].append((key, data))

    # An aggregate is of one shard, which its writer has to know.
    for shard in SHARDS:
        aggregator = RecordAggregator()
        for n, (key, text) in enumerate(it for it in user_records("python") if shard_of(it[0]) == shard):
            # Some of them have a hash key of their own, in the same shard.
            hash_key = str((SHARDS.index(shard) << 127) + n) if n % 3 == 0 else None
            aggregator.add_user_record(key, text, hash_key)
            if aggregator.get_num_user_records() == IN_ONE:
                put_one(*reordered(aggregator.clear_and_get().get_contents()))
        if aggregator.get_num_user_records() > 0:
            put_one(*reordered(aggregator.clear_and_get().get_contents()))
    for key, text in user_records("plain")[:KEYS]:
        put_one(key, text.encode())
    put_one("damaged-key-0", DAMAGED)
    for shard in SHARDS:
        equal([(it["PartitionKey"], it["Data"]) for it in kinesis.read(STREAM, shard)[0]], raw[shard])

    of_shards = [[it for it in user_records("javascript") if shard_of(it[0]) == shard] for shard in SHARDS]
    javascript(endpoint, "put", json.dumps(of_shards), str(IN_ONE))

    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "aiokpl_put.py")
    environment = {**os.environ, "PYTHONPATH": os.path.join(sys.prefix, "aiokpl")}
    command = [sys.executable, script, endpoint, STREAM, json.dumps(user_records("aiokpl"))]
    subprocess.run(command, env=environment, timeout=2 * BOUND_S, check=True)


def reordered(contents):
    key, hash_key, data = contents
    return key, data, hash_key


def data_of(record):
    """The module gives it in base64 if it was in an aggregate."""
    return base64.b64decode(record["data"]) if record.get("aggregated") else record["data"]


def read_python(kinesis):
    read = {}
    for shard in SHARDS:
        given = iter_deaggregate_records(kinesis.read(STREAM, shard)[0], "Boto3")
        read[shard] = [
            Given(
                int(it["kinesis"]["sequenceNumber"]),
                it["kinesis"].get("subSequenceNumber", 0),
                it["kinesis"]["partitionKey"],
                shown(data_of(it["kinesis"]).decode(errors="replace")),
            )
            for it in given
        ]
    return read


def read_javascript(endpoint):
    read = {shard: [] for shard in SHARDS}
    for line in javascript(endpoint, "read").splitlines():
        shard, number, place, key, text = line.split(" ", 4)
        read[shard].append(Given(int(number), int(place), key, shown(text)))
    return read


def read_kcl(endpoint, count):
    with Tables() as tables, Worker(endpoint, tables, STREAM, "fan-out") as worker:
        worker.until("all is given", lambda: sum(map(len, worker.given().values())) >= count)
    return {shard: [it._replace(text=shown(it.text)) for it in given] for shard, given in worker.given().items()}


def read(endpoint):
    kinesis = Kinesis([endpoint])
    by_python = read_python(kinesis)
    everything = [it for given in by_python.values() for it in given]
    of_keys = collections.defaultdict(list)
    for it in everything:
        of_keys[it.key].append(it.text)
    sources = {key.rsplit("-key-", 1)[0] for key in of_keys} - {"plain", "damaged"}
    assert {"python", "javascript", "aiokpl"} <= sources, sources
    for source in sources:
        for n in range(KEYS):
            equal(of_keys.pop(f"{source}-key-{n}"), [text for key, text in user_records(source) if key == f"{source}-key-{n}"])
    plain = {key: [text] for key, text in user_records("plain")[:KEYS]}
    equal(of_keys, {**plain, "damaged-key-0": [shown(DAMAGED.decode(errors="replace"))]})
    stored = len({it.number for it in everything})
    assert stored < len(everything) / 3, f"{stored} records were stored for {len(everything)}: hardly anything is aggregated"
    equal(read_javascript(endpoint), by_python)
    equal(read_kcl(endpoint, len(everything)), by_python)
    for shard, given in by_python.items():
        for it in given:
            print(shard, *it)


if __name__ == "__main__":
    {"put": put, "read": read}[sys.argv[1]](sys.argv[2])
