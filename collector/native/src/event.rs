//! Which events are surely good, and what is written of them: the happy path of `collector/accept.py`, with the same result.

use crate::scan::{printable, Scan};
use std::collections::HashMap;

/// Characters, of `id` and `source` and of `subject`; here counted in bytes, so that none is too long.
const MAX_ID: usize = 200;
const MAX_SUBJECT: usize = 500;
/// Levels that a member may have which is not kept.
const SKIP_DEPTH: usize = 32;

/// An event type as the tracking plan has it; all JSON strings with their quotes.
pub struct Type {
    pub name: Vec<u8>,
    pub default_ref: Vec<u8>,
    pub refs: Vec<Vec<u8>>,
    pub needs_subject: bool,
}

pub struct Plan {
    /// By the names under which clients send a type, in lower case.
    pub types: HashMap<Vec<u8>, Type>,
    pub event_bytes: usize,
    pub events: usize,
    pub depth: usize,
}

/// How events are written in JSON.
#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    CloudEvents,
    SegmentTrack,
}

/// What is the same for all events of a request.
pub struct Sending<'a> {
    pub form: Form,
    /// The source of Segment's events, or the only one that CloudEvents may have; empty: any.
    pub source: &'a [u8],
    pub received_at: &'a [u8],
    pub receipt: &'a [u8],
}

/// The attributes of one event as they were sent.
#[derive(Default)]
pub struct Sent<'a> {
    pub id: &'a [u8],
    pub source: &'a [u8],
    pub kind: &'a [u8],
    pub time: &'a [u8],
    pub subject: &'a [u8],
    pub dataschema: &'a [u8],
    pub data: &'a [u8],
}

/// What is written of an event, in pieces; and the pieces of its key.
pub struct Good<'a> {
    pub value: [&'a [u8]; 20],
    pub source: &'a [u8],
    pub id: &'a [u8],
}

/// Where one event stands in the text, and, where it is surely good, its attributes.
pub struct Found<'a> {
    pub start: usize,
    pub end: usize,
    pub sent: Option<Sent<'a>>,
}

/// Reads the array of events that is next. `None` where it is no array of objects, or has too many.
pub fn read_array<'a>(scan: &mut Scan<'a>, plan: &Plan, form: Form) -> Option<Vec<Found<'a>>> {
    let mut all = Vec::new();
    let mut keys = Vec::new();
    scan.take(b'[')?;
    if scan.took(b']') {
        return Some(all);
    }
    loop {
        all.push(read_one(scan, plan, form, &mut keys)?);
        if all.len() > plan.events {
            return None;
        }
        if scan.took(b']') {
            return Some(all);
        }
        scan.take(b',')?;
    }
}

/// Reads the value that is next as an event; `None` where it is no JSON, or cannot be told.
pub fn read_one<'a>(scan: &mut Scan<'a>, plan: &Plan, form: Form, keys: &mut Vec<&'a [u8]>) -> Option<Found<'a>> {
    scan.space();
    let start = scan.at;
    let sent = match form {
        Form::CloudEvents => read_cloudevent(scan, plan.depth, keys),
        Form::SegmentTrack => read_track(scan, plan.depth, keys),
    };
    if sent.is_none() {
        scan.at = start;
        scan.skip(SKIP_DEPTH)?;
    }
    let end = scan.at;
    Some(Found { start, end, sent: sent.filter(|_| end - start <= plan.event_bytes) })
}

/// A string without escapes, or null, which is as good as nothing; each attribute may stand once.
fn once<'a>(scan: &mut Scan<'a>, into: &mut &'a [u8]) -> Option<()> {
    scan.space();
    if scan.peek() == b'n' {
        scan.word(b"null")?;
        return into.is_empty().then(|| ());
    }
    let (text, escaped) = scan.string()?;
    (into.is_empty() && !escaped && !text.is_empty()).then(|| *into = text)
}

fn object_once<'a>(scan: &mut Scan<'a>, depth: usize, keys: &mut Vec<&'a [u8]>, into: &mut &'a [u8]) -> Option<()> {
    let text = scan.object(depth, keys)?;
    into.is_empty().then(|| *into = text)
}

/// Calls `member` for each key of the object that is next, to read its value.
fn members<'a>(scan: &mut Scan<'a>, mut member: impl FnMut(&mut Scan<'a>, &'a [u8]) -> Option<()>) -> Option<()> {
    scan.take(b'{')?;
    if scan.took(b'}') {
        return Some(());
    }
    loop {
        let (key, escaped) = scan.string()?;
        if escaped {
            return None;
        }
        scan.take(b':')?;
        member(scan, key)?;
        if scan.took(b'}') {
            return Some(());
        }
        scan.take(b',')?;
    }
}

fn read_cloudevent<'a>(scan: &mut Scan<'a>, depth: usize, keys: &mut Vec<&'a [u8]>) -> Option<Sent<'a>> {
    let mut sent = Sent::default();
    let mut specversion: &[u8] = b"";
    members(scan, |scan, key| match key {
        b"id" => once(scan, &mut sent.id),
        b"source" => once(scan, &mut sent.source),
        b"type" => once(scan, &mut sent.kind),
        b"time" => once(scan, &mut sent.time),
        b"subject" => once(scan, &mut sent.subject),
        b"dataschema" => once(scan, &mut sent.dataschema),
        b"specversion" => once(scan, &mut specversion),
        b"data" => object_once(scan, depth, keys, &mut sent.data),
        b"data_base64" => None,
        _ => scan.skip(SKIP_DEPTH),
    })?;
    matches!(specversion, b"" | b"1.0").then(|| sent)
}

