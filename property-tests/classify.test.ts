import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type AttemptEnd, classify } from '../src/machines/classify.js';

const status = fc.integer({ min: 200, max: 599 });
const twoHundred = fc.integer({ min: 200, max: 299 });
const upward = fc.integer({ min: 300, max: 599 });
const error = fc.string({ minLength: 1 });

test('a complete 2xx is a success to all', () => {
  fc.assert(
    fc.property(twoHundred, (code) => {
      expect(classify({ how: 'complete', status: code })).toEqual({
        counted: 'success',
        outcome: 'success',
        timeline: 'success',
        statusCode: code,
        error: null,
      });
    }),
  );
});

test('another status and a broken attempt are a failure to all', () => {
  const failed = { counted: 'failure', outcome: 'failure', timeline: 'error' };
  fc.assert(
    fc.property(upward, status, error, (code, other, message) => {
      expect(classify({ how: 'refused', status: code })).toMatchObject({ ...failed, statusCode: code });
      expect(classify({ how: 'broken', status: other, error: message })).toEqual({
        ...failed,
        statusCode: other,
        error: message,
      });
    }),
  );
});

test('a client that leaves counts by what it had been sent', () => {
  expect(classify({ how: 'left', status: null })).toMatchObject({
    counted: 'none',
    outcome: 'cancelled',
    timeline: 'none',
    statusCode: 499,
    error: expect.any(String),
  });
  fc.assert(
    fc.property(twoHundred, upward, (good, bad) => {
      expect(classify({ how: 'left', status: good })).toEqual({
        counted: 'success',
        outcome: 'cancelled',
        timeline: 'success',
        statusCode: good,
        error: null,
      });
      expect(classify({ how: 'left', status: bad })).toEqual(classify({ how: 'refused', status: bad }));
    }),
  );
});

test('what Troupe ends itself is no step of the endpoint, and an error to the client', () => {
  fc.assert(
    fc.property(status, error, (code, message) => {
      expect(classify({ how: 'ended', status: code, error: message })).toEqual({
        counted: 'none',
        outcome: 'failure',
        timeline: 'error',
        statusCode: code,
        error: message,
      });
    }),
  );
});

test('in every case the parts agree with each other', () => {
  const end: fc.Arbitrary<AttemptEnd> = fc.oneof(
    fc.record({ how: fc.constant('complete' as const), status: twoHundred }),
    fc.record({ how: fc.constant('refused' as const), status: upward }),
    fc.record({ how: fc.constantFrom('broken' as const, 'ended' as const), status, error }),
    fc.record({ how: fc.constant('left' as const), status: fc.option(status) }),
  );
  fc.assert(
    fc.property(end, (one) => {
      const { counted, outcome, timeline, error: told } = classify(one);
      if (timeline === 'success') expect([counted, told]).toEqual(['success', null]);
      if (timeline === 'error') expect([counted === 'success', told === null]).toEqual([false, false]);
      if (outcome === 'success') expect(timeline).toBe('success');
      if (outcome === 'failure') expect(timeline).toBe('error');
    }),
  );
});
