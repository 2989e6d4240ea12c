//! Registered consumers: each has its own 2 MiB/s of every shard.

use braid_proto::v1;
use braid_proto::v1::change_attributes_request::Change;

use super::Asked;
use super::attributes::tags;
use super::error::Subject;
use super::names::{Consumer, Named};
use super::wire::fault::{Fault, FaultKind};
use super::wire::value::{Structure, time};

/// Consumers in a page unless the call says otherwise; a stream has no more than 20.
const PAGE: i64 = 100;

impl Asked<'_> {
    pub(super) async fn register_consumer(&self, input: &Structure) -> Result<Structure, Fault> {
        let stream = self.stream(input)?;
        let name = input.needed("ConsumerName").to_string();
        let register = v1::RegisterConsumer { name: name.clone(), tags: tags(input)? };
        let changed = self.change(&stream, None, Change::Register(register)).await;
        let changed = changed.map_err(|fault| match fault.kind {
            FaultKind::ResourceInUse if fault.message.as_deref().is_some_and(|it| it.contains("exists")) => {
                let text = format!(
                    "Consumer {name} under stream {} already exists for account {}.",
                    stream.arn(),
                    stream.account
                );
                Fault::new(FaultKind::ResourceInUse, text)
            }
            _ => fault,
        })?;
        let attributes = changed.attributes.unwrap_or_default();
        let it = Consumer { name, created_s: None };
        Ok(Structure::new().with("Consumer", consumer(&stream, it.find(&attributes, &stream)?)))
    }

    pub(super) async fn deregister_consumer(&self, input: &Structure) -> Result<(), Fault> {
        let (stream, consumer) = self.consumer(input)?;
        consumer.find(&self.attributes(&stream).await?, &stream)?;
        self.change(&stream, None, Change::Deregister(consumer.name.clone())).await.map(drop)
    }

    pub(super) async fn describe_consumer(&self, input: &Structure) -> Result<Structure, Fault> {
        let (stream, asked) = self.consumer(input)?;
        let attributes = self.attributes(&stream).await?;
        let description = consumer(&stream, asked.find(&attributes, &stream)?).with("StreamARN", stream.arn());
        Ok(Structure::new().with("ConsumerDescription", description))
    }

    pub(super) async fn list_consumers(&self, input: &Structure) -> Result<Structure, Fault> {
        let stream = self.stream(input)?;
        let (service, subject, name) = (&self.face.service, Subject::stream(&stream), stream.name.as_str());
        let after = input.text("NextToken").map(|token| service.consumer_page(name, token)).transpose();
        let after = after.map_err(|error| self.fault(&error, &subject))?.unwrap_or_default();
        let limit = input.integer("MaxResults").unwrap_or(PAGE) as usize;
        let all = self.attributes(&stream).await?.consumers;
        let mut later: Vec<v1::Consumer> = all.into_iter().filter(|it| it.name > after).collect();
        let more = later.len() > limit;
        later.truncate(limit);
        let next = match later.last() {
            Some(last) if more => Some(service.consumer_token(name, &last.name)),
            _ => None,
        };
        let next = next.transpose().map_err(|error| self.fault(&error, &subject))?;
        let consumers: Vec<Structure> = later.iter().map(|it| consumer(&stream, it)).collect();
        Ok(Structure::new().with("Consumers", consumers).with_some("NextToken", next))
    }

    /// The consumer that an input names: by its ARN, or by its stream's and its name.
    fn consumer(&self, input: &Structure) -> Result<(Named, Consumer), Fault> {
        match (input.text("ConsumerARN"), input.text("StreamARN"), input.text("ConsumerName")) {
            (Some(arn), None, None) => self.face.home.consumer(arn),
            (None, Some(stream), Some(name)) => {
                Ok((self.face.home.arn(stream)?, Consumer { name: name.to_string(), created_s: None }))
            }
            _ => Err(Fault::argument("Either ConsumerARN, or both of StreamARN and ConsumerName, must be provided.")),
        }
    }
}

fn consumer(stream: &Named, it: &v1::Consumer) -> Structure {
    let status = match it.status() {
        v1::StreamStatus::Creating => "CREATING",
        v1::StreamStatus::Deleting => "DELETING",
        _ => "ACTIVE",
    };
    Structure::new()
        .with("ConsumerName", it.name.as_str())
        .with("ConsumerARN", stream.consumer_arn(&it.name, it.created_ms / 1000))
        .with("ConsumerStatus", status)
        // To the second, as the ARN has it.
        .with("ConsumerCreationTimestamp", time(it.created_ms / 1000 * 1000))
}
