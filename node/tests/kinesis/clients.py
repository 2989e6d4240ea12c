"""boto3 against a cluster of three nodes: clients.py SCENARIO ENDPOINT,ENDPOINT,…

Every scenario has a cluster of its own. Calls go to the nodes in turn: any of them serves any call, and what was done
through one is seen through all.
"""

import base64
import datetime
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from unittest import mock

import botocore.session
import httpx
import moto
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError

from cluster import ACCOUNT, BOUND_S, REGION, Kinesis, equal, refused, wait
from kcl import KCL_2, KCL_3, Tables, Worker, java


def table(endpoints):
    """api.table says what the service's own model says."""
    path = os.path.join(os.path.dirname(__file__), "../../src/kinesis/wire/api.table")
    ours = {}
    for line in open(path):
        if line.strip() and not line.startswith("#"):
            kind, name, *rest = line.rstrip("\n").split(" ", 2)
            ours[(kind == "operation", name)] = (kind, rest[0] if rest else "")
    model = botocore.session.get_session().get_service_model("kinesis")
    newest = ("Channel", "Queue", "DistributionStrategy")
    left_out = {"RecordDistributionStrategy", "ChannelCount", "QueueCount", "ChannelCountLimit"}
    also_required = {("PutRecordInput", "PartitionKey"), ("PutRecordsRequestEntry", "PartitionKey")}
    operations = [it for it in model.operation_names if not any(word in it for word in newest)]
    equal(sorted(name for is_operation, name in ours if is_operation), sorted(operations))

    def bounds(shape):
        low, high = shape.metadata.get("min"), shape.metadata.get("max")
        if low is None and high is None:
            return ""
        return f"{'' if low is None else low}..{'' if high is None else high}"

    def line(shape):
        """A shape as the table writes it."""
        raw = model._shape_resolver._shape_map[shape.name]
        if shape.type_name == "structure":
            if raw.get("exception"):
                return ("error", "")
            needed = set(shape.required_members) | {it for name, it in also_required if name == shape.name}
            members = [
                f"{name}{'!' if name in needed else ''}:{member.name}"
                for name, member in shape.members.items()
                if name not in left_out
            ]
            return ("struct", " ".join(members))
        words = []
        if shape.type_name == "list":
            words = [shape.member.name, bounds(shape)]
        elif shape.type_name == "map":
            words = [shape.key.name, shape.value.name, bounds(shape)]
        elif raw.get("enum"):
            return ("enum", " ".join(raw["enum"]))
        else:
            pattern = raw.get("pattern", "")
            # The whole text must match: the service's messages leave the anchors out.
            anchored = re.fullmatch(r"\^\((.*)\)\$", pattern)
            pattern = anchored.group(1) if anchored else pattern.removeprefix("^")
            words = [bounds(shape), f"/{pattern}" if pattern else ""]
        return (shape.type_name, " ".join(word for word in words if word))

    for name in operations:
        operation = model.operation_model(name)
        output = operation.output_shape.name if operation.output_shape else "-"
        equal(ours[(True, name)], ("operation", f"{operation.input_shape.name} {output}"))
    for is_operation, name in ours:
        if not is_operation:
            equal((name, ours[(False, name)]), (name, line(model.shape_for(name))))


