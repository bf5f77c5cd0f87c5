// An upstream of SSE streams: `node stream-upstream.mjs PORT`. The request's `seed` field says chunks and pause: "CHUNKS/PAUSE_MS".
import { createServer } from 'node:http';

const MODEL = 'bench-model';
const event = (fields) =>
  `data: ${JSON.stringify({ id: 'chatcmpl-bench', object: 'chat.completion.chunk', created: 1700000000, model: MODEL, ...fields })}\n\n`;
const CHUNK = event({ choices: [{ index: 0, delta: { content: ' word' }, finish_reason: null }] });
const STOP = event({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] });
const DONE = 'data: [DONE]\n\n';

createServer((req, res) => {
  if (req.method === 'GET') {
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify({ object: 'list', data: [{ id: MODEL, object: 'model', owned_by: 'bench' }] }));
    return;
  }
  let body = '';
  req.on('data', (part) => {
    body += part;
  });
  req.on('end', () => {
    const [chunks, pauseMs] = JSON.parse(body).user.split('/').map(Number);
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    let sent = 0;
    const finish = () => {
      const usage = { prompt_tokens: 8, completion_tokens: chunks, total_tokens: 8 + chunks };
      res.end(STOP + event({ choices: [], usage }) + DONE);
    };
    if (pauseMs > 0) {
      const timer = setInterval(() => {
        if (sent++ < chunks) res.write(CHUNK);
        else {
          clearInterval(timer);
          finish();
        }
      }, pauseMs);
      res.on('close', () => clearInterval(timer));
      return;
    }
    // Each chunk is a write of its own, as engines do it, but as fast as the reader takes them.
    const more = () => {
      if (res.destroyed) return;
      if (sent++ >= chunks) finish();
      else if (res.write(CHUNK)) setImmediate(more);
      else res.once('drain', more);
    };
    more();
  });
}).listen(Number(process.argv[2]), '127.0.0.1', 4096);
