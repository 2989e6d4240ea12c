//! `api.table`, read once: the shapes of the API and their constraints.
//!
//! Invariant: every name that the table uses is defined in it, once; [`table`] panics otherwise, and a test calls it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

/// A kind of value, with its constraints.
#[derive(Debug)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// What a value may be.
#[derive(Debug)]
pub enum Kind {
    /// True or false.
    Boolean,
    /// A whole number; `long` if it has 64 bits and not 32.
    Integer {
        /// Its bounds.
        bounds: Bounds,
        /// Whether it has 64 bits.
        long: bool,
    },
    /// A time.
    Timestamp,
    /// A text; bounds count its characters.
    Text {
        /// How long.
        bounds: Bounds,
        /// What all of it must match: as it is said, and compiled.
        pattern: Option<(&'static str, Regex)>,
    },
    /// One of these words.
    Enum(Vec<&'static str>),
    /// Bytes.
    Blob(Bounds),
    /// So many of one shape.
    List(&'static str, Bounds),
    /// Texts to values.
    Map {
        /// The keys' shape.
        key: &'static str,
        /// The values' shape.
        value: &'static str,
        /// How many.
        bounds: Bounds,
    },
    /// Named members.
    Structure(Vec<Member>),
}

/// A member of a structure.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// Its shape's name.
    pub shape: &'static str,
    /// Whether it must be there.
    pub required: bool,
}

/// The least and the most, both allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The least.
    pub min: Option<i64>,
    /// The most.
    pub max: Option<i64>,
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// Its name, as X-Amz-Target has it.
    pub name: &'static str,
    /// Its input's structure.
    pub input: &'static str,
    /// Its output's, if it has one.
    pub output: Option<&'static str>,
}

/// The whole table.
pub struct Table {
    shapes: BTreeMap<&'static str, Shape>,
    operations: BTreeMap<&'static str, Operation>,
}

const TEXT: &str = include_str!("api.table");

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(TEXT));

/// The API's table.
pub fn table() -> &'static Table {
    &TABLE
}

impl Table {
    /// The shape of that name, which the table has.
    pub fn shape(&self, name: &str) -> &Shape {
        self.shapes.get(name).unwrap_or_else(|| panic!("the table has no shape {name}"))
    }

    /// A structure's members.
    pub fn members(&self, name: &str) -> &[Member] {
        match &self.shape(name).kind {
            Kind::Structure(members) => members,
            other => panic!("{name} is no structure: {other:?}"),
        }
    }

    /// The operation of that name.
    pub fn operation(&self, name: &str) -> Option<&Operation> {
        self.operations.get(name)
    }

    /// Every operation, by name.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values()
    }

    /// Whether the model has an exception of that name.
    #[cfg(test)]
    pub fn has_error(&self, name: &str) -> bool {
        name.ends_with("Exception") && self.shapes.contains_key(name)
    }

    fn parse(text: &'static str) -> Table {
        let mut table = Table { shapes: BTreeMap::new(), operations: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} has no name"));
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            if word == "operation" {
                let (input, output) = rest.split_once(' ').unwrap_or_else(|| panic!("{line:?} has no output"));
                let operation = Operation { name, input, output: Some(output).filter(|it| *it != "-") };
                assert!(table.operations.insert(name, operation).is_none(), "{name} stands twice");
            } else {
                let kind = kind(word, rest).unwrap_or_else(|| panic!("{line:?} can't be read"));
                assert!(table.shapes.insert(name, Shape { name, kind }).is_none(), "{name} stands twice");
            }
        }
        table.check();
        table
    }

    /// Every name that is used is there.
    fn check(&self) {
        for operation in self.operations.values() {
            self.members(operation.input);
            if let Some(output) = operation.output {
                self.members(output);
            }
        }
        for shape in self.shapes.values() {
            match &shape.kind {
                Kind::List(member, _) => {
                    self.shape(member);
                }
                Kind::Map { key, value, .. } => {
                    self.shape(key);
                    self.shape(value);
                }
                Kind::Structure(members) => {
                    for member in members {
                        self.shape(member.shape);
                    }
                }
                _ => {}
            }
        }
    }
}

fn kind(word: &str, rest: &'static str) -> Option<Kind> {
    let words: Vec<&'static str> = rest.split(' ').filter(|word| !word.is_empty()).collect();
    Some(match word {
        "boolean" => Kind::Boolean,
        "timestamp" => Kind::Timestamp,
        "integer" | "long" => Kind::Integer { bounds: bounds(words.first())?, long: word == "long" },
        "blob" => Kind::Blob(bounds(words.first())?),
        "enum" => Kind::Enum(words),
        "string" => {
            let (before, pattern) = match rest.split_once('/') {
                Some((before, pattern)) => (before.trim(), Some(pattern)),
                None => (rest, None),
            };
            let compiled = |pattern| Regex::new(&format!("^(?:{pattern})$")).ok();
            let pattern = match pattern {
                Some(pattern) => Some((pattern, compiled(pattern)?)),
                None => None,
            };
            Kind::Text { bounds: bounds(Some(&before).filter(|it| !it.is_empty()))?, pattern }
        }
        "list" => Kind::List(words.first()?, bounds(words.get(1))?),
        "map" => Kind::Map { key: words.first()?, value: words.get(1)?, bounds: bounds(words.get(2))? },
        "struct" => Kind::Structure(words.into_iter().map(member).collect::<Option<_>>()?),
        // Every one of them has a text and nothing else.
        "error" => Kind::Structure(vec![Member { name: "message", shape: "ErrorMessage", required: false }]),
        _ => return None,
    })
}

fn member(text: &'static str) -> Option<Member> {
    let (name, shape) = text.split_once(':')?;
    let required = name.ends_with('!');
    Some(Member { name: name.trim_end_matches('!'), shape, required })
}

/// `1..128`, `0..`, `..7`, or nothing.
fn bounds(text: Option<&&str>) -> Option<Bounds> {
    let Some(text) = text else { return Some(Bounds::default()) };
    let (min, max) = text.split_once("..")?;
    let number = |text: &str| match text {
        "" => Some(None),
        text => text.parse().ok().map(Some),
    };
    Some(Bounds { min: number(min)?, max: number(max)? })
}