def life_of_a_stream(endpoints):
    kinesis = Kinesis(endpoints)
    before = time.time()
    made = kinesis.create("orders", 3)
    equal(made["StreamARN"], f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/orders")
    equal((made["OpenShardCount"], made["RetentionPeriodHours"], made["EncryptionType"]), (3, 24, "NONE"))
    assert abs(made["StreamCreationTimestamp"].timestamp() - before) < 30
    described = kinesis.describe_stream(StreamARN=made["StreamARN"])["StreamDescription"]
    equal([it["ShardId"] for it in described["Shards"]], [f"shardId-{n:012}" for n in range(3)])
    third = 2**128 // 3
    ranges = [(it["HashKeyRange"]["StartingHashKey"], it["HashKeyRange"]["EndingHashKey"]) for it in described["Shards"]]
    equal(ranges, [("0", str(third - 1)), (str(third), str(2 * third - 1)), (str(2 * third), str(2**128 - 1))])
    page = kinesis.describe_stream(StreamName="orders", Limit=2)["StreamDescription"]
    equal((len(page["Shards"]), page["HasMoreShards"]), (2, True))
    after = page["Shards"][-1]["ShardId"]
    page = kinesis.describe_stream(StreamName="orders", ExclusiveStartShardId=after)["StreamDescription"]
    equal((len(page["Shards"]), page["HasMoreShards"]), (1, False))

    text = refused("ResourceInUseException", kinesis.create_stream, StreamName="orders", ShardCount=1)
    equal(text, f"Stream orders under account {ACCOUNT} already exists.")

    # Shards come by a hundred, whoever asks for more.
    kinesis.create("wide", 101)
    page = kinesis.describe_stream(StreamName="wide", Limit=1000)["StreamDescription"]
    equal((len(page["Shards"]), page["HasMoreShards"]), (100, True))
    kinesis.delete_stream(StreamName="wide")
    wait("the stream is gone", lambda: kinesis.list_streams()["StreamNames"] == ["orders"])

    for name in ["a", "b", "c"]:
        kinesis.create_stream(StreamName=name, ShardCount=1)
    listed = kinesis.list_streams(Limit=3)
    equal((listed["StreamNames"], listed["HasMoreStreams"]), (["a", "b", "c"], True))
    equal(listed["StreamSummaries"][0]["StreamARN"], f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/a")
    listed = kinesis.list_streams(NextToken=listed["NextToken"])
    equal((listed["StreamNames"], listed["HasMoreStreams"]), (["orders"], False))
    equal(kinesis.list_streams(ExclusiveStartStreamName="b")["StreamNames"], ["c", "orders"])

    kinesis.increase_stream_retention_period(StreamName="orders", RetentionPeriodHours=48)
    equal(kinesis.active("orders")["RetentionPeriodHours"], 48)
    text = refused(
        "InvalidArgumentException", kinesis.increase_stream_retention_period, StreamName="orders", RetentionPeriodHours=36
    )
    assert "can not be shorter than existing retention period (48 hours)" in text, text
    kinesis.decrease_stream_retention_period(StreamName="orders", RetentionPeriodHours=24)
    equal(kinesis.active("orders")["RetentionPeriodHours"], 24)
    for hours, word in [(23, "Minimum"), (8761, "Maximum")]:
        text = refused(
            "InvalidArgumentException",
            kinesis.increase_stream_retention_period,
            StreamName="orders",
            RetentionPeriodHours=hours,
        )
        assert text.startswith(word), text

    kinesis.update_max_record_size(StreamARN=made["StreamARN"], MaxRecordSizeInKiB=2048)
    equal(kinesis.active("orders")["MaxRecordSizeInKiB"], 2048)
    kinesis.put_record(StreamName="orders", Data=b"x" * (2 << 20 - 2), PartitionKey="k")

    # The waiters that tools use.
    next(kinesis.turn).get_waiter("stream_exists").wait(StreamName="orders")
    kinesis.delete_stream(StreamName="orders")
    waiter = next(kinesis.turn).get_waiter("stream_not_exists")
    waiter.wait(StreamName="orders", WaiterConfig={"Delay": 1, "MaxAttempts": BOUND_S})
    text = refused("ResourceNotFoundException", kinesis.describe_stream, StreamName="orders")
    equal(text, f"Stream orders under account {ACCOUNT} not found.")


def records(endpoints):
    kinesis = Kinesis(endpoints)
    kinesis.create("clicks", 4)
    arn = kinesis.summary("clicks")["StreamARN"]
    # Bytes of every value; an aggregated record of the KPL, which is opaque; nothing at all.
    body = b"\x0a\x01k\x1a\x05\x08\x00\x1a\x01x"
    aggregated = b"\xf3\x89\x9a\xc2" + body + hashlib.md5(body).digest()
    data = [bytes(range(256)), aggregated, b"", "ж🦀".encode()]
    sent = {}
    for n, it in enumerate(data):
        key = f"key-{n}-🦀"
        answer = kinesis.put_record(StreamName="clicks", Data=it, PartitionKey=key)
        sent[answer["SequenceNumber"]] = (answer["ShardId"], key, it)
    entries = [{"Data": f"{n}".encode(), "PartitionKey": f"k{n}"} for n in range(500)]
    answer = kinesis.put_records(StreamARN=arn, Records=entries)
    equal(answer["FailedRecordCount"], 0)
    for entry, result in zip(entries, answer["Records"], strict=True):
        sent[result["SequenceNumber"]] = (result["ShardId"], entry["PartitionKey"], entry["Data"])
    equal(len(sent), len(data) + len(entries))

    shards = {it["ShardId"]: it for it in kinesis.list_shards(StreamARN=arn)["Shards"]}
    read = {}
    for shard in shards:
        found, last = kinesis.read("clicks", shard)
        assert last["NextShardIterator"] and "ChildShards" not in last, last
        numbers = [int(it["SequenceNumber"]) for it in found]
        equal(numbers, sorted(numbers))
        for it in found:
            assert abs(it["ApproximateArrivalTimestamp"].timestamp() - time.time()) < BOUND_S + 30
            read[it["SequenceNumber"]] = (shard, it["PartitionKey"], it["Data"])
    equal(read, sent)
    for number, (shard, key, _) in sent.items():
        assert re.fullmatch("[1-9][0-9]{55}", number), number
        hashed = int(hashlib.md5(key.encode()).hexdigest(), 16)
        keys = shards[shard]["HashKeyRange"]
        assert int(keys["StartingHashKey"]) <= hashed <= int(keys["EndingHashKey"]), (key, shard)

    top = kinesis.put_record(StreamName="clicks", Data=b"t", PartitionKey="k", ExplicitHashKey=str(2**128 - 1))
    equal(top["ShardId"], "shardId-000000000003")
    again = kinesis.put_record(
        StreamName="clicks",
        Data=b"t",
        PartitionKey="k",
        ExplicitHashKey=str(2**128 - 1),
        SequenceNumberForOrdering=top["SequenceNumber"],
    )
    assert int(again["SequenceNumber"]) > int(top["SequenceNumber"])


def iterators(endpoints):
    kinesis = Kinesis(endpoints)
    kinesis.create("s", 1)
    shard = "shardId-000000000000"
    latest = kinesis.iterator("s", shard, "LATEST")
    numbers = [
        kinesis.put_record(StreamName="s", Data=f"{n}".encode(), PartitionKey="k")["SequenceNumber"] for n in range(5)
    ]
    raw = base64.b64decode(latest)
    equal((raw[:8].hex(), (len(raw) - 152) % 16, len(latest) <= 512), ("0000000000000001", 0, True))

    def texts(found):
        return [it["Data"].decode() for it in found]

    equal(texts(kinesis.get_records(ShardIterator=latest)["Records"]), ["0", "1", "2", "3", "4"])
    equal(texts(kinesis.get_records(ShardIterator=latest)["Records"]), ["0", "1", "2", "3", "4"])  # again
    # As a careless shell script has it.
    equal(texts(kinesis.get_records(ShardIterator=f'"{latest}"')["Records"]), ["0", "1", "2", "3", "4"])
    # A shard is its number, however it is written.
    equal(texts(kinesis.read("s", "shard-0")[0]), ["0", "1", "2", "3", "4"])
    at = {"StartingSequenceNumber": numbers[2]}
    equal(texts(kinesis.read("s", shard, "AT_SEQUENCE_NUMBER", **at)[0]), ["2", "3", "4"])
    equal(texts(kinesis.read("s", shard, "AFTER_SEQUENCE_NUMBER", **at)[0]), ["3", "4"])
    first = kinesis.get_records(ShardIterator=kinesis.iterator("s", shard), Limit=1)
    equal(texts(first["Records"]), ["0"])
    third = kinesis.read("s", shard)[0][2]["ApproximateArrivalTimestamp"]
    found = texts(kinesis.read("s", shard, "AT_TIMESTAMP", Timestamp=third)[0])
    assert found[-3:] == ["2", "3", "4"], found
    equal(texts(kinesis.read("s", shard, "AT_TIMESTAMP", Timestamp=1_000_000_000)[0]), ["0", "1", "2", "3", "4"])

    no = "InvalidArgumentException"
    ask = {"StreamName": "s", "ShardId": shard}
    for kind, more, words in [
        ("AT_TIMESTAMP", {}, "Must specify timestampInMillis"),
        ("AT_TIMESTAMP", {"Timestamp": time.time() + 3600}, "cannot be greater than the currentTimestampInMillis"),
        ("AT_SEQUENCE_NUMBER", {}, "and no StartingSequenceNumber"),
        ("LATEST", at, "also a StartingSequenceNumber"),
        ("AT_SEQUENCE_NUMBER", {"StartingSequenceNumber": "7"}, "7"),
    ]:
        text = refused(no, kinesis.get_shard_iterator, ShardIteratorType=kind, **ask, **more)
        assert words in text, text
    equal(refused(no, kinesis.get_records, ShardIterator="AAAA"), "Invalid ShardIterator.")
    forged = base64.b64encode(raw[:40] + bytes([raw[40] ^ 1]) + raw[41:]).decode()
    equal(refused(no, kinesis.get_records, ShardIterator=forged), "Invalid ShardIterator.")
    text = refused(
        "ResourceNotFoundException",
        kinesis.get_shard_iterator,
        StreamName="s",
        ShardId="shardId-000000000007",
        ShardIteratorType="LATEST",
    )
    equal(text, f"Shard shardId-000000000007 in stream s under account {ACCOUNT} does not exist")
    # An iterator dies with its stream, even if the name comes back.
    kinesis.delete_stream(StreamName="s")
    wait("s is gone", lambda: "s" not in kinesis.list_streams()["StreamNames"])
    refused("ResourceNotFoundException", kinesis.get_records, ShardIterator=latest)


def reshard(endpoints):
    kinesis = Kinesis(endpoints)
    kinesis.create("s", 2)
    shards = {it["ShardId"]: it for it in kinesis.list_shards(StreamName="s")["Shards"]}
    first, second = sorted(shards)
    for n in range(40):
        kinesis.put_record(StreamName="s", Data=f"old-{n}".encode(), PartitionKey=f"{n}")
    start, end = (int(shards[first]["HashKeyRange"][it]) for it in ("StartingHashKey", "EndingHashKey"))
    for at in [start, start + 1, end, end + 1]:
        text = refused(
            "InvalidArgumentException", kinesis.split_shard, StreamName="s", ShardToSplit=first, NewStartingHashKey=str(at)
        )
        assert "is not both greater than one plus the shard's StartingHashKey" in text, text
    for name, said in [("shard-7", "shardId-000000000007"), ("first", "first")]:
        text = refused(
            "ResourceNotFoundException", kinesis.split_shard, StreamName="s", ShardToSplit=name, NewStartingHashKey="9"
        )
        equal(text, f"Could not find shard {said} in stream s under account {ACCOUNT}.")
    text = refused(
        "ResourceNotFoundException", kinesis.merge_shards, StreamName="s", ShardToMerge=first, AdjacentShardToMerge="7"
    )
    equal(text, f"Could not find shard shardId-000000000007 in stream s under account {ACCOUNT}.")
    # By the cluster's clock, which need not show what this machine's does: a shard's end is not before its last record.
    arrived = max(it["ApproximateArrivalTimestamp"] for it in kinesis.read("s", first)[0])
    between = arrived - datetime.timedelta(milliseconds=1)
    kinesis.split_shard(StreamName="s", ShardToSplit=first, NewStartingHashKey=str(end // 2))
    equal(kinesis.active("s")["OpenShardCount"], 3)
    found, last = kinesis.read("s", first)
    assert found and last.get("NextShardIterator") is None, last
    children = last["ChildShards"]
    equal([it["ShardId"] for it in children], ["shardId-000000000002", "shardId-000000000003"])
    equal([it["ParentShards"] for it in children], [[first], [first]])
    equal(children[0]["HashKeyRange"], {"StartingHashKey": "0", "EndingHashKey": str(end // 2 - 1)})

    kinesis.merge_shards(StreamName="s", ShardToMerge=second, AdjacentShardToMerge="shardId-000000000003")
    equal(kinesis.active("s")["OpenShardCount"], 2)
    listed = {it["ShardId"]: it for it in kinesis.list_shards(StreamName="s")["Shards"]}
    equal(sorted(listed), [f"shardId-{n:012}" for n in range(5)])
    merged = listed["shardId-000000000004"]
    equal((merged["ParentShardId"], merged["AdjacentParentShardId"]), (second, "shardId-000000000003"))
    ended = {name for name, it in listed.items() if "EndingSequenceNumber" in it["SequenceNumberRange"]}
    equal(ended, {first, second, "shardId-000000000003"})

    # Everything ever put is read from parents and children, each once.
    for n in range(40):
        kinesis.put_record(StreamName="s", Data=f"new-{n}".encode(), PartitionKey=f"{n}")
    data = [it["Data"].decode() for shard in listed for it in kinesis.read("s", shard)[0]]
    equal(sorted(data), sorted([f"old-{n}" for n in range(40)] + [f"new-{n}" for n in range(40)]))

    def names(**filter):
        pages, token = [], None
        while True:
            ask = {"NextToken": token} if token else {"StreamName": "s", "ShardFilter": filter}
            page = kinesis.list_shards(MaxResults=1, **ask)
            pages += [int(it["ShardId"][-1]) for it in page["Shards"]]
            token = page.get("NextToken")
            if not token:
                return pages

    equal(names(Type="AT_LATEST"), [2, 4])
    equal(names(Type="AFTER_SHARD_ID", ShardId="shardId-000000000002"), [3, 4])
    equal(names(Type="AT_TRIM_HORIZON"), [0, 1])
    equal(names(Type="FROM_TRIM_HORIZON"), [0, 1, 2, 3, 4])
    equal(names(Type="AT_TIMESTAMP", Timestamp=between), [0, 1])
    equal(names(Type="FROM_TIMESTAMP", Timestamp=between), [0, 1, 2, 3, 4])
    text = refused("InvalidArgumentException", kinesis.list_shards, NextToken="nonsense")
    equal(text, "Invalid NextToken.")
    text = refused("InvalidArgumentException", kinesis.list_shards, StreamName="s", NextToken="nonsense")
    equal(text, "NextToken and StreamName cannot be provided together.")
    text = refused(
        "InvalidArgumentException",
        kinesis.merge_shards,
        StreamName="s",
        ShardToMerge="shardId-000000000002",
        AdjacentShardToMerge="shardId-000000000003",
    )
    assert text.endswith("are not an adjacent pair of shards eligible for merging"), text


def scale(endpoints):
    kinesis = Kinesis(endpoints)
    arn = kinesis.create("s", 2)["StreamARN"]

    def update(target, **stream):
        return kinesis.update_shard_count(**(stream or {"StreamName": "s"}), TargetShardCount=target, ScalingType="UNIFORM_SCALING")

    def shards(**filter):
        return kinesis.list_shards(StreamName="s", ShardFilter=filter)["Shards"]

    def put(text):
        for n in range(40):
            kinesis.put_record(StreamName="s", Data=f"{text}-{n}".encode(), PartitionKey=f"{n}")

    def starts(shards):
        return sorted(int(it["HashKeyRange"]["StartingHashKey"]) for it in shards)

    put("of two")
    answer = update(4)
    told = {"StreamName": "s", "CurrentShardCount": 2, "TargetShardCount": 4, "StreamARN": arn}
    equal({name: answer.get(name) for name in told}, told)
    equal(kinesis.active("s")["OpenShardCount"], 4)
    found = shards(Type="AT_LATEST")
    equal([int(it["ShardId"][-1]) for it in found], [2, 3, 4, 5])
    equal(starts(found), [n * 2**126 for n in range(4)])
    equal(sorted(it["ParentShardId"][-1] for it in found), ["0", "0", "1", "1"])
    put("of four")
    answer = update(2, StreamARN=arn)
    told.update(CurrentShardCount=4, TargetShardCount=2)
    equal({name: answer.get(name) for name in told}, told)
    equal(kinesis.active("s")["OpenShardCount"], 2)
    found = shards(Type="AT_LATEST")
    equal(([int(it["ShardId"][-1]) for it in found], starts(found)), ([6, 7], [0, 2**127]))
    assert all("AdjacentParentShardId" in it for it in found), found
    listed = [it["ShardId"] for it in kinesis.list_shards(StreamName="s")["Shards"]]
    equal(listed, [f"shardId-{n:012}" for n in range(8)])
    equal([it["ShardId"] for it in shards(Type="AT_TRIM_HORIZON")], listed[:2])
    put("of two again")
    data = [it["Data"].decode() for shard in listed for it in kinesis.read("s", shard)[0]]
    equal(sorted(data), sorted(f"{text}-{n}" for text in ("of two", "of four", "of two again") for n in range(40)))

    for target in [5, 10_001]:
        text = refused("LimitExceededException", update, target=target)
        assert text.startswith(f"{target} shards: "), text
    text = refused("ResourceNotFoundException", update, target=2, StreamName="none")
    equal(text, f"Stream none under account {ACCOUNT} not found.")
    # Ten in a day; those that were refused don't count, and those that change nothing do.
    for _ in range(8):
        update(2)
    text = refused("LimitExceededException", update, target=4)
    assert "10 times within 24 hours" in text, text
    kinesis.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    kinesis.active("s")
    text = refused("ValidationException", update, target=4)
    assert text.endswith("is in On-Demand mode."), text


def namespaces(endpoints):
    home = Kinesis(endpoints)
    abroad = Kinesis(endpoints, region="eu-west-1")
    other = Kinesis(endpoints, key="123456789012")
    for n, kinesis in enumerate([home, abroad, other]):
        kinesis.create("same", n + 1)
        equal(kinesis.list_streams()["StreamNames"], ["same"])
    arns = [it.summary("same")["StreamARN"] for it in (home, abroad, other)]
    expected = [("us-east-1", ACCOUNT), ("eu-west-1", ACCOUNT), ("us-east-1", "123456789012")]
    equal(arns, [f"arn:aws:kinesis:{region}:{account}:stream/same" for region, account in expected])
    counts = [it.summary("same")["OpenShardCount"] for it in (home, abroad, other)]
    equal(counts, [1, 2, 3])
    other.delete_stream(StreamName="same")
    wait("it is gone", lambda: not other.list_streams()["StreamNames"])
    equal(home.status("same"), "ACTIVE")
    text = refused("ResourceNotFoundException", other.describe_stream, StreamName="same")
    equal(text, "Stream same under account 123456789012 not found.")


def refusals(endpoints):
    # Without retries: what is refused is to be seen.
    kinesis = Kinesis(endpoints, retries=1)
    kinesis.create("s", 1)
    answer = kinesis.put_records(
        StreamName="s", Records=[{"Data": b"x" * 600_000, "PartitionKey": f"{n}"} for n in range(4)]
    )
    failed = [it for it in answer["Records"] if "ErrorCode" in it]
    equal(answer["FailedRecordCount"], len(failed))
    assert 0 < len(failed) < 4, answer
    for it in failed:
        equal(it["ErrorCode"], "ProvisionedThroughputExceededException")
        assert it["ErrorMessage"].startswith("Rate exceeded for shard shardId-000000000000 in stream s under account"), it
        assert "SequenceNumber" not in it and "ShardId" not in it, it

    text = refused(
        "ValidationException",
        kinesis.put_records,
        StreamName="s",
        Records=[{"Data": b"x", "PartitionKey": "a"}, {"Data": b"x" * (1 << 20), "PartitionKey": "a"}],
    )
    constraint = "failed to satisfy constraint: Member must have length less than or equal to"
    equal(text, f"1 validation error detected: Value at 'records.2.member.data' {constraint} 1048576")
    many = [{"Data": b"x", "PartitionKey": "a"}] * 501
    text = refused("ValidationException", kinesis.put_records, StreamName="s", Records=many)
    equal(text, f"1 validation error detected: Value at 'records' {constraint} 500")
    text = refused(
        "InvalidArgumentException",
        kinesis.put_records,
        StreamName="s",
        Records=[{"Data": b"x" * 900_000, "PartitionKey": f"{n}"} for n in range(6)],
    )
    equal(text, "Records size exceeds 5 MB limit")
    text = refused(
        "InvalidArgumentException",
        kinesis.put_record,
        StreamName="s",
        Data=b"x",
        PartitionKey="a",
        ExplicitHashKey=str(2**128),
    )
    assert text.startswith("Invalid ExplicitHashKey."), text
    text = refused("ResourceNotFoundException", kinesis.put_record, StreamName="none", Data=b"x", PartitionKey="a")
    equal(text, f"Stream none under account {ACCOUNT} not found.")
    text = refused("InvalidArgumentException", kinesis.describe_stream)
    equal(text, "Either StreamName or StreamARN must be provided.")
    refused("DryRunOperationException", kinesis.put_record, StreamName="s", Data=b"", PartitionKey="a", DryRun=True)

    # Reads, too: five in a second. Asked until one is refused, by several at once: this machine may be slow.
    iterator = kinesis.iterator("s", "shardId-000000000000", "LATEST")
    seen = set()

    def ask(kinesis):
        while not seen:
            try:
                kinesis.get_records(ShardIterator=iterator)
            except ClientError as error:
                seen.add(error.response["Error"]["Code"])

    askers = [threading.Thread(target=ask, args=[Kinesis(endpoints, retries=1)], daemon=True) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(BOUND_S)
    equal(seen, {"ProvisionedThroughputExceededException"})


def wire(endpoints):
    """Requests that no SDK would send."""
    address = urllib.parse.urlparse(endpoints[0])
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    signed = (
        "AWS4-HMAC-SHA256 Credential=test/20300101/us-east-1/kinesis/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=abc"
    )
    json_type, cbor_type = "application/x-amz-json-1.1", "application/x-amz-cbor-1.1"
    ids = set()

    def ask(body=b"{}", method="POST", path="/", **headers):
        given = {
            "Content-Type": json_type,
            "X-Amz-Target": "Kinesis_20131202.ListStreams",
            "X-Amz-Date": "20300101T000000Z",
            "Authorization": signed,
        }
        for name, value in headers.items():
            given[name.replace("_", "-")] = value
        given = {name: value for name, value in given.items() if value is not None}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        content = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        assert re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found["x-amzn-requestid"]), found
        equal(len(base64.b64decode(found["x-amz-id-2"])), 72)
        assert found["x-amzn-requestid"] not in ids
        ids.add(found["x-amzn-requestid"])
        if found["content-type"] == json_type and content:
            content = json.loads(content)
        return answer.status, found["content-type"], content

    status, kind, content = ask()
    equal((status, kind, content["StreamNames"]), (200, json_type, []))
    equal(ask(Content_Type=json_type + "; charset=utf-8")[0], 200)
    missing = (400, json_type, {"__type": "MissingAuthenticationTokenException", "message": "Missing Authentication Token"})
    equal(ask(Authorization=None), missing)
    status, _, content = ask(Authorization="AWS4-HMAC-SHA256 Credential=a", X_Amz_Date=None)
    equal((status, content["__type"]), (400, "IncompleteSignatureException"))
    equal(
        content["message"],
        "Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. "
        "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
        "Authorization=AWS4-HMAC-SHA256 Credential=a",
    )
    status, _, content = ask(path="/?X-Amz-Algorithm=AWS4-HMAC-SHA256")
    equal((status, content["__type"]), (400, "InvalidSignatureException"))
    status, _, content = ask(path="/?X-Amz-Algorithm=AWS4-HMAC-SHA256", Authorization=None)
    equal((status, content["__type"]), (400, "IncompleteSignatureException"))
    query = "X-Amz-Algorithm=a&X-Amz-Credential=test/20300101/us-east-1/kinesis/aws4_request"
    query += "&X-Amz-Signature=a&X-Amz-SignedHeaders=host&X-Amz-Date=20300101T000000Z"
    equal(ask(path=f"/?{query}", Authorization=None)[0], 200)

    unknown = (400, json_type, {"__type": "UnknownOperationException"})
    for target in ["Kinesis_20131202.CreateChannel", "Kinesis_20131202.Nonsense", "DynamoDB_20120810.ListTables", "x", None]:
        equal(ask(X_Amz_Target=target), unknown)
    equal(ask(body=b"{"), (400, json_type, {"__type": "SerializationException"}))
    equal(ask(body=b'{"Limit":"a"}')[2]["Message"], "class java.lang.String can not be converted to an Integer")
    equal(ask(body=b"[" * 100_000)[0], 400)
    status, kind, content = ask(Content_Type="text/plain")
    equal((status, kind, content), (404, "application/xml", b"<UnknownOperationException/>\n"))
    status, _, content = ask(method="GET", body=None)
    equal(status, 403)
    assert b"Unable to determine service/operation name to be authorized" in content, content
    equal(ask(method="OPTIONS", Origin="http://a", body=None)[0], 200)

    # CBOR, answered in CBOR: {} → StreamNames, an empty list, and HasMoreStreams, false.
    status, kind, content = ask(body=b"\xbf\xff", Content_Type=cbor_type)
    equal((status, kind), (200, cbor_type))
    equal(content[:14], b"\xa3\x6bStreamNames\x80")
    status, kind, content = ask(body=b"\xff", Content_Type=cbor_type)
    equal((status, kind), (400, cbor_type))
    equal(content, b"\xa1\x66__type\x76SerializationException")

    # A body that is too long is refused before it is read whole; the connection need not survive it.
    try:
        status, _, content = ask(body=b" " * (32 << 20))
        equal((status, content["__type"]), (413, "RequestEntityTooLargeException"))
    except (BrokenPipeError, ConnectionResetError):
        pass
    connection.close()
    equal(ask()[0], 200)


def attributes(endpoints):
    kinesis = Kinesis(endpoints)
    kinesis.create_stream(StreamName="s", ShardCount=1, Tags={"team": "blue"})
    arn = kinesis.active("s")["StreamARN"]
    kinesis.add_tags_to_stream(StreamName="s", Tags={"cost": "42", "a b": ""})
    kinesis.tag_resource(ResourceARN=arn, Tags={"team": "red"})

    def tags():
        return {it["Key"]: it["Value"] for it in kinesis.list_tags_for_stream(StreamName="s")["Tags"]}

    equal(tags(), {"a b": "", "cost": "42", "team": "red"})
    page = kinesis.list_tags_for_stream(StreamName="s", Limit=2)
    equal(([it["Key"] for it in page["Tags"]], page["HasMoreTags"]), (["a b", "cost"], True))
    page = kinesis.list_tags_for_stream(StreamName="s", ExclusiveStartTagKey="cost")
    equal(([it["Key"] for it in page["Tags"]], page["HasMoreTags"]), (["team"], False))
    kinesis.remove_tags_from_stream(StreamName="s", TagKeys=["a b"])
    kinesis.untag_resource(ResourceARN=arn, TagKeys=["cost", "never there"])
    equal(kinesis.list_tags_for_resource(ResourceARN=arn)["Tags"], [{"Key": "team", "Value": "red"}])
    refused("LimitExceededException", kinesis.add_tags_to_stream, StreamName="s", Tags={f"k{n}": "" for n in range(50)})
    refused("InvalidArgumentException", kinesis.add_tags_to_stream, StreamName="s", Tags={"a%": ""})
    equal(tags(), {"team": "red"})

    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    equal(kinesis.get_resource_policy(ResourceARN=arn)["Policy"], "{}")
    kinesis.put_resource_policy(ResourceARN=arn, Policy=policy)
    equal(kinesis.get_resource_policy(ResourceARN=arn)["Policy"], policy)
    kinesis.delete_resource_policy(ResourceARN=arn)
    refused("ResourceNotFoundException", kinesis.delete_resource_policy, ResourceARN=arn)
    refused("InvalidArgumentException", kinesis.put_resource_policy, ResourceARN=arn, Policy="no")

    kinesis.start_stream_encryption(StreamName="s", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    found = kinesis.active("s")
    equal((found["EncryptionType"], found["KeyId"]), ("KMS", "alias/aws/kinesis"))
    equal(kinesis.describe_stream(StreamName="s")["StreamDescription"]["KeyId"], "alias/aws/kinesis")
    kinesis.stop_stream_encryption(StreamName="s", EncryptionType="KMS", KeyId="alias/aws/kinesis")
    found = kinesis.active("s")
    equal((found["EncryptionType"], "KeyId" in found), ("NONE", False))

    answer = kinesis.enable_enhanced_monitoring(StreamName="s", ShardLevelMetrics=["IncomingBytes", "OutgoingBytes"])
    equal((answer["CurrentShardLevelMetrics"], answer["DesiredShardLevelMetrics"]), ([], ["IncomingBytes", "OutgoingBytes"]))
    answer = kinesis.disable_enhanced_monitoring(StreamName="s", ShardLevelMetrics=["OutgoingBytes"])
    equal(answer["DesiredShardLevelMetrics"], ["IncomingBytes"])
    equal(kinesis.summary("s")["EnhancedMonitoring"], [{"ShardLevelMetrics": ["IncomingBytes"]}])
    answer = kinesis.enable_enhanced_monitoring(StreamName="s", ShardLevelMetrics=["ALL"])
    equal(len(answer["DesiredShardLevelMetrics"]), 7)

    refused("ValidationException", kinesis.update_stream_warm_throughput, StreamName="s", WarmThroughputMiBps=100)
    kinesis.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    equal(kinesis.active("s")["StreamModeDetails"], {"StreamMode": "ON_DEMAND"})
    answer = kinesis.update_stream_warm_throughput(StreamName="s", WarmThroughputMiBps=100)
    equal(answer["WarmThroughput"], {"TargetMiBps": 100, "CurrentMiBps": 100})
    text = refused(
        "ValidationException", kinesis.split_shard, StreamName="s", ShardToSplit="shardId-000000000000", NewStartingHashKey="9"
    )
    equal(text, f"Request is invalid. Stream s under account {ACCOUNT} is in On-Demand mode.")
    kinesis.create_stream(StreamName="d", StreamModeDetails={"StreamMode": "ON_DEMAND"})
    equal(kinesis.active("d")["OpenShardCount"], 4)
    limits = kinesis.describe_limits()
    # The cluster may have begun to give "s" the four shards that an on-demand stream has at least.
    assert 5 <= limits["OpenShardCount"] <= 8, limits
    equal(limits["OnDemandStreamCount"], 2)
    kinesis.active("s")
    kinesis.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": "PROVISIONED"})
    equal(kinesis.active("s")["StreamModeDetails"], {"StreamMode": "PROVISIONED"})

    status = "MinimumThroughputBillingCommitment"
    equal(kinesis.describe_account_settings()[status]["Status"], "DISABLED")
    answer = kinesis.update_account_settings(**{status: {"Status": "ENABLED"}})[status]
    equal((answer["Status"], "StartedAt" in answer), ("ENABLED", True))
    equal(kinesis.describe_account_settings()[status], answer)
    equal(Kinesis(endpoints, region="eu-west-1").describe_account_settings()[status]["Status"], "DISABLED")


def consumers(endpoints):
    kinesis = Kinesis(endpoints)
    arn = kinesis.create("s", 1)["StreamARN"]
    shard = "shardId-000000000000"
    made = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="app", Tags={"k": "v"})["Consumer"]
    assert re.fullmatch(re.escape(arn) + "/consumer/app:[0-9]+", made["ConsumerARN"]), made
    refused("ResourceInUseException", kinesis.register_stream_consumer, StreamARN=arn, ConsumerName="app")

    def described(**ask):
        return kinesis.describe_stream_consumer(**ask)["ConsumerDescription"]

    consumer = made["ConsumerARN"]
    wait("the consumer is ACTIVE", lambda: described(ConsumerARN=consumer)["ConsumerStatus"] == "ACTIVE")
    equal(described(StreamARN=arn, ConsumerName="app"), described(ConsumerARN=consumer))
    equal(described(ConsumerARN=consumer)["StreamARN"], arn)
    equal(kinesis.list_tags_for_resource(ResourceARN=consumer)["Tags"], [{"Key": "k", "Value": "v"}])
    kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="other")
    page = kinesis.list_stream_consumers(StreamARN=arn, MaxResults=1)
    equal([it["ConsumerName"] for it in page["Consumers"]], ["app"])
    page = kinesis.list_stream_consumers(StreamARN=arn, NextToken=page["NextToken"])
    equal(([it["ConsumerName"] for it in page["Consumers"]], "NextToken" in page), (["other"], False))
    equal(kinesis.summary("s")["ConsumerCount"], 2)
    refused("ResourceInUseException", kinesis.delete_stream, StreamName="s")

    def subscribe(**start):
        answer = kinesis.subscribe_to_shard(ConsumerARN=consumer, ShardId=shard, StartingPosition=start)
        return iter(answer["EventStream"])

    def later(**start):
        """Once the subscription before has settled."""
        found = []

        def taken():
            try:
                found.append(subscribe(**start))
                return True
            except ClientError as error:
                equal(error.response["Error"]["Code"], "ResourceInUseException")
                return False

        wait("the subscription is taken over", taken)
        return found[0]

    # A second one within five seconds is refused; later ones take over, and the first one's events end. Asked again where
    # this machine was too slow to ask so soon.
    text = None
    while text is None:
        events = later(Type="TRIM_HORIZON")
        try:
            kinesis.subscribe_to_shard(ConsumerARN=consumer, ShardId=shard, StartingPosition={"Type": "LATEST"})
        except ClientError as error:
            text = error.response["Error"]["Message"]
    assert text.startswith("Another active subscription exists for this consumer"), text
    # An empty shard: a place to go on from, at which nothing is missed.
    first = next(events)["SubscribeToShardEvent"]
    equal((first["Records"], first["MillisBehindLatest"]), ([], 0))
    before_all = first["ContinuationSequenceNumber"]
    numbers = [
        kinesis.put_record(StreamName="s", Data=f"{n}".encode(), PartitionKey="k")["SequenceNumber"] for n in range(3)
    ]

    def collect(events, count):
        found, last = [], None
        while len(found) < count:
            last = next(events)["SubscribeToShardEvent"]
            found += last["Records"]
        return [it["Data"].decode() for it in found], last

    texts, last = collect(events, 3)
    equal((texts, last["ContinuationSequenceNumber"]), (["0", "1", "2"], numbers[-1]))
    start = time.time()
    idle = next(events)["SubscribeToShardEvent"]
    equal((idle["Records"], idle["ContinuationSequenceNumber"]), ([], numbers[-1]))
    assert time.time() - start < 20, "no sign of life"

    second = later(Type="AFTER_SEQUENCE_NUMBER", SequenceNumber=before_all)
    equal(collect(second, 3)[0], ["0", "1", "2"])
    equal([it for it in events if it["SubscribeToShardEvent"]["Records"]], [])
    third = later(Type="AFTER_SEQUENCE_NUMBER", SequenceNumber=numbers[1])
    equal(collect(third, 1)[0], ["2"])

    # To the end of a closed shard: its children, and no number to go on from.
    end = int(kinesis.list_shards(StreamARN=arn)["Shards"][0]["HashKeyRange"]["EndingHashKey"])
    kinesis.split_shard(StreamARN=arn, ShardToSplit=shard, NewStartingHashKey=str(end // 2))
    last = [it["SubscribeToShardEvent"] for it in third][-1]
    equal([it["ShardId"] for it in last["ChildShards"]], ["shardId-000000000001", "shardId-000000000002"])
    assert "ContinuationSequenceNumber" not in last, last

    kinesis.deregister_stream_consumer(ConsumerARN=consumer)
    gone = lambda: [it["ConsumerName"] for it in kinesis.list_stream_consumers(StreamARN=arn)["Consumers"]] == ["other"]
    wait("the consumer is gone", gone)
    text = refused("ResourceNotFoundException", kinesis.describe_stream_consumer, ConsumerARN=consumer)
    equal(text, f"Consumer app, account {ACCOUNT} not found.")
    refused(
        "ResourceNotFoundException",
        kinesis.subscribe_to_shard,
        ConsumerARN=consumer,
        ShardId=shard,
        StartingPosition={"Type": "LATEST"},
    )
    kinesis.active("s")
    kinesis.delete_stream(StreamName="s", EnforceConsumerDeletion=True)


def signatures(endpoints):
    """Against a credentials file: see CREDENTIALS in kinesis.rs."""
    owner = Kinesis(endpoints, key="AKIDOWNER", secret="owner's secret/+")
    arn = owner.create("open-one", 1)["StreamARN"]
    owner.create("closed", 1)
    owner.put_record(StreamName="open-one", Data=bytes(range(256)), PartitionKey="ж 100%")
    wrong = Kinesis(endpoints, key="AKIDOWNER", secret="owner's secret")
    text = refused("InvalidSignatureException", wrong.list_streams)
    assert text.startswith("The request signature we calculated does not match"), text
    text = refused("UnrecognizedClientException", Kinesis(endpoints, key="AKIDNOBODY").list_streams)
    equal(text, "The security token included in the request is invalid.")

    # A signed request with another body; one that is too old; one that was signed as a URL.
    credentials = Credentials("AKIDOWNER", "owner's secret/+")

    def signed(body, auth=SigV4Auth, at=None):
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "Kinesis_20131202.ListStreams"}
        request = AWSRequest("POST", endpoints[0] + "/", data=body, headers=headers)
        signer = auth(credentials, "kinesis", REGION)
        moment = datetime.datetime.fromtimestamp(at or time.time(), datetime.timezone.utc)
        with mock.patch("botocore.auth.get_current_datetime", lambda *_, **__: moment):
            signer.add_auth(request)
        return request.prepare()

    def send(request, body):
        url = urllib.parse.urlparse(request.url)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
        connection.request("POST", url.path + ("?" + url.query if url.query else ""), body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    equal(send(signed(b"{}"), b"{}")[0], 200)
    status, content = send(signed(b"{}"), b'{"Limit":1}')
    equal((status, content["__type"]), (400, "InvalidSignatureException"))
    # botocore signs a URL for a call without a body: one that is let in, and then can't be read.
    url = signed(b"", auth=SigV4QueryAuth)
    equal(send(url, b"")[1], {"__type": "SerializationException"})
    equal(send(url, b"{}")[1]["__type"], "InvalidSignatureException")
    status, content = send(signed(b"{}", at=time.time() - 400), b"{}")
    assert status == 400 and content["message"].startswith("Signature expired"), content
    status, content = send(signed(b"{}", at=time.time() + 400), b"{}")
    assert status == 400 and content["message"].startswith("Signature not yet current"), content

    # A policy is kept: reading what is open, and nothing else.
    reader = Kinesis(endpoints, key="AKIDREADER", secret="reader")
    equal(reader.status("open-one"), "ACTIVE")
    shard = "shardId-000000000000"
    equal(len(reader.read("open-one", shard)[0]), 1)
    text = refused("AccessDeniedException", reader.put_record, StreamName="open-one", Data=b"", PartitionKey="k")
    equal(
        text,
        f"User: arn:aws:iam::{ACCOUNT}:user/reader is not authorized to perform: kinesis:PutRecord on resource: {arn} "
        "because no identity-based policy allows the kinesis:PutRecord action",
    )
    refused("AccessDeniedException", reader.describe_stream_summary, StreamName="closed")
    iterator = owner.iterator("closed", shard)
    refused("AccessDeniedException", reader.get_records, ShardIterator=iterator)
    # An account has its own streams, and no way to another's.
    stranger = Kinesis(endpoints, key="AKIDSTRANGER", secret="stranger")
    equal(stranger.list_streams()["StreamNames"], [])
    refused("AccessDeniedException", stranger.describe_stream, StreamARN=arn)
    refused("AccessDeniedException", stranger.get_records, ShardIterator=iterator)
    # Unless its owner lets it in: to a stream, for what the policy says; and to a consumer by a policy of its own.
    shared = {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Resource": arn}
    shared["Action"] = ["kinesis:DescribeStreamSummary", "kinesis:GetShardIterator", "kinesis:GetRecords"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": [shared]})
    owner.put_resource_policy(ResourceARN=arn, Policy=policy)

    def let_in(name, **parameters):
        """Once every node knows of the policy."""
        for endpoint in endpoints:
            one = Kinesis([endpoint], key="AKIDSTRANGER", secret="stranger")

            def works(one=one):
                try:
                    return getattr(one, name)(**parameters) is not None
                except ClientError as error:
                    equal(error.response["Error"]["Code"], "AccessDeniedException")
                    return False

            wait("the policy is known", works)

    let_in("describe_stream_summary", StreamARN=arn)
    start = {"ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
    iterator = stranger.get_shard_iterator(StreamARN=arn, **start)["ShardIterator"]
    equal(len(stranger.get_records(ShardIterator=iterator)["Records"]), 1)
    text = refused("AccessDeniedException", stranger.put_record, StreamARN=arn, Data=b"", PartitionKey="k")
    assert text.endswith("because no resource-based policy allows the kinesis:PutRecord action"), text
    refused("AccessDeniedException", stranger.delete_stream, StreamARN=arn)
    consumer = owner.register_stream_consumer(StreamARN=arn, ConsumerName="theirs")["Consumer"]["ConsumerARN"]
    refused("AccessDeniedException", stranger.describe_stream_consumer, ConsumerARN=consumer)
    shared.update(Action="kinesis:DescribeStreamConsumer", Resource=consumer)
    owner.put_resource_policy(ResourceARN=consumer, Policy=json.dumps({"Statement": [shared]}))
    let_in("describe_stream_consumer", ConsumerARN=consumer)
    shared["Condition"] = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    policy = json.dumps({"Statement": [shared]})
    text = refused("InvalidArgumentException", owner.put_resource_policy, ResourceARN=arn, Policy=policy)
    assert '"IpAddress" is not known' in text, text

    # The file is read again when it changes; a broken one leaves the last good one in force.
    path = os.environ["CREDENTIALS"]
    before = open(path).read()
    with open(path, "w") as file:
        file.write("nonsense")
    # For longer than a node takes to look at it again.
    start = time.time()
    while time.time() - start < 5:
        equal(owner.status("open-one"), "ACTIVE")
    with open(path, "w") as file:
        file.write(before.replace('"stranger"', '"stronger"'))
    # Each node reads it by itself.
    for endpoint in endpoints:
        renewed = Kinesis([endpoint], key="AKIDSTRANGER", secret="stronger")

        def works(renewed=renewed):
            try:
                return renewed.list_streams() is not None
            except ClientError:
                return False

        wait("the new secret is known", works)
    refused("InvalidSignatureException", stranger.list_streams)


def command_line(endpoints):
    """The AWS CLI, as `braid dev` says it."""
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }

    def aws(*words):
        command = [sys.executable, "-m", "awscli", "kinesis", *words, "--endpoint-url", endpoints[0], "--output", "json"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BOUND_S, check=False)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout) if ended.stdout.strip() else None

    aws("create-stream", "--stream-name", "clicks", "--shard-count", "1")
    aws("wait", "stream-exists", "--stream-name", "clicks")
    put = aws("put-record", "--stream-name", "clicks", "--partition-key", "me", "--data", "hello")
    found = aws("get-shard-iterator", "--stream-name", "clicks", "--shard-id", put["ShardId"], "--shard-iterator-type", "TRIM_HORIZON")
    record = aws("get-records", "--shard-iterator", found["ShardIterator"])["Records"][0]
    equal((record["SequenceNumber"], base64.b64decode(record["Data"])), (put["SequenceNumber"], b"hello"))

    # It has no subscribe-to-shard: botocore's event streams are not for a command line.
    aws("split-shard", "--stream-name", "clicks", "--shard-to-split", put["ShardId"], "--new-starting-hash-key", str(2**127))
    aws("wait", "stream-exists", "--stream-name", "clicks")
    halves = [it["ShardId"] for it in aws("list-shards", "--stream-name", "clicks")["Shards"] if it.get("ParentShardId") == put["ShardId"]]
    equal(len(halves), 2)
    aws("merge-shards", "--stream-name", "clicks", "--shard-to-merge", halves[0], "--adjacent-shard-to-merge", halves[1])
    aws("wait", "stream-exists", "--stream-name", "clicks")
    latest = aws("list-shards", "--stream-name", "clicks", "--shard-filter", "Type=AT_LATEST")["Shards"]
    equal([(it["ParentShardId"], it["AdjacentParentShardId"]) for it in latest], [(halves[0], halves[1])])
    after = aws("put-record", "--stream-name", "clicks", "--partition-key", "me", "--data", "once more")
    equal(after["ShardId"], latest[0]["ShardId"])
    aws("delete-stream", "--stream-name", "clicks")
    aws("wait", "stream-not-exists", "--stream-name", "clicks")
    equal(aws("list-streams")["StreamNames"], [])


def prior_knowledge(endpoints):
    """HTTP/2 in clear text, without any upgrade: what KCL and the JavaScript SDK speak. Records in CBOR."""
    made = Kinesis(endpoints).create("s", 1)
    consumer = Kinesis(endpoints).register_stream_consumer(StreamARN=made["StreamARN"], ConsumerName="c")["Consumer"]
    described = lambda: Kinesis(endpoints).describe_stream_consumer(ConsumerARN=consumer["ConsumerARN"])
    wait("the consumer is ACTIVE", lambda: described()["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE")
    Kinesis(endpoints).put_record(StreamName="s", Data=b"hello", PartitionKey="k")

    def head(operation, kind):
        return {
            "Content-Type": kind,
            "X-Amz-Target": f"Kinesis_20131202.{operation}",
            "X-Amz-Date": "20300101T000000Z",
            "Authorization": "AWS4-HMAC-SHA256 Credential=test/20300101/us-east-1/kinesis/aws4_request, "
            "SignedHeaders=host;x-amz-date, Signature=abc",
        }

    with httpx.Client(http1=False, http2=True, timeout=30) as client:
        kind = "application/x-amz-cbor-1.1"
        answer = client.post(endpoints[0], headers=head("ListStreams", kind), content=b"\xa0")
        equal((answer.http_version, answer.status_code, answer.headers["content-type"]), ("HTTP/2", 200, kind))
        assert answer.content.startswith(b"\xa3\x6bStreamNames\x81\x61s"), answer.content
        kind = "application/x-amz-json-1.1"
        start = {"ConsumerARN": consumer["ConsumerARN"], "ShardId": "shardId-000000000000"}
        body = json.dumps({**start, "StartingPosition": {"Type": "TRIM_HORIZON"}}).encode()
        with client.stream("POST", endpoints[0], headers=head("SubscribeToShard", kind), content=body) as answer:
            equal((answer.http_version, answer.status_code), ("HTTP/2", 200))
            equal(answer.headers["content-type"], "application/vnd.amazon.eventstream")
            buffer, events = EventStreamBuffer(), []
            for chunk in answer.iter_bytes():
                buffer.add_data(chunk)
                events += [(it.headers[":event-type"], json.loads(it.payload)) for it in buffer]
                if len(events) >= 2:
                    break
    equal(events[0], ("initial-response", {}))
    kind, event = events[1]
    equal((kind, base64.b64decode(event["Records"][0]["Data"])), ("SubscribeToShardEvent", b"hello"))


def moto_suite(endpoints):
    """moto's own tests: see moto_suite.py."""
    here = os.path.dirname(os.path.abspath(__file__))
    environment = {**os.environ, "BRAID_ENDPOINT": endpoints[0], "PYTHONPATH": here}
    tests = os.path.join(sys.prefix, f"suites/moto-{moto.__version__}/tests/test_kinesis")
    command = [sys.executable, "-m", "pytest", "-p", "moto_suite", "-p", "no:cacheprovider", "-q", "-rfExXs", tests]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10 * BOUND_S, check=False)
    print(ended.stdout, ended.stderr)
    assert ended.returncode == 0, "a test of moto's failed, or one passed that is said to fail"


def java_sdk(endpoints):
    """CBOR over HTTP/2 by prior knowledge, as the Java SDK has it by default."""
    said, _ = java("Sdk.java", endpoints[0]).communicate(timeout=4 * BOUND_S)
    assert said.endswith("the Java SDK: ok\n"), said


def javascript_sdk(endpoints, protocol="h2"):
    """HTTP/2 by prior knowledge, as the JavaScript SDK has it by default."""
    script = os.path.join(os.path.dirname(__file__), "sdk.cjs")
    environment = {**os.environ, "NODE_PATH": os.path.join(sys.prefix, "js"), "NODE_NO_WARNINGS": "1"}
    subprocess.run(["node", script, endpoints[0], protocol], env=environment, timeout=4 * BOUND_S, check=True)


def javascript_sdk_over_http_1(endpoints):
    javascript_sdk(endpoints, "http/1.1")


def rust_sdk(endpoints):
    program = os.path.join(sys.prefix, "rust-sdk/newest/sdk")
    subprocess.run([program, endpoints[0]], timeout=4 * BOUND_S, check=True)


def go_sdk_v1(endpoints):
    subprocess.run([os.path.join(sys.prefix, "go/sdk_v1"), endpoints[0]], timeout=4 * BOUND_S, check=True)


def go_sdk_v2(endpoints):
    subprocess.run([os.path.join(sys.prefix, "go/sdk_v2"), endpoints[0]], timeout=4 * BOUND_S, check=True)


def kcl(endpoints, retrieval="fan-out", jars=KCL_3):
    """KCL reads a stream, one of whose shards is split, and a child then merged: each record once, parents first."""
    kinesis = Kinesis(endpoints)
    kinesis.create("s", 2)
    put = {}

    def write(texts):
        for n, text in enumerate(texts):
            shard = kinesis.put_record(StreamName="s", Data=text.encode(), PartitionKey=f"{n}")["ShardId"]
            put.setdefault(shard, []).append(text)

    write(f"before-{n}" for n in range(50))
    first, second, lower, upper, merged = (f"shardId-{n:012}" for n in range(5))
    with Tables() as tables, Worker(endpoints[0], tables, "s", retrieval, jars) as worker:
        worker.until("both shards begin", lambda: {(first, "begins"), (second, "begins")} <= set(worker.said))
        kinesis.split_shard(StreamName="s", ShardToSplit=first, NewStartingHashKey="1" + "0" * 30)
        kinesis.active("s")
        write(f"between-{n}" for n in range(50))
        # At the end of a merged shard whose neighbour has no lease yet, KCL gives the lease up now and then, and begins again.
        worker.until("the split is followed", lambda: {(lower, "begins"), (upper, "begins")} <= set(worker.said))
        kinesis.merge_shards(StreamName="s", ShardToMerge=upper, AdjacentShardToMerge=second)
        kinesis.active("s")
        write(f"after-{n}" for n in range(50))
        ends = {(shard, "ends") for shard in (first, second, upper)}
        try:
            worker.until("all is given", lambda: ends <= set(worker.said) and sum(map(len, worker.given().values())) >= 150)
        except AssertionError:
            # Whether it is KCL that waits, or Braid that does not say that a shard has ended.
            for endpoint in endpoints:
                for shard in (first, second, lower, upper, merged):
                    records, last = Kinesis([endpoint]).read("s", shard)
                    children = [it["ShardId"] for it in last.get("ChildShards", [])]
                    print(f"{endpoint}: {shard} has {len(records)} records, ended: {'NextShardIterator' not in last}, children: {children}")
            raise
    equal({shard: [it.text for it in given] for shard, given in worker.given().items()}, put)
    for parent, child in [(first, lower), (first, upper), (upper, merged), (second, merged)]:
        events = [it for it in worker.said if it in [(parent, "ends"), (child, "begins")]]
        equal(events, [(parent, "ends"), (child, "begins")])


def kcl_polling(endpoints):
    kcl(endpoints, "polling")


def kcl_2(endpoints):
    kcl(endpoints, "fan-out", KCL_2)


def kcl_2_polling(endpoints):
    kcl(endpoints, "polling", KCL_2)


if __name__ == "__main__":
    scenario, endpoints = sys.argv[1], sys.argv[2].split(",")
    globals()[scenario](endpoints)
    print(f"{scenario}: ok")
