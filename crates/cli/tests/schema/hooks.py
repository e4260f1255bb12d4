"""What schemathesis does not know by itself: how to send a body of bytes that are no text."""

import schemathesis


@schemathesis.serializer("application/x-protobuf")
def protobuf(_context, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
