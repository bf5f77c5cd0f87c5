import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { H3, type H3Event, type HTTPError, serveStatic, toNodeHandler } from 'h3';
import { ApiError } from './errors.js';
import { pathOf } from './send.js';

/** Where the build puts the page; the same from the sources as from the built server. */
export const BUILT_PAGE = fileURLToPath(new URL('../../dist/dashboard/', import.meta.url));

const BASE = '/dashboard';
const ASSETS = `${BASE}/assets/`;
const INDEX = `${BASE}/index.html`;
/** What the page must know before it asks for anything: a refusal would stand in the browser's console. */
const ACCESS = `${BASE}/access.json`;
/** By the endings that the build gives compressed files. */
const CODINGS: Record<string, string> = { '.br': 'br', '.gz': 'gzip' };
const CODED = /\.(?:br|gz)$/;

export interface Page {
  /** True: it was a request for the page, and is answered. Throws an `ApiError` where it cannot be. */
  serve(req: IncomingMessage, res: ServerResponse): boolean;
}

interface File {
  bytes: Uint8Array<ArrayBuffer>;
  etag: string;
}

/** The dashboard's files. They hold no data, so nobody needs a credential for them. `isOpen`: nobody has to log in. */
export function pageOf(directory: string, isOpen: boolean): Page {
  const files = filesIn(directory);
  const app = new H3({ silent: true, onError: missing });
  app.get(ACCESS, (event) => {
    event.res.headers.set('cache-control', 'no-store');
    return { is_open: isOpen };
  });
  app.get('/**', (event) => answer(event, files));
  const handler = toNodeHandler(app);

  return {
    serve(req, res) {
      const path = pathOf(req);
      if (path !== '/' && path !== BASE && !path.startsWith(`${BASE}/`)) return false;
      if (req.method !== 'GET' && req.method !== 'HEAD') {
        throw new ApiError('method_not_allowed', `${req.method} does not work here; GET, HEAD do`, {
          headers: { allow: 'GET, HEAD' },
        });
      }
      if (path === '/') {
        res.writeHead(302, { location: BASE }).end();
        return true;
      }
      if (files.size === 0) throw new ApiError('not_found', 'the page has not been built: npm run build');
      handler(req, res);
      return true;
    },
  };
}

/** In memory from the start: a build beside a running server takes nothing away from it. */
function filesIn(directory: string): ReadonlyMap<string, File> {
  const files = new Map<string, File>();
  if (!existsSync(directory)) return files;
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = join(entry.parentPath, entry.name);
    const bytes = new Uint8Array(readFileSync(file));
    const etag = `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"`;
    files.set(`${BASE}/${file.slice(join(directory, '/').length)}`, { bytes, etag });
  }
  return files;
}

/** Ids in a page's path may look like names of files: whatever is no file is the page. */
function answer(event: H3Event, files: ReadonlyMap<string, File>): unknown {
  const path = event.url.pathname;
  const isPage = !files.has(path) && !path.startsWith(ASSETS);
  const fileAt = (id: string) => files.get(isPage ? INDEX + (CODED.exec(id)?.[0] ?? '') : id);
  // A name with a hash in it never means anything else; the page itself is asked about each time.
  const caching = path.startsWith(ASSETS) ? 'public, max-age=31536000, immutable' : 'no-cache';
  event.res.headers.set('cache-control', caching);
  // Who takes both gets the smaller one.
  const takesBrotli = /\bbr\b/.test(event.req.headers.get('accept-encoding') ?? '');
  return serveStatic(event, {
    encodings: takesBrotli ? { br: '.br' } : { gzip: '.gz' },
    getMeta: (id) => {
      const file = fileAt(id);
      if (file === undefined) return undefined;
      const coding = CODINGS[CODED.exec(id)?.[0] ?? ''];
      return {
        size: file.bytes.length,
        etag: file.etag,
        ...(isPage ? { type: 'text/html; charset=utf-8' } : {}),
        ...(coding === undefined ? {} : { encoding: coding }),
      };
    },
    getContents: (id) => fileAt(id)?.bytes,
  });
}

function missing({ status }: HTTPError): Response {
  return new Response(status === 404 ? 'there is no such file\n' : 'the request is malformed\n', {
    status,
    headers: { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' },
  });
}
