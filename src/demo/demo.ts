import type { NamedUrl } from '../config.js';
import { type SimulatedEngine, startSimulatedEngine } from './simulated-engine.js';

export interface Demo {
  endpoints: NamedUrl[];
  /** Begins to send a trickle of requests through the front door. */
  trickle(url: string, key: string): void;
  stop(): Promise<void>;
}

const MODEL = 'demo-chat';
const PROMPTS = [
  'Why is the sky blue?',
  'Write a haiku about load balancers.',
  'Explain an actor model to a stage actor.',
  'Name three uses for a spare GPU.',
];
const FIRST_AFTER_MS = 300;
const EVERY_MS = 1500;

/** Three simulated boxes of clearly different speed, one of which fails now and then. */
export async function startDemo(): Promise<Demo> {
  const engines = await Promise.all([
    startSimulatedEngine({ models: [MODEL], tokensPerSecond: 20, outputTokens: 60, firstTokenMs: 400 }),
    startSimulatedEngine({
      models: [MODEL, 'demo-small'],
      tokensPerSecond: 60,
      outputTokens: 60,
      firstTokenMs: 150,
      engine: 'ollama',
      failureRate: 0.1,
    }),
    startSimulatedEngine({
      models: [MODEL, 'demo-large'],
      tokensPerSecond: 120,
      outputTokens: 60,
      firstTokenMs: 80,
      engine: 'vllm',
    }),
  ]);
  const timers = new Set<NodeJS.Timeout>();
  let next = 0;

  async function ask(url: string, key: string): Promise<void> {
    const content = PROMPTS[next++ % PROMPTS.length];
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
      body: JSON.stringify({ model: MODEL, stream: next % 2 === 0, messages: [{ role: 'user', content }] }),
    });
    await response.arrayBuffer();
  }

  return {
    endpoints: [
      { name: 'slow-box', url: urlOf(engines[0]) },
      { name: 'middling-box', url: urlOf(engines[1]) },
      { name: 'fast-box', url: urlOf(engines[2]) },
    ],
    trickle(url, key) {
      // A failed request is part of the show: it stands on the dashboard, there is nobody to tell here.
      const send = () => ask(url, key).catch(() => {});
      timers.add(setTimeout(send, FIRST_AFTER_MS));
      timers.add(setInterval(send, EVERY_MS));
    },
    async stop() {
      for (const timer of timers) clearTimeout(timer);
      await Promise.all(engines.map((engine) => engine.stop()));
    },
  };
}

function urlOf(engine: SimulatedEngine | undefined): string {
  return engine?.url ?? '';
}
