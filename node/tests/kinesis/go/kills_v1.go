// The AWS SDK for Go (v1), over HTTP/1.1, for the work of kills.go.
package main

import (
	"os"

	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/credentials"
	"github.com/aws/aws-sdk-go/aws/request"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/kinesis"
)

type v1 struct {
	client           *kinesis.Kinesis
	stream, consumer *string
}

func main() {
	client := kinesis.New(must(session.NewSession(&aws.Config{
		Endpoint:    aws.String(os.Args[1]),
		Region:      aws.String("us-east-1"),
		Credentials: credentials.NewStaticCredentials("test", "test", ""),
	})))
	client.Handlers.Complete.PushBack(func(it *request.Request) {
		count(it.Operation.Name+" calls", 1)
		count(it.Operation.Name+" retries", it.RetryCount)
	})
	work(v1{client, aws.String(os.Args[2]), aws.String(os.Args[3])}, os.Args[4])
}

func (v v1) shards() (found []string) {
	listed := must(v.client.ListShards(&kinesis.ListShardsInput{
		StreamName: v.stream, ShardFilter: &kinesis.ShardFilter{Type: aws.String(kinesis.ShardFilterTypeAtTrimHorizon)},
	}))
	for _, it := range listed.Shards {
		found = append(found, *it.ShardId)
	}
	return found
}

func (v v1) put(key, text string) placed {
	put := must(v.client.PutRecord(&kinesis.PutRecordInput{StreamName: v.stream, PartitionKey: &key, Data: []byte(text)}))
	return placed{shard: *put.ShardId, number: *put.SequenceNumber}
}

func (v v1) putMany(texts []string) (all []placed) {
	var records []*kinesis.PutRecordsRequestEntry
	for _, it := range texts {
		records = append(records, &kinesis.PutRecordsRequestEntry{PartitionKey: aws.String(it), Data: []byte(it)})
	}
	for _, it := range must(v.client.PutRecords(&kinesis.PutRecordsInput{StreamName: v.stream, Records: records})).Records {
		all = append(all, placed{aws.StringValue(it.ShardId), aws.StringValue(it.SequenceNumber), aws.StringValue(it.ErrorCode)})
	}
	return all
}

func (v v1) begin(shard string) string {
	return *must(v.client.GetShardIterator(&kinesis.GetShardIteratorInput{
		StreamName: v.stream, ShardId: &shard, ShardIteratorType: aws.String(kinesis.ShardIteratorTypeTrimHorizon),
	})).ShardIterator
}

func (v v1) records(iterator string) page {
	it := must(v.client.GetRecords(&kinesis.GetRecordsInput{ShardIterator: &iterator}))
	return page{recordsOf(it.Records), it.NextShardIterator, *it.MillisBehindLatest, childrenOf(it.ChildShards)}
}

func (v v1) subscribe(shard, after string, give func(page) bool) error {
	start := &kinesis.StartingPosition{Type: aws.String(kinesis.ShardIteratorTypeTrimHorizon)}
	if after != "" {
		start = &kinesis.StartingPosition{Type: aws.String(kinesis.ShardIteratorTypeAfterSequenceNumber), SequenceNumber: &after}
	}
	answer, err := v.client.SubscribeToShard(&kinesis.SubscribeToShardInput{
		ConsumerARN: v.consumer, ShardId: &shard, StartingPosition: start,
	})
	if _, taken := err.(*kinesis.ResourceInUseException); taken {
		return busy
	}
	check(err)
	stream := answer.GetStream()
	defer stream.Close()
	for it := range stream.Events() {
		event := it.(*kinesis.SubscribeToShardEvent)
		found := page{recordsOf(event.Records), event.ContinuationSequenceNumber, *event.MillisBehindLatest, childrenOf(event.ChildShards)}
		if !give(found) {
			return nil
		}
	}
	return stream.Err()
}

func recordsOf(records []*kinesis.Record) (all []record) {
	for _, it := range records {
		all = append(all, record{*it.SequenceNumber, string(it.Data)})
	}
	return all
}

func childrenOf(children []*kinesis.ChildShard) (all []child) {
	for _, it := range children {
		all = append(all, child{*it.ShardId, aws.StringValueSlice(it.ParentShards)})
	}
	return all
}
