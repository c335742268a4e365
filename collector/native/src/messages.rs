//! Messages of one request in native memory: they become Python objects only where somebody looks at them.

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A sequence of (key, value). Never changed once Python has it.
#[pyclass(frozen, sequence)]
#[derive(Default)]
pub struct Messages {
    /// Key after value after key.
    bytes: Vec<u8>,
    /// Where each key and each value ends.
    ends: Vec<(usize, usize)>,
}

impl Messages {
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Messages { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    pub fn push(&mut self, key: &[&[u8]], value: &[&[u8]]) {
        key.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        let middle = self.bytes.len();
        value.iter().for_each(|piece| self.bytes.extend_from_slice(piece));
        self.ends.push((middle, self.bytes.len()));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        let mut start = 0;
        self.ends.iter().map(move |(middle, end)| {
            let found = (&self.bytes[start..*middle], &self.bytes[*middle..*end]);
            start = *end;
            found
        })
    }
}

#[pymethods]
impl Messages {
    fn __len__(&self) -> usize {
        self.ends.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: isize) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)> {
        let index = if index < 0 { index.wrapping_add(self.ends.len() as isize) } else { index } as usize;
        let (middle, end) = *self.ends.get(index).ok_or_else(|| PyIndexError::new_err("no such message"))?;
        let start = if index == 0 { 0 } else { self.ends[index - 1].1 };
        Ok((PyBytes::new_bound(py, &self.bytes[start..middle]), PyBytes::new_bound(py, &self.bytes[middle..end])))
    }

    /// Bytes of all keys and values.
    #[getter]
    fn size(&self) -> usize {
        self.bytes.len()
    }
}
