// A WebSocket server that echoes, and a client over HTTP/1.1 or HTTP/2 (RFC 8441): Node's ws, and Node's own http2.
"use strict";
const fs = require("fs");
const http2 = require("http2");
const https = require("https");
const tls = require("tls");
const { WebSocket, WebSocketServer } = require("ws");

// Prints its port, and serves until its standard input ends. With a certificate, over TLS, and requests too.
function serve(files) {
  const options = { perMessageDeflate: true };
  const server = files.length ? overTls(files) : new WebSocketServer({ ...options, port: 0, host: "127.0.0.1" });
  const sockets = files.length ? new WebSocketServer({ ...options, server }) : server;
  sockets.on("connection", (socket, request) => {
    const caller = files.length ? ` of ${client(request)}` : "";
    socket.send(`hello ${request.headers["x-remote-user"]}${caller}`);
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
  });
  server.on("listening", () => console.log(server.address().port));
  process.stdin.on("end", () => process.exit(0)).resume();
}

function overTls([cert, key, clients]) {
  const [certificate, privateKey, ca] = [cert, key, clients].map((file) => fs.readFileSync(file));
  const server = https.createServer({ cert: certificate, key: privateKey, ca, requestCert: true, rejectUnauthorized: false });
  server.on("request", (request, response) => {
    let octets = 0;
    request.on("data", (data) => (octets += data.length));
    request.on("end", () => {
      const { httpVersion: version, headers } = request;
      response.end(JSON.stringify({ version, user: headers["x-remote-user"], client: client(request), octets }));
    });
  });
  return server.listen(0, "127.0.0.1");
}

// Whose certificate the caller has. A resumed session without any counts as authorized.
function client({ socket }) {
  const { subject } = socket.getPeerCertificate();
  return socket.authorized && subject ? subject.CN : "nobody";
}

// Says one thing after the other and prints what comes back.
function converse(socket) {
  const said = [Buffer.from("ping"), Buffer.alloc(300000, 7)];
  const heard = [];
  socket.on("error", (error) => end({ error: error.message }));
  socket.on("message", (data) => {
    heard.push(data.length > 100 ? data.length : data.toString());
    const next = said.shift();
    if (next) socket.send(next);
    else socket.close(4000, "enough");
  });
  socket.on("close", (code) => end({ heard, code }));
}

function end(result) {
  console.log(JSON.stringify(result));
  process.exit(0);
}

function call([version, port, host, path, ca, cert, key]) {
  const options = { ca: fs.readFileSync(ca), servername: host };
  if (cert !== "-") Object.assign(options, { cert: fs.readFileSync(cert), key: fs.readFileSync(key) });
  const connect = (protocols) => tls.connect({ ...options, host: "127.0.0.1", port, ALPNProtocols: protocols });
  if (version === "1") {
    const createConnection = () => connect(["http/1.1"]);
    const socket = new WebSocket(`wss://${host}${path}`, { createConnection });
    socket.on("unexpected-response", (_, response) => end({ status: response.statusCode }));
    return converse(socket);
  }
  const session = http2.connect(`https://${host}`, { createConnection: () => connect(["h2"]) });
  session.on("error", (error) => end({ error: error.message }));
  session.on("remoteSettings", (settings) => {
    if (!settings.enableConnectProtocol) return end({ error: "no extended CONNECT" });
    const stream = session.request({
      ":method": "CONNECT", ":protocol": "websocket", ":scheme": "https", ":authority": host, ":path": path,
      "sec-websocket-version": "13",
    });
    stream.on("response", (headers) => {
      if (headers[":status"] !== 200) return end({ status: headers[":status"] });
      const socket = new WebSocket(null, undefined, { autoPong: true });
      // Without an address it takes itself for a server's.
      socket._isServer = false;
      const limits = { allowSynchronousEvents: true, maxPayload: 1 << 20, skipUTF8Validation: false };
      socket.setSocket(stream, Buffer.alloc(0), limits);
      converse(socket);
    });
  });
}

if (process.argv[2] === "serve") serve(process.argv.slice(3));
else call(process.argv.slice(2));
