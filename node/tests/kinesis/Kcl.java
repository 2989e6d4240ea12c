// The Kinesis Client Library (3.x) against a node, with its tables in a DynamoDB somewhere else: by enhanced fan-out or by
// polling. Says what it is told, a line each, until it has been given so many records and so many shards have ended:
//
//   SHARD begins
//   SHARD gives TEXT
//   SHARD ends
//
//   java -cp 'JARS/*' Kcl.java http://KINESIS http://DYNAMODB STREAM fan-out|polling RECORDS SHARDS

import java.net.URI;
import java.nio.charset.StandardCharsets;
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
import software.amazon.kinesis.retrieval.polling.PollingConfig;

public class Kcl {
    static CountDownLatch records, shards;

    public static void main(String[] arguments) throws Exception {
        records = new CountDownLatch(Integer.parseInt(arguments[4]));
        shards = new CountDownLatch(Integer.parseInt(arguments[5]));
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
        leases.failoverTimeMillis(10_000);
        leases.leasesRecoveryAuditorExecutionFrequencyMillis(3000);
        leases.workerUtilizationAwareAssignmentConfig().disableWorkerMetrics(true);
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
        // With its tables made and its leases taken: minutes, on a busy machine.
        boolean done = records.await(360, TimeUnit.SECONDS) && shards.await(60, TimeUnit.SECONDS);
        System.out.flush();
        Runtime.getRuntime().halt(done ? 0 : 1);
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
                say("gives " + StandardCharsets.UTF_8.decode(it.data()));
                records.countDown();
            });
        }

        public void leaseLost(LeaseLostInput input) {
            say("is lost");
        }

        public void shardEnded(ShardEndedInput input) {
            try {
                say("ends");
                input.checkpointer().checkpoint();
                shards.countDown();
            } catch (Exception e) {
                e.printStackTrace();
            }
        }

        public void shutdownRequested(ShutdownRequestedInput input) {}
    }
}
