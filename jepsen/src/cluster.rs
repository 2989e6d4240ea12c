//! Three `braid node` processes in three zones on loopback.
//!
//! Invariant: only processes started here are ever signalled, each by its own id, and all of them
//! end with the [`Cluster`].

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use braid_client::{Client, ClientOptions};

/// The bound of every wait here.
pub const BOUND: Duration = Duration::from_secs(90);

/// Nodes of a cluster.
pub const NODES: usize = 3;

/// What /proc counts processor time in: on Linux, whatever the kernel's own timer is.
const TICKS_PER_S: u64 = 100;

/// A running cluster, and the files that it lives in.
pub struct Cluster {
    binary: PathBuf,
    dir: tempfile::TempDir,
    clients: Vec<String>,
    children: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts three nodes of `binary` and waits until they serve. `settings` are further lines of
    /// every node's configuration.
    pub async fn start(binary: &Path, settings: &str) -> Cluster {
        let dir = tempfile::tempdir().expect("a directory for the nodes");
        // The kernel names free ports; they are let go just before the nodes take them.
        let held: Vec<TcpListener> =
            (0..2 * NODES).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let addresses: Vec<String> = held.iter().map(|l| l.local_addr().expect("bound").to_string()).collect();
        let (peers, clients) = addresses.split_at(NODES);
        for i in 0..NODES {
            let mut text = format!(
                "node_id = {}\nzone = \"{}\"\ndata_dir = {:?}\nclient_listen = {:?}\npeer_listen = {:?}\n{settings}\n",
                i + 1,
                ["a", "b", "c"][i],
                dir.path().join(format!("node-{}", i + 1)),
                clients[i],
                peers[i],
            );
            for j in 0..NODES {
                text.push_str(&format!(
                    "[[cluster]]\nid = {}\nzone = \"{}\"\npeer = {:?}\nclient = {:?}\n",
                    j + 1,
                    ["a", "b", "c"][j],
                    peers[j],
                    clients[j]
                ));
            }
            std::fs::write(dir.path().join(format!("node-{}.toml", i + 1)), text).expect("a configuration");
        }
        drop(held);
        let mut cluster = Cluster {
            binary: binary.to_path_buf(),
            dir,
            clients: clients.to_vec(),
            children: (0..NODES).map(|_| None).collect(),
        };
        for i in 0..NODES {
            cluster.start_node(i);
        }
        cluster.serving(&[0, 1, 2]).await;
        cluster
    }

    /// Where clients dial.
    pub fn endpoints(&self) -> Vec<String> {
        self.clients.clone()
    }

    /// A client of the whole cluster.
    pub async fn client(&self) -> Client {
        Client::connect(self.endpoints(), ClientOptions::default()).await.expect("a client")
    }

    /// Starts node `i` (from 0) on its old data.
    pub fn start_node(&mut self, i: usize) {
        assert!(self.children[i].is_none(), "node {} runs already", i + 1);
        let log =
            std::fs::File::options().create(true).append(true).open(self.log(i)).expect("a file for the node's log");
        let mut command = Command::new(&self.binary);
        // A node takes settings from its environment; this one is configured by its file alone.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BRAID_")) {
            command.env_remove(name);
        }
        let child = command
            .arg("node")
            .arg("--config")
            .arg(self.dir.path().join(format!("node-{}.toml", i + 1)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the braid binary runs");
        self.children[i] = Some(child);
    }

    /// `kill -9` of node `i`.
    pub fn kill(&mut self, i: usize) {
        let mut child = self.children[i].take().expect("the node runs");
        child.kill().expect("a process of ours can be killed");
        child.wait().expect("a killed process ends");
    }

    /// `kill -9` of `nodes`, all at once; they stay down for `down`, are started again, and all nodes serve.
    pub async fn restart(&mut self, nodes: &[usize], down: Duration) {
        for &node in nodes {
            self.kill(node);
        }
        tokio::time::sleep(down).await;
        for &node in nodes {
            self.start_node(node);
        }
        self.serving(&[0, 1, 2]).await;
    }

    /// The memory that node `i` has resident, in bytes.
    pub fn resident_bytes(&self, i: usize) -> u64 {
        let id = self.children[i].as_ref().expect("the node runs").id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process of ours");
        let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).expect("a running process has it");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of KiB");
        kib * 1024
    }

    /// The processor time that node `i` has used, in user and kernel mode.
    pub fn cpu(&self, i: usize) -> Duration {
        let id = self.children[i].as_ref().expect("the node runs").id();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("a process of ours");
        // The second field is the program's name in brackets; of those after it, the 12th and 13th are these (proc(5)).
        let fields = stat.rsplit(')').next().expect("a name in brackets").split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|it| it.parse::<u64>().expect("a number of ticks")).sum();
        Duration::from_millis(ticks * 1_000 / TICKS_PER_S)
    }

    /// Waits until each of `nodes` says that it is ready and every group has a leader.
    pub async fn serving(&mut self, nodes: &[usize]) {
        let start = Instant::now();
        for &i in nodes {
            let client = loop {
                match Client::connect(vec![self.clients[i].clone()], ClientOptions::default()).await {
                    Ok(client) => break client,
                    Err(e) => self.not_yet(i, start, &e.to_string()).await,
                }
            };
            loop {
                match client.cluster_status().await {
                    Ok(status) if status.groups.iter().all(|g| g.leader_node != 0) && !status.groups.is_empty() => {
                        break;
                    }
                    Ok(_) => self.not_yet(i, start, "not every group has a leader").await,
                    Err(e) => self.not_yet(i, start, &e.to_string()).await,
                }
            }
        }
    }

    async fn not_yet(&mut self, i: usize, start: Instant, why: &str) {
        let ended = self.children[i].as_mut().and_then(|c| c.try_wait().expect("our own child"));
        assert!(ended.is_none(), "node {} ended: {ended:?}\n{}", i + 1, self.last_words(i));
        assert!(start.elapsed() < BOUND, "node {} does not serve: {why}\n{}", i + 1, self.last_words(i));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fn log(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("node-{}.log", i + 1))
    }

    /// The end of node `i`'s log, for a failing test.
    pub fn last_words(&self, i: usize) -> String {
        let text = std::fs::read_to_string(self.log(i)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
