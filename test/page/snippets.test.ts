import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { ChatRequest } from '../../src/dashboard/parts/chat.js';
import { type Program, snippet } from '../../src/dashboard/parts/snippets.js';

const ORIGIN = 'http://127.0.0.1:7180';
const NASTY = `it's "so" $HOME \`id\` \\ ! \n new	line 日本 🎭 \u2028 ' '' ;rm -rf {x} %s`;

const requests: [string, ChatRequest][] = [
  ['plain', { model: 'm', messages: [{ role: 'user', content: 'Hello!' }], stream: false }],
  [
    'nasty',
    {
      model: "org/o'model:8b",
      messages: [
        { role: 'system', content: NASTY },
        { role: 'user', content: "'" },
      ],
      stream: true,
      temperature: 0.7,
      top_p: 1,
      max_tokens: 100,
    },
  ],
];

/** Runs the snippet with a stand-in for the network, and answers what would have been sent. */
const RUN: Record<Program, (code: string) => unknown> = {
  curl(code) {
    const script = `curl() { for one in "$@"; do printf '%s\\0' "$one"; done; }\n${code}\n`;
    const args = execFileSync('bash', ['-c', script], { env: { TROUPE_API_KEY: 'sk_1' } })
      .toString()
      .split('\0');
    expect(args[0]).toBe(`${ORIGIN}/v1/chat/completions`);
    expect(args).toContain('Authorization: Bearer sk_1');
    expect(args).toContain('Content-Type: application/json');
    return JSON.parse(args[args.indexOf('-d') + 1] as string);
  },
  Python(code) {
    const directory = mkdtempSync(join(tmpdir(), 'troupe-python-'));
    writeFileSync(
      join(directory, 'openai.py'),
      `import json
class OpenAI:
    def __init__(self, base_url, api_key):
        assert (base_url, api_key) == ("${ORIGIN}/v1", "sk_1")
        self.chat = self.completions = self
    def create(self, **sent):
        print(json.dumps(sent))
        raise SystemExit
`,
    );
    const env = { PATH: process.env.PATH, PYTHONPATH: directory, TROUPE_API_KEY: 'sk_1', PYTHONUTF8: '1' };
    return JSON.parse(execFileSync('python3', ['-'], { env, input: code }).toString());
  },
  JavaScript(code) {
    const directory = mkdtempSync(join(tmpdir(), 'troupe-node-'));
    const module = join(directory, 'node_modules', 'openai');
    mkdirSync(module, { recursive: true });
    writeFileSync(join(module, 'package.json'), '{"type":"module","exports":"./index.js"}');
    writeFileSync(
      join(module, 'index.js'),
      `export default class {
  constructor({ baseURL, apiKey }) {
    if (baseURL !== '${ORIGIN}/v1' || apiKey !== 'sk_1') throw new Error(baseURL);
    this.chat = { completions: { create: async (sent) => { console.log(JSON.stringify(sent)); process.exit(); } } };
  }
}
`,
    );
    writeFileSync(join(directory, 'run.mjs'), code);
    const env = { PATH: process.env.PATH, TROUPE_API_KEY: 'sk_1' };
    return JSON.parse(execFileSync(process.execPath, ['run.mjs'], { cwd: directory, env }).toString());
  },
};

const hasPython = (() => {
  try {
    execFileSync('python3', ['--version']);
    return true;
  } catch {
    return false;
  }
})();

for (const program of ['curl', 'Python', 'JavaScript'] as const) {
  const isAbsent = program === 'Python' && !hasPython;
  test.skipIf(isAbsent).each(requests)(
    `the ${program} snippet sends exactly the request that it shows (%s)${isAbsent ? ' (skipped: no Python)' : ''}`,
    (_, request) => {
      expect(RUN[program](snippet(program, `${ORIGIN}/v1`, request))).toEqual(request);
    },
  );
}
