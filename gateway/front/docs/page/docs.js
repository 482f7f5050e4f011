// Shows the API. Where the gateway asks for a key, so does the page, before it can show anything: a
// browser sends none with a page. The key stays in this page's memory, and is gone with it.

const form = document.getElementById("key-form");
const refusal = document.getElementById("refusal");

async function load(key) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch("openapi.json", { headers, cache: "no-store" });
  if (response.ok) {
    form.hidden = true;
    show(await response.json(), key);
    return;
  }
  form.hidden = response.status !== 401;
  if (response.status !== 401 || key) {
    const body = await response.json().catch(() => ({}));
    refusal.textContent = body.error?.message ?? `The description could not be read: ${response.status}`;
  }
}

function show(spec, key) {
  const ui = SwaggerUIBundle({
    spec,
    domNode: document.getElementById("swagger-ui"),
    deepLinking: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
    validatorUrl: null, // it would be somebody else's
    onComplete: () => {
      if (key) ui.preauthorizeApiKey("bearer", key);
    },
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  refusal.textContent = "";
  load(document.getElementById("key").value.trim());
});

load("");
