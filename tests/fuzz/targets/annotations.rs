//! Annotations, as lines of key and value: they are read or refused with the key, and never half.
#![no_main]

use gwmon::annotations::{INJECT, Settings};
use gwmon::kubernetes::Annotations;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let mut annotations: Annotations = pairs.map(|(key, value)| (format!("gwmon.io/{key}"), value.to_owned())).collect();
    annotations.entry(INJECT.to_owned()).or_insert_with(|| "true".to_owned());
    match Settings::parse(&annotations) {
        Ok(settings) => assert_eq!(Settings::parse(&annotations), Ok(settings)),
        Err(finding) => assert!(finding.detail.contains("gwmon.io/") && finding.detail.len() <= 4003, "{finding}"),
    }
});
