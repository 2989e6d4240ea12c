"""boto3 at work while nodes are killed and the stream is resharded: kills.py ENDPOINT,ENDPOINT,…

Works until its input ends, and then says whether its clients saw nothing but what a client of the service must expect, and
whether everything that was acknowledged is there:

- writers, one partition key each, and one that puts 20 records at a time and puts again those that failed, as the API asks of it;
- two readers of all shards, from parents to children: one polls, one subscribes and subscribes again where events end;
- one who splits and merges shards all the time.

Clients know the cluster as one name with several addresses, one for each node.
"""

import collections
import random
import socket
import sys
import threading
import time
import traceback

import boto3
import urllib3
from botocore.config import Config
from botocore.exceptions import EventStreamError, HTTPClientError

import history
from cluster import REGION, equal, wait
from resharding import reshard

NAME, STREAM = "kinesis.test", "s"
WRITERS = 6
FAILURES = {"InternalFailure", "ProvisionedThroughputExceededException"}

counted = collections.Counter()
broken = []
stopped, finished = threading.Event(), threading.Event()


def resolve(addresses):
    """Makes NAME the name of all of them, in no order, as a name server would."""
    known = socket.getaddrinfo

    def resolver(host, *arguments, **more):
        if host != NAME:
            return known(host, *arguments, **more)
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        return random.sample(found, len(found))

    socket.getaddrinfo = resolver


def client():
    """With the attempts that boto3 makes by itself: three, within about two seconds."""
    made = boto3.client(
        "kinesis",
        endpoint_url=f"http://{NAME}:4570",
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="secret",
        config=Config(connect_timeout=5, read_timeout=30),
    )

    def count(parsed, model, **_):
        counted[f"{model.name} calls"] += 1
        counted[f"{model.name} retries"] += parsed["ResponseMetadata"]["RetryAttempts"]

    made.meta.events.register("after-call.kinesis", count)
    return made


def working(work):
    """A thread whose failure is the test's."""

    def run(*arguments):
        try:
            work(*arguments)
        except BaseException:
            broken.append(traceback.format_exc())

    def start(*arguments):
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        thread.start()
        return thread

    return start


# How many records each writer put; what was acknowledged: text → (shard, sequence number); and the longest that a writer was
# kept waiting.
sent, acked, longest = collections.Counter(), {}, [0.0]


@working
def write(writer):
    kinesis = client()
    n = 0
    while not stopped.is_set():
        text = f"{writer}:{n}"
        sent[writer] += 1
        start = time.monotonic()
        put = kinesis.put_record(StreamName=STREAM, Data=text.encode(), PartitionKey=writer)
        longest[0] = max(longest[0], time.monotonic() - start)
        acked[text] = (put["ShardId"], int(put["SequenceNumber"]))
        n += 1


@working
def write_many():
    kinesis = client()
    n = 0
    while not stopped.is_set():
        texts = [f"many:{n + it}" for it in range(20)]
        n += len(texts)
        sent["many"] += len(texts)
        while texts:
            records = [{"Data": it.encode(), "PartitionKey": it} for it in texts]
            answer = kinesis.put_records(StreamName=STREAM, Records=records)
            failed = []
            for text, record in zip(texts, answer["Records"]):
                if "ErrorCode" in record:
                    assert record["ErrorCode"] in FAILURES, record
                    counted[f"records failed: {record['ErrorCode']}"] += 1
                    failed.append(text)
                else:
                    acked[text] = (record["ShardId"], int(record["SequenceNumber"]))
            equal(len(failed), answer["FailedRecordCount"])
            texts = failed


@working
def split_and_merge():
    reshard(client(), STREAM, counted, stopped)


class Lineage:
    """Which shards are to be read: children once all of their parents have been read to the end."""

    def __init__(self, shards):
        self.begun, self.ended, self.lock = set(shards), set(), threading.Lock()

    def end(self, shard, children):
        with self.lock:
            self.ended.add(shard)
            ready = [it["ShardId"] for it in children if set(it["ParentShards"]) <= self.ended]
            new = [it for it in ready if it not in self.begun]
            self.begun.update(new)
            return new


polled, pushed = collections.defaultdict(list), collections.defaultdict(list)


def read_of(records):
    return [(int(it["SequenceNumber"]), it["Data"].decode()) for it in records]


