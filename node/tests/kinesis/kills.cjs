// The AWS SDK for JavaScript (v3) at work while nodes are killed and the stream is resharded, with the attempts that it makes by
// itself:
//
//   NODE_PATH=…/node_modules node kills.cjs http://HOST:PORT STREAM CONSUMER_ARN NAME h2|http/1.1
//
// Writers put one record at a time, or 20; two readers of all shards, from parents to children, poll or subscribe. On a line of
// its input the writers stop, and at its end the readers do, once they are at the tip of every shard. Then it says what was
// done, a line each; kills_sdks.py judges that:
//
//   sent WRITER RECORDS
//   acked SHARD NUMBER TEXT
//   polled|pushed SHARD NUMBER TEXT
//   count WHAT: N

const { setTimeout: sleep } = require("node:timers/promises");
const readline = require("node:readline");
const sdk = require("@aws-sdk/client-kinesis");
const { NodeHttpHandler } = require("@smithy/node-http-handler");

const WRITERS = 3;
const [endpoint, StreamName, ConsumerARN, name, protocol] = process.argv.slice(2);
const lines = [];
const counted = new Map();
let [stopped, finished] = [false, false];

const count = (what, more = 1) => counted.set(what, (counted.get(what) ?? 0) + more);

/** A client of one's own, as a program has it that does one thing. */
function client() {
  const made = new sdk.Kinesis({
    endpoint,
    region: "us-east-1",
    credentials: { accessKeyId: "test", secretAccessKey: "test" },
    ...(protocol === "http/1.1" ? { requestHandler: new NodeHttpHandler() } : {}),
  });
  const counting = (next, context) => async (args) => {
    const operation = context.commandName.replace("Command", "");
    const answer = await next(args);
    count(`${operation} calls`);
    count(`${operation} retries`, answer.output.$metadata.attempts - 1);
    return answer;
  };
  made.middlewareStack.add(counting, { step: "initialize" });
  return made;
}

async function write(writer) {
  const kinesis = client();
  let n = 0;
  for (; !stopped; n++) {
    const text = `${writer}:${n}`;
    const begun = performance.now();
    const put = await kinesis.putRecord({ StreamName, PartitionKey: writer, Data: Buffer.from(text) });
    const waited = Math.round(performance.now() - begun);
    counted.set("longest wait of a writer, ms", Math.max(counted.get("longest wait of a writer, ms") ?? 0, waited));
    lines.push(`acked ${put.ShardId} ${put.SequenceNumber} ${text}`);
  }
  lines.push(`sent ${writer} ${n}`);
}

/** Puts again those that failed, as the API asks of it. */
async function writeMany(writer) {
  const kinesis = client();
  let n = 0;
  while (!stopped) {
    let texts = Array.from({ length: 20 }, (_, it) => `${writer}:${n + it}`);
    n += texts.length;
    while (texts.length > 0) {
      const Records = texts.map((it) => ({ PartitionKey: it, Data: Buffer.from(it) }));
      const put = await kinesis.putRecords({ StreamName, Records });
      const failed = (it) => put.Records[it].ErrorCode !== undefined;
      texts.forEach((text, it) => {
        if (failed(it)) count(`records failed: ${put.Records[it].ErrorCode}`);
        else lines.push(`acked ${put.Records[it].ShardId} ${put.Records[it].SequenceNumber} ${text}`);
      });
      texts = texts.filter((_, it) => failed(it));
    }
  }
  lines.push(`sent ${writer} ${n}`);
}

/** Which shards are to be read: children once all of their parents have been read to the end. */
class Lineage {
  constructor(shards) {
    this.begun = new Set(shards);
    this.ended = new Set();
  }

  end(shard, children) {
    this.ended.add(shard);
    const ready = children.filter((it) => it.ParentShards.every((parent) => this.ended.has(parent)));
    const found = ready.map((it) => it.ShardId).filter((it) => !this.begun.has(it));
    found.forEach((it) => this.begun.add(it));
    return found;
  }
}

function read(how, shard, records) {
  for (const it of records) lines.push(`${how} ${shard} ${it.SequenceNumber} ${Buffer.from(it.Data)}`);
}

async function poll(shards) {
  const kinesis = client();
  const lineage = new Lineage(shards);
  const iterators = new Map();
  const begin = async (ShardId) => {
    const start = { StreamName, ShardId, ShardIteratorType: "TRIM_HORIZON" };
    iterators.set(ShardId, (await kinesis.getShardIterator(start)).ShardIterator);
  };
  for (const shard of shards) await begin(shard);
  for (;;) {
    const last = finished;
    let moved = false;
    for (const [shard, ShardIterator] of [...iterators]) {
      const page = await kinesis.getRecords({ ShardIterator });
      read("polled", shard, page.Records);
      moved ||= page.Records.length > 0 || page.MillisBehindLatest > 0;
      if (page.NextShardIterator !== undefined) {
        iterators.set(shard, page.NextShardIterator);
        continue;
      }
      iterators.delete(shard);
      moved = true;
      for (const child of lineage.end(shard, page.ChildShards)) await begin(child);
    }
    if (last && !moved) return;
    await sleep(50);
  }
}

/** Subscribes again after the last event, as a consumer of the service does at least every five minutes. */
async function follow(kinesis, ShardId, lineage) {
  let StartingPosition = { Type: "TRIM_HORIZON" };
  for (;;) {
    let answer;
    try {
      answer = await kinesis.subscribeToShard({ ConsumerARN, ShardId, StartingPosition });
    } catch (error) {
      if (!(error instanceof sdk.ResourceInUseException)) throw error;
      // The subscription that has just been lost counts for five seconds.
      count("subscriptions refused for one before");
      await sleep(1000);
      continue;
    }
    try {
      for await (const { SubscribeToShardEvent: event } of answer.EventStream) {
        read("pushed", ShardId, event.Records);
        if (event.ContinuationSequenceNumber === undefined) {
          const children = lineage.end(ShardId, event.ChildShards);
          await Promise.all(children.map((it) => follow(kinesis, it, lineage)));
          return;
        }
        StartingPosition = { Type: "AFTER_SEQUENCE_NUMBER", SequenceNumber: event.ContinuationSequenceNumber };
        if (finished && event.Records.length === 0 && event.MillisBehindLatest === 0) return;
      }
      count("subscriptions ended early");
    } catch (error) {
      count(`subscriptions lost: ${error.name} ${error.code ?? ""}`.trim());
    }
  }
}

async function main() {
  const input = readline.createInterface({ input: process.stdin });
  input.once("line", () => (stopped = true));
  input.once("close", () => (finished = true));
  const kinesis = client();
  const { Shards } = await kinesis.listShards({ StreamName, ShardFilter: { Type: "AT_TRIM_HORIZON" } });
  const shards = Shards.map((it) => it.ShardId);
  const lineage = new Lineage(shards);
  const followers = Promise.all(shards.map((it) => follow(kinesis, it, lineage)));
  const readers = Promise.all([poll(shards), followers]);
  const single = Array.from({ length: WRITERS }, (_, n) => write(`${name}-${n}`));
  const writers = Promise.all([...single, writeMany(`${name}-many`)]);
  console.log("at work");
  await Promise.race([writers, readers]);
  await writers;
  console.log("stopped");
  await readers;
  for (const [what, n] of counted) lines.push(`count ${what}: ${n}`);
  process.stdout.write(lines.join("\n") + "\n", () => process.exit(0));
}

main().catch((error) => {
  console.error(error, error.$metadata);
  process.exit(1);
});
