//! One node of a development cluster, as a child process.

use std::fs::OpenOptions;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::layout::Layout;
use crate::exit::Failure;

/// Stopping politely takes seconds at most; a node that takes longer is killed, which must do no
/// harm anyway.
const STOP_MAX: Duration = Duration::from_secs(20);

pub struct Member {
    pub node: u64,
    pub pid: u32,
    child: Child,
    ended: bool,
}

impl Member {
    pub async fn start(layout: &Layout, node: u64) -> Result<Member, Failure> {
        let log_path = layout.log(node);
        let failed = |what: &str, e: std::io::Error| Failure::failed(format!("can't {what}: {e}"));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(|e| failed(&format!("open {}", log_path.display()), e))?;
        let log_too = log.try_clone().map_err(|e| failed("open the log twice", e))?;
        let program = std::env::current_exe().map_err(|e| failed("find this program", e))?;
        let mut command = Command::new(program);
        command
            .args(["node", "--while-stdin-open", "--config"])
            .arg(layout.config(node))
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(log_too)
            // Ctrl-C in a terminal goes to a whole process group. It is for us alone: we stop the
            // nodes, and a second Ctrl-C must not stop them at once.
            .process_group(0);
        // A setting in the environment would win over the file, for all three nodes alike.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BRAID_")) {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(|e| failed("start a node", e))?;
        let pid = child.id().expect("it was not waited for");
        Ok(Member { node, pid, child, ended: false })
    }

    /// How it ended; told once.
    pub fn ended(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        let how = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.to_string(),
            Err(e) => format!("it can't be watched: {e}"),
        };
        self.ended = true;
        Some(how)
    }

    pub fn runs(&self) -> bool {
        !self.ended
    }

    /// Stops it politely: the end of its standard input asks for that.
    pub async fn stop(mut self) {
        drop(self.child.stdin.take());
        if tokio::time::timeout(STOP_MAX, self.child.wait()).await.is_err() {
            eprintln!("node {} did not stop within {} s and is killed", self.node, STOP_MAX.as_secs());
            let _ = self.child.kill().await;
        }
    }
}
