// Standard Schema (standardschema.dev): the interface of zod, valibot, arktype and others.

import { InvalidInput } from "./errors.js";

/** Issues that a caller is shown. */
const MAX_ISSUES = 10;

/**
 * The value as the schema makes it. Throws InvalidInput, which names the paths that do not match.
 *
 * @param {import("./index.js").StandardSchema} schema
 * @param {unknown} value
 * @param {string} name of the whole value: the paths begin with it
 */
export async function validate(schema, value, name) {
  const result = await schema["~standard"].validate(value);
  if (!result.issues) return result.value;
  const shown = result.issues.slice(0, MAX_ISSUES);
  const issues = shown.map((issue) => `${name}${path(issue.path)}: ${issue.message}`);
  const more = result.issues.length - issues.length;
  if (more > 0) issues.push(`and ${more} more`);
  throw new InvalidInput(issues.join("; "));
}

/** @param {ReadonlyArray<PropertyKey | {readonly key: PropertyKey}> | undefined} keys */
function path(keys = []) {
  return keys
    .map((each) => (typeof each === "object" ? each.key : each))
    .map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`))
    .join("");
}
