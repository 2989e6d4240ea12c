//! Where a development cluster's nodes live: files, ports, zones.
//!
//! Invariant: it follows from the data directory and the first port alone, so that a cluster found
//! on disk is the cluster that was left there. The ports are part of what its nodes know of each
//! other; a directory is therefore bound to the port it was made with.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

pub const NODES: u64 = 3;

/// Peers listen so many ports above clients, metrics twice as many.
const STEP: u16 = 10;

pub struct Layout {
    /// Absolute.
    pub dir: PathBuf,
    port: u16,
    throttle: String,
    log_level: String,
}

impl Layout {
    pub fn new(dir: &Path, port: u16, throttle: &str, log_level: &str) -> Result<Layout, Failure> {
        let failed = |e: std::io::Error| Failure::failed(format!("can't use {}: {e}", dir.display()));
        fs::create_dir_all(dir).map_err(failed)?;
        let dir = fs::canonicalize(dir).map_err(failed)?;
        Ok(Layout { dir, port, throttle: throttle.into(), log_level: log_level.into() })
    }

    fn address(&self, node: u64, step: u16) -> String {
        format!("127.0.0.1:{}", self.port + step * STEP + (node as u16 - 1))
    }

    pub fn client(&self, node: u64) -> String {
        self.address(node, 0)
    }

    pub fn peer(&self, node: u64) -> String {
        self.address(node, 1)
    }

    pub fn metrics(&self, node: u64) -> String {
        self.address(node, 2)
    }

    pub fn zone(&self, node: u64) -> &'static str {
        ["a", "b", "c"][node as usize - 1]
    }

    pub fn config(&self, node: u64) -> PathBuf {
        self.dir.join(format!("node-{node}.toml"))
    }

    pub fn log(&self, node: u64) -> PathBuf {
        self.dir.join(format!("node-{node}.log"))
    }

    pub fn endpoints(&self) -> Vec<String> {
        (1..=NODES).map(|node| self.client(node)).collect()
    }

    /// What starts a node by hand.
    pub fn command(&self, node: u64) -> String {
        let braid = std::env::args().next().unwrap_or_else(|| "braid".into());
        format!("{braid} node --config {}", self.config(node).display())
    }

    /// Writes the nodes' configurations.
    pub fn write(&self) -> Result<(), Failure> {
        self.check_port()?;
        for node in 1..=NODES {
            let path = self.config(node);
            fs::write(&path, self.toml(node))
                .map_err(|e| Failure::failed(format!("can't write {}: {e}", path.display())))?;
        }
        Ok(())
    }

    /// Every port must be free: a second cluster would otherwise talk to the first.
    pub fn check_free(&self) -> Result<(), Failure> {
        for node in 1..=NODES {
            for address in [self.client(node), self.peer(node), self.metrics(node)] {
                if let Err(e) = TcpListener::bind(&address) {
                    return Err(Failure::failed(format!("{address} can't be listened on: {e}"))
                        .hint("Is another `braid dev` running? Stop it, or use another --port and --data-dir."));
                }
            }
        }
        Ok(())
    }

    fn check_port(&self) -> Result<(), Failure> {
        let Ok(before) = fs::read_to_string(self.config(1)) else { return Ok(()) };
        let ours = format!("client_listen = {:?}", self.client(1));
        match before.lines().find(|line| line.starts_with("client_listen")) {
            Some(line) if line != ours => {
                let address = line.split('"').nth(1).unwrap_or(line);
                let port = address.rsplit(':').next().unwrap_or(address);
                Err(Failure::new(
                    Exit::Usage,
                    format!("the cluster in {} was made with --port {port}, not {}", self.dir.display(), self.port),
                )
                .hint(format!("Use --port {port}, or another --data-dir.")))
            }
            _ => Ok(()),
        }
    }

    fn toml(&self, node: u64) -> String {
        let mut text = format!(
            "# Written by `braid dev` at every start; changes are lost.\n\
             node_id = {node}\n\
             zone = {:?}\n\
             data_dir = {:?}\n\
             client_listen = {:?}\n\
             peer_listen = {:?}\n\
             metrics_listen = {:?}\n\
             throttle = {:?}\n\
             log_level = {:?}\n",
            self.zone(node),
            self.dir.join(format!("node-{node}")),
            self.client(node),
            self.peer(node),
            self.metrics(node),
            self.throttle,
            self.log_level,
        );
        for seed in 1..=NODES {
            text.push_str(&format!(
                "\n[[cluster]]\nid = {seed}\nzone = {:?}\npeer = {:?}\nclient = {:?}\n",
                self.zone(seed),
                self.peer(seed),
                self.client(seed)
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_node::config::{Flags, NodeConfig};

    #[test]
    fn every_node_gets_a_valid_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), 4570, "off", "info").unwrap();
        for node in 1..=NODES {
            let path = layout.config(node);
            let config = NodeConfig::from_sources(Some((&path, &layout.toml(node))), [], Flags::default()).unwrap();
            assert_eq!((config.node_id.0, config.cluster.len()), (node, 3));
            assert_eq!(config.client_advertise, layout.client(node));
        }
    }

    #[test]
    fn a_directory_is_bound_to_its_port() {
        let dir = tempfile::tempdir().unwrap();
        Layout::new(dir.path(), 4570, "on", "info").unwrap().write().unwrap();
        Layout::new(dir.path(), 4570, "off", "info").unwrap().write().unwrap();
        let other = Layout::new(dir.path(), 5570, "on", "info").unwrap().write();
        assert!(other.unwrap_err().to_string().contains("--port 4570"));
    }
}
