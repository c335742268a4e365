"""The CD shop: a small web page whose visitors' events are sent by `static/tracker.js`."""
