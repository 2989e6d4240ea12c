"""SDKs, and KCL, at work while nodes are killed and the stream is resharded:

    kills_sdks.py ENDPOINT CLIENT…

The clients share a stream, and whoever writes is read by all: each of CLIENTS is a program with writers and readers of its own, and
of `kcl` there is a worker that polls and one that subscribes (Kcl.java). Works until its input ends, and then says whether every
reader was given the same, and all that was acknowledged. A program ends with whatever its SDK has not mended by itself.

The endpoint is a load balancer before all nodes, as some of these clients keep to one of a name's addresses.
"""

import collections
import contextlib
import os
import subprocess
import sys
import threading
import traceback

import history
from cluster import BOUND_S, Kinesis, wait
from kcl import Tables, Worker, java
from resharding import reshard

STREAM = "s"

# KCL hands a child's lease out every two seconds, so that it would be behind for long after twenty splits in a row.
RESHARD_PAUSE_S = 2


class Program:
    """A program with an SDK, and what it says."""

    def __init__(self, name, process):
        self.name, self.process = name, process
        self.lines, self.events = [], set()
        self.sent, self.acked, self.counted = {}, {}, {}
        # By "polled" or "pushed", and shard.
        self.read = collections.defaultdict(lambda: collections.defaultdict(list))
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self):
        for line in self.process.stdout:
            line = line.rstrip("\n")
            kind, *rest = line.split(" ")
            if kind == "sent":
                self.sent[rest[0]] = int(rest[1])
            elif kind == "acked":
                self.acked[rest[2]] = (rest[0], int(rest[1]))
            elif kind in ("polled", "pushed"):
                self.read[kind][rest[0]].append((int(rest[1]), rest[2]))
            elif kind == "count":
                what, n = " ".join(rest).rsplit(": ", 1)
                self.counted[what] = int(n)
            else:
                self.lines.append(line)

    def sound(self):
        if self.process.poll() not in (None, 0):
            self.listener.join(BOUND_S)
            raise AssertionError(f"{self.name} has failed:\n" + "\n".join(self.lines[:40]))
        return True

    def says(self, what):
        wait(f"{self.name} says {what}", lambda: self.sound() and what in self.lines, 3 * BOUND_S)

    def stop(self):
        self.sound()
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()

    def finish(self):
        self.process.stdin.close()
        self.process.wait(3 * BOUND_S)
        self.listener.join(BOUND_S)
        self.sound()


def beside(name):
    """What scripts/kinesis-clients has put beside this Python."""
    return os.path.join(sys.prefix, name)


def here(name):
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)


def program(*command, **environment):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env={**os.environ, **environment}, text=True, **pipes)


def javascript(protocol):
    environment = {"NODE_PATH": beside("js"), "NODE_NO_WARNINGS": "1"}
    return lambda endpoint, consumer, name: program(
        "node", here("kills.cjs"), endpoint, STREAM, consumer, name, protocol, **environment
    )


def compiled(path):
    return lambda endpoint, consumer, name: program(beside(path), endpoint, STREAM, consumer, name)


CLIENTS = {
    "java": lambda endpoint, consumer, name: java("Kills.java", endpoint, STREAM, consumer, name),
    "javascript": javascript("h2"),
    "javascript_over_http_1": javascript("http/1.1"),
    "rust": compiled("rust-sdk/newest/kills"),
    "go_v1": compiled("go/kills_v1"),
    "go_v2": compiled("go/kills_v2"),
    "aws_cli": lambda endpoint, _, name: program(sys.executable, here("kills_cli.py"), endpoint, STREAM, name),
}


def kcl_read(worker, expected):
    """What a worker was given, each record once; and how often one came again. It gives records at least once: after a lease was
    lost, from the shard's last checkpoint on, so that what comes again must go on without a gap."""
    read, again = {}, 0
    for shard, given in worker.given().items():
        numbers = {number: n for n, (number, _) in enumerate(expected.get(shard, []))}
        read[shard] = []
        newest = -1
        for it in given:
            at = numbers.get(it.number)
            assert at is not None and at <= newest + 1, f"{it} of {shard}, after {newest + 1} of {expected.get(shard)}"
            if at <= newest:
                again += 1
                continue
            newest = at
            read[shard].append((it.number, it.text))
    return read, again


def main():
    endpoint, clients = sys.argv[1], sys.argv[2:]
    kinesis = Kinesis([endpoint])
    arn = kinesis.create(STREAM, 3)["StreamARN"]
    consumers = {}
    for name in (it for it in clients if it != "kcl"):
        made = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName=name)["Consumer"]["ConsumerARN"]
        described = lambda: kinesis.describe_stream_consumer(ConsumerARN=made)["ConsumerDescription"]
        wait("the consumer is ACTIVE", lambda: described()["ConsumerStatus"] == "ACTIVE")
        consumers[name] = made
    counted, stopped, broken = collections.Counter(), threading.Event(), []

    def split_and_merge():
        try:
            reshard(Kinesis([endpoint]), STREAM, counted, stopped, RESHARD_PAUSE_S)
        except BaseException:
            broken.append(traceback.format_exc())

    with contextlib.ExitStack() as stack:
        workers = {}
        if "kcl" in clients:
            tables = stack.enter_context(Tables())
            for retrieval in ("fan-out", "polling"):
                workers[f"KCL, {retrieval}"] = stack.enter_context(Worker(endpoint, tables, STREAM, retrieval))
        for name, worker in workers.items():
            worker.until(f"{name} begins", lambda worker=worker: len(worker.said) >= 3)
        programs = [Program(name, CLIENTS[name](endpoint, consumer, name)) for name, consumer in consumers.items()]
        for it in programs:
            it.says("at work")
        resharder = threading.Thread(target=split_and_merge, daemon=True)
        resharder.start()
        print("at work", flush=True)
        sys.stdin.read()
        stopped.set()
        resharder.join(2 * BOUND_S)
        assert not resharder.is_alive(), "who reshards does not end"
        assert not broken, broken[0]
        for it in programs:
            it.stop()
        for it in programs:
            it.says("stopped")
        for it in programs:
            it.finish()
        acked = {text: place for it in programs for text, place in it.acked.items()}
        sent = {writer: n for it in programs for writer, n in it.sent.items()}
        readers = {f"{it.name}, {how}": read for it in programs for how, read in it.read.items()}
        everything = history.check(sent, acked, readers)
        expected = next(iter(readers.values()))
        for name, worker in workers.items():
            distinct = lambda worker=worker: len({it.number for given in worker.given().values() for it in given})
            worker.until(f"{name} has given everything", lambda: distinct() >= everything)
            readers[name], again = kcl_read(worker, expected)
            counted[f"{name}: leases lost"] = sum(what == "is lost" for _, what in worker.said)
            counted[f"{name}: records given again"] = again
            counted[f"{name}: warnings"] = len(worker.rest)
        history.check(sent, acked, readers)
    counted.update({"acknowledged": len(acked), "read": everything, "readers": len(readers), "shards": len(expected)})
    for it in programs:
        # Somebody who did nothing has shown nothing.
        assert it.sent and any(text.startswith(f"{it.name}-0:") for text in it.acked), f"{it.name} has put nothing"
        counted.update({f"{it.name}: {what}": n for what, n in it.counted.items()})
    assert len(acked) > 500 and counted["splits"] + counted["merges"] > 3, f"hardly anything was done: {counted}"
    for what, count in sorted(counted.items()):
        print(f"{what}: {count}")


if __name__ == "__main__":
    main()
