"""Evaluates flags with the OpenFeature SDK and its OFREP provider, one JSON document per line.

    {"key": "support", "session": "s1", "attributes": {"plan": "pro"}}
"""

import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext


def main():
    api.set_provider(OFREPProvider(sys.argv[1]))
    client = api.get_client()
    for line in sys.stdin:
        ask = json.loads(line)
        context = EvaluationContext(targeting_key=ask.get("session"), attributes=ask.get("attributes", {}))
        told = client.get_object_details(ask["key"], {}, context)
        print(
            json.dumps(
                {
                    "value": told.value,
                    "variant": told.variant,
                    "reason": told.reason,
                    "metadata": told.flag_metadata,
                    "error": told.error_code and told.error_code.value,
                    "message": told.error_message,
                }
            ),
            flush=True,
        )


main()
