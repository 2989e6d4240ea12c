"""moto's own Kinesis tests against a cluster: a pytest plugin that takes moto away and puts Braid there.

    BRAID_ENDPOINT=http://HOST:PORT python -m pytest -p moto_suite moto-VERSION/tests/test_kinesis

Nothing is mocked: boto3 talks to the cluster. Two differences between a mock and a service are made good here, so that
what the tests assert is what is tested:

- A mock is done when it answers; a service goes on afterwards. So a call that changes a stream or its consumers returns
  once that is done, as a careful user would have waited for it.
- A mock forgets everything between two tests. So what a test has made is deleted after it.

Tests that can't pass are in INVENTIONS and ELSEWHERE, with the reason. One that passes although it stands there fails.
"""

import os
import time

# How moto says itself that the server is another process; tests that stop that process's clock are skipped then.
os.environ["TEST_SERVER_MODE"] = "true"
ACCOUNT = "123456789012"
os.environ.update(
    AWS_ENDPOINT_URL_KINESIS=os.environ["BRAID_ENDPOINT"],
    AWS_ACCESS_KEY_ID=ACCOUNT,
    AWS_SECRET_ACCESS_KEY="secret",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
)

import boto3
import moto
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

moto.mock_aws = lambda test: test

BOUND_S = 60
STEP_S = 0.02
READING = ("Get", "List", "Describe", "Put", "Subscribe")

# What moto says and the service does not, by the service's model and documentation, or by what others saw it say.
NUMBERS = "moto counts records from 1; a sequence number has 56 digits"
ARNS = "moto says a stream's whole ARN where the service's messages have its name"
INVENTIONS = {
    "test_kinesis::test_list_many_streams": "moto lists 10 streams at a time; the model says 100",
    "test_kinesis::test_get_invalid_shard_iterator": "moto repeats 123; the service says shardId-000000000123, as the test admits",
    "test_kinesis::test_put_records": NUMBERS,
    "test_kinesis::test_get_records_after_sequence_number": NUMBERS,
    "test_kinesis::test_get_records_latest": "LATEST with a StartingSequenceNumber is refused by the service",
    "test_kinesis::test_get_records_at_very_new_timestamp": "a time in the future is refused by the service",
    "test_kinesis::test_invalid_shard_iterator_type": "an enumeration of the model: a ValidationException",
    "test_kinesis::test_merge_shards_invalid_arg": "moto's message is the shard's name; the service's is a sentence",
    "test_kinesis_boto3::test_list_shards_paging": "the model: no StreamName beside a NextToken",
    "test_kinesis_boto3::test_split_shard_hashkey_out_of_bounds": "moto's last hash key is 2^128 - 2; the service's is 2^128 - 1",
    "test_kinesis_boto3::test_update_shard_count[10-3-17]": "the model: not below half of the shards",
    "test_kinesis_boto3::test_describe_limits": "moto's limit; the service's for this region is 20,000",
    "test_kinesis_monitoring::test_enable_enhanced_monitoring_all": "moto repeats ALL; the service lists the metrics, as the CLI's example has it",
    "test_kinesis_resource_policy::test_get_resource_policy_from_unknown_resource": ARNS,
    "test_kinesis_resource_policy::test_delete_resource_policy_from_unknown_resource": ARNS,
    "test_kinesis_stream_consumers::test_register_stream_consumer": "moto's ARN lacks the time of creation that the model's pattern demands",
    "test_kinesis_stream_consumers::test_describe_stream_consumer_unknown": "a stream's ARN is not of the model's pattern for consumers",
    "test_kinesis_stream_limits::test_total_record_data_exceeds_5mb": "each of its records is too large by itself, with its key; that is seen first",
}

# Not about this API, so they are not run.
CLOUDFORMATION = "asks moto's CloudFormation"
CLOUDWATCH = "asks CloudWatch; Braid's metrics are for Prometheus"
ELSEWHERE = {
    "test_kinesis_cloudformation::test_kinesis_cloudformation_create_stream": CLOUDFORMATION,
    "test_kinesis_cloudformation::test_kinesis_cloudformation_get_attr": CLOUDFORMATION,
    "test_kinesis_cloudformation::test_kinesis_cloudformation_update": CLOUDFORMATION,
    "test_kinesis_cloudformation::test_kinesis_cloudformation_delete": CLOUDFORMATION,
    "test_kinesis_monitoring::test_put_record_sends_basic_stream_metrics": CLOUDWATCH,
    "test_kinesis_monitoring::test_put_records_sends_aggregated_stream_metrics": CLOUDWATCH,
    "test_server::test_list_streams": "asks moto's own web application",
}


def wait(what, condition):
    # Counted, since a test may have stopped the clock.
    for _ in range(int(BOUND_S / STEP_S)):
        if condition():
            return
        time.sleep(STEP_S)
    raise AssertionError(f"waited {BOUND_S} s until {what}")


def is_settled(client, stream):
    """Whether nothing more happens to a stream: it and its consumers are as they will be, or it is gone."""
    try:
        summary = client.describe_stream_summary(**stream)["StreamDescriptionSummary"]
        consumers = client.list_stream_consumers(StreamARN=summary["StreamARN"])["Consumers"]
    except client.exceptions.ResourceNotFoundException:
        return True
    return {summary["StreamStatus"], *(it["ConsumerStatus"] for it in consumers)} == {"ACTIVE"}


@pytest.fixture(autouse=True)
def cluster():
    """boto3's clients wait for what they change; all streams are gone afterwards."""
    boto3.setup_default_session()
    events = boto3.DEFAULT_SESSION.events
    plain, used = boto3.Session(), {}

    def given(params, context, **_):
        arns = (params.get(it) for it in ("StreamARN", "ConsumerARN", "ResourceARN"))
        arn = next((it.partition("/consumer/")[0] for it in arns if it), None)
        context["stream"] = {"StreamARN": arn} if arn else {"StreamName": params.get("StreamName")}

    def done(model, context, http_response, **_):
        region = context["client_region"]
        client = used.setdefault(region, plain.client("kinesis", region_name=region))
        if http_response.status_code == 200 and not model.name.startswith(READING):
            stream = context["stream"]
            wait(f"{stream} is settled", lambda: is_settled(client, stream))

    def account(**_):
        return AWSResponse(None, 200, {}, None), {"Account": ACCOUNT}

    events.register("provide-client-params.kinesis", given)
    events.register("after-call.kinesis", done)
    events.register("before-call.sts.GetCallerIdentity", account)
    yield
    for client in used.values():
        for name in client.list_streams()["StreamNames"]:
            client.delete_stream(StreamName=name, EnforceConsumerDeletion=True)
        wait("the streams are gone", lambda client=client: not client.list_streams()["StreamNames"])


def pytest_collection_modifyitems(items):
    names = {f"{item.path.stem}::{item.name}": item for item in items}
    unknown = (INVENTIONS.keys() | ELSEWHERE.keys()) - names.keys()
    assert not unknown, f"not among the tests: {unknown}"
    for name, item in names.items():
        if name in ELSEWHERE:
            item.add_marker(pytest.mark.skip(reason=ELSEWHERE[name]))
        if name in INVENTIONS:
            item.add_marker(pytest.mark.xfail(reason=INVENTIONS[name], strict=True))
