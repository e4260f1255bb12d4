"""Receives messages as Slack, PagerDuty and a signed webhook do, and takes only what they would take.

    receiver.py WEBHOOK_SECRET

Prints its port, then one JSON document for each request: where it came in, what it held, and what is wrong
with it (null when nothing is). `/slack`, `/v2/enqueue` and `/v2/change/enqueue` are held against the schemas
beside this file; `/hook` against the reference library of Standard Webhooks.
"""

import json
import pathlib
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import jsonschema
from standardwebhooks import Webhook

HERE = pathlib.Path(__file__).parent
WEBHOOK = Webhook(sys.argv[1])


def schema(name):
    document = json.loads((HERE / name).read_text())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


SCHEMAS = {
    "/slack": schema("slack.schema.json"),
    "/v2/enqueue": schema("pagerduty.schema.json"),
    "/v2/change/enqueue": schema("pagerduty-change.schema.json"),
}
CLOUD_EVENT = schema("cloudevents.schema.json")


def judge(path, headers, body):
    """What is wrong with a request; nothing when it would be taken."""
    if path == "/hook":
        document = WEBHOOK.verify(body, headers)
        if headers["content-type"] != "application/cloudevents+json":
            return "the media type is not the one of a structured CloudEvent"
        if document["id"] not in headers["webhook-id"]:
            return "the id of the event is not the id of the message"
        CLOUD_EVENT.validate(document)
    elif headers["content-type"] != "application/json":
        return "the media type is not JSON"
    else:
        SCHEMAS[path].validate(json.loads(body))
    return None


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            wrong = judge(self.path, headers, body)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"[:2000]
        print(json.dumps({"path": self.path, "wrong": wrong, "body": json.loads(body)}), flush=True)
        self.send_response(202 if wrong is None else 400)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
