// The Kinesis Client Library (3.x, or 2.x) against a node, with its tables in a DynamoDB somewhere else: by enhanced fan-out or by
// polling. Says what it is told, a line each, until its input ends; a record in an aggregate has a place in it, any other has 0:
//
//   SHARD begins
//   SHARD gives NUMBER PLACE KEY TEXT
//   SHARD ends
//   SHARD is lost
//
//   java -cp 'JARS/*' Kcl.java http://KINESIS http://DYNAMODB STREAM fan-out|polling

import java.net.URI;
import java.nio.charset.StandardCharsets;
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
import software.amazon.kinesis.leases.LeaseManagementConfig;
import software.amazon.kinesis.lifecycle.events.*;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

public class Kcl {
    public static void main(String[] arguments) throws Exception {
        // Of its own accord it says everything that goes over the wire.
        ((ch.qos.logback.classic.Logger) org.slf4j.LoggerFactory.getLogger("ROOT"))
            .setLevel(ch.qos.logback.classic.Level.WARN);
        var credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        var kinesis = KinesisClientUtil.createKinesisAsyncClient(KinesisAsyncClient.builder()
            .endpointOverride(URI.create(arguments[0])).region(Region.US_EAST_1).credentialsProvider(credentials));
        var dynamo = DynamoDbAsyncClient.builder()
            .endpointOverride(URI.create(arguments[1])).region(Region.US_EAST_1).credentialsProvider(credentials).build();
        var cloudwatch = CloudWatchAsyncClient.builder()
            .endpointOverride(URI.create(arguments[1])).region(Region.US_EAST_1).credentialsProvider(credentials).build();
        var start = InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
        var configs = new ConfigsBuilder(new SingleStreamTracker(arguments[2], start), "app-" + arguments[3], kinesis, dynamo, cloudwatch,
            "worker", Processor::new);
        var leases = configs.leaseManagementConfig();
        leases.failoverTimeMillis(10_000);
        leases.leasesRecoveryAuditorExecutionFrequencyMillis(3000);
        // A worker waits so long after it has made its first leases; of its own accord, a minute.
        leases.shardSyncIntervalMillis(1000);
        ofKcl3(leases);
        var retrieval = configs.retrievalConfig();
        if (arguments[3].equals("polling")) {
            var polling = new PollingConfig(arguments[2], kinesis).idleTimeBetweenReadsInMillis(250);
            retrieval.retrievalSpecificConfig(polling);
        }
        var scheduler = new Scheduler(configs.checkpointConfig(),
            configs.coordinatorConfig().shardConsumerDispatchPollIntervalMillis(200).parentShardPollIntervalMillis(500),
            leases, configs.lifecycleConfig(), configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
            configs.processorConfig(), retrieval);
        Thread thread = new Thread(scheduler);
        thread.setDaemon(true);
        thread.start();
        while (System.in.read() >= 0) {}
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    /** By their names, so that this compiles with KCL 2 as well, which has none of them. */
    static void ofKcl3(LeaseManagementConfig leases) throws ReflectiveOperationException {
        try {
            // Leases are handed out every 20 s unless this is said, those of a shard's children too.
            leases.getClass().getMethod("leaseAssignmentIntervalMillis", Long.class).invoke(leases, 2000L);
            Object assignment = leases.getClass().getMethod("workerUtilizationAwareAssignmentConfig").invoke(leases);
            assignment.getClass().getMethod("disableWorkerMetrics", boolean.class).invoke(assignment, true);
        } catch (NoSuchMethodException e) {
            System.out.println("no KCL 3");
        }
    }

    static class Processor implements ShardRecordProcessor {
        String shard;

        void say(String what) {
            System.out.println(shard + " " + what);
        }

        public void initialize(InitializationInput input) {
            shard = input.shardId();
            say("begins");
        }

        public void processRecords(ProcessRecordsInput input) {
            input.records().forEach(it -> {
                say("gives " + it.sequenceNumber() + " " + it.subSequenceNumber() + " " + it.partitionKey() + " "
                    + StandardCharsets.UTF_8.decode(it.data()));
            });
        }

        public void leaseLost(LeaseLostInput input) {
            say("is lost");
        }

        public void shardEnded(ShardEndedInput input) {
            try {
                say("ends");
                input.checkpointer().checkpoint();
            } catch (Exception e) {
                e.printStackTrace();
            }
        }

        public void shutdownRequested(ShutdownRequestedInput input) {}
    }
}
