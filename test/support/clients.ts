import {
  Agent,
  type ClientRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
} from 'node:http';
import { connect, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import { until, withKey } from './server.js';

export interface RawRequest {
  method?: string;
  headers?: Record<string, string | string[]>;
  body?: string | Buffer;
  agent?: Agent;
}

/** An answer as it arrives; everything may be read before it has ended. */
export interface RawReply {
  status: number;
  headers: IncomingHttpHeaders;
  rawHeaders: string[];
  response: IncomingMessage;
  bytes(): Buffer;
  text(): string;
  // biome-ignore lint/suspicious/noExplicitAny: answers are judged by the assertions on them
  json(): any;
  /** Resolves when nothing more comes: true if the body ended in order. */
  whole: Promise<boolean>;
  /** Drops the connection. */
  leave(): void;
}

/** A request by node:http: any header, any bytes; resolves at the head of the answer. */
export async function rawRequest(url: string, path: string, options: RawRequest = {}): Promise<RawReply> {
  return replyTo(startRequest(url, path, options));
}

/** The same, not yet answered; for clients that leave before the head. */
export function startRequest(url: string, path: string, options: RawRequest = {}): ClientRequest {
  const { body, headers = {}, method = body === undefined ? 'GET' : 'POST', agent } = options;
  const type = body === undefined ? {} : { 'content-type': 'application/json' };
  const sent = request(url + path, {
    method,
    headers: { ...type, ...withKey(headers) },
    agent: agent ?? new Agent({ keepAlive: false }),
  });
  sent.on('error', () => {});
  onTestFinished(() => {
    sent.destroy();
  });
  if (body === undefined) sent.end();
  else sent.end(body);
  return sent;
}

export async function replyTo(sent: ClientRequest): Promise<RawReply> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    sent.once('response', resolve);
    sent.once('error', reject);
  });
  const chunks: Buffer[] = [];
  response.on('data', (chunk) => chunks.push(chunk));
  const whole = new Promise<boolean>((resolve) => {
    response.once('close', () => resolve(response.complete));
    response.on('error', () => {});
  });
  const bytes = () => Buffer.concat(chunks);
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    rawHeaders: response.rawHeaders,
    response,
    bytes,
    text: () => bytes().toString(),
    json: () => JSON.parse(bytes().toString()),
    whole,
    leave: () => sent.destroy(),
  };
}

/** A chat body, streaming, for the simulated engine. */
export function chatBody(model: string, more: Record<string, unknown> = {}): string {
  return JSON.stringify({ model, messages: [{ role: 'user', content: 'Hello' }], ...more });
}

/** Starts a stream and waits until its first bytes are here. */
export async function openStream(
  url: string,
  model: string,
  more: Record<string, unknown> = {},
  path = '/v1/chat/completions',
): Promise<RawReply> {
  const reply = await rawRequest(url, path, { body: chatBody(model, { stream: true, ...more }) });
  await until(() => reply.bytes().length > 0, 5000, 'the first byte of the stream');
  return reply;
}

/** The `data:` payloads of a stream. */
export function payloads(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('data:'))
    .map((line) => line.slice(5).trim());
}

/** One event that was pushed. */
export interface Frame {
  id: string;
  event: string;
  // biome-ignore lint/suspicious/noExplicitAny: frames are judged by the assertions on them
  data: any;
}

/** The whole events of a stream so far, without comments. */
export function framesOf(reply: RawReply): Frame[] {
  return reply
    .text()
    .split('\n\n')
    .slice(0, -1)
    .filter((block) => !block.startsWith(':'))
    .map((block) => {
      const field = (name: string) => new RegExp(`^${name}: ?(.*)$`, 'm').exec(block)?.[1] ?? '';
      return { id: field('id'), event: field('event'), data: JSON.parse(field('data')) };
    });
}

/** A bare connection: writes bytes, collects bytes. */
export interface Wire {
  socket: Socket;
  received(): string;
  closed: Promise<void>;
}

export async function dial(url: string): Promise<Wire> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
  onTestFinished(() => {
    socket.destroy();
  });
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  socket.on('error', () => {});
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => resolve());
    socket.once('end', () => resolve());
  });
  await new Promise<void>((resolve) => socket.once('connect', () => resolve()));
  return { socket, received: () => text, closed };
}

/** A request as it is written on the wire. */
export function wireRequest(path: string, body: string, headers: Record<string, string> = {}): string {
  const lines = Object.entries({
    host: 'localhost',
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
    ...withKey(headers),
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `POST ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`;
}
