//! A producer of the librdkafka that confluent-kafka brought into this process, used through its C API: what `collector/line.py` does with
//! `confluent_kafka.Producer`, without a Python object for each message and each report.

use crate::crc32::crc32;
use crate::messages::Messages;
use libc::{c_char, c_int, c_void};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PySequence, PyTuple};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

// From rdkafka.h of librdkafka 2.
const PRODUCER: c_int = 0;
const CONF_OK: c_int = 0;
const MSG_F_COPY: c_int = 2;
const MSG_F_PARTITION: c_int = 8;
const PURGE_F_ALL: c_int = 1 | 2 | 4; // queued and in flight, without waiting for the threads that hold them
const ERR_FATAL: c_int = -150;
const VERSION: c_int = 2; // the major one, for which the declarations below hold

#[repr(C)]
struct Message {
    err: c_int,
    rkt: *mut c_void,
    partition: i32,
    payload: *const c_void,
    len: usize,
    key: *const c_void,
    key_len: usize,
    offset: i64,
    opaque: *mut c_void,
}

#[repr(C)]
struct Metadata {
    broker_count: c_int,
    brokers: *const c_void,
    topic_count: c_int,
    topics: *const MetadataTopic,
}

#[repr(C)]
struct MetadataTopic {
    name: *const c_char,
    partition_count: c_int,
    partitions: *const c_void,
    err: c_int,
}

type OnReport = unsafe extern "C" fn(*mut c_void, *const Message, *mut c_void);
type OnError = unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *mut c_void);

/// The functions of librdkafka that are used here, by their names there without `rd_kafka_`.
macro_rules! api {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        struct Api { $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)* }

        impl Api {
            /// # Safety
            /// `library` is a handle of `dlopen` that is never closed, and its librdkafka is of the major version 2.
            unsafe fn find(library: *mut c_void) -> Result<Api, String> {
                Ok(Api { $($name: {
                    let symbol = libc::dlsym(library, concat!("rd_kafka_", stringify!($name), "\0").as_ptr().cast());
                    if symbol.is_null() {
                        return Err(concat!("librdkafka has no rd_kafka_", stringify!($name)).to_owned());
                    }
                    std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(symbol)
                },)* })
            }
        }
    };
}

api! {
    version() -> c_int;
    conf_new() -> *mut c_void;
    conf_destroy(*mut c_void);
    conf_set(*mut c_void, *const c_char, *const c_char, *mut c_char, usize) -> c_int;
    conf_set_opaque(*mut c_void, *mut c_void);
    conf_set_dr_msg_cb(*mut c_void, OnReport);
    conf_set_error_cb(*mut c_void, OnError);
    new(c_int, *mut c_void, *mut c_char, usize) -> *mut c_void;
    destroy(*mut c_void);
    topic_new(*mut c_void, *const c_char, *mut c_void) -> *mut c_void;
    topic_destroy(*mut c_void);
    produce_batch(*mut c_void, i32, c_int, *mut Message, c_int) -> c_int;
    poll(*mut c_void, c_int) -> c_int;
    outq_len(*mut c_void) -> c_int;
    queue_get_main(*mut c_void) -> *mut c_void;
    queue_io_event_enable(*mut c_void, c_int, *const c_void, usize);
    queue_destroy(*mut c_void);
    purge(*mut c_void, c_int) -> c_int;
    flush(*mut c_void, c_int) -> c_int;
    metadata(*mut c_void, c_int, *mut c_void, *mut *const Metadata, c_int) -> c_int;
    metadata_destroy(*const Metadata);
    fatal_error(*mut c_void, *mut c_char, usize) -> c_int;
    last_error() -> c_int;
    err2str(c_int) -> *const c_char;
    err2name(c_int) -> *const c_char;
}

impl Api {
    /// The librdkafka that the shared library at `path` depends on; it must be in this process already.
    fn load(path: PathBuf) -> Result<Api, String> {
        let path = CString::new(path.into_os_string().into_vec()).map_err(|_| "a path holds a zero byte")?;
        // SAFETY: RTLD_NOLOAD runs no initialiser: it only finds what is there. The handle is never closed, so what dlsym finds stays valid.
        // dlsym looks into the library and all that it depends on, and the version is asked before any structure is shared.
        unsafe {
            let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
            if library.is_null() {
                return Err("confluent-kafka's library is not in this process".to_owned());
            }
            let api = Api::find(library)?;
            match (api.version)() >> 24 {
                VERSION => Ok(api),
                other => Err(format!("librdkafka {other} is not known here: only {VERSION} is")),
            }
        }
    }

    fn text(&self, code: c_int) -> String {
        // SAFETY: librdkafka gives a constant text for every code.
        unsafe { owned((self.err2str)(code)) }
    }