@working
def poll(shards):
    kinesis = client()

    def begin(shard):
        start = {"StreamName": STREAM, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        return kinesis.get_shard_iterator(**start)["ShardIterator"]

    lineage, iterators = Lineage(shards), {shard: begin(shard) for shard in shards}
    while True:
        last, moved = finished.is_set(), False
        for shard, iterator in list(iterators.items()):
            page = kinesis.get_records(ShardIterator=iterator)
            polled[shard] += read_of(page["Records"])
            iterators[shard] = page.get("NextShardIterator")
            moved |= bool(page["Records"]) or page["MillisBehindLatest"] > 0
            if iterators[shard] is None:
                del iterators[shard]
                moved = True
                iterators.update({child: begin(child) for child in lineage.end(shard, page["ChildShards"])})
        if last and not moved:
            return
        time.sleep(0.05)


followers = []


@working
def follow(shard, consumer, lineage):
    """Subscribes again after the last event, as a consumer of the service does at least every five minutes."""
    kinesis = client()
    at = {"Type": "TRIM_HORIZON"}
    while True:
        try:
            answer = kinesis.subscribe_to_shard(ConsumerARN=consumer, ShardId=shard, StartingPosition=at)
        except kinesis.exceptions.ResourceInUseException:
            # The subscription that has just been lost counts for five seconds.
            counted["subscriptions refused for one before"] += 1
            time.sleep(1)
            continue
        try:
            for event in answer["EventStream"]:
                event = event["SubscribeToShardEvent"]
                pushed[shard] += read_of(event["Records"])
                if "ContinuationSequenceNumber" not in event:
                    for child in lineage.end(shard, event["ChildShards"]):
                        followers.append(follow(child, consumer, lineage))
                    return
                at = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": event["ContinuationSequenceNumber"]}
                if finished.is_set() and not event["Records"] and event["MillisBehindLatest"] == 0:
                    return
            counted["subscriptions ended early"] += 1
        except (urllib3.exceptions.HTTPError, HTTPClientError, OSError) as error:
            counted[f"subscriptions lost: {type(error).__name__}"] += 1
        except EventStreamError as error:
            assert error.response["Error"]["Code"] == "InternalFailureException", error
            counted["subscriptions lost: InternalFailureException"] += 1


def main():
    addresses = [(host, int(port)) for host, port in (it.rsplit(":", 1) for it in sys.argv[1].split(","))]
    resolve(addresses)
    kinesis = client()
    kinesis.create_stream(StreamName=STREAM, ShardCount=3)
    summary = lambda: kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]
    wait("the stream is ACTIVE", lambda: summary()["StreamStatus"] == "ACTIVE")
    arn = summary()["StreamARN"]
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="c")["Consumer"]["ConsumerARN"]
    described = lambda: kinesis.describe_stream_consumer(ConsumerARN=consumer)["ConsumerDescription"]
    wait("the consumer is ACTIVE", lambda: described()["ConsumerStatus"] == "ACTIVE")
    shards = [it["ShardId"] for it in kinesis.list_shards(StreamName=STREAM)["Shards"]]

    writers = [write(f"w{n}") for n in range(WRITERS)] + [write_many(), split_and_merge()]
    lineage = Lineage(shards)
    poller = poll(shards)
    followers.extend(follow(shard, consumer, lineage) for shard in shards)
    print("at work", flush=True)
    sys.stdin.read()
    stopped.set()
    for thread in writers:
        thread.join(120)
        assert not thread.is_alive(), "a writer does not end"
    finished.set()
    poller.join(120)
    assert not poller.is_alive(), "the poller does not end"
    # Those that are added meanwhile, too.
    for thread in followers:
        thread.join(120)
        assert not thread.is_alive(), "a follower does not end"
    assert not broken, "\n".join(broken[:5])
    counted["acknowledged"] = len(acked)
    counted["read"] = history.check(sent, acked, {"polled": polled, "pushed": pushed})
    counted["shards"] = len(polled)
    assert len(acked) > 500 and counted["splits"] + counted["merges"] > 3, f"hardly anything was done: {counted}"
    for what, count in sorted(counted.items()):
        print(f"{what}: {count}")
    print(f"longest wait of a writer: {longest[0]:.1f} s")


if __name__ == "__main__":
    main()
