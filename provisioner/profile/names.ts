/** Names and numbers of nodes with a profile. Pure. */

/** What the boot plane calls a machine that nobody named: `node-525400990001`. */
export const isMadeUpName = (name: string): boolean => /^node-[0-9a-f]{12}(-[0-9a-z]+)?$/.test(name);

/** `compute-##` and 7: `compute-07`. */
export const nameOf = (template: string, number: number): string =>
  template.replace(/#+/, run => String(number).padStart(run.length, '0'));

/** The number in a name that was made from the template, or null. */
export function numberIn(template: string, name: string): number | null {
  const [head, tail] = template.split(/#+/) as [string, string | undefined];
  if (tail === undefined || !name.startsWith(head) || !name.endsWith(tail)) return null;
  const digits = name.slice(head.length, name.length - tail.length);
  const number = Number(digits);
  return /^\d{1,6}$/.test(digits) && number >= 1 && nameOf(template, number) === name ? number : null;
}
