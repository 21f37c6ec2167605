/** What the descriptions of routes share. */
import { type TProperties, type TSchema, Type } from 'typebox';
import * as S from './schemas.js';

export const query = <P extends TProperties>(properties: P) => Type.Object(properties, { additionalProperties: false });

/** The response of a route: one good answer, and problems. */
export const answers = (status: number, schema: TSchema, description: string) => ({
  [status]: { description, content: { 'application/json': { schema } } },
  '4xx': { description: 'A problem', content: { 'application/json': { schema: S.ProblemSchema } } },
  '5xx': { description: 'A problem', content: { 'application/json': { schema: S.ProblemSchema } } },
});
