// The Kinesis Client Library (3.x) against a node, with its tables in a DynamoDB somewhere else: enhanced fan-out, over a
// split, to the end. Prints every record it was given, once all are there.
//
//   java -cp 'JARS/*' Kcl.java http://KINESIS http://DYNAMODB STREAM COUNT

import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.*;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;

public class Kcl {
    static final Set<String> seen = new ConcurrentSkipListSet<>();
    static CountDownLatch all;
    static int count;

    public static void main(String[] arguments) throws Exception {
        count = Integer.parseInt(arguments[3]);
        all = new CountDownLatch(1);
        var credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        var kinesis = KinesisClientUtil.createKinesisAsyncClient(KinesisAsyncClient.builder()
            .endpointOverride(URI.create(arguments[0])).region(Region.US_EAST_1).credentialsProvider(credentials));
        var dynamo = DynamoDbAsyncClient.builder()
            .endpointOverride(URI.create(arguments[1])).region(Region.US_EAST_1).credentialsProvider(credentials).build();
        var cloudwatch = CloudWatchAsyncClient.builder()
            .endpointOverride(URI.create(arguments[1])).region(Region.US_EAST_1).credentialsProvider(credentials).build();
        var start = InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
        var configs = new ConfigsBuilder(new SingleStreamTracker(arguments[2], start), "app", kinesis, dynamo, cloudwatch,
            "worker", Processor::new);
        var leases = configs.leaseManagementConfig();
        leases.failoverTimeMillis(3000);
        leases.leasesRecoveryAuditorExecutionFrequencyMillis(3000);
        leases.workerUtilizationAwareAssignmentConfig().disableWorkerMetrics(true);
        var scheduler = new Scheduler(configs.checkpointConfig(),
            configs.coordinatorConfig().shardConsumerDispatchPollIntervalMillis(200).parentShardPollIntervalMillis(500),
            leases, configs.lifecycleConfig(), configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
            configs.processorConfig(), configs.retrievalConfig());
        Thread thread = new Thread(scheduler);
        thread.setDaemon(true);
        thread.start();
        boolean done = all.await(180, TimeUnit.SECONDS);
        System.out.println("records: " + new TreeSet<>(seen));
        System.out.flush();
        Runtime.getRuntime().halt(done ? 0 : 1);
    }

    static class Processor implements ShardRecordProcessor {
        public void initialize(InitializationInput input) {
            System.out.println("shard " + input.shardId() + " from " + input.extendedSequenceNumber());
        }

        public void processRecords(ProcessRecordsInput input) {
            input.records().forEach(it -> seen.add(StandardCharsets.UTF_8.decode(it.data()).toString()));
            if (seen.size() >= count) {
                all.countDown();
            }
        }

        public void leaseLost(LeaseLostInput input) {
            System.out.println("a lease is lost");
        }

        public void shardEnded(ShardEndedInput input) {
            try {
                System.out.println("a shard has ended");
                input.checkpointer().checkpoint();
            } catch (Exception e) {
                e.printStackTrace();
            }
        }

        public void shutdownRequested(ShutdownRequestedInput input) {}
    }
}
