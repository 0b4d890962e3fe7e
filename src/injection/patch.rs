//! JSON Patch, made as text: most of what gwmon adds never changes, so it is rendered once and copied.

use std::borrow::Cow;

use json_patch::jsonptr::Token;
use serde_json::Value;

/// A piece of JSON text.
pub type Json = Cow<'static, str>;

/// A string as JSON text.
pub(crate) fn quoted(text: &str) -> Json {
    // Serialising a string into memory has nothing to fail with.
    serde_json::to_string(text).unwrap_or_default().into()
}

/// A JSON Patch (RFC 6902).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch(Vec<Operation>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Operation {
    op: &'static str,
    path: String,
    value: Option<Json>,
}

impl Patch {
    /// Returns true if there are no operations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patch as the API server reads it.
    #[must_use]
    pub fn to_json(&self) -> String {
        let length =
            |operation: &Operation| operation.path.len() + operation.value.as_ref().map_or(0, |value| value.len()) + 40;
        let mut json = String::with_capacity(self.0.iter().map(length).sum());
        for Operation { op, path, value } in &self.0 {
            json.push_str(if json.is_empty() { "[" } else { "," });
            json.extend(["{\"op\":\"", op, "\",\"path\":", &quoted(path)]);
            if let Some(value) = value {
                json.extend([",\"value\":", value]);
            }
            json.push('}');
        }
        json.push_str(if json.is_empty() { "[]" } else { "]" });
        json
    }

    /// The patch in the types of the library that applies it.
    ///
    /// # Errors
    /// Where a value is no JSON, which would be a fault of gwmon's.
    pub fn to_operations(&self) -> serde_json::Result<json_patch::Patch> {
        serde_json::from_str(&self.to_json())
    }

    fn push(&mut self, op: &'static str, path: &[&str], value: Option<Json>) {
        self.0.push(Operation { op, path: pointer(path), value });
    }

    pub(crate) fn add(&mut self, path: &[&str], value: impl Into<Json>) {
        self.push("add", path, Some(value.into()));
    }

    pub(crate) fn remove(&mut self, path: &[&str]) {
        self.push("remove", path, None);
    }

    /// Puts a string in the place of another. No `test` goes before it: the API server applies a patch to the very object
    /// that it sent, its `test` takes `\u0026` and `&` for different, and one that fails refuses the pod whatever the
    /// failure policy says.
    pub(crate) fn replace(&mut self, path: &[&str], to: &str) {
        self.push("replace", path, Some(quoted(to)));
    }

    /// Adds entries to a map that may have to be made.
    pub(crate) fn entries(&mut self, map: &[&str], exists: bool, entries: Vec<(&str, Json)>) {
        if exists {
            for (key, value) in entries {
                self.add(&[map, &[key]].concat(), value);
            }
        } else if !entries.is_empty() {
            let members: Vec<_> = entries.iter().map(|(key, value)| format!("{}:{value}", quoted(key))).collect();
            self.add(map, format!("{{{}}}", members.join(",")));
        }
    }

    /// Appends items to a list that may have to be made.
    pub(crate) fn items(&mut self, list: &[&str], exists: bool, items: Vec<Json>) {
        if exists {
            for item in items {
                self.add(&[list, &["-"]].concat(), item);
            }
        } else if !items.is_empty() {
            self.add(list, format!("[{}]", items.join(",")));
        }
    }
}

/// A JSON pointer; `/` and `~` in the tokens are escaped.
fn pointer(tokens: &[&str]) -> String {
    tokens.iter().fold(String::new(), |path, token| path + "/" + Token::new(*token).encoded())
}

/// JSON whose text is made once, with gaps that are filled at each use: strings such as `"$port"`.
#[derive(Debug)]
pub(crate) struct Template(Vec<(String, String)>);

impl Template {
    /// Takes the text apart at the gaps of these names.
    pub(crate) fn new(json: &Value, gaps: &[&str]) -> Self {
        let mut pieces = Vec::new();
        let mut rest = json.to_string();
        // The first gap in the text, whichever it is, until there is none.
        while let Some((at, gap)) = gaps.iter().filter_map(|gap| Some((rest.find(&format!("\"${gap}\""))?, *gap))).min()
        {
            let after = rest.split_off(at + gap.len() + "\"$\"".len());
            rest.truncate(at);
            pieces.push((rest, gap.to_owned()));
            rest = after;
        }
        pieces.push((rest, String::new()));
        Self(pieces)
    }

    /// The text, with JSON in every gap. A gap that nobody fills is `null`.
    pub(crate) fn fill(&self, gaps: &[(&str, &str)]) -> String {
        let mut text = String::with_capacity(2048);
        for (piece, gap) in &self.0 {
            text.push_str(piece);
            if !gap.is_empty() {
                text.push_str(gaps.iter().find(|(name, _)| name == gap).map_or("null", |(_, json)| json));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_is_what_the_library_reads() {
        let mut patch = Patch::default();
        assert_eq!(patch.to_json(), "[]");
        patch.add(&["metadata", "annotations", "a/b~c \"d\""], quoted("x\n\"y\""));
        patch.remove(&["spec", "old"]);
        patch.replace(&["spec", "args", "3"], "b");
        patch.entries(&["m"], false, vec![("k", quoted("v")), ("l", "7".into())]);
        patch.items(&["l"], false, vec!["1".into(), "2".into()]);
        let expected = json!([
            {"op": "add", "path": "/metadata/annotations/a~1b~0c \"d\"", "value": "x\n\"y\""},
            {"op": "remove", "path": "/spec/old"},
            {"op": "replace", "path": "/spec/args/3", "value": "b"},
            {"op": "add", "path": "/m", "value": {"k": "v", "l": 7}},
            {"op": "add", "path": "/l", "value": [1, 2]},
        ]);
        assert_eq!(json!(patch.to_operations().unwrap()), expected);
    }

    #[test]
    fn a_template_fills_every_gap_wherever_it_stands() {
        let template = Template::new(&json!({"a": "$one", "b": ["$two", "$one"], "c": "$onward"}), &["one", "two"]);
        assert_eq!(template.fill(&[("two", "[2]"), ("one", "\"1\"")]), r#"{"a":"1","b":[[2],"1"],"c":"$onward"}"#);
    }
}
