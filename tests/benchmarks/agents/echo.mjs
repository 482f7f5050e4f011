// Answers at once with its input, or streams as many words of 20 bytes as it says: the agents of
// echo.py and words.py, in JavaScript. Served by worker/typescript/main.js.

const WORD = "twenty bytes of text";

export const concurrency = 8;

export const invoke = async (input) => (input.chunks === undefined ? input : speak(input.chunks));

async function* speak(chunks) {
  for (let i = 0; i < chunks; i++) yield WORD;
}
