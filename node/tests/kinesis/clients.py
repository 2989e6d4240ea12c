"""boto3 against a cluster of three nodes: clients.py SCENARIO ENDPOINT,ENDPOINT,…

Every scenario has a cluster of its own. Calls go to the nodes in turn: any of them serves any call, and what was done
through one is seen through all.
"""

import base64
import hashlib
import http.client
import itertools
import json
import os
import re
import sys
import threading
import time
import urllib.parse

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

BOUND_S = 60
ACCOUNT, REGION = "000000000000", "us-east-1"


class Kinesis:
    """One client for each node; each call goes to the next."""

    def __init__(self, endpoints, region=REGION, key="test", retries=3):
        config = Config(retries={"max_attempts": retries, "mode": "standard"}, read_timeout=30)
        made = [
            boto3.client(
                "kinesis",
                endpoint_url=endpoint,
                region_name=region,
                aws_access_key_id=key,
                aws_secret_access_key="secret",
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


def wait(what, condition):
    start = time.time()
    while not condition():
        assert time.time() - start < BOUND_S, f"waited {BOUND_S} s until {what}"
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


# ---------------------------------------------------------------- scenarios


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
    between = time.time()
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
    refused(
        "LimitExceededException", kinesis.update_shard_count, StreamName="s", TargetShardCount=4, ScalingType="UNIFORM_SCALING"
    )


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
    assert "at 'records.2.member.data' failed to satisfy constraint: Member must have length less than" in text, text
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


if __name__ == "__main__":
    scenario, endpoints = sys.argv[1], sys.argv[2].split(",")
    globals()[scenario](endpoints)
    print(f"{scenario}: ok")
