// Evaluates flags with the OpenFeature SDKs and their OFREP providers, one JSON document per line.
//
//   {"do": "server", "key": "support", "session": "s1", "attributes": {"plan": "pro"}}
//   {"do": "web", "key": "support", "session": "s1"}     all flags at once, as a browser has them
//   {"do": "change", "key": "support"}                   waits until the server tells of a change
//   {"do": "fetches"}                                    statuses of the bulk requests so far
import { createInterface } from 'node:readline';
import { OpenFeature as ServerSide } from '@openfeature/server-sdk';
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OpenFeature as WebSide, ClientProviderEvents } from '@openfeature/web-sdk';
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { EventSource } from 'eventsource';

// What a browser brings along.
globalThis.EventSource = EventSource;

const baseUrl = process.argv[2];
const told = (details) => ({
  value: details.value,
  variant: details.variant ?? null,
  reason: details.reason ?? null,
  metadata: details.flagMetadata,
  error: details.errorCode ?? null,
  message: details.errorMessage ?? null,
});

await ServerSide.setProviderAndWait(new OFREPProvider({ baseUrl }));
const server = ServerSide.getClient();

const fetches = [];
const fetchImplementation = async (...request) => {
  const response = await fetch(...request);
  fetches.push(response.status);
  return response;
};
let web;
const changes = [];
let wake = () => {};

const deeds = {
  async server({ key, session, attributes }) {
    return told(await server.getObjectDetails(key, {}, { targetingKey: session, ...attributes }));
  },
  async web({ key, session }) {
    await WebSide.setContext({ targetingKey: session });
    if (!web) {
      await WebSide.setProviderAndWait(new OFREPWebProvider({ baseUrl, fetchImplementation, cacheMode: 'disabled' }));
      web = WebSide.getClient();
      web.addHandler(ClientProviderEvents.ConfigurationChanged, (event) => {
        changes.push(event.flagsChanged);
        wake();
      });
    }
    return told(web.getObjectDetails(key, {}));
  },
  async change({ key }) {
    while (changes.length === 0) await new Promise((resolve) => { wake = resolve; });
    return { changed: changes.shift(), ...told(web.getObjectDetails(key, {})) };
  },
  async fetches() {
    return { fetches };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const ask = JSON.parse(line);
  console.log(JSON.stringify(await deeds[ask.do](ask)));
}
process.exit(0);
