"""A cluster as its clients see it: one boto3 client for each node, and the ways to expect something."""

import itertools
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

BOUND_S = 60
ACCOUNT, REGION = "000000000000", "us-east-1"


class Kinesis:
    """One client for each node; each call goes to the next."""

    def __init__(self, endpoints, region=REGION, key="test", retries=3, secret="secret"):
        config = Config(retries={"max_attempts": retries, "mode": "standard"}, read_timeout=30)
        made = [
            boto3.client(
                "kinesis",
                endpoint_url=endpoint,
                region_name=region,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                config=config,
            )
            for endpoint in endpoints
        ]
        self.turn = itertools.cycle(made)

    def __getattr__(self, name):
        return getattr(next(self.turn), name)

    def create(self, name, shards=2, **more):
        self.create_stream(StreamName=name, ShardCount=shards, **more)
        return self.active(name)

    def active(self, name):
        return wait(f"{name} is ACTIVE", lambda: self.status(name) == "ACTIVE") and self.summary(name)

    def summary(self, name):
        return self.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]

    def status(self, name):
        return self.summary(name)["StreamStatus"]

    def iterator(self, stream, shard, kind="TRIM_HORIZON", **more):
        answer = self.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType=kind, **more)
        return answer["ShardIterator"]

    def read(self, stream, shard, kind="TRIM_HORIZON", **more):
        """All of a shard, up to its tip or its end; and the last answer."""
        iterator, records = self.iterator(stream, shard, kind, **more), []
        start = time.time()
        while True:
            answer = self.get_records(ShardIterator=iterator)
            records += answer["Records"]
            iterator = answer.get("NextShardIterator")
            at_tip = not answer["Records"] and answer["MillisBehindLatest"] == 0
            if iterator is None or at_tip:
                return records, answer
            assert time.time() - start < BOUND_S, "no end of the shard"


def wait(what, condition, bound_s=BOUND_S):
    start = time.time()
    while not condition():
        assert time.time() - start < bound_s, f"waited {bound_s} s until {what}"
        time.sleep(0.02)
    return True


def refused(code, call, **arguments):
    try:
        answer = call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, f"{found} instead of {code}"
        return found["Message"]
    raise AssertionError(f"{arguments} was answered with {answer} instead of {code}")


def equal(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"
