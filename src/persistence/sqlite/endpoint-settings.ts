import type { EndpointConfig, EndpointDeadlines, ModelSettings } from '../store.js';

/** The columns of an endpoint that hold JSON; a file of an earlier version that cannot be written lacks some. */
export interface SettingColumns {
  deadlines?: string;
  models_allow?: string | null;
  models_deny?: string | null;
  model_settings?: string;
}

type Settings = Pick<EndpointConfig, 'deadlines' | 'modelsAllow' | 'modelsDeny' | 'modelSettings'>;

/** One that cannot be read is as if nobody had made it, and named. */
export function readSettings(row: SettingColumns): { settings: Settings; unreadable: string[] } {
  const unreadable: string[] = [];

  function read<T>(column: keyof SettingColumns, fits: (value: unknown) => value is T): T | undefined {
    const text = row[column];
    if (text === null || text === undefined) return undefined;
    const value = parsed(text);
    if (fits(value)) return value;
    unreadable.push(column);
    return undefined;
  }

  const settings = {
    deadlines: read('deadlines', isDeadlines) ?? {},
    modelsAllow: read('models_allow', isGlobs) ?? null,
    modelsDeny: read('models_deny', isGlobs) ?? null,
    modelSettings: read('model_settings', isByModel) ?? {},
  };
  return { settings, unreadable };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isDeadlines(value: unknown): value is EndpointDeadlines {
  if (!isRecord(value)) return false;
  const { models = {}, ...own } = value;
  return isNumbers(own) && isByModel(models);
}

function isGlobs(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string');
}

function isByModel(value: unknown): value is Record<string, ModelSettings> {
  return isRecord(value) && Object.values(value).every(isNumbers);
}

function isNumbers(value: unknown): boolean {
  return isRecord(value) && Object.values(value).every((one) => typeof one === 'number');
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
