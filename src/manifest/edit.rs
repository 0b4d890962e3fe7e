//! Changes to a YAML text that can be taken back to the byte: what is added stands between two comments, and what is replaced stays
//! as a comment.

use std::io::Cursor;
use std::ops::Range;

use libyaml_safer::{EventData, MappingStyle, Parser, SequenceStyle};
use serde_json::Value;

/// Begins what gwmon wrote.
const BEGIN: &str = "# gwmon: begin";
/// The same after a last line that had no line break.
const BEGIN_UNENDED: &str = "# gwmon: begin, after a line without its end";
/// Ends it.
const END: &str = "# gwmon: end";
/// A line that was replaced.
const WAS: &str = "# gwmon: was ";

/// A node of a document, and where it stands.
#[derive(Debug)]
struct Node {
    /// The line of its key or of its dash, and the column of the key or the item itself.
    line: usize,
    column: usize,
    /// The line after its last.
    end: usize,
    /// True between brackets or braces.
    is_flow: bool,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar,
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
}

/// An edit: these lines become those.
struct Edit {
    lines: Range<usize>,
    text: Vec<String>,
}

/// Writes the difference between two values of a document into its text.
///
/// # Errors
/// Why it cannot be written into this layout, for a person.
pub fn write(text: &str, before: &Value, after: &Value) -> Result<String, String> {
    if before == after {
        return Ok(text.to_owned());
    }
    let root = locate(text)?;
    let mut edits = Vec::new();
    change(&root, (before, after), &mut edits)?;
    let ends = line_end(text);
    let is_unended = !text.ends_with('\n');
    let ended = if is_unended { format!("{text}{ends}") } else { text.to_owned() };
    let lines: Vec<&str> = ended.split_inclusive('\n').collect();
    edits.sort_by_key(|edit| (edit.lines.start, edit.lines.end));
    let (mut written, mut at, mut is_last_changed) = (String::new(), 0, false);
    for Edit { lines: replaced, text } in edits {
        if replaced.start < at || replaced.end > lines.len() {
            return Err("two changes concern the same lines".to_owned());
        }
        written.extend(lines[at..replaced.start].iter().copied());
        let indent = text.first().map_or(0, |line| line.len() - line.trim_start().len());
        let pad = " ".repeat(indent);
        let is_last = is_unended && replaced.end == lines.len();
        is_last_changed |= is_last;
        written.extend([pad.as_str(), if is_last { BEGIN_UNENDED } else { BEGIN }, ends]);
        for line in &lines[replaced.clone()] {
            written.extend([pad.as_str(), WAS, line]);
        }
        for line in &text {
            written.extend([line.as_str(), ends]);
        }
        written.extend([pad.as_str(), END, ends]);
        at = replaced.end;
    }
    written.extend(lines[at..].iter().copied());
    if is_unended && !is_last_changed {
        written.truncate(written.len() - ends.len());
    }
    Ok(written)
}

/// Adds objects after the last document of a text.
#[must_use]
pub fn append(text: &str, objects: &[Value]) -> String {
    if objects.is_empty() {
        return text.to_owned();
    }
    let ends = line_end(text);
    let is_unended = !text.is_empty() && !text.ends_with('\n');
    let mut written = text.to_owned();
    written.extend([if is_unended { ends } else { "" }, if is_unended { BEGIN_UNENDED } else { BEGIN }, ends]);
    for object in objects {
        written.extend(["---", ends]);
        written.extend(indented(object, 0).iter().flat_map(|line| [line.as_str(), ends]));
    }
    written.extend([END, ends]);
    written
}

/// How the lines of a text end.
fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// Returns true if a line of the text is one of the comments by which [`undo`] finds what was written.
#[must_use]
pub fn is_marked(text: &str) -> bool {
    text.lines().any(|line| [BEGIN, BEGIN_UNENDED, END].contains(&line.trim()))
}

