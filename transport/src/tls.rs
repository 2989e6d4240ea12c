//! TLS of the client port: certificates from PEM texts, and connections that shake hands when first used.
//!
//! Invariant: no byte of a connection gets to the service before its handshake is done; a connection that has not shaken hands
//! within [`HANDSHAKE`] is dropped. A certificate that is replaced holds for connections that come after.
//!
//! Not here: files and when they change, and who may call (a certificate of a client is not asked for).

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use braid_env::net;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{Accept, TlsAcceptor, TlsConnector, client, server};

/// A handshake is two round trips; whoever takes longer holds a place among the connections.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);

/// What is spoken inside: the server's choice among what a client offers.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate, a key or a CA is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// What a listener shows. Clones share it.
#[derive(Clone)]
pub struct ServerTls(Arc<RwLock<Arc<ServerConfig>>>);

impl ServerTls {
    /// From PEM texts: the certificate with what leads to its CA, its own first; and its private key.
    pub fn new(certificates: &[u8], key: &[u8]) -> Result<ServerTls, TlsError> {
        Ok(ServerTls(Arc::new(RwLock::new(server_config(certificates, key)?))))
    }

    /// Connections that come from now on are shown these. On an error the old ones stay.
    pub fn replace(&self, certificates: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let new = server_config(certificates, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

/// Whom a caller believes: certificates that one of its CAs has signed, for the host that it dials.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// From a PEM text of one CA's certificate or several.
    pub fn new(authorities: &[u8]) -> Result<ClientTls, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates_of(authorities)? {
            roots.add(certificate).map_err(|e| TlsError(format!("a CA's certificate is not taken: {e}")))?;
        }
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut config = builder.expect("the provider has them").with_root_certificates(roots).with_no_client_auth();
        // Channels speak HTTP/2 and nothing else.
        config.alpn_protocols = vec![PROTOCOLS[0].to_vec()];
        Ok(ClientTls(Arc::new(config)))
    }

    /// Shakes hands with `address` (`host:port`) on `stream`.
    pub(crate) async fn connect(&self, address: &str, stream: net::Stream) -> io::Result<Wire> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no host that a certificate is for"))
        })?;
        let connected = TlsConnector::from(self.0.clone()).connect(name, stream).await?;
        Ok(Wire::Client(Box::new(connected)))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError("there is no certificate in it, as PEM".into())),
        Err(e) => Err(TlsError(format!("it is not PEM: {e}"))),
    }
}

fn server_config(certificates: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = certificates_of(certificates)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|e| TlsError(format!("there is no private key in it, as PEM: {e}")))?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = builder.expect("the provider has them").with_no_client_auth().with_single_cert(certificates, key);
    let mut config = config.map_err(|e| TlsError(format!("certificate and key do not go together: {e}")))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// The bytes of a connection, in clear text or not.
pub(crate) enum Wire {
    Plain(net::Stream),
    /// Accepted, and not read from or written to yet.
    Shaking(Box<Accept<net::Stream>>),
    Server(Box<server::TlsStream<net::Stream>>),
    Client(Box<client::TlsStream<net::Stream>>),
}

impl Wire {
    /// Of an accepted connection.
    pub fn accept(stream: net::Stream, tls: Option<&ServerTls>) -> Wire {
        match tls {
            None => Wire::Plain(stream),
            Some(tls) => Wire::Shaking(Box::new(tls.acceptor().accept(stream))),
        }
    }

    /// Whether its handshake is still to be done.
    pub fn is_shaking(&self) -> bool {
        matches!(self, Wire::Shaking(_))
    }

    /// Ready once bytes can go.
    fn poll_shaken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Wire::Shaking(accept) = self {
            let shaken = ready!(Pin::new(&mut **accept).poll(cx))?;
            *self = Wire::Server(Box::new(shaken));
        }
        Poll::Ready(Ok(()))
    }
}

/// Calls a method of whichever stream it is; there is one by then.
macro_rules! on_stream {
    ($wire:expr, $stream:ident => $call:expr) => {
        match $wire {
            Wire::Plain($stream) => $call,
            Wire::Server($stream) => {
                let $stream = &mut **$stream;
                $call
            }
            Wire::Client($stream) => {
                let $stream = &mut **$stream;
                $call
            }
            Wire::Shaking(_) => unreachable!("hands were shaken before"),
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_shaken(cx))?;
        on_stream!(&mut *self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_shaken(cx))?;
        on_stream!(&mut *self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_shaken(cx))?;
        on_stream!(&mut *self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Shaking(_) | Wire::Server(_) | Wire::Client(_) => true,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_shaken(cx))?;
        on_stream!(&mut *self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A connection that is closed before its handshake has nothing to say goodbye to.
        if self.is_shaking() {
            return Poll::Ready(Ok(()));
        }
        on_stream!(&mut *self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
