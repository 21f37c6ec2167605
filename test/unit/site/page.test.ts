import { describe, expect, it } from 'vitest';
import { createAjv } from '../../../provisioner/core/schema/explain.js';
import { type FieldShape, siteFields, sitePage } from '../../../provisioner/site/page.js';

describe('the documentation of the site file', () => {
  it('is what the schema says', async () => {
    await expect(sitePage()).toMatchFileSnapshot('../../../docs/site.md');
  });

  it('gives every field its reason', () => {
    for (const { path, schema } of siteFields()) expect(schema.description?.length ?? 0, path).toBeGreaterThan(5);
  });

  it('gives every field that is no group a default, a choice or an example', () => {
    for (const { path, schema } of siteFields()) {
      if (schema.properties || schema.items?.properties || schema.type === 'boolean') continue;
      const known = schema.default !== undefined || schema.examples || schema.enum || schema.const !== undefined;
      expect(known, path).toBeTruthy();
    }
  });

  it('shows only examples and defaults that the schema itself accepts', () => {
    const check = (path: string, schema: FieldShape) => {
      // A default of `{}` is filled by the defaults of its fields.
      const accepts = createAjv({ useDefaults: true }).compile({ type: 'object', properties: { v: schema as object } });
      for (const value of [...(schema.examples ?? []), ...(schema.default === undefined ? [] : [schema.default])])
        expect(accepts({ v: structuredClone(value) }), `${path}: ${JSON.stringify(value)}`).toBe(true);
      if (schema.items) check(`${path}[]`, schema.items);
    };
    for (const { path, schema } of siteFields()) check(path, schema);
  });
});
