// The page: dist/dashboard from src/dashboard, each file also compressed, so that the server only picks one.
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { build } from 'vite';

const WORTH_BYTES = 1024;

/** Rejects with the compiler's words. */
export async function buildPage(root) {
  await build({ configFile: join(root, 'src', 'dashboard', 'vite.config.ts'), logLevel: 'error' });
  const directory = join(root, 'dist', 'dashboard');
  for (const name of readdirSync(directory, { recursive: true })) {
    const file = join(directory, name);
    if (!/\.(js|css|html|svg|json)$/.test(name) || statSync(file).size < WORTH_BYTES) continue;
    const bytes = readFileSync(file);
    writeFileSync(`${file}.br`, brotliCompressSync(bytes));
    writeFileSync(`${file}.gz`, gzipSync(bytes, { level: 9 }));
  }
}