    fn name(&self, code: c_int) -> String {
        // SAFETY: as above.
        unsafe { owned((self.err2name)(code)) }
    }
}

/// # Safety
/// `text` is null, or ends with a zero byte.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    CStr::from_ptr(text).to_string_lossy().into_owned()
}

/// What the callbacks heard since `poll` was last asked; after a loss nothing more is taken down.
#[derive(Default)]
struct Heard {
    done: Vec<usize>,
    errors: Vec<c_int>,
    loss: Option<c_int>,
    fatal: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called for every message that was taken, once, when it is written or lost.
///
/// # Safety
/// librdkafka calls it inside `poll` and `flush` alone, with a message that is valid during the call and with the opaque of `Client::new`.
/// Nothing here unwinds: `push` is all that allocates, and a lack of memory aborts.
unsafe extern "C" fn on_report(_: *mut c_void, message: *const Message, heard: *mut c_void) {
    let Message { err, opaque, .. } = *message;
    if err == 0 && opaque.is_null() {
        return; // the last one of its request in its partition stands for it
    }
    // Client keeps what `heard` points to until after `destroy`, and it is only ever shared.
    let mut heard = lock(&*(heard as *const Mutex<Heard>));
    if heard.fatal || heard.loss.is_some() {
        return;
    }
    if err != 0 {
        heard.errors.push(err);
        heard.loss = Some(err);
    } else {
        heard.done.push(opaque as usize);
    }
}

/// Called for errors of the client as a whole.
///
/// # Safety
/// As of `on_report`.
unsafe extern "C" fn on_error(_: *mut c_void, err: c_int, _: *const c_char, heard: *mut c_void) {
    let mut heard = lock(&*(heard as *const Mutex<Heard>));
    heard.errors.push(err);
    heard.fatal |= err == ERR_FATAL;
}

/// A producer's handle and all that depends on it; destroyed with the last reference, which may block.
struct Client {
    api: Api,
    handle: *mut c_void,
    topics: Mutex<HashMap<String, Topic>>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Clone, Copy)]
struct Topic(*mut c_void);

// SAFETY: librdkafka's handles may be used by all threads at once, and everything else is behind a mutex or never changed.
unsafe impl Send for Client {}
unsafe impl Sync for Client {}

impl Client {
    fn new(library: PathBuf, config: Vec<(String, String)>) -> Result<Client, String> {
        let api = Api::load(library)?;
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let mut problem = [0 as c_char; 512];
        // SAFETY: `conf` is destroyed on each way out but the last, where `new` took it over. The strings outlive the calls, which copy them,
        // and librdkafka writes no more than the length of `problem`, with a zero at the end. The opaque is valid as long as the handle is:
        // `drop` destroys the handle before the field `heard`.
        unsafe {
            let conf = (api.conf_new)();
            for (name, value) in config {
                let set = match (CString::new(name), CString::new(value)) {
                    (Ok(name), Ok(value)) => {
                        (api.conf_set)(conf, name.as_ptr(), value.as_ptr(), problem.as_mut_ptr(), problem.len()) == CONF_OK
                    }
                    _ => false,
                };
                if !set {
                    (api.conf_destroy)(conf);
                    return Err(owned(problem.as_ptr()));
                }
            }
            (api.conf_set_opaque)(conf, Arc::as_ptr(&heard) as *mut c_void);
            (api.conf_set_dr_msg_cb)(conf, on_report);
            (api.conf_set_error_cb)(conf, on_error);
            let handle = (api.new)(PRODUCER, conf, problem.as_mut_ptr(), problem.len());
            if handle.is_null() {
                (api.conf_destroy)(conf);
                return Err(owned(problem.as_ptr()));
            }
            Ok(Client { api, handle, topics: Mutex::default(), heard })
        }
    }

    /// The partitions of each topic that has no error. Blocks.
    fn partitions(&self, timeout_ms: c_int) -> Result<HashMap<String, usize>, String> {
        let mut found: *const Metadata = null();
        // SAFETY: the handle is valid while `self` is. On success `found` points to a structure whose counts are those of its arrays, and
        // which stays until it is destroyed here, after everything was copied from it.
        unsafe {
            let err = (self.api.metadata)(self.handle, 1, null_mut(), &mut found, timeout_ms);
            if err != 0 {
                return Err(self.api.text(err));
            }
            let count = usize::try_from((*found).topic_count).unwrap_or(0);
            let topics = (0..count).map(|place| &*(*found).topics.add(place)).filter(|topic| topic.err == 0);
            let partitions = topics.map(|topic| (owned(topic.name), usize::try_from(topic.partition_count).unwrap_or(0))).collect();
            (self.api.metadata_destroy)(found);
            Ok(partitions)
        }
    }

