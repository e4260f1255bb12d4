// Calls a provider with the official OpenAI client, instrumented by OpenTelemetry, and exports what is seen:
// spans as protobuf, log records as JSON.
//
//   {"session": "s1", "prompt": "support/answer", "evaluate": 0.0}
//
// The span around the call names the session; the instrumentation's own span lies inside it and does not.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { SpanStatusCode } from '@opentelemetry/api';
import { NodeTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-node';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { LoggerProvider, BatchLogRecordProcessor } from '@opentelemetry/sdk-logs';
import { OTLPLogExporter } from '@opentelemetry/exporter-logs-otlp-http';
import { registerInstrumentations } from '@opentelemetry/instrumentation';
import { OpenAIInstrumentation } from '@opentelemetry/instrumentation-openai';

const [data, providerUrl] = process.argv.slice(2);
const spans = new NodeTracerProvider({
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: `${data}/otlp/v1/traces`, compression: 'gzip' }))],
});
spans.register();
const logs = new LoggerProvider({
  processors: [new BatchLogRecordProcessor({ exporter: new OTLPLogExporter({ url: `${data}/otlp/v1/logs` }) })],
});
registerInstrumentations({ instrumentations: [new OpenAIInstrumentation()], tracerProvider: spans, loggerProvider: logs });
// Instrumentations hook into `require`.
const OpenAI = createRequire(import.meta.url)('openai');

const client = new OpenAI({ baseURL: `${providerUrl}/v1`, apiKey: 'not-a-key', maxRetries: 0, timeout: 20_000 });
const tracer = spans.getTracer('app');
const logger = logs.getLogger('app');

for await (const line of createInterface({ input: process.stdin })) {
  const ask = JSON.parse(line);
  const attributes = { 'gen_ai.conversation.id': ask.session, 'gen_ai.prompt.name': ask.prompt };
  const error = await tracer.startActiveSpan('turn', { attributes }, async (span) => {
    let error = null;
    try {
      const messages = [{ role: 'user', content: 'hello' }];
      await client.chat.completions.create({ model: 'demo-model', messages }, { headers: ask.headers });
    } catch (failed) {
      if (!(failed instanceof OpenAI.APIError)) throw failed;
      error = failed.constructor.name;
      span.setStatus({ code: SpanStatusCode.ERROR });
    }
    if ('evaluate' in ask) {
      logger.emit({
        eventName: 'gen_ai.evaluation.result',
        attributes: { 'gen_ai.evaluation.name': 'task_completion', 'gen_ai.evaluation.score.value': ask.evaluate },
      });
    }
    span.end();
    return error;
  });
  await spans.forceFlush();
  await logs.forceFlush();
  console.log(JSON.stringify({ error, flushed: true }));
}
process.exit(0);
