//! Other people's YAML: manifests, and Envoy's configuration on a command line, which keeps all that it says.
#![no_main]

use gwmon::injection::bootstrap::{Dialect, local_sink, sink, with_sink};
use gwmon::manifest::{documents, hide_parser_panics};
use libfuzzer_sys::fuzz_target;

// libFuzzer ends at every panic that is told.
fuzz_target!(init: hide_parser_panics(), |text: &str| {
    for document in documents(text.as_bytes(), &[]) {
        let _ = document.expect("memory can be read");
    }
    let sink = sink(None, Dialect::DogStatsd, 9125).expect("a sink");
    let _ = local_sink(text);
    if let Ok(merged) = with_sink(text, &sink) {
        let found = local_sink(&merged).expect("a configuration that can still be read").expect("the sink");
        assert!(found.port == 9125 || local_sink(text).is_ok_and(|before| before.is_some()));
        // Nothing of it is lost, but where there was nothing.
        let mut rest = merged.chars();
        let kept = text.chars().all(|c| rest.any(|found| found == c));
        assert!(kept || !holds_a_map(text), "{text:?} became {merged:?}");
    }
});

/// Whether it is what an Envoy's configuration is, a map in each document, to either reader.
fn holds_a_map(text: &str) -> bool {
    let read = serde_saphyr::from_multiple::<serde_json::Value>(text);
    let is_map = |document: gwmon::manifest::Document| document.value.is_ok_and(|value| value.is_object());
    read.is_ok_and(|all| !all.is_empty() && all.iter().all(serde_json::Value::is_object))
        && documents(text.as_bytes(), &[]).all(|document| is_map(document.expect("memory can be read")))
}
