//! The happy path of the collector in native code: reads a request's events, writes those that are surely good, and hands them to Kafka.
//!
//! `collector/accept.py` is the rule; this is a faster way to the same result. What is not surely good is left to it, one event at a time
//! or the whole body, so no reason for a rejection is known here.

mod crc32;
mod event;
mod kafka;
mod messages;
mod protobuf;
mod scan;

use event::{judge, read_array, read_one, Form, Found, Plan, Sending, Type};
use messages::Messages;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use scan::Scan;
use std::collections::HashMap;

/// Bytes that a message usually has more than its event's text and the receipt.
const ADDED: usize = 160;

/// A tracking plan and the limits of a request.
#[pyclass(frozen)]
struct Acceptor {
    plan: Plan,
}

/// The messages of the events that are surely good, and of each other event its place in the request and where its text starts and ends.
type Told = (Messages, Vec<(usize, usize, usize)>);
type TypeRow = (String, String, Vec<String>, bool);

#[pymethods]
impl Acceptor {
    /// `types`: by the names that clients use, in lower case: (event type, default schema ref, all schema refs, whether a subject is required).
    #[new]
    fn new(types: HashMap<String, TypeRow>, event_bytes: usize, events: usize, depth: usize) -> Self {
        let quoted = |text: &str| format!("\"{text}\"").into_bytes();
        let types = types.into_iter().map(|(name, (kind, default_ref, refs, needs_subject))| {
            let refs = refs.iter().map(|one| quoted(one)).collect();
            (name.into_bytes(), Type { name: quoted(&kind), default_ref: quoted(&default_ref), refs, needs_subject })
        });
        Acceptor { plan: Plan { types: types.collect(), event_bytes, events, depth } }
    }

    /// The CloudEvents of `body`, an array or one object; `source` is the only one they may have, or empty.
    ///
    /// The messages of the events that are surely good, and the place in the request of each other one with the start and end of its text in
    /// `body`; or None where the body as a whole needs the other implementation.
    fn cloudevents(
        &self,
        body: &Bound<'_, PyBytes>,
        many: bool,
        source: &[u8],
        received_at: &[u8],
        receipt: &[u8],
    ) -> Option<Told> {
        let sending = Sending { form: Form::CloudEvents, source, received_at, receipt };
        let text = body.as_bytes();
        let found = if many { whole(text, |scan| read_array(scan, &self.plan, sending.form)) } else { self.single(text, sending.form) };
        self.told(found, &sending)
    }

    /// The same for Segment's track calls: a batch, or one call. `source` is the write key's.
    fn tracks(
        &self,
        body: &Bound<'_, PyBytes>,
        source: &[u8],
        received_at: &[u8],
        receipt: &[u8],
    ) -> Option<Told> {
        let sending = Sending { form: Form::SegmentTrack, source, received_at, receipt };
        let found = whole(body.as_bytes(), |scan| event::read_batch(scan, &self.plan, sending.form));
        self.told(found, &sending)
    }

    /// The same for a `headrace.collector.v1.PublishRequest`, as its bytes.
    fn protobuf(
        &self,
        body: &Bound<'_, PyBytes>,
        source: &[u8],
        received_at: &[u8],
        receipt: &[u8],
    ) -> Option<Told> {
        let sending = Sending { form: Form::CloudEvents, source, received_at, receipt };
        self.told(protobuf::read_request(body.as_bytes(), &self.plan), &sending)
    }
}

impl Acceptor {
    fn single<'a>(&self, text: &'a [u8], form: Form) -> Option<Vec<Found<'a>>> {
        whole(text, |scan| read_one(scan, &self.plan, form, &mut Vec::new()).map(|one| vec![one]))
    }

    fn told(&self, found: Option<Vec<Found>>, sending: &Sending) -> Option<Told> {
        let found = found?;
        let sent: usize = found.iter().map(|one| one.end - one.start).sum();
        let mut messages = Messages::with_capacity(found.len(), sent + found.len() * (sending.receipt.len() + ADDED));
        let mut unsure = Vec::new();
        for (index, one) in found.iter().enumerate() {
            match one.sent.as_ref().and_then(|sent| judge(sent, &self.plan, sending)) {
                Some(good) => messages.push(&[good.source, b"\x1f", good.id], &good.value),
                None => unsure.push((index, one.start, one.end)),
            }
        }
        Some((messages, unsure))
    }
}

/// All of `text` as `read` sees it: valid UTF-8, and nothing but white space after it.
fn whole<'a, T>(text: &'a [u8], read: impl FnOnce(&mut Scan<'a>) -> Option<T>) -> Option<T> {
    std::str::from_utf8(text).ok()?;
    let mut scan = Scan::new(text);
    let value = read(&mut scan)?;
    scan.space();
    (scan.at == text.len()).then(|| value)
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Acceptor>()?;
    module.add_class::<Messages>()?;
    module.py().import_bound("collections.abc")?.getattr("Sequence")?.call_method1("register", (module.getattr("Messages")?,))?;
    module.add_class::<kafka::Producer>()
}
