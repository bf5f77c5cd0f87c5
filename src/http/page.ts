import { existsSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { fileURLToPath } from 'node:url';
import sirv from 'sirv';
import { ApiError } from './errors.js';
import { pathOf } from './send.js';

/** Where the build puts the page; the same from the sources as from the built server. */
export const BUILT_PAGE = fileURLToPath(new URL('../../dist/dashboard/', import.meta.url));

const BASE = '/dashboard';
const A_YEAR_SECS = 31_536_000;

export interface Page {
  /** True: it was a request for the page, and is answered. Throws an `ApiError` where it cannot be. */
  serve(req: IncomingMessage, res: ServerResponse): boolean;
}

/** What the page must know before it asks for anything: a refusal would stand in the browser's console. */
const ACCESS = `${BASE}/access.json`;

/** The dashboard's files. They hold no data, so nobody needs a credential for them. `isOpen`: nobody has to log in. */
export function pageOf(directory: string, isOpen: boolean): Page {
  const options = { etag: true, brotli: true, gzip: true, setHeaders: cacheControl };
  const isBuilt = existsSync(directory);
  const assets = isBuilt ? sirv(directory, options) : null;
  // Ids in a page's path may look like names of files: whatever is no file is the page.
  const pages = isBuilt ? sirv(directory, { ...options, single: true, ignores: false }) : null;

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
      if (path === ACCESS) {
        res.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' });
        res.end(JSON.stringify({ is_open: isOpen }));
        return true;
      }
      const files = path.startsWith(`${BASE}/assets/`) ? assets : pages;
      if (files === null) {
        throw new ApiError('not_found', 'the page has not been built: npm run build');
      }
      // Files are looked up below their own directory.
      req.url = (req.url ?? '').slice(BASE.length) || '/';
      files(req, res, () => {
        res.writeHead(404, { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' });
        res.end('there is no such file\n');
      });
      return true;
    },
  };
}

/** A name with a hash in it never means anything else; the page itself is asked about each time. */
function cacheControl(res: ServerResponse, path: string): void {
  const isHashed = path.startsWith('/assets/');
  res.setHeader('cache-control', isHashed ? `public, max-age=${A_YEAR_SECS}, immutable` : 'no-cache');
}
