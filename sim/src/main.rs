use braid_env::seam::Seams;
use braid_sim::executor::Executor;
use braid_sim::network::Network;
use braid_sim::world::*;
use std::time::Duration;

fn main() {
    let seed: u64 = std::env::args().nth(1).map_or(1, |s| s.parse().unwrap());
    let secs: u64 = std::env::args().nth(2).map_or(10, |s| s.parse().unwrap());
    if std::env::var("LOG").is_ok() {
        tracing_subscriber::fmt().with_env_filter(std::env::var("LOG").unwrap()).without_time().init();
    }
    let executor = Executor::new(seed);
    let network = Network::new(executor.clone(), seed);
    let topology = Topology {
        zones: [1, 1, 1],
        groups: 3,
        heartbeat_ms: 250,
        election_ms: (750, 1200),
        segment_bytes: 1 << 20,
        cache_bytes: 4 << 20,
        retention_floor_ms: 20_000,
    };
    let world = World::new(executor.clone(), network.clone(), seed, topology);
    for n in world.nodes() {
        world.start(n);
    }
    let host = network.add_host("10.0.9.1".parse().unwrap());
    let pid = executor.new_process(Duration::ZERO);
    let seams =
        Seams::real().with_host(network.interface(host, pid)).with_seed(seed ^ 7).with_wall_clock(&world.wall_clock());
    let w = world.clone();
    let (ex, own) = (executor.clone(), seams.clone());
    let start = std::time::Instant::now();
    let got = executor.block_on(seams, Duration::from_secs(300), async move {
        let client = braid_client::Client::connect(w.endpoints(), Default::default()).await.unwrap();
        println!("connected at {:?}", Duration::from_nanos(ex.now()));
        client.create_and_wait_active("s", 2, Default::default()).await.unwrap();
        println!("created at {:?}", Duration::from_nanos(ex.now()));
        let shards = client.list_shards("s").await.unwrap();
        println!("{} shards at {:?}", shards.len(), Duration::from_nanos(ex.now()));
        let _ = own;
        braid_env::time::sleep(Duration::from_secs(secs)).await;
    });
    println!(
        "{got:?} now {:?} in {:?} {:?} {:?}",
        Duration::from_nanos(executor.now()),
        start.elapsed(),
        executor.fingerprint(),
        network.counters()
    );
    for p in executor.panics() {
        println!("panic {p:?}");
    }
}
