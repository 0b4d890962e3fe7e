//! Answers that hold for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// A map whose entries expire. Expired entries are removed at the next insertion.
#[derive(Debug)]
pub(crate) struct TtlCache<K, V> {
    span: Duration,
    answers: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash, V: Clone> TtlCache<K, V> {
    pub(crate) fn new(span: Duration) -> Self {
        Self { span, answers: Mutex::default() }
    }

    pub(crate) fn get(&self, question: &K) -> Option<V> {
        lock(&self.answers)
            .get(question)
            .filter(|(asked, _)| asked.elapsed() < self.span)
            .map(|(_, answer)| answer.clone())
    }

    pub(crate) fn put(&self, question: K, answer: V) {
        let mut answers = lock(&self.answers);
        answers.retain(|_, (asked, _)| asked.elapsed() < self.span);
        answers.insert(question, (Instant::now(), answer));
    }
}
