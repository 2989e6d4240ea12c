//! The page over HTTP: `GET /metrics`.
//!
//! Invariant: a scraper that is slow, or opens many connections, costs a bounded number of tasks
//! for a bounded time.
//!
//! Deliberately absent: TLS, compression, and any other page.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use braid_env::{net, task, time};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;

use super::NodeMetrics;

/// Scrapers at once; one or two are usual.
const CONNECTIONS: usize = 16;
/// A whole scrape, a page of several megabytes over a slow network included.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// Between two upkeeps: at 50,000 requests/s histograms then hold some megabytes at most.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// After a failed accept, which most often means no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Text format 0.0.4, as every Prometheus reads it.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A server that is listening; dropping it stops it.
pub struct MetricsServer {
    address: SocketAddr,
    task: task::JoinHandle<()>,
}

impl MetricsServer {
    /// Listens on `address` and serves `metrics`.
    pub async fn start(address: SocketAddr, metrics: Arc<NodeMetrics>) -> io::Result<MetricsServer> {
        let listener = net::listen(address).await?;
        let address = listener.local_addr()?;
        Ok(MetricsServer { address, task: task::spawn(run(listener, metrics)) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(listener: net::Listener, metrics: Arc<NodeMetrics>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        metrics.upkeep();
        let accepted = async {
            let place = places.clone().acquire_owned().await.expect("never closed");
            (place, listener.accept().await)
        };
        match time::timeout(UPKEEP_EVERY, accepted).await {
            Err(_) => {}
            Ok((_, Err(_))) => time::sleep(ACCEPT_PAUSE).await,
            Ok((place, Ok((stream, _)))) => {
                let metrics = metrics.clone();
                task::spawn(async move {
                    let _place = place;
                    let answer = service_fn(move |request| {
                        let page = page(&request, &metrics);
                        async move { Ok::<_, Infallible>(page) }
                    });
                    let connection =
                        http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), answer);
                    // A scraper that went away is its own affair.
                    let _ = time::timeout(CONNECTION_TIME, connection).await;
                });
            }
        }
    }
}

fn page(request: &Request<Incoming>, metrics: &NodeMetrics) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, metrics.render()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".into()),
        _ => (StatusCode::NOT_FOUND, "there is only /metrics\n".into()),
    };
    Response::builder()
        .status(status)
        .header(http::header::CONTENT_TYPE, CONTENT_TYPE)
        .body(Full::new(Bytes::from(body)))
        .expect("a constant header is valid")
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_stream::ids::{NodeId, ShardId, StreamId};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = net::connect(&address.to_string()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_page_is_served_and_nothing_else() {
        let metrics = NodeMetrics::new(NodeId(1));
        metrics.shards.get(ShardId { stream: StreamId(1), index: 0 }, "orders").incoming(1, 2);
        let server = MetricsServer::start("127.0.0.1:0".parse().unwrap(), metrics).await.unwrap();
        let page = ask(server.address(), "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
        assert!(page.contains("braid_shard_incoming_bytes_total{node=\"1\",stream=\"orders\""), "{page}");
        let other = ask(server.address(), "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 404"), "{other}");
        let other = ask(server.address(), "POST /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 405"), "{other}");
    }
}
