"""The AWS CLI at work while nodes are killed and the stream is resharded, with the attempts that it makes by itself:

    kills_cli.py ENDPOINT STREAM NAME

Each call is a process of its own, as somebody's script has it. One writer puts one record at a time, another 20; a reader polls all
shards, from parents to children: the CLI has no subscriptions. On a line of its input the writers stop, and at its end the reader
does, once it is at the tip of every shard. Then it says what was done, a line each; kills_sdks.py judges that:

    sent WRITER RECORDS
    acked SHARD NUMBER TEXT
    polled SHARD NUMBER TEXT
    count WHAT: N
"""

import base64
import collections
import json
import os
import subprocess
import sys
import threading
import time
import traceback

from cluster import BOUND_S, REGION

ENDPOINT, STREAM, NAME = sys.argv[1:]

lines, counted, lock = [], collections.Counter(), threading.Lock()
stopped, finished = threading.Event(), threading.Event()


def say(line):
    with lock:
        lines.append(line)


def count(what, more=1):
    with lock:
        counted[what] += more


ENVIRONMENT = {
    **os.environ,
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


def aws(operation, *words):
    command = [sys.executable, "-m", "awscli", "kinesis", operation, *words, "--endpoint-url", ENDPOINT, "--output", "json"]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=2 * BOUND_S, check=False)
    assert ended.returncode == 0, f"{operation}: {ended.stderr}"
    count(f"{operation} calls")
    return json.loads(ended.stdout)


def working(work):
    """A thread whose failure is the program's."""

    def run(*arguments):
        try:
            work(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def start(*arguments):
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        thread.start()
        return thread

    return start


@working
def write(writer):
    n = 0
    while not stopped.is_set():
        text = f"{writer}:{n}"
        put = aws("put-record", "--stream-name", STREAM, "--partition-key", writer, "--data", text)
        say(f"acked {put['ShardId']} {put['SequenceNumber']} {text}")
        n += 1
    say(f"sent {writer} {n}")


@working
def write_many(writer):
    """Puts again those that failed, as the API asks of it."""
    n = 0
    while not stopped.is_set():
        texts = [f"{writer}:{n + it}" for it in range(20)]
        n += len(texts)
        while texts:
            records = json.dumps([{"Data": it, "PartitionKey": it} for it in texts])
            failed = []
            for text, it in zip(texts, aws("put-records", "--stream-name", STREAM, "--records", records)["Records"]):
                if "ErrorCode" in it:
                    count(f"records failed: {it['ErrorCode']}")
                    failed.append(text)
                else:
                    say(f"acked {it['ShardId']} {it['SequenceNumber']} {text}")
            texts = failed
    say(f"sent {writer} {n}")


def begin(shard):
    found = aws("get-shard-iterator", "--stream-name", STREAM, "--shard-id", shard, "--shard-iterator-type", "TRIM_HORIZON")
    return found["ShardIterator"]


@working
def poll(shards):
    begun, ended = set(shards), set()
    iterators = {shard: begin(shard) for shard in shards}
    while True:
        last, moved = finished.is_set(), False
        for shard, iterator in list(iterators.items()):
            page = aws("get-records", "--shard-iterator", iterator)
            for it in page["Records"]:
                say(f"polled {shard} {it['SequenceNumber']} {base64.b64decode(it['Data']).decode()}")
            moved |= bool(page["Records"]) or page["MillisBehindLatest"] > 0
            iterators[shard] = page.get("NextShardIterator")
            if iterators[shard] is None:
                moved = True
                del iterators[shard]
                ended.add(shard)
                # Children once all of their parents have been read to the end.
                for child in page["ChildShards"]:
                    if child["ShardId"] not in begun and set(child["ParentShards"]) <= ended:
                        begun.add(child["ShardId"])
                        iterators[child["ShardId"]] = begin(child["ShardId"])
        if last and not moved:
            return
        time.sleep(0.05)


def main():
    listed = aws("list-shards", "--stream-name", STREAM, "--shard-filter", "Type=AT_TRIM_HORIZON")["Shards"]
    poller = poll([it["ShardId"] for it in listed])
    writers = [write(f"{NAME}-0"), write_many(f"{NAME}-many")]
    print("at work", flush=True)
    sys.stdin.readline()
    stopped.set()
    for it in writers:
        it.join()
    print("stopped", flush=True)
    sys.stdin.read()
    finished.set()
    poller.join()
    lines.extend(f"count {what}: {n}" for what, n in counted.items())
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
