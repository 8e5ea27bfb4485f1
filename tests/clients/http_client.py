"""Asking an admin server: one request a connection."""

import http.client
import json


class Answer:
    def __init__(self, response, body):
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        """The object, keys in their order."""
        return json.loads(self.body)


def ask(port, path, method="GET", headers=None, body=None, timeout_s=20.0):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return Answer(response, response.read())
    finally:
        connection.close()
