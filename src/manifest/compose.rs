//! One YAML document to one JSON value, anchors and merge keys resolved.

use std::collections::HashMap;
use std::io::Cursor;
use std::panic::{self, AssertUnwindSafe, catch_unwind};

use libyaml_safer::{EventData, Parser};
use serde_json::{Map, Value};

use super::scalar::Scalar;

/// A document cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// The line in the document, from 0.
    pub(super) line: usize,
    pub(super) what: String,
}

/// Keeps the parser's panics from standard error, where a backtrace would say what [`compose`] returns as an error.
pub fn hide_parser_panics() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|at| at.file().contains("/libyaml-safer-")) {
            tell(panic);
        }
    }));
}

/// The nesting limit. No object of Kubernetes comes near it.
const MOST_DEPTH: usize = 1000;

/// Reads the first document of the text. `None` where it has none.
pub(super) fn compose(text: &[u8]) -> Result<Option<Value>, Malformed> {
    let mut parser = Parser::new();
    parser.set_input(Cursor::new(text));
    let mut composer = Composer { parser, line: 0, anchors: HashMap::new(), depth: 0, read: 0, repeated: 0 };
    loop {
        match composer.next()? {
            EventData::StreamEnd => return Ok(None),
            EventData::DocumentStart { .. } => {
                let event = composer.next()?;
                return composer.node(event).map(Some);
            }
            _ => {}
        }
    }
}

struct Composer<'t> {
    parser: Parser<Cursor<&'t [u8]>>,
    /// The line of the last event.
    line: usize,
    /// Each with its number of nodes.
    anchors: HashMap<String, (Value, usize)>,
    depth: usize,
    /// Nodes, those of aliases included.
    read: usize,
    /// Nodes of aliases.
    repeated: usize,
}

impl Composer<'_> {
    fn next(&mut self) -> Result<EventData, Malformed> {
        // libyaml-safer 0.3.0 panics at a tag that ends in a comma, such as `[!a,b]`, which kubectl's parser refuses.
        let event = catch_unwind(AssertUnwindSafe(|| self.parser.parse()));
        let event = event.map_err(|_| self.malformed("no YAML that the parser understands"))?.map_err(|error| {
            let mark = error.problem_mark().or_else(|| error.context_mark());
            let line = mark.and_then(|mark| usize::try_from(mark.line).ok()).unwrap_or(self.line);
            Malformed { line, what: error.problem().to_owned() }
        })?;
        self.line = usize::try_from(event.start_mark.line).unwrap_or_default();
        Ok(event.data)
    }

    fn malformed(&self, what: impl Into<String>) -> Malformed {
        Malformed { line: self.line, what: what.into() }
    }

    fn node(&mut self, event: EventData) -> Result<Value, Malformed> {
        let before = self.read;
        self.read += 1;
        let (anchor, value) = match event {
            EventData::Alias { anchor } => return self.alias(&anchor),
            EventData::Scalar { anchor, tag, value, plain_implicit, .. } => {
                let scalar = Scalar { tag: tag.as_deref(), is_plain: plain_implicit, text: &value };
                (anchor, scalar.value().map_err(|what| self.malformed(what))?)
            }
            EventData::SequenceStart { anchor, .. } => (anchor, self.deeper(Self::sequence)?),
            EventData::MappingStart { anchor, .. } => (anchor, self.deeper(Self::mapping)?),
            _ => return Err(self.malformed("a value is missing")),
        };
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, (value.clone(), self.read - before));
        }
        Ok(value)
    }

    fn deeper(&mut self, read: fn(&mut Self) -> Result<Value, Malformed>) -> Result<Value, Malformed> {
        if self.depth == MOST_DEPTH {
            return Err(self.malformed(format!("lists and maps are nested more than {MOST_DEPTH} deep")));
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn sequence(&mut self) -> Result<Value, Malformed> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                EventData::SequenceEnd => return Ok(Value::Array(items)),
                event => items.push(self.node(event)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Value, Malformed> {
        let mut map = Map::new();
        loop {
            let key = match self.next()? {
                EventData::MappingEnd => return Ok(Value::Object(map)),
                EventData::Scalar { anchor, tag, value, plain_implicit, .. } => {
                    self.read += 1;
                    let scalar = Scalar { tag: tag.as_deref(), is_plain: plain_implicit, text: &value };
                    if scalar.is_merge() {
                        let event = self.next()?;
                        let merged = self.node(event)?;
                        self.merge(&mut map, merged)?;
                        continue;
                    }
                    let key = scalar.key().map_err(|what| self.malformed(what))?;
                    if let Some(anchor) = anchor {
                        self.anchors.insert(anchor, (Value::from(key.as_str()), 1));
                    }
                    key
                }
                EventData::Alias { anchor } => match self.alias(&anchor)? {
                    Value::String(key) => key,
                    _ => return Err(self.malformed(format!("the key *{anchor} is no string"))),
                },
                _ => return Err(self.malformed("a key is a list or a map")),
            };
            let event = self.next()?;
            // The last of duplicate keys counts.
            let value = self.node(event)?;
            map.insert(key, value);
        }
    }

    /// Merges the fields of one map, or of several, of which earlier ones win.
    fn merge(&self, map: &mut Map<String, Value>, merged: Value) -> Result<(), Malformed> {
        match merged {
            Value::Object(fields) => map.extend(fields),
            Value::Array(maps) if maps.iter().all(Value::is_object) => {
                for fields in maps.into_iter().rev() {
                    self.merge(map, fields)?;
                }
            }
            _ => return Err(self.malformed("<< needs a map, or a list of maps")),
        }
        Ok(())
    }

    fn alias(&mut self, anchor: &str) -> Result<Value, Malformed> {
        let Some((value, nodes)) = self.anchors.get(anchor) else {
            return Err(self.malformed(format!("nothing before this has the anchor {anchor}")));
        };
        self.read += nodes;
        self.repeated += nodes;
        if self.repeated > 100 && self.read > 1000 && exceeds(self.repeated, self.read) {
            return Err(self.malformed("too much of the document repeats what an anchor names"));
        }
        Ok(value.clone())
    }
}

/// Returns true if aliases make up too large a part: more than 99 % of up to 400,000 nodes, falling to 10 % at
/// 4,000,000, as in kubectl.
fn exceeds(repeated: usize, read: usize) -> bool {
    let (low, high) = (400_000, 4_000_000);
    let beyond = read.clamp(low, high) - low;
    // In tenths of a per cent.
    let allowed = 990 - 890 * beyond / (high - low);
    repeated.saturating_mul(1000) > read.saturating_mul(allowed)
}
