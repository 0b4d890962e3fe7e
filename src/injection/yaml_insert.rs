//! Inserts an item into a list of a YAML text, and changes no other character of it. Why no kept crate does:
//! `docs/design/decisions.md`.

use granit_parser::{Event, Parser};

/// The text with one item more at the head of a list of the outermost map; the list is made where it `is_there` not. `None` for a
/// text without content.
///
/// # Errors
/// The reason why the place cannot be found. What is returned must be read again: the layout may be one that this does not know.
pub(super) fn insert_first(yaml: &str, list: &str, is_there: bool, item: &str) -> Result<Option<String>, String> {
    let Some(Insertion { at, is_flow, is_last }) = place_of_list(yaml, list)? else { return Ok(None) };
    let comma = if is_last { "" } else { ", " };
    let item = match (is_there, is_flow) {
        (true, true) => format!("{item}{comma}"),
        (true, false) => format!("- {item}\n{}", indent(yaml, at)),
        (false, true) => format!("\"{list}\": [{item}]{comma}"),
        (false, false) => format!("{list}: [{item}]\n{}", indent(yaml, at)),
    };
    Ok(Some([&yaml[..at], &item, &yaml[at..]].concat()))
}

/// The indentation of the line at this place.
fn indent(yaml: &str, place: usize) -> String {
    let line = yaml[..place].rfind('\n').map_or(0, |end| end + 1);
    " ".repeat(yaml[line..place].chars().count())
}

/// The place at which to insert a list's first item or the list itself.
struct Insertion {
    /// The byte offset.
    at: usize,
    /// True between brackets or braces.
    is_flow: bool,
    /// True if nothing follows in the list, or in the map.
    is_last: bool,
}

/// Finds the place for the first item of a list, or for the list. `None` for a text without content.
fn place_of_list(yaml: &str, list: &str) -> Result<Option<Insertion>, String> {
    let mut events = Parser::new_from_str(yaml)
        .filter(|event| !matches!(event, Ok((Event::Comment(..) | Event::StreamStart | Event::DocumentStart(..), _))));
    let mut next = || match events.next() {
        Some(Ok((event, span))) => Ok(Some((event, span.start.byte_offset().unwrap_or_default()))),
        Some(Err(error)) => Err(error.to_string()),
        None => Ok(None),
    };
    let Some((Event::MappingStart(..), root)) = next()? else { return Ok(None) };
    let opened = |place: usize, bracket: char| yaml[place..].starts_with(bracket);
    let (mut depth, mut is_key, mut found, mut first) = (0_usize, true, false, None);
    while let Some((event, place)) = next()? {
        let closes = matches!(event, Event::MappingEnd | Event::SequenceEnd);
        let first_key = *first.get_or_insert((place, closes));
        if found {
            let Event::SequenceStart(..) = event else { return Err(format!("{list} is not a list")) };
            let is_flow = opened(place, '[');
            // For a list not indented below its key, the parser gives the first item's place, not its dash's.
            let is_dash = is_flow || opened(place, '-');
            let place = if is_dash { place } else { yaml[..place].rfind('-').unwrap_or(place) };
            let is_empty = matches!(next()?, Some((Event::SequenceEnd, _)));
            return Ok(Some(Insertion { at: place + usize::from(is_flow), is_flow, is_last: is_empty }));
        }
        if closes && depth == 0 {
            let is_flow = opened(root, '{');
            let at = if is_flow { root + 1 } else { first_key.0 };
            return Ok(Some(Insertion { at, is_flow, is_last: first_key.1 }));
        }
        if let (Event::Scalar(text, ..), 0, true) = (&event, depth, is_key) {
            found = text == list;
        }
        match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
            _ if closes => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            is_key = !is_key;
        }
    }
    Err("it ends too early".to_owned())
}