/// The text without what [`write`] wrote into it; `None` if it wrote nothing.
///
/// # Errors
/// A beginning without its end.
pub fn undo(text: &str) -> Result<Option<String>, String> {
    let (mut restored, mut is_inside, mut is_unended, mut found) = (String::new(), false, false, false);
    for line in text.split_inclusive('\n') {
        let word = line.trim();
        match (is_inside, word) {
            (false, BEGIN | BEGIN_UNENDED) => {
                (is_inside, found) = (true, true);
                is_unended |= word == BEGIN_UNENDED;
            }
            (true, END) => is_inside = false,
            (true, _) => {
                if let Some(was) = line.trim_start().strip_prefix(WAS) {
                    restored.push_str(was);
                }
            }
            (false, _) => restored.push_str(line),
        }
    }
    if is_inside {
        return Err(format!("a line {BEGIN:?} without its {END:?}"));
    }
    if is_unended {
        let without = restored.strip_suffix("\r\n").or_else(|| restored.strip_suffix('\n'));
        restored.truncate(without.map_or(restored.len(), str::len));
    }
    Ok(found.then_some(restored))
}

/// Adds the edits that make one value the other.
fn change(node: &Node, (before, after): (&Value, &Value), edits: &mut Vec<Edit>) -> Result<(), String> {
    match (&node.content, before, after) {
        _ if before == after => Ok(()),
        (Content::Map(entries), Value::Object(before), Value::Object(after)) if !node.is_flow => {
            if before.keys().any(|key| !after.contains_key(key)) {
                return Err("a field would have to go".to_owned());
            }
            for (key, value) in after {
                match (before.get(key), entries.iter().find(|(name, _)| name == key)) {
                    (Some(was), _) if was == value => {}
                    (Some(was), Some((_, entry))) => match entry.content {
                        Content::Scalar => edits.push(replace(entry, Some(key), value)),
                        _ if entry.is_flow => edits.push(replace(entry, Some(key), value)),
                        _ => change(entry, (was, value), edits)?,
                    },
                    // From a merge or an alias.
                    (Some(_), None) => return Err(format!("the field {key} stands elsewhere")),
                    (None, _) => edits.push(insert_field(entries, key, value)?),
                }
            }
            Ok(())
        }
        (Content::List(items), Value::Array(before), Value::Array(after)) if !node.is_flow => {
            change_list(items, (before, after), edits)
        }
        _ => Err("it is written in a way that cannot be added to".to_owned()),
    }
}

/// Items are added at the head and at the end, and changed where they are.
fn change_list(items: &[Node], (before, after): (&[Value], &[Value]), edits: &mut Vec<Edit>) -> Result<(), String> {
    let more = after.len().checked_sub(before.len()).ok_or("an item would have to go")?;
    // At the head, if the rest is what it was, or nearly.
    let same = |skip: usize| before.iter().zip(&after[skip..]).filter(|(was, is)| was == is).count();
    let head = if more > 0 && same(more) > same(0) { more } else { 0 };
    for (index, was) in before.iter().enumerate() {
        let is = &after[head + index];
        let Some(item) = items.get(index) else { return Err("an item stands elsewhere".to_owned()) };
        if was != is {
            match item.content {
                Content::Scalar => edits.push(replace(item, None, is)),
                _ if item.is_flow => edits.push(replace(item, None, is)),
                _ => change(item, (was, is), edits)?,
            }
        }
    }
    let (first, last) = (items.first().ok_or("an empty list")?, items.last().ok_or("an empty list")?);
    // The dash stands left of the item.
    let indent = dash(first);
    let shown = |values: &[Value]| values.iter().flat_map(|value| item_lines(value, indent)).collect();
    if head > 0 {
        edits.push(Edit { lines: first.line..first.line, text: shown(&after[..head]) });
    } else if more > 0 {
        edits.push(Edit { lines: last.end..last.end, text: shown(&after[before.len()..]) });
    }
    Ok(())
}

/// The column of an item's dash: two left of it, as nearly everybody writes.
const fn dash(item: &Node) -> usize {
    item.column.saturating_sub(2)
}

/// A field before the second one, since the first may stand behind a dash; after the only one.
fn insert_field(entries: &[(String, Node)], key: &str, value: &Value) -> Result<Edit, String> {
    let (_, first) = entries.first().ok_or("an empty map")?;
    let line = entries.get(1).map_or(first.end, |(_, second)| second.line);
    Ok(Edit { lines: line..line, text: field_lines(key, value, first.column) })
}

