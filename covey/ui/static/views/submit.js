// Starting a run.

import { post } from "../api.js";
import { address, confirmed, el, section } from "../dom.js";
import { button } from "../parts.js";

const EXAMPLE = `name = "first"
[task]
name = "digits"
[rounds]
count = 5
min_nodes = 2
`;

export function submitView() {
  const { element, box } = section("Start a run");
  const text = el("textarea", { id: "spec", rows: "16", spellcheck: "false", placeholder: EXAMPLE });
  async function submit() {
    if (!(await confirmed("Submit this run? It is queued at once, and nodes begin to train.", "Submit"))) return;
    const run = await post("/api/submit", text.value);
    location.hash = address("run", run.run);
  }
  box.append(
    el("p", {}, el("label", { for: "spec" }, "Its specification, as TOML; the coordinator checks it, and says what is wrong.")),
    text,
    el("p", {}, button("Submit", submit, "main")),
  );
  return { title: "Start a run", element, refresh: async () => 60000 };
}
