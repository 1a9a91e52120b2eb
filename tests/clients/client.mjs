// Node's fetch and its HTTP/2 client, with a client certificate or without; one line of JSON for each answer.
// Arguments: HOST PORT CA.crt CLIENT.crt|- CLIENT.key|-

import { readFileSync } from 'node:fs';
import { connect } from 'node:http2';

const [host, port, ca, cert, key] = process.argv.slice(2);
const tls = { ca: readFileSync(ca), lookup };
if (cert !== '-') Object.assign(tls, { cert: readFileSync(cert), key: readFileSync(key) });
const url = `https://${host}:${port}`;

function lookup(_name, options, done) {
  if (options.all) done(null, [{ address: '127.0.0.1', family: 4 }]);
  else done(null, '127.0.0.1', 4);
}

function print(client, status, coding, text) {
  const page = /<h1>([0-9.]+) /.exec(text);
  console.log(JSON.stringify({ client, status, coding: coding ?? '-', body: page ? page[1] : JSON.parse(text) }));
}

// The agent that fetch has is not exported: it is there once fetch was used.
await fetch('data:,');
const Agent = globalThis[Symbol.for('undici.globalDispatcher.1')].constructor;
const dispatcher = new Agent({ connect: tls });
const get = async (path, options) => {
  const answer = await fetch(url + path, { dispatcher, ...options });
  print('fetch', answer.status, answer.headers.get('content-encoding'), await answer.text());
};
// Who is refused for the want of a certificate has to connect anew: one at once is enough.
const many = cert === '-' ? 1 : 20;
await Promise.all(Array.from({ length: many }, (_, index) => get(`/?${index}`)));
if (cert !== '-') {
  await get('/body', { method: 'POST', body: new Uint8Array(1 << 20) });
  await get('/zip', { headers: { 'accept-encoding': 'br' } });
}
await dispatcher.close();

const session = connect(url, tls);
const open = (headers, body) =>
  new Promise((resolve, reject) => {
    const stream = session.request(headers);
    let [status, text] = [0, ''];
    stream.setEncoding('utf8');
    stream.on('response', (fields) => (status = fields[':status']));
    stream.on('data', (data) => (text += data));
    stream.on('error', reject);
    stream.on('end', () => resolve(print('http2', status, undefined, text)));
    stream.end(body);
  });
await Promise.all(Array.from({ length: many }, (_, index) => open({ ':path': `/?${index}` })));
if (cert !== '-') await open({ ':path': '/body', ':method': 'POST' }, Buffer.alloc(1 << 20));
session.close();
