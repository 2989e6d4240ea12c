//! Accounts, regions and ARNs ↔ the cluster's stream names.
//!
//! An account in a region is a namespace: the cluster's own (its settings say which) is the default one, whose streams
//! have plain names in the gRPC face; the streams of any other are called `ACCOUNT.REGION/NAME` there.
//!
//! Invariant: two callers meet in a stream only if account, region and name agree.

use braid_proto::v1;
use braid_stream::ids::{ShardId, StreamId};
use braid_stream::name::StreamName;

use super::wire::fault::{Fault, FaultKind};

/// The account and region whose streams have plain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Twelve digits.
    pub account: String,
    /// Such as `us-east-1`.
    pub region: String,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Twelve digits.
    pub account: String,
    /// From the signature's scope.
    pub region: String,
}

/// A stream as its caller named it, and as the cluster does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Whose it is.
    pub account: String,
    /// Where it is.
    pub region: String,
    /// The cluster's name for it.
    pub name: StreamName,
}

impl Named {
    /// The name within its account and region.
    pub fn local(&self) -> &str {
        self.name.local()
    }

    /// `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`
    pub fn arn(&self) -> String {
        let Named { account, region, .. } = self;
        format!("arn:{}:kinesis:{region}:{account}:stream/{}", partition(region), self.local())
    }

    /// The name of the shard that a request means. The service reads the number after the first hyphen, or a text that is
    /// a number: `shardId-000000000001`, `shard-1` and `1` are one shard, as the tests of kinesalite saw it there.
    pub fn shard(&self, text: &str) -> Result<String, Fault> {
        let digits = text.split('-').nth(1).filter(|it| !it.is_empty()).unwrap_or(text);
        let number = Some(digits).filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
        match number.and_then(|it| it.parse().ok()).filter(|index| *index <= i32::MAX as u32) {
            Some(index) => Ok(ShardId { stream: StreamId(0), index }.name()),
            None => Err(self.no_shard(text)),
        }
    }

    /// That a shard which was to be changed is not there.
    pub fn no_shard(&self, shard: &str) -> Fault {
        let text = format!("Could not find shard {shard} in stream {} under account {}.", self.local(), self.account);
        Fault::new(FaultKind::ResourceNotFound, text)
    }

    /// `…/consumer/NAME:CREATION_SECONDS`
    pub fn consumer_arn(&self, consumer: &str, created_s: u64) -> String {
        format!("{}/consumer/{consumer}:{created_s}", self.arn())
    }
}

/// A consumer of a stream, as its ARN or its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// When it was registered, if an ARN said so: an earlier one of the same name is another one.
    pub created_s: Option<u64>,
}

/// What a ResourceARN names: a stream, or a consumer of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub stream: Named,
    pub consumer: Option<Consumer>,
}

impl Resource {
    /// Its ARN; of a consumer that was named without the second of its registration, its stream's.
    pub fn arn(&self) -> String {
        match &self.consumer {
            Some(Consumer { name, created_s: Some(second) }) => self.stream.consumer_arn(name, *second),
            _ => self.stream.arn(),
        }
    }
}

impl Consumer {
    /// Itself among the stream's.
    pub fn find<'a>(&self, attributes: &'a v1::StreamAttributes, stream: &Named) -> Result<&'a v1::Consumer, Fault> {
        let is_it = |it: &&v1::Consumer| {
            it.name == self.name && self.created_s.is_none_or(|created_s| created_s == it.created_ms / 1000)
        };
        attributes.consumers.iter().find(is_it).ok_or_else(|| {
            let text = format!("Consumer {}, account {} not found.", self.name, stream.account);
            Fault::new(FaultKind::ResourceNotFound, text)
        })
    }
}

/// The part of the world that an ARN begins with.
fn partition(region: &str) -> &'static str {
    match region {
        it if it.starts_with("cn-") => "aws-cn",
        it if it.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// Whether `text` is an account: twelve digits.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|it| it.is_ascii_digit())
}

/// Whether `text` may be a region: it goes into a stream's name.
pub fn is_region(text: &str) -> bool {
    let allowed = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    (1..=40).contains(&text.len()) && text.bytes().all(allowed)
}

