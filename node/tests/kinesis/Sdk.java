// The Java SDK (2.x) against a node: CBOR over HTTP/2 by prior knowledge, which is what it speaks by default.
//
//   java -cp 'JARS/*' Sdk.java http://HOST:PORT

import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.model.*;

public class Sdk {
    static final Duration BOUND = Duration.ofSeconds(60);

    public static void main(String[] arguments) throws Exception {
        KinesisAsyncClient kinesis = KinesisAsyncClient.builder()
            .endpointOverride(URI.create(arguments[0]))
            .region(Region.US_EAST_1)
            .credentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test")))
            .build();
        Instant begun = Instant.now();
        kinesis.createStream(it -> it.streamName("java").shardCount(1)).get();
        until("the stream is ACTIVE", () -> summary(kinesis).streamStatus() == StreamStatus.ACTIVE);
        StreamDescriptionSummary summary = summary(kinesis);
        near(summary.streamCreationTimestamp(), begun);
        String shard = kinesis.listShards(it -> it.streamName("java")).get().shards().get(0).shardId();

        List<PutRecordsRequestEntry> entries = new ArrayList<>();
        List<String> sent = new ArrayList<>();
        for (int n = 0; n < 100; n++) {
            sent.add("record " + n);
            entries.add(PutRecordsRequestEntry.builder().partitionKey("k" + n).data(bytes("record " + n)).build());
        }
        PutRecordsResponse put = kinesis.putRecords(it -> it.streamName("java").records(entries)).get();
        equal(put.failedRecordCount(), 0);

        String iterator = kinesis.getShardIterator(it -> it.streamName("java").shardId(shard)
            .shardIteratorType(ShardIteratorType.AT_TIMESTAMP).timestamp(begun.minusSeconds(60))).get().shardIterator();
        List<String> read = new ArrayList<>();
        while (read.size() < sent.size()) {
            String from = iterator;
            GetRecordsResponse page = kinesis.getRecords(it -> it.shardIterator(from).limit(30)).get();
            for (software.amazon.awssdk.services.kinesis.model.Record record : page.records()) {
                near(record.approximateArrivalTimestamp(), begun);
                read.add(record.data().asUtf8String());
            }
            iterator = page.nextShardIterator();
        }
        equal(read, sent);

        try {
            kinesis.describeStreamSummary(it -> it.streamName("none")).get();
            throw new AssertionError("a stream that is not there was described");
        } catch (ExecutionException e) {
            ResourceNotFoundException refused = (ResourceNotFoundException) e.getCause();
            equal(refused.awsErrorDetails().errorMessage(), "Stream none under account 000000000000 not found.");
            equal(refused.requestId().length(), 36);
        }

        String consumer = kinesis.registerStreamConsumer(it -> it.streamARN(summary.streamARN()).consumerName("c"))
            .get().consumer().consumerARN();
        until("the consumer is ACTIVE", () -> kinesis.describeStreamConsumer(it -> it.consumerARN(consumer)).get()
            .consumerDescription().consumerStatus() == ConsumerStatus.ACTIVE);
        List<String> pushed = Collections.synchronizedList(new ArrayList<>());
        int total = sent.size() + 1;
        CountDownLatch all = new CountDownLatch(1);
        List<SubscribeToShardEvent> events = Collections.synchronizedList(new ArrayList<>());
        SubscribeToShardResponseHandler handler = SubscribeToShardResponseHandler.builder()
            .onError(Throwable::printStackTrace)
            .subscriber(SubscribeToShardResponseHandler.Visitor.builder().onSubscribeToShardEvent(event -> {
                events.add(event);
                event.records().forEach(it -> pushed.add(it.data().asUtf8String()));
                if (pushed.size() >= total) {
                    all.countDown();
                }
            }).build())
            .build();
        CompletableFuture<Void> subscription = kinesis.subscribeToShard(it -> it.consumerARN(consumer).shardId(shard)
            .startingPosition(at -> at.type(ShardIteratorType.TRIM_HORIZON)), handler);
        kinesis.putRecord(it -> it.streamName("java").partitionKey("last").data(bytes("one more"))).get();
        sent.add("one more");
        if (!all.await(BOUND.toSeconds(), TimeUnit.SECONDS)) {
            throw new AssertionError("pushed were only " + pushed);
        }
        equal(pushed, sent);

        // The shard's end: the last event says who goes on, and has no number to go on from; then the events end.
        kinesis.splitShard(it -> it.streamName("java").shardToSplit(shard).newStartingHashKey("1" + "0".repeat(30))).get();
        subscription.get(BOUND.toSeconds(), TimeUnit.SECONDS);
        SubscribeToShardEvent last = events.get(events.size() - 1);
        equal(last.childShards().size(), 2);
        equal(last.continuationSequenceNumber(), null);

        // Merged again, and gone.
        List<String> halves = last.childShards().stream().map(ChildShard::shardId).collect(Collectors.toList());
        until("the split is done", () -> summary(kinesis).streamStatus() == StreamStatus.ACTIVE);
        kinesis.mergeShards(it -> it.streamName("java").shardToMerge(halves.get(0)).adjacentShardToMerge(halves.get(1))).get();
        until("the merge is done", () -> summary(kinesis).streamStatus() == StreamStatus.ACTIVE);
        List<Shard> shards = kinesis.listShards(it -> it.streamName("java")).get().shards();
        List<Shard> open = shards.stream().filter(it -> it.sequenceNumberRange().endingSequenceNumber() == null)
            .filter(it -> halves.get(0).equals(it.parentShardId())).collect(Collectors.toList());
        equal(open.size(), 1);
        equal(open.get(0).adjacentParentShardId(), halves.get(1));
        kinesis.deleteStream(it -> it.streamName("java").enforceConsumerDeletion(true)).get();
        until("the stream is gone", () -> !kinesis.listStreams().get().streamNames().contains("java"));
        kinesis.close();
        System.out.println("the Java SDK: ok");
    }

    static StreamDescriptionSummary summary(KinesisAsyncClient kinesis) throws Exception {
        return kinesis.describeStreamSummary(it -> it.streamName("java")).get().streamDescriptionSummary();
    }

    static SdkBytes bytes(String text) {
        return SdkBytes.fromString(text, StandardCharsets.UTF_8);
    }

    interface Condition {
        boolean holds() throws Exception;
    }

    static void until(String what, Condition condition) throws Exception {
        Instant end = Instant.now().plus(BOUND);
        while (!condition.holds()) {
            if (Instant.now().isAfter(end)) {
                throw new AssertionError("waited " + BOUND + " until " + what);
            }
            Thread.sleep(20);
        }
    }

    static void near(Instant found, Instant expected) {
        if (Duration.between(expected, found).abs().compareTo(BOUND.multipliedBy(2)) > 0) {
            throw new AssertionError(found + " is not near " + expected);
        }
    }

    static void equal(Object found, Object expected) {
        if (!java.util.Objects.equals(found, expected)) {
            throw new AssertionError(found + " instead of " + expected);
        }
    }
}
