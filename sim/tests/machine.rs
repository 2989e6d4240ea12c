//! The simulator's own machine: executor, clocks and network keep their promises.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use braid_env::host::{Connection, Packet};
use braid_env::seam::Seams;
use braid_env::time::{self, Instant};
use braid_env::{net, task};
use braid_sim::executor::{Executor, Pid, Stuck};
use braid_sim::network::{HostId, Link, Network};

const LONG: Duration = Duration::from_secs(3600);

/// Two hosts with a process each, and what stands in for the world for them.
struct Two {
    executor: Executor,
    network: Network,
    hosts: [HostId; 2],
    pids: [Pid; 2],
    seams: [Seams; 2],
}

fn two(seed: u64) -> Two {
    let executor = Executor::new(seed);
    let network = Network::new(executor.clone(), seed);
    let hosts = [1, 2].map(|n| network.add_host(std::net::Ipv4Addr::new(10, 0, 0, n).into()));
    let pids = [0, 1].map(|_| executor.new_process(Duration::from_secs(5)));
    let seams = [0, 1].map(|n| Seams::real().with_host(network.interface(hosts[n], pids[n])));
    Two { executor, network, hosts, pids, seams }
}

impl Two {
    /// Runs a future as host 0's.
    fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T, Stuck> {
        let _here = self.seams[0].enter();
        let job = task::spawn(future);
        self.executor.block_on(Seams::real(), LONG, async move { job.await.expect("no panic") })
    }
}

fn address() -> SocketAddr {
    "10.0.0.2:80".parse().unwrap()
}

fn packet(number: u64) -> Packet {
    Packet { bytes: 100, digest: number, content: Box::new(number) }
}

/// Host 1 notes the numbers it is sent, on every stream of every connection.
fn listen(two: &Two) -> Arc<Mutex<Vec<u64>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let noted = heard.clone();
    let _there = two.seams[1].enter();
    task::spawn(async move {
        let acceptor = net::listen(address()).await.unwrap().into_simulated().unwrap();
        loop {
            let connection = poll_fn(|cx| acceptor.poll_accept(cx)).await.unwrap();
            let noted = noted.clone();
            task::spawn(async move {
                while let Some(pipe) = poll_fn(|cx| connection.poll_accept(cx)).await {
                    let noted = noted.clone();
                    task::spawn(async move {
                        let mut pipe = pipe; // both halves: one that is dropped ends its direction
                        while let Some(Ok(packet)) = poll_fn(|cx| pipe.rx.poll_recv(cx)).await {
                            noted.lock().unwrap().push(*packet.content.downcast::<u64>().unwrap());
                        }
                    });
                }
            });
        }
    });
    heard
}

async fn connect() -> std::io::Result<Box<dyn Connection>> {
    net::simulated().unwrap().connect(&address().to_string()).await
}

