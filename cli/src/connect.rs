//! Which cluster: the endpoints given, and a client of them.

use std::path::PathBuf;
use std::time::Duration;

use braid_client::{Client, ClientOptions, ClientTls};
use clap::Args;

use crate::exit::Failure;

#[derive(Args, Clone, Debug)]
pub struct Endpoints {
    /// A node's client address, HOST:PORT or https://HOST:PORT; repeat it, or separate by commas, so that one node may be down
    #[arg(
        long = "endpoint",
        value_name = "HOST:PORT",
        env = "BRAID_ENDPOINT",
        value_delimiter = ',',
        default_values = ["127.0.0.1:4570", "127.0.0.1:4571", "127.0.0.1:4572"],
        hide_default_value = true,
        help_heading = "Everywhere",
        global = true,
        long_help = "A node's client address, HOST:PORT. Repeat it, or separate several by commas, so that one \
                     node may be down: any node serves any request. [default: the nodes of `braid dev`, \
                     127.0.0.1:4570 to 127.0.0.1:4572]"
    )]
    pub addresses: Vec<String>,

    /// A PEM file with the CA that the nodes' certificates are signed by, for endpoints that begin with https://
    #[arg(long, value_name = "FILE", env = "BRAID_CA", help_heading = "Everywhere", global = true)]
    pub ca: Option<PathBuf>,

    /// How long to go on trying while no node can serve a request
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = crate::moment::parse_duration,
        default_value = "30s",
        help_heading = "Everywhere",
        global = true
    )]
    pub patience: Duration,
}

impl Endpoints {
    pub async fn connect(&self) -> Result<Client, Failure> {
        let connect_patience = self.patience.min(CONNECT_PATIENCE_MAX);
        // One client to see whether anybody is there, which need not take long; then the patient one.
        let tls = self.believed()?;
        let options = ClientOptions { call_timeout: connect_patience, tls: tls.clone(), ..ClientOptions::default() };
        Client::connect(self.addresses.clone(), options).await?;
        let options = ClientOptions { call_timeout: self.patience, tls, ..ClientOptions::default() };
        Ok(Client::connect(self.addresses.clone(), options).await?)
    }

    fn believed(&self) -> Result<Option<ClientTls>, Failure> {
        let Some(path) = &self.ca else { return Ok(None) };
        let wrong = |why: String| Failure::usage(format!("--ca {}: {why}", path.display()));
        let pem = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
        ClientTls::new(&pem).map(Some).map_err(|e| wrong(e.to_string()))
    }
}

/// A person who forgot to start a cluster should not wait half a minute to be told.
const CONNECT_PATIENCE_MAX: Duration = Duration::from_secs(5);
