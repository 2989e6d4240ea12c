//! `braid cluster`: who is there, who leads what, who lags.
//!
//! The answering node knows the membership; only a group's leader knows how far the others are. So
//! every live node is asked about itself, and each group is shown as its leader sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_client::Client;
use braid_proto::v1;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::connect::Endpoints;
use crate::exit::Failure;
use crate::members;
use crate::moment::duration_text;
use crate::output::{Format, print_json, print_line, print_table, table};
use crate::size::bytes_text;

/// Look at the cluster
#[derive(clap::Subcommand)]
pub enum Command {
    /// Show nodes, zones, leaders and how far replicas lag
    ///
    /// Examples:
    ///   braid cluster status
    ///   watch -n1 braid cluster status
    ///   braid cluster status -o json
    #[command(verbatim_doc_comment)]
    Status,
    /// Move a group's leadership to another of its replicas
    ///
    /// Example:
    ///   braid cluster transfer-leader --group 3 --to 2
    #[command(verbatim_doc_comment)]
    TransferLeader {
        /// The group
        #[arg(long)]
        group: u32,
        /// The node that is to lead it
        #[arg(long, value_name = "NODE")]
        to: u64,
    },
    /// Move replicas to where fewer are, one at a time, until it is even: after nodes have joined
    ///
    /// Writers and readers go on. It can be interrupted: the cluster goes on by itself.
    ///
    /// Examples:
    ///   braid cluster rebalance --dry-run
    ///   braid cluster rebalance
    ///   braid cluster rebalance --cancel
    #[command(verbatim_doc_comment)]
    Rebalance(members::Rebalance),
    /// Give every replica of a node that is gone for good to a new node in the same zone.
    ///
    /// Start the new node first, with a new node id and the same cluster list: it joins by
    /// itself. Its replicas then catch up group by group; `braid cluster status` shows the lag.
    ///
    /// Example:
    ///   braid cluster replace-node --from 3 --to 4
    #[command(verbatim_doc_comment)]
    ReplaceNode {
        /// The node that is gone for good
        #[arg(long, value_name = "NODE")]
        from: u64,
        /// The new node
        #[arg(long, value_name = "NODE")]
        to: u64,
    },
}

pub async fn run(command: Command, endpoints: &Endpoints, format: Format) -> Result<(), Failure> {
    let command = match command {
        Command::Rebalance(args) => return members::rebalance(args, endpoints, format).await,
        command => command,
    };
    let client = endpoints.connect().await?;
    match command {
        Command::Rebalance(_) => unreachable!("taken above"),
        Command::Status => {
            let view = View::of(&client).await?;
            match format {
                Format::Json => Ok(print_json(&view.json())?),
                Format::Table => view.print(),
            }
        }
        Command::ReplaceNode { from, to } => {
            client.replace_node(from, to).await?;
            match format {
                Format::Json => print_json(&json!({ "from_node": from, "to_node": to }))?,
                Format::Table => print_line(&format!(
                    "node {to} takes the place of node {from}; see `braid cluster status` for how far it is"
                ))?,
            }
            Ok(())
        }
        Command::TransferLeader { group, to } => {
            let moved = client.transfer_leader(group, to).await?;
            match format {
                Format::Json => print_json(&json!({ "group": group, "leader_node": moved.leader_node }))?,
                Format::Table => print_line(&format!("node {} leads group {group}", moved.leader_node))?,
            }
            Ok(())
        }
    }
}

/// A node that does not answer within this is shown as silent.
const NODE_PATIENCE: Duration = Duration::from_secs(2);

/// The cluster as its nodes, put together, see it.
pub struct View {
    pub cluster: v1::ClusterStatusResponse,
    /// What nodes say of themselves, by id; absent if one does not answer.
    pub nodes: BTreeMap<u64, v1::NodeStatusResponse>,
}

impl View {
    pub async fn of(client: &Client) -> Result<View, Failure> {
        let cluster = client.cluster_status().await?;
        let asked = cluster.nodes.iter().map(|node| async {
            let asked = client.node_status(&node.client_address);
            match tokio::time::timeout(NODE_PATIENCE, asked).await {
                Ok(Ok(status)) => Some((node.node_id, status)),
                _ => None,
            }
        });
        let nodes = join_all(asked).await.into_iter().flatten().collect();
        Ok(View { cluster, nodes })
    }

    /// Each group as its leader sees it, where that leader answers.
    fn groups(&self) -> impl Iterator<Item = &v1::GroupStatus> {
        self.cluster.groups.iter().map(|group| {
            let leader = self.nodes.get(&group.leader_node);
            leader.and_then(|leader| leader.groups.iter().find(|g| g.group == group.group)).unwrap_or(group)
        })
    }

    fn json(&self) -> Value {
        let c = &self.cluster;
        json!({
            "cluster_id": c.cluster_id,
            "version": c.version,
            "answered_by": c.answered_by,
            "streams": c.stream_count,
            "open_shards": c.open_shard_count,
            "shards": c.shard_count,
            "nodes": c.nodes.iter().map(|node| self.node_json(node)).collect::<Vec<_>>(),
            "groups": self.groups().map(group_json).collect::<Vec<_>>(),
        })
    }

