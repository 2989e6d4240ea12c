"""aiokpl puts records, each with its outcome: aiokpl_put.py ENDPOINT STREAM '[[KEY, TEXT], …]'

It does what the KPL does: it foretells each record's shard from ListShards, packs those of a shard together, and sends them by
PutRecords with a hash key of that shard. It has a Python path of its own, with the botocore that it asks for.
"""

import json
import sys

import anyio
from aiokpl import Config, Producer


async def main():
    endpoint, stream, records = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    config = Config(region="us-east-1", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="secret")
    async with Producer(config) as producer:
        put = [await producer.put_record(stream=stream, partition_key=key, data=text.encode()) for key, text in records]
        await producer.flush()
        for it in put:
            result = await it.wait()
            assert result.success, result


anyio.run(main)