    fn topic(&self, name: &str) -> Result<Topic, String> {
        let mut topics = lock(&self.topics);
        if let Some(topic) = topics.get(name) {
            return Ok(*topic);
        }
        let text = CString::new(name).map_err(|_| "a topic's name holds a zero byte")?;
        // SAFETY: the handle is valid while `self` is, the name is copied, and a null configuration means the default one.
        let topic = unsafe { (self.api.topic_new)(self.handle, text.as_ptr(), null_mut()) };
        if topic.is_null() {
            // SAFETY: it only reads this thread's last error.
            return Err(self.api.text(unsafe { (self.api.last_error)() }));
        }
        topics.insert(name.to_owned(), Topic(topic));
        Ok(Topic(topic))
    }

    /// Hands `messages` over, in their order within each partition, and returns how many reports with `request` there will be.
    ///
    /// # Safety
    /// Keys and payloads must be valid.
    unsafe fn produce(&self, topic: &str, mut messages: Vec<Message>, request: usize) -> Result<usize, String> {
        let topic = self.topic(topic)?;
        messages.sort_by_key(|one| one.partition); // it is stable; the client looks a partition up once for neighbours of the same
        let mut reports = 0;
        for place in 0..messages.len() {
            if messages.get(place + 1).map(|next| next.partition) != Some(messages[place].partition) {
                // Never followed as a pointer: it is a number for us and nothing for librdkafka.
                messages[place].opaque = request as *mut c_void;
                reports += 1;
            }
        }
        let count = c_int::try_from(messages.len()).map_err(|_| "too many messages")?;
        // The topic's handle lives as long as `self`. MSG_F_COPY: librdkafka copies keys and values during the call, whether it takes a
        // message or not, so nothing passes into its hands and nothing is to be freed for those that it did not take.
        let taken = (self.api.produce_batch)(topic.0, -1, MSG_F_COPY | MSG_F_PARTITION, messages.as_mut_ptr(), count);
        if taken != count {
            let err = messages.iter().map(|one| one.err).find(|err| *err != 0).unwrap_or(0);
            return Err(self.api.text(err));
        }
        Ok(reports)
    }

    /// Runs the callbacks that are due and returns what they heard.
    fn poll(&self) -> (Vec<usize>, Vec<String>, Option<String>) {
        // SAFETY: the handle is valid while `self` is; `heard` is not locked here, and the callbacks touch no Python.
        unsafe { (self.api.poll)(self.handle, 0) };
        let mut heard = lock(&self.heard);
        let errors = heard.errors.drain(..).map(|code| self.api.name(code)).collect();
        let broken = if heard.fatal {
            let mut text = [0 as c_char; 512];
            // SAFETY: librdkafka writes no more than the length, with a zero at the end.
            unsafe {
                (self.api.fatal_error)(self.handle, text.as_mut_ptr(), text.len());
                Some(format!("Kafka's client gave up: {}", owned(text.as_ptr())))
            }
        } else {
            heard.loss.map(|code| format!("Kafka refused messages: {}", self.api.text(code)))
        };
        (std::mem::take(&mut heard.done), errors, broken)
    }

    /// Lets librdkafka write 1 to the eventfd `fd` once there is something for `poll`; -1 ends it.
    fn wake(&self, fd: c_int) {
        // SAFETY: the handle is valid while `self` is. The payload is copied. The queue outlives the reference to it that is given back here,
        // as it belongs to the handle; setting -1 takes the queue's lock, so nothing is written to the descriptor afterwards.
        unsafe {
            let queue = (self.api.queue_get_main)(self.handle);
            (self.api.queue_io_event_enable)(queue, fd, (&1u64 as *const u64).cast(), std::mem::size_of::<u64>());
            (self.api.queue_destroy)(queue);
        }
    }

    /// Waits until all is written, at most so long. Blocks.
    fn flush(&self, timeout_ms: c_int) {
        // SAFETY: the handle is valid while `self` is.
        unsafe { (self.api.flush)(self.handle, timeout_ms) };
    }

    /// Forgets what is not written, and whatever is told of it.
    fn purge(&self) {
        lock(&self.heard).fatal = true;
        // SAFETY: the handle is valid while `self` is.
        unsafe { (self.api.purge)(self.handle, PURGE_F_ALL) };
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: this is the last reference, so nobody is inside a call. Each handle is destroyed once, the topics' first, as librdkafka wants
        // it. Once `destroy` returned, its threads are gone and no callback runs any more, so `heard` may go after it.
        unsafe {
            for topic in lock(&self.topics).values() {
                (self.api.topic_destroy)(topic.0);
            }
            (self.api.destroy)(self.handle);
        }
    }
}

