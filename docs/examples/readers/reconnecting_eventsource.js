import ReconnectingEventSource from "reconnecting-eventsource";

const source = new ReconnectingEventSource(url);
for (const name of ["stream-open", "stream-reset", "stream-end", ...names])
  source.addEventListener(name, show);
source.addEventListener("stream-end", () => source.close());
