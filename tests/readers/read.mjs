// Reads a stream with a package's EventSource and prints each event as a line of JSON.
//     node read.mjs PACKAGE NAME,NAME... URL
// Coming back and giving up are the EventSource's affair: the process lives until it has given up.
const [packageName, eventNames, url] = process.argv.slice(2);
const { EventSource } = await import(packageName);

const source = new EventSource(url);
for (const eventName of eventNames.split(",")) {
  source.addEventListener(eventName, ({ type, data, lastEventId }) => {
    console.log(JSON.stringify([type, data, lastEventId]));
  });
}

// undici's timer for coming back doesn't keep a process alive.
const awake = setInterval(() => {}, 1000);
source.onerror = () => {
  if (source.readyState === EventSource.CLOSED) clearInterval(awake);
};
