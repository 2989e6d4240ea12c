//! The certificate of the client port: read from files, and read again when they change.
//!
//! Invariant: files that can't be used leave the last good ones in force, and that is said in the log once. The CA, by which
//! nodes know each other's client ports when they forward calls, is read at the start only.
//!
//! Not here: the peer port, which has no TLS: it belongs on a network that is trusted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use braid_env::{disk, time};
use braid_transport::{ClientTls, ServerTls};
use bytes::Bytes;

use crate::config::TlsFiles;

/// How often the files are looked at: a renewed certificate has days until the old one ends.
const LOOK: Duration = Duration::from_secs(2);

/// Both sides of a node's TLS.
pub struct Tls {
    pub server: ServerTls,
    /// For calls that go on to another node's client port.
    pub client: ClientTls,
    files: TlsFiles,
    /// What is shown now.
    shown: (Bytes, Bytes),
}

impl Tls {
    /// Reads the files.
    pub async fn open(files: &TlsFiles) -> Result<Tls, String> {
        let shown = read(files).await?;
        let of = |setting: &str, path: &Path, why: String| format!("{setting} {}: {why}", path.display());
        let server =
            ServerTls::new(&shown.0, &shown.1).map_err(|e| of("tls_certificate", &files.certificate, e.to_string()))?;
        let authorities = read_one("tls_ca", &files.ca).await?;
        let client = ClientTls::new(&authorities).map_err(|e| of("tls_ca", &files.ca, e.to_string()))?;
        Ok(Tls { server, client, files: files.clone(), shown })
    }

    /// Follows the files, until dropped.
    pub async fn follow(mut self) {
        let mut last = None;
        loop {
            time::sleep(LOOK).await;
            let renewed = match read(&self.files).await {
                Ok(found) if found == self.shown => continue,
                Ok(found) => self.server.replace(&found.0, &found.1).map(|()| found).map_err(|e| e.to_string()),
                Err(why) => Err(why),
            };
            match renewed {
                Ok(found) => {
                    tracing::info!(
                        "the client port shows the certificate that {} has now",
                        self.files.certificate.display()
                    );
                    (self.shown, last) = (found, None);
                }
                // Said once, however long it lasts: one of two files may just have been written.
                Err(why) if last.as_ref() != Some(&why) => {
                    tracing::warn!("the client port goes on with the last good certificate: {why}");
                    last = Some(why);
                }
                Err(_) => {}
            }
        }
    }
}

async fn read(files: &TlsFiles) -> Result<(Bytes, Bytes), String> {
    Ok((read_one("tls_certificate", &files.certificate).await?, read_one("tls_key", &files.key).await?))
}

async fn read_one(setting: &str, path: &PathBuf) -> Result<Bytes, String> {
    disk::read_file(path).await.map_err(|e| format!("{setting} {}: {e}", path.display()))
}
