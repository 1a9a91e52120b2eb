"""Python's ssl as a client: two requests, the second on a connection of its own with the session of the first. Then its
http.client: three bodies, one after the other on a connection that is kept where the server keeps it."""

import http.client
import json
import socket
import ssl
import sys


def main():
    port, host, ca, version, cert, key = sys.argv[1:7]
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["http/1.1"])
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    if cert != "-":
        context.load_cert_chain(cert, key)
    session = None
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", int(port))) as plain:
            with context.wrap_socket(plain, server_hostname=host, session=session) as tls:
                tls.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                text = b""
                while chunk := tls.recv(65536):
                    text += chunk
                session = tls.session
                head, _, body = text.decode().partition("\r\n\r\n")
                answer = {
                    "status": int(head.split(" ")[1]),
                    "tls": tls.version(),
                    "resumed": tls.session_reused,
                    "body": body,
                }
                print(json.dumps(answer))
    post(Here(host, int(port), context=context))


class Here(http.client.HTTPSConnection):
    """Whatever the host, it is here."""

    opened = 0

    def connect(self):
        self.opened += 1
        plain = socket.create_connection(("127.0.0.1", self.port))
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


def post(connection):
    for length in (0, 5, 300_000):
        # The longest in chunks.
        body = b"x" * length if length < 100_000 else iter([b"x" * 100_000] * 3)
        connection.request("POST", "/", body=body, headers={"Host": connection.host})
        response = connection.getresponse()
        text = response.read().decode()
        print(json.dumps({"status": response.status, "opened": connection.opened, "body": text}))


main()
