/* Headrace tracker: a page's events to a collector, in the Segment wire format.
   headrace.init({collector, writeKey}), track(type, properties), page(), identify(id, traits), reset()
   Events wait in localStorage until the collector answers; a beacon brings no answer, so its go out again. Tabs share
   them, and see what another removed for some ms: others' they send after 5 s. */
(() => {
  const Q = "headrace.q.", KEEP = 1000, BATCH = 100, CHARS = 2e4; // as UTF-8 below a beacon's 64 KiB
  let config, timer, busy, beaconed, store = {}, mine, failures = 0, count = 0;
  try { store = localStorage; mine = sessionStorage.headraceTab ||= uuid(); } catch { mine = uuid(); } // forbidden

  const put = (key, value) => {
    try { store[key] = value; } catch { store = { ...store, [key]: value }; } // full
    return value;
  };
  const remove = key => delete store[key];
  const queue = () => Object.keys(store).filter(key => key.startsWith(Q)).sort();
  const cut = (text, length = 2000) => (text || "").slice(0, length);

  function uuid() { // randomUUID needs https
    return crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, 0)).join("");
  }

  function session_id() { // a visit ends after 30 minutes without an event
    const [last, id] = store.headraceVisit?.split(" ") ?? [], now = Date.now();
    return put("headraceVisit", `${now} ${now - last < 18e5 ? id : uuid()}`).split(" ")[1];
  }

  function add(type, fields) {
    const now = Date.now(), messageId = uuid();
    put(Q + now + (1e6 + count++) + messageId + mine, JSON.stringify({
      type, messageId, timestamp: new Date(now).toISOString(), userId: store.headraceUser,
      anonymousId: store.headraceVisitor || put("headraceVisitor", uuid()), ...fields,
    }));
    const waiting = queue();
    waiting.slice(0, -KEEP).forEach(remove);
    if (!failures) waiting.length < BATCH ? later(500) : flush(); // else at the retry
    return messageId;
  }

  function batch() {
    const keys = [], events = [];
    let size = 0;
    for (const key of queue()) {
      const event = store[key];
      if (!event || !key.endsWith(mine) && key.substr(Q.length, 13) > Date.now() - 5e3) continue;
      size += event.length;
      if (keys.length === BATCH || keys.length && size > CHARS) break;
      keys.push(key);
      events.push(event);
    }
    return { keys, body: `{"sentAt":"${new Date().toISOString()}","batch":[${events}]}` };
  }

  const later = ms => { timer ||= setTimeout(flush, ms); };

  function flush() {
    timer = clearTimeout(timer);
    if (busy || !config) return;
    busy = true; // one tab at a time:
    (navigator.locks?.request("headrace", send) ?? send()).finally(() => { busy = false; });
  }

  async function send() {
    for (let b = batch(); b.keys.length; b = batch()) {
      const answer = await fetch(config.url, {
        method: "POST", body: b.body, keepalive: b.body.length < CHARS + 999, signal: AbortSignal.timeout?.(1e4),
        headers: { "Content-Type": "application/json", Authorization: "Basic " + btoa(config.writeKey + ":") },
      }).catch(() => 0);
      if (!answer || answer.status === 429 || answer.status > 499) {
        const backoff = Math.min(6e4, 1e3 * 2 ** failures++) * (1 + Math.random()) / 2;
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
    navigator.sendBeacon(`${config.url}?writeKey=${encodeURIComponent(config.writeKey)}`, body);
  }

  const track = (event, properties) => add("track", { event, properties: { session_id: session_id(), ...properties } });
  const page = properties => add("page", { properties: {
    url: cut(location.href), path: cut(location.pathname), search: cut(location.search), title: cut(document.title, 500),
    referrer: cut(document.referrer), session_id: session_id(), ...properties,
  } });
  const identify = (id, traits = {}) => add("identify", { userId: put("headraceUser", String(id)), traits });
  const reset = () => ["User", "Visitor", "Visit"].forEach(name => remove("headrace" + name));

  function init({ collector, writeKey }) {
    config = { url: collector + "/v1/batch", writeKey };
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
