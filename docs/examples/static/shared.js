// One EventSource for all tabs; this worker lives as long as one of them.
const tabs = new BroadcastChannel("report-7");
const source = new EventSource("/events/report-7");
let latest = null;

source.addEventListener("progress", (event) => {
  latest = event.data;
  tabs.postMessage(latest);
});
source.addEventListener("stream-end", () => source.close());

// A tab that comes later begins with what the others show.
onconnect = (event) => event.ports[0].postMessage(latest);
