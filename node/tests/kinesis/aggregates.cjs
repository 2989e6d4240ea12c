// AWS's module for aggregated records in JavaScript, put and taken apart: aggregates.py has what is put, and judges what is read.
//
//   NODE_PATH=…/node_modules node aggregates.cjs http://HOST:PORT STREAM put '[[[KEY, TEXT], …], …]' RECORDS_IN_ONE
//   NODE_PATH=…/node_modules node aggregates.cjs http://HOST:PORT STREAM read
//
// What is put comes for each shard apart. What is read is said a line each: SHARD NUMBER PLACE KEY TEXT.

const sdk = require("@aws-sdk/client-kinesis");
const { RecordAggregator, deaggregateSync } = require("aws-kinesis-agg");

const [endpoint, StreamName, what, ofShards, inOne] = process.argv.slice(2);
const kinesis = new sdk.Kinesis({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
});

async function put(records) {
  const aggregator = new RecordAggregator();
  for (let at = 0; at < records.length; at += +inOne) {
    for (const [partitionKey, text] of records.slice(at, at + +inOne)) {
      aggregator.addUserRecord({ partitionKey, data: Buffer.from(text) });
    }
    const { partitionKey, data } = aggregator.build();
    await kinesis.putRecord({ StreamName, PartitionKey: partitionKey, Data: data });
  }
}

/** The records in one. The module has no place for one that only begins as an aggregate does: that is its reader's. */
function apart({ Data, PartitionKey, SequenceNumber }) {
  const record = { data: Buffer.from(Data).toString("base64"), partitionKey: PartitionKey, sequenceNumber: SequenceNumber };
  let found;
  deaggregateSync(record, true, (error, records) => (found = error ? [record] : records));
  return found;
}

async function read(ShardId) {
  let { ShardIterator } = await kinesis.getShardIterator({ StreamName, ShardId, ShardIteratorType: "TRIM_HORIZON" });
  for (;;) {
    const page = await kinesis.getRecords({ ShardIterator });
    for (const record of page.Records) {
      for (const { sequenceNumber, subSequenceNumber, partitionKey, data } of apart(record)) {
        console.log(ShardId, sequenceNumber, subSequenceNumber ?? 0, partitionKey, Buffer.from(data, "base64").toString());
      }
    }
    ShardIterator = page.NextShardIterator;
    if (page.Records.length === 0 && page.MillisBehindLatest === 0) return;
  }
}

async function main() {
  if (what === "put") {
    for (const records of JSON.parse(ofShards)) await put(records);
  } else {
    for (const { ShardId } of (await kinesis.listShards({ StreamName })).Shards) await read(ShardId);
  }
  kinesis.destroy();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