/// A field or an item in other words, with what stands before it on its line.
fn replace(node: &Node, key: Option<&str>, value: &Value) -> Edit {
    let text = match key {
        Some(key) => field_lines(key, value, node.column),
        None => item_lines(value, dash(node)),
    };
    Edit { lines: node.line..node.end, text }
}

fn field_lines(key: &str, value: &Value, indent: usize) -> Vec<String> {
    indented(&serde_json::json!({key: value}), indent)
}

fn item_lines(value: &Value, indent: usize) -> Vec<String> {
    indented(&serde_json::json!([value]), indent)
}

fn indented(value: &Value, indent: usize) -> Vec<String> {
    // A JSON value has nothing that YAML could not hold.
    let text = serde_saphyr::to_string(value).unwrap_or_default();
    text.lines()
        .map(|line| if line.is_empty() { String::new() } else { format!("{}{line}", " ".repeat(indent)) })
        .collect()
}

/// Where the nodes of the first document stand.
fn locate(text: &str) -> Result<Node, String> {
    let mut parser = Parser::new();
    // The parser wants the last line's end, and none that is not there.
    let ended = if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    parser.set_input(Cursor::new(ended.as_bytes()));
    let mut locator = Locator { parser };
    loop {
        let event = locator.next()?;
        match event.0 {
            EventData::StreamEnd => return Err("there is no document".to_owned()),
            EventData::DocumentStart { .. } => {
                let first = locator.next()?;
                let (line, column) = (first.1, first.2);
                return locator.node(first, line, column);
            }
            _ => {}
        }
    }
}

struct Locator<'t> {
    parser: Parser<Cursor<&'t [u8]>>,
}

/// An event with the line and the column of its beginning, and the line and the column of its end.
type Located = (EventData, usize, usize, usize, usize);

impl Locator<'_> {
    fn next(&mut self) -> Result<Located, String> {
        let event = self.parser.parse().map_err(|error| error.problem().to_owned())?;
        let number = |number| usize::try_from(number).unwrap_or_default();
        let (start, end) = (event.start_mark, event.end_mark);
        Ok((event.data, number(start.line), number(start.column), number(end.line), number(end.column)))
    }

    fn node(&mut self, event: Located, line: usize, column: usize) -> Result<Node, String> {
        let (data, _, _, end_line, end_column) = event;
        let end = if end_column == 0 { end_line } else { end_line + 1 };
        match data {
            EventData::SequenceStart { style, .. } => {
                let is_flow = style == SequenceStyle::Flow;
                let mut items = Vec::new();
                loop {
                    let event = self.next()?;
                    if let EventData::SequenceEnd = event.0 {
                        let end = if is_flow { event.3 + 1 } else { items.last().map_or(end, |item: &Node| item.end) };
                        return Ok(Node { line, column, end, is_flow, content: Content::List(items) });
                    }
                    let (item_line, item_column) = (event.1, event.2);
                    items.push(self.node(event, item_line, item_column)?);
                }
            }
            EventData::MappingStart { style, .. } => {
                let is_flow = style == MappingStyle::Flow;
                let mut entries: Vec<(String, Node)> = Vec::new();
                loop {
                    let key = self.next()?;
                    let name = match key.0 {
                        EventData::MappingEnd => {
                            let end =
                                if is_flow { key.3 + 1 } else { entries.last().map_or(end, |(_, entry)| entry.end) };
                            return Ok(Node { line, column, end, is_flow, content: Content::Map(entries) });
                        }
                        EventData::Scalar { value, .. } => value,
                        _ => return Err("a key is no text".to_owned()),
                    };
                    let (key_line, key_column, key_end) = (key.1, key.2, key.3 + 1);
                    let event = self.next()?;
                    let mut node = self.node(event, key_line, key_column)?;
                    // An empty value ends with its key.
                    node.end = node.end.max(key_end);
                    entries.push((name, node));
                }
            }
            _ => Ok(Node { line, column, end: end.max(line + 1), is_flow: false, content: Content::Scalar }),
        }
    }
}
