//! A cache whose entries expire.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// A map whose entries expire. Expired entries are removed at the next insertion.
#[derive(Debug)]
pub(crate) struct TtlCache<K, V> {
    span: Duration,
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash, V: Clone> TtlCache<K, V> {
    pub(crate) fn new(span: Duration) -> Self {
        Self { span, entries: Mutex::default() }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        lock(&self.entries)
            .get(key)
            .filter(|(inserted, _)| inserted.elapsed() < self.span)
            .map(|(_, value)| value.clone())
    }

    pub(crate) fn put(&self, key: K, value: V) {
        let mut entries = lock(&self.entries);
        entries.retain(|_, (inserted, _)| inserted.elapsed() < self.span);
        entries.insert(key, (Instant::now(), value));
    }
}
