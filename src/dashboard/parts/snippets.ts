import type { ChatRequest } from './chat.js';

export const PROGRAMS = ['curl', 'Python', 'JavaScript'] as const;
export type Program = (typeof PROGRAMS)[number];

/** The same request from a program; the key comes from the environment. `base`: what an OpenAI client calls its base URL. */
export function snippet(program: Program, base: string, request: ChatRequest): string {
  const body = JSON.stringify(request, null, 2);
  if (program === 'curl') {
    return [
      `curl ${base}/chat/completions \\`,
      '  -H "Authorization: Bearer $TROUPE_API_KEY" \\',
      '  -H "Content-Type: application/json" \\',
      `  -d ${shellQuoted(body)}`,
    ].join('\n');
  }
  if (program === 'Python') {
    return [
      'import os',
      'from openai import OpenAI',
      '',
      `client = OpenAI(base_url="${base}", api_key=os.environ["TROUPE_API_KEY"])`,
      'answer = client.chat.completions.create(',
      ...Object.entries(request).map(([name, value]) => `    ${name}=${pythonic(value)},`),
      ')',
      ...(request.stream
        ? [
            'for chunk in answer:',
            '    if chunk.choices:',
            '        print(chunk.choices[0].delta.content or "", end="")',
          ]
        : ['print(answer.choices[0].message.content)']),
    ].join('\n');
  }
  return [
    "import OpenAI from 'openai';",
    '',
    `const client = new OpenAI({ baseURL: '${base}', apiKey: process.env.TROUPE_API_KEY });`,
    `const answer = await client.chat.completions.create(${body});`,
    ...(request.stream
      ? ["for await (const chunk of answer) process.stdout.write(chunk.choices[0]?.delta?.content ?? '');"]
      : ['console.log(answer.choices[0].message.content);']),
  ].join('\n');
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** JSON is Python but for three words. */
function pythonic(value: unknown): string {
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (value === null) return 'None';
  if (Array.isArray(value)) return `[${value.map(pythonic).join(', ')}]`;
  if (typeof value === 'object') {
    return `{${Object.entries(value as object)
      .map(([name, inner]) => `${JSON.stringify(name)}: ${pythonic(inner)}`)
      .join(', ')}}`;
  }
  return JSON.stringify(value);
}
