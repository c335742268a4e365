//! `headrace.collector.v1.PublishRequest` on the wire (https://protobuf.dev/programming-guides/encoding): events, each with its attributes.
//!
//! As in `event`, `None` is for all that is not surely good.

use crate::event::{Found, Plan, Sent};
use crate::scan::Scan;

const LENGTH_DELIMITED: u64 = 2;

/// Reads the events of a request, whose only field is 1, the events.
pub fn read_request<'a>(bytes: &'a [u8], plan: &Plan) -> Option<Vec<Found<'a>>> {
    let mut all = Vec::new();
    let mut keys = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (number, start, end) = field(bytes, at)?;
        if number != 1 || all.len() == plan.events {
            return None;
        }
        let sent = read_event(&bytes[start..end], plan.depth, &mut keys).filter(|_| end - start <= plan.event_bytes);
        all.push(Found { start, end, sent });
        at = end;
    }
    Some(all)
}

fn read_event<'a>(bytes: &'a [u8], depth: usize, keys: &mut Vec<&'a [u8]>) -> Option<Sent<'a>> {
    let mut sent = Sent::default();
    let mut at = 0;
    while at < bytes.len() {
        let (number, start, end) = field(bytes, at)?;
        let content = &bytes[start..end];
        std::str::from_utf8(content).ok()?;
        let into = match number {
            1 => &mut sent.id,
            2 => &mut sent.source,
            3 => &mut sent.kind,
            4 => &mut sent.time,
            5 => &mut sent.subject,
            6 => &mut sent.dataschema,
            7 => &mut sent.data,
            _ => return None,
        };
        if !into.is_empty() {
            return None;
        }
        *into = content;
        at = end;
    }
    let mut scan = Scan::new(sent.data);
    sent.data = scan.object(depth, keys)?;
    scan.space();
    (scan.at == scan.text.len()).then(|| sent)
}

/// The number of the length-delimited field that begins at `at`, and where its content starts and ends.
fn field(bytes: &[u8], at: usize) -> Option<(u64, usize, usize)> {
    let (tag, at) = varint(bytes, at)?;
    if tag & 7 != LENGTH_DELIMITED {
        return None;
    }
    let (length, start) = varint(bytes, at)?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    (end <= bytes.len()).then(|| (tag >> 3, start, end))
}

fn varint(bytes: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value, at));
        }
    }
    None
}
