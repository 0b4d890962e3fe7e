//! A stream of documents, cut where kubectl cuts it.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};
use std::iter;
use std::ops::Range;

use encoding_rs_io::DecodeReaderBytesBuilder;
use memchr::memmem::Finder;
use serde_json::Value;

use super::compose::{Malformed, compose};

/// One document of a stream.
#[derive(Debug)]
pub struct Document {
    /// Its number, from 1.
    pub number: usize,
    /// The line of the stream where it begins, or where the error is, from 1.
    pub line: usize,
    /// Its value, or why it cannot be read.
    pub value: Result<Value, String>,
}

/// The documents of a stream, one after the other, of which only one is held; empty ones are left out. If `words` is not empty,
/// YAML documents without any of them are skipped; JSON is not filtered. UTF-8, and UTF-16 with a byte order mark, are read.
///
/// # Errors
/// Where the stream cannot be read; it ends there. A document that cannot be read is a document, and the next one follows.
pub fn documents<R: Read>(stream: R, words: &[&'static str]) -> impl Iterator<Item = io::Result<Document>> + use<R> {
    let decoded = DecodeReaderBytesBuilder::new().build(stream);
    let words = words.iter().map(|word| Finder::new(*word)).collect();
    let reader = BufReader::with_capacity(1 << 16, decoded);
    let mut stream = Stream { reader, text: vec![], at: 0, known: 0..0, line: 1, number: 0, words };
    iter::from_fn(move || stream.next().transpose()).fuse()
}

const SEPARATOR: &[u8] = b"---";
/// Read text is dropped beyond this size.
const FORGET: usize = 1 << 20;

struct Stream<R> {
    reader: BufReader<R>,
    /// The text read from the stream; the part before `at` is done with.
    text: Vec<u8>,
    at: usize,
    /// The line that was looked for last, or the rest of it.
    known: Range<usize>,
    /// The line of the stream at `at`, from 1.
    line: usize,
    /// Documents so far.
    number: usize,
    words: Vec<Finder<'static>>,
}

impl<R: Read> Stream<R> {
    fn next(&mut self) -> io::Result<Option<Document>> {
        loop {
            if self.at > FORGET || self.at == self.text.len() {
                self.text.drain(..self.at);
                self.known = 0..0;
                self.at = 0;
            }
            let begins = self.line;
            let Some(line_end) = self.line_end(self.at)? else { return Ok(None) };
            let line = &self.text[self.at..line_end];
            if line.starts_with(SEPARATOR) && !is_separator(line) {
                let what =
                    format!("{:?} is no separator of documents; begin the next one on a line of its own", lossy(line));
                self.skip_to(line_end);
                self.number += 1;
                return Ok(Some(Document { number: self.number, line: begins, value: Err(what) }));
            }
            if line.starts_with(SEPARATOR) || line.trim_ascii().is_empty() {
                self.skip_to(line_end);
                continue;
            }
            let json = if line.trim_ascii_start().starts_with(b"{") { self.json()? } else { None };
            let (end, read) = if let Some((end, value)) = json {
                (end, Ok(Some(value)))
            } else {
                let end = self.separator()?;
                let text = &self.text[self.at..end];
                let is_wanted = self.words.is_empty() || self.words.iter().any(|word| word.find(text).is_some());
                (end, if is_wanted { compose(lossy(text).as_bytes()) } else { Ok(None) })
            };
            self.skip_to(end);
            let (line, value) = match read {
                // One of comments only, or one that says null.
                Ok(None | Some(Value::Null)) => continue,
                Ok(Some(value)) => (begins, Ok(value)),
                // An error at the end of the text is on its last line.
                Err(Malformed { line, what }) => ((begins + line).min(self.line - 1), Err(what)),
            };
            self.number += 1;
            return Ok(Some(Document { number: self.number, line, value }));
        }
    }

    /// The end of the line at `from`, its line break included. `None` at the end of the stream.
    fn line_end(&mut self, from: usize) -> io::Result<Option<usize>> {
        if self.known.contains(&from) {
            return Ok(Some(self.known.end));
        }
        let end = if let Some(length) = memchr::memchr(b'\n', &self.text[from..]) {
            from + length + 1
        } else {
            self.reader.read_until(b'\n', &mut self.text)?;
            // The parser wants the last line's end (libyaml-safer 0.3.0 panics where a block scalar has none).
            if self.text.len() > from && !self.text.ends_with(b"\n") {
                self.text.push(b'\n');
            }
            self.text.len()
        };
        self.known = from..end;
        Ok((end > from).then_some(end))
    }

    /// Finds the end of the current document: the next separator, or the end of the stream.
    fn separator(&mut self) -> io::Result<usize> {
        let mut end = self.at;
        while let Some(next) = self.line_end(end)? {
            if end > self.at && self.text[end..].starts_with(SEPARATOR) {
                break;
            }
            end = next;
        }
        Ok(end)
    }

    fn skip_to(&mut self, end: usize) {
        self.line += memchr::memchr_iter(b'\n', &self.text[self.at..end]).count();
        self.at = end;
    }

    /// The JSON object at hand, and where it ends. `None` where it is none, and may be YAML.
    fn json(&mut self) -> io::Result<Option<(usize, Value)>> {
        let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
        let mut at = self.at;
        while let Some(line_end) = self.line_end(at)? {
            if at > self.at && self.text[at..].starts_with(SEPARATOR) {
                return Ok(None);
            }
            while at < line_end {
                let byte = self.text[at];
                at += 1;
                match byte {
                    _ if is_escaped => is_escaped = false,
                    b'\\' if in_string => is_escaped = true,
                    b'"' => in_string = !in_string,
                    b'{' | b'[' if !in_string => depth += 1,
                    b'}' | b']' if !in_string => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 {
                            let value = serde_json::from_slice(&self.text[self.at..at]).ok();
                            return Ok(value.map(|value| (at, value)));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(None)
    }
}

/// A separator is alone on its line, or before a comment.
pub(super) fn is_separator(line: &[u8]) -> bool {
    let rest = line.strip_prefix(SEPARATOR).map(<[u8]>::trim_ascii);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"#"))
}

fn lossy(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Vec<(usize, Result<Value, String>)> {
        documents(text.as_bytes(), &[]).map(Result::unwrap).map(|document| (document.line, document.value)).collect()
    }

    #[test]
    fn a_stream_is_cut_where_kubectl_cuts_it() {
        let one = |line: usize, number: u8| (line, Ok(json!({"a": number})));
        assert_eq!(
            read("---\n# of a template\n---\na: 1\n--- # next\na: 2\n...\njunk: [\n---\nnull\n"),
            [one(4, 1), one(6, 2)]
        );
        assert_eq!(read("{\"a\": 1}{\"a\": 2}\n\n{\"a\": 3}---\na: 4"), [one(1, 1), one(1, 2), one(3, 3), one(4, 4)]);
        // Flow YAML begins like JSON.
        assert_eq!(read("{a: 1} # one\n---\n{a: 0b10}"), [one(1, 1), one(3, 2)]);
        assert_eq!(read("{\"a\": 1\n---\na: 2")[1], one(3, 2));
    }

    #[test]
    fn one_that_cannot_be_read_keeps_no_other_from_being_read() {
        let read = read("a: 1\n---\nb: 2\n c: [\n---x\n---\na: 3\n");
        let lines: Vec<_> = read.iter().map(|(line, value)| (*line, value.is_ok())).collect();
        assert_eq!(lines, [(1, true), (4, false), (5, false), (7, true)], "{read:?}");
    }
}
