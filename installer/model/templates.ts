/** The templates of roles/, each read and compiled once. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { compileTemplate, type TemplateValues } from '../../provisioner/core/render.js';

export interface Templates {
  /**
   * @param name path below roles/, e.g. `image/files/etc/glance/glance-api.conf.hbs`
   * @param at how it is called in messages
   * @throws RenderError with every fault, each on a line
   */
  compile(name: string, at: string): (values: TemplateValues) => string;
  /** @param path of a service's template below its `files/` */
  readonly render: (service: string, path: string, values: TemplateValues) => string;
}

/** @param rolesDir folder with the services' folders */
export function openTemplates(rolesDir: string): Templates {
  const compiled = new Map<string, (values: TemplateValues) => string>();
  const compile = (name: string, at: string) => {
    const known = compiled.get(name) ?? compileTemplate(at, readFileSync(join(rolesDir, name), 'utf8'));
    compiled.set(name, known);
    return known;
  };
  return {
    compile,
    render: (service, path, values) => {
      const name = `${service}/files/${path}`;
      return compile(name, `roles/${name}`)(values);
    },
  };
}
