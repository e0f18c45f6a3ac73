import { EventSourcePolyfill } from "event-source-polyfill";

const source = new EventSourcePolyfill(url, { headers: { Authorization: `Bearer ${token}` } });
for (const name of ["stream-open", "stream-reset", "stream-end", ...names])
  source.addEventListener(name, show);
source.addEventListener("stream-end", () => source.close());
