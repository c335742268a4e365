/* Headrace tracker: a page's events to a collector, in the Segment wire format.
   headrace.init({collector, writeKey}), track(type, properties), page(), identify(id, traits), reset()
   An event waits in localStorage, by itself since tabs share that, until the collector answers. A beacon brings no
   answer: its events stay and go out again, with the same messageId. */
(() => {
  const Q = "headrace.q.", KEEP = 1000, BATCH = 100, WAIT = 500, VISIT = 18e5;
  const CHARS = 2e4; // 60 kB as UTF-8: browsers take 64 KiB by beacon or keepalive
  let config, timer, busy, beaconed, store = {}, failures = 0, count = 0;
  try { store = localStorage; } catch {} // forbidden: events live with the page

  const put = (key, value) => {
    try { store[key] = value; } catch { store = { ...store, [key]: value }; } // full: go on in memory
    return value;
  };
  const remove = key => delete store[key];
  const uuid = () => crypto.randomUUID?.() ?? // not there on plain http
    [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, 0)).join("");
  const queue = () => Object.keys(store).filter(key => key.startsWith(Q)).sort();
  const cut = (text, length = 2000) => (text || "").slice(0, length);

  function session_id() { // a visit ends after 30 minutes without an event
    const [last, id] = (store.headraceVisit || "").split(" "), now = Date.now();
    return put("headraceVisit", `${now} ${now - last < VISIT ? id : uuid()}`).split(" ")[1];
  }

  function add(type, fields) {
    const now = Date.now(), messageId = uuid();
    put(Q + now + (1e6 + count++) + messageId, JSON.stringify({
      type, messageId, timestamp: new Date(now).toISOString(), userId: store.headraceUser,
      anonymousId: store.headraceVisitor || put("headraceVisitor", uuid()), ...fields,
    }));
    const waiting = queue();
    waiting.slice(0, -KEEP).forEach(remove);
    if (!failures) waiting.length < BATCH ? later(WAIT) : flush(); // else it waits for the retry
    return messageId;
  }

  function batch() {
    const keys = [], events = [];
    let size = 0;
    for (const key of queue()) {
      const event = store[key];
      if (!event) continue; // sent by another tab
      size += event.length;
      if (keys.length === BATCH || (keys.length && size > CHARS)) break;
      keys.push(key);
      events.push(event);
    }
    return { keys, body: `{"sentAt":"${new Date().toISOString()}","batch":[${events}]}` };
  }

  const later = ms => { timer ||= setTimeout(flush, ms); };

  function flush() {
    timer = clearTimeout(timer);
    if (busy || !config) return;
    busy = true; // and one tab at a time:
    (navigator.locks?.request("headrace", send) ?? send()).finally(() => { busy = false; });
  }

  async function send() {
    for (let b = batch(); b.keys.length; b = batch()) {
      const answer = await fetch(config.collector + "/v1/batch", {
        method: "POST", body: b.body, keepalive: b.body.length < CHARS + 999, signal: AbortSignal.timeout?.(1e4),
        headers: { "Content-Type": "application/json", Authorization: "Basic " + btoa(config.writeKey + ":") },
      }).catch(() => 0);
      if (!answer || answer.status === 429 || answer.status > 499) {
        const backoff = Math.min(6e4, 1000 * 2 ** failures++) * (0.5 + Math.random() / 2);
        return later(Math.max(backoff, answer && answer.headers.get("Retry-After") * 1000 || 0));
      }
      failures = 0;
      b.keys.forEach(remove);
      if (!answer.ok) answer.text().then(text => console.warn("headrace: dropped", b.keys.length, text));
    }
  }

  function beacon() {
    const { keys, body } = batch();
    if (!config || !keys.length || beaconed === (beaconed = keys.join())) return;
    navigator.sendBeacon(config.collector + "/v1/batch?writeKey=" + encodeURIComponent(config.writeKey), body);
  }

  const track = (event, properties) => add("track", { event, properties: { session_id: session_id(), ...properties } });
  const page = properties => add("page", { properties: {
    url: cut(location.href), path: cut(location.pathname), search: cut(location.search), title: cut(document.title, 500),
    referrer: cut(document.referrer), session_id: session_id(), ...properties,
  } });
  const identify = (id, traits = {}) => add("identify", { userId: put("headraceUser", String(id)), traits });
  const reset = () => ["User", "Visitor", "Visit"].forEach(name => remove("headrace" + name));

  function init({ collector, writeKey }) {
    config = { collector, writeKey };
    addEventListener("click", ({ target }) => {
      const at = target.closest("[data-track]");
      if (at) track("button_click", { button_id: at.dataset.track, text: cut(at.innerText, 500), url: cut(location.href) });
    }, true);
    addEventListener("visibilitychange", () => document.hidden ? beacon() : flush());
    addEventListener("pagehide", beacon);
    addEventListener("online", flush);
    page();
  }

  window.headrace = { init, track, page, identify, reset };
})();