#[test]
fn the_same_seed_gives_the_same_order_and_another_gives_another() {
    let order = |seed| {
        let two = two(seed);
        let ran = Arc::new(Mutex::new(Vec::new()));
        let notes = ran.clone();
        two.run(async move {
            let tasks: Vec<_> = (0..20)
                .map(|n| {
                    let notes = notes.clone();
                    task::spawn(async move {
                        task::yield_now().await;
                        notes.lock().unwrap().push(n);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        })
        .unwrap();
        let order = ran.lock().unwrap().clone();
        (order, two.executor.fingerprint())
    };
    assert_eq!(order(7), order(7));
    assert_ne!(order(7).0, order(8).0);
}

#[test]
fn time_jumps_to_the_next_timer_and_stands_still_between() {
    let two = two(1);
    let slept = two.run(async {
        let start = Instant::now();
        time::sleep(Duration::from_secs(1000)).await;
        start.elapsed()
    });
    assert_eq!(slept, Ok(Duration::from_secs(1000)));
}

#[test]
fn waiting_for_nothing_is_a_deadlock_and_not_a_hang() {
    assert_eq!(two(1).run(std::future::pending::<()>()), Err(Stuck::Deadlock));
}

/// Found by the simulator in itself: a clock that was slowed after a timer was set woke its task too early,
/// and never again.
#[test]
fn a_timer_survives_a_change_of_its_clock() {
    let two = two(1);
    let (executor, pid) = (two.executor.clone(), two.pids[0]);
    let slept = two.run(async move {
        let start = Instant::now();
        executor.drift(pid, 20_000);
        let sleep = time::sleep(Duration::from_secs(10));
        let slow = task::spawn(async move {
            time::sleep(Duration::from_secs(1)).await;
            executor.drift(pid, -20_000);
        });
        sleep.await;
        slow.await.unwrap();
        start.elapsed()
    });
    assert!(slept.unwrap() >= Duration::from_secs(10));
}

#[test]
fn a_killed_process_runs_no_further_and_others_do() {
    let two = two(1);
    let ticks = Arc::new(Mutex::new(0));
    {
        let ticks = ticks.clone();
        let _there = two.seams[1].enter();
        task::spawn(async move {
            loop {
                time::sleep(Duration::from_secs(1)).await;
                *ticks.lock().unwrap() += 1;
            }
        });
    }
    let (executor, pid) = (two.executor.clone(), two.pids[1]);
    two.run(async move {
        time::sleep(Duration::from_millis(3500)).await;
        executor.kill(pid);
        time::sleep(Duration::from_secs(100)).await;
    })
    .unwrap();
    assert_eq!((*ticks.lock().unwrap(), two.executor.is_alive(two.pids[1])), (3, false));
}

#[test]
fn a_paused_process_goes_on_where_it_was() {
    let two = two(1);
    let (executor, pid) = (two.executor.clone(), two.pids[0]);
    let resume = executor.clone();
    executor.call_at(50_000_000_000, move || resume.pause(pid, false));
    let woke = two.run(async move {
        executor.pause(pid, true);
        time::sleep(Duration::from_secs(1)).await;
        executor.now()
    });
    assert_eq!(woke, Ok(50_000_000_000));
}

#[test]
fn packets_arrive_once_and_in_order_whatever_the_link_does() {
    for seed in 0..20 {
        let two = two(seed);
        let heard = listen(&two);
        let link = Link {
            loss_per_mille: 200,
            reorder_per_mille: 300,
            duplicate_per_mille: 300,
            jitter: Duration::from_millis(50),
            ..Link::healthy(Duration::from_millis(2))
        };
        two.network.set_link(two.hosts[0], two.hosts[1], link);
        two.run(async {
            time::sleep(Duration::from_millis(1)).await;
            let connection = connect().await.unwrap();
            let mut pipe = connection.open().unwrap();
            for number in 0..100 {
                pipe.tx.send(packet(number));
                time::sleep(Duration::from_millis(1)).await;
            }
            time::sleep(Duration::from_secs(60)).await;
        })
        .unwrap();
        assert_eq!(*heard.lock().unwrap(), (0..100).collect::<Vec<_>>(), "seed {seed}");
        let counters = two.network.counters();
        assert!(counters.lost > 0 && counters.reordered > 0 && counters.duplicated > 0, "{counters:?}");
    }
}

#[test]
fn a_cut_link_holds_what_is_sent_until_it_is_mended() {
    let two = two(3);
    let heard = listen(&two);
    let (network, hosts, noted) = (two.network.clone(), two.hosts, heard.clone());
    let before = two.run(async move {
        time::sleep(Duration::from_millis(1)).await;
        let connection = connect().await.unwrap();
        let mut pipe = connection.open().unwrap();
        let link = network.link(hosts[0], hosts[1]);
        network.set_link(hosts[0], hosts[1], Link { cut: true, ..link });
        pipe.tx.send(packet(1));
        time::sleep(Duration::from_secs(5)).await;
        let before = noted.lock().unwrap().len();
        network.set_link(hosts[0], hosts[1], link);
        time::sleep(Duration::from_secs(5)).await;
        before
    });
    assert_eq!((before, heard.lock().unwrap().as_slice()), (Ok(0), &[1][..]));
}

#[test]
fn a_killed_process_resets_its_connections_and_a_host_without_power_does_not() {
    for power in [false, true] {
        let two = two(4);
        listen(&two);
        let (network, executor, hosts, pids) = (two.network.clone(), two.executor.clone(), two.hosts, two.pids);
        let told = two.run(async move {
            time::sleep(Duration::from_millis(1)).await;
            let connection = connect().await.unwrap();
            let mut pipe = connection.open().unwrap();
            time::sleep(Duration::from_secs(1)).await;
            match power {
                true => network.power_lost(hosts[1]),
                false => network.process_killed(pids[1]),
            }
            executor.kill(pids[1]);
            time::timeout(Duration::from_secs(3), poll_fn(|cx| pipe.rx.poll_recv(cx))).await.is_ok()
        });
        assert_eq!(told, Ok(!power), "power lost: {power}");
    }
}

#[test]
fn nobody_listening_is_refused_and_a_host_without_power_is_silence() {
    let two = two(5);
    let (network, hosts) = (two.network.clone(), two.hosts);
    let (refused, silent) = two
        .run(async move {
            let refused = connect().await.err().map(|e| e.kind());
            network.power_lost(hosts[1]);
            let silent = time::timeout(Duration::from_secs(30), connect()).await.is_err();
            (refused, silent)
        })
        .unwrap();
    assert_eq!((refused, silent), (Some(std::io::ErrorKind::ConnectionRefused), true));
}