    pub fn node_json(&self, node: &v1::ClusterNode) -> Value {
        let own = self.nodes.get(&node.node_id);
        json!({
            "node": node.node_id,
            "zone": node.zone,
            "client_address": node.client_address,
            "peer_address": node.peer_address,
            "live": own.is_some(),
            "live_to_peers": node.live,
            "ready": own.is_some_and(|own| own.ready),
            "standing": members::standing_text(node.standing()),
            "groups": node.groups,
            "groups_led": node.groups_led,
            "incarnation": node.incarnation,
            "uptime_ms": own.map(|own| own.uptime_ms),
            "disk_used_bytes": own.map(|own| own.disk_used_bytes),
            "disk_free_bytes": own.map(|own| own.disk_free_bytes),
            "warnings": own.map(|own| own.warnings.clone()).unwrap_or_default(),
        })
    }

    fn print(&self) -> Result<(), Failure> {
        let c = &self.cluster;
        print_line(&format!(
            "cluster {}  version {}  {} streams, {} open shards  (as node {} sees it)\n",
            c.cluster_id, c.version, c.stream_count, c.open_shard_count, c.answered_by
        ))?;
        let mut nodes = table(&["node", "zone", "state", "client", "peer", "leads", "up", "disk used", "disk free"]);
        for node in &c.nodes {
            let own = self.nodes.get(&node.node_id);
            let of_own = |text: fn(&v1::NodeStatusResponse) -> String| own.map_or("-".to_string(), text);
            nodes.add_row([
                node.node_id.to_string(),
                node.zone.clone(),
                self.state(node),
                node.client_address.clone(),
                node.peer_address.clone(),
                groups_text(&node.groups_led),
                of_own(|own| duration_text(own.uptime_ms / 1_000 * 1_000)),
                of_own(|own| known_bytes(own.disk_used_bytes)),
                of_own(|own| known_bytes(own.disk_free_bytes)),
            ]);
        }
        print_table(&nodes)?;
        print_line("")?;
        let mut groups =
            table(&["group", "leader", "term", "replicas", "lag", "committed", "applied", "shards", "log"]);
        for group in self.groups() {
            groups.add_row([
                if group.group == 0 { "0 (catalog)".to_string() } else { group.group.to_string() },
                if group.leader_node == 0 { "NONE".to_string() } else { format!("node {}", group.leader_node) },
                group.term.to_string(),
                replicas_text(group),
                group.lag.to_string(),
                group.committed_index.to_string(),
                group.applied_index.to_string(),
                group.shard_count.to_string(),
                bytes_text(group.log_bytes),
            ]);
        }
        print_table(&groups)?;
        if let Some(line) = members::progress(c) {
            print_line(&format!("\n{line}"))?;
        }
        for (node, status) in &self.nodes {
            for warning in &status.warnings {
                eprintln!("node {node}: {warning}");
            }
        }
        Ok(())
    }

    pub fn state(&self, node: &v1::ClusterNode) -> String {
        match self.nodes.get(&node.node_id) {
            Some(own) if own.ready => "ready".to_string(),
            Some(_) => "starting".to_string(),
            None if node.live => "no answer here".to_string(),
            None => "DOWN".to_string(),
        }
    }
}

/// A node that can't tell says 0.
fn known_bytes(bytes: u64) -> String {
    if bytes == 0 { "-".to_string() } else { bytes_text(bytes) }
}

fn groups_text(groups: &[u32]) -> String {
    match groups.is_empty() {
        true => "-".to_string(),
        false => groups.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
    }
}

/// `1:a 2:b+3 3:c`: node, zone, and how many entries it lacks.
fn replicas_text(group: &v1::GroupStatus) -> String {
    let replicas = group.replicas.iter().map(|replica| {
        let lag = if replica.lag > 0 { format!("+{}", replica.lag) } else { String::new() };
        let role = if replica.voter { "" } else { "(learner)" };
        format!("{}:{}{lag}{role}", replica.node_id, replica.zone)
    });
    replicas.collect::<Vec<_>>().join(" ")
}

fn group_json(group: &v1::GroupStatus) -> Value {
    let replicas = group.replicas.iter().map(
        |replica| json!({ "node": replica.node_id, "zone": replica.zone, "lag": replica.lag, "voter": replica.voter }),
    );
    json!({
        "group": group.group,
        "leader_node": group.leader_node,
        "term": group.term,
        "replicas": replicas.collect::<Vec<_>>(),
        "lag": group.lag,
        "last_log_index": group.last_log_index,
        "committed_index": group.committed_index,
        "applied_index": group.applied_index,
        "durable_index": group.durable_index,
        "purged_index": group.purged_index,
        "shards": group.shard_count,
        "log_bytes": group.log_bytes,
        "stopped_reason": group.stopped_reason,
        "damaged_reason": group.damaged_reason,
    })
}