/// One producer. What the client refuses is a RuntimeError, also that of a producer that was disposed of.
#[pyclass(frozen)]
pub struct Producer {
    client: Mutex<Option<Arc<Client>>>,
}

impl Producer {
    fn client(&self) -> PyResult<Arc<Client>> {
        lock(&self.client).clone().ok_or_else(|| PyRuntimeError::new_err("the producer was disposed of"))
    }
}

#[pymethods]
impl Producer {
    /// `library`: the path of confluent-kafka's own shared library. `config`: librdkafka's settings.
    #[new]
    fn new(library: PathBuf, config: Vec<(String, String)>) -> PyResult<Self> {
        let client = Client::new(library, config).map_err(PyRuntimeError::new_err)?;
        Ok(Producer { client: Mutex::new(Some(Arc::new(client))) })
    }

    /// The number of partitions of each topic that there is. Blocks for at most so many milliseconds, without the GIL.
    fn partitions(&self, py: Python<'_>, timeout_ms: c_int) -> PyResult<HashMap<String, usize>> {
        let client = self.client()?;
        py.allow_threads(move || client.partitions(timeout_ms)).map_err(PyRuntimeError::new_err) // the reference goes there, too
    }

    /// Hand all of `keyed` over, each to the partition that its key says of so many; return how many times `poll` will name `request`, a
    /// number above 0. Where an error is raised some may have been handed over.
    fn produce(&self, topic: &str, partitions: u32, keyed: &Bound<'_, PyAny>, request: usize) -> PyResult<usize> {
        if partitions == 0 || request == 0 {
            return Err(PyRuntimeError::new_err("there is no such topic or request"));
        }
        let client = self.client()?;
        let message = |key: &[u8], value: &[u8]| Message {
            err: 0,
            rkt: null_mut(),
            partition: (crc32(key) % partitions) as i32,
            payload: value.as_ptr().cast(),
            len: value.len(),
            key: key.as_ptr().cast(),
            key_len: key.len(),
            offset: 0,
            opaque: null_mut(),
        };
        if let Ok(packed) = keyed.downcast::<Messages>() {
            let messages = packed.get().iter().map(|(key, value)| message(key, value)).collect();
            // SAFETY: the pointers are into `packed`, which is never changed and which `keyed` keeps during the call.
            return unsafe { client.produce(topic, messages, request) }.map_err(PyRuntimeError::new_err);
        }
        let mut held = Vec::new();
        for item in keyed.downcast::<PySequence>()?.iter()? {
            let item = item?.downcast_into::<PyTuple>()?;
            held.push((item.get_item(0)?.downcast_into::<PyBytes>()?, item.get_item(1)?.downcast_into::<PyBytes>()?));
        }
        let messages = held.iter().map(|(key, value)| message(key.as_bytes(), value.as_bytes())).collect();
        // SAFETY: the pointers are into bytes objects, which never change and which `held` keeps during the call.
        unsafe { client.produce(topic, messages, request) }.map_err(PyRuntimeError::new_err)
    }

    /// What happened since the last call: the request of each report, names of errors, and why this producer must be given up, if so. A report
    /// that came after a loss is not among them.
    fn poll(&self) -> PyResult<(Vec<usize>, Vec<String>, Option<String>)> {
        Ok(self.client()?.poll())
    }

    /// How many messages and reports the client holds.
    fn queued(&self) -> PyResult<c_int> {
        let client = self.client()?;
        // SAFETY: the handle is valid while `client` is.
        Ok(unsafe { (client.api.outq_len)(client.handle) })
    }

    /// Have 1 written to the eventfd `fd`, which stays the caller's, once there is something for `poll`, until `dispose`.
    fn wake(&self, fd: c_int) -> PyResult<()> {
        self.client()?.wake(fd);
        Ok(())
    }

    /// Wait for all to be written. Blocks for at most so many milliseconds, without the GIL.
    fn flush(&self, py: Python<'_>, timeout_ms: c_int) -> PyResult<()> {
        let client = self.client()?;
        py.allow_threads(move || client.flush(timeout_ms));
        Ok(())
    }

    /// Let go of all that is not written, and of the client. Blocks for a second or so, without the GIL; does nothing the second time.
    fn dispose(&self, py: Python<'_>) {
        let client = lock(&self.client).take();
        py.allow_threads(move || {
            if let Some(client) = client {
                client.wake(-1);
                client.purge();
                client.flush(1000);
            }
        });
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let client = lock(&self.client).take();
        if client.is_some() {
            Python::with_gil(|py| py.allow_threads(move || drop(client)));
        }
    }
}
