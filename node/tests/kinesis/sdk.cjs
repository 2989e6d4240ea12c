// The AWS SDK for JavaScript (v3) against a node: over HTTP/2 by prior knowledge, which is what it speaks by default, or
// over HTTP/1.1 if it is told to.
//
//   NODE_PATH=…/node_modules node sdk.cjs http://HOST:PORT h2|http/1.1

const assert = require("node:assert/strict");
const { setTimeout: sleep } = require("node:timers/promises");
const sdk = require("@aws-sdk/client-kinesis");
const { NodeHttpHandler } = require("@smithy/node-http-handler");

const BOUND_MS = 60_000;
const [endpoint, protocol] = process.argv.slice(2);
const StreamName = `javascript-${protocol.replaceAll("/", "-")}`;

const kinesis = new sdk.Kinesis({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
  ...(protocol === "http/1.1" ? { requestHandler: new NodeHttpHandler() } : {}),
});

async function until(what, condition) {
  const end = Date.now() + BOUND_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    assert(Date.now() < end, `waited ${BOUND_MS} ms until ${what}`);
    await sleep(20);
  }
}

async function summary() {
  return (await kinesis.describeStreamSummary({ StreamName })).StreamDescriptionSummary;
}

const active = () => until("the stream is ACTIVE", async () => (await summary()).StreamStatus === "ACTIVE");

/** All of a shard, to its tip or its end. */
async function read(ShardId, Limit) {
  let { ShardIterator } = await kinesis.getShardIterator({ StreamName, ShardId, ShardIteratorType: "TRIM_HORIZON" });
  const texts = [];
  return until(`${ShardId} is read`, async () => {
    const page = await kinesis.getRecords({ ShardIterator, Limit });
    texts.push(...page.Records.map((it) => Buffer.from(it.Data).toString()));
    ShardIterator = page.NextShardIterator;
    const ended = ShardIterator === undefined;
    assert.equal(page.ChildShards !== undefined, ended);
    return (ended || (page.Records.length === 0 && page.MillisBehindLatest === 0)) && texts;
  });
}

async function main() {
  assert.equal(kinesis.config.requestHandler.metadata.handlerProtocol, protocol);
  const begun = Date.now();
  await kinesis.createStream({ StreamName, ShardCount: 2 });
  await sdk.waitUntilStreamExists({ client: kinesis, maxWaitTime: 60, minDelay: 1 }, { StreamName });
  await active();
  const { StreamARN, StreamCreationTimestamp } = await summary();
  assert(Math.abs(StreamCreationTimestamp - begun) < 2 * BOUND_MS, `${StreamCreationTimestamp}`);
  const { StreamNames } = await kinesis.listStreams({});
  assert(StreamNames.includes(StreamName), `${StreamNames}`);

  const sent = Array.from({ length: 100 }, (_, n) => `record ${n}`);
  const put = await kinesis.putRecords({
    StreamName,
    Records: sent.map((text) => ({ PartitionKey: text, Data: Buffer.from(text) })),
  });
  assert.equal(put.FailedRecordCount, 0);
  const first = "shardId-000000000000";
  const ofFirst = sent.filter((_, n) => put.Records[n].ShardId === first);
  assert.deepEqual(await read(first, 30), ofFirst);

  await assert.rejects(kinesis.describeStream({ StreamName: "none" }), (error) => {
    assert(error instanceof sdk.ResourceNotFoundException);
    assert.equal(error.message, "Stream none under account 000000000000 not found.");
    assert.equal(error.$metadata.requestId.length, 36);
    return true;
  });

  // Pushed, what was there before and what comes; then the shard's end, with the shards that go on.
  const { Consumer } = await kinesis.registerStreamConsumer({ StreamARN, ConsumerName: "c" });
  const { ConsumerARN } = Consumer;
  const described = () => kinesis.describeStreamConsumer({ ConsumerARN });
  await until("the consumer is ACTIVE", async () => (await described()).ConsumerDescription.ConsumerStatus === "ACTIVE");
  const StartingPosition = { Type: "TRIM_HORIZON" };
  const { EventStream } = await kinesis.subscribeToShard({ ConsumerARN, ShardId: first, StartingPosition });
  await kinesis.putRecord({ StreamName, PartitionKey: "k", ExplicitHashKey: "0", Data: Buffer.from("one more") });
  ofFirst.push("one more");
  const pushed = [];
  let [last, split] = [undefined, false];
  for await (const { SubscribeToShardEvent: event } of EventStream) {
    pushed.push(...event.Records.map((it) => Buffer.from(it.Data).toString()));
    if (pushed.length === ofFirst.length && !split) {
      split = true;
      await kinesis.splitShard({ StreamName, ShardToSplit: first, NewStartingHashKey: "1" + "0".repeat(30) });
    }
    last = event;
  }
  assert.deepEqual(pushed, ofFirst);
  assert.deepEqual(last.ChildShards.map((it) => it.ShardId), ["shardId-000000000002", "shardId-000000000003"]);
  assert.equal(last.ContinuationSequenceNumber, undefined);

  await active();
  await kinesis.mergeShards({
    StreamName,
    ShardToMerge: "shardId-000000000003",
    AdjacentShardToMerge: "shardId-000000000001",
  });
  await active();
  const { Shards } = await kinesis.listShards({ StreamName });
  assert.deepEqual(
    Shards.map((it) => [it.ShardId, it.SequenceNumberRange.EndingSequenceNumber !== undefined]),
    [0, 1, 2, 3, 4].map((n) => [`shardId-00000000000${n}`, [0, 1, 3].includes(n)]),
  );
  await kinesis.putRecord({ StreamName, PartitionKey: "k", Data: Buffer.from("the last") });
  const all = [];
  for (const { ShardId } of Shards) all.push(...(await read(ShardId)));
  assert.deepEqual(all.sort(), [...sent, "one more", "the last"].sort());

  await kinesis.deregisterStreamConsumer({ ConsumerARN });
  await kinesis.deleteStream({ StreamName, EnforceConsumerDeletion: true });
  await sdk.waitUntilStreamNotExists({ client: kinesis, maxWaitTime: 60, minDelay: 1 }, { StreamName });
  kinesis.destroy();
  console.log(`the JavaScript SDK over ${protocol}: ok`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