fn read_track<'a>(scan: &mut Scan<'a>, depth: usize, keys: &mut Vec<&'a [u8]>) -> Option<Sent<'a>> {
    let mut sent = Sent::default();
    let (mut call, mut anonymous, mut original): (&[u8], &[u8], &[u8]) = (b"", b"", b"");
    members(scan, |scan, key| match key {
        b"messageId" => once(scan, &mut sent.id),
        b"event" => once(scan, &mut sent.kind),
        b"timestamp" => once(scan, &mut sent.time),
        b"originalTimestamp" => once(scan, &mut original),
        b"userId" => once(scan, &mut sent.subject),
        b"anonymousId" => once(scan, &mut anonymous),
        b"type" => once(scan, &mut call),
        b"properties" => object_once(scan, depth, keys, &mut sent.data),
        // Read although a track call does not use them: one of another JSON type makes the call malformed.
        b"traits" | b"name" | b"category" | b"groupId" | b"previousId" => None,
        _ => scan.skip(SKIP_DEPTH),
    })?;
    if call != b"track" {
        return None;
    }
    if sent.time.is_empty() {
        sent.time = original;
    }
    if sent.subject.is_empty() {
        sent.subject = anonymous;
    }
    Some(sent)
}

/// What is written of `sent`, or `None` where it is not surely good.
pub fn judge<'a>(sent: &Sent<'a>, plan: &'a Plan, sending: &Sending<'a>) -> Option<Good<'a>> {
    let source = match sending.form {
        Form::SegmentTrack => sending.source,
        Form::CloudEvents if sending.source.is_empty() || sending.source == sent.source => sent.source,
        Form::CloudEvents => return None,
    };
    if !is_attribute(sent.id, MAX_ID) || !is_attribute(source, MAX_ID) || sent.data.is_empty() {
        return None;
    }
    let kind = match plan.types.get(sent.kind) {
        Some(kind) => kind,
        None => plan.types.get(&sent.kind.to_ascii_lowercase())?,
    };
    if sent.subject.is_empty() {
        if kind.needs_subject {
            return None;
        }
    } else if !is_attribute(sent.subject, MAX_SUBJECT) {
        return None;
    }
    let schema = if sent.dataschema.is_empty() {
        &kind.default_ref
    } else {
        kind.refs.iter().find(|one| one[1..one.len() - 1] == *sent.dataschema)?
    };
    let time = if sent.time.is_empty() {
        sending.received_at
    } else if is_utc(sent.time) {
        sent.time
    } else {
        return None;
    };
    let (subject, quote): (&[u8], &[u8]) = if sent.subject.is_empty() { (b"", b"") } else { (b",\"subject\":\"", b"\"") };
    // The order is that of `headrace.event.RawEvent`.
    let value: [&[u8]; 20] = [
        b"{\"id\":\"",
        sent.id,
        b"\",\"source\":\"",
        source,
        b"\",\"type\":",
        &kind.name,
        b",\"time\":\"",
        time,
        b"\",\"received_at\":\"",
        sending.received_at,
        b"\",\"dataschema\":",
        schema,
        b",\"data\":",
        sent.data,
        b",\"receipt\":",
        sending.receipt,
        subject,
        sent.subject,
        quote,
        b"}",
    ];
    Some(Good { value, source, id: sent.id })
}

/// Whether a text without escapes may be an attribute: neither empty nor too long, and without control characters (U+007F to U+009F too).
fn is_attribute(text: &[u8], longest: usize) -> bool {
    !text.is_empty()
        && text.len() <= longest
        && (printable(text)
            || !text.iter().any(|byte| *byte < 0x20 || matches!(byte, 0x7f | b'"' | b'\\'))
                && !text.windows(2).any(|pair| pair[0] == 0xc2 && pair[1] < 0xa0))
}

/// Whether a text is a moment in the form that is kept as it is: `2026-01-31T12:00:00.123456Z`, with none to six decimals.
fn is_utc(text: &[u8]) -> bool {
    let number = |from: usize, to: usize| text[from..to].iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    let pattern = b"0000-00-00T00:00:00";
    if !(20..=27).contains(&text.len()) || text[text.len() - 1] != b'Z' || text.len() == 21 {
        return false;
    }
    let fits = |(byte, wanted): (&u8, &u8)| if *wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted };
    if !text.iter().zip(pattern).all(fits) {
        return false;
    }
    if text.len() > 20 && (text[19] != b'.' || !text[20..text.len() - 1].iter().all(u8::is_ascii_digit)) {
        return false;
    }
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    year > 0 && (1..=days).contains(&day) && number(11, 13) < 24 && number(14, 16) < 60 && number(17, 19) < 60
}

/// Reads the member `batch` of the object that is next; the others are not kept.
pub fn read_batch<'a>(scan: &mut Scan<'a>, plan: &Plan, form: Form) -> Option<Vec<Found<'a>>> {
    let mut found = None;
    members(scan, |scan, key| match key {
        b"batch" if found.is_none() => {
            found = Some(read_array(scan, plan, form)?);
            Some(())
        }
        b"batch" => None,
        _ => scan.skip(SKIP_DEPTH),
    })?;
    found
}
