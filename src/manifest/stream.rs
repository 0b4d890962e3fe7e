//! A stream of documents, cut where kubectl cuts it.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};
use std::iter;

use encoding_rs_io::DecodeReaderBytesBuilder;
use memchr::memmem::Finder;
use serde_json::Value;

use super::compose::{Malformed, compose};

/// One document of a stream.
#[derive(Debug)]
pub struct Document {
    /// Which it is, from 1.
    pub number: usize,
    /// The line of the stream where it begins, or where the error is, from 1.
    pub line: usize,
    /// What it holds, or what is wrong with it.
    pub value: Result<Value, String>,
}

/// The documents of a stream, one after the other, of which only one is held; empty ones are left out. Of YAML and JSON only
/// those whose text has one of these words, where there are any. UTF-8, and UTF-16 with a byte order mark, are read.
///
/// # Errors
/// Where the stream cannot be read; it ends there. A document that cannot be read is a document, and the next one follows.
pub fn documents<R: Read>(stream: R, words: &[&'static str]) -> impl Iterator<Item = io::Result<Document>> + use<R> {
    let decoded = DecodeReaderBytesBuilder::new().build(stream);
    let words = words.iter().map(|word| Finder::new(*word)).collect();
    let mut stream =
        Stream { reader: BufReader::with_capacity(1 << 16, decoded), ahead: vec![], line: 1, number: 0, words };
    iter::from_fn(move || stream.next().transpose()).fuse()
}

const SEPARATOR: &[u8] = b"---";

struct Stream<R> {
    reader: BufReader<R>,
    /// Read and given back: comes first.
    ahead: Vec<u8>,
    /// The line that comes next, from 1.
    line: usize,
    /// Documents so far.
    number: usize,
    words: Vec<Finder<'static>>,
}

impl<R: Read> Stream<R> {
    fn next(&mut self) -> io::Result<Option<Document>> {
        loop {
            let begins = self.line;
            let mut text = vec![];
            if !self.read_line(&mut text)? {
                return Ok(None);
            }
            if text.starts_with(SEPARATOR) {
                if is_separator(&text) {
                    continue;
                }
                self.number += 1;
                let what =
                    format!("{:?} is no separator of documents; begin the next one on a line of its own", lossy(&text));
                return Ok(Some(Document { number: self.number, line: begins, value: Err(what) }));
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let mut read = None;
            if text.trim_ascii_start().starts_with(b"{") {
                read = self.json(&mut text)?;
            }
            if read.is_none() {
                self.read_to_separator(&mut text)?;
            }
            let is_wanted = self.words.is_empty() || self.words.iter().any(|word| word.find(&text).is_some());
            let read = match read {
                Some(value) => Ok(Some(value)),
                None if is_wanted => compose(lossy(&text).as_bytes()),
                None => Ok(None),
            };
            let (line, value) = match read {
                // One of comments only, or one that says null.
                Ok(None | Some(Value::Null)) => continue,
                Ok(Some(value)) => (begins, Ok(value)),
                // What is missing at the end is missing after the last line.
                Err(Malformed { line, what }) => ((begins + line).min(self.line - 1), Err(what)),
            };
            self.number += 1;
            return Ok(Some(Document { number: self.number, line, value }));
        }
    }

    /// Appends the next line, its end included. False at the end of the stream.
    fn read_line(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        let before = text.len();
        text.append(&mut self.ahead);
        if !text[before..].ends_with(b"\n") {
            self.reader.read_until(b'\n', text)?;
        }
        // The parser wants the last line's end (libyaml-safer 0.3.0 panics where a block scalar has none).
        if text.len() > before && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        self.line += usize::from(text[before..].ends_with(b"\n"));
        Ok(text.len() > before)
    }

    /// Appends lines up to the next separator, which stays.
    fn read_to_separator(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        // What is there may end within a line.
        let mut begins = if text.ends_with(b"\n") { text.len() } else { 0 };
        while self.read_line(text)? {
            if text[begins..].starts_with(SEPARATOR) {
                self.give_back(text, begins);
                break;
            }
            begins = text.len();
        }
        Ok(())
    }

    fn give_back(&mut self, text: &mut Vec<u8>, from: usize) {
        self.ahead = text.split_off(from);
        self.line -= memchr::memchr_iter(b'\n', &self.ahead).count();
    }

    /// Reads the JSON object that begins here and gives back what follows it. `None` where it is none, and may be YAML: the text
    /// then has all that was read.
    fn json(&mut self, text: &mut Vec<u8>) -> io::Result<Option<Value>> {
        let (mut depth, mut in_string, mut is_escaped, mut at) = (0_usize, false, false, 0);
        loop {
            let line = at;
            if text[line..].starts_with(SEPARATOR) {
                self.give_back(text, line);
                return Ok(None);
            }
            while at < text.len() {
                let byte = text[at];
                at += 1;
                match byte {
                    _ if is_escaped => is_escaped = false,
                    b'\\' if in_string => is_escaped = true,
                    b'"' => in_string = !in_string,
                    b'{' | b'[' if !in_string => depth += 1,
                    b'}' | b']' if !in_string => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 {
                            let Ok(value) = serde_json::from_slice(&text[..at]) else { return Ok(None) };
                            self.give_back(text, at);
                            return Ok(Some(value));
                        }
                    }
                    _ => {}
                }
            }
            if !self.read_line(text)? {
                return Ok(None);
            }
        }
    }
}

/// A separator is alone on its line, or before a comment.
fn is_separator(line: &[u8]) -> bool {
    let rest = line[SEPARATOR.len()..].trim_ascii();
    rest.is_empty() || rest.starts_with(b"#")
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
