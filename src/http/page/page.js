"use strict";

// How many earlier pictures are kept in the page.
const MAX_EARLIER = 24;
// Pictures of fewer pixels in a row are shown with sharp pixels.
const SMALL = 128;
const STATE_INTERVAL_MS = 1000;

const element = (id) => document.getElementById(id);
const models = new Map();
let shown = null;

function show(id, isShown) {
  element(id).hidden = !isShown;
}

function say(text) {
  element("message").textContent = text;
}

// Sends a request, with the token if there is one. Throws an error whose message says what is wrong.
async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) {
    return response;
  }
  if (response.status === 401) {
    show("access", true);
    show("job", false);
  }
  const body = await response.json().catch(() => ({}));
  const error = new Error(body.error?.message ?? `the daemon answered with ${response.status}`);
  error.status = response.status;
  throw error;
}

async function updateState() {
  try {
    const state = await (await ask("state")).json();
    element("node").textContent = state.node;
    element("phase").textContent = state.phase.replace("_", " ");
    element("queue").textContent = state.queue === 1 ? "1 job" : `${state.queue} jobs`;
    const model = state.models.find((one) => one.name === element("model").value) ?? state;
    element("provider").textContent = model.provider ?? "–";
    element("speed").textContent = model.ms_per_nfe == null ? "–" : `${model.ms_per_nfe} ms`;
    element("temperature").textContent = state.thermal ? `${state.thermal.celsius} °C` : "–";
    const names = state.models.map((one) => one.name).join("\n");
    if (state.phase === "ready" && names !== [...models.keys()].join("\n")) {
      await updateModels();
    }
  } catch (error) {
    element("phase").textContent = error.status === 401 ? "locked" : "not reachable";
  }
}

async function updateModels() {
  const { data } = await (await ask("v1/models")).json();
  const chosen = element("model").value;
  models.clear();
  data.forEach((model) => models.set(model.id, model.denoised));
  element("model").replaceChildren(...data.map((model) => new Option(model.id, model.id)));
  if (models.has(chosen)) {
    element("model").value = chosen;
  }
  showModel();
}

// Shows the fields that the chosen model has.
function showModel() {
  const model = models.get(element("model").value);
  if (!model) {
    return;
  }
  show("prompt-field", model.takes_prompt);
  show("negative-field", model.takes_prompt);
  show("size-field", model.takes_prompt);
  show("guidance-field", model.takes_guidance);
  show("class-field", model.classes.length > 0);
  element("class").replaceChildren(...model.classes.map((name, index) => new Option(name, index)));
  element("steps").placeholder = model.steps;
  element("guidance").placeholder = model.guidance;
}

// The request that the form describes.
function request() {
  const model = models.get(element("model").value);
  const body = { model: element("model").value };
  const set = (field, value) => {
    if (value !== "") {
      body[field] = value;
    }
  };
  const number = (id) => (element(id).value === "" ? "" : Number(element(id).value));
  set("steps", number("steps"));
  set("seed", element("seed").value.trim());
  if (model?.takes_guidance) {
    set("guidance", number("guidance"));
  }
  if (model?.takes_prompt) {
    body.prompt = element("prompt").value;
    set("negative_prompt", element("negative").value);
    set("size", element("size").value.trim());
  }
  if (model?.classes.length > 0) {
    body.class = Number(element("class").value);
  }
  return body;
}

// Yields the events of a response as objects.
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const line = part.split("\n").find((one) => one.startsWith("data: "));
      if (line) {
        yield JSON.parse(line.slice("data: ".length));
      }
    }
  }
}

// Draws, and shows previews meanwhile. Returns the picture, or undefined after an error.
async function draw(body) {
  element("draw").disabled = element("again").disabled = true;
  say("Waiting for the first steps …");
  let picture;
  try {
    const response = await ask("v1/images/generations", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...body, stream: true, preview_every: 1 }),
    });
    for await (const event of eventsOf(response)) {
      if (event.type === "error") {
        throw new Error(event.error.message);
      } else if (event.type === "image_generation.partial_image") {
        show("result", true);
        showImage(event.b64_json, "png", "A preview of the picture");
        say(`Drawing: preview ${event.partial_image_index + 1}`);
      } else if (event.type === "image_generation.completed") {
        picture = { body, file: event.b64_json, format: event.output_format, receipt: event.denoised };
      }
    }
    if (!picture) {
      throw new Error("the connection ended before the picture was finished");
    }
    say("");
  } catch (error) {
    say(`Not drawn: ${error.message}`);
    if (shown) {
      showPicture(shown);
    } else {
      show("result", false);
    }
  } finally {
    element("draw").disabled = element("again").disabled = false;
  }
  return picture;
}

function showImage(file, format, text) {
  const image = element("picture");
  image.onload = () => image.classList.toggle("small", image.naturalWidth < SMALL);
  image.src = `data:image/${format};base64,${file}`;
  image.alt = text;
}

// What a picture shows, in words.
function titleOf({ body }) {
  if (body.prompt) {
    return body.prompt;
  }
  const name = models.get(body.model)?.classes[body.class];
  return name === undefined ? body.model : `${body.model}: ${name}`;
}

function showPicture(picture) {
  shown = picture;
  const { receipt } = picture;
  show("result", true);
  showImage(picture.file, picture.format, titleOf(picture));
  element("caption").textContent = `${titleOf(picture)} (seed ${receipt.seed_text ?? receipt.seed})`;
  const download = element("download");
  download.href = element("picture").src;
  download.download = `${receipt.model}-${receipt.seed_text ?? receipt.seed}.${picture.format}`;
  const facts = ["model", "sampler", "steps", "evaluations", "guidance", "seed", "engine", "provider", "ms_per_nfe"];
  const values = facts.filter((fact) => receipt[fact] != null).map((fact) => [fact.replaceAll("_", " "), receipt[fact]]);
  element("facts").replaceChildren(
    ...values.flatMap(([name, value]) => [textElement("dt", name), textElement("dd", value)]),
  );
  ["download", "again", "facts-field"].forEach((id) => show(id, true));
}

function textElement(name, text) {
  const created = document.createElement(name);
  created.textContent = text;
  return created;
}

// Keeps a picture in the list of earlier ones.
function keep(picture) {
  const image = document.createElement("img");
  image.src = element("picture").src;
  image.alt = titleOf(picture);
  const button = document.createElement("button");
  button.type = "button";
  button.append(image);
  button.addEventListener("click", () => {
    say("");
    showPicture(picture);
  });
  const item = document.createElement("li");
  item.append(button);
  element("earlier").prepend(item);
  [...element("earlier").children].slice(MAX_EARLIER).forEach((old) => old.remove());
  show("earlier-field", true);
}

element("job").addEventListener("submit", async (event) => {
  event.preventDefault();
  const picture = await draw(request());
  if (picture) {
    showPicture(picture);
    keep(picture);
  }
});

element("again").addEventListener("click", async () => {
  const before = shown;
  const { receipt } = before;
  const picture = await draw({ ...before.body, seed: receipt.seed_text ?? String(receipt.seed), steps: receipt.steps });
  if (picture) {
    showPicture(picture);
    say(picture.file === before.file ? "Replayed: the same bytes." : "Replayed: the bytes differ.");
  }
});

element("access").addEventListener("submit", async (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", element("token").value.trim());
  try {
    await updateModels();
    show("access", false);
    show("job", true);
    say("");
  } catch (error) {
    say(`Not accepted: ${error.message}`);
  }
});

element("model").addEventListener("change", showModel);
setInterval(() => document.hidden || updateState(), STATE_INTERVAL_MS);
updateState();
