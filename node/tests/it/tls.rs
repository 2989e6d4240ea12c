//! TLS on the client port: both faces, calls that are forwarded, who is refused, a certificate that is renewed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use braid_node::config::TlsFiles;
use braid_proto::v1;
use braid_proto::v1::braid_client::BraidClient;
use braid_transport::{Channel, ChannelOptions, ClientTls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::support::{BOUND, TestCluster};

const OPTIONS: ChannelOptions =
    ChannelOptions { connect_timeout: Duration::from_secs(10), stream_window: 1 << 20, connection_window: 1 << 20 };

/// A CA of our own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Files with a certificate for this machine.
    fn certify(&self, dir: &Path) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_string(), "localhost".to_string()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = TlsFiles { certificate: dir.join("node.pem"), key: dir.join("node.key"), ca: dir.join("ca.pem") };
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.ca, &self.pem).unwrap();
        files
    }

    fn believed(&self) -> ClientTls {
        ClientTls::new(self.pem.as_bytes()).unwrap()
    }

    /// A connection by hand, that offers `protocols`.
    async fn dial(&self, address: &str, protocols: &[&str]) -> TlsStream<braid_env::net::Stream> {
        let mut roots = RootCertStore::empty();
        roots.add(PemObject::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        let stream = braid_env::net::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_faces_have_tls_and_nothing_else() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let files = authority.certify(dir.path());
    let mut cluster = TestCluster::start_with(|config| config.tls = Some(files.clone())).await;
    let addresses: Vec<String> = cluster.configs.iter().map(|it| it.client_advertise.clone()).collect();

    // gRPC, through every node: two of them have to ask the catalog's leader on its own client port.
    for (nth, address) in addresses.iter().enumerate() {
        let channel = Channel::connect(address, OPTIONS, Some(authority.believed())).await.unwrap();
        let request = v1::CreateStreamRequest {
            stream_name: format!("s{nth}"),
            shard_count: 1,
            ..v1::CreateStreamRequest::default()
        };
        BraidClient::new(channel).create_stream(request).await.unwrap();
    }

    // Kinesis over HTTP/1.1. What a client offers is what is spoken, and HTTP/2 rather than HTTP/1.1.
    let request = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\n\
                   X-Amz-Target: Kinesis_20131202.ListStreams\r\nX-Amz-Date: 20260101T000000Z\r\n\
                   Authorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/kinesis/aws4_request, \
                   SignedHeaders=host, Signature=00\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    for address in &addresses {
        let mut stream = authority.dial(address, &["http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains(r#""StreamNames":["s0","s1","s2"]"#), "{answer}");
    }
    for (offered, chosen) in [(&["h2"][..], "h2"), (&["http/1.1", "h2"][..], "h2")] {
        let stream = authority.dial(&addresses[0], offered).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(chosen.as_bytes()));
    }

    // Clear text is refused, and so is a caller who believes another CA.
    let channel = Channel::lazy(&addresses[0], OPTIONS, None).unwrap();
    assert!(BraidClient::new(channel).node_status(v1::NodeStatusRequest {}).await.is_err());
    let other = Channel::connect(&addresses[0], OPTIONS, Some(Authority::new().believed())).await;
    let why = other.err().expect("nobody vouches for it").to_string();
    assert!(why.contains("certificate"), "{why}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let files = authority.certify(dir.path());
    let mut cluster = TestCluster::start_nodes(1, |config| config.tls = Some(files.clone())).await;
    let address = cluster.configs[0].client_advertise.clone();
    let shown = async || {
        let stream = authority.dial(&address, &["h2"]).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = shown().await;

    // A connection from before goes on.
    let channel = Channel::connect(&address, OPTIONS, Some(authority.believed())).await.unwrap();
    let mut old = BraidClient::new(channel);
    std::fs::write(&files.key, "nonsense").unwrap();
    let looked_at = std::time::Instant::now();
    while looked_at.elapsed() < Duration::from_secs(5) {
        assert_eq!(shown().await, first, "for longer than a node takes to look at it again");
        braid_env::time::sleep(Duration::from_millis(100)).await;
    }
    authority.certify(dir.path());
    let start = std::time::Instant::now();
    while shown().await == first {
        assert!(start.elapsed() < BOUND, "the renewed certificate is not shown");
        braid_env::time::sleep(Duration::from_millis(50)).await;
    }
    old.node_status(v1::NodeStatusRequest {}).await.unwrap();
    cluster.stop_all().await;
}
