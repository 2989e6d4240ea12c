//! What is wrong with a configuration, in words an operator can act on.

use std::fmt;
use std::path::PathBuf;

use super::field::{field, most_like};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody gave one.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable, by its name.
    Env(String),
    /// A command line flag, as it is written.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => write!(f, "the default"),
            Source::File(path) => write!(f, "file {}", path.display()),
            Source::Env(name) => write!(f, "environment variable {name}"),
            Source::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// What a parser objects to, before it is known which setting it parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The value is not allowed.
    Value,
    /// A founding node lacks one of its four parts, or is not made of parts.
    Seed { seed: String },
    /// One part of a founding node is not allowed, unknown or given twice.
    SeedPart { seed: String, key: String },
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable { path: PathBuf, why: String },
    /// The file is not TOML.
    NotToml { path: PathBuf, why: String },
    /// A value is not allowed.
    NotAllowed { name: &'static str, value: String, source: Source, mistake: Mistake },
    /// No such setting.
    Unknown { name: String, source: Source },
    /// A setting without a default was not given.
    Missing { name: &'static str },
    /// Two settings, each fine alone, do not go together.
    Conflict { name: &'static str, value: String, source: Source, why: String },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = |name: &str| field(name).map_or("", |field| field.allowed);
        match self {
            ConfigError::Unreadable { path, why } => write!(f, "cannot read {}: {why}", path.display()),
            ConfigError::NotToml { path, why } => {
                write!(f, "{} is not a configuration file: {}", path.display(), why.trim_end())
            }
            ConfigError::NotAllowed { name, value, source, mistake } => {
                write!(f, "{name} = {value:?} (from {source}) is not allowed")?;
                match mistake {
                    Mistake::Value => {}
                    Mistake::Seed { seed } => write!(f, ", because node {seed:?} lacks id, zone, peer or client")?,
                    Mistake::SeedPart { seed, key } => write!(f, ", because of {key:?} in node {seed:?}")?,
                }
                write!(f, "; allowed: {}", allowed(name))
            }
            ConfigError::Unknown { name, source } => {
                write!(f, "{name} (from {source}) is not a setting")?;
                match most_like(name) {
                    Some(meant) => write!(f, "; did you mean {meant}?"),
                    None => Ok(()),
                }
            }
            ConfigError::Missing { name } => write!(
                f,
                "{name} is not set; set {name} in the file, BRAID_{} in the environment or --{}; allowed: {}",
                name.to_uppercase(),
                name.replace('_', "-"),
                allowed(name)
            ),
            ConfigError::Conflict { name, value, source, why } => {
                write!(f, "{name} = {value:?} (from {source}) does not fit: {why}")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Everything wrong with a configuration; at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}
