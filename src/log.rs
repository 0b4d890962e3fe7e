//! Log lines on standard error, which never keep a request waiting: a thread of their own writes them, and lines beyond the
//! buffer or the rate limit are dropped and counted.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tracing::callsite::Identifier;
use tracing::{Event, Metadata, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::allowance::{Allowance, Rate};
use crate::cli::LogFormat;
use crate::lock::lock;

/// Lines that wait for standard error to be read. A line has a few kilobytes at the most.
const WAITING: usize = 1000;
/// Lines of one kind: at once those of a roll-out of many gateways.
const LINES: Rate = Rate { at_once: 100., per_second: 20. };
/// The interval at which suppressed lines are counted in the log.
const TELL: Duration = Duration::from_secs(10);

/// The running log; dropping it flushes the rest.
#[must_use]
pub struct Log {
    limit: Limit,
    unread: ErrorCounter,
    _writer: WorkerGuard,
}

/// Starts to write log lines that `filter` lets through.
///
/// # Errors
/// A filter that cannot be read.
pub fn start(filter: &str, format: LogFormat) -> Result<Log> {
    let wanted: Targets = filter.parse().with_context(|| format!("--log {filter:?}"))?;
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING).finish(io::stderr());
    let unread = writer.error_counter();
    let lines = tracing_subscriber::fmt::layer();
    let lines = match format {
        LogFormat::Text => {
            let writer = move || OneLine(writer.clone());
            lines.with_ansi(io::stderr().is_terminal()).with_writer(writer).boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_writer(writer).boxed(),
    };
    let limit = Limit::default();
    tracing_subscriber::registry().with(lines.with_filter(wanted.and(limit.clone()))).init();
    // The usual hook writes to standard error itself, and waits until that is read.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(Log { limit, unread, _writer: guard })
}

impl Log {
    /// Logs the number of dropped lines from time to time, until it is dropped.
    pub async fn report_dropped(&self) {
        let mut unread = 0;
        loop {
            tokio::time::sleep(TELL).await;
            for (kind, lines) in self.limit.take_left_out() {
                tracing::warn!(kind, lines, "dropped from the log: too many of one kind");
            }
            let now = self.unread.dropped_lines();
            if now != unread {
                tracing::warn!(lines = now - unread, "dropped from the log: standard error is read too slowly");
                unread = now;
            }
        }
    }
}

/// Keeps what others have written from looking like a line of its own.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let end = line.strip_suffix(b"\n").unwrap_or(line);
        if end.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            // In one piece: another thread's line must not come in between.
            let text = String::from_utf8_lossy(end).replace('\n', "\\n").replace('\r', "\\r") + "\n";
            self.0.write_all(text.as_bytes())?;
        } else {
            self.0.write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Rate-limits the lines of each kind: of each place in the source.
#[derive(Clone, Debug, Default)]
struct Limit(Arc<Mutex<HashMap<Identifier, Kind>>>);

#[derive(Debug)]
struct Kind {
    metadata: &'static Metadata<'static>,
    allowance: Allowance,
    left_out: u64,
}

impl Limit {
    fn lets_through(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        let mut kinds = lock(&self.0);
        let kind = kinds.entry(metadata.callsite()).or_insert_with(|| Kind {
            metadata,
            allowance: LINES.full(now),
            left_out: 0,
        });
        let lets_through = LINES.take(&mut kind.allowance, now);
        kind.left_out += u64::from(!lets_through);
        lets_through
    }

    /// The suppressed lines since the last call: the place in the source, and their number.
    fn take_left_out(&self) -> Vec<(String, u64)> {
        let mut kinds = lock(&self.0);
        let left_out = kinds.values_mut().filter(|kind| kind.left_out > 0);
        left_out
            .map(|kind| {
                let place = format!("{}:{}", kind.metadata.target(), kind.metadata.line().unwrap_or_default());
                (place, std::mem::take(&mut kind.left_out))
            })
            .collect()
    }
}

impl<S: Subscriber> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.lets_through(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_often_is_counted() {
        static PLACE: tracing::callsite::DefaultCallsite = tracing::callsite::DefaultCallsite::new(&METADATA);
        static METADATA: Metadata<'static> = tracing::metadata! {
            name: "event", target: "gwmon::webhook", level: tracing::Level::WARN, fields: &[], callsite: &PLACE,
            kind: tracing::metadata::Kind::EVENT,
        };
        let (limit, start) = (Limit::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let through = |seconds| (0..1000).filter(|_| limit.lets_through(&METADATA, at(seconds))).count();
        assert_eq!(through(0), 100);
        assert_eq!(through(1), 20);
        assert_eq!(through(60), 100, "after a rest as many at once as before");
        let told = limit.take_left_out();
        assert!(told.len() == 1 && told[0].0.starts_with("gwmon::webhook:") && told[0].1 == 2780, "{told:?}");
        assert!(limit.take_left_out().is_empty());
    }

    #[test]
    fn a_line_stays_one_line() {
        let mut written = OneLine(Vec::new());
        written.write_all(b"pod \"a\"\nWARN forged\r\n").unwrap();
        written.write_all(b"next\n").unwrap();
        assert_eq!(String::from_utf8(written.0).unwrap(), "pod \"a\"\\nWARN forged\\r\nnext\n");
    }
}
