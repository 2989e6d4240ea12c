//! The AWS SDK for Rust against nodes, over HTTP/1.1.

use aws_sdk_kinesis::config::{BehaviorVersion, Builder, Credentials, Region};

pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A client's settings: the SDK's own, in clear text.
pub fn config(endpoint: &str) -> Builder {
    aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(endpoint)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
}
