// The AWS SDK for Go (v2) against a node, over HTTP/1.1: create, put, list, read, subscribe, split, merge, delete.
//
//	sdk_v2 http://HOST:PORT
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
)

const (
	stream = "go-v2"
	first  = "shardId-000000000000"
)

var (
	ctx    = context.Background()
	client *kinesis.Client
)

func main() {
	client = kinesis.New(kinesis.Options{
		EndpointResolver: kinesis.EndpointResolverFromURL(os.Args[1]),
		Region:           "us-east-1",
		Credentials:      credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	begun := time.Now()
	must(client.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: aws.String(stream), ShardCount: aws.Int32(2)}))
	named := &kinesis.DescribeStreamInput{StreamName: aws.String(stream)}
	check(kinesis.NewStreamExistsWaiter(client, quickly).Wait(ctx, named, bound))
	summary := active()
	if age := summary.StreamCreationTimestamp.Sub(begun); age < -2*bound || age > 2*bound {
		fail("it was made at %v", summary.StreamCreationTimestamp)
	}
	streams := must(client.ListStreams(ctx, &kinesis.ListStreamsInput{})).StreamNames
	if !strings.Contains(strings.Join(streams, " "), stream) {
		fail("the streams are %v", streams)
	}

	var sent, ofFirst []string
	var records []types.PutRecordsRequestEntry
	for n := 0; n < 100; n++ {
		sent = append(sent, fmt.Sprintf("record %d", n))
		records = append(records, types.PutRecordsRequestEntry{PartitionKey: aws.String(sent[n]), Data: []byte(sent[n])})
	}
	put := must(client.PutRecords(ctx, &kinesis.PutRecordsInput{StreamName: aws.String(stream), Records: records}))
	equal(*put.FailedRecordCount, int32(0))
	for n, it := range put.Records {
		if *it.ShardId == first {
			ofFirst = append(ofFirst, sent[n])
		}
	}
	equal(read(first), ofFirst)

	_, err := client.DescribeStream(ctx, &kinesis.DescribeStreamInput{StreamName: aws.String("none")})
	var refused *types.ResourceNotFoundException
	if !errors.As(err, &refused) {
		fail("a stream that is not there was described: %v", err)
	}
	equal(*refused.Message, "Stream none under account 000000000000 not found.")

	// Pushed, what was there before and what comes; then the shard's end, with the shards that go on.
	consumer := must(client.RegisterStreamConsumer(ctx, &kinesis.RegisterStreamConsumerInput{
		StreamARN: summary.StreamARN, ConsumerName: aws.String("c"),
	})).Consumer.ConsumerARN
	until("the consumer is ACTIVE", func() bool {
		described := must(client.DescribeStreamConsumer(ctx, &kinesis.DescribeStreamConsumerInput{ConsumerARN: consumer}))
		return described.ConsumerDescription.ConsumerStatus == types.ConsumerStatusActive
	})
	subscription := must(client.SubscribeToShard(ctx, &kinesis.SubscribeToShardInput{
		ConsumerARN: consumer, ShardId: aws.String(first),
		StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon},
	})).GetStream()
	must(client.PutRecord(ctx, &kinesis.PutRecordInput{
		StreamName: aws.String(stream), PartitionKey: aws.String("k"), ExplicitHashKey: aws.String("0"), Data: []byte("one more"),
	}))
	ofFirst = append(ofFirst, "one more")
	var pushed []string
	var last types.SubscribeToShardEvent
	split := false
	for event := range subscription.Events() {
		last = event.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent).Value
		pushed = append(pushed, texts(last.Records)...)
		if len(pushed) == len(ofFirst) && !split {
			split = true
			must(client.SplitShard(ctx, &kinesis.SplitShardInput{
				StreamName: aws.String(stream), ShardToSplit: aws.String(first), NewStartingHashKey: aws.String("1" + strings.Repeat("0", 30)),
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
	must(client.MergeShards(ctx, &kinesis.MergeShardsInput{
		StreamName: aws.String(stream), ShardToMerge: aws.String("shardId-000000000003"), AdjacentShardToMerge: aws.String("shardId-000000000001"),
	}))
	active()
	must(client.PutRecord(ctx, &kinesis.PutRecordInput{
		StreamName: aws.String(stream), PartitionKey: aws.String("k"), Data: []byte("the last"),
	}))
	var all, closed []string
	for _, it := range must(client.ListShards(ctx, &kinesis.ListShardsInput{StreamName: aws.String(stream)})).Shards {
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

	must(client.DeleteStream(ctx, &kinesis.DeleteStreamInput{StreamName: aws.String(stream), EnforceConsumerDeletion: aws.Bool(true)}))
	gone := kinesis.NewStreamNotExistsWaiter(client, func(it *kinesis.StreamNotExistsWaiterOptions) { it.MinDelay = time.Second })
	check(gone.Wait(ctx, named, bound))
	fmt.Println("the Go SDK v2: ok")
}

func quickly(it *kinesis.StreamExistsWaiterOptions) {
	it.MinDelay = time.Second
}

// The stream, once it is ACTIVE.
func active() (summary *types.StreamDescriptionSummary) {
	until("the stream is ACTIVE", func() bool {
		found := must(client.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: aws.String(stream)}))
		summary = found.StreamDescriptionSummary
		return summary.StreamStatus == types.StreamStatusActive
	})
	return summary
}

// All of a shard, to its tip or its end.
func read(shard string) (all []string) {
	next := must(client.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{
		StreamName: aws.String(stream), ShardId: aws.String(shard), ShardIteratorType: types.ShardIteratorTypeTrimHorizon,
	})).ShardIterator
	until(shard+" is read", func() bool {
		page := must(client.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: next, Limit: aws.Int32(30)}))
		all = append(all, texts(page.Records)...)
		next = page.NextShardIterator
		equal(page.ChildShards != nil, next == nil)
		return next == nil || (len(page.Records) == 0 && *page.MillisBehindLatest == 0)
	})
	return all
}

func texts(records []types.Record) (all []string) {
	for _, it := range records {
		all = append(all, string(it.Data))
	}
	return all
}
