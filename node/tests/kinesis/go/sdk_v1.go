// The AWS SDK for Go (v1) against a node, over HTTP/1.1: create, put, list, read, subscribe, split, merge, delete.
//
//	sdk_v1 http://HOST:PORT
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/credentials"
	"github.com/aws/aws-sdk-go/aws/request"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/kinesis"
)

const first = "shardId-000000000000"

var (
	stream  = aws.String("go-v1")
	client  *kinesis.Kinesis
	quickly = request.WithWaiterDelay(request.ConstantWaiterDelay(time.Second))
)

func main() {
	client = kinesis.New(must(session.NewSession(&aws.Config{
		Endpoint:    aws.String(os.Args[1]),
		Region:      aws.String("us-east-1"),
		Credentials: credentials.NewStaticCredentials("test", "test", ""),
	})))
	begun := time.Now()
	must(client.CreateStream(&kinesis.CreateStreamInput{StreamName: stream, ShardCount: aws.Int64(2)}))
	named := &kinesis.DescribeStreamInput{StreamName: stream}
	check(client.WaitUntilStreamExistsWithContext(aws.BackgroundContext(), named, quickly))
	summary := active()
	if age := summary.StreamCreationTimestamp.Sub(begun); age < -2*bound || age > 2*bound {
		fail("it was made at %v", summary.StreamCreationTimestamp)
	}
	streams := aws.StringValueSlice(must(client.ListStreams(&kinesis.ListStreamsInput{})).StreamNames)
	if !strings.Contains(strings.Join(streams, " "), *stream) {
		fail("the streams are %v", streams)
	}

	var sent, ofFirst []string
	var records []*kinesis.PutRecordsRequestEntry
	for n := 0; n < 100; n++ {
		sent = append(sent, fmt.Sprintf("record %d", n))
		records = append(records, &kinesis.PutRecordsRequestEntry{PartitionKey: aws.String(sent[n]), Data: []byte(sent[n])})
	}
	put := must(client.PutRecords(&kinesis.PutRecordsInput{StreamName: stream, Records: records}))
	equal(*put.FailedRecordCount, int64(0))
	for n, it := range put.Records {
		if *it.ShardId == first {
			ofFirst = append(ofFirst, sent[n])
		}
	}
	equal(read(first), ofFirst)

	_, err := client.DescribeStream(&kinesis.DescribeStreamInput{StreamName: aws.String("none")})
	refused, ok := err.(*kinesis.ResourceNotFoundException)
	if !ok {
		fail("a stream that is not there was described: %v", err)
	}
	equal(*refused.Message_, "Stream none under account 000000000000 not found.")

	// Pushed, what was there before and what comes; then the shard's end, with the shards that go on.
	consumer := must(client.RegisterStreamConsumer(&kinesis.RegisterStreamConsumerInput{
		StreamARN: summary.StreamARN, ConsumerName: aws.String("c"),
	})).Consumer.ConsumerARN
	until("the consumer is ACTIVE", func() bool {
		described := must(client.DescribeStreamConsumer(&kinesis.DescribeStreamConsumerInput{ConsumerARN: consumer}))
		return *described.ConsumerDescription.ConsumerStatus == kinesis.ConsumerStatusActive
	})
	subscription := must(client.SubscribeToShard(&kinesis.SubscribeToShardInput{
		ConsumerARN: consumer, ShardId: aws.String(first),
		StartingPosition: &kinesis.StartingPosition{Type: aws.String(kinesis.ShardIteratorTypeTrimHorizon)},
	})).GetStream()
	must(client.PutRecord(&kinesis.PutRecordInput{
		StreamName: stream, PartitionKey: aws.String("k"), ExplicitHashKey: aws.String("0"), Data: []byte("one more"),
	}))
	ofFirst = append(ofFirst, "one more")
	var pushed []string
	var last *kinesis.SubscribeToShardEvent
	split := false
	for event := range subscription.Events() {
		last = event.(*kinesis.SubscribeToShardEvent)
		pushed = append(pushed, texts(last.Records)...)
		if len(pushed) == len(ofFirst) && !split {
			split = true
			must(client.SplitShard(&kinesis.SplitShardInput{
				StreamName: stream, ShardToSplit: aws.String(first), NewStartingHashKey: aws.String("1" + strings.Repeat("0", 30)),
			}))
		}
	}
	check(subscription.Err())
	equal(pushed, ofFirst)
	equal(last.ContinuationSequenceNumber, (*string)(nil))
	var children []string
	for _, it := range last.ChildShards {
		children = append(children, *it.ShardId)
	}
	equal(children, []string{"shardId-000000000002", "shardId-000000000003"})

	active()
	must(client.MergeShards(&kinesis.MergeShardsInput{
		StreamName: stream, ShardToMerge: aws.String("shardId-000000000003"), AdjacentShardToMerge: aws.String("shardId-000000000001"),
	}))
	active()
	must(client.PutRecord(&kinesis.PutRecordInput{StreamName: stream, PartitionKey: aws.String("k"), Data: []byte("the last")}))
	var all, closed []string
	for _, it := range must(client.ListShards(&kinesis.ListShardsInput{StreamName: stream})).Shards {
		if it.SequenceNumberRange.EndingSequenceNumber != nil {
			closed = append(closed, *it.ShardId)
		}
		all = append(all, read(*it.ShardId)...)
	}
	equal(closed, []string{first, "shardId-000000000001", "shardId-000000000003"})
	expected := append(sent, "one more", "the last")
	sort.Strings(all)
	sort.Strings(expected)
	equal(all, expected)

	must(client.DeleteStream(&kinesis.DeleteStreamInput{StreamName: stream, EnforceConsumerDeletion: aws.Bool(true)}))
	check(client.WaitUntilStreamNotExistsWithContext(aws.BackgroundContext(), named, quickly))
	fmt.Println("the Go SDK v1: ok")
}

// The stream, once it is ACTIVE.
func active() (summary *kinesis.StreamDescriptionSummary) {
	until("the stream is ACTIVE", func() bool {
		found := must(client.DescribeStreamSummary(&kinesis.DescribeStreamSummaryInput{StreamName: stream}))
		summary = found.StreamDescriptionSummary
		return *summary.StreamStatus == kinesis.StreamStatusActive
	})
	return summary
}

// All of a shard, to its tip or its end.
func read(shard string) (all []string) {
	next := must(client.GetShardIterator(&kinesis.GetShardIteratorInput{
		StreamName: stream, ShardId: aws.String(shard), ShardIteratorType: aws.String(kinesis.ShardIteratorTypeTrimHorizon),
	})).ShardIterator
	until(shard+" is read", func() bool {
		page := must(client.GetRecords(&kinesis.GetRecordsInput{ShardIterator: next, Limit: aws.Int64(30)}))
		all = append(all, texts(page.Records)...)
		next = page.NextShardIterator
		equal(page.ChildShards != nil, next == nil)
		return next == nil || (len(page.Records) == 0 && *page.MillisBehindLatest == 0)
	})
	return all
}

func texts(records []*kinesis.Record) (all []string) {
	for _, it := range records {
		all = append(all, string(it.Data))
	}
	return all
}
