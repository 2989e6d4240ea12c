"""Somebody who splits or merges a shard of a stream, again and again, whatever happens to the nodes meanwhile."""

import random

from botocore.exceptions import ClientError

from cluster import wait

OPEN_SHARDS_MAX = 5


def reshard(kinesis, stream, counted, stopped, pause_s=0):
    """Until `stopped`: as soon as the stream is ACTIVE again, or after `pause_s`."""
    while not stopped.wait(pause_s):
        shards = kinesis.list_shards(StreamName=stream, ShardFilter={"Type": "AT_LATEST"})["Shards"]
        shards.sort(key=lambda it: int(it["HashKeyRange"]["StartingHashKey"]))
        try:
            if len(shards) < OPEN_SHARDS_MAX:
                shard = random.choice(shards)
                start, end = (int(shard["HashKeyRange"][it]) for it in ("StartingHashKey", "EndingHashKey"))
                middle = str((start + end) // 2)
                kinesis.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)
                counted["splits"] += 1
            else:
                at = random.randrange(len(shards) - 1)
                first, second = shards[at]["ShardId"], shards[at + 1]["ShardId"]
                kinesis.merge_shards(StreamName=stream, ShardToMerge=first, AdjacentShardToMerge=second)
                counted["merges"] += 1
        except ClientError as error:
            # What the first attempt did, the next one finds done: as on the service, these calls can't be told apart.
            assert error.response["Error"]["Code"] in {"ResourceInUseException", "InvalidArgumentException"}, error
            assert error.response["ResponseMetadata"]["RetryAttempts"] > 0, error
            counted["found done by an earlier attempt"] += 1
        summary = lambda: kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
        wait("the stream is ACTIVE", lambda: summary()["StreamStatus"] == "ACTIVE")
