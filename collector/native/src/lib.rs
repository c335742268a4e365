//! The happy path of the collector in native code: reads a request's events and writes those that are surely good.
//!
//! `collector/accept.py` is the rule; this is a faster way to the same result. What is not surely good is left to it, one event at a time
//! or the whole body, so no reason for a rejection is known here.

mod event;
mod protobuf;
mod scan;

use event::{judge, read_array, read_one, Form, Found, Plan, Sending, Type};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use scan::Scan;
use std::collections::HashMap;

/// A tracking plan and the limits of a request.
#[pyclass(frozen)]
struct Acceptor {
    plan: Plan,
}

type Told<'py> = (Bound<'py, PyList>, usize);
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
    /// A list with, for each event, its (key, value) where it is surely good, else the (start, end) of its text in `body`, and how many of
    /// the latter there are; or None where the body as a whole needs the other implementation.
    fn cloudevents<'py>(
        &self,
        py: Python<'py>,
        body: &Bound<'py, PyBytes>,
        many: bool,
        source: &[u8],
        received_at: &[u8],
        receipt: &[u8],
    ) -> PyResult<Option<Told<'py>>> {
        let sending = Sending { form: Form::CloudEvents, source, received_at, receipt };
        let text = body.as_bytes();
        let found = if many { whole(text, |scan| read_array(scan, &self.plan, sending.form)) } else { self.single(text, sending.form) };
        self.told(py, found, &sending)
    }

    /// The same for Segment's track calls: a batch, or one call. `source` is the write key's.
    fn tracks<'py>(
        &self,
        py: Python<'py>,
        body: &Bound<'py, PyBytes>,
        source: &[u8],
        received_at: &[u8],
        receipt: &[u8],
    ) -> PyResult<Option<Told<'py>>> {
        let sending = Sending { form: Form::SegmentTrack, source, received_at, receipt };
        let found = whole(body.as_bytes(), |scan| event::read_batch(scan, &self.plan, sending.form));
        self.told(py, found, &sending)
    }

    /// The same for a `headrace.collector.v1.PublishRequest`, as its bytes.
    fn protobuf<'py>(
        &self,
        py: Python<'py>,
        body: &Bound<'py, PyBytes>,
        source: &[u8],
        received_at: &[u8],
        receipt: &[u8],
    ) -> PyResult<Option<Told<'py>>> {
        let sending = Sending { form: Form::CloudEvents, source, received_at, receipt };
        self.told(py, protobuf::read_request(body.as_bytes(), &self.plan), &sending)
    }
}

impl Acceptor {
    fn single<'a>(&self, text: &'a [u8], form: Form) -> Option<Vec<Found<'a>>> {
        whole(text, |scan| read_one(scan, &self.plan, form, &mut Vec::new()).map(|one| vec![one]))
    }

    fn told<'py>(&self, py: Python<'py>, found: Option<Vec<Found>>, sending: &Sending) -> PyResult<Option<Told<'py>>> {
        let found = match found {
            Some(found) => found,
            None => return Ok(None),
        };
        let list = PyList::empty_bound(py);
        let mut unsure = 0;
        for one in &found {
            match one.sent.as_ref().and_then(|sent| judge(sent, &self.plan, sending)) {
                Some(good) => {
                    let key = joined(py, &[good.source, b"\x1f", good.id])?;
                    list.append(PyTuple::new_bound(py, [key, joined(py, &good.value)?]))?;
                }
                None => {
                    unsure += 1;
                    list.append((one.start, one.end))?;
                }
            }
        }
        Ok(Some((list, unsure)))
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

fn joined<'py>(py: Python<'py>, pieces: &[&[u8]]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_bound_with(py, pieces.iter().map(|piece| piece.len()).sum(), |buffer| {
        let mut at = 0;
        for piece in pieces {
            buffer[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        Ok(())
    })
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Acceptor>()
}
