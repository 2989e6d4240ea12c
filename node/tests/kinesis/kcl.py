"""A worker of the Kinesis Client Library, and what it says: Kcl.java, a process of its own with tables in moto's DynamoDB."""

import collections
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import amazon_kclpy
from moto.server import ThreadedMotoServer

from cluster import BOUND_S

KCL_3 = os.path.join(os.path.dirname(amazon_kclpy.__file__), "jars")
KCL_2 = os.path.join(sys.prefix, "kcl2")

# A record as it was given: its number, its place in an aggregate (0 for one that is in none), its key and its text.
Given = collections.namedtuple("Given", "number place key text")


def java(program, *arguments, jars=KCL_3):
    """A program of this directory on the SDK's and KCL's jars."""
    command = ["java", "-cp", os.path.join(jars, "*"), os.path.join(os.path.dirname(__file__), program), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class Tables:
    """A DynamoDB."""

    def __enter__(self):
        # It says every call, and stumbles now and then over two at a time, which KCL tries again.
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self.server = ThreadedMotoServer(port=0, verbose=False)
        self.server.start()
        host, port = self.server.get_host_and_port()
        return f"http://{host}:{port}"

    def __exit__(self, *_):
        self.server.stop()


class Worker:
    """Reads a stream from its beginning until it is left."""

    def __init__(self, endpoint, tables, stream, retrieval, jars=KCL_3):
        self.process = java("Kcl.java", endpoint, tables, stream, retrieval, jars=jars)
        # What it says of each shard, in its order; and everything else, for a failing test.
        self.said, self.rest = [], []
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self):
        for line in self.process.stdout:
            words = line.rstrip("\n").split(" ", 5)
            if not line.startswith("shardId-"):
                self.rest.append(line)
            elif words[1] == "gives":
                self.said.append((words[0], Given(int(words[2]), int(words[3]), words[4], words[5])))
            else:
                self.said.append((words[0], " ".join(words[1:])))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def until(self, what, condition, bound_s=7 * BOUND_S):
        """It makes its tables first, and takes its time."""
        start = time.time()
        while not condition():
            assert self.process.poll() is None, f"KCL has ended: {self.words()}"
            assert time.time() - start < bound_s, f"waited {bound_s} s until {what}: {self.words()}"
            time.sleep(0.1)

    def given(self):
        """What was given of each shard, in its order."""
        found = collections.defaultdict(list)
        for shard, what in list(self.said):
            if isinstance(what, Given):
                found[shard].append(what)
        return found

    def words(self):
        """What it said, how many records it gave, and what its threads do, which Java says of itself when it is sent this signal."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            time.sleep(1)
        events = [it for it in self.said if not isinstance(it[1], Given)]
        counts = {shard: len(given) for shard, given in self.given().items()}
        return f"{events[-40:]}\ngiven: {counts}\n{''.join(self.rest)[-60000:]}"
