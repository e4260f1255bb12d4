"""Calls a provider with the official OpenAI client, instrumented by OpenTelemetry, and exports what is seen.

    {"session": "s1", "prompt": "support/answer", "evaluate": 0.0}

The span around the call names the session; the instrumentation's own span lies inside it and does not.
"""

import json
import sys

import openai
from opentelemetry import trace
from opentelemetry._logs import LogRecord, set_logger_provider
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def main():
    data, provider = sys.argv[1:]
    spans = TracerProvider()
    spans.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(f"{data}/otlp/v1/traces", compression=Compression.Gzip))
    )
    trace.set_tracer_provider(spans)
    logs = LoggerProvider()
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"{data}/otlp/v1/logs")))
    set_logger_provider(logs)
    OpenAIInstrumentor().instrument()

    tracer, logger = trace.get_tracer("app"), logs.get_logger("app")
    client = openai.OpenAI(base_url=f"{provider}/v1", api_key="not-a-key", max_retries=0, timeout=20)
    for line in sys.stdin:
        ask = json.loads(line)
        attributes = {"gen_ai.conversation.id": ask["session"], "gen_ai.prompt.name": ask["prompt"]}
        error = None
        with tracer.start_as_current_span("turn", attributes=attributes):
            try:
                client.chat.completions.create(
                    model="demo-model",
                    messages=[{"role": "user", "content": "hello"}],
                    extra_headers=ask.get("headers", {}),
                )
            except openai.APIStatusError as failed:
                error = type(failed).__name__
            if "evaluate" in ask:
                logger.emit(
                    LogRecord(
                        event_name="gen_ai.evaluation.result",
                        attributes={
                            "gen_ai.evaluation.name": "task_completion",
                            "gen_ai.evaluation.score.value": ask["evaluate"],
                        },
                    )
                )
        flushed = spans.force_flush() and logs.force_flush()
        print(json.dumps({"error": error, "flushed": flushed}), flush=True)


main()