/// What an ARN of a stream says; `rest` is what follows the stream's name, such as `/consumer/…`.
#[derive(Debug, PartialEq, Eq)]
pub struct Arn<'a> {
    pub region: &'a str,
    pub account: &'a str,
    pub stream: &'a str,
    pub rest: &'a str,
}

impl<'a> Arn<'a> {
    /// `None`: it is no stream's, nor of anything within a stream.
    pub fn parse(text: &'a str) -> Option<Arn<'a>> {
        let mut parts = text.splitn(6, ':');
        let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let path = resource.strip_prefix("stream/")?;
        let (stream, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        let sound = arn == "arn" && partition.starts_with("aws") && service == "kinesis";
        (sound && is_region(region) && is_account(account)).then_some(Arn { region, account, stream, rest })
    }
}

impl Home {
    /// The cluster's name for a stream; the parts are valid.
    pub fn name(&self, account: &str, region: &str, local: &str) -> Result<Named, Fault> {
        let name = StreamName::within(self.namespace(account, region).as_deref(), local)
            .map_err(|_| Fault::argument(format!("Stream name {local} is not allowed.")))?;
        Ok(Named { account: account.to_string(), region: region.to_string(), name })
    }

    /// The namespace of an account in a region; `None` is the default one.
    pub fn namespace(&self, account: &str, region: &str) -> Option<String> {
        let at_home = account == self.account && region == self.region;
        (!at_home).then(|| format!("{account}.{region}"))
    }

    /// Whose stream it is that the cluster calls so; `None` if its namespace was not made by this face.
    pub fn of_name(&self, name: &str) -> Option<Named> {
        let name = StreamName::parse(name).ok()?;
        let (account, region) = match name.namespace() {
            None => (self.account.as_str(), self.region.as_str()),
            Some(namespace) => {
                namespace.split_once('.').filter(|(account, region)| is_account(account) && is_region(region))?
            }
        };
        Some(Named { account: account.to_string(), region: region.to_string(), name: name.clone() })
    }

    /// The stream that a request names: by name, which is the caller's, or by ARN, or by both if they agree.
    pub fn stream(&self, caller: &Caller, name: Option<&str>, arn: Option<&str>) -> Result<Named, Fault> {
        match (name, arn) {
            (None, None) => Err(Fault::argument("Either StreamName or StreamARN must be provided.")),
            (Some(name), None) => self.name(&caller.account, &caller.region, name),
            (name, Some(arn)) => {
                let named = self.arn(arn)?;
                match name {
                    Some(name) if name != named.local() => Err(Fault::argument(format!(
                        "StreamARN {arn} and StreamName {name} do not refer to the same stream."
                    ))),
                    _ => Ok(named),
                }
            }
        }
    }

    /// The consumer that an ARN names, and its stream.
    pub fn consumer(&self, text: &str) -> Result<(Named, Consumer), Fault> {
        match self.resource(text)? {
            Resource { stream, consumer: Some(consumer) } => Ok((stream, consumer)),
            Resource { consumer: None, .. } => {
                Err(Fault::argument(format!("ConsumerARN {text} is not the ARN of a consumer.")))
            }
        }
    }

    /// The stream, or the consumer of one, that an ARN names.
    pub fn resource(&self, text: &str) -> Result<Resource, Fault> {
        let invalid = || Fault::argument(format!("{text} is not the ARN of a stream or of a consumer."));
        let Arn { region, account, stream, rest } = Arn::parse(text).ok_or_else(invalid)?;
        let consumer = match rest {
            "" => None,
            rest => {
                let (name, second) =
                    rest.strip_prefix("/consumer/").and_then(|it| it.split_once(':')).ok_or_else(invalid)?;
                Some(Consumer { name: name.to_string(), created_s: Some(second.parse().map_err(|_| invalid())?) })
            }
        };
        Ok(Resource { stream: self.name(account, region, stream)?, consumer })
    }

    /// The stream that an ARN names.
    pub fn arn(&self, text: &str) -> Result<Named, Fault> {
        match Arn::parse(text) {
            Some(Arn { region, account, stream, rest: "" }) => self.name(account, region, stream),
            _ => Err(Fault::argument(format!("StreamARN {text} is not the ARN of a stream."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home { account: "000000000000".into(), region: "us-east-1".into() }
    }

    fn caller(account: &str, region: &str) -> Caller {
        Caller { account: account.into(), region: region.into() }
    }

    #[test]
    fn the_same_name_elsewhere_is_another_stream() {
        let at_home = home().stream(&caller("000000000000", "us-east-1"), Some("a"), None).unwrap();
        assert_eq!(
            (at_home.name.as_str(), at_home.arn().as_str()),
            ("a", "arn:aws:kinesis:us-east-1:000000000000:stream/a")
        );
        let abroad = home().stream(&caller("123456789012", "cn-north-1"), Some("a"), None).unwrap();
        assert_eq!(abroad.name.as_str(), "123456789012.cn-north-1/a");
        assert_eq!(abroad.arn(), "arn:aws-cn:kinesis:cn-north-1:123456789012:stream/a");
        for named in [at_home, abroad] {
            assert_eq!(home().of_name(named.name.as_str()), Some(named.clone()));
            assert_eq!(home().arn(&named.arn()), Ok(named));
        }
    }

    #[test]
    fn a_shard_is_its_number() {
        let stream = home().name("000000000000", "us-east-1", "a").unwrap();
        for (text, index) in [
            ("shardId-000000000001", "000000000001"),
            ("shard-1", "000000000001"),
            ("1", "000000000001"),
            ("-00002147483647", "002147483647"),
            ("any.thing-7-8", "000000000007"),
        ] {
            assert_eq!(stream.shard(text), Ok(format!("shardId-{index}")), "{text}");
        }
        for bad in
            ["2147483648", "shardId-002147483648", "ABKLFD8", "2.14E4", "shardId-", "a-+1", "a-99999999999999999999"]
        {
            assert_eq!(stream.shard(bad), Err(stream.no_shard(bad)), "{bad}");
        }
    }

    #[test]
    fn a_consumers_arn_says_which_of_its_name() {
        let stream = home().name("000000000000", "us-east-1", "a").unwrap();
        let arn = stream.consumer_arn("c", 7);
        assert_eq!(arn, "arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/c:7");
        let consumer = Consumer { name: "c".into(), created_s: Some(7) };
        assert_eq!(home().consumer(&arn), Ok((stream.clone(), consumer.clone())));
        let known = |created_ms| v1::StreamAttributes {
            consumers: vec![v1::Consumer { name: "c".into(), created_ms, ..v1::Consumer::default() }],
            ..v1::StreamAttributes::default()
        };
        assert!(consumer.find(&known(7_999), &stream).is_ok());
        assert!(consumer.find(&known(8_000), &stream).is_err());
        for bad in ["/consumer/c", "/consumer/c:x", "/other/c:7", "/"] {
            assert!(home().resource(&format!("{}{bad}", stream.arn())).is_err(), "{bad}");
        }
        assert!(home().consumer(&stream.arn()).is_err());
    }

    #[test]
    fn a_name_and_an_arn_must_agree() {
        let (me, arn) = (caller("000000000000", "us-east-1"), "arn:aws:kinesis:us-east-1:000000000000:stream/a");
        assert!(home().stream(&me, Some("a"), Some(arn)).is_ok());
        for (name, arn) in [
            (None, None),
            (Some("b"), Some(arn)),
            (None, Some("arn:aws:kinesis:us-east-1:000000000000:stream/a/consumer/c:1")),
            (None, Some("arn:aws:kinesis:us-east-1:1:stream/a")),
            (None, Some("arn:aws:kinesis:US:000000000000:stream/a")),
            (None, Some("arn:aws:s3:us-east-1:000000000000:stream/a")),
            (None, Some("arn:aws:kinesis:us-east-1:000000000000:stream/")),
            (Some("a/b"), None),
        ] {
            assert!(home().stream(&me, name, arn).is_err(), "{name:?} {arn:?}");
        }
    }
}
