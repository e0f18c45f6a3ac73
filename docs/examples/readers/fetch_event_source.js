import { fetchEventSource } from "@microsoft/fetch-event-source";

const stop = new AbortController();
let cursor = "";
fetchEventSource(url, {
  method,
  signal: stop.signal,
  // Its own cursor is that of an event which may not have come whole.
  fetch: (input, init) =>
    fetch(input, { ...init, headers: { ...init.headers, "last-event-id": cursor } }),
  onmessage(event) {
    show(event);
    cursor = event.id;
    if (event.event === "stream-end") stop.abort();
  },
});
