// The Java SDK (2.x) at work while nodes are killed and the stream is resharded, with the attempts that it makes by itself:
//
//   java -cp 'JARS/*' Kills.java http://HOST:PORT STREAM CONSUMER_ARN NAME
//
// Writers put one record at a time, or 20; two readers of all shards, from parents to children, poll or subscribe. On a line of
// its input the writers stop, and at its end the readers do, once they are at the tip of every shard. Then it says what was
// done, a line each; kills_sdks.py judges that:
//
//   sent WRITER RECORDS
//   acked SHARD NUMBER TEXT
//   polled|pushed SHARD NUMBER TEXT
//   count WHAT: N

import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.core.exception.SdkClientException;
import software.amazon.awssdk.core.interceptor.*;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.model.*;
import software.amazon.awssdk.services.kinesis.model.Record;

public class Kills {
    static final int WRITERS = 3;
    static final Queue<String> lines = new ConcurrentLinkedQueue<>();
    static final Map<String, Long> counted = new ConcurrentHashMap<>();
    static final ExecutorService threads = Executors.newCachedThreadPool();
    static volatile boolean stopped, finished;
    static KinesisAsyncClient kinesis;
    static String stream, consumer;

    public static void main(String[] arguments) throws Exception {
        ((ch.qos.logback.classic.Logger) org.slf4j.LoggerFactory.getLogger("ROOT"))
            .setLevel(ch.qos.logback.classic.Level.ERROR);
        kinesis = KinesisAsyncClient.builder().endpointOverride(URI.create(arguments[0])).region(Region.US_EAST_1)
            .credentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test")))
            .overrideConfiguration(it -> it.addExecutionInterceptor(new Attempts())).build();
        stream = arguments[1];
        consumer = arguments[2];
        List<Future<?>> writers = new ArrayList<>(), readers = new ArrayList<>();
        List<String> shards = kinesis.listShards(it -> it.streamName(stream)
            .shardFilter(at -> at.type(ShardFilterType.AT_TRIM_HORIZON))).get()
            .shards().stream().map(Shard::shardId).collect(Collectors.toList());
        readers.add(working(() -> poll(shards)));
        Lineage lineage = new Lineage(shards);
        for (String shard : shards) {
            readers.add(working(() -> follow(shard, lineage)));
        }
        for (int n = 0; n < WRITERS; n++) {
            String writer = arguments[3] + "-" + n;
            writers.add(working(() -> write(writer)));
        }
        writers.add(working(() -> writeMany(arguments[3] + "-many")));
        System.out.println("at work");
        System.in.read();
        stopped = true;
        for (Future<?> it : writers) {
            it.get();
        }
        System.out.println("stopped");
        while (System.in.read() >= 0) {}
        finished = true;
        for (Future<?> it : readers) {
            it.get();
        }
        counted.forEach((what, n) -> lines.add("count " + what + ": " + n));
        System.out.println(String.join("\n", lines));
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    interface Work {
        void run() throws Exception;
    }

    /** A thread whose failure is the program's. */
    static Future<?> working(Work work) {
        return threads.submit(() -> {
            try {
                work.run();
            } catch (Throwable e) {
                e.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
        });
    }

    static void count(String what, long more) {
        counted.merge(what, more, Long::sum);
    }

    /** A call is one execution, and each attempt a transmission. */
    static class Attempts implements ExecutionInterceptor {
        public void beforeTransmission(Context.BeforeTransmission context, ExecutionAttributes attributes) {
            count(attributes.getAttribute(SdkExecutionAttribute.OPERATION_NAME) + " retries", 1);
        }

        public void beforeExecution(Context.BeforeExecution context, ExecutionAttributes attributes) {
            String operation = attributes.getAttribute(SdkExecutionAttribute.OPERATION_NAME);
            count(operation + " calls", 1);
            count(operation + " retries", -1);
        }
    }

    static void write(String writer) throws Exception {
        int n = 0;
        for (; !stopped; n++) {
            String text = writer + ":" + n;
            long begun = System.nanoTime();
            PutRecordResponse put = kinesis.putRecord(it -> it.streamName(stream).partitionKey(writer).data(bytes(text))).get();
            counted.merge("longest wait of a writer, ms", (System.nanoTime() - begun) / 1_000_000, Math::max);
            lines.add("acked " + put.shardId() + " " + put.sequenceNumber() + " " + text);
        }
        lines.add("sent " + writer + " " + n);
    }

    /** Puts again those that failed, as the API asks of it. */
    static void writeMany(String writer) throws Exception {
        int n = 0;
        while (!stopped) {
            List<String> texts = IntStream.range(n, n + 20).mapToObj(it -> writer + ":" + it).collect(Collectors.toList());
            n += texts.size();
            while (!texts.isEmpty()) {
                List<PutRecordsRequestEntry> records = texts.stream()
                    .map(it -> PutRecordsRequestEntry.builder().partitionKey(it).data(bytes(it)).build())
                    .collect(Collectors.toList());
                List<PutRecordsResultEntry> answer = kinesis.putRecords(it -> it.streamName(stream).records(records)).get().records();
                List<String> failed = new ArrayList<>();
                for (int it = 0; it < texts.size(); it++) {
                    PutRecordsResultEntry record = answer.get(it);
                    if (record.errorCode() != null) {
                        count("records failed: " + record.errorCode(), 1);
                        failed.add(texts.get(it));
                    } else {
                        lines.add("acked " + record.shardId() + " " + record.sequenceNumber() + " " + texts.get(it));
                    }
                }
                texts = failed;
            }
        }
        lines.add("sent " + writer + " " + n);
    }

    /** Which shards are to be read: children once all of their parents have been read to the end. */
    static class Lineage {
        final Set<String> begun, ended = new HashSet<>();

        Lineage(List<String> shards) {
            begun = new HashSet<>(shards);
        }

        synchronized List<String> end(String shard, List<ChildShard> children) {
            ended.add(shard);
            return children.stream().filter(it -> ended.containsAll(it.parentShards())).map(ChildShard::shardId)
                .filter(begun::add).collect(Collectors.toList());
        }
    }

    static void read(String how, String shard, List<Record> records) {
        records.forEach(it -> lines.add(how + " " + shard + " " + it.sequenceNumber() + " " + it.data().asUtf8String()));
    }

    static String begin(String shard) throws Exception {
        return kinesis.getShardIterator(it -> it.streamName(stream).shardId(shard)
            .shardIteratorType(ShardIteratorType.TRIM_HORIZON)).get().shardIterator();
    }

    static void poll(List<String> shards) throws Exception {
        Lineage lineage = new Lineage(shards);
        Map<String, String> iterators = new TreeMap<>();
        for (String shard : shards) {
            iterators.put(shard, begin(shard));
        }
        for (boolean last = false, moved = true; !last || moved;) {
            last = finished;
            moved = false;
            for (String shard : List.copyOf(iterators.keySet())) {
                String iterator = iterators.get(shard);
                GetRecordsResponse page = kinesis.getRecords(it -> it.shardIterator(iterator)).get();
                read("polled", shard, page.records());
                moved |= !page.records().isEmpty() || page.millisBehindLatest() > 0;
                if (page.nextShardIterator() != null) {
                    iterators.put(shard, page.nextShardIterator());
                    continue;
                }
                iterators.remove(shard);
                moved = true;
                for (String child : lineage.end(shard, page.childShards())) {
                    iterators.put(child, begin(child));
                }
            }
            Thread.sleep(50);
        }
    }

    /** Subscribes again after the last event, as a consumer of the service does at least every five minutes. */
    static void follow(String shard, Lineage lineage) throws Exception {
        StartingPosition[] at = { StartingPosition.builder().type(ShardIteratorType.TRIM_HORIZON).build() };
        List<String> children = new ArrayList<>();
        AtomicBoolean ended = new AtomicBoolean(), answered = new AtomicBoolean();
        while (!ended.get()) {
            answered.set(false);
            CompletableFuture<Void> tip = new CompletableFuture<>();
            SubscribeToShardResponseHandler handler = SubscribeToShardResponseHandler.builder()
                .onResponse(it -> {
                    // Once more, if the SDK begins it again by itself.
                    count(answered.getAndSet(true) ? "subscriptions begun again by the SDK" : "subscriptions begun", 1);
                })
                .subscriber(SubscribeToShardResponseHandler.Visitor.builder().onSubscribeToShardEvent(event -> {
                    read("pushed", shard, event.records());
                    if (event.continuationSequenceNumber() == null) {
                        ended.set(true);
                        children.addAll(lineage.end(shard, event.childShards()));
                        return;
                    }
                    at[0] = StartingPosition.builder().type(ShardIteratorType.AFTER_SEQUENCE_NUMBER)
                        .sequenceNumber(event.continuationSequenceNumber()).build();
                    if (finished && event.records().isEmpty() && event.millisBehindLatest() == 0) {
                        ended.set(true);
                        tip.complete(null);
                    }
                }).build()).build();
            StartingPosition start = at[0];
            CompletableFuture<Void> call = kinesis.subscribeToShard(
                it -> it.consumerARN(consumer).shardId(shard).startingPosition(start), handler);
            try {
                CompletableFuture.anyOf(call, tip).get();
                if (!ended.get()) {
                    count("subscriptions ended early", 1);
                }
            } catch (ExecutionException e) {
                if (e.getCause() instanceof ResourceInUseException) {
                    // The subscription that has just been lost counts for five seconds.
                    count("subscriptions refused for one before", 1);
                    Thread.sleep(1000);
                } else if (answered.get() || unanswered(e.getCause())) {
                    String when = answered.get() ? "" : " before they began";
                    count("subscriptions lost" + when + ": " + e.getCause().getClass().getSimpleName(), 1);
                } else {
                    throw e;
                }
            }
        }
        List<Future<?>> followers = children.stream().map(it -> working(() -> follow(it, lineage))).collect(Collectors.toList());
        for (Future<?> it : followers) {
            it.get();
        }
    }

    /** What any other call is tried again for. This one the SDK leaves to whoever makes it (its KinesisRetryPolicy). */
    static boolean unanswered(Throwable error) {
        return error instanceof SdkClientException
            || error instanceof KinesisException && ((KinesisException) error).statusCode() >= 500;
    }

    static SdkBytes bytes(String text) {
        return SdkBytes.fromString(text, StandardCharsets.UTF_8);
    }
}
