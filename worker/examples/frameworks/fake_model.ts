// What the fake models of these examples answer: a few words, one by one, and "slowly" one word and
// then nothing more, until their caller gives up.

export async function* words(text: string, signal?: AbortSignal): AsyncGenerator<string> {
  yield "Roses ";
  if (text.includes("slowly")) await givenUp(signal);
  yield* ["are ", "red."];
}

function givenUp(signal?: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal?.addEventListener("abort", () => {
      console.error("the model's caller gave up");
      reject(signal.reason);
    });
  });
}
