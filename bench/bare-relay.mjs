// A relay of Node's own server and undici that judges, counts and remembers nothing: `node bare-relay.mjs PORT UPSTREAM_PORT`.
import { createServer } from 'node:http';
import { Pool } from 'undici';

const [port, upstream] = process.argv.slice(2);
const pool = new Pool(`http://127.0.0.1:${upstream}`, { connections: 64, pipelining: 1 });

createServer((req, res) => {
  const chunks = [];
  req.on('data', (chunk) => chunks.push(chunk));
  req.on('end', () => {
    const { url: path, method } = req;
    const headers = { 'content-type': req.headers['content-type'] ?? 'application/json' };
    const body = chunks.length === 0 ? null : Buffer.concat(chunks);
    pool.dispatch(
      { path, method, headers, body },
      {
        onRequestStart() {},
        onResponseStart(_controller, status, { 'content-type': type, 'content-length': length }) {
          res.writeHead(status, { 'content-type': type, ...(length ? { 'content-length': length } : {}) });
        },
        onResponseData(_controller, chunk) {
          res.write(chunk);
        },
        onResponseEnd() {
          res.end();
        },
        onResponseError() {
          res.destroy();
        },
      },
    );
  });
}).listen(Number(port), '127.0.0.1');
