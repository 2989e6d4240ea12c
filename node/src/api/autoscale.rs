//! Streams that want it scale by load: the catalog's leader looks at what is asked of their shards, and decides.
//!
//! Invariant: nothing is decided while a leader does not say what is asked of its shards: that is not "nothing". The
//! decision is `braid_stream::autoscale`'s, its history this node's while it leads the catalog.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use braid_env::time::{self, Instant};
use braid_proto::v1;
use braid_stream::autoscale::{Autoscaler, Bounds, Decision, Demand};
use braid_stream::catalog::StreamStatus;
use braid_stream::catalog_command::{CatalogCommand, SetShardCount};
use braid_stream::ids::StreamId;
use braid_stream::name::StreamName;
use braid_stream::scale::Shares;

use super::{Call, Service};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(10);

/// Runs until dropped.
pub async fn run(service: &Service) -> Infallible {
    let started = Instant::now();
    let mut scalers: BTreeMap<StreamId, Autoscaler> = BTreeMap::new();
    loop {
        time::sleep(LOOK).await;
        let now = Instant::now() - started;
        let wanted = streams(service);
        scalers.retain(|stream, _| wanted.iter().any(|it| it.0 == *stream));
        for (stream, name, bounds) in wanted {
            let scaler = scalers.entry(stream).or_insert_with(|| Autoscaler::new(now));
            if let Err(why) = look_at(service, stream, &name, bounds, scaler, now).await {
                tracing::info!(stream = name.as_str(), "not scaled by load: {why}");
            }
        }
    }
}

/// Those that want it and may be changed now; none where this node does not lead the catalog.
fn streams(service: &Service) -> Vec<(StreamId, StreamName, Bounds)> {
    let Some(catalog) = service.router.catalog().ok().filter(|it| it.is_leader()) else { return Vec::new() };
    catalog.state(|c| {
        let all = c.autoscaled().filter_map(|(id, bounds)| Some((c.stream_by_id(id)?, bounds)));
        let serving = all.filter(|(it, _)| matches!(it.status, StreamStatus::Active | StreamStatus::Updating));
        serving.map(|(it, bounds)| (it.id, it.name.clone(), bounds)).collect()
    })
}

async fn look_at(
    service: &Service,
    stream: StreamId,
    name: &StreamName,
    bounds: Bounds,
    scaler: &mut Autoscaler,
    now: Duration,
) -> Result<(), String> {
    let message = v1::DescribeShardLoadsRequest { stream_name: name.as_str().into(), ..Default::default() };
    let call = Call { forwarded: false, deadline: Instant::now() + LOOK };
    let routes = service.router.stream(name).map_err(|_| "it is not known here any more".to_string())?;
    let loads = service.shard_loads(&message, &call).await.map_err(|e| e.explain().message)?;
    if !loads.missing_shard_ids.is_empty() {
        return Err(format!("what is asked of {} is not known", loads.missing_shard_ids.join(", ")));
    }
    if routes.stream.status != StreamStatus::Active {
        return Ok(());
    }
    let open = u32::try_from(routes.map.routes().len()).expect("at most 10,000");
    let demand = Demand { open, percent: loads.write_percent_total as u64 };
    let Decision::Scale { to, why } = scaler.decide(now, bounds, demand) else { return Ok(()) };
    tracing::info!(stream = name.as_str(), open, to, "scaled by load: {why}");
    let command = SetShardCount {
        at_ms: service.clock.now_ms(),
        stream,
        shards: to,
        shares: Shares::Equal,
        within_factor: false,
        counted: false,
    };
    let proposed = service.propose_to_catalog(CatalogCommand::SetShardCount(command)).await;
    proposed.map_err(|e| e.explain().message)
}
