// The gateway's clock. Ages and bars are reckoned from its times, and a reader's machine may be
// minutes off: how far is learned from the responses' Date.

const TOLERATED = 2; // seconds: a Date has whole ones, and a response takes its time

let ahead = 0;

/** Take over when a response was made, by its `Date` (RFC 9110, 6.6.1). */
export function learn(date) {
  const difference = Date.parse(date ?? "") / 1000 - Date.now() / 1000;
  if (Math.abs(difference) > TOLERATED) ahead = difference;
  else if (!Number.isNaN(difference)) ahead = 0;
}

/** Unix time in seconds, as the gateway has it. */
export const now = () => Date.now() / 1000 + ahead;
