//! Manifests as kubectl reads them (`k8s.io/apimachinery/pkg/util/yaml`, `sigs.k8s.io/yaml`): YAML 1.1 as kubectl's parser
//! reads it, and JSON, any number of documents in a stream, each read when it is asked for.

mod compose;
pub mod edit;
mod scalar;
mod stream;

use serde_json::Value;

pub use compose::hide_parser_panics;
pub use stream::{Document, documents};

/// The documents of a YAML text, each with the separator before it.
pub fn split(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.split_inclusive('\n');
    let mut starts = vec![0];
    let mut at = 0;
    for line in lines {
        if at > 0 && stream::is_separator(line.as_bytes()) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.clone().into_iter().skip(1).chain([text.len()]);
    starts.into_iter().zip(ends).map(|(start, end)| &text[start..end])
}

/// The value of a text that holds one document; `None` if it holds none.
///
/// # Errors
/// Why it cannot be read.
pub fn value(text: &str) -> Result<Option<Value>, String> {
    let Some(document) = documents(text.as_bytes(), &[]).next() else { return Ok(None) };
    let Document { line, value, .. } = document.map_err(|error| error.to_string())?;
    value.map(Some).map_err(|why| format!("line {line}: {why}"))
}

/// The Kubernetes objects of a document; those of a `List`, and of Lists in it, one by one.
#[must_use]
pub fn objects(document: Value) -> Vec<Value> {
    match document {
        Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) => {
            let items = list.remove("items");
            let items = items.and_then(|items| if let Value::Array(items) = items { Some(items) } else { None });
            items.into_iter().flatten().flat_map(objects).collect()
        }
        object => vec![object],
    }
}

/// The object's own namespace, or the one of those that name none.
#[must_use]
pub fn namespace_of<'o>(object: &'o Value, default: &'o str) -> &'o str {
    object["metadata"]["namespace"].as_str().filter(|own| !own.is_empty()).unwrap_or(default)
}

/// `deployment.apps/edge -n gateways`, as kubectl takes it.
#[must_use]
pub fn display_name(object: &Value, namespace: &str) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let group = text("/apiVersion").split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
    let name = [text("/metadata/name"), text("/metadata/generateName")].into_iter().find(|name| !name.is_empty());
    let (kind, name) = (text("/kind").to_lowercase(), name.unwrap_or_default());
    format!("{kind}{group}/{name} -n {}", namespace_of(object, namespace))
}
