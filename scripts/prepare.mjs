// Installs what is missing and builds what is stale, with nothing but Node and npm. Says what it does while it takes time.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const INSTALL_STAMP = join(root, 'node_modules', '.troupe-installed');
const SERVER_STAMP = join(root, 'dist', '.troupe-built');
const PAGE_STAMP = join(root, 'dist', '.page-built');
const PAGE = join(root, 'src', 'dashboard');

/** Makes the clone ready to run: packages as the lockfile says, `dist/` as the sources say. */
export async function prepare() {
  refuseOldNode();
  install();
  buildServer();
  await buildPageIfStale();
}

function install() {
  const wanted =
    digest([join(root, 'package-lock.json'), join(root, 'package.json')]) + process.versions.modules;
  if (read(INSTALL_STAMP) === wanted) return;
  say('installing packages; the first time SQLite may be compiled, which takes two or three minutes …');
  // Not `npm ci`: it refuses a lockfile that lacks another platform's optional binaries. The lockfile stays as it is.
  run('npm', ['install', '--no-save', '--no-audit', '--no-fund', '--loglevel=error']);
  writeFileSync(INSTALL_STAMP, wanted);
}

function buildServer() {
  const wanted = digest([
    ...filesBelow(join(root, 'src')).filter((file) => !file.startsWith(PAGE)),
    join(root, 'tsconfig.json'),
    join(root, 'package-lock.json'),
  ]);
  if (read(SERVER_STAMP) === wanted) return;
  say('building the server …');
  run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json']);
  writeFileSync(SERVER_STAMP, wanted);
}

async function buildPageIfStale() {
  const wanted = digest([
    ...filesBelow(PAGE),
    join(root, 'scripts', 'build-page.mjs'),
    join(root, 'package-lock.json'),
  ]);
  if (read(PAGE_STAMP) === wanted) return;
  say('building the page …');
  // Only now: its packages may have been installed a moment ago.
  const { buildPage } = await import('./build-page.mjs');
  try {
    await buildPage(root);
  } catch (error) {
    say(`the page could not be built: ${error.message}`);
    process.exit(1);
  }
  writeFileSync(PAGE_STAMP, wanted);
}

/** Runs a program to its end with our terminal; a failure ends this process with the same code. */
function run(program, args) {
  const { status, error } = spawnSync(program, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error !== undefined) say(`${program} could not be run: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}

function refuseOldNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if ((major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major > 22) return;
  say(`Node ${process.versions.node} is too old: 20.19 or newer, or 22.12 or newer, is needed`);
  process.exit(1);
}

function say(text) {
  process.stderr.write(`troupe: ${text}\n`);
}

function read(file) {
  return existsSync(file) ? readFileSync(file, 'utf8') : null;
}

function digest(files) {
  const hash = createHash('sha256');
  for (const file of files) hash.update(file.slice(root.length)).update(readFileSync(file));
  return hash.digest('hex');
}

function filesBelow(directory) {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
    .sort();
}
